"""The command line: `h5dat`. Each command parses its words, calls one function, and prints what it returns.

Exit codes: 0 done; 1 done, but a check failed, too many members were rejected, or an archive was damaged; 2 input, output or
configuration that cannot be used, said in one line; 130 interrupted.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.commands import exporting, finding, reading, rework, service, storage
from flows.options import Archives, AsJson, ConfigFile, Direct, File, Output, OutputName, Quiet, SchemaFile, Storage, Workers, s3_of
from h5dat_lib.errors import BudgetExceeded, ConfigError, FormatError, H5datError, InputError, Interrupted, OutputError

if TYPE_CHECKING:
    from h5dat_lib.pipeline import Report

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Archives of mixed files (zip, tar, gz, folders) into HDF5 to train from, under Prefect.",
)
config_app = typer.Typer(no_args_is_help=True, help="The configuration: a file to start from, the effective one, its JSON Schema.")
app.add_typer(config_app, name="config")
_LOOKS = (reading.show, reading.head, reading.origin, finding.find, reading.stats)
for command in (storage.sync, storage.pull, *_LOOKS, exporting.export, rework.diff, rework.merge, rework.repack):
    app.command()(command)

_EXIT_CODES: dict[type[H5datError], int] = {
    InputError: 2,
    OutputError: 2,
    ConfigError: 2,
    FormatError: 2,
    BudgetExceeded: 1,
    Interrupted: 130,
}


def main() -> None:
    """Runs the command line, and turns what the library raises into one line and an exit code."""
    try:
        app()
    except H5datError as exc:
        for line in (exc, *getattr(exc, "__notes__", ())):
            typer.echo(f"h5dat: {line}", err=True)
        sys.exit(next((code for kind, code in _EXIT_CODES.items() if isinstance(exc, kind)), 1))
    except KeyboardInterrupt:
        typer.echo("h5dat: interrupted", err=True)
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()  # what we print to has gone, as in `h5dat ls FILE | head`
        sys.exit(141)


@app.command()
def ingest(
    archives: Archives,
    output: Output,
    config: ConfigFile = None,
    schema: SchemaFile = None,
    storage: Storage = None,
    workers: Workers = None,
    direct: Direct = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for another ingest into this output to end.")] = False,
    restart: Annotated[bool, typer.Option("--restart", help="Make the output anew, not go on with what is there.")] = False,
    new_run: Annotated[bool, typer.Option("--new-run", help="Add to an output that was made with another configuration.")] = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Convert archives into an HDF5 file, as a Prefect flow. The same command again goes on where the last run ended."""
    from flows.display import live_progress
    from h5dat_lib.config import load
    from h5dat_lib.pipeline import Start

    settings, start = load(config, schema, workers=workers, image={"storage": storage}), Start(wait, restart, new_run)
    with live_progress(quiet=quiet or as_json) as display:
        if direct:
            from h5dat_lib.pipeline import ingest as ingest_directly

            report = ingest_directly(archives, output, settings, display, start)
        else:
            from flows.local import ingest as ingest_as_flow

            report = ingest_as_flow(archives, output, settings, display, display.announce, start)
    _tell(report, quiet, as_json)


