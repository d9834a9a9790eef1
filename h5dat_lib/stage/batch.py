"""Batch -> staged file: each member is read, converted and packed; one that fails becomes a reject.

This is what a worker process does. One member at a time is held in memory, and of each class no more than a segment.
"""

from __future__ import annotations

import ctypes
import functools
import os
import re
import resource
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from h5dat_lib.archive import is_container, open_reader
from h5dat_lib.archive.member import Content, Member, Reader
from h5dat_lib.archive.packed import unpacked, unpacked_path
from h5dat_lib.columns import Block, Bytes, Categories, Column, Draft, Fault, References, Scalars
from h5dat_lib.config import Config, Limits, MediumOptions, load
from h5dat_lib.convert import FILE, by_extension, handler_for, single_threaded
from h5dat_lib.convert.handler import Handler
from h5dat_lib.errors import H5datError, MemberError, escaped
from h5dat_lib.lineage import ARCHIVES, BATCHES, MEMBERS, REJECTS, RUNS, sample_key
from h5dat_lib.plan.batches import Batch, Record
from h5dat_lib.plan.schema import Class
from h5dat_lib.stage.known import Known
from h5dat_lib.stage.marks import IDLE, NOWHERE, Mark, Place
from h5dat_lib.stage.pack import TablePacker
from h5dat_lib.stage.staged import StagedFile, StageWriter
from h5dat_lib.storage import aws

_LINEAGE_ROWS = 1000
"""Members, and rejects, that are noted before they are written to the staged file."""
_MANY_ROWS = 256
"""Rows of a block from which on an array costs less than a list."""
_PART_BYTES = 64 << 20
"""``limits.member_seconds`` are for each of these that a member begins."""
_PATIENCE = 10
"""A member may also take so many times as long as its format is known to take: a megabyte of video is many of pixels."""
_LATER_BYTES = 512 << 20
"""Address space of libraries that a worker loads when a member needs them; pyarrow and OpenCV take 340 MiB."""
_NO_MEMORY = re.compile(r"(insufficient|cannot allocate|not enough|out of) memory|memory allocation|bad_alloc", re.IGNORECASE)
"""How foreign libraries say it when they do not raise MemoryError: OpenCV, the C library, zstd, libjpeg, C++."""

mark = Mark()
"""Where this process is."""


@dataclass(frozen=True)
class Staged:
    """What a worker tells of a batch it has staged: where its files are, and counts; never arrays.

    A batch has one file, or several that make it up in this order when it had to be converted in pieces.
    ``bytes`` are decompressed bytes of the converted members, ``seconds`` the time it took. ``resolved`` are the paths of
    the members that a retry brought in.
    """

    paths: tuple[str, ...]
    number: int
    archive: int
    members: int
    stored: int
    rows: int
    rejects: int
    bytes: int
    seconds: float
    duplicates: int = 0
    resolved: tuple[str, ...] = ()
    continues: str = ""
    """The class of the member that this batch goes on with, when it begins with a further part of one."""
    continued: bool = False
    """Whether its last member was converted and goes on in the next batch."""
    requests: int = 0
    """Sent to S3 by a worker process, to read the members..."""
    received: int = 0
    """...and the bytes that came of them. A thread's are counted by its process."""


def start_worker(parent: int, marks: str) -> None:
    """Prepares a worker process: one native thread, deaf to Ctrl-C (the parent decides), and gone when its parent is.

    ``marks`` is what the name of its mark begins with: a path, which its process id and ``.mark`` are added to.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    single_threaded()
    _hush_native_libraries()
    if sys.platform == "linux":
        end_with(parent)
    mark.share(Path(f"{marks}{os.getpid()}.mark"))


def end_with(parent: int) -> None:
    """Has Linux kill this process when its parent ends."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG, linux/prctl.h
    if os.getppid() != parent:
        os._exit(1)


def _hush_native_libraries() -> None:
    """libtiff and others print to descriptor 2, into the user's progress bar; Python's own messages keep their way out."""
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    warnings.simplefilter("ignore")


