"""A member's bytes -> a file object that can seek, for decoders that read here and there; nothing is written to disk."""

from __future__ import annotations

import io
from typing import BinaryIO

from h5dat_lib.archive.member import Content
from h5dat_lib.errors import MemberError

__all__ = ["seekable"]

_STEP = 1 << 18
_EDGE_BYTES = 1 << 20
"""Bytes kept of each end: containers have their tables there, and readers jump between both before they go through."""


def seekable(content: Content) -> BinaryIO:
    """The member's bytes, whose size and checksums are right, as a buffered stream that can seek.

    Members without compression are read where they lie. Others are decompressed as they are read: a jump forward reads what lies
    between, a jump back starts over, unless it leads into the first or last MiB, which is kept. Holds 3 MiB at most.
    The bytes are read through once before, as `Content.check` does; raises MemberError for what it finds.
    """
    if content.small:
        return content.open()
    source = content.reopen()
    if source.seekable():
        if content.part[0] == 0:  # one of the workers that convert its parts is enough
            content.check()
        return io.BufferedReader(source, _STEP)  # type: ignore[type-var]
    return io.BufferedReader(_Rewound(content, source), _STEP)


class _Rewound(io.RawIOBase):
    """A stream that only goes forward, with its ends kept, and opened anew to go back between them."""

    def __init__(self, content: Content, source: BinaryIO) -> None:
        self._content = content
        with content.open() as stream:
            self._head = stream.read(_EDGE_BYTES)
            self._tail = b""
            while piece := stream.read(_STEP):
                self._tail = (self._tail + piece)[-_EDGE_BYTES:]
        self._size = content.size
        self._wanted = 0
        self._reached = 0
        self._source = source

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._wanted

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._wanted = max(0, offset + (0, self._wanted, self._size)[whence])
        return self._wanted

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self._kept(len(buffer)) or self._streamed(len(buffer))
        buffer[: len(data)] = data
        self._wanted += len(data)
        return len(data)

    def _kept(self, most: int) -> bytes:
        """What of the wanted bytes lies in the kept ends, from the wanted place on."""
        if self._wanted < len(self._head):
            return self._head[self._wanted : self._wanted + most]
        at = self._wanted - (self._size - len(self._tail))
        return self._tail[at : at + most] if at >= 0 else b""

    def _streamed(self, most: int) -> bytes:
        if self._wanted >= self._size:
            return b""
        if self._wanted < self._reached:
            self._source.close()
            self._source, self._reached = self._content.reopen(), 0
        while self._reached < self._wanted:
            self._next(min(_STEP, self._wanted - self._reached))
        return self._next(most)

    def _next(self, most: int) -> bytes:
        data = self._source.read(most)
        if not data:
            raise MemberError(
                f"damaged: found the end after {self._reached} bytes, expected {self._size} as when it was read before", "read"
            )
        self._reached += len(data)
        return data

    def close(self) -> None:
        if not self.closed:
            self._source.close()
        super().close()
