"""One writer an output on this machine: an advisory lock beside it, and a folder in which the run keeps what it works with."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from h5dat_lib.errors import OutputError

STAGED = ".stage"
"""Suffix of a staged batch."""


class OutputLock:
    """One writer an output on this machine, from entering to leaving. The kernel releases the lock when the process dies.

    ``wait`` waits for another process that holds it. Raises OutputError when another process holds it, or when it cannot be made.
    """

    def __init__(self, output: Path, wait: bool = False) -> None:
        self._output = output
        real = Path(os.path.realpath(output))
        self.lock = real.with_name(f".{real.name}.lock")
        self.took_over = False
        """Whether a run of this machine had it before us, and was killed."""
        self._wait = wait
        self._descriptor = -1

    def __enter__(self) -> Self:
        with self._explained(self.lock):
            self.lock.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = self._locked()
            self._note_holder()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None) -> None:
        self.lock.unlink(missing_ok=True)
        os.close(self._descriptor)

    @contextlib.contextmanager
    def _explained(self, path: Path) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            raise OutputError(f"{self._output}: cannot be written: {exc.strerror}: {exc.filename or path}") from exc

    def _locked(self) -> int:
        """The descriptor of the lock file, once it is ours and still the one that the path names."""
        while True:
            descriptor = os.open(self.lock, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if self._wait else fcntl.LOCK_NB))
            except BlockingIOError as exc:
                holder = _holder(descriptor)
                os.close(descriptor)
                raise OutputError(
                    f"{self._output}: another ingest is writing it ({holder}); wait until it has ended, or say --wait"
                ) from exc
            if self._is_current(descriptor):
                return descriptor
            os.close(descriptor)  # the holder before us removed the file between our open and our lock

    def _is_current(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), self.lock.stat())
        except FileNotFoundError:
            return False

    def _note_holder(self) -> None:
        here = f" on {socket.gethostname()}"
        self.took_over = _holder(self._descriptor).endswith(here)
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"process {os.getpid()}{here}".encode(), 0)


class WorkFolder(OutputLock):
    """A hidden folder for one output, beside it or in ``parent``; exclusive from entering to leaving, by the output's lock.

    It is removed when the run ends well. After one that did not, and after one that was killed, the staged batches in it stay
    for the next. The lock is always beside the output: runs that work in different folders must not both write it.
    """

    def __init__(self, output: Path, parent: Path | None = None, wait: bool = False) -> None:
        super().__init__(output, wait)
        self.path = _folder_of(Path(os.path.realpath(output)), parent)

    def __enter__(self) -> Self:
        super().__enter__()
        with self._explained(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            self.clear(keep=STAGED)
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None) -> None:
        self.clear(keep=STAGED if kind else ())
        with contextlib.suppress(OSError):  # what was staged stays in it
            self.path.rmdir()
        super().__exit__(kind, exc, trace)

    def clear(self, keep: str | tuple[str, ...] = ()) -> None:
        """Removes what lies in the folder, but files whose names end with ``keep``. Whose lock it is, knows that no one uses them."""
        for entry in self.path.iterdir():
            if not entry.name.endswith(keep):
                entry.unlink(missing_ok=True)  # a worker that is being ended may still remove its own


def _folder_of(output: Path, parent: Path | None) -> Path:
    if parent is None:
        return output.with_name(f".{output.name}.h5dat")
    return parent / f".{output.name}-{hashlib.sha256(os.fsencode(output)).hexdigest()[:8]}.h5dat"


def _holder(descriptor: int) -> str:
    """Who noted itself in a lock file; whoever ends takes its note away."""
    return os.pread(descriptor, 300, 0).decode(errors="replace")