def stage(batch: Batch) -> Staged:
    """Converts a batch into its staged file.

    Members that cannot be converted are recorded in it as rejects. Raises OutputError when the file cannot be written,
    OSError when the archive cannot be read, MemoryError when none is left to pack what was converted.
    """
    started = time.monotonic()
    config, edge = _config(batch.config), Place(batch.archive, batch.number, NOWHERE)
    _limit_memory(config.limits.member_memory)
    aws.use(config.s3)
    before = aws.traffic()
    reader = open_reader(batch.kind, batch.source, config.limits, batch.pin)
    if not batch.condemned:
        reader.expect(record.member for record in batch.records() if record.class_)
    try:
        mark.note(edge)
        with StageWriter(Path(batch.stage)) as out:
            converter = _BatchConverter(batch, config, reader, out)
            for number, record in enumerate(batch.records(), batch.first):
                mark.note(Place(batch.archive, batch.number, number, _seconds(record, config.limits)))
                converter.add(record)
            mark.note(edge)
            converter.close(time.monotonic() - started)
            out.finish()
    finally:
        reader.close()
        mark.note(IDLE)
    return Staged(
        (batch.stage,), batch.number, batch.archive, batch.members, batch.stored,
        converter.rows, converter.rejects, converter.bytes, time.monotonic() - started,
        converter.duplicates, tuple(converter.resolved), batch.continues, converter.continued,
        *(aws.traffic(before) if mark.shared else (0, 0)),
    )  # fmt: skip


def _seconds(record: Record, limits: Limits) -> float:
    """How long a member may take, or a part of one; one of unknown size as long as the largest that it may be."""
    member, handler = record.member, by_extension(unpacked_path(record.member.path))
    size = member.size if member.size >= 0 else member.stored * limits.ratio
    estimate = size / 1e6 * handler.megabyte_seconds / record.part[1] if handler else 0
    return max(limits.member_seconds * (1 + size // _PART_BYTES), _PATIENCE * estimate)


def _limit_memory(size: int) -> None:
    """Lets a worker process take ``size`` bytes more than it has now, on Linux; a process that is not only ours is left alone."""
    if not mark.shared or sys.platform != "linux":
        return
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    wanted = pages * resource.getpagesize() + size + _LATER_BYTES
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))


_RECORDED = ("rows", "rejects", "bytes", "seconds", "duplicates", "continued")
"""What the row of a batch tells of `Staged`."""


def restaged(batch: Batch) -> Staged:
    """What `stage` told of a batch whose staged file is there. Raises OutputError when the file is not whole."""
    with StagedFile(Path(batch.stage)) as file:
        [segment] = file.segments(BATCHES)
    recorded = {name: segment.columns[name].values[0].item() for name in _RECORDED}  # type: ignore[union-attr]
    return Staged((batch.stage,), batch.number, batch.archive, batch.members, batch.stored, **recorded, continues=batch.continues)


@functools.lru_cache(maxsize=4)
def _config(path: str) -> Config:
    return load(Path(path))


