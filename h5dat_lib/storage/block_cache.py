"""Blocks of an object in S3 that are kept on disk: fetched once for all processes that read this version of it, and for later runs.

A folder an object: `blocks` has them at their places, `sums` the checksum of each. A block is written before its checksum, and one
that has another is not there. So no process waits for another, and a kill or a full disk costs a block, which is fetched again.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from isal import isal_zlib

__all__ = ["BlockCache"]

_SUM_BYTES = 8
"""Of the CRC-32 of a block, and one: zero is a block that is not there."""
_UNIT = 512
"""Bytes of what stat(2) counts a file's blocks in."""


class BlockCache:
    """Blocks of ``size`` bytes of the object that ``name`` stands for, which must say its version, in a folder that other objects share.

    The folder takes up to ``most_bytes`` on disk: objects that were opened longest ago make room; when there is none, blocks are not
    kept. Nothing but opening it raises: OSError, where the folder cannot be written.
    """

    def __init__(self, folder: Path, name: str, size: int, most_bytes: int) -> None:
        own = folder / hashlib.sha256(name.encode()).hexdigest()[:32]
        own.mkdir(0o700, parents=True, exist_ok=True)
        os.utime(own)
        self._size = size
        self._most = most_bytes - _made_room(folder, own, most_bytes)
        self._blocks, self._sums = (os.open(own / part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600) for part in ("blocks", "sums"))

    def __contains__(self, number: int) -> bool:
        return self._sum(number) != 0

    def get(self, number: int) -> bytes | None:
        """A block, the last one of an object as short as it is; None when it is not there, or not as it was put there."""
        if not (known := self._sum(number)):
            return None
        data = os.pread(self._blocks, self._size, number * self._size)
        return data if _sum_of(data) == known else None

    def put(self, number: int, data: bytes) -> None:
        """Keeps a block, where there is room."""
        if os.fstat(self._blocks).st_blocks * _UNIT + len(data) > self._most:
            return
        try:
            os.pwrite(self._blocks, data, number * self._size)
            os.pwrite(self._sums, _sum_of(data).to_bytes(_SUM_BYTES, "little"), number * _SUM_BYTES)
        except OSError:  # the disk is full
            self._most = 0

    def close(self) -> None:
        os.close(self._blocks)
        os.close(self._sums)

    def _sum(self, number: int) -> int:
        return int.from_bytes(os.pread(self._sums, _SUM_BYTES, number * _SUM_BYTES), "little")


def _sum_of(data: bytes) -> int:
    return isal_zlib.crc32(data) + 1


def _made_room(folder: Path, own: Path, most_bytes: int) -> int:
    """Deletes what was opened longest ago until half of the room is left, or nothing but ``own``; returns what the others take."""
    others = sorted(_others(folder, own))
    taken = sum(size for _, size, _ in others)
    while others and taken > most_bytes // 2:
        _, size, oldest = others.pop(0)
        shutil.rmtree(oldest, ignore_errors=True)  # another process may be at it; who has it open can go on
        taken -= size
    return taken


def _others(folder: Path, own: Path) -> Iterator[tuple[int, int, Path]]:
    """When each other object was opened, the bytes that it takes on disk, and its folder."""
    for found in folder.iterdir():
        try:
            if found != own:
                yield found.stat().st_mtime_ns, (found / "blocks").stat().st_blocks * _UNIT, found
        except (FileNotFoundError, NotADirectoryError):
            continue
