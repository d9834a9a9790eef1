"""Two finished files -> what differs between them: classes, columns, rows by the member that they came from, lineage, attributes.

Chunks that are stored alike are not inflated; what is not is compared by value, a slab of rows at a time. How values are stored is no
difference, but said. In memory are 50 bytes for each member, and what differs, up to a limit.
"""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice, pairwise, product
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
from h5py import h5z

from h5dat_lib.columns import Array, link_name
from h5dat_lib.lineage import ARCHIVES, MEMBERS, REJECTS
from h5dat_lib.read.audit import filters
from h5dat_lib.read.chunked import Rows, fault
from h5dat_lib.read.columns import Categorical, Column, Encoded
from h5dat_lib.read.files import File, open_tables
from h5dat_lib.read.format import attribute
from h5dat_lib.read.history import KnownArchive, first_rows, history_of, keys_of
from h5dat_lib.rewriting.slabs import ENCODED, SLAB_BYTES, attributes_of, numbers_of, table_of_references

if TYPE_CHECKING:
    from h5dat_lib.config import S3Options

LIMIT = 50
"""Differences that are listed; others are counted."""
_STEP = 1 << 14
_ROWS = 4096
_PAIR_BYTES = 200
_SHOWN = 80
"""Characters of an attribute that are said."""
_DECODED = 16
"""How much larger a picture is than its file, about."""


@dataclass(frozen=True)
class Difference:
    """One thing that differs. ``kind``: class, column, rows, order, values, pairs, member, archive, reject, run or attribute.

    ``where``: "a" or "b" when only that file has it, "both" when it is another in each. ``part`` is the number of the row among those
    of its member in the table; ``rows`` are as many as are meant.
    """

    kind: str
    where: str
    table: str = ""
    column: str = ""
    archive: str = ""
    member: str = ""
    part: int = 0
    rows: int = 0
    detail: str = ""


@dataclass(frozen=True)
class Compared:
    """What differs between ``a`` and ``b``: the first ``differences``, how many there are of each kind, and how many are not listed.

    ``storage`` says what is stored in another way in one than in the other, whether the values differ or not.
    """

    a: str
    b: str
    same: bool
    differences: tuple[Difference, ...]
    counts: dict[str, int]
    more: int
    storage: tuple[str, ...]


def diff(a: str | Path, b: str | Path, limit: int = LIMIT, runs: bool = False, s3: S3Options | None = None) -> Compared:
    """Compares two files, on local disks or in S3. Rows are the same when they came from the same place of the same member, in whatever
    order; ``runs`` compares also who made them and when.

    Archives are the same by fingerprint, else by their bytes, else by their URI. Raises InputError or FormatError for a file that is not
    there, not H5DAT's or damaged.
    """
    with open_tables(a, s3) as first, open_tables(b, s3) as second:
        found = _Found(limit)
        _Comparison(first, second, found).compare(runs)
    more = sum(found.counts.values()) - sum(max(difference.rows, 1) for difference in found.listed)
    return Compared(str(a), str(b), not found.counts, tuple(found.listed), dict(found.counts), more, tuple(found.storage))


class _Found:
    """Differences, up to a limit, and how many there are of each kind."""

    def __init__(self, limit: int) -> None:
        self.listed: list[Difference] = []
        self.counts: Counter[str] = Counter()
        self.storage: list[str] = []
        self._limit = limit

    def add(self, kind: str, count: int, differences: Iterable[Difference]) -> None:
        """Notes so many differences of a kind; no more of them are made than are listed."""
        if count:
            self.counts[kind] += count
            self.listed += islice(differences, self._limit - len(self.listed))

    def one(self, difference: Difference) -> None:
        self.add(difference.kind, 1, [difference])


@dataclass(frozen=True)
class _Index:
    """The members that have rows in a table: their numbers, in order, the first row of each, and how many it has."""

    members: Array
    first: Array
    rows: Array

    @classmethod
    def of(cls, file: File, table: str) -> _Index:
        numbers, rows = numbers_of(file, table, "_member"), len(file[table])
        edges, before = [np.empty(0, "i8")], -1
        for at in range(0, len(numbers), _STEP):
            part = numbers[at : at + _STEP].astype("i8")
            edges.append(np.flatnonzero(np.diff(part, prepend=before)) + at)
            before = int(part[-1])
        first = np.concatenate(edges)
        members = numbers.take(first).astype("i8")
        known = len(file[MEMBERS]) if MEMBERS in file else 0
        if (np.diff(members) <= 0).any() or np.max(members, initial=-1) >= known or len(numbers) != rows:
            raise fault(numbers.dataset, "members that are not there or out of order", f"one of {known} for each row, never decreasing")
        return cls(members, first, np.diff(first, append=rows))


