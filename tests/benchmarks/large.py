"""Ingests of large members and of many: archives in; their speed beside the bare decoder's, and the memory of all processes, out.

Each is one `tests.benchmarks.one_run` without Prefect, two workers, its start-up apart, while its memory is sampled. `Setup.scale`
makes the archives smaller.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import csv

from tests.benchmarks import data, members
from tests.benchmarks.figures import Figure, Goal, Setup, in_turn, number, ratio, spread
from tests.benchmarks.memory import measured
from tests.benchmarks.programs import run

_SAMPLED_EVERY = 0.5
"""Seconds: looking at large processes takes time from them."""
_FILM_SECONDS = 60
_HALF = Goal(least=0.5)
_NEARLY = Goal(least=0.85)

Found = dict[str, Any]


def large(setup: Setup) -> Iterator[Figure]:
    """A table and documents of 1 GB, 100,000 documents, a film of 60 s, photographs of 24 megapixels."""
    parts = (_table, _lines, _documents, _film, _photos)
    return (figure for part in parts for figure in part(setup))


def _ingested(setup: Setup, archive: Path, *options: str | Path) -> Found:
    """What `one_run` prints, with the peak of PSS and the size of the output in bytes. Raises RuntimeError when there are rejects."""
    output = setup.output("large")
    os.sync()
    peak = measured("-m", "tests.benchmarks.one_run", "direct", archive, output, *options, every=_SAMPLED_EVERY)
    found: Found = json.loads(peak.printed.splitlines()[-1])
    if found["rejects"]:
        raise RuntimeError(f"{archive}: found {found['rejects']} rejects, expected none")
    found |= {"pss": peak.pss, "processes": peak.by_process, "size": output.stat().st_size}
    output.unlink()
    return found


def _seconds(runs: list[Found]) -> list[float]:
    return [found["seconds"]["run"] for found in runs]


def _memory(name: str, runs: list[Found]) -> Figure:
    highest = max(runs, key=lambda found: int(found["pss"]))
    parts = ", ".join(f"{process.split()[0]} {size / 1e6:.0f}" for process, size in sorted(highest["processes"].items()) if size > 1e6)
    return Figure(f"large, {name}, memory", highest["pss"] / 1e9, "GB PSS", None, f"MB at the peak: {parts}")


def _rate(name: str, amount: float, unit: str, runs: list[Found], archive: Path) -> Figure:
    speed = statistics.median(amount / seconds for seconds in _seconds(runs))
    size = sum(file.stat().st_size for file in archive.iterdir()) if archive.is_dir() else archive.stat().st_size
    megabytes = number(size / 1e6 / statistics.median(_seconds(runs)))
    detail = f"{spread(_seconds(runs), 's')}, {megabytes} MB/s of {number(size / 1e6)} MB; output {number(runs[-1]['size'] / 1e6)} MB"
    return Figure(f"large, {name}, rate", speed, unit, None, detail)


def _beside(name: str, unit: str, goal: Goal | None, theirs: list[float], runs: list[Found]) -> Figure:
    detail = f"{spread(theirs, 's')}, ours {spread(_seconds(runs), 's')}"
    return Figure(f"large, {name}", ratio(theirs, _seconds(runs)), unit, goal, detail)


# Tables and documents


def _table(setup: Setup) -> list[Figure]:
    archive = data.table_file(setup.folder, int(1000 * setup.scale))
    one, two, runs = in_turn(setup.rounds, lambda: _by_arrow(archive, 1), lambda: _by_arrow(archive, 2), lambda: _ingested(setup, archive))
    return [
        _beside("csv", "of pyarrow, one thread", _HALF, one, runs),
        _beside("csv", "of pyarrow, two threads", _HALF, two, runs),
        _rate("csv", runs[-1]["rows"], "rows/s", runs, archive),
        _memory("csv", runs),
    ]


def _by_arrow(archive: Path, threads: int) -> float:
    """Seconds of pyarrow's own reading, as a stream."""
    pa.set_cpu_count(threads)

    def read() -> None:
        for _ in csv.open_csv(archive, csv.ReadOptions(use_threads=threads > 1)):
            pass

    return _timed(read)


def _timed(call: Callable[[], None]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def _lines(setup: Setup) -> list[Figure]:
    archive = data.lines(setup.folder, int(1000 * setup.scale))
    parsed, runs = in_turn(setup.rounds, lambda: _timed(lambda: _parse(archive)), lambda: _ingested(setup, archive))
    return [
        _beside("jsonl", "of json.loads a line", None, parsed, runs),
        _rate("jsonl", runs[-1]["rows"], "documents/s", runs, archive),
        _memory("jsonl", runs),
    ]


def _parse(archive: Path) -> None:
    with archive.open("rb") as file:
        for line in file:
            json.loads(line)


def _documents(setup: Setup) -> list[Figure]:
    archive = data.documents(setup.folder, int(100_000 * setup.scale))
    [runs] = in_turn(setup.rounds, lambda: _ingested(setup, archive))
    return [_rate("small documents", runs[-1]["members"], "members/s", runs, archive), _memory("small documents", runs)]


# Films and photographs


def _film(setup: Setup) -> list[Figure]:
    seconds = max(int(_FILM_SECONDS * setup.scale), 2)
    archive = data.made(setup.folder, f"film-{seconds}.mp4", lambda path: _write_film(path, seconds))
    config = setup.folder / "stored.json"
    config.write_text('{"compression": {"filter": "none"}}')
    decoded, deflated, stored_runs, runs = in_turn(
        setup.rounds,
        lambda: _ideal("ideal_film", archive),
        lambda: _ideal("ideal_film", archive, "--deflate"),
        lambda: _ingested(setup, archive, "--config", config),
        lambda: _ingested(setup, archive),
    )
    frames = seconds * members.FILM_RATE
    return [
        _beside("film, not deflated", "of decoding on 2 cores", _NEARLY, decoded, stored_runs),
        _beside("film, deflated", "of decoding on 2 cores", None, decoded, runs),
        _beside("film, deflated", "of decoding and deflating on 2 cores", _NEARLY, deflated, runs),
        Figure("large, film, deflating", ratio(deflated, decoded), "x the seconds of decoding alone, on 2 cores"),
        _rate("film, not deflated", frames, "frames/s", stored_runs, archive),
        _rate("film, deflated", frames, "frames/s", runs, archive),
        _memory("film", stored_runs + runs),
    ]


def _write_film(path: Path, seconds: int) -> None:
    path.write_bytes(members.film("mp4", "libx264", 1920, 1080, seconds, preset="veryfast", g="50"))


def _ideal(program: str, archive: Path, *options: str) -> float:
    found: Found = json.loads(run("-m", f"tests.benchmarks.{program}", archive, *options).stdout)
    return float(found["seconds"])


def _photos(setup: Setup) -> list[Figure]:
    count = max(int(60 * setup.scale), 6)
    archive = data.large_photos(setup.folder, count)
    ideal, runs = in_turn(setup.rounds, lambda: _ideal("ideal_loop", archive), lambda: _ingested(setup, archive))
    return [
        _beside("photos of 24 MP", "of the ideal loop", _NEARLY, ideal, runs),
        _rate("photos of 24 MP", count, "photos/s", runs, archive),
        _memory("photos of 24 MP", runs),
    ]
