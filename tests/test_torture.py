"""The share of ``python -m tests.torture`` that every test run affords; its seeds are fixed."""

from __future__ import annotations

import pytest

from tests.torture.failures import fail
from tests.torture.figures import Figures
from tests.torture.kills import killed
from tests.torture.points import cut
from tests.torture.scenarios import SCENARIOS

SEED = 1


def expect_nothing_lost(figures: Figures) -> None:
    assert figures.violations == []
    assert (figures.counts["rows lost"], figures.counts["rows doubled"]) == (0, 0)


@pytest.mark.parametrize("name", ["dense", "dense becomes ragged, few pages held", "texts", "tables", "rejects"])
def test_an_output_that_is_cut_is_as_before_or_as_after_and_finishes_whole(name: str) -> None:
    figures = cut(name, SCENARIOS[name], SEED, step=101)
    expect_nothing_lost(figures)
    assert sum(figures.counts.values()) > 20


def test_a_disk_that_fails_leaves_the_output_as_it_was_and_the_same_commit_succeeds_later() -> None:
    figures = fail("tables", SCENARIOS["tables"], SEED, step=251)
    expect_nothing_lost(figures)
    assert figures.counts["disk failed: EIO once"]


@pytest.mark.slow
def test_processes_that_are_killed_lose_nothing_and_double_nothing() -> None:
    figures = killed("zip", SEED, 3)
    expect_nothing_lost(figures)
    assert figures.counts["kills survived, direct"] == 3
