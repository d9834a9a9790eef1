"""A file and what is asked for -> the rows that are to be exported, by split and table, and what is known of their members."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from h5dat_lib.archive.packed import stem
from h5dat_lib.columns import FRAMES, Array
from h5dat_lib.config import Medium
from h5dat_lib.convert import FILE, HANDLERS
from h5dat_lib.errors import FormatError, InputError, nearer, unknown
from h5dat_lib.exporting.destination import folded, numbered, safe_path
from h5dat_lib.lineage import ARCHIVES, MEMBERS, sample_key
from h5dat_lib.read.columns import Categorical
from h5dat_lib.read.files import File
from h5dat_lib.read.tables import Table

_STEP = 4096
"""Members that are looked at at a time."""
BATCH_BYTES = 16 << 20
"""Bytes of values that are in memory at a time; three batches are, one that is used and two that are read ahead."""
_BATCH_ROWS = 4096
_VALUE_BYTES = 64
"""What a value takes in memory beside its own bytes, as a Python object."""

_PICTURE, _TEXT = ("dense", "ragged", "encoded"), ("text",)
VALUES: dict[Medium, dict[str, tuple[str, ...]]] = {
    "images": {"pixels": _PICTURE},
    "videos": {"pixels": _PICTURE, "summary": _PICTURE, "audio_samples": ("ragged",)},
    "audio": {"samples": ("ragged",)},
    "documents": {"document": _TEXT},
    "texts": {"text": _TEXT},
    "files": {"data": ("bytes",)},
    "tables": {},
}
"""The columns that make files, and the layouts that they have (docs/format.md)."""
_MEDIA: dict[str, Medium] = {handler.name: handler.medium for handler in (*HANDLERS, FILE)}


@dataclass(frozen=True)
class ExportOptions:
    """What of a file is exported, and how.

    ``classes`` are names of classes, None all; the frames of a class of videos go with it. ``where`` is a condition in SQL, as of
    `Table.where`. ``split`` is the name of a column that says which split a row is in, or shares as of `Table.split`.
    ``label`` is the column of categories that is a row's label; by default the one named ``label``, or the only one. ``by`` is what
    makes rows one sample of WebDataset: ``key``, or ``name``, the key without its folders. ``images`` writes the pictures beside COCO's
    JSON. ``shard_bytes`` is about how large a shard or a Parquet file becomes.
    """

    classes: Sequence[str] | None = None
    where: str = ""
    split: str | Mapping[str, float] = ""
    label: str = ""
    by: str = "key"
    images: bool = False
    shard_bytes: int = 500_000_000


Watch = Callable[[int, int], None]
"""Is told how many rows have been read, of how many that were asked for, in whatever thread reads them."""


@dataclass
class Tally:
    """What has been done so far: rows, files that are their members byte for byte, files that got another name, and what was left out."""

    watch: Watch | None = None
    total: int = 0
    rows: int = 0
    identical: int = 0
    renamed: int = 0
    left_out: Counter[tuple[str, str]] = field(default_factory=Counter)
    """How many rows, by their class and the reason."""

    def add(self, rows: int) -> None:
        """So many rows more have been read to be written."""
        self.rows += rows
        if self.watch is not None:
            self.watch(self.rows, self.total)


@dataclass(frozen=True)
class Chosen:
    """Rows of a table, (n,) int64 in order, and the medium that they are of."""

    name: str
    table: Table
    medium: Medium
    rows: Array

    @property
    def is_frames(self) -> bool:
        """Whether they are frames of videos."""
        return self.medium == "videos" and "pixels" in self.table.columns

    def sizes(self, rows: Array, columns: Sequence[str]) -> Array:
        """Bytes (n,) float64 that each row's values of these columns take in memory, about."""
        found = np.full(len(rows), float(_VALUE_BYTES * len(columns)))
        for name in columns:
            found += self.table[name].sizes(rows)
        return found

    def runs(self, columns: Sequence[str]) -> Iterator[Array]:
        """The rows, in runs whose values of these columns are about `BATCH_BYTES`, or one row."""
        for first in range(0, len(self.rows), _BATCH_ROWS):
            some = self.rows[first : first + _BATCH_ROWS]
            number = np.cumsum(self.sizes(some, columns)) // BATCH_BYTES
            yield from np.split(some, np.flatnonzero(np.diff(number)) + 1)


