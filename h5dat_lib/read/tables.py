"""A class of an open file -> its rows and columns, and what is asked of them: Arrow tables, conditions, joins, what is alike, batches."""

from __future__ import annotations

import operator
import warnings
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import h5py
import numpy as np

from h5dat_lib.columns import Array, PairType, column_name
from h5dat_lib.errors import FormatError, InputError, unknown
from h5dat_lib.lineage import MEMBERS
from h5dat_lib.read import alike, origins
from h5dat_lib.read.alike import DISTANCE, Alike, Group, Wanted
from h5dat_lib.read.chunked import Reader, Rows, fault, row_numbers
from h5dat_lib.read.columns import Column, checked_row, open_column, python_value
from h5dat_lib.read.format import table_attributes
from h5dat_lib.read.origins import Origin
from h5dat_lib.read.words import containing, words_of
from h5dat_lib.stage.known import binary

if TYPE_CHECKING:
    import pyarrow as pa

    from h5dat_lib.training.batches import Batches, Columns, Ragged, Samples, Shuffling, Transform
    from h5dat_lib.training.sampling import Sampler, Shard
    from h5dat_lib.training.torch_datasets import RowDataset, StreamDataset

_SLAB = 1 << 20
"""Rows of which the columns of a condition are in memory at a time."""


class Opened(Protocol):
    """The file that a table is in; it can be pickled."""

    @property
    def path(self) -> Path | str: ...

    @property
    def hdf5(self) -> h5py.File: ...

    @property
    def handle(self) -> Reader: ...

    def __getitem__(self, name: str) -> Table: ...

    def contents_of(self, name: str) -> Contents:
        """What has been read of a table. Raises KeyError when there is none of that name."""
        ...

    def member_rows(self, path: str) -> list[int]:
        """Rows of `lineage/members` that have a path, in order."""
        ...


class Contents:
    """What has been read of a table since the file was opened: its rows, and the columns that have been asked for."""

    def __init__(self, file: Opened, name: str) -> None:
        group = file.hdf5[name]
        self.rows, links = table_attributes(group)
        self.links = {column_name(link): link for link in links if not link.startswith("_")}
        self.columns: dict[str, Column] = {}


