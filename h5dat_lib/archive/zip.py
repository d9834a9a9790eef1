"""A zip -> members and their bytes; the central directory is read as a stream, so a million members cost no memory.

Format facts are from PKWARE's APPNOTE.TXT 6.3.10; section numbers are given where they are used.
"""

from __future__ import annotations

import hashlib
import lzma
import stat
import struct
from array import array
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO, cast

import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

from h5dat_lib.archive.member import Member, checked_path, checked_size, within
from h5dat_lib.archive.stream import CODECS, Codec, Decompressed, decompress, read_whole, require_inside
from h5dat_lib.config import Limits
from h5dat_lib.errors import InputError, MemberError
from h5dat_lib.storage import Copied, Pin, Source, open_source

__all__ = ["Directory", "ZipArchive", "ZipReader", "find_directory", "has_directory", "looks_like_zip"]

_LOCAL = b"PK\x03\x04"
_ENTRY = b"PK\x01\x02"
_END = b"PK\x05\x06"
_END64 = b"PK\x06\x06"
_LOCATOR64 = b"PK\x06\x07"
_SPANNED = b"PK\x07\x08"
_SIGNATURE = b"PK\x05\x05"  # 4.3.13, may end the directory
_ENTRY_FIELDS = struct.Struct("<4xBBHHHHHIIIHHHHHII")  # 4.3.12
_END_FIELDS = struct.Struct("<4xHHHHIIH")  # 4.3.16
_END64_FIELDS = struct.Struct("<4xQHHIIQQQQ")  # 4.3.14
_LOCATOR_FIELDS = struct.Struct("<4xIQI")  # 4.3.15
_LOCAL_BYTES = 30  # 4.3.7
_LENGTHS = struct.Struct("<HH")
_FULL16, _FULL32 = 0xFFFF, 0xFFFFFFFF
_NOWHERE = 1 << 63

_PIECE = 1 << 20
_SLACK = 512
"""Bytes read beyond local header and data, in which the local name and extra field usually fit."""
_AT_ONCE = 16 << 20
"""A member of no more stored bytes is read by one call; a larger one is streamed."""
_LEAST_DICTIONARY, _DICTIONARY = 4096, 256 << 20
"""The smallest LZMA dictionary there is, and the largest that is allocated."""
_LZMA_HEADER = 9

_ENCRYPTED = 0x0001 | 0x0040 | 0x2000  # 4.4.4: encrypted, strong encryption, masked local header
_PATCH = 0x0020
_UTF8 = 0x0800
_ZIP64, _UNICODE_PATH = 0x0001, 0x7075  # 4.5.3, 4.6.9
_BACKSLASH_HOSTS = frozenset({0, 6, 10, 14})  # 4.4.2: FAT, HPFS, NTFS, VFAT
_UNIX_HOSTS = frozenset({3, 19})
_METHODS = {0: "stored", 8: "deflate", 12: "bzip2", 14: "lzma", 20: "zstd", 93: "zstd"}  # 4.4.5
_UNREADABLE = {
    1: "shrink", 2: "reduce", 3: "reduce", 4: "reduce", 5: "reduce", 6: "implode", 9: "deflate64", 10: "PKWARE implode",
    16: "IBM z/OS CMPSC", 18: "IBM TERSE", 19: "IBM LZ77", 94: "MP3", 95: "xz", 96: "JPEG variant", 97: "WavPack", 98: "PPMd",
}  # fmt: skip
_AES = 99
_SPECIAL = {stat.S_IFLNK: "link", stat.S_IFIFO: "fifo", stat.S_IFSOCK: "socket", stat.S_IFCHR: "device", stat.S_IFBLK: "device"}


@dataclass(frozen=True, slots=True)
class Directory:
    """Where the central directory lies: ``start`` and ``size`` in bytes, ``count`` entries as recorded.

    ``shift`` bytes stand before the archive, as in a self-extracting one; recorded offsets do not count them.
    """

    start: int
    size: int
    count: int
    shift: int


def looks_like_zip(head: bytes) -> bool:
    """Whether a file starts as a zip does: with a member, the end of an empty zip, or the mark of a split one."""
    return head.startswith((_LOCAL, _END, _SPANNED + _LOCAL))


