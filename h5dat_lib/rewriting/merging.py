"""Several finished files -> one, as if all their archives had been ingested into it."""

from __future__ import annotations

import json
import os
import time
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from h5dat_lib.columns import Array
from h5dat_lib.commit.transaction import Output
from h5dat_lib.config import Config
from h5dat_lib.errors import InputError, OutputError
from h5dat_lib.lineage import ARCHIVES, BATCHES, LINEAGE, MEMBERS, REJECTS, RUNS
from h5dat_lib.lock import OutputLock
from h5dat_lib.plan.layout import Forms, PixelLayout
from h5dat_lib.read.chunked import fault
from h5dat_lib.read.files import File, open_tables
from h5dat_lib.read.format import attribute
from h5dat_lib.read.history import History, KnownArchive, first_rows, history_of, keys_of, recorded_config
from h5dat_lib.rewriting.new_file import append, in_place_of, local_output
from h5dat_lib.rewriting.slabs import ENCODED, Ranges, Slabs, Spool, Target, attributes_of, numbers_of, tables
from h5dat_lib.storage import is_remote

if TYPE_CHECKING:
    from h5dat_lib.config import S3Options
    from h5dat_lib.stage.staged import Segment

_STEP = 1 << 16


@dataclass(frozen=True)
class Merged:
    """What was written: ``rows`` of classes, archives (an archive of several runs counts once), members and rejects, ``bytes`` of the file.

    ``duplicates`` names the archives that several inputs have, and of which all copies but one were left out.
    """

    output: str
    inputs: tuple[str, ...]
    rows: int
    archives: int
    members: int
    rejects: int
    duplicates: tuple[str, ...]
    bytes: int
    seconds: float


def merge(inputs: Sequence[str | Path], output: str | Path, new_run: bool = False, s3: S3Options | None = None) -> Merged:
    """Writes the rows of all inputs, in their order, with their lineage, to a new file on a local disk; inputs may be in S3.

    An archive that several have comes in once: from the first that has all of it, or most. What one lacks of a class or a column is
    missing. ``new_run`` allows inputs that were made with different configurations. The new file is complete or not there; memory
    does not grow with the inputs.

    Raises InputError or FormatError for inputs that cannot be used or are damaged, OutputError for an output that is there, or inputs
    that do not go together.
    """
    started, path = time.monotonic(), local_output(output)
    if len(inputs) < 2:
        raise InputError(f"found {len(inputs)} files to merge, expected at least two")
    _refuse_itself(inputs, path)
    with ExitStack() as opened, OutputLock(path):
        if path.exists():
            raise OutputError(f"{output}: is there already, expected a new name; merge writes no file over another")
        files = [opened.enter_context(open_tables(name, s3)) for name in inputs]
        merging = _Merging(files, new_run)
        with in_place_of(path, merging.config) as new:
            merging.write(new)
    counts = merging.counts
    rows = sum(count for name, count in counts.items() if not name.startswith(f"{LINEAGE}/") and not name.endswith(("/_pairs", "/_keys")))
    of_lineage = (merging.archives, counts.get(MEMBERS, 0), counts.get(REJECTS, 0), merging.duplicates)
    return Merged(str(output), tuple(map(str, inputs)), rows, *of_lineage, path.stat().st_size, time.monotonic() - started)


def _refuse_itself(inputs: Sequence[str | Path], output: Path) -> None:
    for name in inputs:
        if not is_remote(str(name)) and Path(os.path.realpath(name)) == output:
            raise OutputError(f"{output}: found the output among the inputs, expected another name")


@dataclass(frozen=True)
class _Numbers:
    """New numbers for rows: those of the range ``first`` to before ``last`` count from ``new``. Ranges are in order."""

    first: Array
    last: Array
    new: Array

    @classmethod
    def of(cls, ranges: Ranges, base: int) -> _Numbers:
        first, last = np.array(ranges, "i8").reshape(-1, 2).T
        return cls(first, last, base + np.cumsum(last - first) - (last - first))

    def __call__(self, rows: Array) -> Array:
        """A row that is in no range has the number of the one behind it that is, as where the frames of a video without any begin."""
        if not len(self.first):
            return np.zeros_like(rows)
        rows = rows.astype("i8")
        at = np.maximum(np.searchsorted(self.first, rows, "right") - 1, 0)
        new: Array = self.new[at] + np.clip(rows - self.first[at], 0, (self.last - self.first)[at])
        return new


