"""Items that take time to make in -> the same items out, made in another thread while those before them are used."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar, cast

T = TypeVar("T")

_WAITING = 2
"""Items that are made, or being made, before they are asked for."""
_END = object()


def ahead(items: Iterator[T]) -> Iterator[T]:
    """The same items; what making them raises comes in its place. Once this is left, no thread is at work on them any more."""
    with ThreadPoolExecutor(1) as thread:
        coming = deque(thread.submit(next, items, _END) for _ in range(_WAITING))
        while (item := coming.popleft().result()) is not _END:
            coming.append(thread.submit(next, items, _END))
            yield cast(T, item)