def has_directory(source: Source) -> bool:
    """Whether a file that does not start as a zip is one all the same, as self-extracting programs are."""
    try:
        return find_directory(source).count > 0
    except InputError:
        return False


def find_directory(source: Source) -> Directory:
    """The central directory, found from the end of the file. Raises InputError when there is none that fits the file."""
    tail_start = max(0, source.size - _FULL16 - _END_FIELDS.size - 1)
    tail = source.read_at(tail_start, source.size - tail_start)
    reason = f"no end of central directory found in the last {len(tail)} bytes, expected one"
    at = len(tail)
    while (at := tail.rfind(_END, 0, at)) >= 0:
        if at + _END_FIELDS.size > len(tail):
            continue
        found = _directory_at(source, tail_start + at, _END_FIELDS.unpack_from(tail, at))
        if isinstance(found, Directory):
            return found
        reason = found
    raise InputError(f"{source.uri}: {reason}; the zip is cut short or damaged, copy it again")


def _directory_at(source: Source, end: int, fields: tuple[int, ...]) -> Directory | str:
    """The directory that an end record at byte ``end`` describes, or why there is none."""
    disk, first_disk, _, count, size, offset, _ = fields
    if (wide := _end64(source, end)) is not None:
        end, (_, _, _, disk, first_disk, _, count, size, offset) = wide
    if disk != first_disk or disk not in (0, _FULL16):
        return f"found part {disk + 1} of a split zip, expected a zip in one file (zip -s 0 makes one)"
    # What stands before the archive shifts everything: the directory ends where the end record starts.
    for start in (end - size, offset):
        if start >= 0 and start + size <= end and _starts_directory(source, start, size):
            if start < offset:
                return f"found the central directory at byte {start}, expected byte {offset}: the beginning is missing"
            if start > offset and source.read_at(0, 4) == _LOCAL:
                return f"found the central directory of a zip within this one at byte {start}"
            return Directory(start, size, count, start - offset)
    return f"found an end record that places {size} bytes of central directory at byte {offset}, where there is none"


def _starts_directory(source: Source, start: int, size: int) -> bool:
    return size == 0 or source.read_at(start, 4) == _ENTRY


def _end64(source: Source, end: int) -> tuple[int, tuple[int, ...]] | None:
    """Place and fields of the zip64 end record, when its locator stands before the end record at byte ``end``."""
    at = end - _LOCATOR_FIELDS.size
    locator = source.read_at(at, _LOCATOR_FIELDS.size) if at >= 0 else b""
    if not locator.startswith(_LOCATOR64):
        return None
    _, recorded, _ = _LOCATOR_FIELDS.unpack(locator)
    for place in (recorded, at - _END64_FIELDS.size):
        record = source.read_at(place, _END64_FIELDS.size) if 0 <= place <= at - _END64_FIELDS.size else b""
        if record.startswith(_END64):
            return place, _END64_FIELDS.unpack(record)
    return None


class ZipArchive:
    """A zip whose central directory has been found."""

    kind = "zip"
    streamed = False

    def __init__(self, source: Source, limits: Limits) -> None:
        self.uri, self.pin, self.size = source.uri, source.pin, source.size
        self._limits = limits
        self._directory = find_directory(source)
        self._copy: Copied | None = None

    def fingerprint(self) -> str:
        """sha256 hex over the size and the raw central directory, which holds every member's CRC."""
        digest = hashlib.sha256(str(self.size).encode())
        with self._opened() as source:
            for piece in _pieces(source, self._directory):
                digest.update(piece)
        return digest.hexdigest()

    def close(self) -> None:
        if self._copy:
            self._copy.close()
            self._copy = None

    @contextmanager
    def _opened(self) -> Iterator[Source | Copied]:
        """What the directory is read from: the zip, or the copy of the directory of one that is far away."""
        if self._copy:
            yield self._copy
            return
        with closing(open_source(self.uri, self.pin)) as source:
            if self.pin:
                self._copy = Copied(source, self._directory.start, self._directory.size)
            yield self._copy or source

    def members(self) -> Iterator[Member]:
        """Members in the order of the central directory; holds 1 MiB of it, and some 60 bytes an entry where they are not in the order of
        their bytes. Raises InputError where it is broken, and above the limits."""
        return within(self._limits, self.uri, self._members())

    def _members(self) -> Iterator[Member]:
        with self._opened() as source:
            entry = _Entry(self._limits, self._directory.shift, _Ground(source, self._directory))
            count = 0
            for fields, name, extra in _entries(source, self._directory):
                count += 1
                member = entry.member(fields, name, extra)
                if member is not None:
                    yield member
        # a writer without zip64 keeps the lower 16 bits of the count
        if (count ^ self._directory.count) & _FULL16:
            raise InputError(f"{self.uri}: found {count} central directory entries, expected {self._directory.count}; copy the zip again")


