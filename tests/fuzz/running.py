"""A target -> what came of its inputs, run in children that may die of them."""

from __future__ import annotations

import json
import mmap
import re
import time
import traceback
import zlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from tests.fuzz.children import Ended, at_most, in_child
from tests.fuzz.targets import TARGETS, Target

SECONDS = 5.0
"""Longer than this is a hang: no input takes a tenth of it."""
MEMORY = 2 << 30
"""Address space of a child above what it starts with; `limits.member_memory` gives a worker twice as much."""
_INPUTS = 2000
"""Inputs of one child."""
_KEPT = 3
"""Inputs that are kept of each finding."""
_NUMBER, _READ, _REFUSED = range(3)


@dataclass(frozen=True)
class Share:
    """How long a target is tried, in inputs and in seconds, and with which seed; findings go into ``folder``."""

    seed: str
    inputs: int
    seconds: float
    folder: Path


@dataclass
class Result:
    """What came of a target's inputs: ``read`` gave something, ``refused`` an error that is allowed; ``findings`` all else, by where."""

    name: str
    inputs: int = 0
    read: int = 0
    refused: int = 0
    findings: Counter[str] = field(default_factory=Counter)

    @property
    def faults(self) -> int:
        """Findings that are ours: an error that should not be, or a death that is not a foreign library's."""
        return sum(count for what, count in self.findings.items() if not (TARGETS[self.name].foreign and what.startswith("died")))


def fuzz(name: str, share: Share) -> Result:
    """Runs a target's inputs until its share is used up."""
    share.folder.mkdir(parents=True, exist_ok=True)
    result, run = Result(name), _Run(name, TARGETS[name], share)
    while result.inputs < share.inputs and time.monotonic() < run.end:
        ended = in_child(lambda: run.inputs(result.inputs), MEMORY, run.log)
        result.inputs = run.board[_NUMBER]
        if ended.code:
            run.note(result.inputs, _death(ended, run.log), run.log.read_text(errors="replace"))
            result.inputs += 1
    result.read, result.refused, result.findings = run.board[_READ], run.board[_REFUSED], run.findings()
    return result


def read(target: Target, data: bytes, scratch: Path) -> int:
    """Reads one input; which way of reading is taken depends on nothing but its bytes."""
    scratch.mkdir(parents=True, exist_ok=True)
    return target.read(data, scratch, Random(zlib.crc32(data)))


class _Run:
    """One target under way. ``board`` is shared with the children: the number of the input, and counts."""

    def __init__(self, name: str, target: Target, share: Share) -> None:
        self.target = target
        self.scratch = share.folder / "scratch"
        self.log = share.folder / f"{name}.log"
        self.board = memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("q")
        self._name = name
        self._share = share
        self._seeds = target.seeds()
        self.end = time.monotonic() + share.seconds  # from here on: making the seeds takes longer than a small share
        self._findings = share.folder / f"{name}.findings"
        self._findings.unlink(missing_ok=True)

    def input(self, number: int) -> bytes:
        """The input of that number."""
        return self.target.damage(self._seeds, Random(f"{self._share.seed} {self._name} {number}"))

    def inputs(self, first: int) -> None:
        """What a child does."""
        for number in range(first, min(first + _INPUTS, self._share.inputs)):
            self.board[_NUMBER] = number
            if time.monotonic() >= self.end:
                return
            self._one(number)
        self.board[_NUMBER] += 1

    def _one(self, number: int) -> None:
        data = self.input(number)
        try:
            with at_most(SECONDS):
                found = read(self.target, data, self.scratch)
        except self.target.refusals:
            self.board[_REFUSED] += 1
        except BaseException as exc:  # whatever it is, is what is looked for
            self.note(number, _place(exc), traceback.format_exc())
        else:
            self.board[_READ] += found > 0

    def note(self, number: int, what: str, how: str) -> None:
        """Keeps a finding, and its input if there are few like it."""
        if self.findings()[what] < _KEPT:
            (self._share.folder / f"{self._name}-{number}").write_bytes(self.input(number))
            (self._share.folder / f"{self._name}-{number}.txt").write_text(f"{what}\n{how}", errors="replace")
        with self._findings.open("a") as file:
            file.write(json.dumps(what) + "\n")

    def findings(self) -> Counter[str]:
        """How often each was found."""
        return Counter(map(json.loads, self._findings.read_text().splitlines())) if self._findings.exists() else Counter()


def _place(exc: BaseException) -> str:
    """The error, and where in our code it left."""
    frames = [frame for frame in traceback.extract_tb(exc.__traceback__) if "h5dat_lib" in frame.filename]
    where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno} {frames[-1].name}" if frames else "outside"
    return f"{type(exc).__name__} in {where}: {str(exc)[:80]}"


def _death(ended: Ended, log: Path) -> str:
    """What a child died of, and the innermost frames of Python."""
    frames = re.findall(r'File "[^"]*?([^/"]+)", line (\d+) in (\S+)', log.read_text(errors="replace"))
    return f"died of {ended.name} in " + " < ".join(f"{file}:{line} {name}" for file, line, name in frames[:3])
