"""What is alike among a million rows, and what storing the hashes for it costs an ingest.

The file of a million pictures is written by the writer itself, with hashes at random and one pixel a row: nothing of that is timed.
"""

from __future__ import annotations

import json
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from PIL import Image

import h5dat_lib
from h5dat_lib.columns import Block, Bytes, Scalars
from h5dat_lib.commit.writer import Writer
from h5dat_lib.config import Compression
from h5dat_lib.read.format import FORMAT, FORMAT_VERSION
from h5dat_lib.stage.pack import TablePacker
from h5dat_lib.stage.staged import StagedFile, StageWriter
from tests.benchmarks import data
from tests.benchmarks.figures import Figure, Goal, Setup, best, in_turn, number, ratio, spread
from tests.benchmarks.programs import cli, one_run

_ROWS = 1_000_000
_BLOCK = 50_000
_SMALL, _PHOTOS = 10_000, 200
_SECOND = Goal(most=1)
_NOTHING = Goal(most=1.05)


def searching(setup: Setup) -> Iterator[Figure]:
    """Searches in a million rows, opening the file included; ingests with hashes against those without."""
    path = data.made(setup.folder, "million-hashes.h5", _million)
    picture = data.pixels(np.random.default_rng(3), 640, 480)
    query = setup.folder / "query.jpg"
    Image.fromarray(picture).save(query, quality=85)
    command = partial(cli, "find", path, "--like", query, "--distance", 14)
    yield _seconds(setup, "like pixels", lambda: _like(path, picture), _SECOND)
    yield _seconds(setup, "like a file, also by its bytes", lambda: _like(path, query), None)
    yield _seconds(setup, "`h5dat find --like`, the program's start included", command, None)
    yield _seconds(setup, "duplicates of equal hashes or bytes", lambda: _duplicates(path, 0), None)
    yield _seconds(setup, "duplicates within 4 bits", lambda: _duplicates(path, 4), None)
    small, photos = data.made(setup.folder, "searching-small.zip", _small), data.photos(setup.folder, _PHOTOS)
    for name, archive in ((f"{_SMALL:,} of 80 x 60", small), (f"{_PHOTOS} of 1440 x 1080", photos)):
        yield _cost(setup, f"{name}, decoded", archive, {}, _NOTHING)
        yield _cost(setup, f"{name}, encoded, `always`", archive, {"storage": "encoded", "phash": "always"}, None)


def _million(path: Path) -> None:
    rng, out = np.random.default_rng(4), path.with_suffix(".stage")
    with StageWriter(out) as writer:
        for name, block in (("images", _pictures), ("lineage/members", _members)):
            packer = TablePacker(name, writer, Compression())
            for first in range(0, _ROWS, _BLOCK):
                packer.add(block(rng, first))
            packer.seal()
        writer.finish()
    with h5py.File(path, "w", libver=("v110", "v110")) as file, StagedFile(out) as staged, ThreadPoolExecutor(1) as thread:
        file.attrs.update({"format": FORMAT, "format_version": np.uint32(FORMAT_VERSION)})
        target = Writer(file, Compression(), {}, lambda: None, thread)
        target.append(staged, {})
        target.flush()
    out.unlink()


def _pictures(rng: np.random.Generator, first: int) -> Block:
    hashes = Scalars(rng.integers(0, 1 << 64, _BLOCK, "u8"), "<u8")
    return Block(_BLOCK, {"_member": Scalars(np.arange(first, first + _BLOCK), "<u8"), "pixels": _bytes(b"\0"), "phash": hashes})


def _bytes(one: bytes) -> Bytes:
    return Bytes([one] * _BLOCK, "bytes")


def _members(rng: np.random.Generator, first: int) -> Block:
    digests = np.array([rng.bytes(32).hex().encode() for _ in range(_BLOCK)], "S64")
    paths = Bytes([b"shop/%07d.jpg" % row for row in range(first, first + _BLOCK)], "text")
    return Block(_BLOCK, {"path": paths, "sha256": Scalars(digests, "S64"), "class": Scalars(np.full(_BLOCK, b"images", "S64"), "S64")})


def _small(path: Path) -> None:
    rng = np.random.default_rng(5)
    pool = [data.photo(rng, 80, 60) for _ in range(200)]
    with zipfile.ZipFile(path, "w") as archive:
        for at in range(_SMALL):
            archive.writestr(f"{at}.jpg", pool[at % len(pool)])


def _like(path: Path, query: Any) -> None:
    with h5dat_lib.open(path) as file:
        assert len(file["images"].like(query, distance=14)) < 100


def _duplicates(path: Path, distance: int) -> None:
    with h5dat_lib.open(path) as file:
        assert len(file["images"].duplicates(distance)) < 100


def _seconds(setup: Setup, name: str, run: Callable[[], object], goal: Goal | None) -> Figure:
    times = []
    for _ in range(max(setup.rounds, 3)):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return Figure(f"searching, 1,000,000 rows, {name}", float(np.median(times)), "s", goal, spread(times, "s"))


def _cost(setup: Setup, name: str, archive: Path, image: dict[str, str], goal: Goal | None) -> Figure:
    """Processor seconds of a run, workers included."""
    output, options = setup.output("searching"), []
    for phash in ("always", "never"):
        path = setup.folder / f"searching-{phash}.json"
        path.write_text(json.dumps({"workers": 1, "image": {**image, "phash": phash}}))
        options.append(path)
    sides = (partial(one_run, "direct", archive, output, "--config", path) for path in options)
    ours, without = ([run["cpu"] for run in runs] for runs in in_turn(max(setup.rounds, 3), *sides))
    output.unlink()
    detail = f"processor seconds {spread(ours, 's')} against {spread(without, 's')}; best rounds {number(best(ours, without))}"
    return Figure(f"searching, hashes at ingest, {name}", ratio(ours, without), "of the seconds without", goal, detail)
