"""The command that finds: members by their path, rows by condition and words, pictures by another, duplicates."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from flows.commands.reading import Limit, row_of
from flows.options import AsJson, ConfigFile, OutputName, s3_of
from h5dat_lib.errors import InputError, nearer

if TYPE_CHECKING:
    from h5dat_lib.columns import Array
    from h5dat_lib.read.alike import Wanted
    from h5dat_lib.read.files import File
    from h5dat_lib.read.tables import Table

_ALL = "*"
_SHOWN, _SAVED = 8, 64
"""Pictures like another that are drawn in a terminal, and in a file."""


@dataclass(frozen=True)
class _Asked:
    """Which rows are looked at, and how: what the words of the command say."""

    pattern: str
    where: str
    text: str
    like: str
    distance: int | None
    decode: bool
    number: int


def find(
    file: OutputName,
    pattern: Annotated[str, typer.Argument(metavar="[PATTERN]", help="A glob of member paths, *.jpg, or a text in them.")] = _ALL,
    where: Annotated[str, typer.Option("--where", metavar="SQL", help="Of rows that meet it: \"label = 'Shirts' and height > 9\".")] = "",
    text: Annotated[str, typer.Option("--text", metavar="WORDS", help="Of rows that have all these words in their texts or pairs.")] = "",
    like: Annotated[str, typer.Option("--like", metavar="PICTURE", help="Pictures like this: a file, or a row, images/3.")] = "",
    duplicates: Annotated[bool, typer.Option("--duplicates", help="Groups of rows that are of the same bytes, or look alike.")] = False,
    distance: Annotated[int | None, typer.Option("--distance", help="Bits of 64 that hashes may differ in: 8; of duplicates 0.")] = None,
    decode: Annotated[bool, typer.Option("--decode", help="Compute hashes that are not stored, by decoding those pictures.")] = False,
    number: Limit = 1000,
    save: Annotated[
        Path | None, typer.Option("--save", metavar="PNG", help="Write the nearest pictures of --like as one to a file.")
    ] = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """List members by path, columns and words; pictures like another, nearest first; duplicates. A class that lacks a column has none."""
    from flows.display import show_rows
    from h5dat_lib.read.files import open_tables

    asked = _Asked(pattern, where, text, like, distance, decode, number)
    if (like and duplicates) or (distance is not None and not (like or duplicates)):
        raise InputError("found --like with --duplicates, or --distance with neither, expected one of both")
    if save and not like:
        raise InputError("found --save without --like, expected both")
    with open_tables(file, s3_of(config)) as opened:
        found = _alike(opened, asked) if like else _groups(opened, asked) if duplicates else _members(opened, asked)
        if like:
            _show(opened, found, save, as_json)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    elif like and not found:
        typer.echo(f"nothing within {_distance(asked)} bits of {like}")
    else:
        show_rows(list(_in_lines(found)) if duplicates else found)


def _members(opened: File, asked: _Asked) -> list[dict[str, Any]]:
    if not (asked.where or asked.text):
        return [asdict(found) for found in islice(opened.members(asked.pattern), asked.number)]
    found: list[dict[str, Any]] = []
    for table, rows in _chosen(opened, asked):
        left = range(len(table))[: asked.number - len(found)] if rows is None else rows[: asked.number - len(found)].tolist()
        found += ({"table": str(table.class_name), "row": row, "rows": 1, "member": member} for row, member in _named(table, left))
    return found


def _alike(opened: File, asked: _Asked) -> list[dict[str, Any]]:
    """Raises what the last table raises when nothing is found and one does; otherwise says what was not looked at."""
    wanted, distance = _wanted(opened, asked), _distance(asked)
    tables = [(table, rows) for table, rows in _chosen(opened, asked) if "pixels" in table.columns]
    if not tables:
        raise InputError(f"{opened.path}: found no pictures to compare with, expected a class of them")
    found: list[dict[str, Any]] = []
    failure: InputError | None = None
    for table, rows in tables:
        try:
            alike = table.like(wanted, distance, asked.number, rows, asked.decode)
        except InputError as exc:
            failure = exc
            continue
        for (row, member), one in zip(_named(table, [one.row for one in alike]), alike, strict=True):
            match = "exact" if one.exact else "near"
            found.append({"table": str(table.class_name), "row": row, "member": member, "distance": one.distance, "match": match})
    if not found and failure:
        raise failure
    if not asked.decode:
        _tell_unseen([table for table, _ in tables])
    return sorted(found, key=lambda one: (one["distance"], one["match"]))[: asked.number]


def _show(opened: File, found: list[dict[str, Any]], save: Path | None, as_json: bool) -> None:
    """The nearest pictures as one: a line of them in a terminal with colours, several in a file."""
    from flows.pictures import save_image, show_picture, shows_pictures
    from h5dat_lib.reporting.contact_sheet import sheet

    if not save and (as_json or not shows_pictures()):
        return
    whole = sheet(opened[one["table"]]["pixels"][one["row"]] for one in found[: _SAVED if save else _SHOWN])
    if whole is None:
        return
    if save:
        save_image(whole, save)
    else:
        show_picture(np.asarray(whole))


def _tell_unseen(tables: list[Table]) -> None:
    from h5dat_lib.read.alike import hashes

    for table in tables:
        unseen = len(table) - sum(len(rows) for rows, _ in hashes(table))
        if unseen:
            what = f"{unseen:,} of {len(table):,} rows have no perceptual hash, as of one colour or ingested without (`image.phash`)"
            typer.echo(f"h5dat: {table.class_name}: {what}; only exact copies among them are found, more with --decode", err=True)


def _groups(opened: File, asked: _Asked) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for table, rows in _chosen(opened, asked):
        distance = _distance(asked) if "pixels" in table.columns else 0
        for group in table.duplicates(distance, rows, asked.decode)[: asked.number - len(found)]:
            members = [member for _, member in _named(table, group.rows)]
            found.append({"table": str(table.class_name), "rows": list(group.rows), "copies": list(group.copies), "members": members})
    return found


def _in_lines(groups: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """A line for each row of each group."""
    for number, group in enumerate(groups):
        for row, member in zip(group["rows"], group["members"], strict=True):
            match = "exact copy" if row in group["copies"] else "" if row == group["rows"][0] else "near"
            yield {"group": number, "table": group["table"], "row": row, "member": member, "match": match}


def _distance(asked: _Asked) -> int:
    from h5dat_lib.read.alike import DISTANCE, checked_distance

    return checked_distance(asked.distance if asked.distance is not None else DISTANCE if asked.like else 0)


def _wanted(opened: File, asked: _Asked) -> Wanted:
    """A file of that name, or else a row."""
    from h5dat_lib.read.alike import wanted_picture

    if Path(asked.like).is_file():
        return wanted_picture(asked.like)
    if not any(asked.like.startswith(f"{name}/") for name in opened.tables):
        raise InputError(f"{asked.like}: found no such file, expected a picture, or a row of {opened.path} such as images/3")
    table, row = row_of(opened, asked.like)
    return table.wanted(row, asked.decode)


def _named(table: Table, rows: Any) -> Iterator[tuple[int, str]]:
    """Each row with the path of its member."""
    return zip(rows, table.table(["member"], rows=rows)["member"].to_pylist(), strict=True)


def _chosen(opened: File, asked: _Asked) -> Iterator[tuple[Table, Array | None]]:
    """The tables, and of each the rows that the pattern, the condition and the words leave; None: all of them.

    Without those that lack a column of the condition. When all do, raises what one with a column of nearly that name does, or the last.
    """
    failure: InputError | None = None
    fitting = False
    named = None if asked.pattern == _ALL else _by_table(opened, asked.pattern)
    for name in opened.tables:
        table = opened[name]
        rows = None if named is None else np.array(named.get(name, []), "i8")
        try:
            rows = _both(rows, table.where(asked.where) if asked.where else None)
        except InputError as exc:
            failure = nearer(failure, exc)
            continue
        fitting = True
        yield table, _both(rows, table.search(asked.text) if asked.text else None)
    if not fitting and failure is not None:
        raise failure


def _both(rows: Array | None, others: Array | None) -> Array | None:
    if rows is None or others is None:
        return others if rows is None else rows
    return np.intersect1d(rows, others, assume_unique=True)


def _by_table(opened: File, pattern: str) -> dict[str, list[int]]:
    """Rows of the members of a pattern, by the name of their table."""
    rows: dict[str, list[int]] = {}
    for found in opened.members(pattern):
        rows.setdefault(found.table, []).extend(range(found.row, found.row + found.rows))
    return rows
