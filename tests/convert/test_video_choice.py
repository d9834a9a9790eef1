"""Which frames are taken, and how they are got at: compared with the rules said one frame at a time."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from h5dat_lib.config import VideoOptions
from h5dat_lib.convert.video_choice import chosen, part, runs, spread

MILLISECONDS = st.lists(st.integers(1, 400), min_size=1, max_size=60).map(lambda steps: np.cumsum(steps) - steps[0])
OPTIONS = st.builds(
    VideoOptions,
    start=st.integers(0, 3000).map(lambda ms: ms / 1000),
    end=st.none() | st.integers(1, 9000).map(lambda ms: ms / 1000),
    keyframes=st.booleans(),
    every=st.integers(1, 5),
    fps=st.none() | st.sampled_from((0.5, 1.0, 4.0, 12.5, 100.0)),
    max_frames=st.none() | st.integers(1, 10),
)


def by_the_rules(times: list[Fraction], keyframes: list[bool], options: VideoOptions) -> list[int]:
    """The same, one rule after the other, with exact numbers."""
    start = Fraction(str(options.start))
    found = [n for n, time in enumerate(times) if time >= start and (options.end is None or time < Fraction(str(options.end)))]
    found = [n for n in found if keyframes[n] or not options.keyframes][:: options.every]
    if options.fps is not None:
        ticks = [(times[n] - start) * Fraction(options.fps) // 1 for n in found]
        found = [n for at, n in enumerate(found) if at == 0 or ticks[at] > ticks[at - 1]]
    return found[: options.max_frames]


@given(MILLISECONDS, st.randoms(), OPTIONS)
def test_frames_are_chosen_by_the_rules(times: np.ndarray, random: object, options: VideoOptions) -> None:
    keyframes = [n == 0 or random.random() < 0.3 for n in range(len(times))]  # type: ignore[attr-defined]
    found = chosen(times / 1000, np.array(keyframes), options)
    assert found.tolist() == by_the_rules([Fraction(int(time), 1000) for time in times], keyframes, options)


def test_a_tick_is_met_in_spite_of_rounding() -> None:
    times = np.arange(200) / 100
    assert chosen(times, np.ones(200, bool), VideoOptions(fps=100)).tolist() == list(range(200))
    assert chosen(times, np.ones(200, bool), VideoOptions(fps=10)).tolist() == list(range(0, 200, 10))


@given(st.lists(st.booleans(), min_size=1, max_size=200), st.integers(1, 12))
def test_parts_are_all_frames_and_start_at_keyframes(keyframes: list[bool], count: int) -> None:
    flags = np.array(keyframes)
    parts = [part(flags, number, count) for number in range(count)]
    assert [n for one in parts for n in one] == list(range(len(flags)))
    assert all(flags[one.start] for one in parts[1:] if len(one) and one.start)


@given(st.integers(1, 20), st.integers(1, 30), st.integers(1, 8))
def test_parts_are_about_equal(group: int, groups: int, count: int) -> None:
    flags = np.arange(group * groups) % group == 0
    sizes = [len(part(flags, number, count)) for number in range(count)]
    assert max(abs(size - len(flags) / count) for size in sizes) <= group


@given(st.lists(st.booleans(), min_size=1, max_size=80), st.data())
def test_each_frame_is_decoded_from_a_keyframe_that_is_not_shown_after_it(keyframes: list[bool], data: st.DataObject) -> None:
    keyframes[0] = True
    places = np.cumsum(np.arange(len(keyframes)) % 3 + 1)
    anchors = places[np.array(keyframes)]
    wanted = np.array(sorted(data.draw(st.sets(st.integers(0, len(keyframes) - 1)))), np.int64)
    found = runs(wanted, anchors, places)
    assert [int(n) for _, group in found for n in group] == wanted.tolist()
    assert all(anchors[start] <= places[group[0]] for start, group in found)
    assert all(start + 1 == len(anchors) or anchors[start + 1] > places[group[0]] for start, group in found), "not from further back"
    assert all(later[0] - np.searchsorted(anchors, places[group[-1]], "right") + 1 > 1 for (_, group), later in pairwise(found))


def test_a_frame_before_the_first_keyframe_is_tried_from_there() -> None:
    assert [(start, group.tolist()) for start, group in runs(np.array([0]), np.array([5]), np.array([3, 5]))] == [(0, [0])]


@given(st.integers(0, 500), st.integers(1, 40))
def test_spread_frames_are_the_middles_of_equal_stretches(frames: int, count: int) -> None:
    found = spread(frames, count).tolist()
    assert found == sorted({int(Fraction(2 * n + 1, 2 * count) * frames) for n in range(count)} if frames else set())
