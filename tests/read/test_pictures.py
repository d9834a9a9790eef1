"""Pictures of rows come in order, few in memory at a time, and without those that are not there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import h5dat_lib
from h5dat_lib.read import pictures as read_pictures
from h5dat_lib.read.columns import Column
from h5dat_lib.read.pictures import has_pictures, pictures, spread
from tests.conftest import config, make_zip, picture


@pytest.mark.parametrize(
    ("rows", "most", "found"),
    [(5, None, [0, 1, 2, 3, 4]), (5, 9, [0, 1, 2, 3, 4]), (5, 3, [0, 2, 4]), (10**9, 2, [0, 10**9 - 1]), (0, 3, [])],
)
def test_rows_are_spread_from_the_first_to_the_last(rows: int, most: int | None, found: list[int]) -> None:
    assert list(spread(rows, most)) == found


def test_all_rows_of_a_very_long_table_take_no_memory() -> None:
    assert len(spread(10**12, None)) == 10**12


def test_pictures_are_read_a_few_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_pictures, "_BYTES", 4 * 8 * 6 * 3)  # four of the pictures
    h5dat_lib.ingest(make_zip(tmp_path / "a.zip", {f"{n}.png": picture(seed=n) for n in range(20)}), tmp_path / "out.h5", config())
    with h5dat_lib.open(tmp_path / "out.h5") as file:
        table = file["images"]
        wanted, asked, rows = table.pixels[:], [], Column.rows
        monkeypatch.setattr(Column, "rows", lambda self, which, out=None: asked.append(len(which)) or rows(self, which, out))  # type: ignore[func-returns-value]
        found = list(pictures(table, [3, *range(19, 2, -1)]))
    assert asked == [1, 2, 4, 4, 4, 3]
    assert all(np.array_equal(one, wanted[row]) for one, row in zip(found, [3, *range(19, 2, -1)], strict=True))


def test_a_column_of_a_table_that_is_named_pixels_has_no_pictures(tmp_path: Path) -> None:
    h5dat_lib.ingest(make_zip(tmp_path / "a.zip", {"a.csv": b"pixels\n1\n", "a.png": picture()}), tmp_path / "out.h5", config())
    with h5dat_lib.open(tmp_path / "out.h5") as file:
        assert [has_pictures(file[name]) for name in ("images", "tables")] == [True, False]