def _pieces(source: Source | Copied, directory: Directory) -> Iterator[bytes]:
    for at in range(0, directory.size, _PIECE):
        yield source.read_at(directory.start + at, min(_PIECE, directory.size - at))


def _entries(source: Source | Copied, directory: Directory) -> Iterator[tuple[tuple[int, ...], bytes, bytes]]:
    """Fields, name and extra field of each directory entry; holds one piece and at most one entry (192 KiB)."""
    rest, base = b"", directory.start
    for piece in _pieces(source, directory):
        buffer, at = rest + piece, 0
        last = len(buffer) - _ENTRY_FIELDS.size
        while at <= last:
            if not buffer.startswith(_ENTRY, at):
                if buffer.startswith(_SIGNATURE, at):
                    return
                raise InputError(f"{source.uri}: found {buffer[at : at + 4]!r} at byte {base + at}, expected a directory entry; copy again")
            fields = _ENTRY_FIELDS.unpack_from(buffer, at)
            name = at + _ENTRY_FIELDS.size
            extra = name + fields[10]
            end = extra + fields[11] + fields[12]
            if end > len(buffer):
                break
            yield fields, buffer[name:extra], buffer[extra : extra + fields[11]]
            at = end
        rest, base = buffer[at:], base + at
    if rest and not rest.startswith(_SIGNATURE):
        raise InputError(f"{source.uri}: found {len(rest)} bytes of a directory entry at byte {base}, expected all of it; copy it again")


class _Ground:
    """The bytes before a central directory, each of which may be of one member only: overlapping members are how a small zip
    is made to give petabytes (David Fifield, "A better zip bomb", 2019). Asked for each entry in the directory's order.
    """

    def __init__(self, source: Source | Copied, directory: Directory) -> None:
        self._source = source
        self._directory = directory
        self._entry = -1
        self._start = 0
        self._taken = 0
        self._shared: NDArray[np.bool_] | None = None

    def fault(self, start: int, end: int) -> str | None:
        """Why the next entry must be rejected, if it must; ``end`` is the least byte where it can end: the lengths of its local name
        and extra field are not known."""
        self._entry += 1
        if end > self._directory.start:
            return f"damaged: found data up to byte {end}, expected them to end before the directory at byte {self._directory.start}"
        if self._shared is None and start < self._start:
            self._shared = _shared(self._source, self._directory)
        overlaps = self._taken > start if self._shared is None else self._shared[self._entry]
        self._start, self._taken = start, max(self._taken, end)
        if not overlaps:
            return None
        return f"overlap: found bytes {start} to {end} to be of another member too, expected each byte in one member"


def _shared(source: Source | Copied, directory: Directory) -> NDArray[np.bool_]:
    """Which entries overlap others; of those that do so, directly or by way of further ones, the first is not marked."""
    starts, ends = array("q"), array("q")
    for fields, _, extra in _entries(source, directory):
        _, stored, offset = _sizes(fields, extra) or (0, 0, _NOWHERE)
        start = offset + directory.shift
        end = start + _LOCAL_BYTES + stored
        # one that is not where members can be takes no part
        starts.append(start if end <= directory.start else -1)
        ends.append(end if end <= directory.start else -1)
    order = np.argsort(np.frombuffer(starts, np.int64), kind="stable")
    furthest = np.maximum.accumulate(np.frombuffer(ends, np.int64)[order])
    apart = np.flatnonzero(np.frombuffer(starts, np.int64)[order][1:] >= furthest[:-1]) + 1
    marked = np.ones(len(order), np.bool_)
    marked[np.minimum.reduceat(order, np.append(0, apart))] = False
    return marked


