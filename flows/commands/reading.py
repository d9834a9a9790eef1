"""Commands that look into a file: a row, the first rows, where a row came from, figures of all columns."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.options import AsJson, ConfigFile, OutputName, s3_of
from h5dat_lib.errors import InputError, OutputError

if TYPE_CHECKING:
    from h5dat_lib.read.files import File
    from h5dat_lib.read.tables import Table

Address = Annotated[str, typer.Argument(metavar="ROW", help="A class and a row, images/3; or a class and a member, images/shop/1163.jpg.")]
Limit = Annotated[int, typer.Option("--number", "--limit", "-n", min=1, help="At most so many.")]


def show(
    file: OutputName,
    row: Address,
    save: Annotated[Path | None, typer.Option("--save", metavar="PNG", help="Write the picture to a file, too.")] = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Show a row: its values, and its picture where the terminal has colours."""
    from flows.pictures import save_picture, show_picture
    from h5dat_lib.read.files import open_tables

    with open_tables(file, s3_of(config)) as opened:
        table, number = row_of(opened, row)
        pixels = table["pixels"][number] if "pixels" in table.columns else None
        values = {"row": f"{table.class_name}/{number}", "member": _member(table, number), **_plain_values(table, number)}
        pairs = {key: value for key, value, _ in table.pairs(number)}
    if save is not None:
        save_picture(pixels, save, row)
    if as_json:
        typer.echo(json.dumps(values | {"pairs": pairs}, indent=2, default=str))
        return
    if pixels is not None:
        show_picture(pixels)
    _print_values(values | pairs)


def head(
    file: OutputName,
    name: Annotated[str, typer.Argument(metavar="CLASS", help="A class, as `h5dat ls` lists them.")],
    number: Limit = 10,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Show the first rows of a class: all columns of numbers, words, dates and categories."""
    from flows.display import show_rows
    from h5dat_lib.read.files import open_tables

    with open_tables(file, s3_of(config)) as opened:
        table = opened[name]
        rows = table.table(rows=range(min(number, len(table)))).to_pylist()
    typer.echo(json.dumps(rows, indent=2, default=str)) if as_json else show_rows(rows)


def origin(file: OutputName, row: Address, config: ConfigFile = None, as_json: AsJson = False) -> None:
    """Show where a row came from: archive, member, checksums, converter, run."""
    from h5dat_lib.read.files import open_tables
    from h5dat_lib.reporting.in_words import moment

    with open_tables(file, s3_of(config)) as opened:
        table, number = row_of(opened, row)
        found = asdict(table.origin(number))
    typer.echo(json.dumps(found, indent=2)) if as_json else _print_values(found | {"time": f"{moment(found['time'])} UTC"})


def stats(
    file: OutputName,
    pictures: Annotated[int, typer.Option("--pictures", min=0, help="How many pictures of a class are looked at; 0: all.")] = 1000,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="HTML", help="Write a page with pictures and charts to a file instead.")
    ] = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Show figures of each column: bytes stored and decoded, mean and deviation of pictures by channel, how often each label is there."""
    from flows.display import show_statistics
    from h5dat_lib.read.files import open_tables
    from h5dat_lib.reporting.statistics import statistics

    if plot is not None:
        _plot(file, plot, pictures or None, config, as_json)
        return
    with open_tables(file, s3_of(config)) as opened:
        figures = statistics(opened, pictures or None)
    typer.echo(json.dumps([asdict(figure) for figure in figures], indent=2)) if as_json else show_statistics(figures)


def _plot(file: str, page: Path, pictures: int | None, config: Path | None, as_json: bool) -> None:
    """Writes the page, and says how large it is."""
    from h5dat_lib.reporting.in_words import size
    from h5dat_lib.reporting.page import report

    data = report(file, pictures, s3_of(config)).encode("utf-8", "xmlcharrefreplace")
    try:
        page.write_bytes(data)
    except OSError as exc:
        raise OutputError(f"{page}: the page could not be written ({exc}); name another file") from exc
    typer.echo(json.dumps({"plot": str(page), "bytes": len(data)}) if as_json else f"{page}: {size(len(data))}")


def row_of(opened: File, address: str) -> tuple[Table, int]:
    """The table and the row of an address. Raises InputError when there is none."""
    names = [name for name in opened.tables if address.startswith(f"{name}/")]
    if not names:
        raise InputError(
            f"{opened.path}: found {address!r}, expected CLASS/ROW or CLASS/MEMBER; classes: {', '.join(opened.tables) or 'none'}"
        )
    table = opened[max(names, key=len)]
    which = address[len(table.class_name) + 1 :]
    if which.isdecimal() and int(which) < len(table):
        return table, int(which)
    rows = table.rows_of(which)
    if not len(rows):
        raise InputError(f"{opened.path}: {table.class_name} has {len(table)} rows and no row or member {which!r}")
    return table, int(rows[0])


def _member(table: Table, number: int) -> str:
    return table.origin(number).member


def _plain_values(table: Table, number: int) -> dict[str, Any]:
    """Values of a row; of arrays and files their shape, type or size."""
    from h5dat_lib.read.columns import python_value

    return {name: _described(python_value(value)) for name, value in table[number].items()}


def _described(value: Any) -> Any:
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    shape = getattr(value, "shape", None)
    return f"{' x '.join(map(str, shape))} {value.dtype}" if shape is not None else value


def _print_values(values: dict[str, Any]) -> None:
    from flows.display import show_values

    show_values(values)
