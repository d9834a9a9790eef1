"""A transaction is in the file whole or not at all: against a plain model of a file, with every cut that a disk allows, and for
plain readers in other processes."""

from __future__ import annotations

import errno
import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from unittest.mock import patch

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from h5dat_lib import journal
from h5dat_lib.errors import OutputError
from h5dat_lib.journal import JournaledFile, journal_of, recover
from h5dat_lib.superblock import SUPERBLOCK_BYTES, _checksum
from tests import simulated_disk
from tests.simulated_disk import Image, RecordingDisk, Replay, from_then_on, no_fault, once

PAGE = 64
MOST = 10 * PAGE

Step = tuple[str, int, bytes]

_steps = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(SUPERBLOCK_BYTES, MOST), st.binary(min_size=1, max_size=3 * PAGE)),
        st.tuples(st.just("truncate"), st.integers(SUPERBLOCK_BYTES, MOST), st.just(b"")),
        st.tuples(st.just("read"), st.integers(0, MOST), st.just(b"")),
        st.tuples(st.just("superblock"), st.integers(0, 1 << 40), st.just(b"")),
    ),
    max_size=12,
)
_old = st.one_of(st.none(), st.binary(max_size=MOST).map(lambda data: superblock(0) + data))


def superblock(end: int) -> bytes:
    """A superblock of version 3 (HDF5 File Format Specification 3.0, II.A.2), told from others by its end of file."""
    head = b"\x89HDF\r\n\x1a\n" + bytes((3, 8, 8, 0)) + bytes(16) + end.to_bytes(8, "little") + bytes(8)
    return head + _checksum(head)


@contextmanager
def small_pages() -> Iterator[Path]:
    """A folder, pages and sectors so small that few bytes are many of them, and few that are held."""
    sizes = patch.multiple(journal, PAGE=PAGE, _HELD_PAGES=3), patch.multiple(simulated_disk, SECTOR=16)
    with TemporaryDirectory() as folder, sizes[0], sizes[1]:
        yield Path(folder) / "file"


def do(steps: list[Step], file: JournaledFile, model: io.BytesIO) -> None:
    """The same on both; what is read must be the same."""
    for kind, at, data in steps:
        for one in (file, model):
            one.seek(0 if kind == "superblock" else at)
        if kind == "truncate":
            _truncate(model, at)
            file.truncate(at)
        elif kind == "read":
            assert file.read(2 * PAGE) == model.read(2 * PAGE)
        else:
            written = superblock(at) if kind == "superblock" else data
            assert file.write(written) == model.write(written)
        assert file.seek(0, io.SEEK_END) == file.size == len(model.getvalue())


def _truncate(model: io.BytesIO, size: int) -> None:
    model.truncate(size)
    model.seek(0, io.SEEK_END)
    model.write(bytes(size - len(model.getvalue())))


def begin(path: Path, old: bytes | None, disk: RecordingDisk) -> tuple[JournaledFile, io.BytesIO]:
    """A transaction on a file with these bytes, or on one that is not there, and a model of it."""
    if old is not None:
        path.write_bytes(old)
    file, model = JournaledFile(path, disk=disk), io.BytesIO(old or b"")
    if old is None:
        do([("superblock", 0, b"")], file, model)
    return file, model


def found(path: Path) -> bytes | None:
    """The bytes of the file; nothing else may lie beside it."""
    assert not journal_of(path).exists()
    return path.read_bytes() if path.exists() else None


@given(_old, _steps)
def test_a_committed_transaction_is_what_a_plain_file_would_be(old: bytes | None, steps: list[Step]) -> None:
    with small_pages() as path:
        file, model = begin(path, old, RecordingDisk())
        do(steps, file, model)
        file.seek(0)
        assert file.read() == model.getvalue()
        file.commit()
        assert found(path) == model.getvalue()


@given(_old, _steps)
def test_a_transaction_that_is_rolled_back_leaves_the_old_bytes(old: bytes | None, steps: list[Step]) -> None:
    with small_pages() as path:
        file, model = begin(path, old, RecordingDisk())
        do(steps, file, model)
        file.roll_back()
        file.write(b"what HDF5 still has to say")
        assert found(path) == old


def put(path: Path, image: Image) -> None:
    """Makes the folder of the file hold what a cut left there."""
    for entry in path.parent.iterdir():
        entry.unlink()
    for name, data in image.items():
        (path.parent / name).write_bytes(data)


