"""Opening an output: a file, its tables, members and rejects.

f = open("fashion.h5")
t = f["images"]
t.pixels[3]                      # ndarray, whatever the layout
t.pixels.rows([5, 1, 9])         # several, in this order, read chunk by chunk
t.rows([5, 1, 9], ["pixels"])    # the same of several columns
t[3], t["fashion/1163.jpg"]      # a row by its number, by its member
t.origin(3)                      # archive, member, checksums, converter, run
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from h5dat_lib.columns import FRAMES
from h5dat_lib.errors import FormatError, unknown
from h5dat_lib.lineage import ARCHIVES, LINEAGE, MEMBERS, REJECTS, RUNS
from h5dat_lib.read import browse
from h5dat_lib.read.format import attribute
from h5dat_lib.read.handle import CACHE_BYTES, Handle, How
from h5dat_lib.read.tables import Contents, Table

if TYPE_CHECKING:
    from h5dat_lib.config import S3Options  # building the settings' models takes longer than opening a file

__all__ = ["File", "Found", "Reject", "open", "open_tables"]

_STEP = 4096
"""Rows of a table that are read at a time when all are listed."""


@dataclass(frozen=True)
class Reject:
    """A member, or a record of one, that was not converted. An empty member path means the archive itself."""

    archive: str
    member: str
    stage: str
    reason: str


@dataclass(frozen=True)
class Found:
    """A member: the table of its rows, the first of them, how many there are, and its path."""

    table: str
    row: int
    rows: int
    member: str


class ClassName(str):
    """The name of a class; ``rows`` and ``columns`` say what it has."""

    _file: File

    def __new__(cls, name: str, file: File) -> ClassName:
        made = super().__new__(cls, name)
        made._file = file
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        return str, (str(self),)

    @property
    def rows(self) -> int:
        """How many rows the class has."""
        return len(self._file[self])

    @property
    def columns(self) -> list[str]:
        """Names of its columns."""
        return self._file[self].columns


class File:
    """An H5DAT file, opened for reading; a context manager. Tables are found by class name.

    Any number of threads may read from it. After a fork a child opens it anew by itself; pickled, as for a process that is
    spawned, it is opened again by its path. Its tables and columns likewise.
    """

    def __init__(self, handle: Handle) -> None:
        self.handle = handle
        """Through which chunks are read."""
        self._tables: dict[str, Contents] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return File, (self.handle,)

    def __repr__(self) -> str:
        state = "closed" if self.handle.closed else ", ".join(f"{name} ({len(self[name]):,} rows)" for name in self.classes)
        return f"<{self.path}: {state or 'no classes'}>"

    @property
    def path(self) -> Path | str:
        """The file's path, or its URI in S3."""
        return self.handle.path

    @property
    def hdf5(self) -> h5py.File:
        """The h5py file underneath, as it is open in this process."""
        return self.handle.hdf5

    def __enter__(self) -> File:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file; columns can no longer be read."""
        self.handle.close()

    def refresh(self) -> None:
        """Opens the file as it is now, with what a run has committed since. Tables show it; columns are to be taken from them anew.

        Raises FormatError when another file has taken its place.
        """
        self.handle = self.handle.reopened()
        self._tables = {}
        self.__dict__.pop("classes", None)

    @property
    def requests(self) -> int:
        """Requests that have been sent to S3 for it in this process; 0 of a local file."""
        return self.handle.requests

    @cached_property
    def classes(self) -> tuple[ClassName, ...]:
        """Names of the classes, each a table; with the groups that it lies in, `train/images`. A file of another make has none."""
        if not self.handle.is_ours:
            return ()
        try:
            return tuple(ClassName(name, self) for name in _classes(self.hdf5))
        except (KeyError, OSError, RuntimeError) as exc:  # h5py raises any of them, according to what is damaged
            raise FormatError(f"{self.path}: found damaged groups ({exc}), expected tables; make the file anew") from exc

    def _check_ours(self) -> None:
        if not self.handle.is_ours:
            raise FormatError(
                f"{self.path}: found an HDF5 file without H5DAT's mark, expected an H5DAT file with tables; "
                "look through it with groups(), datasets(), attrs() and find(), or open it with h5py"
            )

    @property
    def tables(self) -> list[str]:
        """Names of all tables whose rows come from members: the classes, and below those of videos their frames, `videos/frames`."""
        return [name for class_name in self.classes for name in (class_name, f"{class_name}/{FRAMES}") if name in self]

    def __contains__(self, name: str) -> bool:
        """Whether there is such a class, or lineage table. Raises FormatError when that cannot be read."""
        if not self.handle.is_ours:
            return False
        try:
            return name in self.hdf5 and attribute(self.hdf5[name], "columns") is not None
        except (KeyError, RuntimeError) as exc:  # h5py raises either, of an object that cannot be opened
            raise FormatError(f"{self.path}, {name}: found a damaged group ({exc}), expected a table; make the file anew") from exc

    def __getitem__(self, name: str) -> Table:
        """The table of a class, or a lineage table such as ``lineage/members``. Raises KeyError when there is none."""
        self._check_ours()
        self.contents_of(name)
        return Table(self, name)

    def contents_of(self, name: str) -> Contents:
        """What has been read of a table. Raises KeyError when there is none of that name."""
        self.handle.check_open()
        if name not in self._tables:
            if name not in self:
                raise unknown(f"{self.path}: no class", name, self.classes)
            self._tables[name] = Contents(self, name)
        return self._tables[name]

    def groups(self) -> list[str]:
        """Paths of all groups, of a file of any make."""
        return [item.path for item in browse.items(self.hdf5) if item.kind == "group"]

    def datasets(self) -> list[browse.DatasetInfo]:
        """All datasets, of a file of any make: path, shape, dtype, chunks."""
        return [browse.dataset_info(self.hdf5, item.path) for item in browse.items(self.hdf5) if item.kind == "dataset"]

    def attrs(self, path: str = "/") -> dict[str, Any]:
        """Attributes of a group or dataset, as plain values. Raises KeyError when there is none of this path."""
        return browse.attributes(self.hdf5, path)

    def find(self, pattern: str) -> list[str]:
        """Paths of groups, datasets and links that match a glob, whatever their case: by their last name, or whole when it has a slash."""
        return [item.path for item in browse.items(self.hdf5) if browse.matches(item.path, pattern)]

    def members(self, pattern: str) -> Iterator[Found]:
        """Members whose path matches a glob, as `find` does, or has the text in it when it is no glob, with their rows in order."""
        self._check_ours()
        if MEMBERS not in self:
            return
        wanted = pattern if set(pattern) & set("*?[") else f"*{pattern}*"
        members = self[MEMBERS]
        for first in range(0, len(members), _STEP):
            rows = slice(first, first + _STEP)
            for number, path in enumerate(members["path"][rows], first):
                if browse.matches(path, wanted):
                    yield from self._found(members["class"][number], number, path)

    def _found(self, name: str, number: int, path: str) -> Iterator[Found]:
        if name in self:
            rows = self[name].rows_of_member(number)
            if len(rows):
                yield Found(name, int(rows[0]), len(rows), path)

    def rejects(self) -> Iterator[Reject]:
        """Every member that was not converted, in archive order; without those that have come in since, by a retry."""
        self._check_ours()
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
        self._check_ours()
        return {
            "path": str(self.path),
            "bytes": self.hdf5.id.get_filesize(),
            "format_version": int(self.hdf5.attrs["format_version"]),
            "classes": [self[name].describe() for name in self.tables],
            "sources": [{key: archive[key] for key in ("uri", "kind", "size", "sha256")} for archive in self.archives()],
            "runs": [{key: run[key] for key in ("run_id", "status", "start", "end", "members", "rows", "rejects")} for run in self.runs()],
            "members": len(self[MEMBERS]) if MEMBERS in self else 0,
            "rejects": int(np.count_nonzero(~self[REJECTS]["resolved"][:])) if REJECTS in self else 0,
        }

    def member_rows(self, path: str) -> list[int]:
        """Rows of the members of a path, in order."""
        if MEMBERS not in self:
            return []
        paths, found = self[MEMBERS]["path"], []
        for first in range(0, len(paths), _STEP):
            found += [first + at for at, other in enumerate(paths[first : first + _STEP]) if other == path]
        return found

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


def open(
    path: str | Path,
    *,
    trusted: bool = False,
    verify: bool = False,
    cache_bytes: int = CACHE_BYTES,
    threads: int | None = None,
    memory_map: bool = False,
    s3: S3Options | None = None,
) -> File:
    """Opens an H5DAT file for reading, on a local disk or at ``s3://bucket/key``. Raises InputError when it is missing, FormatError when
    it is no HDF5 or of a newer layout.

    Of a file in S3 no more is fetched than is read, in blocks of 1 MiB, and all of one version; ``s3`` says how S3 is reached, where
    boto3 does not find it.

    A file may come from anybody: one that would make HDF5 open other files or load code (external links, external storage, virtual
    datasets, filters other than deflate), or that claims more values than it can hold, is refused with FormatError.
    ``trusted`` leaves that out, for a file that its owner has added such things to. An HDF5 file of another make can be looked
    through (`File.groups`, `datasets`, `attrs`, `find`); it has no tables.

    With ``verify`` each chunk that is read is compared with the CRC-32 of when it was written: FormatError names the row and its member.
    Without, deflated chunks have zlib's own checksum, and what is stored without a filter, such as encoded pictures, has none until
    `verify` reads the file. Small rows of large chunks are slower with it, because whole chunks are read for them.

    ``cache_bytes`` bounds the inflated chunks that are kept. ``threads`` read at most at a time; by default up to four, as there are
    cores, and one in a worker process.

    With ``memory_map`` chunks of a local file are read from memory that it is mapped into, which takes two thirds of the time for small
    pictures without a filter. Only for a file that nobody cuts off or writes over meanwhile: a process that reads what is gone dies.
    """
    return File(Handle(path, How(trusted, verify, cache_bytes, threads, memory_map, s3)))


def open_tables(path: str | Path, s3: S3Options | None = None, cache_bytes: int = CACHE_BYTES) -> File:
    """The same for a file that must be H5DAT's. Raises FormatError also when it is not."""
    file = open(path, cache_bytes=cache_bytes, s3=s3)
    try:
        file._check_ours()
    except FormatError:
        file.close()
        raise
    return file
