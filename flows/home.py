"""Places on this machine: the folder of what outlives a run, what is below it, and how a file there is locked and replaced."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from h5dat_lib.home import home

__all__ = ["home", "locked", "prefect_home", "write"]


def prefect_home() -> Path:
    """Where our servers keep their database; private, since a flow's parameters are in it."""
    path = home() / "prefect"
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    return path


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds *path*'s advisory lock; the kernel releases it when the holder dies."""
    with path.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def write(path: Path, text: str) -> None:
    """Writes *path* so that no reader ever sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
        file.write(text)
    os.replace(file.name, path)