class _Comparison:
    def __init__(self, a: File, b: File, found: _Found) -> None:
        self._files = (a, b)
        self._found = found
        self._archives = _matched_archives(a, b)
        self._uris = [list(file[ARCHIVES]["uri"][:]) if ARCHIVES in file else [] for file in self._files]
        self._match = _matched(*(_keys(file, MEMBERS, ids, "class", "path") for file, ids in zip(self._files, self._archives, strict=True)))
        """For each member of the first file the same one of the second, -1 where there is none; and the other way round."""

    def compare(self, runs: bool) -> None:
        """Notes everything that differs, the large before the small."""
        a, b = self._files
        self._compare_archives()
        self._only(
            "class", a.tables, b.tables, lambda name, where: Difference("class", where, name, rows=len(self._files[where == "b"][name]))
        )
        for name in (name for name in a.tables if name in b):
            self._compare_table(name)
        self._compare_members(("size", "crc32", "sha256", "converter", *(("time",) if runs else ())))
        self._compare_rejects()
        self._compare_attributes("/", [{key: attribute(file.hdf5, key) for key in file.hdf5.attrs} for file in self._files])
        if runs:
            made = [[json.dumps(run, sort_keys=True) for run in file.runs()] for file in self._files]
            self._only("run", made[0], made[1], lambda run, where: Difference("run", where, detail=json.loads(run)["run_id"]))

    def _only(self, kind: str, a: Sequence[str], b: Sequence[str], made: Callable[[str, str], Difference]) -> None:
        """Notes the names that only one has."""
        for where, names in (("a", [name for name in a if name not in b]), ("b", [name for name in b if name not in a])):
            self._found.add(kind, sum(max(made(name, where).rows, 1) for name in names), (made(name, where) for name in names))

    def _compare_archives(self) -> None:
        a, b = self._archives
        for where, own, other, uris in (("a", a, b, self._uris[0]), ("b", b, a, self._uris[1])):
            rows = [int(np.flatnonzero(own == number)[0]) for number in np.setdiff1d(own, other)]
            self._found.add("archive", len(rows), (Difference("archive", where, archive=uris[row]) for row in rows))

    def _compare_attributes(self, table: str, told: Sequence[dict[str, Any]], column: str = "") -> None:
        a, b = told
        for key in sorted(a.keys() | b.keys()):
            if not np.array_equal(a.get(key, ""), b.get(key, "")):
                where = "both" if key in a and key in b else "a" if key in a else "b"
                detail = f"{key}: {shorten(repr(a.get(key)), _SHOWN)} and {shorten(repr(b.get(key)), _SHOWN)}"
                self._found.one(Difference("attribute", where, table, column, detail=detail))

    # Rows of classes

    def _compare_table(self, name: str) -> None:
        a, b = (file[name] for file in self._files)
        self._only("column", a.columns, b.columns, lambda column, where: Difference("column", where, name, column))
        columns = [column for column in a.columns if column in b.columns]
        layouts = [{column: table[column].layout for column in columns} for table in (a, b)]
        told = [_told(file, name) for file in self._files]
        if [layout.get("pixels") == "encoded" for layout in layouts] != [True, True]:  # it is told of files only
            told = [{key: value for key, value in each.items() if key not in ENCODED} for each in told]
        self._compare_attributes(name, told)
        for column in columns:
            self._compare_storage(name, column)
        pairs = self._paired(name)
        compared = [column for column in columns if not table_of_references(self._files[0], name, column)]
        is_same_order = np.array_equal(pairs[0], pairs[1]) and [len(a), len(b)] == [pairs[2].sum()] * 2
        left = [column for column in compared if not (is_same_order and self._are_stored_alike(f"{name}/{link_name(column)}"))]
        documents = any("_pairs" in file.hdf5[name] for file in self._files)
        if documents and is_same_order and all(self._are_stored_alike(f"{name}/{part}") for part in ("_pairs", "_keys")):
            documents = False
        if left or documents:
            self._compare_values(name, left, pairs, documents)

    def _compare_storage(self, name: str, column: str) -> None:
        a, b = (_described(file, name, column) for file in self._files)
        told = [f"{key} {a[key]} and {b[key]}" for key in a if key in b and a[key] != b[key]]
        if told:
            self._found.storage.append(f"{name}/{column}: {', '.join(told)}")
        forms = [{"form": form} if (form := _form(file.hdf5[name][link_name(column)])) else {} for file in self._files]
        self._compare_attributes(name, forms, column)

    def _paired(self, name: str) -> tuple[Array, Array, Array]:
        """First rows in both of the members that both have, in the order of the first, and how many both have of each. Notes the others."""
        a, b = (_Index.of(file, name) for file in self._files)
        there = np.searchsorted(b.members, self._match[0][a.members])
        there[there == len(b.members)] = 0
        both = (b.members[there] == self._match[0][a.members]) if len(b.members) else np.zeros(len(a.members), bool)
        there = there[both]
        absent = np.ones(len(b.members), bool)
        absent[there] = False
        more = a.rows[both] - b.rows[there]
        self._note_rows("a", name, a.members[~both], a.rows[~both])
        self._note_rows("b", name, b.members[absent], b.rows[absent])
        self._note_rows("a", name, a.members[both][more > 0], more[more > 0])
        self._note_rows("b", name, b.members[there][more < 0], -more[more < 0])
        moved = np.flatnonzero(np.diff(there) < 0) + 1
        detail = "the rows of this member come before those of the one that is before it in a"
        self._found.add(
            "order", len(moved), (self._of(a.members[both][at], Difference("order", "both", name, detail=detail)) for at in moved)
        )
        return a.first[both], b.first[there], np.minimum(a.rows[both], b.rows[there])

    def _note_rows(self, where: str, name: str, members: Array, rows: Array) -> None:
        named = zip(members.tolist(), rows.tolist(), strict=True)
        self._found.add("rows", int(rows.sum()), (self._of(member, Difference("rows", where, name, rows=count)) for member, count in named))

    def _of(self, member: int, difference: Difference) -> Difference:
        """A difference with the archive and the path of its member, which is one of the second file where only that has it."""
        members = self._files[difference.where == "b"][MEMBERS]
        archive = self._uris[difference.where == "b"][int(members["archive"][int(member)])]
        return replace(difference, archive=archive, member=members["path"][int(member)])

    def _compare_values(self, name: str, columns: Sequence[str], pairs: tuple[Array, Array, Array], documents: bool) -> None:
        a, b = (file[name] for file in self._files)
        for rows_a, rows_b, parts in _slabs(self._files, name, columns, pairs, documents):
            differing: dict[int, list[str]] = {}
            for column in columns:
                for at in np.flatnonzero(~_equal(*_values(a[column], b[column], rows_a, rows_b))).tolist():
                    differing.setdefault(at, []).append(column)
            self._note_values("values", name, rows_a, parts, differing)
            if documents:
                told = (_pairs(file, name, rows) for file, rows in zip(self._files, (rows_a, rows_b), strict=True))
                unlike = {at: ["_pairs"] for at, (mine, other) in enumerate(zip(*told, strict=True)) if mine != other}
                self._note_values("pairs", name, rows_a, parts, unlike)

    def _note_values(self, kind: str, name: str, rows: Array, parts: Array, differing: dict[int, list[str]]) -> None:
        members = numbers_of(self._files[0], name, "_member")
        self._found.add(
            kind,
            len(differing),
            (
                self._of(int(members[int(rows[at])]), Difference(kind, "both", name, ", ".join(columns), part=int(parts[at])))
                for at, columns in sorted(differing.items())
            ),
        )

    def _are_stored_alike(self, path: str) -> bool:
        """Whether a column has the same chunks in both files, byte for byte."""
        items = [file.hdf5.get(path) for file in self._files]
        parts = [_datasets(item) for item in items]
        if parts[0].keys() != parts[1].keys() or attribute(items[0], "layout") != attribute(items[1], "layout"):
            return False
        return all(_is_same(parts[0][part], parts[1][part]) for part in parts[0])

    # Lineage

    def _compare_members(self, columns: Sequence[str]) -> None:
        if not all(MEMBERS in file for file in self._files):
            return
        a, b = (file[MEMBERS] for file in self._files)
        for where, table, match in (("a", a, self._match[0]), ("b", b, self._match[1])):
            alone = np.flatnonzero(match < 0)
            idle = alone[table["rows"].rows(alone) == 0]  # those that have rows are noted by them
            named = (self._of(member, Difference("member", where)) for member in idle)
            self._found.add("member", len(idle), named)
        both = np.flatnonzero(self._match[0] >= 0)
        for at in range(0, len(both), _STEP):
            rows_a = both[at : at + _STEP]
            rows_b = self._match[0][rows_a]
            unlike = {column: ~_equal(a[column].rows(rows_a), b[column].rows(rows_b)) for column in columns}
            any_unlike = np.flatnonzero(np.any(list(unlike.values()), axis=0))
            self._found.add(
                "member",
                len(any_unlike),
                (
                    self._of(rows_a[n], Difference("member", "both", column=", ".join(c for c in columns if unlike[c][n])))
                    for n in any_unlike
                ),
            )

    def _compare_rejects(self) -> None:
        keys = [_keys(file, REJECTS, ids, "stage", "path", "reason") for file, ids in zip(self._files, self._archives, strict=True)]
        for where, file, match in zip("ab", self._files, _matched(*keys), strict=True):
            if REJECTS not in file:
                continue
            table, uris = file[REJECTS], self._uris[where == "b"]
            alone = [row for row in np.flatnonzero(match < 0).tolist() if not table["resolved"][row]]
            self._found.add(
                "reject",
                len(alone),
                (
                    Difference("reject", where, "", "", uris[int(table["archive"][r])], table["path"][r], detail=table["reason"][r])
                    for r in alone
                ),
            )