def after_cuts(before: Image, disk: RecordingDisk, random: Random) -> Iterator[Image]:
    """What each cut of a recorded transaction leaves: a kill before each change and within it, and power failures."""
    replay = Replay(before)
    for change in disk.changes:
        yield replay.killed()
        if change.kind == "write":
            yield replay.killed(change, random.randrange(len(change.data)))
        replay.apply(change)
        for _ in range(3):
            yield replay.power_failed(random, random.randbytes(MOST))
    yield replay.killed()


@settings(max_examples=40, deadline=None)
@given(_old, _steps, st.integers(0, 1 << 32), st.booleans())
def test_after_any_cut_the_file_has_the_old_bytes_or_the_new(old: bytes | None, steps: list[Step], seed: int, commits: bool) -> None:
    with small_pages() as path:
        disk, random = RecordingDisk(), Random(seed)
        file, model = begin(path, old, disk)
        do(steps, file, model)
        file.commit() if commits else file.roll_back()
        before = {} if old is None else {path.name: old}
        for image in after_cuts(before, disk, random):
            put(path, image)
            recovery = RecordingDisk()
            recover(path, disk=recovery)
            whole = found(path)
            assert whole in (old, model.getvalue())
            cut_again = random.choice([*after_cuts(image, recovery, random)])
            put(path, cut_again)
            recover(path, disk=RecordingDisk())
            assert found(path) == whole


def test_what_was_cut_off_within_the_last_old_page_reads_as_zeros() -> None:
    with small_pages() as path:
        file, model = begin(path, superblock(0) + bytes(PAGE), RecordingDisk())
        end = SUPERBLOCK_BYTES + PAGE
        do([("write", end, b"new bytes"), ("truncate", end + 2, b""), ("write", end + 8, b"more"), ("read", end, b"")], file, model)
        file.commit()
        assert found(path) == model.getvalue()


# A disk that fails


def transaction(path: Path, old: bytes | None, disk: RecordingDisk) -> bytes:
    """Changes every part of the file, and gives its new bytes."""
    file, model = begin(path, old, disk)
    try:
        do([("write", at, b"%d" % at) for at in range(50, 9 * PAGE, 40)] + [("superblock", 7, b"")], file, model)
        file.commit()
    except BaseException:
        file.roll_back()
        raise
    return model.getvalue()


OLD = superblock(0) + bytes(range(256)) * 2


@pytest.mark.parametrize("old", [None, OLD], ids=["new", "old"])
def test_a_disk_that_fails_once_leaves_the_file_as_it_was_or_commits(old: bytes | None) -> None:
    with small_pages() as path:
        new = transaction(path, old, whole := RecordingDisk())
        for number in range(len(whole.calls)):
            path.unlink(missing_ok=True)
            try:
                transaction(path, old, RecordingDisk(once(number, errno.EIO)))
            except OSError:
                assert found(path) == old
            else:
                recover(path)  # of the journal that could not be removed
                assert found(path) == new


@pytest.mark.parametrize("old", [None, OLD], ids=["new", "old"])
def test_what_a_failing_disk_did_not_let_be_rolled_back_is_rolled_back_by_the_next_transaction(old: bytes | None) -> None:
    with small_pages() as path:
        new = transaction(path, old, whole := RecordingDisk())
        for number in range(len(whole.calls)):
            path.unlink(missing_ok=True)
            with suppress(OSError):
                transaction(path, old, RecordingDisk(from_then_on(number, errno.EIO)))
            JournaledFile(path).roll_back()
            assert found(path) in (old, new)


def test_hdf5_does_not_hear_of_a_write_that_fails_and_commit_raises_it(tmp_path: Path) -> None:
    disk = RecordingDisk()
    file = JournaledFile(tmp_path / "file", disk=disk)
    with h5py.File(file, "w", libver=("v110", "v110")) as hdf5:
        disk.fault = lambda call, kind: OSError(errno.ENOSPC, "full") if kind == "write" else None
        hdf5["x"] = np.arange(100_000)
        hdf5.flush()
        assert hdf5["x"][99_999] == 99_999
    with pytest.raises(OSError, match="full"):
        file.commit()
    disk.fault = no_fault
    file.roll_back()
    assert found(tmp_path / "file") is None


def test_records_of_an_older_journal_in_the_same_place_are_not_taken(tmp_path: Path) -> None:
    with small_pages() as path:
        file, _ = begin(path, OLD, RecordingDisk())
        file.seek(PAGE)
        file.write(bytes(6 * PAGE))
        older = journal_of(path).read_bytes()
        file.roll_back()
        file, _ = begin(path, OLD, RecordingDisk())
        newer = journal_of(path).read_bytes()
        marked = path.read_bytes()
        file.roll_back()
        assert len(older) > len(newer)
        put(path, {path.name: marked[: 3 * PAGE] + bytes(PAGE) + marked[4 * PAGE :], journal_of(path).name: newer + older[len(newer) :]})
        recover(path)
        assert found(path) != OLD  # which the record of the older journal would have made of it


