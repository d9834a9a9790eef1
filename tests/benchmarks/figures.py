"""What a benchmark gives: figures with their goals, and how they are printed."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Setup:
    """Where archives and outputs lie, how often each side of a comparison runs, and what the large archives' sizes are multiplied by."""

    folder: Path
    rounds: int
    scale: float = 1.0

    def output(self, name: str) -> Path:
        """A path for an output that is not there yet."""
        path = self.folder / f"{name}.h5"
        path.unlink(missing_ok=True)
        return path


@dataclass(frozen=True)
class Goal:
    """A bound: ``least`` when more is better, ``most`` when less is."""

    least: float | None = None
    most: float | None = None

    def reached(self, value: float) -> bool:
        return (self.least is None or value >= self.least) and (self.most is None or value <= self.most)

    def __str__(self) -> str:
        bounds = ((">=", self.least), ("<=", self.most))
        return " and ".join(f"{sign} {bound:,g}" for sign, bound in bounds if bound is not None)


@dataclass(frozen=True)
class Figure:
    """One measured value, with what it is made of in ``detail``."""

    name: str
    value: float
    unit: str
    goal: Goal | None = None
    detail: str = ""

    @property
    def verdict(self) -> str:
        return "" if self.goal is None else "reached" if self.goal.reached(self.value) else "NOT reached"

    def line(self) -> str:
        goal = f"goal {self.goal}: {self.verdict}" if self.goal else "no goal"
        return f"{self.name}: {number(self.value)} {self.unit}, {goal}" + (f" ({self.detail})" if self.detail else "")

    def plain(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return {
            **asdict(self),
            "goal": str(self.goal) if self.goal else None,
            "reached": self.goal.reached(self.value) if self.goal else None,
        }


Benchmark = Callable[[Setup], Iterable[Figure]]


def number(value: float) -> str:
    """Three or four digits that count."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}" if abs(value) < 10 else f"{value:.1f}"


def spread(values: Sequence[float], unit: str) -> str:
    """Median, and least and largest in brackets."""
    return f"{number(statistics.median(values))} {unit} [{number(min(values))} to {number(max(values))}]"


def in_turn(rounds: int, *sides: Callable[[], Any]) -> list[list[Any]]:
    """Runs the sides one after the other, as often as there are rounds; the results of each side, in order of rounds."""
    results: list[list[Any]] = [[] for _ in sides]
    for _ in range(rounds):
        for found, side in zip(results, sides, strict=True):
            found.append(side())
    return results


def ratio(numerators: Sequence[float], denominators: Sequence[float]) -> float:
    """The median of the ratios of each round."""
    return statistics.median(a / b for a, b in zip(numerators, denominators, strict=True))


def best(numerators: Sequence[float], denominators: Sequence[float]) -> float:
    """The ratio of the least of both sides: what is left when other load has disturbed most rounds."""
    return min(numerators) / min(denominators)


def table(figures: Sequence[Figure]) -> str:
    """All figures, a line each, in columns."""
    rows = [("name", "figure", "goal", "")]
    rows += [(f.name, f"{number(f.value)} {f.unit}", str(f.goal or "-"), f.verdict) for f in figures]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
