"""Runs the benchmarks: names of some, or none for all; prints a line a figure as it is known, and a table of all at the end."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
import tempfile
import time
from pathlib import Path

from tests.benchmarks.converters import converters
from tests.benchmarks.exports import exports
from tests.benchmarks.figures import Benchmark, Figure, Setup, table
from tests.benchmarks.large import large
from tests.benchmarks.memory import memory
from tests.benchmarks.reading import reading
from tests.benchmarks.remote import remote
from tests.benchmarks.searching import searching
from tests.benchmarks.speed import commit, encoded, photos, scaling, small_files
from tests.benchmarks.start_up import start_up
from tests.benchmarks.sync import sync

BENCHMARKS: dict[str, Benchmark] = {
    "photos": photos,
    "small-files": small_files,
    "start-up": start_up,
    "encoded": encoded,
    "memory": memory,
    "scaling": scaling,
    "commit": commit,
    "converters": converters,
    "reading": reading,
    "large": large,
    "searching": searching,
    "remote": remote,
    "sync": sync,
    "exports": exports,
}


def main() -> None:
    options = _options()
    options.folder.mkdir(parents=True, exist_ok=True)
    setup = Setup(options.folder, options.rounds, options.scale)
    figures: list[Figure] = []
    for name in options.names or BENCHMARKS:
        print(f"-- {name}", flush=True)
        for figure in BENCHMARKS[name](setup):
            print(figure.line(), flush=True)
            figures.append(figure)
    print(f"\n{table(figures)}")
    if options.json:
        options.json.write_text(json.dumps(_record(figures, options.rounds, options.scale), indent=1) + "\n")
    missed = sum(figure.verdict == "NOT reached" for figure in figures)
    print(f"\n{len(figures)} figures, {missed} of {sum(figure.goal is not None for figure in figures)} goals not reached")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m tests.benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}; all when none is given")
    parser.add_argument(
        "--folder", type=Path, default=Path(tempfile.gettempdir()) / "h5dat-benchmarks", help="where archives are kept; needs 30 GB"
    )
    parser.add_argument("--rounds", type=int, default=3, help="how often each side of a comparison runs (3)")
    parser.add_argument("--scale", type=float, default=1.0, help="what the sizes of the large archives are multiplied by (1)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures as JSON, too")
    options = parser.parse_args()
    if unknown := set(options.names) - BENCHMARKS.keys():
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}")
    return options


def _record(figures: list[Figure], rounds: int, scale: float) -> dict[str, object]:
    machine = {"python": platform.python_version(), "system": platform.platform(), "cores": multiprocessing.cpu_count()}
    return {
        "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "rounds": rounds,
        "scale": scale,
        **machine,
        "figures": [f.plain() for f in figures],
    }


if __name__ == "__main__":
    main()
