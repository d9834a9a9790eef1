"""Times of all frames of a video in, the numbers of those that are wanted out; pure functions, nothing is decoded.

Frames are numbered from 0 in the order in which they are shown.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from h5dat_lib.config import VideoOptions

Numbers = NDArray[np.int64]
Flags = NDArray[np.bool_]
_SLACK = 1e-6
"""Of a tick: 0.29 * 100 is 28.999999999999996, and still the frame of tick 29."""


def chosen(times: NDArray[np.float64], keyframes: Flags, options: VideoOptions) -> Numbers:
    """The numbers of the frames that ``options`` ask for, rising. ``times`` (frames,) are seconds, rising; ``keyframes`` (frames,)."""
    wanted = times >= options.start
    if options.end is not None:
        wanted &= times < options.end
    if options.keyframes:
        wanted &= keyframes
    numbers = np.flatnonzero(wanted)[:: options.every]
    if options.fps is not None:
        numbers = numbers[_first_of_ticks(times[numbers] - options.start, options.fps)]
    return numbers[: options.max_frames]


def _first_of_ticks(times: NDArray[np.float64], fps: float) -> Flags:
    """Which frames are the first at or behind a tick; ticks are ``1 / fps`` apart from time 0 on. One frame may be that of several."""
    ticks = np.floor(times * fps + _SLACK)
    return np.diff(ticks, prepend=-1.0) > 0


def part(keyframes: Flags, number: int, count: int) -> range:
    """The frames of one of ``count`` parts of about as many frames each; parts start at keyframes and may be empty.

    All parts, one after the other, are all frames.
    """
    starts = np.flatnonzero(keyframes)
    return range(_cut(starts, len(keyframes), number, count), _cut(starts, len(keyframes), number + 1, count))


def _cut(starts: Numbers, frames: int, number: int, count: int) -> int:
    """The keyframe that is nearest to where equal parts would be cut, or either end."""
    if number in (0, count):
        return frames * number // count
    if not len(starts):
        return frames
    return int(starts[np.argmin(np.abs(starts - frames * number / count))])


def runs(numbers: Numbers, anchors: Numbers, places: Numbers) -> list[tuple[int, Numbers]]:
    """How to get at frames: for each run, the anchor that decoding starts from, and the frames that are taken on the way, in order.

    ``anchors`` are the places of keyframes, rising, ``places`` (frames,) those of all frames, on the same scale. A frame is decoded
    from the last keyframe that is not shown after it: one that is coded behind a keyframe but shown before it needs the one before.
    Decoding goes on from one keyframe to the next, and starts anew only where it would pass over at least one in vain.
    """
    if not len(numbers):
        return []
    start = np.maximum(np.searchsorted(anchors, places[numbers], side="right") - 1, 0)
    breaks = np.flatnonzero(np.diff(start) > 1) + 1
    return [(int(start[0 if not n else breaks[n - 1]]), group) for n, group in enumerate(np.split(numbers, breaks))]


def spread(frames: int, count: int) -> Numbers:
    """The numbers of up to ``count`` frames that are evenly spaced over a video: the middle of each of as many equal stretches."""
    return np.unique((np.arange(count) + 0.5) * frames // count).astype(np.int64) if frames else np.zeros(0, np.int64)
