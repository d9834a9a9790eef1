"""Memory of a whole run: all its processes, sampled; and of planning a zip with a million members."""

from __future__ import annotations

import subprocess
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from tests.benchmarks import data
from tests.benchmarks.figures import Figure, Goal, Setup, number
from tests.benchmarks.programs import ROOT, command, environment, temporary_home

_EVERY = 0.1
_GIGABYTE = Goal(most=1.2)
_EQUAL = Goal(most=1.1)


@dataclass
class Peak:
    """The largest sums over all processes of a run, in bytes: PSS (shared pages counted once in all) and RSS (once a process)."""

    pss: int = 0
    rss: int = 0
    seconds: float = 0.0
    printed: str = ""
    by_process: dict[str, int] = field(default_factory=dict)
    """PSS of each process at the moment of the largest sum."""
    largest: Counter[str] = field(default_factory=Counter)
    """Largest RSS each process had."""

    def sample(self, process: psutil.Process) -> None:
        found = {process.pid: _memory(process)}
        for child in _children(process):
            found[child.pid] = _memory(child)
        rss, pss = (sum(memory[part] for memory in found.values()) for part in ("Rss", "Pss"))
        self.rss = max(self.rss, rss)
        for memory in found.values():
            self.largest[memory["name"]] = max(self.largest[memory["name"]], memory["Rss"])
        if pss > self.pss:
            self.pss = pss
            self.by_process = {f"{memory['name']} {pid}": memory["Pss"] for pid, memory in found.items() if memory["Pss"]}


def measured(*arguments: str | Path, home: Path | None = None, every: float = _EVERY) -> Peak:
    """Runs Python with these arguments, and samples it and all its descendants ``every`` so many seconds. Linux only: reads /proc."""
    started, peak = time.monotonic(), Peak()
    with subprocess.Popen(
        command(*arguments), cwd=ROOT, env=environment(home), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as child:
        printed: list[str] = []
        reader = threading.Thread(target=lambda: printed.extend(child.stdout or ()))
        reader.start()
        process = psutil.Process(child.pid)
        while child.poll() is None:
            peak.sample(process)
            time.sleep(every)
        reader.join()
    peak.seconds, peak.printed = time.monotonic() - started, "".join(printed)
    if child.returncode:
        raise RuntimeError(f"{' '.join(map(str, arguments))}: exit code {child.returncode}\n{peak.printed[-4000:]}")
    return peak


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _memory(process: psutil.Process) -> dict[str, Any]:
    """Rss and Pss in bytes, and what the process is; zeros for one that has gone."""
    try:
        lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()[1:]
        words = process.cmdline()
    except (OSError, psutil.Error):
        return {"name": "gone", "Rss": 0, "Pss": 0}
    sizes = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines}
    return {"name": _name(words), "Rss": sizes.get("Rss", 0), "Pss": sizes.get("Pss", 0)}


def _name(words: list[str]) -> str:
    line = " ".join(words)
    parts = (("spawn_main", "worker"), ("resource_tracker", "tracker"), ("flows/server", "server"))
    return next((name for mark, name in parts if mark in line), "main")


def memory(setup: Setup) -> list[Figure]:
    """Peak memory of runs of 4,000 and 40,000 members, direct and through Prefect; and of planning a million."""
    return [*_runs(setup, "direct"), *_runs(setup, "prefect"), *_planning(setup)]


def _runs(setup: Setup, way: str) -> list[Figure]:
    peaks = {2 * pairs: _peak_of_run(setup, way, pairs) for pairs in (2_000, 20_000, 50_000)}
    figures = [
        Figure(f"memory, {way}, {members:,} members", peak.pss / 1e9, "GB PSS", _GIGABYTE, _detail(peak)) for members, peak in peaks.items()
    ]
    return [*figures, _growth(way, peaks, 40_000, 4_000, _EQUAL), _growth(way, peaks, 100_000, 40_000, None)]


def _growth(way: str, peaks: dict[int, Peak], many: int, few: int, goal: Goal | None) -> Figure:
    return Figure(f"memory, {way}, {many:,} / {few:,} members", peaks[many].pss / peaks[few].pss, "x", goal)


def _peak_of_run(setup: Setup, way: str, pairs: int) -> Peak:
    archive, output = data.small_files(setup.folder, pairs), setup.output("memory")
    options = ["--direct"] if way == "direct" else []
    with temporary_home() as home:
        peak = measured("-m", "flows.cli", "ingest", archive, "-o", output, "--workers", "2", "--quiet", *options, home=home)
    output.unlink()
    return peak


def _detail(peak: Peak) -> str:
    parts = ", ".join(f"{name.split()[0]} {size / 1e6:.0f}" for name, size in sorted(peak.by_process.items()) if size > 1e6)
    return f"RSS {number(peak.rss / 1e9)} GB; PSS in MB at the peak: {parts}; {peak.seconds:.0f} s"


def _planning(setup: Setup) -> list[Figure]:
    archive = data.many(setup.folder)
    peak = measured("-m", "flows.cli", "plan", archive)
    return [
        Figure("plan of 1,000,000 members, memory", peak.largest["main"] / 1e6, "MB RSS", Goal(most=400)),
        Figure("plan of 1,000,000 members, time", peak.seconds, "s", Goal(most=30)),
    ]
