"""A prefix in S3 -> the objects below it as members, in the order of a folder's files, and their bytes."""

from __future__ import annotations

import hashlib
import sqlite3
import weakref
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import BinaryIO, cast

from h5dat_lib.archive.member import WHOLE_BYTES, Member, checked_path, checked_size, within
from h5dat_lib.archive.stream import read_whole
from h5dat_lib.config import Limits
from h5dat_lib.errors import InputError, MemberError
from h5dat_lib.storage import Pin, RangeStream, Source, listed, of_one_object, open_source

__all__ = ["PrefixArchive", "PrefixReader"]

_AHEAD = 8
"""Small objects that are fetched before they are read: each is a request, most of whose time is waiting."""


class PrefixArchive:
    """The objects below a prefix, which ends with a slash, or of a bucket; each with the ETag that the listing gave it.

    They are listed once, into a temporary SQLite database, which holds some 2 MB of it in memory: stores do not list in the order in
    which a folder is walked, and not in the same order as each other. Folder markers, and the URIs ``left_out``, are no members.
    """

    kind = "folder"
    streamed = False
    pin: Pin | None = None

    def __init__(self, uri: str, limits: Limits, left_out: frozenset[str] = frozenset()) -> None:
        self.uri = uri if uri.endswith("/") else f"{uri}/"
        self._limits = limits
        self._listing = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        weakref.finalize(self, self._listing.close)
        self._listing.execute("CREATE TABLE objects (place BLOB PRIMARY KEY, name TEXT, size INTEGER, etag TEXT) WITHOUT ROWID")
        self._listing.execute("BEGIN")
        self._listing.executemany("INSERT OR REPLACE INTO objects VALUES (?, ?, ?, ?)", self._found(left_out))
        self._listing.execute("COMMIT")
        [(total,)] = self._listing.execute("SELECT coalesce(sum(size), 0) FROM objects")
        self.size = int(total)

    def _found(self, left_out: frozenset[str]) -> Iterator[tuple[bytes, str, int, str]]:
        for name, size, etag in listed(self.uri):
            if not name.endswith("/") and name and self.uri + name not in left_out:
                yield name.replace("/", "\0").encode(), name, size, etag  # a folder's names come in their own order, then those below

    def _rows(self) -> Iterator[tuple[str, int, str]]:
        return self._listing.execute("SELECT name, size, etag FROM objects ORDER BY place")

    def fingerprint(self) -> str:
        """sha256 hex over name, size and ETag of all objects, in order."""
        digest = hashlib.sha256()
        for row in self._rows():
            digest.update(repr(row).encode())
        return digest.hexdigest()

    def close(self) -> None: ...

    def members(self) -> Iterator[Member]:
        """Objects in order. Raises InputError above the limits."""
        return within(self._limits, self.uri, self._members())

    def _members(self) -> Iterator[Member]:
        for name, size, etag in self._rows():
            path, reject = checked_path(name, self._limits)
            reject = reject or checked_size(size, size, self._limits)
            yield Member(path, size, size, 0, reject=reject, name=None if path == name else name, etag=etag)


class PrefixReader:
    """Reads objects below a prefix; of small ones up to eight are fetched ahead, each at most 1 MiB."""

    def __init__(self, uri: str, pin: Pin | None = None) -> None:
        self._root = uri
        self._expected: Iterator[Member] = iter(())
        self._coming: OrderedDict[str, Future[bytes]] = OrderedDict()
        self._fetching: ThreadPoolExecutor | None = None

    def expect(self, members: Iterable[Member]) -> None:
        self._expected = (member for member in members if 0 < member.size <= WHOLE_BYTES)
        self._fetch_ahead()

    def read(self, member: Member, limit: int) -> bytes:
        if member.size > WHOLE_BYTES:
            with self.open(member) as stream:
                return read_whole(stream, limit)
        name = _name(member)
        if name not in self._coming:
            return self._small(member)[: limit + 1]
        while next(iter(self._coming)) != name:  # what is passed over is not read any more
            self._coming.popitem(last=False)
        coming = self._coming.pop(name)
        self._fetch_ahead()
        return coming.result()[: limit + 1]

    def open(self, member: Member) -> BinaryIO:
        source = self._opened(member)
        source.expect([(0, member.size)])
        return cast(BinaryIO, _ObjectStream(source))

    def close(self) -> None:
        if self._fetching:
            self._fetching.shutdown(wait=True, cancel_futures=True)

    def _fetch_ahead(self) -> None:
        while len(self._coming) < _AHEAD and (member := next(self._expected, None)):
            self._fetching = self._fetching or ThreadPoolExecutor(_AHEAD, "s3")
            self._coming[_name(member)] = self._fetching.submit(self._small, member)

    def _opened(self, member: Member) -> Source:
        return open_source(self._root + _name(member), Pin(member.size, member.etag or ""))

    def _small(self, member: Member) -> bytes:
        with _as_reject(), self._opened(member).forward() as stream:
            return read_whole(stream, member.size)


def _name(member: Member) -> str:
    return member.path if member.name is None else member.name


class _ObjectStream(RangeStream):
    """One object from start to end."""

    def __init__(self, source: Source) -> None:
        super().__init__(source, 0, source.size)

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        with _as_reject():
            return super().readinto(buffer)

    def close(self) -> None:
        if not self.closed:
            self._source.close()
        super().close()


@contextmanager
def _as_reject() -> Iterator[None]:
    """What is wrong with one object costs the member; what is wrong with the store, or the way to it, the run."""
    try:
        yield
    except InputError as exc:
        if of_one_object(exc):
            raise MemberError(str(exc), "read") from exc
        raise
