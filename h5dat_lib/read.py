"""Reading an output: tables of rows, columns of values, and the origin of each row.

f = open("fashion.h5")
t = f["images"]
t.pixels[3]      # ndarray, whatever the layout
t.origin(3)      # archive, member, checksums, converter, run
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np

from h5dat_lib.chunked import Rows, fault
from h5dat_lib.columns import FRAMES, PairType, column_name
from h5dat_lib.errors import FormatError
from h5dat_lib.format import attribute, open_readonly, table_attributes
from h5dat_lib.lineage import ARCHIVES, BATCHES, LINEAGE, MEMBERS, REJECTS, RUNS, sample_key
from h5dat_lib.read_columns import Column, checked_row, open_column, python_value

__all__ = ["File", "Origin", "Reject", "Table", "open"]

_STEP = 4096
"""Rows of a table that are read at a time when all are listed."""


@dataclass(frozen=True)
class Origin:
    """Where a row came from: sizes in bytes, ``crc32`` and ``sha256`` of the member, ``time`` in seconds since 1970, UTC.

    ``key`` is what members of one sample have in common: the member's path up to the first dot of its name.
    """

    archive: str
    member: str
    key: str
    size: int
    crc32: int
    sha256: str
    converter: str
    batch: int
    run: str
    time: float


@dataclass(frozen=True)
class Reject:
    """A member, or a record of one, that was not converted. An empty member path means the archive itself."""

    archive: str
    member: str
    stage: str
    reason: str


class File:
    """An H5DAT file, opened for reading; a context manager. Tables are found by class name."""

    def __init__(self, path: Path, *, trusted: bool = False) -> None:
        self.path = path
        self.hdf5 = open_readonly(path, trusted)
        """The h5py file underneath."""

    def __enter__(self) -> File:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file; columns can no longer be read."""
        self.hdf5.close()

    @cached_property
    def classes(self) -> list[str]:
        """Names of the classes, each a table; with the names of the groups that it lies in, `train/images`."""
        try:
            return list(_classes(self.hdf5))
        except (KeyError, OSError, RuntimeError) as exc:  # h5py raises any of them, according to what is damaged
            raise FormatError(f"{self.path}: found damaged groups ({exc}), expected tables; make the file anew") from exc

    @property
    def tables(self) -> list[str]:
        """Names of all tables whose rows come from members: the classes, and below those of videos their frames, `videos/frames`."""
        return [name for class_name in self.classes for name in (class_name, f"{class_name}/{FRAMES}") if name in self]

    def __contains__(self, name: str) -> bool:
        """Whether there is such a class, or lineage table. Raises FormatError when that cannot be read."""
        try:
            return name in self.hdf5 and attribute(self.hdf5[name], "columns") is not None
        except (KeyError, RuntimeError) as exc:  # h5py raises either, of an object that cannot be opened
            raise FormatError(f"{self.path}, {name}: found a damaged group ({exc}), expected a table; make the file anew") from exc

    def __getitem__(self, name: str) -> Table:
        """The table of a class, or a lineage table such as ``lineage/members``. Raises KeyError when there is none."""
        if name not in self:
            raise KeyError(f"{self.path}: no class {name!r}; it has {', '.join(self.classes) or 'none'}")
        return Table(self, name)

    def rejects(self) -> Iterator[Reject]:
        """Every member that was not converted, in archive order; without those that have come in since, by a retry."""
        if REJECTS not in self:
            return
        table = self[REJECTS]
        archives = self[ARCHIVES]["uri"][:]
        for first in range(0, len(table), _STEP):
            rows = slice(first, first + _STEP)
            columns = (table[name][rows] for name in ("archive", "path", "stage", "reason", "resolved"))
            for archive, path, stage, reason, resolved in zip(*columns, strict=True):
                if not resolved:
                    yield Reject(archives[archive], path, stage, reason)

    def describe(self) -> dict[str, Any]:
        """What the file holds, as plain values: its tables with their columns, sources, runs, counts; sizes in bytes on disk."""
        return {
            "path": str(self.path),
            "bytes": self.path.stat().st_size,
            "format_version": int(self.hdf5.attrs["format_version"]),
            "classes": [self[name].describe() for name in self.tables],
            "sources": [{key: archive[key] for key in ("uri", "kind", "size", "sha256")} for archive in self.archives()],
            "runs": [{key: run[key] for key in ("run_id", "status", "start", "end", "members", "rows", "rejects")} for run in self.runs()],
            "members": len(self[MEMBERS]) if MEMBERS in self else 0,
            "rejects": int(np.count_nonzero(~self[REJECTS]["resolved"][:])) if REJECTS in self else 0,
        }

    def runs(self) -> list[dict[str, Any]]:
        """What is recorded of each run, oldest first."""
        return self[RUNS].rows_as_dicts() if RUNS in self else []

    def archives(self) -> list[dict[str, Any]]:
        """What is recorded of each archive, in the order they came in."""
        return self[ARCHIVES].rows_as_dicts() if ARCHIVES in self else []