def _sizes(fields: tuple[int, ...], extra: bytes) -> tuple[int, int, int] | None:
    """Decompressed and stored bytes and the place of an entry's local header; None where a zip64 field should hold them and does not."""
    stored, size, offset = fields[8], fields[9], fields[16]
    return _zip64_sizes(extra, size, stored, offset) if _FULL32 in (stored, size, offset) else (size, stored, offset)


class _Entry:
    """Directory entries -> members."""

    def __init__(self, limits: Limits, shift: int, ground: _Ground) -> None:
        self._limits = limits
        self._shift = shift
        self._ground = ground

    def member(self, fields: tuple[int, ...], name: bytes, extra: bytes) -> Member | None:
        """The member an entry describes; None for a folder."""
        _, host, _, flags, method, _, _, crc, _, _, _, _, _, _, _, attributes, _ = fields
        sizes = _sizes(fields, extra)
        size, stored, offset = sizes or (0, 0, 0)
        start = offset + self._shift
        fault = self._ground.fault(start, start + _LOCAL_BYTES + stored)
        raw = _name(name, extra, flags, host)
        if raw.endswith("/"):
            return None
        path, reject = checked_path(raw, self._limits)
        reject = reject or (None if sizes else "damaged: found a zip64 field without the sizes it should hold")
        reject = reject or fault or checked_size(size, stored, self._limits)
        mode = stat.S_IFMT(attributes >> 16) if host in _UNIX_HOSTS else 0
        if mode == stat.S_IFDIR and not size:
            return None
        if flags & (_ENCRYPTED | _PATCH) or mode in _SPECIAL or method not in _METHODS:
            reject = _refusal(flags, method, mode) or reject
        return Member(path, size, stored, start, _METHODS.get(method, str(method)), crc, (), reject)


def _refusal(flags: int, method: int, mode: int) -> str | None:
    if flags & _ENCRYPTED or method == _AES:
        return "encrypted"
    if mode in _SPECIAL:
        return _SPECIAL[mode]
    if flags & _PATCH:
        return "compressed patch data is not supported"
    return f"compression method {method} ({_UNREADABLE.get(method, 'unknown')}) is not supported"


def _name(name: bytes, extra: bytes, flags: int, host: int) -> str:
    utf8 = name.decode("utf-8", "surrogateescape") if flags & _UTF8 else _unicode_path(name, extra)
    text = name.decode("cp437") if utf8 is None else utf8  # 4.4.4, bit 11; appendix D
    if "\\" in text and "/" not in text and host in _BACKSLASH_HOSTS:
        return text.replace("\\", "/")  # 4.4.17.1 asks for slashes; some Windows writers do not know
    return text


def _fields(extra: bytes) -> Iterator[tuple[int, bytes]]:
    """Identifier and content of each extensible data field (4.5.1); what does not fit is left out."""
    at = 0
    while at + 4 <= len(extra):
        identifier, size = _LENGTHS.unpack_from(extra, at)
        yield identifier, extra[at + 4 : at + 4 + size]
        at += 4 + size


def _unicode_path(name: bytes, extra: bytes) -> str | None:
    """The UTF-8 name of field 0x7075, which holds only as long as the CRC of the plain name fits (4.6.9)."""
    if not extra:
        return None
    for identifier, content in _fields(extra):
        if identifier == _UNICODE_PATH and content[:1] == b"\x01" and int.from_bytes(content[1:5], "little") == isal_zlib.crc32(name):
            return content[5:].decode("utf-8", "surrogateescape")
    return None


def _zip64_sizes(extra: bytes, size: int, stored: int, offset: int) -> tuple[int, int, int] | None:
    """The values with those that are all ones taken from field 1, in its order (4.5.3); None when it is too short.

    Without the field the values stand as they are: a member may have exactly 4 GiB less one byte.
    """
    for identifier, content in _fields(extra):
        if identifier == _ZIP64:
            values = [size, stored, offset]
            wide = [n for n, value in enumerate(values) if value == _FULL32]
            if len(content) < 8 * len(wide):
                return None
            for place, n in enumerate(wide):
                values[n] = int.from_bytes(content[8 * place : 8 * place + 8], "little")
            return values[0], values[1], values[2]
    return size, stored, offset


