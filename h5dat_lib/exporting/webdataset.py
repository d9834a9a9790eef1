"""Rows -> tar shards of samples, as WebDataset reads them: the files of a sample share a name up to the first dot and lie together.

https://github.com/webdataset/webdataset: a sample's key is a path up to the first dot of its name, what follows says what a file is.
"""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import PurePosixPath
from types import TracebackType

import numpy as np

from h5dat_lib.archive.packed import unpacked_path
from h5dat_lib.columns import Array
from h5dat_lib.config import Medium
from h5dat_lib.errors import ConfigError
from h5dat_lib.exporting.destination import Destination
from h5dat_lib.exporting.files import Part, Sources, parts, places, read_columns
from h5dat_lib.exporting.selection import BATCH_BYTES, Chosen, ExportOptions, Member, Split, label_of
from h5dat_lib.read.columns import Categorical

__all__ = ["write"]

_SAME = {".jpeg": ".jpg", ".jpe": ".jpg", ".jfif": ".jpg", ".tiff": ".tif"}
_ENDINGS: dict[Medium, str] = {"documents": ".json", "texts": ".txt"}
"""What WebDataset's decoders know, whatever the member was named."""
_LABELS = "labels.json"
_SLAB = 4096
"""Rows of which the keys are in memory as strings."""
_ROW_BYTES = 4096
"""What a row is counted as beside its bytes, so that there are not too many small ones in a batch."""

_Samples = dict[str, dict[str, bytes]]
"""By key, and by ending without its first dot, the bytes of a file."""


def write(splits: Sequence[Split], out: Destination, sources: Sources, options: ExportOptions) -> None:
    """Writes ``NAME-000000.tar`` and so on, of each split by its name, and beside them the names of the labels.

    A destination that is one file is one tar. Holds some 60 bytes a row, and a batch of rows.
    """
    if options.by not in ("key", "name"):
        raise ConfigError(f"--by: found {options.by!r}, expected key or name")
    if out.single and len(splits) > 1:
        raise ConfigError(f"{out.path}: found {len(splits)} splits for one tar, expected a folder")
    labels: dict[str, list[str]] = {}
    for split in splits:
        chosen = [each for each in split.tables if _is_sample(each, sources)]
        has_documents = any(each.medium == "documents" for each in chosen)
        made = [_Table(each, sources, options, has_documents) for each in chosen]
        labels |= {table.each.name: table.labels for table in made if table.label}
        with _Shards(out, split.name or out.path.stem, None if out.single else options.shard_bytes) as shards:
            for samples in _batches(made):
                for key, files in samples.items():
                    shards.add(key, files)
    if labels and not out.single:
        with out.create(_LABELS) as created:
            created.stream.write(json.dumps(labels, indent=1, ensure_ascii=False).encode())


def _is_sample(each: Chosen, sources: Sources) -> bool:
    """Whether rows of a table are samples."""
    if each.medium == "tables":
        sources.tally.left_out[each.name, "a record of a table is no sample; its columns can be labels of what is"] += len(each.rows)
        return False
    return True


class _Table:
    """A table whose rows are files of samples: pictures, sound, text or documents, their columns as JSON, and their label."""

    def __init__(self, each: Chosen, sources: Sources, options: ExportOptions, has_documents: bool) -> None:
        self.each = each
        self.label = label_of(each.table, options)
        column = each.table[self.label] if self.label else None
        self.labels: list[str] = column.categories if isinstance(column, Categorical) else []
        self._sources = replace(sources, utf8=True)
        self._by_name = options.by == "name"
        self._prefix = re.sub(r"[^\w-]", "-", each.name)
        self._columns = f"{self._prefix}.json" if has_documents else "json"

    def facts(self) -> Iterator[Array]:
        """Of each row (3, n) int64: the number of its member, a hash of its key, and its bytes."""
        for first in range(0, len(self.each.rows), _SLAB):
            rows = self.each.rows[first : first + _SLAB]
            keys = [hash(key) for key in self._keys(rows)]
            sizes = self.each.sizes(rows, read_columns(self.each)) + _ROW_BYTES
            yield np.stack([self.each.table.member_numbers(rows), np.array(keys, "i8"), sizes.astype("i8")])

    def _keys(self, rows: Array) -> list[str]:
        members = self._sources.members.of(self.each, rows)
        return [self._key(member, place) for member, place in zip(members, places(self.each, rows, members), strict=True)]

    def _key(self, member: Member, place: str) -> str:
        """A key that WebDataset takes for one: without a dot in its name, and not of a folder that it passes over."""
        folder, slash, name = member.key.rpartition("/")
        key = re.sub(r"^__", "%5F_", f"{'' if self._by_name else folder + slash}{name.replace('.', '_')}")
        return f"{key}/{place}" if place else key

    def add_to(self, samples: _Samples, rows: Array) -> None:
        """Adds the files of rows to their samples."""
        for part in parts(self.each, rows, self._sources):
            self._add(samples[self._key(part.member, part.place)], _ending(self.each, part), b"".join(part.data))
        keys = self._keys(rows)
        if self.each.medium != "documents":
            for key, record in zip(keys, self.each.table.table(rows=rows).to_pylist(), strict=True):
                self._add(samples[key], self._columns, json.dumps(record, default=str, ensure_ascii=False).encode())
        if self.label:
            for key, code in zip(keys, self.each.table[self.label].codes[rows].tolist(), strict=True):
                if code >= 0:
                    self._add(samples[key], "cls", str(code).encode())
        self._sources.tally.add(len(rows))

    def _add(self, files: dict[str, bytes], ending: str, data: bytes) -> None:
        """A file by its ending; by its class before that, and by a number, where the sample has such a file."""
        for name in (ending, f"{self._prefix}.{ending}", *(f"{self._prefix}-{number}.{ending}" for number in range(2, len(files) + 3))):
            if name not in files:
                files[name] = data
                return


