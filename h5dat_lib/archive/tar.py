"""A tar, plain or compressed -> members and their bytes; headers are read by the standard library, data by us.

A plain tar is listed first and read at any place. A compressed one is read in one forward pass.
"""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from tarfile import InvalidHeaderError, TruncatedHeaderError  # type: ignore[attr-defined]
from typing import IO, BinaryIO, cast

from h5dat_lib.archive.member import Member, checked_path, checked_size, within
from h5dat_lib.archive.stream import CODECS, CutShort, Decompressed, OverLimit, ends_fingerprint, read_whole, require_inside
from h5dat_lib.config import Limits
from h5dat_lib.errors import InputError, MemberError
from h5dat_lib.storage import Pin, Source, open_source

__all__ = ["PackedTarArchive", "TarArchive", "TarReader", "is_tar_header"]

_BLOCK = tarfile.BLOCKSIZE
_BUFFER = 1 << 16
_STEP = 1 << 18
_HEADER_BYTES = 4 << 20
"""Most bytes of one member's headers: pax records, long names, sparse maps."""
_HEADER_CHAIN = 64
"""Most extended headers in a row; `tarfile` reads them recursively."""
_DIGITS_SQUARED = 10**8
_ZEROS = bytes(1 << 16)
_PAX_TYPES = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)
# GNU tar's own (its tar.h): D is a folder with its listing, V a volume's label, M what goes on from another volume.
# Solaris' own: A and E are access control lists and attributes of the next member.
_NO_FILES = (tarfile.DIRTYPE, b"D", b"V", b"A", b"E")
_REJECTED = {
    tarfile.LNKTYPE: "link",
    tarfile.SYMTYPE: "link",
    tarfile.CHRTYPE: "device",
    tarfile.BLKTYPE: "device",
    tarfile.FIFOTYPE: "fifo",
    b"M": "begins in another volume of this tar",
}
# What tarfile raises over headers that do not make sense, MemberError over a compressed stream that ends or is damaged there
_FAULTS = (tarfile.TarError, MemberError, ValueError, IndexError, OverflowError)


def is_tar_header(block: bytes) -> bool:
    """Whether 512 bytes are a tar header (v7, ustar, pax or GNU): its checksum holds."""
    try:
        tarfile.TarInfo.frombuf(block[:_BLOCK], "utf-8", "surrogateescape")
    except tarfile.TarError:
        return False
    return True


class TarArchive:
    """A plain tar."""

    kind = "tar"
    streamed = False

    def __init__(self, source: Source, limits: Limits) -> None:
        self.uri, self.pin, self.size = source.uri, source.pin, source.size
        self._limits = limits

    def fingerprint(self) -> str:
        return ends_fingerprint(self.uri, self.pin)

    def close(self) -> None: ...

    def members(self) -> Iterator[Member]:
        """Members in archive order; one that the archive's end cuts is rejected, and behind it InputError is raised, as above the
        limits."""
        with closing(open_source(self.uri, self.pin)) as source:
            blocks = _Blocks(cast(BinaryIO, io.BufferedReader(cast(io.RawIOBase, source.stream()), _BUFFER)))
            for member in within(self._limits, self.uri, _members(self.uri, blocks, self._limits)):
                try:
                    require_inside(source, member.offset, member.stored)
                except MemberError as exc:
                    yield replace(member, reject=exc.reason)
                    raise _cut(self.uri, member, exc) from exc
                yield member


