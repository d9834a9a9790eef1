"""Pictures read in a shuffled order, one by one and in batches: beside plain h5py, the decoder alone, and Pillow on a folder.

All sides read from the page cache, as the kernel keeps what has just been written. Seconds are those of the clock, because several
threads read; those of the processor, which other load on the machine disturbs less, stand beside them.
"""

from __future__ import annotations

import random
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import simplejpeg
from PIL import Image

import h5dat_lib
from h5dat_lib.config import parse
from tests.benchmarks import data
from tests.benchmarks.figures import Figure, Goal, Setup, best, in_turn, number, ratio

_SIZES = ((80, 60, 4_000), (256, 256, 600), (1440, 1080, 48))
_BATCH = 16
_TWICE, _DECODER = Goal(least=2), Goal(most=1.15)
_Seconds = tuple[float, float]


def reading(setup: Setup) -> Iterator[Figure]:
    """Dense pictures against h5py, encoded ones against the decoder, and a folder of the same JPEGs with Pillow."""
    for width, height, count in _SIZES:
        archive = data.made(setup.folder, f"reading-{width}.zip", lambda path, size=(width, height, count): _write(path, *size))  # type: ignore[misc]
        order = random.Random(width).sample(range(count), count)
        yield from _dense(setup, archive, f"{width} x {height}", order)
        yield from _encoded(setup, archive, f"{width} x {height}", order)


def _write(path: Path, width: int, height: int, count: int) -> None:
    rng = np.random.default_rng(width)
    photos = [data.photo(rng, width, height) for _ in range(min(count, 100))]
    with zipfile.ZipFile(path, "w") as archive:
        for member in range(count):
            archive.writestr(f"{member:06}.jpg", photos[member % len(photos)])


def _output(setup: Setup, archive: Path, **image: Any) -> Path:
    output = setup.output(f"{archive.stem}-{'-'.join(image.values())}")
    h5dat_lib.ingest(archive, output, parse({"image": image}))
    return output


def _dense(setup: Setup, archive: Path, size: str, order: Sequence[int]) -> Iterator[Figure]:
    output = _output(setup, archive, layout="dense")
    with h5dat_lib.open(output) as file, h5py.File(output) as plain:
        ours, theirs = file["images"].pixels, plain["images/pixels"]
        out = np.empty((_BATCH, *theirs.shape[1:]), theirs.dtype)
        assert all(np.array_equal(ours[row], theirs[row]) for row in order[:20])
        h5py_s, one, many = in_turn(
            setup.rounds,
            lambda: _timed(lambda: _each(theirs.__getitem__, order)),
            lambda: _timed(lambda: _each(ours.__getitem__, order)),
            lambda: _timed(lambda: _in_batches(ours, order, out)),
        )
    yield _faster(f"reading, dense {size}, one by one", h5py_s, one, len(order), _TWICE)
    yield _faster(f"reading, dense {size}, batches of {_BATCH}", h5py_s, many, len(order), _TWICE)
    output.unlink()


def _encoded(setup: Setup, archive: Path, size: str, order: Sequence[int]) -> Iterator[Figure]:
    output = _output(setup, archive, storage="encoded")
    folder = _unpacked(setup, archive)
    with h5dat_lib.open(output) as file:
        ours = file["images"].pixels
        files = ours.files(order)
        out = np.empty((_BATCH, *ours[0].shape), "u1")
        decoder, one, many, pillow = in_turn(
            setup.rounds,
            lambda: _timed(lambda: _each(simplejpeg.decode_jpeg, files)),
            lambda: _timed(lambda: _each(ours.__getitem__, order)),
            lambda: _timed(lambda: _in_batches(ours, order, out)),
            lambda: _timed(lambda: _each(lambda row: np.asarray(Image.open(folder / f"{row:06}.jpg")), order)),
        )
    yield _of(f"reading, encoded {size}, one by one", one, decoder, len(order), _DECODER)
    yield _of(f"reading, encoded {size}, batches of {_BATCH}", many, decoder, len(order), _DECODER)
    yield _faster(f"reading, encoded {size}, batches, against Pillow on a folder", pillow, many, len(order), None)
    output.unlink()


def _unpacked(setup: Setup, archive: Path) -> Path:
    folder = setup.folder / archive.stem
    if not folder.exists():
        with zipfile.ZipFile(archive) as opened:
            opened.extractall(folder)
    return folder


def _each(read: Callable[[Any], Any], what: Sequence[Any]) -> None:
    for one in what:
        read(one)


def _in_batches(column: Any, order: Sequence[int], out: np.ndarray[Any, Any]) -> None:
    for first in range(0, len(order), _BATCH):
        rows = order[first : first + _BATCH]
        column.rows(rows, out=out[: len(rows)])


def _timed(run: Callable[[], None]) -> _Seconds:
    """Seconds by the clock, and of the processor in all threads."""
    clock, processor = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - clock, time.process_time() - processor


def _faster(name: str, theirs: Sequence[_Seconds], ours: Sequence[_Seconds], count: int, goal: Goal | None) -> Figure:
    return Figure(name, ratio(*_sides(theirs, ours)), "times as fast", goal, _detail(theirs, ours, count))


def _of(name: str, ours: Sequence[_Seconds], decoder: Sequence[_Seconds], count: int, goal: Goal) -> Figure:
    return Figure(name, ratio(*_sides(ours, decoder)), "of the decoder's seconds", goal, _detail(ours, decoder, count))


def _sides(a: Sequence[_Seconds], b: Sequence[_Seconds], kind: int = 0) -> tuple[list[float], list[float]]:
    return [seconds[kind] for seconds in a], [seconds[kind] for seconds in b]


def _detail(a: Sequence[_Seconds], b: Sequence[_Seconds], count: int) -> str:
    (clock_a, clock_b), processor = _sides(a, b), _sides(a, b, 1)
    each = (f"{number(min(side) / count * 1e6)} us" for side in (clock_a, clock_b))
    return f"{' against '.join(each)} each, best rounds {number(best(clock_a, clock_b))}, processor time {number(best(*processor))}"
