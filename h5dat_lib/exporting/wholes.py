"""Rows -> whole files again: the lines or items of a document, the records of a table; all other rows are files already."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, groupby
from operator import itemgetter
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from h5dat_lib.archive.packed import unpacked_path
from h5dat_lib.columns import Array
from h5dat_lib.config import Medium
from h5dat_lib.convert.ahead import ahead
from h5dat_lib.errors import FormatError
from h5dat_lib.exporting.files import Part, Sources, document_file, is_member, parts, read_columns
from h5dat_lib.exporting.selection import Chosen, Member
from h5dat_lib.read.arrow import is_typed
from h5dat_lib.read.columns import Column, Nullable, Plain, date_strings, python_value

__all__ = ["wholes"]

_DELIMITERS = {".csv": ",", ".tsv": "\t", ".tab": "\t", ".psv": "|"}
_DOCUMENTS = (".json", ".jsonl", ".ndjson")


def wholes(each: Chosen, sources: Sources) -> Iterator[Part]:
    """The files of all rows that are chosen, with the rows of one document or table in one. A part is to be used before the next is asked
    for."""
    if each.medium in _WHOLES:
        return _WHOLES[each.medium](each, sources)
    return chain.from_iterable(ahead(_made(each, sources)))


def _made(each: Chosen, sources: Sources) -> Iterator[list[Part]]:
    for rows in each.runs(read_columns(each)):
        yield list(parts(each, rows, sources))
        sources.tally.add(len(rows))


# Documents


def _whole_documents(each: Chosen, sources: Sources) -> Iterator[Part]:
    records = chain.from_iterable(ahead(_document_records(each, sources)))
    for _, group in groupby(records, key=lambda record: (record[0], record[2], record[1] if record[2] == "document" else 0)):
        yield _document_part(group, sources)


def _document_part(records: Iterator[Any], sources: Sources) -> Part:
    """The file of the documents of a member; kind "document" has one."""
    first = next(records)
    kind, member = first[2], first[3]
    ending = _document_ending(member, kind)
    if kind != "document":
        return Part(first[1], member, "", ending, _DOCUMENT_FILES[kind](chain([first], records)))
    data = document_file(first[4], member, sources)
    return Part(first[1], member, "", ending, (data,), is_member(data, member))


def _document_ending(member: Member, kind: str) -> str:
    kept = unpacked_path(member.path).lower().endswith(_DOCUMENTS)
    return "" if kept else ".jsonl" if kind in ("line", "message") else ".json"


def _document_records(each: Chosen, sources: Sources) -> Iterator[list[tuple[int, int, str, Member, str]]]:
    """Number of the member, row, how documents of it are written, member, and text of each document."""
    names = [name for name in ("item", "line", "message") if name in each.table.columns]
    for rows in each.runs(["document"]):
        columns = each.table.rows(rows, ["document", *names])
        kinds = ["document"] * len(rows)
        for name in names:
            kinds = [kind if python_value(value) is None else name for kind, value in zip(kinds, columns[name], strict=True)]
        records = zip(
            each.table.member_numbers(rows).tolist(), rows.tolist(), kinds, sources.members.of(each, rows), columns["document"], strict=True
        )
        found = [record for record in records if record[4] is not None]
        sources.tally.left_out[each.name, "they have no document"] += len(rows) - len(found)
        yield found
        sources.tally.add(len(rows))


def _lines(records: Iterable[Any]) -> Iterator[bytes]:
    """A document a line: line ends in JSON stand only where any space may."""
    for record in records:
        yield re.sub(r"[\r\n]+", " ", record[4].strip()).encode() + b"\n"


def _items(records: Iterable[Any]) -> Iterator[bytes]:
    for number, record in enumerate(records):
        yield (b",\n" if number else b"[\n") + record[4].encode()
    yield b"\n]\n"


_DOCUMENT_FILES: dict[str, Callable[[Iterable[Any]], Iterator[bytes]]] = {
    "line": _lines,
    "message": _lines,
    "item": _items,
}


# Tables


_Slab = tuple[int, int, Member, dict[str, list[str | None]]]
"""Of neighbouring rows of one member its number, the place of the first of them among those chosen, the member, and fields by column."""


def _whole_tables(each: Chosen, sources: Sources) -> Iterator[Part]:
    """The records of a member as CSV that reads as the same values: empty strings in quotes, and nothing where a value is missing."""
    slabs = chain.from_iterable(ahead(_table_slabs(each, sources)))
    for _, group in groupby(slabs, key=itemgetter(0)):
        yield _table_part(each, group)


def _table_part(each: Chosen, slabs: Iterator[_Slab]) -> Part:
    """The file of the records of a member, with the columns that have a value in any of them."""
    number, place, member, fields = next(slabs)
    suffix = PurePosixPath(unpacked_path(member.path)).suffix.lower()
    records = chain([fields], (slab[3] for slab in slabs))
    data = _csv(_columns_of(each, number, place), records, _DELIMITERS.get(suffix, ","))
    return Part(int(each.rows[place]), member, "", "" if suffix in _DELIMITERS else ".csv", data)


def _columns_of(each: Chosen, number: int, place: int) -> list[str]:
    """The columns that a member has, of those that other members of the class have brought."""
    names = each.table.columns
    if len(np.unique(each.table.member_numbers(each.rows[[0, -1]]))) == 1:
        return names
    lacking = dict.fromkeys(names)
    for rows in Chosen(each.name, each.table, each.medium, each.rows[place:]).runs(names):
        own = rows[each.table.member_numbers(rows) == number]
        for name in [name for name in lacking if any(field is not None for field in _fields(each.table[name], own))]:
            del lacking[name]
        if not lacking or len(own) < len(rows):
            break
    return [name for name in names if name not in lacking]


def _csv(names: Sequence[str], slabs: Iterable[Mapping[str, Sequence[str | None]]], delimiter: str) -> Iterator[bytes]:
    special = re.compile(rf'["\r\n{re.escape(delimiter)}]|^[\s#]|\s$|^$')
    yield _csv_lines([[name] for name in names], special, delimiter)
    for fields in slabs:
        yield _csv_lines([fields[name] for name in names], special, delimiter)


def _csv_lines(columns: Sequence[Sequence[str | None]], special: re.Pattern[str], delimiter: str) -> bytes:
    quoted = [
        ["" if text is None else '"' + text.replace('"', '""') + '"' if special.search(text) else text for text in column]
        for column in columns
    ]
    return "".join(delimiter.join(record) + "\n" for record in zip(*quoted, strict=True)).encode()


def _table_slabs(each: Chosen, sources: Sources) -> Iterator[list[_Slab]]:
    place = 0
    for rows in each.runs(each.table.columns):
        numbers, slabs = each.table.member_numbers(rows), []
        for some in np.split(rows, np.flatnonzero(np.diff(numbers)) + 1):
            fields = {name: _fields(each.table[name], some) for name in each.table.columns}
            [number], [member] = each.table.member_numbers(some[:1]), sources.members.of(each, some[:1])
            slabs.append((int(number), place, member, fields))
            place += len(some)
        yield slabs
        sources.tally.add(len(rows))


def _fields(column: Column, rows: Array) -> list[str | None]:
    """Values as CSV has them, None where one is missing."""
    values = column.rows(rows)
    if not is_typed(column) or getattr(values, "ndim", 1) > 1:
        raise FormatError(f"a table: found a column of layout {column.layout}, expected values that CSV can hold; make the file anew")
    if isinstance(values, np.ndarray) and values.dtype.kind == "M" and isinstance(column, Plain | Nullable):
        texts = [text.decode() for text in date_strings(np.ma.getdata(values), column.form).tolist()]
        missing = (np.ma.getmaskarray(values) | np.isnat(np.ma.getdata(values))).tolist()
        return [None if gone else text for text, gone in zip(texts, missing, strict=True)]
    return [_field(python_value(value)) for value in values]


def _field(value: Any) -> str | None:
    if value is None or value != value:
        return None
    return str(value).lower() if isinstance(value, bool) else str(value)


_WHOLES: dict[Medium, Callable[[Chosen, Sources], Iterator[Part]]] = {"documents": _whole_documents, "tables": _whole_tables}
"""Media of which a file has many rows."""
