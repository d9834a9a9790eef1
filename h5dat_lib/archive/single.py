"""A lone file, compressed (gz, bz2, xz, zst) or not -> its one member and that member's bytes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import PurePath
from typing import BinaryIO, cast

from h5dat_lib.archive.member import Member, checked_path, checked_size, within
from h5dat_lib.archive.stream import CODECS, Decompressed, ends_fingerprint, read_whole, require_inside
from h5dat_lib.config import Limits
from h5dat_lib.storage import open_source

__all__ = ["SUFFIXES", "SingleArchive", "SingleReader"]

SUFFIXES = {"gzip": (".gz",), "bzip2": (".bz2",), "xz": (".xz",), "zstd": (".zst", ".zstd")}
"""What a compression adds to a file's name, and what the member's name goes without."""


class SingleArchive:
    """A lone file. ``method`` names its compression, "stored" when it has none."""

    streamed = False

    def __init__(self, uri: str, kind: str, method: str, limits: Limits) -> None:
        self.uri = uri
        self.kind = kind
        self._method = method
        self._limits = limits
        with closing(open_source(uri)) as source:
            self.size = source.size

    def fingerprint(self) -> str:
        return ends_fingerprint(self.uri)

    def members(self) -> Iterator[Member]:
        """The one member; of a compressed file the size is not known before it is read. Raises InputError above the limits."""
        path, reject = checked_path(_without_suffix(PurePath(self.uri).name, self._method), self._limits)
        size = self.size if self._method == "stored" else -1
        reject = reject or checked_size(size, self.size, self._limits)
        return within(self._limits, self.uri, iter([Member(path, size, self.size, 0, self._method, reject=reject)]))


class SingleReader:
    """Reads the member of a lone file."""

    def __init__(self, uri: str, limits: Limits) -> None:
        self._source = open_source(uri)
        self._ratio = limits.ratio

    def read(self, member: Member, limit: int) -> bytes:
        with self.open(member) as stream:
            return read_whole(stream, limit)

    def open(self, member: Member) -> BinaryIO:
        require_inside(self._source, 0, member.stored)
        stream = self._source.stream()
        return stream if member.method == "stored" else cast(BinaryIO, Decompressed(stream, CODECS[member.method], ratio=self._ratio))

    def close(self) -> None:
        self._source.close()


def _without_suffix(name: str, method: str) -> str:
    for suffix in SUFFIXES.get(method, ()):
        if name.lower().endswith(suffix) and len(name) > len(suffix):
            return name[: -len(suffix)]
    return name
