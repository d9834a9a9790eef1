"""Re-reads an output against its recorded checksums, and names every row that is not as it was written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import h5py
import numpy as np
from isal import isal_zlib

from h5dat_lib.columns import column_name
from h5dat_lib.lineage import CHECKSUMS, LINEAGE
from h5dat_lib.read import File
from h5dat_lib.read import open as open_file

T = TypeVar("T")


@dataclass(frozen=True)
class Mismatch:
    """A chunk that is not as it was written. Rows ``first`` to ``last``, both included, lie in it.

    ``member`` is the path of the first row's member, for tables whose rows come from members; empty otherwise.
    """

    table: str
    column: str
    first: int
    last: int
    member: str
    reason: str


@dataclass(frozen=True)
class Verified:
    """What was read: chunks and bytes as stored, and what was found wrong."""

    chunks: int
    bytes: int
    mismatches: list[Mismatch]


def verify(path: str | Path) -> Verified:
    """Reads every chunk of a file and compares its CRC-32.

    One chunk at a time is in memory. Raises FormatError when the file is not H5DAT's.
    """
    chunks = size = 0
    mismatches = []
    with open_file(path) as file:
        for name in _checked_datasets(file.hdf5):
            dataset, expected = file.hdf5[name], _recorded(file.hdf5, name)
            for number, place in enumerate(_places(dataset)):
                found, reason = _compare(dataset, place, expected, number)
                chunks, size = chunks + 1, size + found
                if reason:
                    mismatches.append(_located(file, name, place, reason))
    return Verified(chunks, size, mismatches)


def _checked_datasets(file: h5py.File) -> list[str]:
    """Paths of all datasets but the checksums themselves, which their own deflate checksum guards."""
    names: list[str] = []
    file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
    return [name for name in names if not name.startswith(CHECKSUMS)]


def _recorded(file: h5py.File, name: str) -> Any:
    """The CRC-32 of each chunk of a dataset; none for one that never had a chunk, such as the bytes of empty texts."""
    path = f"{CHECKSUMS}/{name}"
    return file[path][:] if path in file else np.empty(0, "<u4")


def _places(dataset: h5py.Dataset) -> Iterator[tuple[int, ...]]:
    """Where each chunk starts, in the order in which they were written: rows first, then pieces of a row."""
    pieces = range(0, dataset.shape[1], dataset.chunks[1]) if dataset.ndim > 2 else (0,)
    for row in range(0, len(dataset), dataset.chunks[0]):
        for piece in pieces:
            yield (row, piece, 0, 0)[: dataset.ndim]


def _compare(dataset: h5py.Dataset, place: tuple[int, ...], expected: Any, number: int) -> tuple[int, str]:
    try:
        _, data = dataset.id.read_direct_chunk(place)
    except (OSError, RuntimeError, ValueError) as exc:
        return 0, f"cannot be read: {exc}"
    crc = isal_zlib.crc32(data)
    if number >= len(expected) or crc != expected[number]:
        recorded = f"{expected[number]:08x}" if number < len(expected) else "none"
        return len(data), f"found CRC {crc:08x}, expected {recorded}"
    return len(data), ""


def _located(file: File, name: str, place: tuple[int, ...], reason: str) -> Mismatch:
    """The mismatch with its table, column, rows and member."""
    table = next(group for group in _parents(name) if "columns" in file.hdf5[group].attrs)
    link, _, part = name[len(table) + 1 :].partition("/")
    dataset = file.hdf5[name]
    first, last = place[0], min(place[0] + dataset.chunks[0], len(dataset)) - 1
    column = file.hdf5[f"{table}/{link}"]
    if part == "values" and "offset" in column:
        all_rows = (0, int(file.hdf5[table].attrs["rows"]) - 1)
        first, last = _unless_damaged(partial(_rows_of_bytes, column, first, last), all_rows)
    member = _unless_damaged(partial(_member, file, table, first), "")
    return Mismatch(table, column_name(link) if link[:1] != "_" else link, first, last, member, reason)


def _unless_damaged(find: Callable[[], T], otherwise: T) -> T:
    """What ``find`` gives, or ``otherwise`` where what it reads is damaged, too: that is named by a mismatch of its own."""
    try:
        return find()
    except (OSError, ValueError, IndexError):
        return otherwise


def _parents(name: str) -> Iterator[str]:
    while "/" in name:
        name = name.rpartition("/")[0]
        yield name


def _rows_of_bytes(column: h5py.Group, first: int, last: int) -> tuple[int, int]:
    """The rows whose bytes lie between two places of a column of bytes."""
    offset, length = column["offset"][:], column["length"][:]
    rows = np.flatnonzero((offset <= last) & (offset + length > first))
    return (int(rows[0]), int(rows[-1])) if len(rows) else (0, 0)


def _member(file: File, table: str, row: int) -> str:
    return "" if table.startswith(LINEAGE) or "_member" not in file.hdf5[table] else file[table].origin(row).member
