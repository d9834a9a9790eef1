"""One range of a source far away, copied once by one request and then read here."""

from __future__ import annotations

import shutil
import weakref
from tempfile import SpooledTemporaryFile

from h5dat_lib.storage.source import Source

__all__ = ["Copied"]

_IN_MEMORY = 8 << 20
_STEP = 1 << 20


class Copied:
    """``size`` bytes of a source from ``start`` on: up to 8 MiB in memory, more in a temporary file that has no name."""

    def __init__(self, source: Source, start: int, size: int) -> None:
        self.uri = source.uri
        self._start = start
        self._file = SpooledTemporaryFile(max_size=_IN_MEMORY)  # noqa: SIM115  # closed by close, or with this
        weakref.finalize(self, self._file.close)
        with source.forward(start, size) as stream:
            shutil.copyfileobj(stream, self._file, _STEP)

    def read_at(self, offset: int, size: int) -> bytes:
        """As `Source.read_at`, within the range."""
        self._file.seek(offset - self._start)
        return self._file.read(size)

    def close(self) -> None:
        """The file is gone by it."""
        self._file.close()
