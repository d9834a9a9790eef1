"""Orders, shards and states, for any number of rows, ranks, workers and batches."""

from __future__ import annotations

import json
import pickle
import tracemalloc
from collections import Counter
from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from h5dat_lib.errors import ConfigError
from h5dat_lib.training.sampling import Order, Sampler, Shard, Shuffle

COUNTS = st.integers(0, 700)
SHUFFLES = st.one_of(
    st.none(),
    st.builds(Shuffle, seed=st.integers(0, 99)),
    st.integers(1, 40).flatmap(
        lambda block: st.builds(Shuffle, seed=st.integers(0, 9), window=st.integers(block, 200), block=st.just(block))
    ),
)


def order(count: int, shuffle: Shuffle | None, epoch: int = 0) -> list[int]:
    return Order(count, shuffle, epoch)[np.arange(count)].tolist()


def taken(sampler: Sampler, worker: int = 0, workers: int = 1) -> list[int]:
    return [row for run in sampler.runs(worker, workers) for row in run.tolist()]


@settings(deadline=None, max_examples=60)
@given(COUNTS, SHUFFLES, st.integers(0, 5))
def test_an_epoch_has_every_row_once(count: int, shuffle: Shuffle | None, epoch: int) -> None:
    assert sorted(order(count, shuffle, epoch)) == list(range(count))


@settings(deadline=None, max_examples=60)
@given(COUNTS, SHUFFLES, st.data())
def test_any_part_of_an_order_is_what_stands_there_in_the_whole(count: int, shuffle: Shuffle | None, data: Any) -> None:
    places = data.draw(st.lists(st.integers(0, count - 1), max_size=20) if count else st.just([]))
    whole = order(count, shuffle)
    assert Order(count, shuffle, 0)[np.array(places, "i8")].tolist() == [whole[place] for place in places]


def test_orders_are_those_of_every_release_and_machine() -> None:
    assert order(10, Shuffle(seed=7)) == ORDERS["all"]
    assert order(10, Shuffle(seed=7), epoch=1) == ORDERS["next epoch"]
    assert order(12, Shuffle(seed=7, window=4, block=2)) == ORDERS["windows"]
    assert Order(10**6, Shuffle(seed=7), 0)[np.arange(5)].tolist() == ORDERS["of many"]


ORDERS = {
    "all": [1, 6, 2, 4, 7, 8, 9, 3, 0, 5],
    "next epoch": [7, 8, 3, 1, 5, 6, 2, 4, 0, 9],
    "windows": [1, 8, 9, 0, 7, 11, 6, 10, 3, 2, 4, 5],
    "of many": [614000, 394175, 267716, 813067, 629086],
}


@pytest.mark.parametrize("count", [2, 3, 5, 16, 17])
def test_every_row_is_as_often_at_every_place(count: int) -> None:
    epochs = 2000
    seen = np.zeros((count, count))
    for epoch in range(epochs):
        seen[np.arange(count), order(count, Shuffle(seed=3), epoch)] += 1
    freedoms = (count - 1) ** 2
    assert ((seen - epochs / count) ** 2 / (epochs / count)).sum() < freedoms + 5 * np.sqrt(2 * freedoms)  # chi squared


def test_neighbours_do_not_stay_neighbours() -> None:
    rows = np.array(order(100_000, Shuffle(seed=1)))
    assert abs(np.corrcoef(rows, np.arange(len(rows)))[0, 1]) < 0.02
    assert abs(np.corrcoef(rows[1:], rows[:-1])[0, 1]) < 0.02
    assert np.mean(np.abs(np.diff(rows)) == 1) < 1e-3