class _Merging:
    """What is decided before anything is written, and how many rows of each table have been."""

    def __init__(self, files: Sequence[File], new_run: bool) -> None:
        self.counts: dict[str, int] = {}
        self._files = files
        self._tables = [tables(file) for file in files]
        histories = [history_of(file) for file in files]
        self.config = Config(compression=_common_configuration(files, histories, new_run).compression)
        self._kept, self.archives, self.duplicates = _chosen(files, histories)
        names = list(dict.fromkeys(name for found in self._tables for name in found))
        having = {name: [file for file in files if name in file] for name in names}
        self._attributes = {name: _united_attributes(name, having[name]) for name in names}
        layouts = {name: [found.forms.layouts[name] for found in histories if name in found.forms.layouts] for name in names}
        self._layouts = {name: _common_layout(found) for name, found in layouts.items() if found}
        for name in names:
            _refuse_other_storage(name, having[name])
        self._run_rows: dict[str, int] = {}

    def write(self, output: Output) -> None:
        """Writes all rows of all files."""
        output.forms = Forms(self._layouts)
        with Spool(output.folder) as spool:
            segments = (segment for number in range(len(self._files)) for segment in self._of_file(number, spool))
            append(output, segments, spool, self.config.commit_bytes)

    def _of_file(self, number: int, spool: Spool) -> Iterator[Segment]:
        file, target = self._files[number], Target(self.config.compression, self._layouts)
        ranges = _ranges(file, self._tables[number], self._kept[number])
        numbers = {name: _Numbers.of(found, self.counts.get(name, 0)) for name, found in ranges.items()}
        if RUNS in ranges:
            ranges[RUNS], numbers[RUNS] = self._runs(file, self._kept[number])
        for name, found in ranges.items():
            rows = sum(last - first for first, last in found)
            slabs = Slabs(file, name, target, numbers, self._attributes[name])
            if rows or not slabs.rows:
                yield from slabs.segments(found, spool)
            self.counts[name] = self.counts.get(name, 0) + rows
        file.handle.cache.clear()  # so that memory does not grow with the inputs, which all are open

    def _runs(self, file: File, kept: Array) -> tuple[Ranges, _Numbers]:
        """The runs that archives which come in are of; a run that came in with another file is that one."""
        ids = file[RUNS]["run_id"][:]
        needed = sorted(set(file[ARCHIVES]["run"][:][kept].tolist()))
        if needed and needed[-1] >= len(ids):
            raise fault(file.hdf5[ARCHIVES], f"run {needed[-1]}", f"one of {len(ids)}")
        new = [row for row in needed if ids[row] not in self._run_rows]
        for row in new:
            self._run_rows[ids[row]] = len(self._run_rows)
        first = np.array(needed, "i8")
        return [(row, row + 1) for row in new], _Numbers(first, first + 1, np.array([self._run_rows[ids[row]] for row in needed], "i8"))


def _common_configuration(files: Sequence[File], histories: Sequence[History], new_run: bool) -> Config:
    """The configuration of the first file that has one. Raises OutputError when another was made otherwise, which ``new_run`` allows."""
    before, first = History(), Config()
    for file, found in zip(files, histories, strict=True):
        if not found.configuration:
            continue
        config = recorded_config(file.path, found.configuration)
        if not before.configuration:
            before, first = found, config
            continue
        differences = before.differences(config)
        filters = [line for line in differences if line.startswith("compression.filter")]
        if filters or (differences and not new_run):
            way = f"`h5dat repack {file.path} --filter {first.compression.filter}`" if filters else "--new-run merges them all the same"
            raise OutputError(
                f"{file.path}: was made with another configuration than {files[0].path} ({'; '.join(filters or differences)}); {way}"
            )
        before = replace(before, digests=before.digests | found.digests)
    return first


@dataclass
class _Copy:
    """What one file has of an archive: rows of its table, members, whether it is all."""

    file: int
    rows: list[int]
    uri: str
    members: int = 0
    complete: bool = False


def _chosen(files: Sequence[File], histories: Sequence[History]) -> tuple[list[Array], int, tuple[str, ...]]:
    """For each file which rows (archives,) of its archives come in; how many archives that are, and the URIs of those left out."""
    groups: dict[int, list[_Copy]] = {}
    known: dict[tuple[str | int, ...], int] = {}
    for number, (file, found) in enumerate(zip(files, histories, strict=True)):
        copies: dict[int, _Copy] = {}
        for row, first in enumerate(first_rows(file) if ARCHIVES in file else ()):
            names = _names(found.archives[first])
            group = next((known[name] for name in names if name in known), len(groups))
            known |= dict.fromkeys(names, group)
            if group not in copies:
                copies[group] = _Copy(number, [], found.archives[first].uri)
                groups.setdefault(group, []).append(copies[group])
            copy = copies[group]
            copy.rows.append(row)
            copy.members += found.archives[row].members
            copy.complete |= row == first and found.archives[row].complete
    kept = [np.zeros(len(found.archives), bool) for found in histories]
    left: list[str] = []
    for group_copies in groups.values():
        best = max(group_copies, key=lambda copy: (copy.complete, copy.members))  # of equals the first
        kept[best.file][best.rows] = True
        left += [copy.uri for copy in group_copies if copy is not best]
    return kept, len(groups), tuple(left)