class _BatchConverter:
    """Sends each member of a batch through its handler, and keeps the lineage of the rows and the rejects."""

    def __init__(self, batch: Batch, config: Config, reader: Reader, out: StageWriter) -> None:
        self.bytes = 0
        self.rows = 0
        self.members = 0
        self.rejects = 0
        self.duplicates = 0
        self.resolved: list[str] = []
        self.continued = False
        self._batch = batch
        self._known = Known(batch.known)
        self._config = config
        self._reader = reader
        self._out = out
        self._tables: dict[str, TablePacker] = {}
        self._of_classes: dict[str, MediumOptions] = {}
        self._members: list[tuple[str, int, int, str, str, str, int, float]] = []
        self._rejects: list[tuple[str, str, str]] = []
        self._draft: tuple[int, int, tuple[int, int]] | None = None
        """Rows of the table, rejects, and the mark in the staged file before the draft of a member."""

    def add(self, record: Record) -> None:
        """Converts one member; whatever is wrong with it costs this member only."""
        member, converted = record.member, self.members
        try:
            if self._batch.condemned:
                raise MemberError(self._batch.condemned)
            if record.class_ is None:
                raise MemberError(member.reject or "no class", "plan")
            self._convert(record, record.class_)
        except MemberError as exc:
            if self._batch.retry and member.path not in self.resolved[-1:]:
                self.rejects += 1  # it is on record, and stays so
            else:
                self._reject(member, exc.stage, exc.reason)
        number, parts = record.part
        self.continued = self.members > converted and number < parts - 1

    def _convert(self, record: Record, class_: Class) -> None:
        member = record.member
        content = Content(self._reader, member, self._config.limits, record.part)
        if self._known and self._config.duplicates == "skip":
            content.check()
            if content.sha256 in self._known:
                self._note(content, "duplicate", class_, 0)
                return
        source = content if class_.medium == "files" else unpacked(content) or content
        handler = _handler(source, class_)
        place = _Starts(class_.name, self._table)
        labels = {label.name: value for label, value in zip(self._config.schema_.labels(class_.name), record.labels, strict=True)}
        rows, whole = 0, False
        try:
            for block in _blocks(handler, source, self._options(class_.name)):
                if isinstance(block, Draft):
                    rows = self._note_draft(block, place.table(""), rows)
                elif isinstance(block, Fault):
                    self._reject(member, "convert", block.reason)
                else:
                    place.table(block.table).add(_with_member(place.located(_labelled(block, labels)), self.members))
                    rows += block.rows if block.table or content.part[0] == 0 else 0  # a further part goes on with the row of the first
            whole = True
        finally:
            if not whole and self._draft:
                rows = self._note_draft(Draft.DROPPED, place.table(""), rows)
            if whole or rows:  # what was converted before a fault stays, and keeps its origin
                self._note(content, f"{handler.name}/{handler.version}", class_, rows)

    def _note_draft(self, draft: Draft, table: TablePacker, rows: int) -> int:
        """Marks where a member's draft begins, forgets the mark, or goes back to it; returns how many of its rows are left."""
        if draft is Draft.BEGUN:
            self._write_rejects()
            table.seal()
            self._draft = (table.rows, self.rejects, self._out.mark())
            return rows
        before, self._draft = self._draft, None
        if draft is Draft.KEPT or not before:
            return rows
        first, self.rejects, mark = before
        self._rejects.clear()
        table.take_back(first)
        self._out.take_back(mark)
        return 0

    def _options(self, class_name: str) -> MediumOptions:
        """The options of a class, with the keys that have been decided to become columns."""
        if class_name not in self._of_classes:
            options = self._config.options(class_name)
            if keys := self._batch.forms.keys.get(class_name):
                options = options.model_copy(update={"document": options.document.model_copy(update={"columns": keys})})
            self._of_classes[class_name] = options
        return self._of_classes[class_name]

    def _note(self, content: Content, converter: str, class_: Class, rows: int) -> None:
        size = max(content.size, 0)
        self._members.append((content.member.path, size, content.crc32, content.sha256, converter, class_.name, rows, time.time()))
        self.rows += rows
        self.members += 1
        if content.part[0] == 0:
            self.bytes += size
            self.duplicates += content.sha256 in self._known
        if self._batch.retry:
            self.resolved.append(content.member.path)
        if len(self._members) >= _LINEAGE_ROWS:
            self._write_members()

    def _reject(self, member: Member, stage: str, reason: str) -> None:
        self._rejects.append((member.path, stage, escaped(reason)))
        self.rejects += 1
        if len(self._rejects) >= _LINEAGE_ROWS:
            self._write_rejects()

    def _table(self, name: str) -> TablePacker:
        if name not in self._tables:
            self._tables[name] = self._packer(name)
        return self._tables[name]

    def _packer(self, name: str) -> TablePacker:
        return TablePacker(name, self._out, self._config.compression, self._batch.forms.layouts.get(name))

    def close(self, seconds: float) -> None:
        """Writes what is still held, and the lineage of the batch: its members, its rejects and itself."""
        for table in self._tables.values():
            table.seal()
        self._write_members()
        self._write_rejects()
        self._write(BATCHES, self._batch_block(seconds))

    def _write(self, name: str, block: Block) -> None:
        packer = self._packer(name)
        packer.add(block)
        packer.seal()

    def _write_members(self) -> None:
        if self._members:
            self._write(MEMBERS, self._member_block())
            self._members.clear()

    def _write_rejects(self) -> None:
        if self._rejects:
            self._write(REJECTS, self._reject_block())
            self._rejects.clear()

    def _member_block(self) -> Block:
        paths, sizes, crcs, hashes, converters, classes, rows, times = zip(*self._members, strict=True)
        columns: dict[str, Column] = {
            "path": Bytes([path.encode() for path in paths], "text"),
            "key": Bytes([sample_key(path).encode() for path in paths], "text"),
            "size": Scalars(sizes, "<u8"),
            "crc32": Scalars(crcs, "<u4"),
            "sha256": Scalars([value.encode() for value in hashes], "S64"),
            "converter": Scalars([value.encode() for value in converters], "S16"),
            "class": Scalars([value.encode() for value in classes], "S64"),
            "rows": Scalars(rows, "<u8"),
            "time": Scalars(times, "<f8"),
            **_of_this_batch(len(paths)),
        }
        return Block(len(paths), columns)

    def _reject_block(self) -> Block:
        paths, stages, reasons = zip(*self._rejects, strict=True)
        columns: dict[str, Column] = {
            "path": Bytes([path.encode() for path in paths], "text"),
            "stage": Scalars([value.encode() for value in stages], "S16"),
            "reason": Bytes([reason.encode("utf-8", "backslashreplace") for reason in reasons], "text"),
            "resolved": Scalars([False] * len(paths), "?"),
            **_of_this_batch(len(paths)),
        }
        return Block(len(paths), columns)

    def _batch_block(self, seconds: float) -> Block:
        batch = self._batch
        columns: dict[str, Column] = {
            "key": Scalars([batch.key.encode()], "S64"),
            "number": Scalars([batch.number], "<u8"),
            "members": Scalars([batch.members], "<u8"),
            "rows": Scalars([self.rows], "<u8"),
            "rejects": Scalars([self.rejects], "<u8"),
            "duplicates": Scalars([self.duplicates], "<u8"),
            "bytes": Scalars([self.bytes], "<u8"),
            "seconds": Scalars([seconds], "<f8"),
            "continued": Scalars([self.continued], "?"),
            "archive": References([0], ARCHIVES),
            "run": References([0], RUNS),
        }
        return Block(1, columns)