def _matched_archives(a: File, b: File) -> tuple[Array, Array]:
    """A number for each row of archives; those of one archive have the same, within a file and in both."""
    (mine, rows_a), (others, rows_b) = (_archives(file) for file in (a, b))
    numbers, free = np.full(len(others), -1), dict(enumerate(mine))
    for identity in _IDENTITIES:
        by_identity = {identity(archive): number for number, archive in reversed(free.items())}
        for at in np.flatnonzero(numbers < 0).tolist():
            numbers[at] = by_identity.pop(identity(others[at]), -1) if any(identity(others[at])) else -1
            free.pop(numbers[at], None)
    alone = numbers < 0
    numbers[alone] = len(mine) + np.arange(alone.sum())
    return np.array(rows_a, "i8"), numbers[np.array(rows_b, "i8")]


_IDENTITIES: tuple[Callable[[KnownArchive], tuple[Any, ...]], ...] = (
    lambda archive: (archive.fingerprint, archive.config_digest),
    lambda archive: (archive.sha256, archive.sha256 and archive.size),
    lambda archive: (archive.fingerprint,),
    lambda archive: (archive.uri,),
)
"""By what archives of two files are the same, the surest first."""


def _archives(file: File) -> tuple[list[KnownArchive], list[int]]:
    """The archives of a file, and which of them each row is of: what several runs, or retries, brought in of one counts together."""
    known, rows = history_of(file).archives, []
    numbers: dict[tuple[Any, ...], int] = {}
    for first in first_rows(file) if ARCHIVES in file else ():
        identity = _IDENTITIES[0](known[first])
        rows.append(numbers.setdefault(identity, len(numbers)))
    by_identity = {_IDENTITIES[0](archive): archive for archive in reversed(known)}
    return [by_identity[identity] for identity in numbers], rows


