"""What an object holds and what a file holds -> the parts of an upload that makes them equal: what is the same is copied in the store."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count, pairwise

from h5dat_lib.sync.digests import SPAN, Digests

__all__ = ["LEAST_BYTES", "Part", "parts_of"]

LEAST_BYTES = 5 << 20
"""S3's smallest part, but for the last of an upload..."""
_MOST_BYTES = 5 << 30
"""...its largest..."""
_MOST_PARTS = 10_000
"""...and how many there may be."""
_SENT_BYTES = 16 << 20
"""Largest part that is sent: what has to be sent again when a connection breaks."""
_COPIED_BYTES = 256 << 20
"""Largest part that is copied in the store, so that several can be at once, and none takes longer than an answer is waited for."""

Run = tuple[bool, int, int]
"""Whether it is copied, its first span, the one behind its last."""


@dataclass(frozen=True)
class Part:
    """``size`` bytes from ``start`` on, the same place in the file and in the object."""

    number: int
    """From 1 on."""
    start: int
    size: int
    copied: bool


def parts_of(new: Digests, old: Digests) -> list[Part]:
    """The parts by which an object with the digests ``old`` becomes one with ``new``, within all that S3 asks of parts.

    Each place that has changed costs at least a smallest part. Parts are made larger, by doubling, when they would be too many.
    """
    same = new.same(old)
    for doubled in count():
        parts = [
            (copied, start, end)
            for copied, first, behind in _runs(same, (LEAST_BYTES << doubled) // SPAN)
            for start, end in _cut(first, behind, min((_COPIED_BYTES if copied else _SENT_BYTES) << doubled, _MOST_BYTES) // SPAN)
        ]
        if len(parts) <= _MOST_PARTS:
            break
    return [
        Part(number, start * SPAN, min(end * SPAN, new.size) - start * SPAN, copied) for number, (copied, start, end) in enumerate(parts, 1)
    ]


def _runs(same: Sequence[bool], least: int) -> Iterator[Run]:
    """Runs of spans that are copied and such that are sent, by turns; all but the last have at least ``least`` spans."""
    length = _lengths(same)
    long = [found >= least or 0 < found == len(same) - at for at, found in enumerate(length)]
    at = 0
    while at < len(same):
        if long[at]:
            yield True, at, at + length[at]
            at += length[at]
            continue
        end = min(at + least, len(same))
        while end < len(same) and not long[end]:
            end += 1
        yield False, at, end
        at = end


def _lengths(same: Sequence[bool]) -> list[int]:
    """For each span, how many from it on are the same."""
    lengths = [0] * len(same)
    following = 0
    for at in range(len(same) - 1, -1, -1):
        following = lengths[at] = following + 1 if same[at] else 0
    return lengths


def _cut(first: int, behind: int, most: int) -> Iterator[tuple[int, int]]:
    """The range in as few pieces of at most ``most`` as it takes, all of about one size."""
    pieces = -(-(behind - first) // most)
    borders = [first + (behind - first) * number // pieces for number in range(pieces + 1)]
    yield from pairwise(borders)
