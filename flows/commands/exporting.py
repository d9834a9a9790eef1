"""The command that gives rows to other programs: as files, tar shards, Parquet, COCO's JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated

import typer

from flows.options import AsJson, ConfigFile, OutputName, Quiet, s3_of
from h5dat_lib.errors import ConfigError

_FORM_HELP = "folder, webdataset, parquet, huggingface or coco; by default what DEST ends in tells it (.tar, .parquet, .json), or a folder."


def export(
    file: OutputName,
    dest: Annotated[str, typer.Argument(metavar="DEST", help="A new or empty folder; or a file that ends in .tar, .parquet or .json.")],
    to: Annotated[str, typer.Option("--to", metavar="FORM", help=_FORM_HELP)] = "",
    classes: Annotated[str, typer.Option("--classes", metavar="NAMES", help="Only these classes: images,styles.")] = "",
    where: Annotated[str, typer.Option("--where", metavar="SQL", help="Only rows that meet it: \"label = 'Shirts' and height > 9\".")] = "",
    split: Annotated[
        str, typer.Option("--split", metavar="SPLIT", help="A column of names of splits, or shares: train=0.9,test=0.1.")
    ] = "",
    label: Annotated[
        str, typer.Option("--label", metavar="COLUMN", help="The categories that are the label; the only ones by default.")
    ] = "",
    by: Annotated[
        str, typer.Option("--by", metavar="KEY", help="What makes a sample of WebDataset: key, or name, without folders.")
    ] = "key",
    images: Annotated[bool, typer.Option("--images", help="Write the pictures, too, beside COCO's JSON.")] = False,
    shard_bytes: Annotated[
        int, typer.Option("--shard-bytes", min=1, help="About how large a tar or a Parquet file becomes.")
    ] = 500_000_000,
    config: ConfigFile = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Write rows as other programs read them: the original files, WebDataset, Parquet, a data set of Hugging Face, COCO."""
    from flows.display import rows_progress, show_exported
    from h5dat_lib.exporting import ExportOptions
    from h5dat_lib.exporting import export as write

    chosen = [name.strip() for name in classes.split(",")] if classes else None
    options = ExportOptions(chosen, where, _split(split), label, by, images, shard_bytes)
    with rows_progress(quiet or as_json) as watch:
        exported = write(file, dest, to, options, s3=s3_of(config), watch=watch)
    if as_json:
        typer.echo(json.dumps(asdict(exported), indent=2))
    elif not quiet:
        show_exported(exported)


def _split(text: str) -> str | Mapping[str, float]:
    """The name of a column, or shares by the names of splits. Raises ConfigError for shares that are no numbers."""
    if "=" not in text:
        return text
    try:
        return {name.strip(): float(share) for name, share in (part.rsplit("=", 1) for part in text.split(","))}
    except ValueError as exc:
        raise ConfigError(f"--split: found {text!r}, expected a column, or shares such as train=0.9,test=0.1") from exc
