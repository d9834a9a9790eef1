"""A compressed file within an archive, such as ``table.csv.gz`` -> the file that it holds."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import BinaryIO, cast

from h5dat_lib.archive.member import Content, Member
from h5dat_lib.archive.single import SUFFIXES
from h5dat_lib.archive.stream import Codec, Decompressed, packed_by, read_whole

__all__ = ["stem", "unpacked", "unpacked_path"]

_ENDINGS = re.compile(r"(?i)(?<=.)(\.tar)?\.[a-z0-9]+$")
_SUFFIXES = tuple(suffix for suffixes in SUFFIXES.values() for suffix in suffixes)


def stem(name: str) -> str:
    """An archive's file name without what says how it is packed: ``a`` of ``a.tar.gz`` and ``a.zip``."""
    return _ENDINGS.sub("", name)


def unpacked_path(path: str) -> str:
    """A path without what a compression adds to it: ``a.csv`` of ``a.csv.gz``; any other as it is."""
    return str(PurePosixPath(path).with_suffix("")) if path.lower().endswith(_SUFFIXES) else path


def unpacked(content: Content) -> Content | None:
    """The file in a member that is gzip, bzip2, xz or zstd by its first bytes; None for any other.

    It is inflated anew by each reading, within ``limits.ratio`` and the limits of any member. Raises MemberError as `Content` does.
    """
    codec = packed_by(content.head())
    if codec is None:
        return None
    packed = content.member
    inner = Member(unpacked_path(packed.path), -1, max(packed.size, 0), 0, codec.name)
    return Content(_PackedReader(content, codec), inner, content.limits, content.part)


class _PackedReader:
    """Reads the one file in a compressed member."""

    def __init__(self, content: Content, codec: Codec) -> None:
        self._content = content
        self._codec = codec

    def open(self, member: Member) -> BinaryIO:
        return cast(BinaryIO, Decompressed(self._content.open(), self._codec, ratio=self._content.limits.ratio))

    def read(self, member: Member, limit: int) -> bytes:
        with self.open(member) as stream:
            return read_whole(stream, limit)

    def close(self) -> None: ...
