"""Reading: values are the same whatever the layout, and what is not there is said with what is."""

from __future__ import annotations

import io
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

import h5dat_lib
from h5dat_lib.errors import FormatError, InputError
from tests.conftest import config, make_zip, picture

SIZES = [(8, 6), (8, 6), (20, 3), (1, 1)]
PICTURES = {f"{n}.png": picture(*size, seed=n) for n, size in enumerate(SIZES)}


def _pixels(name: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(PICTURES[name])))


def _opened(folder: Path, members: dict[str, bytes], **settings: object) -> h5dat_lib.File:
    h5dat_lib.ingest(make_zip(folder / "a.zip", members), folder / "out.h5", config(**settings))
    return h5dat_lib.open(folder / "out.h5")


@pytest.mark.parametrize("image", [{}, {"layout": "ragged"}, {"storage": "encoded"}])
def test_pixels_are_the_same_whatever_the_layout(tmp_path: Path, image: dict[str, str]) -> None:
    with _opened(tmp_path, PICTURES, image=image) as file:
        table = file["images"]
        assert len(table) == len(table.pixels) == 4
        for row in range(4):
            assert np.array_equal(table.pixels[row], _pixels(f"{row}.png"))
        assert np.array_equal(table.pixels[-1], table.pixels[3])
        assert [one.shape for one in table.pixels[1:3]] == [(6, 8, 3), (3, 20, 3)]
        assert [one.shape for one in table.pixels[[0, 3]]] == [(6, 8, 3), (1, 1, 3)]


def test_dense_pixels_are_read_as_one_array(tmp_path: Path) -> None:
    with _opened(tmp_path, {name: PICTURES[name] for name in ("0.png", "1.png")}) as file:
        assert file["images"].pixels[:].shape == (2, 6, 8, 3)
        assert file["images"].pixels.layout == "dense"


def test_a_dense_layout_on_request_rejects_other_shapes(tmp_path: Path) -> None:
    with _opened(tmp_path, PICTURES, image={"layout": "dense"}) as file:
        assert len(file["images"]) == 2
        assert [reject.member for reject in file.rejects()] == ["2.png", "3.png"]


def test_resized_pictures_are_dense(tmp_path: Path) -> None:
    with _opened(tmp_path, PICTURES, image={"resize": {"width": 10, "height": 12, "mode": "pad"}}) as file:
        assert file["images"].pixels[:].shape == (4, 12, 10, 3)
        assert set(file["images"].width[:]) == {10}


def test_encoded_pictures_are_the_members_own_bytes_and_decode_as_configured(tmp_path: Path) -> None:
    image = {"storage": "encoded", "color": "L", "resize": {"width": 4, "height": 4, "mode": "fill"}}
    with _opened(tmp_path, PICTURES, image=image) as file:
        pixels = file["images"].pixels
        assert pixels.encoded(2) == PICTURES["2.png"]  # type: ignore[attr-defined]
        assert pixels[2].shape == (4, 4, 1)
        assert file["images"].height[2] == 4


def test_columns_are_found_as_attributes_and_as_items(tmp_path: Path) -> None:
    with _opened(tmp_path, {"a.csv": b"name,a/b,_x\nn,1,2\n"}) as file:
        table = file["tables"]
        assert table.columns == ["name", "a/b", "_x"]
        assert table.name[0] == "n" and table["a/b"][0] == 1 and table["_x"][0] == 2
        with pytest.raises(AttributeError, match=r"no column 'nme'; it has name, a/b, _x"):
            table.nme  # noqa: B018


def test_missing_numbers_are_none_and_masked(tmp_path: Path) -> None:
    with _opened(tmp_path, {"a.csv": b'n,s\n1,x\n,\n3,""\n'}) as file:
        table = file["tables"]
        assert [table.n[row] for row in range(3)] == [1, None, 3]
        assert table.n[:].mask.tolist() == [False, True, False]
        assert table.s[:] == ["x", None, ""]


def test_arrays_that_are_missing_are_none(tmp_path: Path) -> None:
    message = (Path(__file__).parent / "data" / "images" / "picture.bufr").read_bytes()
    with _opened(tmp_path, {"a.json": b"[1]", "b.bufr": message, "c.json": b"[2]"}) as file:
        column = file["documents"]["values"]
        assert [value is None for value in column[:]] == [True, *(False for _ in range(len(column) - 2)), True]
        assert column[0] is None and column[-1] is None and column[1].dtype == np.float64
        assert column.describe()["dtype"] == "float64"


def test_classes_and_errors_name_what_is_there(tmp_path: Path) -> None:
    with _opened(tmp_path, PICTURES) as file:
        assert file.classes == ("images",)
        with pytest.raises(KeyError, match="no class 'image'; it has images"):
            file["image"]
        with pytest.raises(IndexError, match="row 4 of 4"):
            file["images"].pixels[4]
        with pytest.raises(IndexError, match="row -5 of 4"):
            file["images"].origin(-5)


def test_a_file_that_is_not_ours_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        h5dat_lib.open(tmp_path / "missing.h5")
    (tmp_path / "text.h5").write_text("no")
    with pytest.raises(FormatError, match="cannot be opened as HDF5"):
        h5dat_lib.open(tmp_path / "text.h5")
    h5py.File(tmp_path / "foreign.h5", "w").close()
    with h5dat_lib.open(tmp_path / "foreign.h5") as file:
        assert file.classes == () and "x" not in file
        for read in (lambda: file["x"], file.describe, lambda: list(file.rejects())):
            with pytest.raises(FormatError, match="without H5DAT's mark"):
                read()
    with pytest.raises(FormatError, match="without H5DAT's mark"):
        h5dat_lib.verify(tmp_path / "foreign.h5")


def test_a_newer_layout_version_is_refused(tmp_path: Path) -> None:
    _opened(tmp_path, PICTURES).close()
    with h5py.File(tmp_path / "out.h5", "r+") as file:
        file.attrs["format_version"] = 2
    with pytest.raises(FormatError, match="found layout version 2, expected at most 1"):
        h5dat_lib.open(tmp_path / "out.h5")
