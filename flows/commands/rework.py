"""Commands on finished files: what differs between two, several made one, one stored in another way."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated, Any

import typer

from flows.options import AsJson, ConfigFile, OutputName, Quiet, s3_of

_FILE = "An HDF5 file that h5dat made, or s3://bucket/key."


def diff(
    a: Annotated[str, typer.Argument(metavar="A", help=_FILE)],
    b: Annotated[str, typer.Argument(metavar="B", help=_FILE)],
    limit: Annotated[int, typer.Option("--limit", "-n", min=0, help="List at most so many differences; the rest is counted.")] = 50,
    runs: Annotated[bool, typer.Option("--runs", help="Compare also the runs that made them, and when members came in.")] = False,
    config: ConfigFile = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Compare two files by their values, whatever their storage. Exit code 0: the same; 1: they differ; 2: they cannot be compared."""
    from flows.display import show_compared
    from h5dat_lib.rewriting.difference import diff as compare

    compared = compare(a, b, limit, runs, s3_of(config))
    if as_json:
        typer.echo(json.dumps(asdict(compared), indent=2))
    elif not quiet:
        show_compared(compared)
    if not compared.same:
        raise typer.Exit(1)


def merge(
    files: Annotated[list[str], typer.Argument(metavar="FILE...", help="HDF5 files that h5dat made, or s3://bucket/key; two or more.")],
    output: Annotated[str, typer.Option("--output", "-o", metavar="FILE", help="The new file, on a local disk.")],
    new_run: Annotated[bool, typer.Option("--new-run", help="Merge also files that were made with different configurations.")] = False,
    config: ConfigFile = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Make one file of several, as if all their archives had been ingested into it. An archive that several have comes in once."""
    from flows.display import show_merged
    from h5dat_lib.rewriting.merging import merge as merge_files

    merged = merge_files(files, output, new_run, s3_of(config))
    if as_json:
        typer.echo(json.dumps(asdict(merged), indent=2))
    elif not quiet:
        show_merged(merged)


def repack(
    file: OutputName,
    output: Annotated[str | None, typer.Option("--output", "-o", metavar="FILE", help="A new file; in its own place by default.")] = None,
    storage: Annotated[str | None, typer.Option("--storage", help="decoded: pictures that are kept as files become pixels.")] = None,
    layout: Annotated[str | None, typer.Option("--layout", help="Of pictures: dense, ragged, or auto, dense while all are alike.")] = None,
    filter_: Annotated[str | None, typer.Option("--filter", help="deflate or none.")] = None,
    level: Annotated[int | None, typer.Option("--level", help="Of deflate: 0 fastest, 3 smallest; all chunks are made anew.")] = None,
    chunk_bytes: Annotated[int | None, typer.Option("--chunk-bytes", help="Most bytes of a chunk of pixels.")] = None,
    config: ConfigFile = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Store a file's rows in another way, and give back the space that lies waste in it. Values and lineage stay."""
    from flows.display import show_repacked, show_space
    from h5dat_lib.rewriting.repacking import Packing
    from h5dat_lib.rewriting.repacking import repack as repack_file

    wanted: dict[str, Any] = {"storage": storage, "layout": layout, "filter": filter_, "level": level, "chunk_bytes": chunk_bytes}
    repacked = repack_file(file, output, Packing(**wanted), s3_of(config), None if quiet else show_space)
    if as_json:
        typer.echo(json.dumps(asdict(repacked), indent=2))
    elif not quiet:
        show_repacked(repacked)
