"""Pictures made of frames."""

from __future__ import annotations

import numpy as np
import pytest

from h5dat_lib.convert.video_summary import Summary


def frame(value: int, height: int = 6, width: int = 8) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def test_a_barcode_has_a_column_of_average_colours_for_each_frame() -> None:
    summary = Summary("barcode", 3)
    pixels = np.arange(6 * 8 * 3).reshape(6, 8, 3).astype(np.uint8)
    for one in (pixels, frame(7)):
        summary.add(one)
    expected = np.stack([np.rint(pixels.astype(float).mean(axis=1)), np.full((6, 3), 7)], axis=1)
    assert np.array_equal(summary.picture(), expected)


@pytest.mark.parametrize(("count", "rows", "columns"), [(1, 1, 1), (2, 1, 2), (4, 2, 2), (5, 2, 3), (9, 3, 3), (10, 3, 4)])
def test_a_contact_sheet_is_as_square_as_can_be(count: int, rows: int, columns: int) -> None:
    summary = Summary("contact_sheet", 3)
    for value in range(1, count + 1):
        summary.add(frame(value))
    sheet = summary.picture()
    assert sheet.shape == (rows * 6, columns * 8, 3)
    tiles = [sheet[6 * (n // columns) :, 8 * (n % columns) :][:6, :8] for n in range(rows * columns)]
    assert [tile[0, 0, 0] for tile in tiles] == [*range(1, count + 1)] + [0] * (rows * columns - count)
    assert all((tile == tile[0, 0, 0]).all() for tile in tiles)


def test_wide_frames_are_made_smaller_for_a_contact_sheet() -> None:
    summary = Summary("contact_sheet", 3)
    summary.add(frame(9, 300, 640))
    assert summary.picture().shape == (150, 320, 3)


@pytest.mark.parametrize("kind", ["barcode", "contact_sheet"])
def test_frames_of_another_size_are_brought_to_that_of_the_first(kind: str) -> None:
    summary = Summary(kind, 3)
    summary.add(frame(9))
    summary.add(frame(9, 12, 16))
    assert (summary.picture() == 9).all()


@pytest.mark.parametrize("kind", ["barcode", "contact_sheet"])
def test_without_frames_the_picture_is_empty(kind: str) -> None:
    assert Summary(kind, 1).picture().shape == (0, 0, 1)
