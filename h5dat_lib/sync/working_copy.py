"""A local file that stands for an object in S3: restored from it, synced to it, and never one over the other when both have changed.

Whoever calls holds the lock of the file. What is known of both is in `state`; that a file has not changed is known by its status
(size, times, inode), which only we compare with what we saw, and else by reading it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

from h5dat_lib.config import S3Options
from h5dat_lib.errors import OutputError
from h5dat_lib.home import home
from h5dat_lib.storage import LocalSource, aws
from h5dat_lib.superblock import SUPERBLOCK_BYTES, is_whole
from h5dat_lib.sync.digests import NOTHING, Digests, digests_of
from h5dat_lib.sync.download import download, fetched_digests
from h5dat_lib.sync.persistence import persistently
from h5dat_lib.sync.remote import Found, Remote, Synced, encoded
from h5dat_lib.sync.state import State, load, save, state_of
from h5dat_lib.sync.upload import Upload, end_noted

__all__ = ["WorkingCopy", "path_of"]

_LONGEST_NAME = 200
"""Bytes of a name to which those of lock, journal and state can still be added."""


def path_of(uri: str, options: S3Options) -> Path:
    """Where the working copy of an object lies: one place for each bucket and key, whatever is in the key."""
    bucket, key = aws.split(uri)
    name = key.rpartition("/")[2]
    if name in ("", ".", "..") or len(os.fsencode(name)) > _LONGEST_NAME or not name.isprintable():
        raise OutputError(f"{uri}: found no file name at its end, expected one such as s3://{bucket}/output.h5")
    return (options.cache_dir or home() / "outputs") / bucket / hashlib.sha256(key.encode()).hexdigest()[:16] / name


class WorkingCopy:
    """The file at ``path`` and the object at ``uri``. Raises OutputError when the object has been replaced by another that the file
    does not know of, and the file has changes of its own; when the store cannot be reached; when the file is not whole."""

    def __init__(self, path: Path, uri: str) -> None:
        self.path = path
        self.remote = Remote(uri)
        self.seconds = 0.0
        self._state_path = state_of(path, uri)
        self._known: Digests | None = None
        """Digests of the file when it had ``_status``, but for what our own commits have changed since."""
        self._status: tuple[int, ...] = ()
        self._changed: set[int] = set()

    @property
    def took(self) -> Synced:
        """What restoring and syncing have taken."""
        return self.remote.took + Synced(seconds=self.seconds)

    def restore(self, replace: bool = False, anew: bool = False) -> None:
        """Makes the file what the object is, when it is not there, or is older and has nothing of its own.

        ``replace``: also when it has. ``anew``: leaves it, because it is to be made anew.
        """
        with self._timed():
            found = persistently(self._meet)
            if anew:
                self._state = self._state.model_copy(update={"etag": _etag(found), "digests": NOTHING, "status": ()})
            elif not self.path.exists():
                self._pull(found)
            elif replace or _etag(found) != self._state.etag:
                self._renew(found, replace)

    def is_outdated(self) -> bool:
        """Whether the object is not the one any more that the file goes on with."""
        with self._timed():
            return _etag(persistently(self._meet)) != self._state.etag

    def sync(self, replace: bool = False, stop: threading.Event | None = None) -> None:
        """Makes the object what the file is. ``replace``: whatever object is there."""
        stop = stop or threading.Event()
        with self._timed(), self._whole() as source:
            local = self._digests(source)
            persistently(lambda: self._sync(source, local, replace, stop), stop)

    def difference(self) -> str:
        """How the object differs from the file; "" when it does not. Reads the object only when the store has no checksum of it."""
        found = persistently(self._meet)
        with self._timed(), self._whole() as source:
            if not found:
                return "found no object"
            if found.size != source.size:
                return f"the object has {found.size:,} bytes, the file {source.size:,}"
            return "" if self._is_same(found, digests_of(source)) else "the object has other bytes than the file"

    def note_before(self) -> None:
        """To be called before a commit: forgets what is known of the file when somebody else has changed it."""
        if _status(self.path) != self._status:
            self._known = None

    def note_after(self, changed: Collection[int]) -> None:
        """To be called after a commit that has changed these spans."""
        self._changed.update(changed)
        self._status = _status(self.path)

    @cached_property
    def _state(self) -> State:
        """Read when it is asked for first: then the lock is ours."""
        state = load(self._state_path) or State()
        self._known, self._status = state.digests, state.status
        return state

    def _save(self, state: State) -> None:
        self._state = state
        save(self._state_path, state)

    def _meet(self) -> Found | None:
        """What is in the store. What we have put there without having noted it any more is noted now."""
        found, state = self.remote.find(), self._state
        if found and state.coming and _etag(found) != state.etag and found.content == state.coming.name:
            self._save(State(etag=found.etag, digests=state.coming))
        return found

    def _sync(self, source: LocalSource, local: Digests, replace: bool, stop: threading.Event) -> None:
        found = self._meet()
        if _etag(found) != self._state.etag and not (found and found.content == local.name):
            if not replace:
                raise self._conflict(found)
            self._state = self._state.model_copy(update={"etag": _etag(found), "digests": NOTHING, "status": ()})
        if found and (found.content == local.name or self._state.digests == local):
            end_noted(self.remote, self._state)
            etag = found.etag
        else:
            etag = Upload(self.remote, source, local, self._state, self._save, stop).run()
            self.remote.note_synced()
        self._save(State(etag=etag, digests=local, status=self._status))

    def _pull(self, found: Found | None) -> None:
        """Puts the object in the place of the file; an upload that was under way of what the file had is ended."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        end_noted(self.remote, self._state)
        digests = download(self.remote, found, self.path) if found else NOTHING
        self._known, self._changed, self._status = digests, set(), _status(self.path)
        self._save(State(etag=_etag(found), digests=digests, status=self._status))

    def _renew(self, found: Found | None, replace: bool) -> None:
        """The file is there, and the object is not the one that it goes on with."""
        if not found:
            raise self._conflict(found)
        with self._whole() as source:
            local = self._digests(source)
        if found.size == local.size and found.content == local.name:
            self._save(State(etag=found.etag, digests=local, status=self._status))
        elif replace or (self._state.etag and local == self._state.digests):
            self._pull(found)
        else:
            raise self._conflict(found)

    def _conflict(self, found: Found | None) -> OutputError:
        uri, path = self.remote.uri, self.path
        if not found:
            return OutputError(
                f"{uri}: found no object, expected the one that {path} was synced to; `h5dat sync --replace {path} {uri}` puts it there "
                "again, `h5dat ingest --restart` makes it anew"
            )
        return OutputError(
            f"{uri}: has been replaced since {path} was synced to it, which has changes of its own; `h5dat pull --replace {uri} {path}` "
            f"takes what is there, `h5dat sync --replace {path} {uri}` what is here; copy first what you want to keep"
        )

    def _digests(self, source: LocalSource) -> Digests:
        """The digests of the file, of which only that is read which may have changed."""
        status = _status(self.path)
        known = self._known if status == self._status else None
        digests = digests_of(source, known or NOTHING, self._changed if known else None)
        self._known, self._changed, self._status = digests, set(), status
        return digests

    def _is_same(self, found: Found, local: Digests) -> bool:
        if found.content:
            return found.content == local.name
        if found.crc32:
            return found.crc32 == encoded(local.crc_of(0, local.size))
        return fetched_digests(self.remote, found, self.path) == local

    @contextmanager
    def _whole(self) -> Iterator[LocalSource]:
        """The file, which nobody who heeds HDF5's locks writes meanwhile."""
        source = LocalSource(str(self.path))
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            if not is_whole(source.read_at(0, SUPERBLOCK_BYTES)):
                raise OutputError(
                    f"{self.path}: found no HDF5 file that is whole; `h5dat recover {self.path}` takes back what is half written"
                )
            yield source
        except BlockingIOError as exc:
            raise OutputError(f"{self.path}: is being written by another program; close it there and run the same command again") from exc
        finally:
            os.close(descriptor)
            source.close()

    @contextmanager
    def _timed(self) -> Iterator[None]:
        begun = time.monotonic()
        try:
            yield
        finally:
            self.seconds += time.monotonic() - begun


def _etag(found: Found | None) -> str:
    return found.etag if found else ""


def _status(path: Path) -> tuple[int, ...]:
    """What changes when a file is written, even where its size and time of change are set back; () when it is not there."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return ()
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino
