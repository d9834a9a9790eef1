"""What a listing has shown before and what came of it, kept in a small SQLite file, so that a restart does nothing anew."""

from __future__ import annotations

import sqlite3
import weakref
from collections.abc import Sequence
from pathlib import Path

from h5dat_lib.landing.landed import Landed

__all__ = ["Seen"]

_TABLE = """CREATE TABLE IF NOT EXISTS seen (
    bucket TEXT, key TEXT, etag TEXT, output TEXT, outcome TEXT, reason TEXT, PRIMARY KEY (bucket, key)
) WITHOUT ROWID"""
_WAIT_SECONDS = 30


class Seen:
    """The memory of a listing. It only saves work: what is in an output is known by the output itself.

    Without an fsync for each object: what a power failure takes is listed again, and there is nothing to do for it.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._database = sqlite3.connect(path, timeout=_WAIT_SECONDS, check_same_thread=False)
        weakref.finalize(self, self._database.close)  # not after each use: closing writes all of it to the disk
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("PRAGMA synchronous=NORMAL")
        self._database.execute(_TABLE)

    def new(self, bucket: str, listed: Sequence[tuple[Landed, str]]) -> list[Landed]:
        """Those of a page, each with its output, that have not been seen with this content and this output; "" is no output."""
        marks = ",".join("?" * len(listed))
        found = self._database.execute(
            f"SELECT key, etag, output FROM seen WHERE bucket = ? AND key IN ({marks})", [bucket, *(each.key for each, _ in listed)]
        )
        known = {key: (etag, output) for key, etag, output in found}
        return [each for each, output in listed if known.get(each.key) != (each.etag, output)]

    def note(self, landed: Landed, output: str, outcome: str, reason: str) -> None:
        """Remembers what came of an object."""
        row = (landed.bucket, landed.key, landed.etag, output, outcome, reason)
        with self._database:
            self._database.execute("INSERT OR REPLACE INTO seen VALUES (?, ?, ?, ?, ?, ?)", row)
