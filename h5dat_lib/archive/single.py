"""A lone file, compressed (gz, bz2, xz, zst) or not -> its one member and that member's bytes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import BinaryIO, cast

from h5dat_lib.archive.member import Member, checked_path, checked_size, within
from h5dat_lib.archive.stream import CODECS, Decompressed, ends_fingerprint, read_whole, require_inside
from h5dat_lib.config import Limits
from h5dat_lib.storage import Pin, Source, name_of, open_source

__all__ = ["SUFFIXES", "SingleArchive", "SingleReader"]

SUFFIXES = {"gzip": (".gz",), "bzip2": (".bz2",), "xz": (".xz",), "zstd": (".zst", ".zstd")}
"""What a compression adds to a file's name, and what the member's name goes without."""


class SingleArchive:
    """A lone file. ``method`` names its compression, "stored" when it has none."""

    streamed = False

    def __init__(self, source: Source, kind: str, method: str, limits: Limits) -> None:
        self.uri, self.pin, self.size = source.uri, source.pin, source.size
        self.kind = kind
        self._method = method
        self._limits = limits

    def fingerprint(self) -> str:
        return ends_fingerprint(self.uri, self.pin)

    def members(self) -> Iterator[Member]:
        """The one member; of a compressed file the size is not known before it is read. Raises InputError above the limits."""
        path, reject = checked_path(_without_suffix(name_of(self.uri), self._method), self._limits)
        size = self.size if self._method == "stored" else -1
        reject = reject or checked_size(size, self.size, self._limits)
        return within(self._limits, self.uri, iter([Member(path, size, self.size, 0, self._method, reject=reject)]))

    def close(self) -> None: ...


class SingleReader:
    """Reads the member of a lone file."""

    def __init__(self, uri: str, limits: Limits, pin: Pin | None = None) -> None:
        self._source = open_source(uri, pin)
        self._ratio = limits.ratio

    def expect(self, members: Iterable[Member]) -> None:
        self._source.expect((0, member.stored) for member in members if member.method == "stored")

    def read(self, member: Member, limit: int) -> bytes:
        with self.open(member) as stream:
            return read_whole(stream, limit)

    def open(self, member: Member) -> BinaryIO:
        require_inside(self._source, 0, member.stored)
        if member.method == "stored":
            return self._source.stream()
        return cast(BinaryIO, Decompressed(self._source.forward(), CODECS[member.method], ratio=self._ratio))

    def close(self) -> None:
        self._source.close()


def _without_suffix(name: str, method: str) -> str:
    for suffix in SUFFIXES.get(method, ()):
        if name.lower().endswith(suffix) and len(name) > len(suffix):
            return name[: -len(suffix)]
    return name
