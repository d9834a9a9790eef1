"""Ranges through windows: always the object's bytes, neighbours together, memory bounded."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from h5dat_lib.storage import windows
from h5dat_lib.storage.windows import Windows

DATA = random.Random(6).randbytes(50_000)


class _Object:
    """`DATA`, with what was fetched of it."""

    def __init__(self) -> None:
        self.fetched: list[tuple[int, int]] = []

    def fetch(self, offset: int, size: int) -> memoryview:
        assert 0 <= offset < offset + size <= len(DATA)
        self.fetched.append((offset, size))
        return memoryview(DATA)[offset : offset + size]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows of a thousandth, so that small data has many."""
    for name, size in {"_WINDOW_BYTES": 4000, "_KEPT_BYTES": 8000, "_GAP_BYTES": 100, "_LEAST_BYTES": 50, "_NEAR_BYTES": 300}.items():
        monkeypatch.setattr(windows, name, size)


RANGES = st.lists(st.tuples(st.integers(-10, 51_000), st.integers(0, 9000)), max_size=12)


@given(RANGES, RANGES)
def test_any_read_gives_the_bytes_that_are_there_whatever_was_expected(
    expected: list[tuple[int, int]], read: list[tuple[int, int]]
) -> None:
    found = Windows(_Object().fetch, len(DATA))
    found.expect(expected)
    for offset, size in (*expected, *read):
        assert found.read_at(offset, size) == (DATA[offset : offset + size] if offset >= 0 else b"")
        assert sum(map(len, found._kept.values())) <= 8000 or len(found._kept) == 1
    found.close()


def test_expected_neighbours_are_fetched_once_and_together_and_the_next_window_meanwhile() -> None:
    source = _Object()
    found = Windows(source.fetch, len(DATA))
    ranges = [(at, 190) for at in range(0, 20_000, 200)]  # 10 bytes between them
    found.expect(ranges)
    for offset, size in ranges:
        assert found.read_at(offset, size) == DATA[offset : offset + size]
    found.close()
    assert len(source.fetched) == 5
    assert sum(size for _, size in source.fetched) <= 20_000


def test_what_lies_far_apart_is_fetched_apart() -> None:
    source = _Object()
    found = Windows(source.fetch, len(DATA))
    found.expect([(0, 50), (1000, 50), (1060, 40)])
    for offset, size in ((0, 50), (1000, 50), (1060, 40)):
        found.read_at(offset, size)
    found.close()
    assert sorted(source.fetched) == [(0, 50), (1000, 100)]


def test_members_in_another_order_than_their_bytes_do_not_fetch_the_same_again() -> None:
    source = _Object()
    found = Windows(source.fetch, len(DATA))
    ranges = [(at, 200) for at in range(0, 40_000, 200)]
    random.Random(1).shuffle(ranges)
    found.expect(ranges)
    for offset, size in ranges:
        assert found.read_at(offset, size) == DATA[offset : offset + size]
    found.close()
    assert sum(size for _, size in source.fetched) <= 1.2 * 40_000


def test_what_is_longer_than_a_window_comes_in_several() -> None:
    source = _Object()
    found = Windows(source.fetch, len(DATA))
    found.expect([(100, 11_000)])
    assert b"".join(found.read_at(at, 50) for at in range(100, 11_100, 50)) == DATA[100:11_100]
    found.close()
    assert [size for _, size in sorted(source.fetched)] == [4000, 4000, 3000]


def test_unexpected_reads_on_and_on_grow_and_a_jump_begins_small_again() -> None:
    source = _Object()
    found = Windows(source.fetch, len(DATA))
    for at in range(0, 10_000, 10):
        found.read_at(at, 10)
    found.read_at(40_000, 10)
    assert [size for _, size in source.fetched] == [50, 100, 200, 400, 800, 1600, 3200, 4000, 50]
