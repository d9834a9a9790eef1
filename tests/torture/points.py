"""Cuts: what a kill or a power failure leaves at every change that a transaction makes, recovered, and looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import h5py

import h5dat_lib
from h5dat_lib.journal import journal_of, recover
from tests.simulated_disk import Change, Image, RecordingDisk, Replay
from tests.torture.contents import Rows, doubled, lost, rows_of
from tests.torture.figures import Figures
from tests.torture.recording import OUTPUT, Transaction, ingest, put, record
from tests.torture.scenarios import Scenario

STALE = Random(0).randbytes(1 << 16)
"""Bytes of an older file that may lie where a new one got its space."""


@dataclass(frozen=True)
class Point:
    """A moment, by its name, and the kind of the cut. ``left`` gives what it left, until the next moment is asked for."""

    name: str
    kind: str
    left: Callable[[], Image]


def points(name: str, before: Image, changes: list[Change], seed: int) -> Iterator[Point]:
    """Every cut of some changes: a kill before each, one or two within each write, and a power failure after each."""
    replay = Replay(before)
    for number, change in enumerate(changes):
        random = Random(f"{seed}/{name}/{number}")
        yield Point(f"{name}/{number}/killed", "killed between changes", replay.killed)
        for place, size in enumerate(_torn(change, random)):
            yield Point(f"{name}/{number}/torn {place}", "killed within a write", partial(replay.killed, change, size))
        replay.apply(change)
        yield Point(f"{name}/{number}/power", "power failed", partial(replay.power_failed, random, STALE))
    yield Point(f"{name}/end/killed", "killed between changes", replay.killed)


def _torn(change: Change, random: Random) -> set[int]:
    """How much of a write is done when it is cut: any number of bytes, and of sectors."""
    if change.kind != "write" or len(change.data) < 2:
        return set()
    return {random.randrange(1, len(change.data)), 512 * random.randrange(1 + len(change.data) // 512)} - {0}


@dataclass
class Trial:
    """One scenario in a folder of its own: what was recorded, what it ought to end as, and what was found so far."""

    name: str
    scenario: Scenario
    folder: Path
    seed: int
    figures: Figures = field(default_factory=Figures)

    def __post_init__(self) -> None:
        self.archives = self.scenario.make(self.folder)
        self.transactions = record(self.scenario, self.archives, self.folder)
        self.output = self.folder / OUTPUT
        self.whole = rows_of(self.output)
        self._finished: set[tuple[int, bytes | None]] = set()

    def points(self) -> Iterator[tuple[Transaction, Point]]:
        """Every cut of every transaction."""
        for number, transaction in enumerate(self.transactions):
            for point in points(f"{self.name}/{number}", transaction.before, transaction.changes, self.seed):
                yield transaction, point

    def check(self, transaction: Transaction, point: Point, cut_again: int) -> None:
        """Recovers what a cut left, and again for so many cuts of that recovery; notes whatever is not as it has to be."""
        self.figures.counts[point.kind] += 1
        left = point.left()
        changes = self._recovered(transaction, point.name, left)
        total = sum(1 for _ in points("", left, changes, self.seed))
        chosen = Random(f"{self.seed}/{point.name}").sample(range(total), min(cut_again, total))
        for number, second in enumerate(points(f"{point.name}/recovery", left, changes, self.seed)):
            if number in chosen:
                self.figures.counts["recoveries cut"] += 1
                self._recovered(transaction, second.name, second.left())

    def _recovered(self, transaction: Transaction, name: str, left: Image) -> list[Change]:
        put(self.folder, left)
        allowed = (transaction.before.get(OUTPUT), transaction.after[OUTPUT])
        if left.get(OUTPUT) not in allowed and not self._is_refused():
            self.figures.violate(f"{name}: plain h5py opens a file that is neither as before nor as after")
        disk = RecordingDisk()
        recover(self.output, disk=disk)
        found = self.output.read_bytes() if self.output.exists() else None
        if found not in allowed or journal_of(self.output).exists():
            self.figures.violate(f"{name}: recovered as neither before nor after, or with a journal left")
        elif (transaction.archives, found) not in self._finished:
            self._finished.add((transaction.archives, found))
            self._finish(transaction, name)
        return disk.changes

    def _is_refused(self) -> bool:
        """By plain h5py; a file that is not there is as before, or refused."""
        try:
            h5py.File(self.output).close()
        except OSError:
            return True
        return False

    def _finish(self, transaction: Transaction, name: str) -> None:
        """Runs the same commands again, from the one that was cut on: what comes out has to be as if nothing had happened."""
        self.figures.counts["runs finished after a cut"] += 1
        for archive in self.archives[transaction.archives - 1 :]:
            ingest(archive, self.folder, self.scenario)
        self._compare(rows_of(self.output), name)

    def _compare(self, found: Rows, name: str) -> None:
        self.figures.counts["rows lost"] += lost(found, self.whole)
        self.figures.counts["rows doubled"] += doubled(found, self.whole)
        if found != self.whole:
            self.figures.violate(f"{name}: the finished run gives other rows than an undisturbed one")
        if h5dat_lib.verify(self.output).mismatches:
            self.figures.violate(f"{name}: the finished run does not verify")


def cut(name: str, scenario: Scenario, seed: int, step: int = 1, only: str = "", cut_again: int = 1) -> Figures:
    """Cuts a scenario at each ``step``-th point, or at the ``only`` one of that name."""
    with TemporaryDirectory() as folder:
        trial = Trial(name, scenario, Path(folder), seed)
        found: Iterable[tuple[Transaction, Point]] = trial.points()
        chosen = [pair for pair in found if pair[1].name == only] if only else islice(found, Random(seed).randrange(step), None, step)
        for transaction, point in chosen:
            trial.check(transaction, point, cut_again)
    if only and not trial.figures.counts:
        raise ValueError(f"found no point {only}, expected one by the name that a violation gives it")
    return trial.figures
