"""What readers are built from: compressed bytes in, decompressed bytes out, in bounded memory and checked to their end."""

from __future__ import annotations

import bz2
import hashlib
import io
import lzma
import math
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import BinaryIO, Protocol, cast

from isal import igzip_lib

from h5dat_lib.archive.member import EVEN_BYTES
from h5dat_lib.errors import MemberError
from h5dat_lib.storage import Pin, Source, open_source

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

__all__ = [
    "CODECS",
    "Codec",
    "CutShort",
    "Decompressed",
    "OverLimit",
    "decompress",
    "ends_fingerprint",
    "packed_by",
    "read_whole",
    "require_inside",
]

_STEP = 1 << 18
_END_BYTES = 1 << 16
_LZMA_MEMORY = 1 << 30
_SKIPPABLE = b"\x2a\x4d\x18"
# OSError is what bz2 raises
_DAMAGE = (cast(type[Exception], igzip_lib.error), lzma.LZMAError, zstd.ZstdError, OSError, EOFError, ValueError)


class CutShort(MemberError):
    """Compressed bytes that end before their end mark."""


class OverLimit(MemberError):
    """Compressed bytes that give more than ``limits.ratio`` allows."""


class Engine(Protocol):
    """A decompressor in the manner of ``bz2.BZ2Decompressor``."""

    @property
    def eof(self) -> bool: ...

    @property
    def needs_input(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int = -1, /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Codec:
    """A compression: what starts a decompressor, and the first bytes by which a further piece of it is recognised."""

    name: str
    start: Callable[[], Engine]
    magics: tuple[bytes, ...] = ()


def _gzip() -> Engine:
    return cast(Engine, igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP))


def _deflate() -> Engine:
    return cast(Engine, igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_DEFLATE))


def _xz() -> Engine:
    # a hostile header may ask for a dictionary of 4 GiB; `xz -9` asks for 64 MiB
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_LZMA_MEMORY)


def _zstd() -> Engine:
    return zstd.ZstdDecompressor()


CODECS = {
    codec.name: codec
    for codec in (
        Codec("deflate", _deflate),
        Codec("gzip", _gzip, (b"\x1f\x8b\x08",)),
        # RFC-less: block size digit, then the block magic (pi) or, in an empty file, the end magic (sqrt pi)
        Codec("bzip2", bz2.BZ2Decompressor, tuple(b"BZh%d" % n + mark for n in range(1, 10) for mark in (b"1AY&SY", b"\x17rE8P\x90"))),
        Codec("xz", _xz, (b"\xfd7zXZ\0",)),
        # RFC 8878, 3.1: frames and skippable frames follow each other
        Codec("zstd", _zstd, (b"\x28\xb5\x2f\xfd", *(bytes([first]) + _SKIPPABLE for first in range(0x50, 0x60)))),
    )
}
_FIRST_BYTES = frozenset(magic[:1] for codec in CODECS.values() for magic in codec.magics)
_LONGEST_MAGIC = max(len(magic) for codec in CODECS.values() for magic in codec.magics)


def packed_by(head: bytes) -> Codec | None:
    """The compression whose magic a file starts with: gzip, bzip2, xz or zstd."""
    if head[:1] not in _FIRST_BYTES:  # most files are not packed
        return None
    for codec in CODECS.values():
        if codec.magics and head.startswith(codec.magics):
            # a skippable frame at the start is zstd (pzstd writes one) only when a zstd frame follows: lz4 has them too
            return codec if head[1:4] != _SKIPPABLE or _frame_after_skippable(head) else None
    return None


def _frame_after_skippable(head: bytes) -> bool:
    at = 8 + int.from_bytes(head[4:8], "little")
    return head[at : at + 4] == b"\x28\xb5\x2f\xfd"