class PackedTarArchive:
    """A compressed tar: tar.gz, tar.bz2, tar.xz or tar.zst."""

    streamed = True

    def __init__(self, source: Source, kind: str, method: str, limits: Limits) -> None:
        self.uri, self.pin, self.size = source.uri, source.pin, source.size
        self.kind = kind
        self._codec = CODECS[method]
        self._limits = limits
        self._packed: Decompressed | None = None

    def fingerprint(self) -> str:
        return ends_fingerprint(self.uri, self.pin)

    def close(self) -> None: ...

    def members(self) -> Iterator[Member]:
        """Members in archive order; decompresses the whole archive. ``offset`` counts decompressed bytes."""
        return (member for member, _ in self.stream())

    def stream(self) -> Iterator[tuple[Member, BinaryIO]]:
        """Members with their bytes; holds one piece of input and one of output (64 KiB to 1 MiB).

        Bytes that the archive's end or damage cuts raise MemberError when they are read. Raises InputError behind the last
        member that is there: after one that is cut, between members, at the end when the checksum does not hold, or above the limits.
        """
        with closing(open_source(self.uri, self.pin)) as source, source.forward() as packed:
            self._packed = Decompressed(packed, self._codec, ratio=self._limits.ratio)
            blocks = _Blocks(cast(BinaryIO, io.BufferedReader(self._packed, _BUFFER)))
            last = None
            for member in within(self._limits, self.uri, _members(self.uri, blocks, self._limits)):
                body = _Body(blocks, member)
                yield member, _whole(cast(BinaryIO, body), member)
                if body.cut:
                    raise _cut(self.uri, member, body.cut)
                last = member
            self._finish(blocks, last)

    def position(self) -> int:
        """Compressed bytes read so far."""
        return self._packed.consumed if self._packed else 0

    def _finish(self, blocks: _Blocks, last: Member | None) -> None:
        """Reads what follows the last member: only the end of the stream tells whether its checksum holds."""
        try:
            while blocks.read1(_BUFFER):
                pass
        except MemberError as exc:
            raise _damaged(self.uri, last, exc) from exc


def _members(uri: str, blocks: _Blocks, limits: Limits) -> Iterator[Member]:
    """The members a tar's headers describe. Raises InputError where a header makes no sense."""
    headers = _Headers(blocks)
    member = None
    data_end = 0
    while True:
        try:
            info = headers.next(data_end)
        except _FAULTS as exc:
            raise _damaged(uri, member, exc) from exc
        if info is None:
            return
        data_end = headers.end
        if info.type not in _NO_FILES:
            member = _member(info, headers.end, limits)
            data_end = member.offset + member.stored
            yield member


def _damaged(uri: str, last: Member | None, exc: Exception) -> InputError:
    place = f"after member {last.path!r}" if last else "at its start"
    if isinstance(exc, OverLimit):
        return InputError(f"{uri}: {exc.reason}, {place}; raise the limit for an archive that you trust")
    return InputError(f"{uri}: damaged {place}: {str(exc).removeprefix('damaged: ')}; copy it again")


def _cut(uri: str, member: Member, exc: MemberError) -> InputError:
    if isinstance(exc, OverLimit):
        return InputError(f"{uri}: {exc.reason}, in member {member.path!r}; raise the limit for an archive that you trust")
    return InputError(f"{uri}: damaged in the middle of member {member.path!r}: nothing after it can be read; copy it again")


def _member(info: tarfile.TarInfo, end: int, limits: Limits) -> Member:
    """``end`` is the byte after the member's data, padding included."""
    path, reject = checked_path(info.name, limits)
    offset = info.offset_data
    if info.type in _REJECTED:
        return Member(path, 0, 0, offset, reject=_REJECTED[info.type])
    sparse = cast("list[tuple[int, int]] | None", info.sparse)
    if sparse is None:
        return Member(path, info.size, info.size, offset, reject=reject or checked_size(info.size, info.size, limits))
    # a file that is one hole has no data; an extent of no length keeps it apart from one that is not sparse
    extents = tuple((start, length) for start, length in sparse if length) or ((info.size, 0),)
    stored = sum(length for _, length in extents)
    if not _fits(extents, info.size) or offset + stored > end:
        reject = "damaged: found a sparse map that does not fit the data"
    reject = reject or checked_size(info.size, stored, limits)
    return Member(path, info.size, stored, offset, sparse=extents, reject=reject)


def _fits(extents: tuple[tuple[int, int], ...], size: int) -> bool:
    """Whether extents follow each other within ``size`` bytes."""
    at = 0
    for start, length in extents:
        if start < at or length < 0:
            return False
        at = start + length
    return at <= size