class Table:
    """The rows of a class. Columns are found by name, as items, or as attributes where the name allows it."""

    def __init__(self, file: Opened, name: str) -> None:
        self.class_name = name
        self._file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return operator.getitem, (self._file, str(self.class_name))

    def __repr__(self) -> str:
        return f"<{self._file.path}, {self.class_name}: {len(self):,} rows of {', '.join(self.columns)}>"

    @property
    def _contents(self) -> Contents:
        return self._file.contents_of(self.class_name)

    @property
    def _group(self) -> h5py.Group:
        return self._file.hdf5[self.class_name]

    def __len__(self) -> int:
        return self._contents.rows

    @property
    def columns(self) -> list[str]:
        """Names of the columns."""
        return list(self._contents.links)

    def __getitem__(self, which: Any) -> Any:
        """A column by its name. A row, by its number or the path of its member, as a dictionary; the rows of a slice, a list, or a member
        that has several, as a dictionary of what `rows` gives.

        Raises KeyError when there is neither a column nor a member of that name, IndexError when there is no such row.
        """
        if not isinstance(which, str):
            return self.rows(which) if isinstance(which, slice | list | np.ndarray) else self._row(which)
        if which in self._contents.links:
            return self._column(which)
        found = self.rows_of(which)
        if not len(found):
            raise unknown(f"{self._file.path}: {self.class_name} has no column or member", which, self.columns)
        return self._row(int(found[0])) if len(found) == 1 else self.rows(found)

    def __getattr__(self, column: str) -> Column:
        if column.startswith("_"):
            raise AttributeError(column)
        try:
            return self._column(column)
        except KeyError as exc:
            raise AttributeError(str(exc)) from exc

    def _column(self, name: str) -> Column:
        contents = self._contents
        if name not in contents.columns:
            if name not in contents.links:
                raise unknown(f"{self._file.path}: {self.class_name} has no column", name, self.columns)
            group, link = self._group, contents.links[name]
            if link not in group:
                raise fault(group, f"no column {name!r}", "one, as its attribute `columns` says")
            column = open_column(group[link], group, self._file.handle)
            column.belongs_to(self, name)
            contents.columns[name] = column
        return contents.columns[name]

    def _row(self, row: int) -> dict[str, Any]:
        row = checked_row(row, len(self))
        return {name: self._column(name)[row] for name in self.columns}

    def rows(self, rows: Any, columns: Sequence[str] | None = None, stack: bool = False) -> dict[str, Any]:
        """Several rows, column by column, each as `Column.rows` gives it, to which ``stack`` goes; of all columns, or of those named.

        ``rows`` are numbers, booleans (one a row) or a slice. Raises KeyError for a column, IndexError for a row that is not there.
        """
        numbers = row_numbers(rows, len(self))
        return {name: self._column(name).rows(numbers, stack=stack) for name in (self.columns if columns is None else columns)}

    def batches(
        self, batches: Iterable[Any], columns: Sequence[str] | None = None, ahead: int = 1, stack: bool = False
    ) -> Iterator[dict[str, Any]]:
        """What `rows` gives for each of ``batches`` in turn. While one is used, up to ``ahead`` further ones are read by another thread."""
        if not ahead:
            yield from (self.rows(rows, columns, stack) for rows in batches)
            return
        with ThreadPoolExecutor(1, "h5dat-ahead") as reading:
            waiting: deque[Future[dict[str, Any]]] = deque()
            try:
                for rows in batches:
                    waiting.append(reading.submit(self.rows, rows, columns, stack))
                    if len(waiting) > ahead:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                reading.shutdown(cancel_futures=True)

    def numpy(
        self,
        columns: Columns = None,
        transform: Transform | None = None,
        *,
        batch_size: int,
        rows: Any = None,
        shuffle: Shuffling = False,
        shard: Shard | None = None,
        ragged: Ragged = "list",
        drop_last: bool = False,
    ) -> Batches:
        """Epochs of batches of NumPy arrays, for any framework that takes them: docs/training.md.

        ``rows`` are those of a split; None all of them. Raises KeyError for a column, IndexError for a row that is not there, ConfigError
        for a size of a batch, a shard or a shuffle that cannot be.
        """
        from h5dat_lib.training.batches import Batches, Samples

        samples = Samples(self, columns, transform)
        return Batches(samples, self._sampler(samples, batch_size, rows, shuffle, shard, drop_last), ragged)

    def torch(
        self,
        columns: Columns = None,
        transform: Transform | None = None,
        *,
        batch_size: int | None = None,
        rows: Any = None,
        shuffle: Shuffling | None = None,
        shard: Shard | None = None,
        ragged: Ragged = "list",
        drop_last: bool = False,
    ) -> RowDataset | StreamDataset:
        """A dataset of torch, for a DataLoader: docs/training.md.

        Without ``shuffle`` and ``batch_size`` it is asked for samples by their numbers. With ``shuffle``, also False, it gives samples in
        an order of its own, with ``batch_size`` batches of tensors. ``shard`` is by default this process's of torch.distributed.
        Raises as `numpy` does, and ConfigError when torch is not installed.
        """
        from h5dat_lib.training.batches import READ_AT_ONCE, Samples
        from h5dat_lib.training.torch_datasets import RowDataset, StreamDataset, own_shard

        samples = Samples(self, columns, transform)
        if shuffle is None and batch_size is None:
            return RowDataset(samples, None if rows is None else row_numbers(rows, len(self)))
        size = READ_AT_ONCE if batch_size is None else batch_size
        sampler = self._sampler(samples, size, rows, shuffle or False, own_shard() if shard is None else shard, drop_last)
        return StreamDataset(samples, sampler, None if batch_size is None else ragged)

    def _sampler(self, samples: Samples, batch_size: int, rows: Any, shuffle: Shuffling, shard: Shard | None, drop_last: bool) -> Sampler:
        from h5dat_lib.training.batches import shuffle_of
        from h5dat_lib.training.sampling import Sampler

        chosen = len(self) if rows is None else row_numbers(rows, len(self))
        return Sampler(chosen, batch_size, shuffle_of(samples, shuffle), shard, drop_last)

    def split(self, shares: Mapping[str, float] | str, by: str = "key", seed: int = 0) -> dict[str, Array]:
        """Rows of each split, (n,) int64 in order: of about these shares of all, or by the names in a column that holds them.

        Rows that are alike in ``by`` are in the same split, whatever else is in the table or comes in later: what `table` knows of the
        member (``key``, ``name``, ``path``, ``sha256``), or a column; where that is missing, the member's key. Raises ConfigError when
        shares do not add up to 1, KeyError when there is nothing of that name.
        """
        from h5dat_lib.training.splits import Splits

        if isinstance(shares, str):
            names = self._column(shares)[:]
            return {str(name): np.flatnonzero([name == other for other in names]) for name in dict.fromkeys(names) if name is not None}
        splits = Splits(shares, seed)
        found, keys = np.unique(np.array(self._keys(by), dtype=object), return_inverse=True)
        number = np.array([splits.names.index(splits.of(key)) for key in found], "i8")[keys]
        return {name: np.flatnonzero(number == at) for at, name in enumerate(splits.names)}

    def _keys(self, by: str) -> list[str]:
        """What decides the split of each row, as text."""
        if by not in self.columns:
            return self._of_members(by)
        values = [python_value(value) for value in self._column(by)[:]]
        instead = self._of_members("key") if None in values else []
        from h5dat_lib.training.splits import key_text

        return [key_text(value) if value is not None else instead[row] for row, value in enumerate(values)]

    def _of_members(self, what: str) -> list[str]:
        """What lineage says of the member of each row."""
        if what not in origins.KNOWN:
            raise unknown(f"{self._file.path}: {self.class_name} has no column", what, [*self.columns, *origins.KNOWN])
        numbers, rows = np.unique(self._rows_column("_member")[:], return_inverse=True)
        found = origins.KNOWN[what](self._file, numbers)
        return [found[row] for row in rows.tolist()]

    def rows_of(self, member: str) -> Array:
        """Numbers (n,) int64 of the rows that came from members of this path, in order; a document or table may give many, or none."""
        found = [self.rows_of_member(number) for number in self._file.member_rows(member)]
        return np.concatenate(found) if found else np.empty(0, "i8")

    def member_numbers(self, rows: Any) -> Array:
        """Rows (n,) int64 of ``lineage/members`` that rows came from; those of neighbours never decrease. Raises FormatError for damage."""
        if "_member" not in self._group:
            raise fault(self._group, "no column '_member'", "one, that says which members its rows came from")
        found, members = self._rows_column("_member")[rows], len(self._file[MEMBERS])
        if (most := np.max(found, initial=0)) >= max(members, 1):
            raise fault(self._group, f"rows of member {most}", f"them below {members}")
        return np.asarray(found, "i8")

    def rows_of_member(self, number: int) -> Array:
        """The same of one member, by its row of ``lineage/members``."""
        numbers = self._rows_column("_member")
        return np.arange(bisect_left(numbers, number), bisect_left(numbers, number + 1))

    def table(self, columns: Sequence[str] | None = None, rows: Any = None) -> pa.Table:
        """Columns as an Arrow table: those named, or all of numbers, booleans, dates, strings and categories; of all rows, or of ``rows``.

        Beside the columns these names are known: ``row``, its number, and of its member ``member``, the path, ``key``, what members of one
        sample share, ``name``, the key without its folder, ``sha256`` and ``archive``. Raises KeyError for another name, InputError for
        arrays.
        """
        import pyarrow as pa

        wanted = slice(None) if rows is None else row_numbers(rows, len(self))
        return pa.table({name: self._values(name, wanted) for name in (self._typed() if columns is None else columns)})

    def where(self, condition: str) -> Array:
        """Numbers (n,) int64 of the rows that meet a condition in SQL, as DuckDB has it: ``label = 'Shirts' and height > 1000``.

        It sees the columns that `table` gives, in slabs, and nothing else. What is missing meets no comparison. Needs the extra ``query``.
        Raises KeyError for a column that is not there, InputError for what is no condition, or cannot be evaluated.
        """
        import pyarrow as pa

        from h5dat_lib.read.query import Condition

        asked = Condition(condition)
        names = {name: self._meant(name) for name in asked.columns} or {"row": "row"}
        found = [np.empty(0, "i8")]
        for first in range(0, len(self), _SLAB):
            rows = slice(first, min(first + _SLAB, len(self)))
            met = asked.mask(pa.table({name: self._values(meant, rows) for name, meant in names.items()}))
            found.append(np.flatnonzero(met) + first)
        return np.concatenate(found)

    def join(self, other: Table, on: str | tuple[str, str]) -> pa.Table:
        """Pairs of rows that agree ``on`` a column, or on one of each table: an Arrow table of ``on``, ``row``, ``other_row``, in order.

        Names are those that `table` knows: ``key`` joins members of one sample, ``name`` those of one name in other folders; keys of which
        none is in both tables are a warning.
        """
        from h5dat_lib.read.arrow import OTHER_ROW, ROW, joined

        left, right = (on, on) if isinstance(on, str) else on
        sides = ((self, left, ROW), (other, right, OTHER_ROW))
        pairs = joined(*({"on": table._values(name, slice(None)), row: table._values("row", slice(None))} for table, name, row in sides))
        if left == right == "key" and not len(pairs) and len(self) and len(other):
            keys = " and ".join(f"{table._values('key', [0])[0]} of {table.class_name}" for table in (self, other))
            warnings.warn(f"{self._file.path}: found no key in both tables ({keys}); on='name' leaves their folders out", stacklevel=2)
        return pairs

    def wanted(self, row: int, decode: bool = False) -> Wanted:
        """What `like` looks for when it is asked for a row, to ask other tables for it; ``decode`` as there.

        Raises IndexError, and InputError for a table without pictures.
        """
        row = checked_row(row, len(self))
        numbers = self._rows_column("_member")
        number = int(numbers[row])
        sha256 = self._file[MEMBERS]["sha256"][number]
        return Wanted(self.named(row), alike.hash_of_row(self, row, decode), sha256, row - bisect_left(numbers, number), self._home, row)

    def like(self, query: Any, distance: int = DISTANCE, limit: int | None = None, rows: Any = None, decode: bool = False) -> list[Alike]:
        """Rows that look like a picture, the nearest first: those of the same bytes, then those whose perceptual hashes differ in at most
        ``distance`` of 64 bits.

        ``query`` is a picture's path, bytes or pixels, a row of this table, which is not found itself, or what `wanted` gives of
        another's. Of ``rows`` only, when they are given. Hashes are those stored (`image.phash`); ``decode`` computes those that are not,
        from all pixels. Raises InputError for what is no picture or distance, a table without pictures, and one without hashes when no row
        is of the same bytes; IndexError.
        """
        if isinstance(query, int | np.integer):
            query = self.wanted(int(query), decode)
        asked = query if isinstance(query, Wanted) else alike.wanted_picture(query)
        if asked.home != self._home:
            asked = replace(asked, row=-1)
        return alike.like(self, asked, distance, limit, self._mask(rows), decode)

    def duplicates(self, distance: int = 0, rows: Any = None, decode: bool = False) -> list[Group]:
        """Groups of rows that came from members of the same bytes, from the same place in them, or whose perceptual hashes differ in at
        most ``distance`` bits. Of a table without hashes the first rows of members of the same bytes.

        ``rows`` and ``decode`` are as of `like`. Raises InputError for what is no distance, and one above 0 for a table without hashes.
        """
        return alike.duplicates(self, distance, self._mask(rows), decode)

    def search(self, text: str) -> Array:
        """Numbers (n,) int64 of the rows that have all words of a text in their strings, texts, categories, or pairs, as any part of
        them, whatever the case. Raises InputError when it has no words.
        """
        pairs = Table(self._file, f"{self.class_name}/_pairs") if "_pairs" in self._group else None
        return containing(self, pairs, words_of(text))

    @property
    def _home(self) -> str:
        return f"{self._file.path}, {self.class_name}"

    def _mask(self, rows: Any) -> Array | None:
        if rows is None:
            return None
        mask = np.zeros(len(self), bool)
        mask[row_numbers(rows, len(self))] = True
        return mask

    def rows_of_content(self, sha256: str, place: int = 0) -> Array:
        """Numbers (n,) int64 of the rows that came from members with these bytes: of each the one in this place, from 0."""
        members, found = Rows(self._file.hdf5[f"{MEMBERS}/sha256"], self._file.handle), [np.empty(0, "i8")]
        for first in range(0, len(members), _SLAB):
            same = np.flatnonzero(members[first : first + _SLAB] == sha256.encode())
            found += [self.rows_of_member(first + number)[place : place + 1] for number in same.tolist()]
        return np.concatenate(found)

    def contents(self) -> tuple[Array, Array]:
        """SHA-256 (rows, 4) uint64 of the member of each row, all 0 where it is not known, and the row's place (rows,) int64 in it."""
        members = self._rows_column("_member")[:].astype("i8")
        changes = np.diff(members, prepend=-1) != 0
        first, which = np.flatnonzero(changes), np.cumsum(changes) - 1
        digits = Rows(self._file.hdf5[f"{MEMBERS}/sha256"], self._file.handle)
        if len(members) and not 0 <= members.min() <= members.max() < len(digits):
            raise fault(self._group, f"rows of members {members.min()} to {members.max()}", f"0 to {len(digits) - 1}")
        digests = np.zeros((len(first), 4), "u8")
        for at in range(0, len(first), _SLAB):
            part = slice(at, at + _SLAB)
            digests[part] = binary(digits[members[first[part]]].astype("S64")).view("u8").reshape(-1, 4)
        return digests[which], np.arange(len(members)) - first[which]

    def _typed(self) -> list[str]:
        from h5dat_lib.read.arrow import is_typed

        return [name for name in self.columns if is_typed(self._column(name))]

    def _meant(self, name: str) -> str:
        """The column that a condition means: SQL takes no notice of case."""
        known = [*self._typed(), *self._lineage_names()]
        if name in known:
            return name
        same = [other for other in known if other.casefold() == name.casefold()]
        if not same and name in self.columns:
            raise InputError(f"{self._file.path}: {self.class_name}, column {name!r}: found arrays, expected a column of plain values")
        if not same:
            raise unknown(f"{self._file.path}: {self.class_name} has no column", name, known)
        return same[0]

    def _lineage_names(self) -> list[str]:
        return ["row", *origins.KNOWN] if "_member" in self._group else ["row"]

    def _values(self, name: str, rows: Any) -> pa.Array:
        """A column, or what is known of the members of rows, as an Arrow array."""
        import pyarrow as pa

        from h5dat_lib.read.arrow import arrow_array, of_few

        if name in self.columns:
            return arrow_array(name, self._column(name), rows)
        if name not in self._lineage_names():
            raise unknown(f"{self._file.path}: {self.class_name} has no column", name, [*self.columns, *self._lineage_names()])
        if name == "row":
            return pa.array(row_numbers(rows, len(self)))
        members, codes = np.unique(self._rows_column("_member")[rows], return_inverse=True)
        return of_few(origins.KNOWN[name](self._file, members), codes)

    def named(self, row: int) -> str:
        """A row for a message: its number, and its member where it is known."""
        try:
            return f"{self.class_name}[{row}] ({self.origin(row).member})"
        except (LookupError, FormatError):  # a table without members, or damaged there, too
            return f"{self.class_name}[{row}]"

    def _rows_column(self, link: str) -> Rows:
        return Rows(self._group[link], self._file.handle)

    def describe(self) -> dict[str, Any]:
        """name, rows, key/value pairs, bytes on disk, and each column with layout, shape of a value (None: varies), dtype and bytes."""
        columns = [{"name": name, **self._column(name).describe()} for name in self.columns]
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
        return origins.origin_of(self._file, int(self._rows_column("_member")[checked_row(row, len(self))]))

    def pairs(self, row: int) -> list[tuple[str, str, str]]:
        """The key/value pairs of a row: (dotted key path, value, type), in the order of the document."""
        if "_pairs" not in self._group:
            return []
        pairs, keys = Table(self._file, f"{self.class_name}/_pairs"), Table(self._file, f"{self.class_name}/_keys")
        rows, row = self._rows_column("_pairs/row"), checked_row(row, len(self))
        found = slice(bisect_left(rows, row), bisect_left(rows, row + 1))
        names = {int(code): keys["key"][int(code)] for code in np.unique(pairs["key"][found])}
        return [
            (names[int(key)], value, PairType.NAMES[kind])
            for key, value, kind in zip(pairs["key"][found], pairs["value"][found], pairs["type"][found], strict=True)
        ]

    def rows_as_dicts(self) -> list[dict[str, Any]]:
        """All rows as dictionaries; for small tables."""
        columns = {name: self._column(name)[:] for name in self.columns}
        return [{name: python_value(values[row]) for name, values in columns.items()} for row in range(len(self))]
