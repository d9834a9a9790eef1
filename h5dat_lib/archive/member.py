"""What all containers share: a member, how its bytes are read, and the checks every byte passes.

An `Archive` lists `Member`s; a `Reader` opens their bytes; `Content` is one member's bytes with limits, size and
checksums checked on the way, whatever container they came from.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from isal import isal_zlib

from h5dat_lib.config import Limits
from h5dat_lib.errors import InputError, MemberError, escaped
from h5dat_lib.storage import Pin

Part = tuple[int, int]
"""Number, from 0, and count of the parts that a long member is converted in."""
WHOLE: Part = (0, 1)
HEAD_BYTES = 4096
"""Bytes looked at to tell what a member is; a tar header is 512, no magic number lies further in."""
WHOLE_BYTES = 1 << 20
"""A member recorded as no larger is read in one piece and kept; a larger one is streamed."""
EVEN_BYTES = 64 << 20
"""What decompresses to no more is not looked at for its ratio: small members may well be very even."""
_STEP = 1 << 20


@dataclass(frozen=True, slots=True)
class Member:
    """One file in an archive, as its directory describes it.

    ``size`` is in decompressed bytes, ``stored`` in bytes inside the source; -1 means that the directory does not say.
    ``offset`` is where the source's record of the member starts: a zip local header, the first data byte in a tar or
    a spool. ``method`` names the compression. ``sparse`` lists (offset, length) of the data of a sparse tar member.
    ``reject`` is set when the directory alone shows that the member cannot be read. ``name`` is a file's own name in a
    folder, with surrogates for bytes that are not UTF-8, where it is not ``path``. ``etag`` is that of an object below a prefix.
    """

    path: str
    size: int
    stored: int
    offset: int
    method: str = "stored"
    crc32: int | None = None
    sparse: tuple[tuple[int, int], ...] = ()
    reject: str | None = None
    name: str | None = None
    etag: str | None = None


class Reader(Protocol):
    """Reads members of one source; one process, one thread. ``close`` releases the source."""

    def open(self, member: Member) -> BinaryIO:
        """The member's decompressed bytes from the start; raises MemberError when they cannot be found."""
        ...

    def read(self, member: Member, limit: int) -> bytes:
        """All decompressed bytes, or the first ``limit + 1`` of a longer member; raises MemberError on damage."""
        ...

    def close(self) -> None: ...


class SourceReader(Reader, Protocol):
    """A reader that may be told what comes next."""

    def expect(self, members: Iterable[Member]) -> None:
        """Says which members will be read next, in that order, so that neighbours far away come together; a local reader asks for none."""
        ...


class Archive(Protocol):
    """A container that has been recognised. Listing it does not read members, except where it is ``streamed``."""

    uri: str
    pin: Pin | None
    """What its readers are opened with, so that all read the same bytes of an archive far away."""
    kind: str
    """zip, tar, tar.gz, tar.bz2, tar.xz, tar.zst, gz, bz2, xz, zst, folder or file."""
    size: int
    """Bytes of the archive; of a folder the sum over its files, known once it has been listed."""
    streamed: bool
    """True when members can only be read in one forward pass: it is a `StreamedArchive`."""

    def fingerprint(self) -> str:
        """sha256 hex that changes when the archive does, without reading all of it."""
        ...

    def members(self) -> Iterator[Member]:
        """Members in archive order; nothing is kept. Folders are no members. Raises InputError on a broken directory."""
        ...

    def close(self) -> None:
        """Gives back what was held so that an archive far away is listed by one request; it can still be used."""
        ...


class StreamedArchive(Archive, Protocol):
    """A compressed tar: its members come one after the other, and cannot be gone back to."""

    def stream(self) -> Iterator[tuple[Member, BinaryIO]]:
        """Members with their bytes, in one pass; a member's bytes must be read before the next is asked for."""
        ...

    def position(self) -> int:
        """Bytes of the archive that the forward pass has read so far."""
        ...


def within(limits: Limits, uri: str, members: Iterator[Member]) -> Iterator[Member]:
    """The members of an archive up to where there are too many of them, or of their recorded bytes; then InputError.

    Recorded bytes will do: no member gives more than is recorded of it, and rejects give none.
    """
    size = 0
    for count, member in enumerate(members):
        if member.reject is None:
            size += max(member.size, 0)
        if count == limits.members:
            raise InputError(f"{uri}: found more than {limits.members} members (limits.members); raise it for an archive that you trust")
        if size > limits.archive_bytes:
            reason = f"found members of more than {limits.archive_bytes} bytes in all (limits.archive_bytes)"
            raise InputError(f"{uri}: {reason}; raise it for an archive that you trust")
        yield member


def checked_size(size: int, stored: int, limits: Limits) -> str | None:
    """Why a member must be rejected for the sizes that are recorded of it (-1: none), before any of it is decompressed."""
    if size > limits.member_bytes:
        return f"too large: found a record of {size} bytes, expected at most {limits.member_bytes} (limits.member_bytes)"
    if size > EVEN_BYTES and size > limits.ratio * stored:
        return (
            f"decompression bomb: found a record of {size} bytes in {stored} stored ones, expected at most {limits.ratio:g} times as "
            "many (limits.ratio)"
        )
    return None


