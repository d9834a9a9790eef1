"""A file that is open: in threads, in children however they are started, refreshed, replaced, closed."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import pickle
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import h5dat_lib
from h5dat_lib.errors import FormatError, InputError
from h5dat_lib.journal import Disk
from h5dat_lib.read.cache import ChunkCache
from tests.conftest import config, make_zip, picture

MEMBERS = {f"{n:02}.png": picture(8 + n % 3, 6, n) for n in range(24)} | {f"{n}.txt": b"text %d " % n * n for n in range(9)}
SQUARE = {"resize": {"width": 9, "height": 9, "mode": "fill"}}
STORED: dict[str, dict[str, Any]] = {
    "dense": {"image": SQUARE},
    "bare": {"image": SQUARE, "compression": {"filter": "none"}},
    "ragged": {},
    "encoded": {"image": {"storage": "encoded"}},
}
MAPPED = pytest.mark.parametrize("memory_map", [False, True])


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("handle")
    archive = make_zip(folder / "a.zip", MEMBERS | {"t.csv": b"n,s\n" + b"".join(b"%d,s%d\n" % (n, n) for n in range(400))})
    for name, settings in STORED.items():
        h5dat_lib.ingest(archive, folder / f"{name}.h5", config(**settings))
    return {name: folder / f"{name}.h5" for name in STORED}


def _digest(file: h5dat_lib.File) -> str:
    """Of every byte of every row, one by one and many at a time."""
    found = hashlib.sha256()
    for name in file.classes:
        for column in (file[name][other] for other in file[name].columns):
            rows = np.random.default_rng(3).permutation(len(column))
            for value in (*column.rows(rows), *(column[int(row)] for row in rows[:30])):
                found.update(value.tobytes() if isinstance(value, np.ndarray | np.generic) else repr(value).encode())
    return found.hexdigest()


def _digest_of(path: Path) -> str:
    with h5dat_lib.open(path) as file:
        return _digest(file)


def _is_mapped(path: Path) -> bool:
    return str(path) in Path("/proc/self/maps").read_text()


def _table_digest(table: h5dat_lib.Table) -> str:
    return _digest(table._file)


def _column_values(column: Any) -> list[bytes]:
    return [value.tobytes() for value in column.rows(range(len(column)))]


@MAPPED
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_every_byte_is_the_same_in_children(outputs: dict[str, Path], method: str, memory_map: bool) -> None:
    with multiprocessing.get_context(method).Pool(1) as pool:
        for path in outputs.values():
            with h5dat_lib.open(path, memory_map=memory_map) as file:
                expected, pixels = _digest_of(path), file["images"].pixels
                results = [pool.apply_async(_digest, (file,)), pool.apply_async(_table_digest, (file["images"],))]
                values = pool.apply_async(_column_values, (pixels,))
                assert [result.get(60) for result in results] == [expected] * 2
                assert values.get(60) == _column_values(pixels)


@MAPPED
@pytest.mark.parametrize("stored", STORED)
def test_a_child_of_a_fork_reads_on_with_what_its_parent_had_open(outputs: dict[str, Path], stored: str, memory_map: bool) -> None:
    context = multiprocessing.get_context("fork")
    with h5dat_lib.open(outputs[stored], threads=3, memory_map=memory_map) as file:
        pixels, expected = file["images"].pixels, _digest(file)
        before, queue = _column_values(pixels), context.SimpleQueue()

        def read() -> None:  # a closure: nothing of it is pickled
            queue.put((_column_values(pixels) == before, _digest(file)))

        children = [context.Process(target=read) for _ in range(2)]
        for child in children:
            child.start()
        assert [queue.get() for _ in children] == [(True, expected)] * 2
        for child in children:
            child.join()
        assert _digest(file) == expected


@MAPPED
def test_threads_share_a_file(outputs: dict[str, Path], memory_map: bool) -> None:
    for path in outputs.values():
        with h5dat_lib.open(path, cache_bytes=1 << 17, threads=2, memory_map=memory_map) as file, ThreadPoolExecutor(6) as pool:
            expected = _digest_of(path)
            assert set(pool.map(_digest, [file] * 12)) == {expected}


def test_handles_survive_pickling_and_share_one_file(outputs: dict[str, Path]) -> None:
    with h5dat_lib.open(outputs["dense"]) as file:
        again, table, column = pickle.loads(pickle.dumps((file, file["images"], file["images"].pixels)))
        assert table._file is again and _digest(again) == _digest(file)
        assert np.array_equal(column[3], file["images"].pixels[3])
        again.close()


@MAPPED
def test_after_closing_nothing_is_open_and_reading_says_so(outputs: dict[str, Path], memory_map: bool) -> None:
    def descriptors() -> int:
        return len(os.listdir("/dev/fd"))

    before, threads = descriptors(), threading.active_count()
    with h5dat_lib.open(outputs["ragged"], threads=2, memory_map=memory_map) as file:
        pixels = file["images"].pixels
        _digest(file)
        assert descriptors() > before
        assert sys.platform != "linux" or _is_mapped(outputs["ragged"]) is memory_map
    assert descriptors() == before
    assert sys.platform != "linux" or not _is_mapped(outputs["ragged"])
    with pytest.raises(InputError, match="has been closed"):
        pixels[3]
    with pytest.raises(InputError, match="has been closed"):
        file["images"]
    assert threading.active_count() <= threads + 2


@MAPPED
def test_bytes_behind_the_end_are_not_read(outputs: dict[str, Path], memory_map: bool) -> None:
    size = outputs["bare"].stat().st_size
    with h5dat_lib.open(outputs["bare"], memory_map=memory_map) as file:
        assert file.handle.read_at(size - 3, 10) == outputs["bare"].read_bytes()[-3:] and file.handle.read_at(size + 5, 10) == b""
        buffer = memoryview(bytearray(8))
        assert file.handle.read_into([(size - 8, buffer)]) and bytes(buffer) == outputs["bare"].read_bytes()[-8:]
        assert not file.handle.read_into([(size - 3, buffer)])


def test_a_refresh_shows_what_has_been_committed_since(tmp_path: Path) -> None:
    output = tmp_path / "out.h5"
    h5dat_lib.ingest(make_zip(tmp_path / "a.zip", {"a.png": picture()}), output, config())
    with h5dat_lib.open(output) as file:
        table, pixels = file["images"], file["images"].pixels
        file.refresh()
        assert len(table) == 1
        file.close()
        h5dat_lib.ingest(make_zip(tmp_path / "b.zip", {"b.png": picture(9, 9), "c.txt": b"x"}), output, config())
        file.refresh()
        assert len(table) == 2 and file.classes == ("images", "texts") and table.pixels[1].shape == (9, 9, 3)
        with pytest.raises(InputError, match="take the column from its table again"):
            pixels[0]


def test_a_file_that_was_replaced_is_not_taken_for_the_same(outputs: dict[str, Path], tmp_path: Path) -> None:
    output = Path(shutil.copy(outputs["dense"], tmp_path / "out.h5"))
    with h5dat_lib.open(output) as file:
        pixels, state = file["images"].pixels, pickle.dumps(file)
        expected = pixels[3]
        os.replace(shutil.copy(outputs["ragged"], tmp_path / "other.h5"), output)
        assert np.array_equal(pixels[3], expected)  # what is open stays as it was
        for reopen in (lambda: pickle.loads(state), file.refresh):
            with pytest.raises(FormatError, match=r"another file than the one that was opened.*replaced"):
                reopen()


def test_a_copy_that_is_put_in_its_place_is_the_same_file(outputs: dict[str, Path], tmp_path: Path) -> None:
    output = Path(shutil.copy(outputs["dense"], tmp_path / "out.h5"))
    with h5dat_lib.open(output) as file:
        os.replace(shutil.copy(output, tmp_path / "other.h5"), output)
        file.refresh()
        assert len(file["images"]) == 24


def test_the_cache_keeps_no_more_bytes_than_it_may_and_what_was_asked_for_last() -> None:
    cache = ChunkCache(100)
    for number in range(10):
        cache.put(("a", number), np.zeros(30, "u1"))
        assert cache.get(("a", 0)) is not None
    assert [number for number in range(10) if cache.get(("a", number)) is not None] == [0, 8, 9]
    cache.put(("a", 11), np.zeros(101, "u1"))
    assert cache.get(("a", 11)) is None
    cache.put(("a", 9), np.zeros(90, "u1"))
    assert cache.get(("a", 8)) is None and cache.get(("a", 9)).nbytes == 90


def test_an_error_in_one_of_several_threads_is_raised_and_ends_the_others(outputs: dict[str, Path]) -> None:
    with h5dat_lib.open(outputs["dense"], threads=3) as file:
        done: list[int] = []

        def fail_at_five(number: int) -> None:
            done.append(number)
            if number == 5:
                raise FormatError("found five")

        with pytest.raises(FormatError, match="found five"):
            file.handle.each(fail_at_five, range(100_000))
        assert len(done) < 100_000
        file.handle.each(done.append, range(3))
        assert sorted(done[-3:]) == [0, 1, 2]


@pytest.mark.parametrize("end", ["read", "close"])
def test_a_child_that_ends_does_not_let_a_writer_in_while_its_parent_reads(outputs: dict[str, Path], end: str) -> None:
    """A lock belongs to all processes that share an open file: HDF5, closing it in one of them, takes it from all."""
    code = (
        "import os, sys, h5dat_lib\n"
        "file = h5dat_lib.open(sys.argv[1])\n"
        "if not os.fork():\n"
        "    file['images'].pixels[3]\n"
        "    file.close() if sys.argv[2] == 'close' else None\n"
        "    sys.exit(0)\n"  # not os._exit: HDF5 closes what is open
        "os.wait()\n"
        "print('ready', flush=True)\n"
        "sys.stdin.read()\n"
    )
    words = [sys.executable, "-c", code, str(outputs["dense"]), end]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]) as parent:
        assert parent.stdout is not None and parent.stdout.readline() == b"ready\n"
        with open(outputs["dense"], "r+b") as writer:
            assert not Disk().lock(writer.fileno())
            assert parent.communicate()[0] == b""
            assert Disk().lock(writer.fileno())