class Decompressed(io.RawIOBase):
    """The decompressed bytes of a stream; holds one piece of input (256 KiB) and what one read asks for.

    Pieces of the same compression that follow each other are read through, with zeros between them, as gzip(1) does; other
    bytes after the end are left alone, or MemberError when ``exact``. With ``size`` (bytes) given, more or fewer raise MemberError;
    so does OverLimit more than ``ratio`` bytes out for each byte in, once there are `EVEN_BYTES` of them.
    """

    def __init__(self, source: BinaryIO, codec: Codec, size: int = -1, exact: bool = False, ratio: float = math.inf) -> None:
        self.consumed = 0
        self._source = source
        self._codec = codec
        self._engine = codec.start()
        self._size = size
        self._exact = exact
        self._ratio = ratio
        self._produced = 0
        self._ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self._next(len(buffer)) if len(buffer) else b""
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._source.close()
        super().close()

    def _next(self, most: int) -> bytes:
        feed = b""
        while not self._ended:
            if self._engine.eof:
                feed = self._next_piece()
                continue
            if self._engine.needs_input and not feed:
                feed = self._feed()
            data = self._decompress(feed, most)
            if data:
                return self._counted(data)
            feed = b""
        return b""

    def _feed(self) -> bytes:
        data = self._source.read(_STEP)
        if not data:
            raise CutShort(f"damaged: found the end of the {self._codec.name} data after {self._produced} bytes, expected more", "read")
        self.consumed += len(data)
        return data

    def _decompress(self, feed: bytes, most: int) -> bytes:
        try:
            return self._engine.decompress(feed, most)
        except _DAMAGE as exc:
            raise MemberError(f"damaged: found invalid {self._codec.name} data after {self._produced} bytes: {exc}", "read") from exc

    def _counted(self, data: bytes) -> bytes:
        self._produced += len(data)
        if 0 <= self._size < self._produced:
            raise MemberError(f"damaged: found more than {self._size} bytes, expected {self._size}", "read")
        if self._produced > EVEN_BYTES and self._produced > self._ratio * self.consumed:
            found = f"found {self._produced} bytes in {self.consumed} compressed ones"
            raise OverLimit(f"decompression bomb: {found}, expected at most {self._ratio:g} times as many (limits.ratio)", "read")
        return data

    def _next_piece(self) -> bytes:
        """Starts on the next piece of the same compression and gives its first bytes, or ends the stream."""
        rest = self._after_end()
        if self._codec.magics and rest.startswith(self._codec.magics):
            self._engine = self._codec.start()
            return rest
        if rest and self._exact:
            raise MemberError(f"damaged: found bytes after the end of the {self._codec.name} data, expected none", "read")
        if self._produced < self._size:
            raise MemberError(f"damaged: found {self._produced} bytes, expected {self._size}", "read")
        self._ended = True
        return b""

    def _after_end(self) -> bytes:
        """What follows the end mark, at least as much as the longest magic; zeros are skipped unless ``exact``."""
        rest = self._padding_off(self._engine.unused_data)
        while len(rest) < _LONGEST_MAGIC and (more := self._source.read(_STEP)):
            self.consumed += len(more)
            rest = self._padding_off(rest + more)
        return rest

    def _padding_off(self, data: bytes) -> bytes:
        return data if self._exact else data.lstrip(b"\0")


def decompress(packed: bytes, codec: Codec, size: int, limit: int, exact: bool) -> bytes:
    """What `Decompressed` gives for ``packed``, at most ``limit + 1`` bytes of it; one call when all is as recorded."""
    engine = codec.start()
    try:
        data = engine.decompress(packed, min(size, limit) + 1)
    except _DAMAGE:
        data = b""
    if len(data) > limit or (engine.eof and len(data) == size and not engine.unused_data):
        return data
    # several pieces, or damage: the careful way reads the one and names the other
    with Decompressed(io.BytesIO(packed), codec, size, exact) as stream:
        return read_whole(cast(BinaryIO, stream), limit)


def read_whole(stream: BinaryIO, limit: int) -> bytes:
    """All bytes of a stream, or the first ``limit + 1`` of a longer one; memory grows with what is found, not with the limit."""
    gathered = io.BytesIO()
    while (missing := limit + 1 - gathered.tell()) > 0:
        data = stream.read(min(_STEP, missing))
        if not data:
            break
        gathered.write(data)
    return gathered.getvalue()


def require_inside(source: Source, start: int, stored: int) -> None:
    """Raises MemberError when the archive ends before the ``stored`` bytes from ``start`` on do."""
    if start + stored > source.size:
        found = max(0, source.size - start)
        raise MemberError(f"archive ends in the middle of this member: found {found} of {stored} bytes", "read")


def ends_fingerprint(uri: str, pin: Pin | None) -> str:
    """sha256 hex over what the storage tells of a file, and its first and last 64 KiB; of one far away the first alone, which will do."""
    with closing(open_source(uri, pin)) as source:
        digest = hashlib.sha256("\n".join(source.fingerprint_parts).encode())
        if pin is None:
            digest.update(source.read_at(0, _END_BYTES))
            digest.update(source.read_at(max(0, source.size - _END_BYTES), _END_BYTES))
    return digest.hexdigest()
