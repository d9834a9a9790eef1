"""Segments of slabs -> a new file, complete under its name or not there: what merging and repacking have in common."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from h5dat_lib.commit.transaction import Output
from h5dat_lib.config import Config
from h5dat_lib.errors import OutputError
from h5dat_lib.journal import Disk, journal_of
from h5dat_lib.rewriting.slabs import Spool
from h5dat_lib.stage.staged import Segment, StagedScalars
from h5dat_lib.storage import is_remote


def local_output(path: str | Path) -> Path:
    """Where a new file goes. Raises OutputError for a place in S3, or a folder."""
    if is_remote(str(path)):
        raise OutputError(f"{path}: found a place in S3, expected one on a local disk; write it there, then `h5dat sync FILE {path}`")
    if Path(path).is_dir():
        raise OutputError(f"{path}: found a folder, expected a file name such as {Path(path) / 'output.h5'}")
    return Path(os.path.realpath(path))


@contextmanager
def in_place_of(path: Path, config: Config) -> Iterator[Output]:
    """A new output that takes the name ``path``, from whatever has it, once all is written; after an error it is gone. Before, it lies
    beside, where the next to write ``path`` removes what a kill has left of it. Whoever calls this holds the lock of ``path``.
    """
    beside = path.with_name(f".{path.name}.new")
    _remove(beside)
    try:
        with Output(beside, config) as output:
            yield output
        _put_in_place(beside, path)
    except BaseException:
        _remove(beside)
        raise


def _remove(path: Path) -> None:
    for left in (path, journal_of(path)):
        left.unlink(missing_ok=True)


def _put_in_place(new: Path, path: Path) -> None:
    """The new file is durable already, but for its name."""
    try:
        if path.exists():
            shutil.copymode(path, new)
        new.replace(path)
        Disk().sync_folder(path.parent)
    except OSError as exc:
        raise OutputError(f"{path}: cannot be written: {exc.strerror}") from exc


def append(output: Output, segments: Iterable[Segment], spool: Spool, commit_bytes: int) -> None:
    """Appends segments, whose chunks are in the spool while each is the last, in transactions of about so many bytes."""
    coming = iter(segments)
    segment = next(coming, None)
    while segment is not None:
        size = 0
        with output.transaction() as writer:
            while segment is not None and size < commit_bytes:
                writer.table(segment.table).append(segment, spool, {})
                size += spool.size + sum(column.values.nbytes for column in segment.columns.values() if isinstance(column, StagedScalars))
                segment = next(coming, None)
