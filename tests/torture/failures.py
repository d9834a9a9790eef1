"""Disks that fail while the process lives: at every call of a transaction, once or from then on, full or broken."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

from h5dat_lib.commit.transaction import Output
from h5dat_lib.errors import H5datError
from h5dat_lib.journal import JournaledFile, journal_of
from tests.simulated_disk import Fault, RecordingDisk, from_then_on, no_fault, once
from tests.torture.contents import rows_of
from tests.torture.figures import Figures
from tests.torture.points import Trial
from tests.torture.recording import OUTPUT, Transaction, journaled_on, put
from tests.torture.scenarios import Scenario

HOW = {"once": once, "from then on": from_then_on}
ERRORS = {"ENOSPC": errno.ENOSPC, "EIO": errno.EIO}


@dataclass(frozen=True)
class Failure:
    """A call of a transaction, by its name, and how it fails."""

    name: str
    kind: str
    transaction: int
    fault: Fault


def failures(trial: Trial) -> Iterator[Failure]:
    """Every call of every transaction, failing in every way."""
    for number, transaction in enumerate(trial.transactions):
        for call in _calls(trial, transaction):
            for how, fault in HOW.items():
                for error, code in ERRORS.items():
                    yield Failure(
                        f"{trial.name}/{number}/{call}/{error} {how}", f"{error} {how}", number, _but_not_reads(fault(call, code))
                    )


def _calls(trial: Trial, transaction: Transaction) -> list[int]:
    """Numbers of the calls of the disk that a transaction makes, by carrying it out; without those that only read."""
    put(trial.folder, transaction.before)
    with _on(trial, RecordingDisk()) as (output, disk):
        transaction.call.on(output)
    return [number for number, kind in enumerate(disk.calls) if kind != "read"]


def _but_not_reads(fault: Fault) -> Fault:
    """HDF5 2.0.0 keeps a file half open of which it could not read its parts, and crashes on it when the process ends."""
    return lambda call, kind: None if kind == "read" else fault(call, kind)


@contextmanager
def _on(trial: Trial, disk: RecordingDisk) -> Iterator[tuple[Output, RecordingDisk]]:
    """The output of a trial, with transactions that go to this disk."""
    with (
        journaled_on(partial(JournaledFile, disk=disk), trial.scenario.held_pages),
        Output(trial.output, trial.scenario.config()) as output,
    ):
        yield output, disk


class Failures:
    """Has transactions of a trial fail, and looks at what becomes of them."""

    def __init__(self, trial: Trial) -> None:
        self.trial = trial
        self.figures = trial.figures
        self._rows = {}
        for number, transaction in enumerate(trial.transactions):
            put(trial.folder, transaction.after)
            self._rows[number] = rows_of(trial.output)

    def check(self, failure: Failure) -> None:
        """Has one fail: the file is then as before, and the same call succeeds once the disk is well."""
        self.figures.counts[f"disk failed: {failure.kind}"] += 1
        transaction = self.trial.transactions[failure.transaction]
        put(self.trial.folder, transaction.before)
        with _on(self.trial, RecordingDisk(failure.fault)) as (output, disk):
            failed = _fails(transaction, output)
            disk.fault = no_fault
            rolled_back = failed and not journal_of(self.trial.output).exists()
            if rolled_back:
                self._expect(failure, transaction.before.get(OUTPUT))
                transaction.call.again(output)
        if failed and not rolled_back:
            self._go_on_in_another_run(transaction)
        if rows_of(self.trial.output) != self._rows[failure.transaction]:
            self.figures.violate(f"{failure.name}: other rows than after an undisturbed transaction")

    def _go_on_in_another_run(self, transaction: Transaction) -> None:
        self.figures.counts["failed disks that had to be recovered"] += 1
        with _on(self.trial, RecordingDisk()) as (output, _):
            if self._found() == transaction.before.get(OUTPUT):
                transaction.call.on(output)
            # else the commit went through before its last sync failed: its rows are compared

    def _expect(self, failure: Failure, expected: bytes | bytearray | None) -> None:
        if self._found() != expected:
            self.figures.violate(f"{failure.name}: the file is not as before the transaction")

    def _found(self) -> bytes | None:
        return self.trial.output.read_bytes() if self.trial.output.exists() else None


def _fails(transaction: Transaction, output: Output) -> bool:
    try:
        transaction.call.on(output)
    except H5datError:
        return True
    return False


def fail(name: str, scenario: Scenario, seed: int, step: int = 1, only: str = "") -> Figures:
    """Has each ``step``-th call of a scenario fail, or the ``only`` one of that name."""
    with TemporaryDirectory() as folder:
        trial = Trial(name, scenario, Path(folder), seed)
        found = failures(trial)
        chosen = (
            [failure for failure in found if failure.name == only] if only else [*islice(found, Random(seed).randrange(step), None, step)]
        )
        checks = Failures(trial)
        for failure in chosen:
            checks.check(failure)
    if only and not chosen:
        raise ValueError(f"found no failure {only}, expected one by the name that a violation gives it")
    return trial.figures
