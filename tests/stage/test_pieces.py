"""Pieces of a batch: smaller with every death, until a member that kills is alone; all others are kept, in their order."""

from __future__ import annotations

from pathlib import Path

import pytest

from h5dat_lib.archive import open_archive
from h5dat_lib.plan.batches import Batch, Plan
from h5dat_lib.plan.layout import Forms
from h5dat_lib.stage.batch import stage
from h5dat_lib.stage.marks import NOWHERE, Place
from h5dat_lib.stage.pieces import Pieces
from h5dat_lib.stage.watch import Death
from tests.conftest import config, make_zip

MEMBERS = 10


@pytest.fixture
def batch(tmp_path: Path) -> Batch:
    settings = config()
    (tmp_path / "config.json").write_text(settings.to_json())
    archive = make_zip(tmp_path / "a.zip", {f"{n}.txt": b"x" for n in range(MEMBERS)})
    [batch] = Plan(open_archive(str(archive), settings.limits), 0, settings, tmp_path).batches(Forms())
    return batch


def death(member: int, condemned: bool = False) -> Death:
    return Death(Place(0, 0, member, 1.0), "crashed", condemned=condemned)


def tried(pieces: Pieces, killers: set[int], marked: bool) -> list[range]:
    """Tries all pieces: those with a killer die, with or without a mark of where. What was tried, in this order."""
    tries = []
    while piece := pieces.next:
        members = range(piece.first, piece.first + piece.members)
        tries.append(members)
        found = [member for member in members if member in killers]
        if found:
            pieces.died(death(found[0] if marked else NOWHERE))
        else:
            pieces.add(stage(piece))
    return tries


def test_a_batch_is_cut_at_the_member_that_its_worker_died_at(batch: Batch) -> None:
    pieces = Pieces(batch, death(4))
    assert tried(pieces, {4}, marked=True) == [range(4), range(4, 5), range(5, 10)]
    staged = pieces.result()
    assert (staged.members, staged.rows, staged.rejects, len(staged.paths)) == (10, 9, 1, 3)


def test_a_batch_is_halved_where_no_mark_says_who_kills(batch: Batch) -> None:
    pieces = Pieces(batch, death(NOWHERE))
    assert tried(pieces, {6}, marked=False) == [range(5), range(5, 10), range(5, 7), range(5, 6), range(6, 7), range(7, 10)]
    assert (pieces.result().rows, pieces.result().rejects) == (9, 1)


def test_a_member_that_does_not_kill_when_it_is_alone_is_kept(batch: Batch) -> None:
    pieces = Pieces(batch, death(4))
    tried(pieces, set(), marked=True)
    assert (pieces.result().rows, pieces.result().rejects) == (10, 0)


@pytest.mark.parametrize("killers", [{0}, {9}, {0, 1, 2, 9}, set(range(MEMBERS))], ids=str)
def test_each_killer_is_one_reject_after_a_few_tries(batch: Batch, killers: set[int]) -> None:
    pieces = Pieces(batch, death(min(killers)))
    tries = tried(pieces, killers, marked=True)
    assert len(tries) <= 3 * len(killers) + 1
    staged = pieces.result()
    assert (staged.members, staged.rows, staged.rejects) == (10, 10 - len(killers), len(killers))
    assert staged.stored == batch.stored


def test_a_member_that_was_timed_out_is_rejected_without_another_try(batch: Batch) -> None:
    pieces = Pieces(batch, death(4, condemned=True))
    assert tried(pieces, set(), marked=True) == [range(4), range(5, 10)]
    assert pieces.result().rejects == 1


def test_a_piece_is_tried_again_whose_process_was_killed_for_the_member_before(batch: Batch) -> None:
    pieces = Pieces(batch, death(4))
    pieces.add(stage(pieces.next))  # type: ignore[arg-type]
    pieces.died(death(3, condemned=True))
    assert tried(pieces, set(), marked=True) == [range(4, 5), range(5, 10)]
    assert pieces.result().rejects == 0
