"""A mark: where a worker is, noted in a file that outlives it, so that a member that kills its worker can be named."""

from __future__ import annotations

import math
import mmap
import struct
from pathlib import Path
from typing import NamedTuple

_PLACE = struct.Struct("=qqqd")
NOWHERE = -1
"""As ``archive``: the worker is idle; as ``member``: it is at the beginning or the end of a batch."""


class Place(NamedTuple):
    """Member number ``member`` of a batch, and the seconds that a worker may stay there."""

    archive: int
    batch: int
    member: int
    seconds: float = math.inf


IDLE = Place(NOWHERE, NOWHERE, NOWHERE)


class Mark:
    """The mark of this process; private, and so of no effect, until it is shared."""

    def __init__(self) -> None:
        self._buffer: bytearray | mmap.mmap = bytearray(_PLACE.size)

    @property
    def shared(self) -> bool:
        """Whether somebody may read it, as in a worker process of ours."""
        return isinstance(self._buffer, mmap.mmap)

    def share(self, path: Path) -> None:
        """Has the mark be in a file from now on. Raises OSError when that cannot be made."""
        with path.open("w+b", buffering=0) as file:
            # Written before it is mapped: a store into a page that finds no space on the disk would end the process.
            file.write(_PLACE.pack(*IDLE))
            self._buffer = mmap.mmap(file.fileno(), _PLACE.size)

    @property
    def place(self) -> Place:
        """Where this process is, or a child that was forked from it and noted it last."""
        return Place(*_PLACE.unpack(self._buffer))

    def note(self, place: Place) -> None:
        """Says where this process is now; under 1 us, since it is done for every member."""
        _PLACE.pack_into(self._buffer, 0, *place)


def read_mark(path: Path) -> Place:
    """Where the process that shares this mark is, or was when it died; idle when it has not said yet, or no longer."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return IDLE
    return Place(*_PLACE.unpack(data)) if len(data) == _PLACE.size else IDLE
