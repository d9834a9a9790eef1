"""Files of local disks, by ranges and as streams."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable
from typing import BinaryIO

from h5dat_lib.errors import InputError
from h5dat_lib.storage.source import Pin, Range, RangeStream

__all__ = ["LocalSource", "sha256_of"]

_LARGEST = 1 << 62
"""No file is as long; a damaged archive may name such an offset, which ``pread`` would not take."""


def sha256_of(uri: str) -> str:
    """SHA-256 of a file, as hex."""
    with open(uri, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class LocalSource:
    """A regular file on a local disk, read by ``pread``: its streams share no position."""

    pin: Pin | None = None

    def __init__(self, uri: str, flags: int = 0) -> None:
        self.uri = uri
        # O_NONBLOCK: opening a fifo would otherwise wait for a writer before its type can be seen
        self._descriptor = _open(uri, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | flags)
        status = os.fstat(self._descriptor)
        if not stat.S_ISREG(status.st_mode):
            self.close()
            raise InputError(f"{uri}: found {_kind(status.st_mode)}, expected a regular file; write it to a file first")
        self.size = status.st_size
        self.fingerprint_parts: tuple[str, ...] = (str(status.st_size), str(status.st_mtime_ns))

    def expect(self, ranges: Iterable[Range]) -> None:
        """Does nothing: the system reads ahead by itself."""

    def read_at(self, offset: int, size: int) -> bytes:
        if not 0 <= offset < _LARGEST:
            return b""
        data = self._pread(offset, size)
        if len(data) == size or offset + len(data) >= self.size:
            return data
        # one pread gives at most 2 GiB on Linux, and may be interrupted
        pieces = [data]
        while data and (size := size - len(data)) > 0:
            offset += len(data)
            data = self._pread(offset, size)
            pieces.append(data)
        return b"".join(pieces)

    def stream(self, offset: int = 0, size: int | None = None) -> BinaryIO:
        return RangeStream(self, offset, self.size - offset if size is None else size)  # type: ignore[return-value]

    forward = stream

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _pread(self, offset: int, size: int) -> bytes:
        try:
            return os.pread(self._descriptor, size, offset)
        except OSError as exc:
            raise InputError(f"{self.uri}: cannot be read at byte {offset}: {exc.strerror}") from exc


def _open(uri: str, flags: int) -> int:
    try:
        return os.open(uri, flags)
    except FileNotFoundError as exc:
        raise InputError(f"{uri}: found nothing there, expected a file or folder; check the path") from exc
    except (OSError, ValueError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else str(exc)
        raise InputError(f"{uri}: cannot be opened: {reason}; check the path and its permissions") from exc


def _kind(mode: int) -> str:
    named = ((stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a fifo"), (stat.S_ISSOCK, "a socket"))
    return next((name for test, name in named if test(mode)), "a device")