def _ending(each: Chosen, part: Part) -> str:
    ending = part.ending or _ENDINGS.get(each.medium) or PurePosixPath(unpacked_path(part.member.path)).suffix.lower() or ".bin"
    return _SAME.get(ending, ending)[1:]


def _batches(tables: Sequence[_Table]) -> Iterator[_Samples]:
    """Whole samples, about `BATCH_BYTES` at a time, in the order in which their first members came in."""
    facts = [np.concatenate([*table.facts(), np.empty((3, 0), "i8")], axis=1) for table in tables]
    member, key, size = np.concatenate([*facts, np.empty((3, 0), "i8")], axis=1)
    number = np.repeat(np.arange(len(tables)), [len(table.each.rows) for table in tables])
    row = np.concatenate([np.empty(0, "i8"), *(table.each.rows for table in tables)])
    for entries in _in_samples(member, key, size):
        samples: _Samples = defaultdict(dict)
        for at, table in enumerate(tables):
            rows = row[entries[number[entries] == at]]
            if len(rows):
                table.add_to(samples, rows)
        yield samples


def _in_samples(member: Array, key: Array, size: Array) -> list[Array]:
    """Numbers of rows in runs of whole samples of about `BATCH_BYTES`."""
    order = np.argsort(member, kind="stable")
    _, first, sample = np.unique(key[order], return_index=True, return_inverse=True)
    by_sample = np.argsort(first[sample], kind="stable")
    order, sample = order[by_sample], sample[by_sample]
    begins = np.flatnonzero(np.diff(sample, prepend=-1))
    batch = (np.cumsum(size[order]) // BATCH_BYTES)[begins]
    return np.split(order, begins[1:][np.diff(batch) > 0])


class _Shards:
    """Tar files of about so many bytes, or one; a context manager. Equal samples make equal tars: there are no times or owners in them."""

    def __init__(self, out: Destination, name: str, most: int | None) -> None:
        self._out = out
        self._name = name
        self._most = most
        self._count = 0
        self._open: ExitStack | None = None

    def __enter__(self) -> _Shards:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None) -> None:
        self._end()

    def _begin(self) -> None:
        self._open = ExitStack()
        name = f"{self._name}.tar" if self._most is None else f"{self._name}-{self._count:06d}.tar"
        self._stream = self._open.enter_context(self._out.create(name)).stream
        self._tar = self._open.enter_context(tarfile.TarFile(fileobj=self._stream, mode="w", format=tarfile.PAX_FORMAT))
        self._count += 1

    def _end(self) -> None:
        if self._open is not None:
            self._open.close()
            self._open = None

    def add(self, key: str, files: dict[str, bytes]) -> None:
        """Adds a sample, to a new shard where this one is as large as it may be."""
        if self._open is not None and self._most and self._stream.tell() + sum(map(len, files.values())) > self._most:
            self._end()
        if self._open is None:
            self._begin()
        for ending, data in files.items():
            info = tarfile.TarInfo(f"{key}.{ending}")
            info.size = len(data)
            self._tar.addfile(info, io.BytesIO(data))