def checked_path(path: str, limits: Limits) -> tuple[str, str | None]:
    """A member path fit to be recorded, and why the member must be rejected, if it must.

    No ingest writes anything under a member's own name; a name that tries to leave the archive marks an archive that
    should not be trusted, so it is rejected all the same. Bytes that are not UTF-8 (as surrogates) and control characters
    are shown as backslash escapes; a long name is cut for the record.
    """
    text = escaped(path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace"))
    if len(text.encode()) > limits.name_bytes:
        shown = text.encode()[:200].decode("utf-8", "ignore") + "..."
        return shown, f"unsafe name: found {len(text.encode())} bytes, expected at most {limits.name_bytes} (limits.name_bytes)"
    if "\0" in path:
        return text, "unsafe name: found a NUL character"
    path = path.removeprefix("./")  # what is recorded is checked; the escapes in text would look like a leading backslash
    text = text.removeprefix("./")
    if path.startswith(("/", "\\")) or path[1:3] in (":/", ":\\"):
        return text, "unsafe name: found an absolute path, expected one relative to the archive"
    if ".." in path.replace("\\", "/").split("/"):
        return text, "unsafe name: found '..', expected a path that stays within the archive"
    if not text:
        return text, "unsafe name: found an empty name"
    return text, None


class Content:
    """One member's bytes: counted against the limits, compared with the recorded size and CRC, and hashed.

    ``size`` (bytes, at most ``most``), ``crc32`` and ``sha256`` (hex) are known once the member has been read to its end.
    A member of up to ``WHOLE_BYTES`` recorded bytes is read once and kept; a larger one is opened anew by each `open`.
    """

    def __init__(self, reader: Reader, member: Member, limits: Limits, part: Part = WHOLE) -> None:
        self.member = member
        self.limits = limits
        self.part = part
        """Which part of the member is to be converted."""
        self.most = min(limits.member_bytes, limits.archive_bytes)
        self.size = -1
        self.crc32 = 0
        self.sha256 = ""
        self._reader = reader
        self._whole: bytes | None = None
        self._head: bytes | None = None

    @property
    def small(self) -> bool:
        """Whether the member is read in one piece and kept."""
        return 0 <= self.member.size <= WHOLE_BYTES

    def head(self) -> bytes:
        """The first `HEAD_BYTES` bytes, fewer when the member is shorter."""
        if self.small:
            return self.read()[:HEAD_BYTES]
        if self._head is None:
            with self.open() as stream:
                self._head = stream.read(HEAD_BYTES)
        return self._head

    def read(self) -> bytes:
        """All bytes. Raises MemberError above ``limits.whole_bytes`` or when size or CRC are not as recorded."""
        if self._whole is None:
            limit = min(self.limits.whole_bytes, self.most)
            data = self._reader.read(self.member, limit) if self.member.size <= limit else b""
            if max(len(data), self.member.size) > limit:
                raise MemberError(f"too large: found more than the {limit} bytes that may be read whole", "read")
            self.finish(len(data), isal_zlib.crc32(data), hashlib.sha256(data).hexdigest())
            self._whole = data
        return self._whole

    def open(self) -> BinaryIO:
        """The bytes from the start, as a buffered stream; the checks of `read` are made when its end is reached."""
        if self.small:
            return io.BytesIO(self.read())
        return io.BufferedReader(_Counted(self, self._reader.open(self.member)), _STEP)

    def reopen(self) -> BinaryIO:
        """The bytes from the start, neither buffered nor checked: for a member that `check` has passed."""
        return self._reader.open(self.member)

    def check(self) -> None:
        """Reads to the end, for the checks of `read`, before anything is made of a member that is then streamed."""
        if self.size < 0:
            with self.open() as stream:
                while stream.read(_STEP):
                    pass

    def finish(self, size: int, crc32: int, sha256: str) -> None:
        """Records what was counted to the end; raises MemberError when it is not what the archive recorded."""
        recorded = self.member
        if recorded.size >= 0 and size != recorded.size:
            raise MemberError(f"damaged: found {size} bytes, expected {recorded.size}", "read")
        if recorded.crc32 is not None and crc32 != recorded.crc32:
            raise MemberError(f"damaged: found CRC {crc32:08x}, expected {recorded.crc32:08x}", "read")
        self.size, self.crc32, self.sha256 = size, crc32, sha256


class _Counted(io.RawIOBase):
    """A stream that counts and hashes what passes, and tells its `Content` at the end."""

    def __init__(self, content: Content, source: BinaryIO) -> None:
        self._content = content
        self._source = source
        self._size = 0
        self._crc32 = 0
        self._sha256 = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self._source.read(len(buffer))
        if not data:
            self._content.finish(self._size, self._crc32, self._sha256.hexdigest())
            return 0
        self._size += len(data)
        if self._size > self._content.most:
            raise MemberError(f"too large: found more than {self._content.most} bytes", "read")
        self._crc32 = isal_zlib.crc32(data, self._crc32)
        self._sha256.update(data)
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._source.close()
        super().close()