def _classes(file: h5py.File) -> Iterator[str]:
    """Paths of the groups that are tables, and of those that look like damaged ones; what lies below a table is a part of it."""
    groups, seen = [("", file)], {h5py.h5o.get_info(file.id).addr}
    while groups:
        folder, group = groups.pop(0)
        for name, item in group.items():
            place = h5py.h5o.get_info(item.id).addr
            if folder + name == LINEAGE or not isinstance(item, h5py.Group) or place in seen:
                continue
            seen.add(place)
            if "columns" in item.attrs or any(isinstance(part, h5py.Dataset) for part in item.values()):
                yield folder + name
            else:
                groups.append((f"{folder}{name}/", item))


class Table:
    """The rows of a class. Columns are found by name, as items, or as attributes where the name allows it."""

    def __init__(self, file: File, name: str) -> None:
        self.class_name = name
        self._file = file
        self._group: h5py.Group = file.hdf5[name]
        self._rows, links = table_attributes(self._group)
        self._links = {column_name(link): link for link in links if not link.startswith("_")}
        self._columns: dict[str, Column] = {}

    def __len__(self) -> int:
        return self._rows

    @property
    def columns(self) -> list[str]:
        """Names of the columns."""
        return list(self._links)

    def __getitem__(self, column: str) -> Column:
        """A column by name. Raises KeyError when there is none."""
        if column not in self._columns:
            if column not in self._links:
                raise KeyError(f"{self._file.path}: {self.class_name} has no column {column!r}; it has {', '.join(self._links)}")
            if self._links[column] not in self._group:
                raise fault(self._group, f"no column {column!r}", "one, as its attribute `columns` says")
            self._columns[column] = open_column(self._group[self._links[column]], self._group)
        return self._columns[column]

    def __getattr__(self, column: str) -> Column:
        if column.startswith("_"):
            raise AttributeError(column)
        try:
            return self[column]
        except KeyError as exc:
            raise AttributeError(exc.args[0]) from exc

    def describe(self) -> dict[str, Any]:
        """name, rows, key/value pairs, bytes on disk, and each column with layout, shape of a value (None: varies), dtype and bytes."""
        columns = [{"name": name, **self[name].describe()} for name in self.columns]
        pairs = [self._file[f"{self.class_name}/{part}"].describe() for part in ("_pairs", "_keys") if part in self._group]
        return {
            "name": self.class_name,
            "rows": len(self),
            "pairs": pairs[0]["rows"] if pairs else 0,
            "bytes": sum(part["bytes"] for part in (*columns, *pairs)),
            "columns": columns,
        }

    def origin(self, row: int) -> Origin:
        """Where a row came from. Raises IndexError when there is no such row."""
        hdf5 = self._file
        members = hdf5[MEMBERS]
        number = int(Rows(self._group["_member"])[checked_row(row, len(self))])
        member = {name: members[name][number] for name in members.columns}
        return Origin(
            archive=hdf5[ARCHIVES]["uri"][int(member["archive"])],
            member=member["path"],
            key=member.get("key") or sample_key(member["path"]),
            size=int(member["size"]),
            crc32=int(member["crc32"]),
            sha256=member["sha256"],
            converter=member["converter"],
            batch=int(hdf5[BATCHES]["number"][int(member["batch"])]),
            run=hdf5[RUNS]["run_id"][int(member["run"])],
            time=float(member["time"]),
        )

    def pairs(self, row: int) -> list[tuple[str, str, str]]:
        """The key/value pairs of a row: (dotted key path, value, type), in the order of the document."""
        if "_pairs" not in self._group:
            return []
        pairs, keys = Table(self._file, f"{self.class_name}/_pairs"), Table(self._file, f"{self.class_name}/_keys")
        rows, row = Rows(self._group["_pairs/row"]), checked_row(row, len(self))
        found = slice(bisect_left(rows, row), bisect_left(rows, row + 1))
        names = {int(code): keys["key"][int(code)] for code in np.unique(pairs["key"][found])}
        return [
            (names[int(key)], value, PairType.NAMES[kind])
            for key, value, kind in zip(pairs["key"][found], pairs["value"][found], pairs["type"][found], strict=True)
        ]

    def rows_as_dicts(self) -> list[dict[str, Any]]:
        """All rows as dictionaries; for small tables."""
        columns = {name: self[name][:] for name in self.columns}
        return [{name: python_value(values[row]) for name, values in columns.items()} for row in range(len(self))]


def open(path: str | Path, *, trusted: bool = False) -> File:
    """Opens an H5DAT file for reading. Raises InputError when it is missing, FormatError when it is not H5DAT's.

    A file may come from anybody: one that would make HDF5 open other files or load code (external links, external storage, virtual
    datasets, filters other than deflate), or that claims more values than it can hold, is refused with FormatError.
    ``trusted`` leaves that out, for a file that its owner has added such things to.
    """
    return File(Path(path), trusted=trusted)
