"""A batch that its worker died of -> pieces, converted one by one, until each member that kills is alone and becomes a reject."""

from __future__ import annotations

import multiprocessing
import os
from dataclasses import replace
from functools import reduce
from itertools import pairwise
from multiprocessing.connection import Connection
from operator import add
from pathlib import Path

from h5dat_lib.errors import H5datError
from h5dat_lib.plan.batches import Batch
from h5dat_lib.stage.batch import Staged, end_with, mark, stage
from h5dat_lib.stage.marks import IDLE
from h5dat_lib.stage.watch import Death, reason_of

_PARTS = ("paths", "members", "rows", "rejects", "bytes", "seconds", "duplicates", "resolved", "requests", "received")
"""What each piece of a batch has its part of; the rest of what is `Staged` is the batch's."""


def _numbers(piece: Batch) -> range:
    """Of its members, in their batch."""
    return range(piece.first, piece.first + piece.members)


class Pieces:
    """A batch that its worker died of: its pieces that are to be converted, and those that are."""

    def __init__(self, batch: Batch, death: Death) -> None:
        self._stage = Path(batch.stage)
        self._todo: list[Batch] = []
        self._done: dict[int, Staged] = {}
        self._split(batch, death)

    @property
    def next(self) -> Batch | None:
        """The piece that is to be converted next."""
        return self._todo[-1] if self._todo else None

    def add(self, staged: Staged) -> None:
        """Takes what the next piece became."""
        self._done[self._todo.pop().first] = staged

    def died(self, death: Death) -> None:
        """Rejects the next piece if it is a single member, and splits it otherwise."""
        piece = self._todo[-1]
        if death.condemned and death.place.member not in _numbers(piece):
            return  # it was killed for the member before, which had just ended: the piece is tried again
        self._todo.pop()
        if piece.members == 1:
            self._condemn(piece, death.reason)
        else:
            self._split(piece, death)

    def _split(self, piece: Batch, death: Death) -> None:
        """Into what lies before the member that the worker died at, that member, and what lies behind; in halves if it is not known."""
        numbers, at = _numbers(piece), death.place.member
        cuts = {at, at + 1} if at in numbers else {numbers.start + len(numbers) // 2}
        for start, stop in reversed(list(pairwise(sorted({numbers.start, *cuts, numbers.stop})))):
            path = str(self._stage.with_suffix(f".{start}.piece"))
            part = replace(piece, first=start, members=stop - start, stage=path)
            if death.condemned and start == at:
                self._condemn(part, death.reason)
            else:
                self._todo.append(part)

    def _condemn(self, piece: Batch, reason: str) -> None:
        self._done[piece.first] = stage(replace(piece, condemned=reason))  # here: nothing is decoded

    def result(self) -> Staged:
        """All pieces, in the order of their members, as what the batch became."""
        pieces = [self._done[first] for first in sorted(self._done)]
        return replace(
            pieces[0], continued=pieces[-1].continued, **{name: reduce(add, (getattr(piece, name) for piece in pieces)) for name in _PARTS}
        )


class Died(Exception):
    """A process that was forked for a piece died; the argument is its `Death`."""


def stage_forked(piece: Batch) -> Staged:
    """`stage` in a process that is forked for it, so that it can die in 10 ms where a new worker takes 0.5 s. Raises Died.

    Safe since the worker that forks decodes nothing itself, and so has no threads but those of numpy's BLAS, which knows of forks.
    """
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_answer, args=(os.getpid(), piece, sender))
    child.start()
    sender.close()
    try:
        answer: Staged | Exception = receiver.recv()
    except EOFError:
        child.join()
        place = mark.place
        mark.note(IDLE)
        raise Died(Death(place, reason_of(child.exitcode or 0))) from None
    child.join()
    if isinstance(answer, Exception):
        raise answer
    return answer


def _answer(parent: int, piece: Batch, sender: Connection) -> None:
    end_with(parent)
    try:
        sender.send(stage(piece))
    except (H5datError, OSError, MemoryError) as exc:
        sender.send(exc)
