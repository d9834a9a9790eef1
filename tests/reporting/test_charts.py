"""Charts draw what is counted."""

from __future__ import annotations

import re

import pytest

from h5dat_lib.reporting.charts import balance, histogram, levels, share


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [(0, 9, "0 %"), (9, 9, "100 %"), (1, 10**6, "<0.1 %"), (10**6 - 1, 10**6, "99.9 %"), (1, 3, "33.3 %"), (0, 0, "0 %")],
)
def test_a_share_is_never_rounded_to_nothing_or_to_all(part: int, whole: int, text: str) -> None:
    assert share(part, whole) == text


def test_bars_are_as_high_as_what_they_count_and_none_is_too_low_to_see() -> None:
    heights = [float(height) for height in re.findall(r"v-([\d.]+)h", histogram([1000, 500, 0, 1], "0", "3", "x"))]
    assert heights == [70, 35, 1]


def test_a_curve_a_channel_is_cut_where_few_levels_are_far_above_the_others() -> None:
    drawn = levels([[5] * 62 + [5, 10**6], [1] * 64], "x")
    assert re.findall(r'class="(\w+)" d=', drawn) == ["grey", "alpha"]
    assert drawn.count(" 2.0") == 64 and levels([[0] * 64], "x").count(" 72.0") >= 64


def test_labels_beyond_the_first_and_rows_without_one_are_counted_together() -> None:
    drawn = balance({"": 30, **{f"label{n}": 2 for n in range(15)}}, 100)
    texts = re.sub(r"<[^>]+>", "|", drawn)
    assert "(empty)||30| 30.0 %" in texts and "6 more labels||12| 12.0 %" in texts and "without a value||40| 40.0 %" in texts
