"""Ranges that will be read -> few large requests: neighbours are fetched together, and the next window while one is being read."""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from operator import itemgetter

from h5dat_lib.storage.source import Range

__all__ = ["Windows"]

_WINDOW_BYTES = 16 << 20
_KEPT_BYTES = 2 * _WINDOW_BYTES
_MOST_COMING = 2
"""Windows that are fetched ahead: one, and another when the next to be read was not the next in place."""
_GAP_BYTES = 64 << 10
"""What lies between two ranges is read with them when it is no more: that takes less time than another request."""
_LEAST_BYTES = 64 << 10
"""A read that was not expected fetches as much..."""
_NEAR_BYTES = 1 << 20
"""...and twice as much as the one before when it begins no further behind that than this: what a request and a connection are worth."""
_LARGEST = 1 << 62

Fetch = Callable[[int, int], memoryview]
"""Offset and size -> as many bytes, by one request."""


class Windows:
    """An object far away, read through windows of up to 16 MiB; holds two of them, and two that are being fetched.

    What is expected is cut into windows, and fetched as it is asked for, the next one in a thread meanwhile. What is not expected is
    fetched in windows that grow as long as it is read on from near where the last ended.
    """

    def __init__(self, fetch: Fetch, size: int) -> None:
        self._fetch = fetch
        self._size = size
        self._kept: OrderedDict[int, memoryview] = OrderedDict()
        self._order: list[Range] = []
        """Expected windows as start and end, in the order of fetching..."""
        self._places: list[tuple[int, int]] = []
        """...and their starts with their numbers in that order, by start."""
        self._coming: OrderedDict[int, Future[memoryview]] = OrderedDict()
        self._fetching: ThreadPoolExecutor | None = None
        self._growing = _LEAST_BYTES
        self._last_end = -_LARGEST

    def expect(self, ranges: Iterable[Range]) -> None:
        """Says what will be read next, in that order."""
        self._order = list(_windows(ranges, self._size))
        self._places = sorted((start, number) for number, (start, _) in enumerate(self._order))

    def keep(self, start: int, data: memoryview) -> None:
        """Takes what is there already."""
        self._kept[start] = data
        while len(self._kept) > 1 and sum(map(len, self._kept.values())) > _KEPT_BYTES:
            self._kept.popitem(last=False)

    def read_at(self, offset: int, size: int) -> bytes:
        """``size`` bytes from ``offset`` on; fewer only at the end of the object."""
        if not 0 <= offset < self._size:
            return b""
        end = min(offset + size, self._size)
        pieces = []
        while offset < end:
            start, data = self._window(offset, end)
            piece = data[offset - start : end - start]
            pieces.append(piece)
            offset += len(piece)
        return pieces[0].tobytes() if len(pieces) == 1 else b"".join(pieces)

    def close(self) -> None:
        """Waits for what is being fetched, so that it is counted."""
        if self._fetching:
            self._fetching.shutdown(wait=True, cancel_futures=True)
        self._kept.clear()

    def _window(self, offset: int, end: int) -> tuple[int, memoryview]:
        """A window that the byte at ``offset`` lies in, and where it starts."""
        number = bisect_right(self._places, (offset, _LARGEST)) - 1
        if number >= 0 and offset < self._order[self._places[number][1]][1]:
            return self._expected(self._places[number][1])
        for start in reversed(self._kept):
            if start <= offset < start + len(self._kept[start]):
                return start, self._kept[start]
        return offset, self._unexpected(offset, end)

    def _expected(self, number: int) -> tuple[int, memoryview]:
        start, end = self._order[number]
        if start in self._kept:
            self._kept.move_to_end(start)
            return start, self._kept[start]
        coming = self._coming.pop(number, None)
        data = coming.result() if coming else self._fetch(start, end - start)
        self.keep(start, data)
        self._fetch_ahead(number + 1)
        return start, data

    def _fetch_ahead(self, number: int) -> None:
        if number < len(self._order) and number not in self._coming and self._order[number][0] not in self._kept:
            if len(self._coming) == _MOST_COMING:
                self._coming.popitem(last=False)
            self._fetching = self._fetching or ThreadPoolExecutor(1, "s3")
            start, end = self._order[number]
            self._coming[number] = self._fetching.submit(self._fetch, start, end - start)

    def _unexpected(self, offset: int, end: int) -> memoryview:
        near = 0 <= offset - self._last_end <= _NEAR_BYTES
        self._growing = min(2 * self._growing, _WINDOW_BYTES) if near else _LEAST_BYTES
        size = min(max(end - offset, self._growing), self._size - offset)
        data = self._fetch(offset, size)
        self.keep(offset, data)
        self._last_end = offset + size
        return data


def _windows(ranges: Iterable[Range], size: int) -> Iterator[Range]:
    """Ranges as windows, start and end: of as many as fill one, neighbours are joined."""
    group: list[Range] = []
    held = 0
    for offset, length in ranges:
        end = min(offset + length, size)
        if not 0 <= offset < end:
            continue
        near = bool(group) and abs(offset - group[-1][1]) <= _GAP_BYTES
        added = end - (group[-1][1] if near else offset)
        if held + added > _WINDOW_BYTES:
            yield from _joined(group)
            group, held, added = [], 0, end - offset
        group.append((offset, end))
        held += added
    yield from _joined(group)


def _joined(group: list[Range]) -> Iterator[Range]:
    """Neighbours as one, what is longer than a window as several, in the order in which they will be read first."""
    runs: list[list[int]] = []
    for number, (offset, end) in sorted(enumerate(group), key=itemgetter(1)):
        if runs and offset - runs[-1][2] <= _GAP_BYTES:
            first, start, reached = runs[-1]
            runs[-1] = [min(first, number), start, max(reached, end)]
        else:
            runs.append([number, offset, end])
    for _, start, reached in sorted(runs):
        yield from ((at, min(at + _WINDOW_BYTES, reached)) for at in range(start, reached, _WINDOW_BYTES))
