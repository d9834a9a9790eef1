"""The working copy of an output that is being written: restored before, synced after commits, beside the converting."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection
from concurrent.futures import Future, ThreadPoolExecutor

from h5dat_lib.config import S3Options
from h5dat_lib.errors import OutputError
from h5dat_lib.storage import aws
from h5dat_lib.sync.persistence import may_pass
from h5dat_lib.sync.remote import Synced
from h5dat_lib.sync.working_copy import WorkingCopy, path_of

__all__ = ["SyncedOutput"]


class SyncedOutput:
    """An output in S3. While it is being synced, commits wait: what is sent is one state of the file.

    Whoever calls holds the lock of the working copy. A store that is away during a run is no failure of it: the next sync makes up for it.
    """

    def __init__(self, uri: str, options: S3Options) -> None:
        aws.use(options)
        self.uri = uri
        self.path = path_of(uri, options)
        self._copy = WorkingCopy(self.path, uri)
        self._every = options.sync_seconds
        self._last = time.monotonic()
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(1, "sync output")
        self._under_way: Future[None] | None = None

    @property
    def is_busy(self) -> bool:
        """Whether a commit would have to wait."""
        return self._under_way is not None and not self._under_way.done()

    @property
    def took(self) -> Synced:
        """What restoring and syncing have taken so far."""
        return self._copy.took

    def restore(self, anew: bool) -> None:
        """Makes the working copy what the object is, unless it is to be made ``anew``. Raises OutputError when both have changed."""
        self._copy.restore(anew=anew)

    def is_outdated(self) -> bool:
        """Whether the object is another now than when the working copy was restored."""
        return self._copy.is_outdated()

    def before_commit(self) -> None:
        """Waits until the file may change. Raises OutputError when it turned out that the object has been replaced."""
        self._wait()
        self._copy.note_before()

    def after_commit(self, changed: Collection[int]) -> None:
        """Begins a sync, if it is time. ``changed`` are the spans that the commit has changed."""
        self._copy.note_after(changed)
        if time.monotonic() - self._last >= self._every:
            self._last = time.monotonic()
            self._under_way = self._pool.submit(self._copy.sync, False, self._stop)

    def finish(self) -> None:
        """Syncs what is committed. Raises OutputError when it cannot; it is in the working copy then, and the next run syncs it."""
        self._wait()
        if self.path.exists():
            self._copy.sync(stop=self._stop)

    def close(self) -> None:
        """Ends a sync that is under way."""
        self._stop.set()
        self._pool.shutdown(cancel_futures=True)

    def _wait(self) -> None:
        if self._under_way is None:
            return
        try:
            self._under_way.result()
        except OutputError as exc:
            if not may_pass(exc):
                raise
        finally:
            self._under_way = None