class _Starts:
    """Where the rows of one member start in the tables of its class: its own, and those below it."""

    def __init__(self, class_name: str, packer: Callable[[str], TablePacker]) -> None:
        self._class = class_name
        self._packer = packer
        self._starts: dict[str, int] = {}

    def table(self, below: str) -> TablePacker:
        """The table of the class, or the one of that name below it."""
        name = f"{self._class}/{below}".rstrip("/")
        table = self._packer(name)
        self._starts.setdefault(name, table.rows)
        return table

    def located(self, block: Block) -> Block:
        """The block with its references to tables of the class, as a converter names them, as references to rows of this batch."""
        located = {name: self._located(column) for name, column in block.columns.items() if isinstance(column, References)}
        return replace(block, columns={**block.columns, **located}) if located else block

    def _located(self, column: References) -> References:
        below = column.table.removeprefix(".").removeprefix("/")
        name = f"{self._class}/{below}".rstrip("/")
        self.table(below)
        return References([value + self._starts[name] for value in column.values], name, column.dtype)


def _of_this_batch(rows: int) -> dict[str, Column]:
    nothing = [0] * rows
    return {"archive": References(nothing, ARCHIVES), "run": References(nothing, RUNS), "batch": References(nothing, BATCHES)}


def _labelled(block: Block, labels: Mapping[str, str | None]) -> Block:
    """Rows of a class with the labels of their member; rows of a table below it have theirs through the row that they refer to."""
    if block.table or not labels:
        return block
    if taken := labels.keys() & block.columns.keys():
        raise MemberError(f"two columns {min(taken)!r}: found a label of the name of a column, expected another name for it", "stage")
    return replace(block, columns={**block.columns, **{name: Categories([value] * block.rows) for name, value in labels.items()}})


def _with_member(block: Block, member: int) -> Block:
    members = [member] * block.rows if block.rows < _MANY_ROWS else np.full(block.rows, member, "<u8")
    return replace(block, columns={"_member": References(members, MEMBERS), **block.columns})


def _blocks(handler: Handler, content: Content, options: MediumOptions) -> Iterator[Block | Fault | Draft]:
    """What a handler gives. Whatever a decoder raises costs its member; an archive or a disk that fails, the batch."""
    try:
        yield from handler.convert(content, options)
    except (H5datError, GeneratorExit):
        raise
    except BaseException as exc:  # decoders of foreign make meet hostile bytes here: recorded as a reject, with its type
        raise MemberError(_reason(exc, content.limits)) from exc


def out_of_memory(limits: Limits) -> str:
    """Why a member is rejected whose conversion took more address space than it may."""
    return f"out of memory: found more than {limits.member_memory >> 20} MiB needed"


def _reason(exc: BaseException, limits: Limits) -> str:
    if isinstance(exc, SystemExit | KeyboardInterrupt):  # a worker hears no Ctrl-C: the decoder raised it
        return "crashed: the decoder called exit"
    if isinstance(exc, MemoryError) or _NO_MEMORY.search(str(exc)):
        return out_of_memory(limits)
    return f"{type(exc).__name__}: {exc}"


def _handler(content: Content, class_: Class) -> Handler:
    """The handler of a member, by content first; raises MemberError when there is none or it is of another medium."""
    head = content.head()
    handler = handler_for(head, content.member.path, class_.medium)
    if handler is not FILE and (container := is_container(head)):
        raise MemberError(f"nested archive: found {container}, which is not opened; ingest it by itself", "plan")
    if handler is None or handler.medium != class_.medium:
        found = handler.name if handler else "no known signature"
        raise MemberError(f"other content: found {found}, expected {class_.medium} by its class {class_.name!r}", "plan")
    return handler