@dataclass(frozen=True)
class Split:
    """The rows of a split; its name is "" where there are no splits."""

    name: str
    tables: tuple[Chosen, ...]


def select(file: File, options: ExportOptions, tally: Tally) -> list[Split]:
    """What is to be exported. Raises InputError for classes, columns and conditions that there are none of, or when there are no rows."""
    chosen = [_chosen(file, name) for name in _names(file, options.classes)]
    if options.label and not any(label_of(each.table, options) for each in chosen):
        raise InputError(f"{file.path}: found no column of categories {options.label!r}, expected one as label; `h5dat ls` lists columns")
    if options.where:
        chosen = _each_that_fits(chosen, tally, lambda each: np.asarray(each.table.where(options.where)), options.where)
    splits = _in_splits(chosen, options.split, tally) if options.split else [Split("", tuple(chosen))]
    found = [Split(split.name, tuple(each for each in split.tables if len(each.rows))) for split in splits]
    found = [split for split in found if split.tables]
    if not found:
        raise InputError(f"{file.path}: found no rows to export, expected some; `h5dat ls` shows what is there")
    return found


def _names(file: File, classes: Sequence[str] | None) -> list[str]:
    for name in classes or ():
        if name not in file.tables:
            raise unknown(f"{file.path}: no class", name, file.tables)
    return [name for name in file.tables if classes is None or name in classes or name.removesuffix(f"/{FRAMES}") in classes]


def _chosen(file: File, name: str) -> Chosen:
    table = file[name]
    medium: Medium = "tables"
    if len(table):
        table.member_numbers([0])
        medium = _MEDIA.get(table.origin(0).converter.partition("/")[0], "tables")
    for column, layouts in VALUES[medium].items():
        if column in table.columns and (layout := table[column].layout) not in layouts:
            raise FormatError(f"{file.path}, {name}, {column}: found a column of layout {layout}, expected {' or '.join(layouts)}")
    return Chosen(str(name), table, medium, np.arange(len(table)))


def _each_that_fits(chosen: Sequence[Chosen], tally: Tally, rows_of: Callable[[Chosen], Array], what: str) -> list[Chosen]:
    """The tables with the rows that meet something; those that lack what it asks for are left out. Raises it when all do."""
    found: list[Chosen] = []
    failure: InputError | None = None
    for each in chosen:
        try:
            found.append(Chosen(each.name, each.table, each.medium, rows_of(each)))
        except InputError as exc:
            failure = nearer(failure, exc)
            tally.left_out[each.name, f"the class lacks what {what} asks for"] += len(each.rows)
    if failure is not None and not found:
        raise failure
    return found


def _in_splits(chosen: Sequence[Chosen], split: str | Mapping[str, float], tally: Tally) -> list[Split]:
    of_table: dict[str, dict[str, Array]] = {}

    def divided(each: Chosen) -> Array:
        of_table[each.name] = {name: np.intersect1d(rows, each.rows, assume_unique=True) for name, rows in each.table.split(split).items()}
        return each.rows

    fitting = _each_that_fits(chosen, tally, divided, f"the split {split}")
    for each in fitting:
        if lost := len(each.rows) - sum(map(len, of_table[each.name].values())):
            tally.left_out[each.name, "they are in no split"] += lost
    names = dict.fromkeys(name for parts in of_table.values() for name in parts)
    none = np.empty(0, "i8")
    return [
        Split(name, tuple(Chosen(each.name, each.table, each.medium, of_table[each.name].get(name, none)) for each in fitting))
        for name in names
    ]


def label_of(table: Table, options: ExportOptions) -> str | None:
    """The column of categories that is a row's label, None where there is none, or more than one that could be."""
    found = [name for name in table.columns if isinstance(table[name], Categorical) and name != options.split]
    if options.label or "label" in found:
        return options.label or "label" if (options.label or "label") in found else None
    return found[0] if len(found) == 1 else None


# Members


@dataclass(frozen=True)
class Member:
    """What is recorded of a member: its ``name``, sizes in bytes, rows that it gave. ``path`` and ``key`` are safe, and no other member
    of the export has that path."""

    name: str
    path: str
    key: str
    size: int
    crc32: int
    rows: int


