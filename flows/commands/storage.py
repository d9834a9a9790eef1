"""Commands that move files to and from S3."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from flows.options import AsJson, ConfigFile, File, ObjectUri, Quiet

Replace = Annotated[bool, typer.Option("--replace", help="Also when both have changed since: what was at the other end is lost.")]


def sync(
    file: File,
    uri: ObjectUri,
    config: ConfigFile = None,
    check: Annotated[bool, typer.Option("--check", help="Change nothing; exit code 1 when the object differs from the file.")] = False,
    replace: Replace = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Make an object in S3 equal to a file; only what has changed is sent."""
    from flows.display import synced_in_words
    from h5dat_lib.config import load
    from h5dat_lib.sync import difference
    from h5dat_lib.sync import sync as sync_file

    if check:
        found = difference(file, uri, load(config).s3)
        _tell({"uri": uri, "path": str(file), "same": not found, "difference": found}, f"{uri}: {found or 'as the file'}", quiet, as_json)
        raise typer.Exit(1 if found else 0)
    took = sync_file(file, uri, load(config).s3, replace)
    _tell({"uri": uri, "path": str(file), **asdict(took)}, f"{uri}: {synced_in_words(took)}", quiet, as_json)


def pull(
    uri: ObjectUri,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The local file.")],
    config: ConfigFile = None,
    replace: Replace = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Make a file equal to an object in S3."""
    from flows.display import synced_in_words
    from h5dat_lib.config import load
    from h5dat_lib.sync import pull as pull_object

    took = pull_object(uri, file, load(config).s3, replace)
    _tell({"uri": uri, "path": str(file), **asdict(took)}, f"{file}: {synced_in_words(took)}", quiet, as_json)


def _tell(result: dict[str, object], line: str, quiet: bool, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(result, indent=2))
    elif not quiet:
        typer.echo(line)
