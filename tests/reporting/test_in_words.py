"""Words for bytes, numbers and times."""

from __future__ import annotations

import math

from h5dat_lib.reporting.in_words import moment, number, size


def test_bytes_have_the_unit_that_fits() -> None:
    assert [size(n) for n in (0, 999, 1000, 12_345_678, 10**15)] == ["0 B", "999 B", "1.0 kB", "12.3 MB", "1,000.0 TB"]


def test_whole_numbers_have_all_digits_and_others_four() -> None:
    assert [number(n) for n in (1234567, 0.123456, 499999.5, -1.7e308, math.inf, "a")] == [
        "1,234,567",
        "0.1235",
        "500,000",
        "-1.7e+308",
        "inf",
        "a",
    ]


def test_a_time_that_no_calendar_has_is_empty() -> None:
    assert [moment(t) for t in (0, math.nan, 1e300)] == ["1970-01-01 00:00", "", ""]