class Members:
    """The members of the rows that are exported, by their row in ``lineage/members``; eight bytes of each are kept.

    Where two archives have a member of one name, all paths begin with a folder for their archive; of members of one archive that have
    the same name, the second is numbered, as are those that a file system without cases would take for the same.
    """

    def __init__(self, file: File, splits: Sequence[Split]) -> None:
        self._file = file
        self._table = file[MEMBERS]
        self._known: dict[int, Member] = {}
        self._archives = _archives(file)
        self._folders = _folders(file, self._archives)
        numbers = [np.unique(each.table.member_numbers(each.rows)) for split in splits for each in split.tables]
        self._numbers = np.unique(np.concatenate(numbers)).astype("i8")
        names, archives = self._facts()
        pairs = np.unique(np.stack([names, archives]), axis=1)
        self._by_archive = bool(pairs.shape[1] != len(np.unique(names)))
        self._ordinals = _ordinals(names * 1_000_003 + archives if self._by_archive else names)

    def _archive(self, number: int) -> int:
        if number >= len(self._archives):
            raise FormatError(
                f"{self._file.path}, {MEMBERS}: found archive {number}, expected one of {len(self._archives)}; make the file anew"
            )
        return self._archives[number]

    def _facts(self) -> tuple[Array, Array]:
        """Of each member a hash of its name, and its archive."""
        names, archives = np.empty((2, len(self._numbers)), "i8")
        for first in range(0, len(self._numbers), _STEP):
            some = slice(first, first + _STEP)
            columns = self._table.rows(self._numbers[some], ["path", "archive"])
            names[some] = [hash(folded(safe_path(path))) for path in columns["path"]]
            archives[some] = [self._archive(int(archive)) for archive in columns["archive"]]
        return names, archives

    def of(self, each: Chosen, rows: Array) -> list[Member]:
        """The member of each row. Those of the last rows that were asked for are kept: files and names are made of the same."""
        numbers = each.table.member_numbers(rows).tolist()
        known = self._known
        if not known.keys() >= set(numbers):
            self._known = known = self._read(np.unique(numbers))
        return [known[number] for number in numbers]

    def _read(self, numbers: Array) -> dict[int, Member]:
        names = [name for name in ("path", "key", "size", "crc32", "archive", "rows") if name in self._table.columns]
        columns = self._table.rows(numbers, names)
        records = (dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True))
        return {number: self._member(number, record) for number, record in zip(numbers.tolist(), records, strict=True)}

    def _member(self, number: int, record: dict[str, Any]) -> Member:
        folder = f"{self._folders[self._archive(int(record['archive']))]}/" if self._by_archive else ""
        path = folder + numbered(safe_path(record["path"]), self._ordinals.get(int(np.searchsorted(self._numbers, number)), 1))
        key = folder + safe_path(record.get("key") or sample_key(record["path"]))
        return Member(record["path"], path, key, int(record["size"]), int(record["crc32"]), int(record["rows"]))


def _archives(file: File) -> list[int]:
    """For each row of archives, the row by which the same archive came in first: a retry, and another run, record it again."""
    first: dict[str, int] = {}
    return [first.setdefault(f"{archive['uri']}\0{archive['fingerprint']}", number) for number, archive in enumerate(file.archives())]


def _folders(file: File, archives: Sequence[int]) -> dict[int, str]:
    """A name for each archive, no two alike."""
    uses: Counter[str] = Counter()
    names = {}
    for number in dict.fromkeys(archives):
        uri = file[ARCHIVES]["uri"][number]
        name = safe_path(stem(uri.rstrip("/").rpartition("/")[2]))
        uses[folded(name)] += 1
        names[number] = numbered(name, uses[folded(name)])
    return names


def _ordinals(names: Array) -> dict[int, int]:
    """Of the places of names that come up again, how many times they have."""
    order = np.argsort(names, kind="stable")
    again = np.flatnonzero(names[order][1:] == names[order][:-1]) + 1
    found: dict[int, int] = {}
    for at in again.tolist():
        found[int(order[at])] = found.get(int(order[at - 1]), 1) + 1
    return found
