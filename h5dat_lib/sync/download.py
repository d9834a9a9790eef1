"""An object -> a local file of its bytes, which appears whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from h5dat_lib.errors import OutputError
from h5dat_lib.storage import LocalSource
from h5dat_lib.sync.digests import Digests, digests_of
from h5dat_lib.sync.persistence import persistently
from h5dat_lib.sync.remote import Found, Remote, encoded

__all__ = ["download", "fetched_digests"]

_RANGE_BYTES = 16 << 20
_AT_ONCE = 4
"""Ranges under way, and held in memory, at once."""


def download(remote: Remote, found: Found, path: Path) -> Digests:
    """Puts the object in the place of the file at ``path``, and returns its digests.

    Raises OutputError when the object is replaced meanwhile, when what arrives is not what was written, or the disk is full.
    """
    with _fetched(remote, found, path) as (new, digests):
        new.replace(path)
    return digests


def fetched_digests(remote: Remote, found: Found, beside: Path) -> Digests:
    """The digests of an object, which lies ``beside`` a file for as long as it takes."""
    with _fetched(remote, found, beside) as (_, digests):
        return digests


@contextmanager
def _fetched(remote: Remote, found: Found, path: Path) -> Iterator[tuple[Path, Digests]]:
    new = path.with_name(f".{path.name}.pulled")
    try:
        with new.open("wb") as file:
            _fetch(remote, found, file.fileno())
            os.fsync(file.fileno())
        yield new, _checked(remote, found, new)
    except OSError as exc:
        raise OutputError(f"{path}: cannot be written: {exc.strerror or exc}") from exc
    finally:
        new.unlink(missing_ok=True)


def _fetch(remote: Remote, found: Found, descriptor: int) -> None:
    with ThreadPoolExecutor(_AT_ONCE, "pull") as pool:
        futures = [pool.submit(_fetch_range, remote, found, start, descriptor) for start in range(0, found.size, _RANGE_BYTES)]
        try:
            for future in futures:
                future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _fetch_range(remote: Remote, found: Found, start: int, descriptor: int) -> None:
    size = min(_RANGE_BYTES, found.size - start)
    data = persistently(lambda: remote.read(found.etag, start, size))
    while data:
        written = os.pwrite(descriptor, data, start)
        data, start = data[written:], start + written


def _checked(remote: Remote, found: Found, path: Path) -> Digests:
    source = LocalSource(str(path))
    try:
        digests = digests_of(source)
    finally:
        source.close()
    wrong = digests.name != found.content if found.content else found.crc32 not in ("", encoded(digests.crc_of(0, digests.size)))
    if digests.size != found.size or wrong:
        raise OutputError(f"{remote.uri}: found other bytes than its checksum says; pull again, or make it anew")
    return digests