class _Headers:
    """The headers of a tar, by the standard library, without the list of them that it keeps."""

    def __init__(self, blocks: _Blocks) -> None:
        self._blocks = blocks
        self._tar: tarfile.TarFile | None = None

    @property
    def end(self) -> int:
        """The byte where the next header is expected."""
        return self._tar.offset if self._tar else 0

    def next(self, data_end: int) -> tarfile.TarInfo | None:
        """The next header; None at the end of the archive. Raises one of ``_FAULTS`` where it makes no sense.

        ``data_end`` is the byte where the data before it ends; an archive may end in the padding behind that.
        """
        self._blocks.next_member()
        if self._tar is None:
            self._tar = tarfile.TarFile(fileobj=cast(IO[bytes], self._blocks), tarinfo=_Header, encoding="utf-8", errors="surrogateescape")
        elif self._blocks.seek(self._tar.offset) < self._tar.offset:
            if self._blocks.tell() < data_end:
                raise _Damaged(f"found the end of the archive at byte {self._blocks.tell()}, expected data up to byte {data_end}")
            return None
        info = self._tar.next()
        if info is not None and info.size < 0:
            raise _Damaged(f"found a size of {info.size} bytes")
        self._tar.members.clear()  # type: ignore[attr-defined]
        return info


class _Damaged(tarfile.ReadError):
    """A header that tarfile would pass over in silence, or spend without bound on."""


class _Header(tarfile.TarInfo):
    """A header that says so when it is damaged: tarfile takes any but the first for the end of the archive."""

    @classmethod
    def fromtarfile(cls, tarfile: tarfile.TarFile) -> _Header:
        cast(_Blocks, tarfile.fileobj).next_header()
        try:
            return super().fromtarfile(tarfile)
        except (InvalidHeaderError, TruncatedHeaderError) as exc:
            raise _Damaged(f"found no valid header: {exc}") from exc

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Header:
        if len(buf) < _BLOCK and not any(buf):
            buf = b""  # what is left of zero padding
        info = super().frombuf(buf, encoding, errors)
        if info.size < 0:
            raise InvalidHeaderError(f"negative size {info.size}")
        return info


