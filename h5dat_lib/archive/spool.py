"""Members of a streamed archive -> one spool file, from which workers read them at offsets (kind "tar")."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

from isal import isal_zlib

from h5dat_lib.archive.member import Member
from h5dat_lib.config import Limits
from h5dat_lib.errors import MemberError, OutputError

__all__ = ["SpoolWriter"]

_STEP = 1 << 20


class SpoolWriter:
    """Appends members to the file ``path``, which it makes anew; what has been added can be read at once. Holds 1 MiB."""

    def __init__(self, path: Path, limits: Limits) -> None:
        self._path = path
        self._most = limits.member_bytes
        self._position = 0
        try:
            self._file = path.open("wb", buffering=0)
        except OSError as exc:
            raise OutputError(f"{path}: cannot be written: {exc.strerror}") from exc

    def __enter__(self) -> SpoolWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add(self, member: Member, data: BinaryIO) -> Member:
        """The member as it lies in the spool: its size counted, its offset there, its CRC for when it is read.

        Raises MemberError when the bytes end early, are damaged or are more than ``limits.member_bytes``: nothing of
        them is kept. Raises OutputError when the spool cannot be written.
        """
        start = self._position
        try:
            crc32 = self._copy(data, start)
            size = self._position - start
            if 0 <= member.size != size:
                raise MemberError(f"damaged: found {size} bytes, expected {member.size}", "read")
        except MemberError:
            self._cut(start)
            raise
        return Member(member.path, size, size, start, "stored", crc32)

    def close(self) -> None:
        self._file.close()

    def _copy(self, data: BinaryIO, start: int) -> int:
        crc32 = 0
        while piece := data.read(_STEP):
            if self._position + len(piece) - start > self._most:
                raise MemberError(f"too large: found more than {self._most} bytes", "read")
            self._write(piece)
            crc32 = isal_zlib.crc32(piece, crc32)
        return crc32

    def _write(self, piece: bytes) -> None:
        rest = memoryview(piece)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as exc:
            raise OutputError(f"{self._path}: cannot be written: {exc.strerror}; free some space or choose another work_dir") from exc
        self._position += len(piece)

    def _cut(self, size: int) -> None:
        os.ftruncate(self._file.fileno(), size)
        self._file.seek(size)
        self._position = size
