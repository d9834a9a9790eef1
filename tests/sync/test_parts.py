"""The parts of an upload, against what S3 asks of parts."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from h5dat_lib.sync.digests import NOTHING, SPAN, Digests
from h5dat_lib.sync.parts import LEAST_BYTES, Part, parts_of


def digests(spans: int, changed: set[int] | frozenset[int] = frozenset(), less: int = 0) -> Digests:
    """Digests of a file of so many spans, ``less`` bytes shorter, of which some are others than by default."""
    numbers = np.arange(spans, dtype="u8").repeat(4).reshape(-1, 4)
    for number in changed:
        numbers[number] += 1 << 40
    return Digests(size=max(spans * SPAN - less, 0), sha256=numbers.tobytes(), crc32=bytes(4 * spans))


def check(parts: list[Part], new: Digests, old: Digests) -> None:
    assert [part.number for part in parts] == list(range(1, len(parts) + 1))
    assert len(parts) <= 10_000
    assert sum(part.size for part in parts) == new.size
    assert all(first.start + first.size == second.start for first, second in pairwise(parts))
    assert all(LEAST_BYTES <= part.size <= 5 << 30 for part in parts[:-1])
    same = new.same(old)
    for part in parts:
        if part.copied:
            assert part.start + part.size <= old.size or part.start + part.size == new.size
            assert all(same[part.start // SPAN : -(-(part.start + part.size) // SPAN)])


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 400), st.integers(0, 400), st.sets(st.integers(0, 399), max_size=30), st.sampled_from((0, 1, SPAN - 1)))
def test_parts_are_the_file_within_the_limits_of_s3(spans: int, before: int, changed: set[int], less: int) -> None:
    new = digests(spans, {number for number in changed if number < spans}, less)
    old = digests(before)
    if less and before >= spans:  # the last span, being shorter, is another
        new = digests(spans, {spans - 1} | {number for number in changed if number < spans}, less)
    check(parts_of(new, old), new, old)


@settings(deadline=None, max_examples=50)
@given(st.integers(30, 400), st.sets(st.integers(0, 399), max_size=4))
def test_each_place_that_has_changed_costs_a_smallest_part_at_most(spans: int, changed: set[int]) -> None:
    new, old = digests(spans, {number for number in changed if number < spans}), digests(spans)
    sent = sum(part.size for part in parts_of(new, old) if not part.copied)
    # a run of fewer spans than a part has, between two places or before the first, cannot be copied
    assert sent <= 2 * LEAST_BYTES * (len(changed) + 1)


def test_what_was_added_is_all_that_is_sent() -> None:
    new, old = digests(2000), digests(1980)
    parts = parts_of(new, old)
    check(parts, new, old)
    assert [part.start for part in parts if not part.copied] == [1980 * SPAN, 1990 * SPAN]


def test_a_file_that_has_not_changed_is_copied_and_a_new_one_sent() -> None:
    same = digests(700)
    assert all(part.copied for part in parts_of(same, same))
    assert not any(part.copied for part in parts_of(same, NOTHING))


def test_parts_grow_where_they_would_be_too_many() -> None:
    spans = 300_000
    new, old = digests(spans, set(range(0, spans, 12))), digests(spans)
    for before in (old, NOTHING):
        parts = parts_of(new, before)
        check(parts, new, before)
        assert len(parts) > 4_000
