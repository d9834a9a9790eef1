"""One writer an output on this machine: an advisory lock, held by a folder in which the run keeps what it works with."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
from pathlib import Path
from types import TracebackType

from h5dat_lib.errors import OutputError


class WorkFolder:
    """A hidden folder for one output, beside it or in ``parent``; exclusive from entering to leaving, then removed.

    The kernel releases the lock when the process dies, so a folder left by a dead run is taken over and emptied.
    Raises OutputError when another process holds it, or when it cannot be made.
    """

    def __init__(self, output: Path, parent: Path | None = None) -> None:
        self._output = output
        self.path = (parent or output.parent) / f".{output.name}.h5dat"
        self._descriptor = -1

    def __enter__(self) -> WorkFolder:
        try:
            self._descriptor = self._locked()
            self._note_holder()
        except OSError as exc:
            raise OutputError(f"{self._output}: cannot be written: {exc.strerror}: {self.path}") from exc
        self._clear()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._descriptor)

    def _locked(self) -> int:
        """The descriptor of the lock file, once it is ours and still the one that the path names."""
        while True:
            self.path.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as exc:
                holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip()
                os.close(descriptor)
                raise OutputError(f"{self._output}: another ingest is writing it ({holder}); wait until it has ended") from exc
            if self._is_current(descriptor):
                return descriptor
            os.close(descriptor)  # the holder before us removed the folder between our open and our lock

    @property
    def _lock(self) -> Path:
        return self.path / "lock"

    def _is_current(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), self._lock.stat())
        except FileNotFoundError:
            return False

    def _note_holder(self) -> None:
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)

    def _clear(self) -> None:
        for entry in self.path.iterdir():
            if entry != self._lock:
                entry.unlink()
