"""What is known of a local file and the object that it is to be equal to: a small file beside it, replaced whole."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from h5dat_lib.sync.digests import NOTHING, Digests

__all__ = ["State", "load", "save", "state_of"]


class State(BaseModel):
    """The object as it was seen last, and what may have become of it since.

    ``etag`` is "" for an object that was not there, ``digests`` are its own. ``status`` is that of the local file when it had the same.
    ``coming`` are the digests of what has been on its way into the object since ``began``; whether it has arrived is not known. In parts,
    ``plan`` tells which, and ``upload`` is the id of the upload, "" while that is not known.
    """

    model_config = ConfigDict(frozen=True)

    etag: str = ""
    digests: Digests = NOTHING
    status: tuple[int, ...] = ()
    coming: Digests | None = None
    began: float = 0.0
    plan: str = ""
    upload: str = ""


def state_of(path: Path, uri: str) -> Path:
    """Where the state of a file and an object lies: beside the file, hidden; beside what a symbolic link leads to."""
    path = Path(os.path.realpath(path))
    return path.with_name(f".{path.name}.{hashlib.sha256(uri.encode()).hexdigest()[:8]}.sync")


def load(path: Path) -> State | None:
    """None when there is none, or none that can be read: then nothing is known."""
    try:
        return State.model_validate_json(path.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def save(path: Path, state: State) -> None:
    """Durably, and so that nobody ever sees half of it."""
    new = path.with_name(f"{path.name}.new")
    with new.open("w") as file:
        file.write(state.model_dump_json())
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
