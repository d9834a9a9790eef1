"""What every source of bytes can do, wherever they lie."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass
from typing import BinaryIO, Protocol

__all__ = ["Pin", "Range", "RangeStream", "Source"]

Range = tuple[int, int]
"""Offset and size, in bytes."""


@dataclass(frozen=True)
class Pin:
    """Which bytes an object in S3 had when a run looked at it first: what is read later is of these, or an error.

    ``size`` in bytes, ``etag`` without quotes; ``version`` is "" in a bucket that keeps no versions.
    """

    size: int
    etag: str
    version: str = ""


class Source(Protocol):
    """One object whose bytes can be read at any place. Every process opens its own; one thread reads."""

    uri: str
    size: int
    """Bytes."""
    pin: Pin | None
    """What opens the same bytes again without looking; None of a local file."""
    fingerprint_parts: tuple[str, ...]
    """What tells, without reading, that the object has changed."""

    def expect(self, ranges: Iterable[Range]) -> None:
        """Says what will be read next, in that order, so that a source far away can fetch neighbours together."""
        ...

    def read_at(self, offset: int, size: int) -> bytes:
        """``size`` bytes from ``offset`` on; fewer only at the end of the object. Raises InputError."""
        ...

    def stream(self, offset: int = 0, size: int | None = None) -> BinaryIO:
        """The range (by default to the end) as an unbuffered stream that can seek; closing it leaves the source open."""
        ...

    def forward(self, offset: int = 0, size: int | None = None) -> BinaryIO:
        """The range as an unbuffered stream that is read once, from start to end: of a source far away, by one request."""
        ...

    def close(self) -> None: ...


class RangeStream(io.RawIOBase):
    """``size`` bytes of a source from ``start`` on, as a stream that can seek."""

    def __init__(self, source: Source, start: int, size: int) -> None:
        self._source = source
        self._start = start
        self._size = size
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = max(0, offset + (0, self._position, self._size)[whence])
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        wanted = min(len(buffer), self._size - self._position)
        if wanted <= 0:
            return 0
        data = self._source.read_at(self._start + self._position, wanted)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)