def test_a_billion_rows_take_no_memory() -> None:
    sampler = Sampler(10**9, 64, Shuffle(), Shard(3, 8))
    tracemalloc.start()
    next(sampler.runs(1, 2))
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 700), st.integers(1, 30), st.integers(0, 200))
def test_a_block_is_in_one_window_and_a_window_is_not_larger_than_said(count: int, block: int, more: int) -> None:
    window = block + more
    blocks = [row // block for row in order(count, Shuffle(window=window, block=block))]
    first, last = {}, {}
    for place, number in enumerate(blocks):
        first.setdefault(number, place)
        last[number] = place
    assert all(last[number] - first[number] < window for number in first)


def test_rows_are_shuffled_within_a_window_and_windows_differ() -> None:
    rows = order(1000, Shuffle(window=100, block=10))
    assert len({row // 10 for row in rows[:10]}) > 3
    assert len({row // 10 for row in rows[:100]}) == 10
    assert sorted(row % 100 for row in rows[:100]) != list(range(100))


# Ranks


@settings(deadline=None, max_examples=60)
@given(COUNTS, SHUFFLES, st.integers(1, 9), st.integers(1, 70))
def test_ranks_that_keep_what_is_uneven_have_every_row_once(count: int, shuffle: Shuffle | None, ranks: int, batch: int) -> None:
    parts = [taken(Sampler(count, batch, shuffle, Shard(rank, ranks, "keep"))) for rank in range(ranks)]
    assert sorted(chain(*parts)) == list(range(count))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@settings(deadline=None, max_examples=60)
@given(COUNTS, SHUFFLES, st.integers(1, 9), st.sampled_from(["pad", "drop"]))
def test_ranks_have_as_many_rows_each_as_torch_would_give_them(count: int, shuffle: Shuffle | None, ranks: int, uneven: Any) -> None:
    parts = [taken(Sampler(count, 8, shuffle, Shard(rank, ranks, uneven))) for rank in range(ranks)]
    size = count // ranks if uneven == "drop" else -(-count // ranks)
    assert [len(part) for part in parts] == [size] * ranks
    seen, whole = Counter(chain(*parts)), order(count, shuffle)
    extra = whole * ranks
    assert seen == Counter((whole + extra)[: size * ranks])


@settings(deadline=None, max_examples=60)
@given(COUNTS, SHUFFLES, st.integers(1, 4), st.integers(1, 5), st.integers(1, 70))
def test_batches_of_workers_in_turn_are_those_of_one_process(
    count: int, shuffle: Shuffle | None, ranks: int, workers: int, batch: int
) -> None:
    alone = [run.tolist() for run in Sampler(count, batch, shuffle, Shard(0, ranks)).runs()]
    parts = [[run.tolist() for run in Sampler(count, batch, shuffle, Shard(0, ranks)).runs(worker, workers)] for worker in range(workers)]
    in_turn = [part[turn] for turn in range(len(alone)) for part in parts if turn < len(part)]
    assert in_turn == alone
    assert all(len(run) == batch for run in alone[:-1])


@settings(deadline=None, max_examples=60)
@given(SHUFFLES, st.lists(st.integers(0, 10**6), unique=True, max_size=300))
def test_chosen_rows_are_taken_and_no_others(shuffle: Shuffle | None, rows: list[int]) -> None:
    assert sorted(taken(Sampler(np.array(rows, "i8"), 7, shuffle))) == sorted(rows)


# States


@settings(deadline=None, max_examples=60)
@given(COUNTS, SHUFFLES, st.integers(1, 3), st.integers(1, 70), st.integers(0, 800))
def test_a_state_goes_on_at_the_next_row(count: int, shuffle: Shuffle | None, workers: int, batch: int, used: int) -> None:
    for worker in range(workers):
        sampler = Sampler(count, batch, shuffle)
        sampler.set_epoch(4)
        whole = taken(sampler, worker, workers)
        used = min(used, len(whole))
        sampler.runs(worker, workers)
        sampler.take(used)
        state = json.loads(json.dumps(sampler.state_dict()))
        other = Sampler(count, batch, shuffle)
        other.load_state_dict(state)
        other.set_epoch(4)
        assert taken(other, worker, workers) == whole[used:]
        assert taken(other, worker, workers) == whole, "the next time it begins at the start"


@settings(deadline=None, max_examples=60)
@given(COUNTS, SHUFFLES, st.integers(1, 4), st.integers(1, 70), st.integers(0, 800))
def test_what_one_process_has_left_is_dealt_to_any_number_of_workers(
    count: int, shuffle: Shuffle | None, workers: int, batch: int, used: int
) -> None:
    sampler = Sampler(count, batch, shuffle)
    whole = taken(sampler)
    sampler.runs()
    sampler.take(used := min(used, count))
    others = [Sampler(count, batch, shuffle) for _ in range(workers)]
    for other in others:
        other.load_state_dict(sampler.state_dict())
    left = [taken(other, worker, workers) for worker, other in enumerate(others)]
    assert sorted(chain(*left)) == sorted(whole[used:])


def test_another_epoch_begins_at_its_start_and_the_same_one_goes_on() -> None:
    sampler = Sampler(100, 10, Shuffle())
    sampler.runs()
    sampler.take(35)
    state = sampler.state_dict()
    sampler.load_state_dict(state)
    sampler.set_epoch(0)
    assert len(taken(sampler)) == 65
    sampler.load_state_dict(state)
    sampler.set_epoch(1)
    assert taken(sampler) == order(100, Shuffle(), 1)


@pytest.mark.parametrize(
    "other",
    [
        Sampler(101, 10, Shuffle()),
        Sampler(100, 11, Shuffle()),
        Sampler(100, 10, Shuffle(seed=1)),
        Sampler(100, 10),
        Sampler(100, 10, Shuffle(), Shard(1, 2)),
        Sampler(np.arange(100), 10, Shuffle()),
    ],
)
def test_the_state_of_another_order_is_refused(other: Sampler) -> None:
    with pytest.raises(ConfigError, match="begin the epoch anew"):
        Sampler(100, 10, Shuffle()).load_state_dict(other.state_dict())


def test_the_state_of_another_worker_is_refused() -> None:
    sampler = Sampler(100, 10)
    sampler.runs(1, 2)
    sampler.take(3)
    sampler.load_state_dict(sampler.state_dict())
    with pytest.raises(ConfigError, match="worker 1 of 2, expected one of worker 0 of 3"):
        sampler.runs(0, 3)


def test_a_sampler_can_be_pickled() -> None:
    sampler = Sampler(np.arange(50), 8, Shuffle(window=20, block=5), Shard(1, 2))
    assert taken(pickle.loads(pickle.dumps(sampler))) == taken(sampler)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Shuffle(window=3, block=4),
        lambda: Shuffle(block=0),
        lambda: Shard(2, 2),
        lambda: Shard(-1, 2),
        lambda: replace(Shard(), uneven="some"),  # type: ignore[arg-type]
        lambda: Sampler(5, 0),
    ],
)
def test_what_cannot_be_is_refused(make: Any) -> None:
    with pytest.raises(ConfigError, match="found"):
        make()
