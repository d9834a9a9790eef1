"""Figures of columns: bytes, brightness against numpy, balance against a count."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import h5dat_lib
from h5dat_lib.statistics import statistics
from tests.conftest import config, make_zip, picture


@pytest.mark.parametrize("image", [{}, {"storage": "encoded"}])
def test_brightness_is_that_of_all_pixels_and_bytes_are_those_of_arrays(tmp_path: Path, image: dict[str, str]) -> None:
    members = {f"{n}.png": picture(8 + n, 6, n) for n in range(40)}
    h5dat_lib.ingest(make_zip(tmp_path / "a.zip", members), tmp_path / "out.h5", config(image=image))
    with h5dat_lib.open(tmp_path / "out.h5") as file:
        [images] = statistics(file)
        pixels = np.concatenate([one.reshape(-1, 3) for one in file["images"].pixels[:]]).astype("f8")
        figures = {column.name: column for column in images.columns}
        found = figures["pixels"].brightness
        assert found is not None and (images.rows, found.pictures) == (40, 40)
        np.testing.assert_allclose((found.mean, found.std), (pixels.mean(0), pixels.std(0)))
        assert figures["pixels"].decoded == pixels.size and figures["height"].decoded == 40 * 4
        [few] = statistics(file, 7)
        assert few.columns[0].brightness is not None and few.columns[0].brightness.pictures == 7


def test_the_balance_of_labels_is_their_count(tmp_path: Path) -> None:
    words = ["red", "blue", "", "red", "green", "red", "blue"] * 9
    documents = {f"{n}.json": b'{"colour": "%s"}' % word.encode() for n, word in enumerate(words)}
    settings = config(document={"columns": {"colour": "category"}})
    h5dat_lib.ingest(make_zip(tmp_path / "a.zip", documents), tmp_path / "out.h5", settings)
    with h5dat_lib.open(tmp_path / "out.h5") as file:
        balance = next(column.balance for column in statistics(file)[0].columns if column.name == "colour")
    assert balance == Counter(words) and next(iter(balance)) == "red"
