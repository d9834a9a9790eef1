"""Items made ahead are the same items in the same order, few at a time, and an error comes where it was raised."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from h5dat_lib.convert.ahead import ahead


def test_all_items_come_in_order_and_are_made_in_another_thread() -> None:
    makers = set()

    def items() -> Iterator[int]:
        for number in range(100):
            makers.add(threading.get_ident())
            yield number

    assert list(ahead(items())) == list(range(100))
    assert len(makers) == 1 and threading.get_ident() not in makers


def test_an_error_comes_behind_the_items_before_it() -> None:
    def items() -> Iterator[int]:
        yield 1
        yield 2
        raise ValueError("no third")

    coming = ahead(items())
    assert [next(coming), next(coming)] == [1, 2]
    with pytest.raises(ValueError, match="no third"):
        next(coming)


def test_no_more_are_made_than_a_few_before_they_are_asked_for_and_none_once_it_is_left() -> None:
    made: list[int] = []
    before = threading.active_count()

    def items() -> Iterator[int]:
        for number in range(100):
            made.append(number)
            yield number

    coming = ahead(items())
    assert next(coming) == 0
    coming.close()  # type: ignore[attr-defined]
    assert len(made) <= 3
    assert threading.active_count() == before