def _names(archive: KnownArchive) -> list[tuple[str | int, ...]]:
    """What an archive is known by, as an ingest knows it: its fingerprint, or all its bytes."""
    names: list[tuple[str | int, ...]] = [(archive.fingerprint, archive.config_digest)]
    return [*names, (archive.sha256, archive.size, archive.config_digest)] if archive.sha256 else names


def _ranges(file: File, names: Iterable[str], kept: Array) -> dict[str, Ranges]:
    """For each table the rows that belong to archives that come in."""
    whole: dict[str, Ranges] = {name: [(0, len(file[name]))] for name in names}
    if kept.all():
        return whole
    whole[ARCHIVES] = _true_ranges([kept])
    for name in {BATCHES, MEMBERS, REJECTS} & whole.keys():
        whole[name] = _true_ranges(_of_archives(file, name, kept))
    for name in whole:
        if name.endswith("/_pairs"):
            whole[name] = _below(file, name, "row", whole[name.removesuffix("/_pairs")])
        elif not name.startswith(f"{LINEAGE}/") and not name.endswith("/_keys"):  # of keys those that no pair needs do no harm
            whole[name] = _below(file, name, "_member", whole[MEMBERS])
    return whole


def _of_archives(file: File, name: str, kept: Array) -> Iterator[Array]:
    """Whether the rows of a table of lineage are of archives that come in, some at a time."""
    archives = numbers_of(file, name, "archive")
    for first in range(0, len(archives), _STEP):
        numbers = archives[first : first + _STEP]
        if np.max(numbers, initial=0) >= len(kept):
            raise fault(archives.dataset, f"archive {np.max(numbers)}", f"one of {len(kept)}")
        yield kept[numbers]


def _true_ranges(masks: Iterable[Array]) -> Ranges:
    """Where rows are true, as ranges."""
    ranges: list[tuple[int, int]] = []
    row = 0
    for mask in masks:
        edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype("i1"))) + row
        for first, last in edges.reshape(-1, 2).tolist():
            goes_on = bool(ranges) and ranges[-1][1] == first
            ranges.append((ranges.pop()[0] if goes_on else first, last))
        row += len(mask)
    return ranges


def _below(file: File, name: str, link: str, ranges: Ranges) -> Ranges:
    """The rows whose numbers in a column, which never decrease, are in some ranges."""
    numbers = numbers_of(file, name, link)
    found = [(bisect_left(numbers, first), bisect_left(numbers, last)) for first, last in ranges]
    return [(first, last) for first, last in found if first < last]


def _united_attributes(name: str, files: Sequence[File]) -> dict[str, Any]:
    """The attributes of a table, of the first file that has them; the keys of documents that are columns are those of all."""
    found = [attributes_of(file, name) for file in files]
    for file, others in zip(files[1:], found[1:], strict=True):
        for key in ENCODED:
            if found[0].get(key) != others.get(key):
                raise OutputError(
                    f"{file.path}, {name}: pictures are to be decoded with {key} {others.get(key)!r}, in {files[0].path} with "
                    f"{found[0].get(key)!r}; `h5dat repack --storage decoded` both first"
                )
    united = {key: value for attributes in reversed(found) for key, value in attributes.items()}
    keys = [keys_of(attributes.get("keys"), file, name) for file, attributes in zip(files, found, strict=True)]
    if any(keys):
        names = dict.fromkeys(key for each in keys for key in each)
        united["keys"] = json.dumps({key: next(each[key] for each in keys if key in each) for key in names})
    return united


def _common_layout(layouts: Sequence[PixelLayout]) -> PixelLayout:
    """The first, dense only where all are of one shape."""
    first = layouts[0]
    alike = all((layout.shape, layout.dtype) == (first.shape, first.dtype) for layout in layouts)
    return first if alike else PixelLayout(first.chunk_bytes)


def _refuse_other_storage(name: str, files: Sequence[File]) -> None:
    """Files and pixels cannot be in one column."""
    encoded = {str(attribute(file.hdf5[name]["pixels"], "layout")) == "encoded" for file in files if "pixels" in file.hdf5[name]}
    if len(encoded) > 1:
        kept = next(
            file for file in files if "pixels" in file.hdf5[name] and str(attribute(file.hdf5[name]["pixels"], "layout")) == "encoded"
        )
        raise OutputError(
            f"{kept.path}, {name}: pictures are encoded here and decoded elsewhere; `h5dat repack {kept.path} --storage decoded` first"
        )