class _Blocks:
    """The file that tarfile reads headers from and bodies are read from: forward only, and bounded for each member."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._position = 0
        self._budget = 0
        self._chain = 0
        self._reads = 0
        self._pax = False

    def next_member(self) -> None:
        """Grants the headers of one more member."""
        self._budget = _HEADER_BYTES
        self._chain = 0

    def next_header(self) -> None:
        """Says that a header block is read next, and after it what it announces."""
        self._chain += 1
        self._reads = 0
        if self._chain > _HEADER_CHAIN:
            raise _Damaged(f"found more than {_HEADER_CHAIN} extended headers in a row")

    def read(self, size: int) -> bytes:
        if not 0 <= size <= self._budget:
            raise _Damaged(f"found a header of {size} bytes, expected at most {_HEADER_BYTES}")
        self._budget -= size
        data = self._stream.read(size)
        self._position += len(data)
        self._reads += 1
        if self._reads == 1:
            self._pax = data[156:157] in _PAX_TYPES
        elif self._reads == 2 and self._pax:
            _check_pax(data)
        return data

    def read1(self, size: int) -> bytes:
        """Up to ``size`` bytes of data, in one step; empty at the end of the archive."""
        data: bytes = self._stream.read1(size)  # type: ignore[attr-defined]
        self._position += len(data)
        return data

    def tell(self) -> int:
        return self._position

    def seek(self, position: int) -> int:
        distance = position - self._position
        if distance < 0:
            raise _Damaged(f"found a size that leads back from byte {self._position} to byte {position}")
        if self._stream.seekable():
            self._stream.seek(distance, io.SEEK_CUR)
            self._position = position
        else:
            while self._position < position and self.read1(min(_STEP, position - self._position)):
                pass
        return self._position


def _check_pax(data: bytes) -> None:
    """Refuses pax records that are not `length keyword=value` (POSIX pax, Extended Header) or that tarfile is slow over.

    Older tarfile searches them by regular expressions whose time grows with the square of a record or a run of digits.
    """
    at = 0
    while data[at : at + 1] not in (b"", b"\0"):
        space = data.find(b" ", at, at + 20)
        length = int(data[at:space]) if data[at:space].isdigit() else 0
        end = at + length
        if space < 0 or end <= space or data[end - 1 : end] != b"\n" or data.find(b"=", space, end) < 0:
            raise _Damaged(f"found a pax header that is invalid at byte {at}")
        at = end
    if sum(len(run) ** 2 for run in re.findall(rb"\d+", data)) > _DIGITS_SQUARED:
        raise _Damaged("found a pax header with runs of too many digits")


class _Body(io.RawIOBase):
    """The stored bytes of the member that a forward pass stands at. ``cut`` says how, once the archive has ended within them."""

    def __init__(self, blocks: _Blocks, member: Member) -> None:
        self.cut: MemberError | None = None
        self._blocks = blocks
        self._next = blocks.tell()
        self._stored = member.stored
        self._found = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        wanted = min(len(buffer), self._stored - self._found)
        if not wanted:
            return 0
        if self._blocks.tell() != self._next:
            raise ValueError("a member's bytes must be read before the next member is asked for")
        data = self._take(wanted)
        buffer[: len(data)] = data
        self._next += len(data)
        self._found += len(data)
        return len(data)

    def _take(self, wanted: int) -> bytes:
        try:
            data = self._blocks.read1(wanted)
        except CutShort:
            data = b""
        except MemberError as exc:
            self.cut = exc
            raise MemberError(f"archive is damaged in the middle of this member: {self._progress()}: {exc.reason}", "read") from exc
        if not data:
            self.cut = MemberError(f"archive ends in the middle of this member: {self._progress()}", "read")
            raise self.cut
        return data

    def _progress(self) -> str:
        return f"found {self._found} of {self._stored} bytes"


def _whole(stored: BinaryIO, member: Member) -> BinaryIO:
    return cast(BinaryIO, _Expanded(stored, member)) if member.sparse else stored


class _Expanded(io.RawIOBase):
    """A sparse member's bytes: the stored extents where they belong, zeros between them."""

    def __init__(self, stored: BinaryIO, member: Member) -> None:
        self._stored = stored
        self._size = member.size
        self._position = 0
        self._extents = iter(member.sparse)
        self._start, self._end = self._next_extent()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        if self._position >= self._end:
            self._start, self._end = self._next_extent()
        if self._position < self._start:
            data = _ZEROS[: min(len(buffer), self._start - self._position)]
        else:
            data = self._stored.read(min(len(buffer), self._end - self._position))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def _next_extent(self) -> tuple[int, int]:
        """Start and end of the next extent with data; behind the last, the end of the member twice."""
        start, length = next(self._extents, (self._size, 0))
        return start, start + length


class TarReader:
    """Reads members of a plain tar, or of a spool, at their offsets; a small one with a single ranged read."""

    def __init__(self, uri: str, pin: Pin | None = None) -> None:
        self._source = open_source(uri, pin)

    def expect(self, members: Iterable[Member]) -> None:
        self._source.expect((member.offset, member.stored) for member in members)

    def read(self, member: Member, limit: int) -> bytes:
        if member.sparse:
            with self.open(member) as stream:
                return read_whole(stream, limit)
        wanted = min(member.stored, limit + 1)
        data = self._source.read_at(member.offset, wanted)
        if len(data) < wanted:
            raise MemberError(f"archive ends in the middle of this member: found {len(data)} of {member.stored} bytes", "read")
        return data

    def open(self, member: Member) -> BinaryIO:
        stored = self._source.stream(member.offset, member.stored)
        return _whole(stored, member)

    def close(self) -> None:
        self._source.close()
