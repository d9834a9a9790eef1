"""Runs the torture: names of some parts, or none for all; prints a line a part as it ends, and a table of counts at the end.

Exit code 1 when anything was lost, doubled or torn.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator

from tests.fuzz.targets import TARGETS
from tests.torture.failures import fail
from tests.torture.figures import Figures
from tests.torture.hostile import hostile
from tests.torture.kills import ARCHIVES, killed
from tests.torture.points import cut
from tests.torture.scenarios import SCENARIOS
from tests.torture.soak import soak


def points(options: argparse.Namespace) -> Iterator[tuple[str, Figures]]:
    """Cuts of recorded transactions."""
    for name in _scenarios(options.point):
        yield f"points, {name}", cut(name, SCENARIOS[name], options.seed, options.step, options.point)


def failures(options: argparse.Namespace) -> Iterator[tuple[str, Figures]]:
    """Disks that fail."""
    for name in _scenarios(options.failure):
        yield f"failures, {name}", fail(name, SCENARIOS[name], options.seed, 4 * options.step + 1, options.failure)


def kills(options: argparse.Namespace) -> Iterator[tuple[str, Figures]]:
    """Killed processes."""
    for kind in ARCHIVES:
        yield f"kills, {kind}", killed(kind, options.seed, -(-options.kills // len(ARCHIVES)))


def prefect(options: argparse.Namespace) -> Iterator[tuple[str, Figures]]:
    """Killed flow runs, with the server of the run."""
    yield "kills, Prefect", killed("zip", options.seed, options.prefect_kills, way=())


def soaked(options: argparse.Namespace) -> Iterator[tuple[str, Figures]]:
    """One output, many archives."""
    yield "soak", soak(options.seed, options.archives)


def inputs(options: argparse.Namespace) -> Iterator[tuple[str, Figures]]:
    """Hostile inputs."""
    for name in TARGETS:
        yield f"hostile, {name}", hostile(name, options.seed, options.minutes * 60 / len(TARGETS))


PARTS: dict[str, Callable[[argparse.Namespace], Iterator[tuple[str, Figures]]]] = {
    "points": points,
    "failures": failures,
    "kills": kills,
    "prefect": prefect,
    "soak": soaked,
    "hostile": inputs,
}


def _scenarios(point: str) -> list[str]:
    """The scenario of a point, or all."""
    return [point.split("/")[0]] if point else [*SCENARIOS]


def main() -> None:
    options = _options()
    found = Figures()
    for part in options.parts or PARTS:
        for name, figures in _timed(PARTS[part](options)):
            print(name, dict(figures.counts), flush=True)
            found.add(figures)
    print(f"\nseed {options.seed}\n{found.table()}")
    sys.exit(bool(found.violations or found.counts["rows lost"] or found.counts["rows doubled"]))


def _timed(parts: Iterator[tuple[str, Figures]]) -> Iterator[tuple[str, Figures]]:
    began = time.monotonic()
    for name, figures in parts:
        yield f"-- {name}, {time.monotonic() - began:.0f} s:", figures
        began = time.monotonic()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m tests.torture", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all when none is given")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of every random choice; printed at the end")
    parser.add_argument("--step", type=int, default=5, help="take each so-manieth point (5), and a fourth of that of the failures")
    parser.add_argument("--point", default="", help="take this point only, by the name that a violation gives it")
    parser.add_argument("--failure", default="", help="take this failure only, by the name that a violation gives it")
    parser.add_argument("--kills", type=int, default=210, help="direct runs to kill (210)")
    parser.add_argument("--prefect-kills", type=int, default=6, help="flow runs to kill (6)")
    parser.add_argument("--archives", type=int, default=200, help="archives to soak (200)")
    parser.add_argument("--minutes", type=float, default=5, help="for hostile inputs (5)")
    options = parser.parse_args()
    if unknown := set(options.parts) - PARTS.keys():
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    return options


if __name__ == "__main__":
    main()