@app.command()
def retry(
    file: OutputName,
    config: ConfigFile = None,
    workers: Workers = None,
    direct: Direct = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Convert the rejects of a file again, after an upgrade or with a higher limit; what now works becomes rows."""
    from flows.display import live_progress
    from h5dat_lib.config import load
    from h5dat_lib.retrying import last_config

    settings = load(config, workers=workers) if config else last_config(file).model_copy(update={"workers": workers})
    with live_progress(quiet=quiet or as_json) as display:
        if direct:
            from h5dat_lib.retrying import retry as retry_directly

            report = retry_directly(file, settings, display)
        else:
            from flows.local import retry as retry_as_flow

            report = retry_as_flow(file, settings, display, display.announce)
    _tell(report, quiet, as_json, nothing="found no rejects that can be tried again")


def _tell(report: Report, quiet: bool, as_json: bool, nothing: str = "") -> None:
    """Prints how a run ended, ``nothing`` when there was nothing to do; exit code 1 when it found an archive damaged."""
    from flows.display import show_report

    if as_json:
        _print_json(asdict(report))
    elif not quiet:
        show_report(report, nothing)
    if report.damaged:
        raise typer.Exit(1)


@app.command()
def plan(
    archive: Annotated[str, typer.Argument(metavar="ARCHIVE")],
    config: ConfigFile = None,
    schema: SchemaFile = None,
    storage: Storage = None,
    as_json: AsJson = False,
) -> None:
    """Show what an ingest would do: classes, members, bytes and batches. Nothing is converted."""
    from flows.display import show_plan
    from h5dat_lib.config import load
    from h5dat_lib.plan.batches import summarise

    summary = summarise(archive, load(config, schema, image={"storage": storage}))
    _print_json(asdict(summary)) if as_json else show_plan(summary)


@app.command("ls")
def ls_(file: OutputName, config: ConfigFile = None, as_json: AsJson = False) -> None:
    """Show what a file holds: classes, rows, columns, shapes, types, sizes on disk, sources, rejects."""
    from flows.display import show_contents
    from h5dat_lib.read.files import open as open_file

    with open_file(file, s3=s3_of(config)) as opened:
        contents = opened.describe()
    _print_json(contents) if as_json else show_contents(contents)


@app.command()
def rejects(file: OutputName, config: ConfigFile = None, as_json: AsJson = False) -> None:
    """Show every member that was not converted: archive, member, stage, reason."""
    from flows.display import show_rejects
    from h5dat_lib.read.files import open as open_file

    with open_file(file, s3=s3_of(config)) as opened:
        found = [asdict(reject) for reject in opened.rejects()]
    _print_json(found) if as_json else show_rejects(found)


@app.command()
def verify(file: OutputName, config: ConfigFile = None, as_json: AsJson = False) -> None:
    """Re-read a file against its recorded checksums; exit code 1 and the rows on a mismatch."""
    from flows.display import show_verified
    from h5dat_lib.read.verification import verify as check

    verified = check(file, s3_of(config))
    _print_json(asdict(verified)) if as_json else show_verified(file, verified)
    if verified.mismatches:
        raise typer.Exit(1)


@app.command()
def recover(file: File) -> None:
    """Take back what a run had half written when it was killed; the next ingest, and reading by h5dat, do it by themselves."""
    from h5dat_lib.journal import journal_of
    from h5dat_lib.journal import recover as take_back

    if not file.exists() and not journal_of(file).exists():
        raise InputError(f"{file}: no such file, expected an H5DAT file")
    typer.echo(f"{file}: {'taken back to the last commit' if take_back(file) else 'nothing to recover'}")


@app.command()
def up() -> None:
    """Start a Prefect server on this machine that keeps running, and print the address of its UI."""
    from flows.standing_server import up as start

    typer.echo(start())


@app.command()
def down() -> None:
    """Stop the server that `h5dat up` started; its history is kept."""
    from flows.standing_server import down as stop

    typer.echo(stop())


app.command()(service.deploy)
app.command()(service.serve)
app.command()(service.watch)


@config_app.command("init")
def config_init() -> None:
    """Print a configuration to start from: every key with its default, and a comment on what it does."""
    from h5dat_lib.config import commented

    typer.echo(commented())


@config_app.command("show")
def config_show(config: ConfigFile = None, schema: SchemaFile = None) -> None:
    """Print the effective configuration."""
    from h5dat_lib.config import load

    typer.echo(load(config, schema).to_json())


@config_app.command("schema")
def config_schema(
    classes: Annotated[bool, typer.Option("--classes", help="That of a file for --schema instead.")] = False,
    rules: Annotated[bool, typer.Option("--rules", help="That of a file for `watch --rules` instead.")] = False,
) -> None:
    """Print the JSON Schema of the configuration, for editors."""
    from h5dat_lib.config import Config, Schema, json_schema
    from h5dat_lib.landing.rules import Rules

    _print_json(json_schema(Rules if rules else Schema if classes else Config))


def _print_json(data: Any) -> None:
    typer.echo(json.dumps(data, indent=2))


if __name__ == "__main__":
    main()
