"""Tries every file of the suites alone, as a member of a folder and as a member of a zip; prints counts and what is wrong."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import TextIO

from h5dat_lib.convert import single_threaded
from tests.corpora.suites import COLLECTED, SOURCES, Suite, suites
from tests.corpora.trials import Outcome, alone, together

NICE = 10


def main() -> None:
    options = _options()
    os.nice(NICE)
    single_threaded()
    if not options.folders and not COLLECTED.is_dir():
        print(f"{SOURCES}\nWithout any: those that Python brings along.")
    faults = 0
    with options.report.open("w") as report:
        for suite in suites(options.folders):
            faults += _try(suite, options.pixels, report)
    print(f"{faults} faults; every file and what became of it: {options.report}")
    sys.exit(faults > 0)


def _try(suite: Suite, pixels: bool, report: TextIO) -> int:
    """Prints a line a way of giving the files; how many faults there were."""
    print(f"{suite.name}: {len(suite.files)} files", flush=True)
    with tempfile.TemporaryDirectory(prefix="h5dat-") as name:
        scratch = Path(name)
        found = {"alone": {path: alone(path, scratch, pixels) for path in suite.files}, **together(suite, scratch)}
    return sum(_show(suite, way, outcomes, report) for way, outcomes in found.items())


def _show(suite: Suite, way: str, outcomes: dict[Path, Outcome], report: TextIO) -> int:
    kinds = Counter(outcome.kind for outcome in outcomes.values())
    faulty = {path: outcome for path, outcome in outcomes.items() if outcome.faults}
    counts = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    slowest, largest = (max(map(part, outcomes.values()), default=0.0) for part in (_seconds, _megabytes))
    figures = f"; at most {slowest:.1f} s, {largest:.0f} MB" if largest else ""
    print(f"  {way:6} {counts}, {len(faulty)} faults{figures}", flush=True)
    for path, outcome in outcomes.items():
        line = outcome.line(f"{suite.name}/{path.relative_to(suite.folder)}", way)
        report.write(line + "\n")
        if outcome.faults:
            print(f"    {line}", flush=True)
    return len(faulty)


def _seconds(outcome: Outcome) -> float:
    return outcome.seconds


def _megabytes(outcome: Outcome) -> float:
    return outcome.megabytes


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m tests.corpora", description=__doc__)
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER", help="suites; by default those beside the project, or Python's")
    parser.add_argument("--pixels", action="store_true", help="compare pictures with Pillow's")
    parser.add_argument("--report", type=Path, default=Path(tempfile.gettempdir()) / "h5dat-corpora.txt", help="a line a file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
