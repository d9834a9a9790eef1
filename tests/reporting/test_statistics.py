"""Figures of columns: bytes, brightness and numbers against numpy, balance against a count."""

from __future__ import annotations

import io
import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

import h5dat_lib
from h5dat_lib.errors import FormatError
from h5dat_lib.reporting import statistics as module
from h5dat_lib.reporting.statistics import ColumnFigures, statistics
from tests.conftest import config, make_zip, picture


def of_columns(path: Path, most: int | None = 1000) -> dict[str, ColumnFigures]:
    """Figures of the only class."""
    with h5dat_lib.open(path) as file:
        [figures] = statistics(file, most)
    json.dumps(asdict(figures), allow_nan=False)
    return {column.name: column for column in figures.columns}


def of_csv(folder: Path, text: str) -> dict[str, ColumnFigures]:
    h5dat_lib.ingest(make_zip(folder / "a.zip", {"a.csv": text.encode()}), folder / "out.h5", config())
    return of_columns(folder / "out.h5")


def tiff(pixels: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "TIFF")
    return out.getvalue()


# Pictures


@pytest.mark.parametrize("image", [{}, {"storage": "encoded"}])
def test_brightness_is_that_of_all_pixels_and_bytes_are_those_of_arrays(
    tmp_path: Path, image: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PIXELS", 20)  # a picture comes in several parts
    members = {f"{n}.png": picture(8 + n, 6, n) for n in range(40)}
    h5dat_lib.ingest(make_zip(tmp_path / "a.zip", members), tmp_path / "out.h5", config(image=image))
    with h5dat_lib.open(tmp_path / "out.h5") as file:
        [images] = statistics(file)
        pixels = np.concatenate([one.reshape(-1, 3) for one in file["images"].pixels[:]]).astype("f8")
    figures = {column.name: column for column in images.columns}
    found = figures["pixels"].brightness
    assert found is not None and (images.rows, found.pictures, found.others, found.dtype) == (40, 40, 0, "uint8")
    np.testing.assert_allclose((found.mean, found.std), (pixels.mean(0), pixels.std(0)), rtol=1e-12)
    assert found.levels == [np.histogram(channel, 64, (0, 256))[0].tolist() for channel in pixels.T]
    assert figures["pixels"].decoded == pixels.size and figures["height"].decoded == 40 * 4
    assert (images.members, images.source) == (40, sum(map(len, members.values())))
    few = of_columns(tmp_path / "out.h5", 7)["pixels"].brightness
    assert few is not None and few.pictures == 7


def test_brightness_of_16_bit_is_in_its_own_units(tmp_path: Path) -> None:
    pictures = [np.random.default_rng(n).integers(60_000, 65_536, (9, 7), dtype="u2") for n in range(5)]
    h5dat_lib.ingest(make_zip(tmp_path / "a.zip", {f"{n}.tif": tiff(one) for n, one in enumerate(pictures)}), tmp_path / "out.h5", config())
    found = of_columns(tmp_path / "out.h5")["pixels"].brightness
    assert found is not None and (found.pictures, found.dtype, found.levels) == (5, "uint16", None)
    np.testing.assert_allclose((found.mean, found.std), ([np.mean(pictures)], [np.std(pictures)]), rtol=1e-12)


def test_brightness_is_that_of_the_kind_that_most_pictures_have(tmp_path: Path) -> None:
    members = {"0.png": picture(mode="L"), "1.tif": tiff(np.ones((4, 4), "u2"))} | {f"{n}.png": picture(seed=n) for n in (2, 3, 4)}
    h5dat_lib.ingest(make_zip(tmp_path / "a.zip", members), tmp_path / "out.h5", config())
    found = of_columns(tmp_path / "out.h5")["pixels"].brightness
    assert found is not None and (found.pictures, found.others, len(found.mean)) == (3, 2, 3)


def test_pixels_that_are_no_picture_are_damage_and_a_column_of_a_table_may_have_the_name(tmp_path: Path) -> None:
    assert of_csv(tmp_path, "pixels\n1\n2\n")["pixels"].brightness is None
    h5dat_lib.ingest(make_zip(tmp_path / "b.zip", {"a.png": picture()}), tmp_path / "b.h5", config())
    with h5py.File(tmp_path / "b.h5", "r+") as file:
        attributes = dict(file["images/pixels"].attrs)
        del file["images/pixels"]
        file["images"].create_dataset("pixels", data=np.zeros((1, 4), "u1"), chunks=(1, 4), maxshape=(None, 4)).attrs.update(attributes)
    with pytest.raises(FormatError, match=r"images\[0\] \(a.png\): found pixels of shape \(4,\)"):
        of_columns(tmp_path / "b.h5")


# Labels


def test_the_balance_of_labels_is_their_count(tmp_path: Path) -> None:
    words = ["red", "blue", "", "red", "green", "red", "blue"] * 9
    documents = {f"{n}.json": b'{"colour": "%s"}' % word.encode() for n, word in enumerate(words)}
    settings = config(document={"columns": {"colour": "category"}})
    h5dat_lib.ingest(make_zip(tmp_path / "a.zip", documents), tmp_path / "out.h5", settings)
    balance = of_columns(tmp_path / "out.h5")["colour"].balance
    assert balance == Counter(words) and next(iter(balance)) == "red"


def test_booleans_and_short_strings_have_a_balance_unless_there_are_very_many(tmp_path: Path) -> None:
    rows = "".join(f"{'true' if n % 3 else 'false'},{'ab'[n % 2]},id{n}\n" for n in range(1500))
    found = of_csv(tmp_path, "good,letter,name\n" + rows + ",,\n")
    assert found["good"].balance == {"true": 1000, "false": 500}
    assert found["letter"].balance == {"a": 750, "b": 750}
    assert found["name"].balance is None


# Numbers


def test_numbers_are_those_of_numpy_whatever_the_slabs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SLAB_ROWS", 37)
    random = np.random.default_rng(0)
    values = np.where(random.random(1000) < 0.1, np.nan, 1e9 + random.normal(0, 1, 1000))
    whole = random.integers(-500, 700, 1000)
    lines = (f"{'' if np.isnan(value) else repr(float(value))},{number}\n" for value, number in zip(values, whole, strict=True))
    found = of_csv(tmp_path, "x,n\n" + "".join(lines))
    x, n = found["x"].numbers, found["n"].numbers
    assert x is not None and n is not None
    there = values[~np.isnan(values)]
    assert (x.count, x.missing, x.low, x.high) == (len(there), 1000 - len(there), there.min(), there.max())
    np.testing.assert_allclose((x.mean, x.std), (there.mean(), there.std()), rtol=1e-6)
    assert x.counts == np.histogram(there, 40)[0].tolist() and found["n"].balance is None
    assert (n.count, n.missing, n.low, n.high) == (1000, 0, whole.min(), whole.max()) and isinstance(n.width, int)
    edges = whole.min() - 0.5 + n.width * np.arange(len(n.counts) + 1)
    assert n.counts == np.histogram(whole, edges)[0].tolist() and len(n.counts) <= 40


@pytest.mark.parametrize(
    ("values", "counts"),
    [
        ([-(2**63), 2**63 - 1], [1, *[0] * 38, 1]),
        ([2**63 - 3, 2**63 - 2, 2**63 - 2], [1, 2]),
        (["-1.7e308", "1.7e308"], [1, *[0] * 38, 1]),
        (["2.5", "2.5"], [2]),
        (["2026-01-01", "2026-01-03", "2026-01-03"], [1, 0, 2]),
    ],
)
def test_bins_hold_at_the_ends_of_every_type(tmp_path: Path, values: list[object], counts: list[int]) -> None:
    found = of_csv(tmp_path, "x\n" + "".join(f"{value}\n" for value in values))["x"].numbers
    assert found is not None and found.counts == counts
    assert (str(found.low), str(found.high)) == (
        str(values[0]).replace("1.7e308", "1.7e+308"),
        str(values[-1]).replace("1.7e308", "1.7e+308"),
    )


def test_a_column_without_any_value_has_no_numbers(tmp_path: Path) -> None:
    h5dat_lib.ingest(make_zip(tmp_path / "a.zip", {"a.csv": b"x,y\n1,2\n"}), tmp_path / "out.h5", config())
    with h5py.File(tmp_path / "out.h5", "r+") as file:
        attributes = dict(file["tables/x"].attrs)
        del file["tables/x"]
        file["tables"].create_dataset("x", data=[np.nan], chunks=(1,), maxshape=(None,)).attrs.update(attributes)
    assert of_columns(tmp_path / "out.h5")["x"].numbers is None
