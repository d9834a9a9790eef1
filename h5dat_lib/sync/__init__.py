"""A local HDF5 file <-> an object in S3: only what has changed travels, and nobody's changes are lost."""

from __future__ import annotations

from pathlib import Path

from h5dat_lib.config import S3Options
from h5dat_lib.errors import InputError
from h5dat_lib.journal import recover
from h5dat_lib.lock import OutputLock
from h5dat_lib.storage import aws
from h5dat_lib.sync.background import SyncedOutput
from h5dat_lib.sync.digests import SPAN
from h5dat_lib.sync.remote import Synced
from h5dat_lib.sync.working_copy import WorkingCopy, path_of

__all__ = ["SPAN", "Synced", "SyncedOutput", "difference", "path_of", "pull", "restored", "sync"]


def sync(path: Path, uri: str, options: S3Options | None = None, replace: bool = False) -> Synced:
    """Makes the object at ``uri`` equal to a local file. ``replace``: whatever object is there.

    Raises InputError without a file; OutputError when the object has been replaced by another since, when the file is being written,
    or is no whole HDF5 file, and when the store cannot be reached.
    """
    copy = _working_copy(path, uri, options)
    with OutputLock(path):
        _recovered(path)
        copy.sync(replace)
    return copy.took


def pull(uri: str, path: Path, options: S3Options | None = None, replace: bool = False) -> Synced:
    """Makes a local file equal to the object at ``uri``. ``replace``: also when the file has changes that are not in the object.

    Raises InputError without an object, OutputError when the file has such changes or cannot be written.
    """
    copy = _working_copy(path, uri, options)
    with OutputLock(path):
        recover(path)
        copy.restore(replace)
    if not path.exists():
        raise InputError(f"{uri}: found nothing there, expected an object; check bucket and key")
    return copy.took


def restored(uri: str, options: S3Options | None = None) -> Path:
    """The working copy of an output, made what the object is. Raises what `pull` raises."""
    path = path_of(uri, options or S3Options())
    pull(uri, path, options)
    return path


def difference(path: Path, uri: str, options: S3Options | None = None) -> str:
    """How the object at ``uri`` differs from a local file, "" when it does not; by size and checksums, where the store has them."""
    copy = _working_copy(path, uri, options)
    with OutputLock(path):
        _recovered(path)
        return copy.difference()


def _working_copy(path: Path, uri: str, options: S3Options | None) -> WorkingCopy:
    aws.use(options or S3Options())
    return WorkingCopy(path, uri)


def _recovered(path: Path) -> None:
    recover(path)
    if not path.exists():
        raise InputError(f"{path}: no such file, expected an HDF5 file")
