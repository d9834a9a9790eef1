"""Figures -> charts for a page: SVG of few bytes, whose colours are the page's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice

from h5dat_lib.reporting.in_words import number
from h5dat_lib.reporting.markup import Markup, joined, tag

_WIDTH, _HEIGHT = 240, 72
_LABELS = 10
"""Most labels that have a bar, the most frequent."""
_CHANNELS = {1: ("grey",), 2: ("grey", "alpha"), 3: ("red", "green", "blue"), 4: ("red", "green", "blue", "alpha")}


def histogram(counts: Sequence[int], low: str, high: str, about: str) -> Markup:
    """Bars of equal width from ``low`` to ``high``."""
    step, most = _WIDTH / len(counts), max(counts)
    gap = min(1.0, step / 4)
    bars = (
        f"M{at * step:.1f} {_HEIGHT}v-{max(count / most * (_HEIGHT - 2), 1):.1f}h{step - gap:.1f}V{_HEIGHT}z"
        for at, count in enumerate(counts)
        if count
    )
    ends = tag("div", tag("span", low), tag("span", high), class_="ends")
    return joined(_drawing(_path("bars", "".join(bars)), about), ends)


def levels(counts: Sequence[Sequence[int]], about: str) -> Markup:
    """How often each level is there, a curve a channel; the highest twentieth of all levels is cut off, such as a white background."""
    heights = sorted(count for channel in counts for count in channel)
    most = max(heights[len(heights) * 19 // 20], 1)
    step = _WIDTH / max(len(counts[0]) - 1, 1)
    curves = (
        _path(
            name, f"M0 {_HEIGHT}" + "".join(f"L{at * step:.1f} {_y(count / most):.1f}" for at, count in enumerate(channel)) + f"V{_HEIGHT}z"
        )
        for name, channel in zip(channel_names(len(counts)), counts, strict=True)
    )
    ends = tag("div", tag("span", "0"), tag("span", "255"), class_="ends")
    return joined(_drawing(joined(*curves), about), ends)


def _y(share: float) -> float:
    return _HEIGHT - min(share, 1) * (_HEIGHT - 2)


def channel_names(channels: int) -> Sequence[str]:
    """What the channels of a picture of so many are."""
    return _CHANNELS[channels]


def _path(name: str, course: str) -> Markup:
    return tag("path", class_=name, d=Markup(course))


def _drawing(content: Markup, about: str) -> Markup:
    return tag("svg", content, viewBox=f"0 0 {_WIDTH} {_HEIGHT}", preserveAspectRatio="none", role="img", aria_label=about)


def balance(counts: Mapping[str, int], rows: int) -> Markup:
    """A bar for each of the most frequent labels, and how many rows have others, or none."""
    most = max(counts.values(), default=1) or 1
    shown = list(islice(counts.items(), _LABELS))
    labelled = sum(counts.values())
    others = labelled - sum(count for _, count in shown)
    bars = [_bar(label or "(empty)", count, most, rows, "label") for label, count in shown if count]
    if others:
        bars.append(_bar(f"{len(counts) - len(shown):,} more labels", others, most, rows, "rest"))
    if rows > labelled:
        bars.append(_bar("without a value", rows - labelled, most, rows, "rest"))
    return tag("ul", *bars, class_="balance")


def _bar(label: str, count: int, most: int, rows: int, kind: str) -> Markup:
    width = min(count / most, 1) * 100
    return tag(
        "li",
        tag("span", label, class_="name"),
        tag("span", number(count), tag("small", f" {share(count, rows)}"), class_="count"),
        tag("i", style=f"width:{width:.1f}%"),
        class_=kind,
    )


def share(part: int, whole: int) -> str:
    """A part in percent, never rounded to nothing or to all."""
    percent = 100 * part / max(whole, 1)
    if 0 < percent < 0.1:
        return "<0.1 %"
    return f"{min(percent, 99.9) if part < whole else percent:.{0 if percent in (0, 100) else 1}f} %"
