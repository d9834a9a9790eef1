"""Disks on which anything may happen: each change is recorded, any call can fail, and for every moment it can be
built what a kill or a power failure at that moment leaves behind."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from h5dat_lib.journal import Disk

SECTOR = 512
"""Bytes that a disk writes in one piece, at the least."""

Image = Mapping[str, bytes | bytearray]
"""What a folder holds: file names and their bytes."""


@dataclass(frozen=True)
class Change:
    """One call that changed the disk, or made it durable. ``at`` is where ``data`` went, or the size of a truncated file."""

    kind: str
    name: str
    at: int = 0
    data: bytes = b""


Fault = Callable[[int, str], OSError | None]
"""The number of a call, counted from 0, and its name -> what goes wrong with it."""


def no_fault(call: int, kind: str) -> None:
    """Nothing goes wrong."""


def once(number: int, error: int) -> Fault:
    """One call fails."""
    return lambda call, kind: OSError(error, os.strerror(error)) if call == number else None


def from_then_on(number: int, error: int) -> Fault:
    """The disk fails, and stays so: a full one can still be read, and files be made smaller or removed."""
    harmless = ("open", "read", "sync", "unlink", "sync folder") if error == errno.ENOSPC else ()
    return lambda call, kind: OSError(error, os.strerror(error)) if call >= number and kind not in harmless else None


class RecordingDisk(Disk):
    """Works on real files and records what it does. Syncing costs nothing; a write that fails is done by half."""

    def __init__(self, fault: Fault = no_fault) -> None:
        self.changes: list[Change] = []
        self.calls: list[str] = []
        self.fault = fault
        self._names: dict[int, str] = {}

    def open(self, path: Path) -> int:
        self._may_fail("open")
        return self._named(super().open(path), path)

    def create(self, path: Path) -> int:
        self._may_fail("create")
        self.changes.append(Change("create", path.name))
        return self._named(super().create(path), path)

    def read(self, descriptor: int, size: int, at: int) -> bytes:
        self._may_fail("read")
        return super().read(descriptor, size, at)

    def write(self, descriptor: int, data: bytes | bytearray | memoryview, at: int) -> None:
        kept = bytes(data)
        try:
            self._may_fail("write")
        except OSError:
            self._write(descriptor, kept[: len(kept) // 2], at)
            raise
        self._write(descriptor, kept, at)

    def truncate(self, descriptor: int, size: int) -> None:
        self._may_fail("truncate")
        self.changes.append(Change("truncate", self._names[descriptor], size))
        super().truncate(descriptor, size)

    def sync(self, descriptor: int) -> None:
        self._may_fail("sync")
        self.changes.append(Change("sync", self._names[descriptor]))

    def unlink(self, path: Path) -> None:
        self._may_fail("unlink")
        self.changes.append(Change("unlink", path.name))
        super().unlink(path)

    def sync_folder(self, path: Path) -> None:
        self._may_fail("sync folder")
        self.changes.append(Change("sync folder", ""))

    def _may_fail(self, kind: str) -> None:
        self.calls.append(kind)
        if error := self.fault(len(self.calls) - 1, kind):
            raise error

    def _write(self, descriptor: int, data: bytes, at: int) -> None:
        self.changes.append(Change("write", self._names[descriptor], at, data))
        super().write(descriptor, data, at)

    def _named(self, descriptor: int, path: Path) -> int:
        self._names[descriptor] = path.name
        return descriptor


@dataclass
class _File:
    """The bytes as programs see them, those that are durable, and what was done since those were."""

    content: bytearray = field(default_factory=bytearray)
    durable: bytes = b""
    since: list[Change] = field(default_factory=list)


class Replay:
    """A folder to which recorded changes are applied one by one."""

    def __init__(self, before: Image) -> None:
        self._files: dict[str, _File | None] = {name: _File(bytearray(data), bytes(data)) for name, data in before.items()}
        self._durable: dict[str, list[_File | None]] = {name: [file] for name, file in self._files.items()}
        """For each name what it may lead to after a power failure: what was durable, and what came since."""

    def apply(self, change: Change) -> None:
        """Does once more what was recorded."""
        if change.kind == "sync folder":
            self._durable = {name: [file] for name, file in self._files.items()}
        elif change.kind in ("create", "unlink"):
            self._files[change.name] = _File() if change.kind == "create" else None
            self._durable.setdefault(change.name, [None]).append(self._files[change.name])
        elif file := self._files[change.name]:
            _change(file, change)

    def killed(self, torn: Change | None = None, size: int = 0) -> Image:
        """What is there when the process dies now, or once it has done ``size`` bytes of the write that comes next."""
        image = {name: bytearray(file.content) for name, file in self._files.items() if file}
        if torn:
            _write(image[torn.name], torn.data[:size], torn.at)
        return image

    def power_failed(self, random: Random, stale: bytes) -> Image:
        """What may be there when the power fails now: of what was not made durable, any part, in any order, torn at any sector.

        Space that a file was given but whose bytes did not arrive holds zeros or ``stale``, what lay there before.
        """
        chosen = {name: random.choice(files) for name, files in self._durable.items()}
        return {name: _survived(file, random, stale) for name, file in chosen.items() if file}


def _change(file: _File, change: Change) -> None:
    if change.kind == "sync":
        file.durable, file.since = bytes(file.content), []
        return
    _apply(file.content, change)
    file.since.append(change)


def _apply(content: bytearray, change: Change) -> None:
    if change.kind == "write":
        _write(content, change.data, change.at)
    else:
        content[change.at :] = bytes(max(0, change.at - len(content)))


def _write(content: bytearray, data: bytes, at: int, filler: bytes = b"") -> None:
    if data and at > len(content):
        content += filler[len(content) : at].ljust(at - len(content), b"\0")
    content[at : at + len(data)] = data


def _survived(file: _File, random: Random, stale: bytes) -> bytearray:
    content = bytearray(file.durable)
    share, filler = random.choice((0.0, 0.1, 0.5, 0.9, 1.0)), random.choice((b"", stale))
    for change in random.sample(file.since, len(file.since)):
        if random.random() >= share:
            continue
        if change.kind == "truncate":
            _apply(content, change)
        for at, piece in _sectors(change):
            if random.random() < 0.8:
                _write(content, piece, at, filler)
    return content


def _sectors(change: Change) -> Iterator[tuple[int, bytes]]:
    """The parts of a write as a disk may do them; some in one piece, so that not each write is torn."""
    if change.at // SECTOR % 2:
        yield change.at, change.data
        return
    start = 0
    while start < len(change.data):
        end = min(len(change.data), start + SECTOR - (change.at + start) % SECTOR)
        yield change.at + start, change.data[start:end]
        start = end