def _keys(file: File, table: str, archives: Array, *columns: str) -> Array:
    """(rows,) uint64 digests of the archive of each row and of columns of strings."""
    if table not in file:
        return np.empty(0, "u8")
    found, keys = file[table], [np.empty(0, "u8")]
    for first in range(0, len(found), _STEP):
        rows = slice(first, first + _STEP)
        numbers = found["archive"][rows]
        if np.max(numbers, initial=0) >= len(archives):
            raise fault(file.hdf5[table]["archive"], f"archive {np.max(numbers)}", f"one of {len(archives)}")
        parts = zip(archives[numbers].tolist(), *(found[column][rows] for column in columns), strict=True)
        digests = b"".join(hashlib.blake2b("\0".join(map(str, part)).encode(), digest_size=8).digest() for part in parts)
        keys.append(np.frombuffer(digests, "<u8"))
    return np.concatenate(keys)


def _matched(a: Array, b: Array) -> tuple[Array, Array]:
    """For each key of one the row of the other that has it, -1 where there is none; the second of equal keys is that of the second."""
    a, b = _numbered(a), _numbered(b)
    order = np.argsort(b)
    places = np.searchsorted(b, a, sorter=order)
    places[places == len(b)] = 0
    match = np.full(len(a), -1)
    if len(b):
        rows = order[places]
        match = np.where(b[rows] == a, rows, -1)
    back = np.full(len(b), -1)
    back[match[match >= 0]] = np.flatnonzero(match >= 0)
    return match, back


