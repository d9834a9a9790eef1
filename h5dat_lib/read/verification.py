"""Re-reads an output against its recorded checksums, and names every row that is not as it was written."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import h5py
import numpy as np
from isal import isal_zlib

from h5dat_lib.columns import column_name
from h5dat_lib.errors import FormatError
from h5dat_lib.lineage import CHECKSUMS, LINEAGE
from h5dat_lib.read.chunked import Rows, recorded
from h5dat_lib.read.files import File
from h5dat_lib.read.files import open_tables as open_file
from h5dat_lib.read.format import attribute

if TYPE_CHECKING:
    from h5dat_lib.config import S3Options

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


def verify(path: str | Path, s3: S3Options | None = None) -> Verified:
    """Reads every chunk of a file, on a disk or in S3 (reached as ``s3`` says), and compares its CRC-32.

    One chunk at a time is in memory. Raises FormatError when the file is not H5DAT's.
    """
    chunks = size = 0
    mismatches = []
    with open_file(path, s3=s3) as file:
        for name in _checked_datasets(file.hdf5):
            dataset, expected = file.hdf5.get(name), recorded(file.hdf5, name)
            if reason := _other_shape(dataset, len(expected)):
                mismatches.append(located(file, name, dataset, 0, reason))
                continue
            for place, crc in zip(_places(dataset), expected, strict=True):
                found, reason = _compare(dataset, place, crc)
                chunks, size = chunks + 1, size + found
                if reason:
                    mismatches.append(located(file, name, dataset, place[0], reason))
    return Verified(chunks, size, mismatches)


def _checked_datasets(file: h5py.File) -> list[str]:
    """Paths of all datasets of tables, and of all that have checksums; not the checksums, which their own deflate checksum guards."""
    names: list[str] = []
    try:
        file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
        in_tables = [name for name in names if not name.startswith(f"{CHECKSUMS}/") and _table(file, name)]
    except (RuntimeError, KeyError, OSError) as exc:  # h5py raises any of them, according to what is damaged
        raise FormatError(f"{file.filename}: found damaged groups or datasets ({exc}), expected them whole; make the file anew") from exc
    recorded = [name.removeprefix(f"{CHECKSUMS}/") for name in names if name.startswith(f"{CHECKSUMS}/")]
    return list(dict.fromkeys((*in_tables, *recorded)))


def _other_shape(dataset: Any, recorded: int) -> str:
    """Says so when there are not as many chunks as were recorded."""
    if not isinstance(dataset, h5py.Dataset) or not dataset.chunks:
        return f"found no chunks, expected {recorded}"
    found = math.prod(-(-size // step) for size, step in zip(dataset.shape, dataset.chunks, strict=True))
    return f"found {found} chunks, expected {recorded}" if found != recorded else ""


def _places(dataset: h5py.Dataset) -> Iterator[tuple[int, ...]]:
    """Where each chunk starts, in the order in which they were written: the first axis last."""
    return product(*(range(0, size, step) for size, step in zip(dataset.shape, dataset.chunks, strict=True)))


def _compare(dataset: h5py.Dataset, place: tuple[int, ...], expected: int) -> tuple[int, str]:
    try:
        _, data = dataset.id.read_direct_chunk(place)
    except (OSError, RuntimeError, ValueError, MemoryError) as exc:  # h5py says MemoryError of a chunk that is not there
        return 0, f"cannot be read: {exc}"
    crc = isal_zlib.crc32(data)
    return len(data), f"found CRC {crc:08x}, expected {expected:08x}" if crc != expected else ""


def located(file: File, name: str, dataset: Any, row: int, reason: str) -> Mismatch:
    """What is wrong with the chunk that begins with a row, with its table, column, rows and member."""
    table = _table(file.hdf5, name) or name.partition("/")[0]
    link, _, part = name[len(table) + 1 :].partition("/")
    column = column_name(link) if link[:1] != "_" else link
    if not isinstance(dataset, h5py.Dataset) or not dataset.chunks:
        return Mismatch(table, column, 0, 0, "", reason)
    first, last = row, max(min(row + dataset.chunks[0], len(dataset)) - 1, row)
    if part == "values" and "offset" in dataset.parent:
        all_rows = (0, int(attribute(file.hdf5[table], "rows", 1)) - 1)
        first, last = _unless_damaged(partial(_rows_of_bytes, dataset.parent, first, last), all_rows)
    member = _unless_damaged(partial(_member, file, table, first), "")
    return Mismatch(table, column, first, last, member, reason)


def _table(file: h5py.File, name: str) -> str:
    """The table that a dataset is of, "" when it is of none."""
    return next((group for group in _parents(name) if group in file and "columns" in file[group].attrs), "")


def _unless_damaged(find: Callable[[], T], otherwise: T) -> T:
    """What ``find`` gives, or ``otherwise`` where what it reads is damaged, too: that is named by a mismatch of its own."""
    try:
        return find()
    except (OSError, LookupError, ValueError, FormatError):
        return otherwise


def _parents(name: str) -> Iterator[str]:
    while "/" in name:
        name = name.rpartition("/")[0]
        yield name


def _rows_of_bytes(column: h5py.Group, first: int, last: int) -> tuple[int, int]:
    """The rows whose bytes lie between two places of a column of bytes."""
    offset, length = Rows(column["offset"])[:], Rows(column["length"])[:]
    rows = np.flatnonzero((offset <= last) & (offset + length > first))
    return (int(rows[0]), int(rows[-1])) if len(rows) else (0, 0)


def _member(file: File, table: str, row: int) -> str:
    return "" if table.startswith(LINEAGE) or "_member" not in file.hdf5[table] else file[table].origin(row).member
