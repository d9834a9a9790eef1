"""Fuzzes all targets, or those that are named, for some minutes in all; prints what came of each and keeps the inputs of findings."""

from __future__ import annotations

import argparse
import math
import os
import sys
import tempfile
from pathlib import Path

from h5dat_lib.convert import single_threaded
from tests.fuzz.running import Result, Share, fuzz, read
from tests.fuzz.targets import TARGETS

NICE = 10


def main() -> None:
    options = _options()
    os.nice(NICE)
    single_threaded()
    names = options.targets or list(TARGETS)
    share = Share(options.seed, options.inputs or sys.maxsize, options.minutes * 60 / len(names), options.folder)
    if options.file:
        print(f"read: {read(TARGETS[names[0]], options.file.read_bytes(), options.folder / 'scratch')}")
        return
    print(f"seed {options.seed}; findings go to {options.folder}", flush=True)
    print(f"{'target':14}{'inputs':>9}{'read':>9}{'refused':>9}{'findings':>9}", flush=True)
    results = []
    for name in names:
        results.append(fuzz(name, share))
        _show(results[-1])
    print(f"{sum(result.inputs for result in results)} inputs, {sum(result.faults for result in results)} faults")
    sys.exit(any(result.faults for result in results))


def _show(result: Result) -> None:
    print(f"{result.name:14}{result.inputs:9}{result.read:9}{result.refused:9}{result.findings.total():9}", flush=True)
    for what, count in result.findings.most_common():
        print(f"    {count} x {what}", flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)}; all when none is given")
    parser.add_argument("--minutes", type=float, default=math.inf, help="for all targets together (10, if --inputs is not given)")
    parser.add_argument("--inputs", type=int, help="most inputs of each target")
    parser.add_argument("--seed", default="1", help="another word gives other inputs (1)")
    parser.add_argument("--file", type=Path, help="read only this input of one target, in this process")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "h5dat-fuzz", help="where inputs of findings are kept")
    options = parser.parse_args()
    if unknown := set(options.targets) - TARGETS.keys():
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(TARGETS)}")
    if math.isinf(options.minutes) and not options.inputs:
        options.minutes = 10
    return options


if __name__ == "__main__":
    main()