def _numbered(keys: Array) -> Array:
    """Keys of which the second of equal ones, the third and so on are others, the same for the same keys."""
    order = np.argsort(keys, kind="stable")
    found = keys[order]
    begins = np.flatnonzero(np.diff(found, prepend=~found[:1]) != 0)
    rank = np.arange(len(keys)) - np.repeat(begins, np.diff(begins, append=len(keys)))
    numbered = keys.copy()
    numbered[order] = found + rank.astype("u8") * np.uint64(0x9E3779B97F4A7C15)  # odd, so that ranks do not fall together
    return numbered


# Values


def _slabs(
    files: Sequence[File], name: str, columns: Sequence[str], pairs: tuple[Array, Array, Array], documents: bool
) -> Iterator[tuple[Array, Array, Array]]:
    """Rows of both files that are to be the same, and their numbers within the member, some at a time."""
    first_a, first_b, rows = pairs
    ends = np.cumsum(rows)
    fixed = max(sum(_fixed_bytes(file, name, column) for file in files for column in columns), 1)
    if documents:
        fixed += sum(_PAIR_BYTES * len(file[f"{name}/_pairs"]) // max(len(file[name]), 1) for file in files if f"{name}/_pairs" in file)
    step, at, last = max(min(_ROWS, SLAB_BYTES // fixed), 1), 0, int(ends[-1]) if len(ends) else 0
    while at < last:
        numbers = np.arange(at, min(at + step, last))
        members = np.searchsorted(ends, numbers, "right")
        parts = numbers - (ends - rows)[members]
        rows_a, rows_b = first_a[members] + parts, first_b[members] + parts
        sizes = _sizes(files[0], name, columns, rows_a) + _sizes(files[1], name, columns, rows_b)
        size = max(int(np.searchsorted(np.cumsum(sizes), SLAB_BYTES, "right")), 1)
        yield rows_a[:size], rows_b[:size], parts[:size]
        at += size


def _fixed_bytes(file: File, name: str, column: str) -> int:
    """Bytes of a value, where all have as many."""
    item = file.hdf5[name][link_name(column)]
    item = item.get("values") if attribute(item, "layout") == "nullable" else item
    return Rows(item).row_bytes if isinstance(item, h5py.Dataset) else 0


def _sizes(file: File, name: str, columns: Sequence[str], rows: Array) -> Array:
    """Bytes (rows,) of values of which each has its own size."""
    sizes = np.zeros(len(rows))
    for column in columns:
        item = file.hdf5[name][link_name(column)]
        if isinstance(item, h5py.Group) and "length" in item:
            sizes += Rows(item["length"], file.handle).take(rows) * (_DECODED if attribute(item, "layout") == "encoded" else 1.0)
    return sizes


def _values(a: Column, b: Column, rows_a: Array, rows_b: Array) -> tuple[Any, Any]:
    """Values of both, pictures as pixels unless both have their files."""
    if isinstance(a, Encoded) and isinstance(b, Encoded):
        return a.files(rows_a), b.files(rows_b)
    return a.rows(rows_a), b.rows(rows_b)


def _equal(a: Any, b: Any) -> Array:
    """Whether values are the same (rows,), of whatever type; a missing one is as NaN, and NaN as another NaN."""
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray) and (a.dtype.kind, a.shape) == (b.dtype.kind, b.shape):
        if a.ndim > 1 and a.dtype != b.dtype:
            return np.zeros(len(a), bool)
        same = np.ma.getdata(a) == np.ma.getdata(b)
        if a.dtype.kind in "fM" or np.ma.isMaskedArray(a) or np.ma.isMaskedArray(b):
            gone_a, gone_b = _missing(a), _missing(b)
            same = np.where(gone_a | gone_b, gone_a & gone_b, same)
        return np.asarray(same.reshape(len(a), -1).all(axis=1))
    return np.fromiter(map(_is_equal, _listed(a), _listed(b)), bool, len(a))


def _missing(values: Array) -> Array:
    gone: Array = np.ma.getmaskarray(values)
    return gone | np.isnan(np.ma.getdata(values)) if values.dtype.kind in "fM" else gone


def _listed(values: Any) -> list[Any]:
    """Values one by one, as Python has them, which compares numbers of all types exactly; None where there is none."""
    if not isinstance(values, np.ndarray) or values.ndim > 1:
        return list(values)
    return [None if gone else value for value, gone in zip(np.ma.getdata(values).tolist(), _missing(values).tolist(), strict=True)]


def _is_equal(a: Any, b: Any) -> bool:
    if not isinstance(a, np.ndarray) or not isinstance(b, np.ndarray):
        return not isinstance(a, np.ndarray) and not isinstance(b, np.ndarray) and bool(a == b)
    return (a.dtype, a.shape) == (b.dtype, b.shape) and bool(_equal(a.reshape(1, -1), b.reshape(1, -1)).all())


def _pairs(file: File, name: str, rows: Array) -> list[list[tuple[Any, ...]]]:
    """The key/value pairs of each row."""
    if f"{name}/_pairs" not in file:
        return [[] for _ in rows]
    table, keys = file[f"{name}/_pairs"], file[f"{name}/_keys"]["key"]
    owners = numbers_of(file, f"{name}/_pairs", "row")
    found: list[list[tuple[Any, ...]]] = []
    for run in np.split(rows, np.flatnonzero(np.diff(rows) != 1) + 1):
        first, last = bisect_left(owners, run[0]), bisect_left(owners, run[-1] + 1)
        codes, places = np.unique(table["key"][first:last], return_inverse=True)
        names = keys.rows(codes)
        pairs = list(zip((names[at] for at in places), table["value"][first:last], table["type"][first:last].tolist(), strict=True))
        ends = np.searchsorted(owners[first:last], run, "right").tolist()
        found += [pairs[begin:end] for begin, end in pairwise([0, *ends])]
    return found


# Storage


def _datasets(item: Any) -> dict[str, h5py.Dataset]:
    """The datasets of a column or a table, by their path in it."""
    if isinstance(item, h5py.Dataset):
        return {"": item}
    found: dict[str, h5py.Dataset] = {}
    if isinstance(item, h5py.Group):
        item.visititems(lambda name, part: found.update({name: part}) if isinstance(part, h5py.Dataset) else None)
    return found


def _how(dataset: h5py.Dataset) -> tuple[Any, ...]:
    return dataset.dtype, dataset.shape, dataset.chunks, filters(dataset.id.get_create_plist()), attribute(dataset, "unit")


def _is_same(a: h5py.Dataset, b: h5py.Dataset) -> bool:
    """Whether all chunks are stored as the same bytes. One that cannot be read is not: reading its values tells why."""
    if _how(a) != _how(b) or a.chunks is None:
        return False
    places = product(*(range(0, size, step) for size, step in zip(a.shape, a.chunks, strict=True)))
    try:
        return all(a.id.read_direct_chunk(place) == b.id.read_direct_chunk(place) for place in places)
    except (OSError, RuntimeError, ValueError, MemoryError):  # h5py raises any of them, according to what is damaged
        return False


def _described(file: File, name: str, column: str) -> dict[str, str]:
    """How a column is stored."""
    item = file.hdf5[name][link_name(column)]
    opened = file[name][column]
    told = {key: str(value) for key, value in opened.describe().items() if key in ("layout", "dtype")}
    main = item if isinstance(item, h5py.Dataset) else item.get("values", item.get("codes"))
    if isinstance(opened, Categorical):
        told["categories"] = f"{len(opened.categories)} ({hashlib.sha256(repr(opened.categories).encode()).hexdigest()[:8]})"
        told["dtype"] = "categories"
    if isinstance(main, h5py.Dataset):
        told |= {"chunks": str(main.chunks), "filters": str(_filter_names(main))}
    return told


def _filter_names(dataset: h5py.Dataset) -> str:
    names = {h5z.FILTER_SHUFFLE: "shuffle", h5z.FILTER_DEFLATE: "deflate"}
    return "+".join(names.get(number, str(number)) for number in filters(dataset.id.get_create_plist())) or "none"


def _told(file: File, name: str) -> dict[str, Any]:
    """The attributes of a table; the keys of documents in alphabetic order, as theirs means nothing."""
    told = attributes_of(file, name)
    keys = keys_of(told.get("keys"), file, name)
    return told | {"keys": json.dumps(keys, sort_keys=True)} if keys else told


def _form(item: Any) -> str:
    """How the dates of a column were written."""
    stored = item if isinstance(item, h5py.Dataset) else item.get("values")
    return str(attribute(stored, "form", "")) if stored is not None else ""