# Others


def hdf5_of(path: Path, count: int) -> None:
    """A file that bears HDF5's consistency flag when it is open."""
    with h5py.File(path, "w", libver=("v110", "v110")) as file:
        file["x"] = np.arange(count)


def read_elsewhere(path: Path) -> str:
    """What plain h5py in another process says of the file."""
    program = "import h5py, sys\ntry: print(len(h5py.File(sys.argv[1])['x']))\nexcept OSError as exc: print(type(exc).__name__)"
    return subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True).stdout.strip()


def test_plain_h5py_elsewhere_is_refused_while_a_transaction_is_open_and_reads_between_two(tmp_path: Path) -> None:
    path = tmp_path / "file"
    hdf5_of(path, 10)
    assert read_elsewhere(path) == "10"
    file = JournaledFile(path)
    assert read_elsewhere(path) == "BlockingIOError"
    with h5py.File(file, "r+", libver=("v110", "v110")) as hdf5:
        del hdf5["x"]
        hdf5["x"] = np.arange(20)
    assert read_elsewhere(path) == "BlockingIOError"
    file.commit()
    assert read_elsewhere(path) == "20"


@pytest.mark.parametrize("locking", ["TRUE", "FALSE"])
def test_plain_h5py_is_refused_after_a_kill_until_recovery_with_locks_and_without(
    tmp_path: Path, locking: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    hdf5_of(path, 10)
    before = path.read_bytes()
    program = (
        "import h5py, pathlib, sys\nfrom h5dat_lib.journal import JournaledFile\n"
        "file = h5py.File(JournaledFile(pathlib.Path(sys.argv[1])), 'r+', libver=('v110', 'v110'))\n"
        "file['y'] = range(100_000)\nfile.flush()\nprint('now', flush=True)\nsys.stdin.read()"
    )
    process = subprocess.Popen([sys.executable, "-c", program, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with process:
        assert process.stdout
        assert process.stdout.readline() == b"now\n"
        process.send_signal(signal.SIGKILL)
    monkeypatch.setenv("HDF5_USE_FILE_LOCKING", locking)
    assert read_elsewhere(path) == "OSError"
    assert recover(path)
    assert read_elsewhere(path) == "10"
    assert path.read_bytes() == before
    assert not recover(path)


def test_a_reader_makes_a_transaction_wait(tmp_path: Path) -> None:
    path = tmp_path / "file"
    hdf5_of(path, 10)
    reader = h5py.File(path)
    with pytest.raises(OutputError, match="is open in another program"):
        JournaledFile(path)
    assert not journal_of(path).exists()
    program = "import h5py, sys, time\nfile = h5py.File(sys.argv[1])\nprint('open', flush=True)\ntime.sleep(0.3)"
    reader.close()
    with subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"open\n"
        started = time.monotonic()
        JournaledFile(path, wait=30).roll_back()
        assert time.monotonic() - started > 0.1


def test_recovery_leaves_a_transaction_alone_that_is_open(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for make in (lambda: None, lambda: hdf5_of(path, 10)):
        make()
        file = JournaledFile(path)
        with pytest.raises(OutputError, match="is being written by another process"):
            recover(path)
        assert journal_of(path).exists()
        file.roll_back()


def test_recovery_leaves_a_writer_alone_that_has_not_made_its_file_yet(tmp_path: Path) -> None:
    path = tmp_path / "file"

    class Interrupted(RecordingDisk):
        """Has somebody recover the file just before it is made."""

        def create(self, made: Path) -> int:
            if made == path:
                with pytest.raises(OutputError, match="is being written by another process"):
                    recover(path)
            return super().create(made)

    file = JournaledFile(path, disk=Interrupted())
    assert journal_of(path).exists()
    file.roll_back()


def test_a_file_that_cannot_be_recovered_says_where_to_do_it(tmp_path: Path) -> None:
    path = tmp_path / "file"
    hdf5_of(path, 10)
    file = JournaledFile(path, disk=(disk := RecordingDisk()))
    disk.fault = from_then_on(0, errno.EROFS)
    with pytest.raises(OSError, match=os.strerror(errno.EROFS)):
        file.roll_back()
    with pytest.raises(OutputError, match="cannot be recovered: Read-only file system; run `h5dat recover"):
        recover(path, disk=disk)
    assert recover(path)
