"""A folder -> its files as members, in a stable order, and their bytes."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from h5dat_lib.archive.member import Member, checked_path, checked_size, within
from h5dat_lib.archive.stream import read_whole
from h5dat_lib.config import Limits
from h5dat_lib.errors import InputError, MemberError
from h5dat_lib.storage import LocalSource, Pin, RangeStream

__all__ = ["FolderArchive", "FolderReader"]

_SPECIAL = ((stat.S_ISLNK, "link"), (stat.S_ISFIFO, "fifo"), (stat.S_ISSOCK, "socket"), (stat.S_ISBLK, "device"), (stat.S_ISCHR, "device"))


class FolderArchive:
    """A folder on a local disk, walked depth first with names sorted; links are not followed.

    ``left_out`` are real paths of files and folders that are no members, such as an output that is written into the folder.
    """

    kind = "folder"
    streamed = False
    pin: Pin | None = None

    def __init__(self, uri: str, limits: Limits, left_out: frozenset[str] = frozenset()) -> None:
        self.uri = uri
        self.size = 0
        self._limits = limits
        self._left_out = left_out
        _root_names(uri)

    def fingerprint(self) -> str:
        """sha256 hex over path, size and modification time of all files, in order."""
        digest = hashlib.sha256()
        for name, status, _ in _walk(self.uri, self._left_out):
            parts = (name, status.st_size, status.st_mtime_ns) if status else (name,)
            digest.update(repr(parts).encode("utf-8", "surrogateescape"))
        return digest.hexdigest()

    def close(self) -> None: ...

    def members(self) -> Iterator[Member]:
        """Files in order; holds the names of the folders that lead to the current one. Raises InputError above the limits."""
        return within(self._limits, self.uri, self._members())

    def _members(self) -> Iterator[Member]:
        self.size = 0
        for name, status, fault in _walk(self.uri, self._left_out):
            path, reject = checked_path(name, self._limits)
            found = status.st_size if status else 0
            self.size += found
            reject = fault or reject or checked_size(found, found, self._limits)
            yield Member(path, found, found, 0, reject=reject, name=None if path == name else name)


def _walk(root: str, left_out: frozenset[str]) -> Iterator[tuple[str, os.stat_result | None, str | None]]:
    """Path below ``root``, status, and why it cannot be read, of all that is no folder, and of folders that cannot be listed."""
    # a stack instead of recursion: folders may nest deeper than Python recurses
    stack = [iter(_root_names(root))]
    folders = [""]
    real_root = os.path.realpath(root)
    while stack:
        name = next(stack[-1], None)
        if name is None:
            stack.pop()
            folders.pop()
            continue
        path = folders[-1] + name
        full = os.path.join(root, path)
        if os.path.join(real_root, path) in left_out:
            continue
        try:
            status = os.lstat(full)
            if stat.S_ISDIR(status.st_mode):
                stack.append(iter(_names(full)))
                folders.append(path + "/")
                continue
        except OSError as exc:
            yield path, None, f"cannot be listed: {exc.strerror}"
            continue
        yield path, status, next((kind for test, kind in _SPECIAL if test(status.st_mode)), None)


def _names(folder: str) -> list[str]:
    return sorted(os.listdir(folder))


def _root_names(root: str) -> list[str]:
    try:
        return _names(root)
    except OSError as exc:
        raise InputError(f"{root}: cannot be listed: {exc.strerror}; check its permissions") from exc


class FolderReader:
    """Reads files of a folder."""

    def __init__(self, uri: str, pin: Pin | None = None) -> None:
        self._root = uri

    def expect(self, members: Iterable[Member]) -> None:
        """Does nothing: the system reads ahead by itself."""

    def read(self, member: Member, limit: int) -> bytes:
        with self.open(member) as stream:
            return read_whole(stream, limit)

    def open(self, member: Member) -> BinaryIO:
        name = member.path if member.name is None else member.name
        try:
            # the file may have become a link since it was listed
            source = LocalSource(os.path.join(self._root, name), os.O_NOFOLLOW)
        except InputError as exc:
            raise MemberError(str(exc), "read") from exc
        return _FileStream(source)  # type: ignore[return-value]

    def close(self) -> None:
        pass


class _FileStream(RangeStream):
    """One file of a folder from start to end; what fails is the member, not the archive."""

    def __init__(self, source: LocalSource) -> None:
        super().__init__(source, 0, source.size)

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        try:
            return super().readinto(buffer)
        except InputError as exc:
            raise MemberError(str(exc), "read") from exc

    def close(self) -> None:
        if not self.closed:
            self._source.close()
        super().close()
