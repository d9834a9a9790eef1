"""The words that several commands have in common."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from h5dat_lib.config import S3Options

ConfigFile = Annotated[
    Path | None, typer.Option("--config", "-c", metavar="FILE", help="A JSON configuration; `h5dat config init` prints one.")
]
SchemaFile = Annotated[Path | None, typer.Option("--schema", "-s", metavar="FILE", help="A JSON schema: which members are of which class.")]
Output = Annotated[
    str,
    typer.Option("--output", "-o", metavar="FILE", help="The HDF5 file, or s3://bucket/key; new archives are added to one that is there."),
]
File = Annotated[Path, typer.Argument(metavar="FILE", help="An HDF5 file that h5dat made.")]
OutputName = Annotated[str, typer.Argument(metavar="FILE", help="An HDF5 file that h5dat made, or s3://bucket/key.")]
ObjectUri = Annotated[str, typer.Argument(metavar="S3_URI", help="s3://bucket/key")]
Archives = Annotated[
    list[str],
    typer.Argument(
        metavar="ARCHIVE...", help="zip, tar, tar.gz/bz2/xz/zst, gz, folder or single file; s3://bucket/key, s3://bucket/folder/."
    ),
]
Workers = Annotated[int | None, typer.Option("--workers", "-w", min=1, help="Processes that convert; one a core by default.")]
Storage = Annotated[
    str | None,
    typer.Option("--storage", help="Of pictures: decoded, their pixels; encoded, the files as they are, decoded when they are read."),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]
Direct = Annotated[bool, typer.Option("--direct", help="Run the same steps without Prefect.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]


def s3_of(config: Path | None) -> S3Options | None:
    """How S3 is reached, where a configuration says so."""
    from h5dat_lib.config import load

    return load(config).s3 if config else None