class ZipReader:
    """Reads members of a zip; a small one with a single ranged read."""

    def __init__(self, uri: str, pin: Pin | None = None) -> None:
        self._source = open_source(uri, pin)

    def expect(self, members: Iterable[Member]) -> None:
        self._source.expect((member.offset, _LOCAL_BYTES + _SLACK + member.stored) for member in members)

    def read(self, member: Member, limit: int) -> bytes:
        if member.stored > _AT_ONCE:
            with self.open(member) as stream:
                return read_whole(stream, limit)
        packed = self._packed(member)
        if member.method == "stored":
            return packed[: limit + 1]
        return decompress(packed, _codec(member), member.size, limit, _ends_exactly(member))

    def open(self, member: Member) -> BinaryIO:
        start = member.offset + _header_bytes(member, self._source.read_at(member.offset, _LOCAL_BYTES))
        require_inside(self._source, start, member.stored)
        stream = self._source.stream(start, member.stored)
        if member.method == "stored":
            return stream
        return cast(BinaryIO, Decompressed(stream, _codec(member), member.size, _ends_exactly(member)))

    def close(self) -> None:
        self._source.close()

    def _packed(self, member: Member) -> bytes:
        """The stored bytes: local header, its name and extra field and the data in one read, or two when the header is long."""
        raw = self._source.read_at(member.offset, _LOCAL_BYTES + _SLACK + member.stored)
        start = _header_bytes(member, raw)
        end = start + member.stored
        if end <= len(raw):
            return raw[start:end]
        require_inside(self._source, member.offset + start, member.stored)
        return self._source.read_at(member.offset + start, member.stored)


def _header_bytes(member: Member, raw: bytes) -> int:
    """Bytes of the local header that ``raw`` starts with (4.3.7). Its sizes are not used: a data descriptor may hold them."""
    if len(raw) < _LOCAL_BYTES or not raw.startswith(_LOCAL):
        found = repr(raw[:4]) if raw else "the end of the archive"
        raise MemberError(f"damaged: found {found} at byte {member.offset}, expected a local header", "read")
    if member.method == "stored" and member.stored != member.size:
        raise MemberError(f"damaged: found {member.stored} stored bytes, expected {member.size}", "read")
    name, extra = _LENGTHS.unpack_from(raw, _LOCAL_BYTES - _LENGTHS.size)
    return _LOCAL_BYTES + int(name) + int(extra)


def _codec(member: Member) -> Codec:
    if member.method == "lzma":
        return Codec("lzma", partial(_ZipLzma, member.size))
    return CODECS[member.method]


def _ends_exactly(member: Member) -> bool:
    """Whether the stored bytes must end where the data does; an end mark may follow the data of LZMA (4.4.4, bit 1)."""
    return member.method != "lzma"


class _ZipLzma:
    """Raw LZMA behind a zip's own header: version (2 bytes), size of the properties (2), properties (5.8.8)."""

    unused_data = b""

    def __init__(self, size: int) -> None:
        self._size = size
        self._left = size
        self._header = b""
        self._engine: lzma.LZMADecompressor | None = None

    @property
    def eof(self) -> bool:
        return self._left == 0 or (self._engine is not None and self._engine.eof)

    @property
    def needs_input(self) -> bool:
        return self._engine is None or self._engine.needs_input

    def decompress(self, data: bytes, max_length: int = -1, /) -> bytes:
        if self._engine is None:
            self._header += data
            if len(self._header) < _LZMA_HEADER:
                return b""
            self._engine = self._start(self._header)
            data = self._header[_LZMA_HEADER:]
        out = self._engine.decompress(data, self._left if max_length < 0 else min(max_length, self._left))
        self._left -= len(out)
        return out

    def _start(self, header: bytes) -> lzma.LZMADecompressor:
        size, mode, dictionary = struct.unpack_from("<HBI", header, 2)
        # no distance is longer than the data: a hostile header cannot make us allocate more than it gives
        dictionary = max(_LEAST_DICTIONARY, min(dictionary, self._size))
        if size != 5 or dictionary > _DICTIONARY:
            raise ValueError(f"properties of {size} bytes and a dictionary of {dictionary}, expected 5 and at most {_DICTIONARY}")
        chain = {"id": lzma.FILTER_LZMA1, "lc": mode % 9, "lp": mode // 9 % 5, "pb": mode // 45, "dict_size": dictionary}
        return lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=[chain])
