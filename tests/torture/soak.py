"""Many small archives, one after the other, into one output, with kills in between: nothing is lost, doubled, or grows."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from random import Random
from statistics import median
from tempfile import TemporaryDirectory

import h5dat_lib
from tests.conftest import config, make_zip, picture
from tests.torture.contents import doubled, lost, members_in_zip, members_of, rows_of
from tests.torture.figures import Figures
from tests.torture.kills import Command, kill, left_processes

SETTINGS = {"workers": 1, "task_runner": "threads", "batch_seconds": 0.02, "commit_seconds": 0}
EDGE = 20
"""So many of the first and of the last runs are compared."""
GROWTH, MEMORY_GROWTH = 1.15, 1.05
"""Most that the output may be of an undisturbed one, and the memory of the last runs of that of the first."""
_MEASURE = """
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:]).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)
"""
_MEASURED = (sys.executable, "-S", "-c", _MEASURE)
"""Runs a command and tells the memory of the largest of its processes. A process of its own, because one that has just been started counts
what its parent has in memory.
"""


def _archive(folder: Path, number: int) -> Path:
    members = {
        f"{number}.png": picture(8, 6, number),
        f"{number}.txt": f"text {number}".encode() * (number % 50),
        f"{number}.json": b'{"n": %d}' % number,
        f"{number}.csv": b"id,name\n" + b"".join(b"%d,name %d\n" % (row, number) for row in range(10)),
        "bad.json": b"{" * (number + 1),
    }
    return make_zip(folder / f"{number:03}.zip", members)


def soak(seed: int, count: int) -> Figures:
    """Ingests so many archives by the command line, about every third run killed and run again."""
    figures, random = Figures(), Random(f"{seed}/soak")
    with TemporaryDirectory() as name:
        folder = Path(name)
        archives = [_archive(folder, number) for number in range(count)]
        output, peaks, seconds = folder / "out.h5", [], 2.0
        for archive in archives:
            command = Command(archive, output, settings=SETTINGS)
            while random.random() < 1 / 3 and kill(command, random, seconds):
                figures.counts["kills survived, soak"] += 1
            started = time.monotonic()
            peaks.append(_peak(command, figures))
            seconds = time.monotonic() - started
            if left := left_processes(command.process.pid):
                figures.violate(f"soak, {archive.name}: left processes {left}")
        figures.counts["archives soaked"] += count
        _compare(archives, output, folder / "whole.h5", figures)
        _look_at_memory(peaks, figures)
    return figures


def _peak(command: Command, figures: Figures) -> int:
    """Peak resident memory of an ingest that runs to its end, in KiB; of the largest of its processes."""
    process = command.start(_MEASURED, subprocess.PIPE)
    told, _ = process.communicate()
    if process.returncode:
        figures.violate(f"soak, {command.archive.name}: ended with {process.returncode}")
    return int(told)


def _compare(archives: list[Path], output: Path, whole: Path, figures: Figures) -> None:
    for archive in archives:
        h5dat_lib.ingest(archive, whole, config(**SETTINGS))
    found, expected, members = rows_of(output), rows_of(whole), members_of(output)
    figures.counts["rows soaked"] += sum(map(len, expected.values()))
    figures.counts["rows lost"] += lost(found, expected)
    figures.counts["rows doubled"] += doubled(found, expected)
    if found != expected or members != sum(map(members_in_zip, archives), Counter()):
        figures.violate("soak: other rows than an undisturbed run, or members lost or doubled")
    if h5dat_lib.verify(output).mismatches:
        figures.violate("soak: the output does not verify")
    sizes = output.stat().st_size, whole.stat().st_size
    figures.notes["output, of an undisturbed one"] = f"{sizes[0]:,} of {sizes[1]:,} bytes"
    if sizes[0] > GROWTH * sizes[1]:
        figures.violate(f"soak: the output has {sizes[0]} bytes, an undisturbed one {sizes[1]}")


def _look_at_memory(peaks: list[int], figures: Figures) -> None:
    first, last = median(peaks[:EDGE]), median(peaks[-EDGE:])
    figures.notes["peak memory of an ingest, first and last runs (median)"] = f"{first / 1024:.0f} and {last / 1024:.0f} MiB"
    if last > MEMORY_GROWTH * first:
        figures.violate(f"soak: the first runs took {first} KiB, the last {last}")
