"""Reading: values are the same whatever the layout, and what is not there is said with what is."""

from __future__ import annotations

import io
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image

import h5dat_lib
from h5dat_lib.errors import FormatError, UnknownName
from h5dat_lib.read.handle import Handle
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


def test_what_is_no_row_number_is_an_index_error(tmp_path: Path) -> None:
    with _opened(tmp_path, PICTURES) as file:
        for read in (lambda: file["images"].pixels["a"], lambda: file["images"].pixels[1.5], lambda: file["images"][1.5]):
            with pytest.raises(IndexError, match=r"found ('a'|1\.5), expected the number of a row"):
                read()
        assert np.array_equal(file["images"].pixels[np.uint8(2)], _pixels("2.png"))


def test_missing_numbers_are_none_and_masked(tmp_path: Path) -> None:
    with _opened(tmp_path, {"a.csv": b'n,s\n1,x\n,\n3,""\n'}) as file:
        table = file["tables"]
        assert [table.n[row] for row in range(3)] == [1, None, 3]
        assert table.n[:].mask.tolist() == [False, True, False]
        assert table.s[:] == ["x", None, ""]


def test_arrays_that_are_missing_are_none(tmp_path: Path) -> None:
    message = (Path(__file__).parents[1] / "data" / "images" / "picture.bufr").read_bytes()
    with _opened(tmp_path, {"a.json": b"[1]", "b.bufr": message, "c.json": b"[2]"}) as file:
        column = file["documents"]["values"]
        assert [value is None for value in column[:]] == [True, *(False for _ in range(len(column) - 2)), True]
        assert column[0] is None and column[-1] is None and column[1].dtype == np.float64
        assert column.describe()["dtype"] == "float64"


@pytest.mark.parametrize("image", [{"layout": "ragged"}, {"storage": "encoded"}, {"resize": {"width": 9, "height": 7, "mode": "fill"}}])
def test_rows_are_read_in_any_order_and_into_an_array(tmp_path: Path, image: dict[str, Any]) -> None:
    members = {f"{n:02}.jpg": picture(64, 48, n, format="JPEG") for n in range(30)}
    with _opened(tmp_path, members, image=image) as file:
        pixels = file["images"].pixels
        order = np.random.default_rng(2).integers(-30, 30, 50)
        expected = [pixels[int(row)] for row in order]
        assert all(np.array_equal(one, other) for one, other in zip(pixels.rows(order), expected, strict=True))
        out = np.empty((50, *expected[0].shape), "u1")
        assert pixels.rows(order, out=out) is out and np.array_equal(out, np.stack(expected))
        for wrong in (np.empty((50, 3, 3, 3), "u1"), np.empty((49, *expected[0].shape), "u1"), out.astype("f4")):
            with pytest.raises(ValueError, match="found out of"):
                pixels.rows(order, out=wrong)
        with pytest.raises(IndexError, match="row 30 of 30: expected -30 to 29"):
            pixels.rows([0, 30])


LARGE, SMALL = (64, 48), (16, 12)
PHOTOS = {"large first": [LARGE] * 3 + [SMALL] * 3, "small first": [SMALL] * 3 + [LARGE] * 3, "turned": [LARGE, LARGE[::-1]] * 3}


@pytest.mark.parametrize("image", [{"layout": "ragged"}, {"storage": "encoded"}])
@pytest.mark.parametrize("format", ["PNG", "JPEG"])
@pytest.mark.parametrize("sizes", PHOTOS.values(), ids=PHOTOS)
def test_pictures_of_one_shape_are_stacked_and_others_stay_a_list(
    tmp_path: Path, image: dict[str, Any], format: str, sizes: list[tuple[int, int]]
) -> None:
    members = {f"{n}": picture(*size, n, format=format) for n, size in enumerate(sizes)}
    with _opened(tmp_path, {f"{name}.{format.lower()}": data for name, data in members.items()}, image=image) as file:
        table = file["images"]
        expected = [table.pixels[row] for row in range(6)]
        mixed = table.pixels.rows(range(6), stack=True)
        assert isinstance(mixed, list) and all(np.array_equal(one, other) for one, other in zip(mixed, expected, strict=True))
        alike = [row for row in reversed(range(6)) if sizes[row] == sizes[0]]
        stacked = table.rows(alike, ["pixels"], stack=True)["pixels"]
        assert isinstance(stacked, np.ndarray) and np.array_equal(stacked, np.stack([expected[row] for row in alike]))
        assert stacked.flags.c_contiguous and stacked.flags.writeable
        assert table.pixels.rows([], stack=True) == []


def test_pictures_of_16_bit_are_stacked_and_missing_arrays_stay_a_list(tmp_path: Path) -> None:
    deep = {f"{n}.png": _png_of_16_bit(np.full((4, 5), 1000 * n, "u2")) for n in range(3)}
    message = (Path(__file__).parents[1] / "data" / "images" / "picture.bufr").read_bytes()
    with _opened(tmp_path, {**deep, "a.json": b"[1]", "b.bufr": message}, image={"storage": "encoded"}) as file:
        stacked = file["images"].pixels.rows([2, 0], stack=True)
        assert stacked.dtype == np.uint16 and stacked.shape == (2, 4, 5, 1) and stacked[:, 0, 0, 0].tolist() == [2000, 0]
        values = file["documents"]["values"].rows([0, 1], stack=True)
        assert values[0] is None and values[1].dtype == np.float64


def _png_of_16_bit(pixels: np.ndarray) -> bytes:
    written = io.BytesIO()
    Image.fromarray(pixels).save(written, "PNG")
    return written.getvalue()


def test_stacked_pictures_are_in_memory_once(tmp_path: Path) -> None:
    members = {f"{n:02}.jpg": picture(200, 150, n, format="JPEG") for n in range(40)}
    with _opened(tmp_path, members, image={"storage": "encoded"}) as file:
        pixels = file["images"].pixels
        pixels.rows(range(40))  # decoders are loaded, and where chunks lie is known
        tracemalloc.start()
        try:
            size = pixels.rows(range(40), stack=True).nbytes
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert size == 40 * 200 * 150 * 3 and peak < 1.2 * size


def test_rows_of_a_table_come_column_by_column(tmp_path: Path) -> None:
    with _opened(tmp_path, {"t.csv": b"n,s\n" + b"".join(b"%d,s%d\n" % (n, n) for n in range(50)), "a.txt": b"x"}) as file:
        table = file["tables"]
        assert table[3] == {"n": 3, "s": "s3"} and table[-1]["s"] == "s49"
        assert table[48:]["s"] == ["s48", "s49"] and table[[5, 1]]["n"].tolist() == [5, 1]
        assert table.rows([2, 0], ["s"]) == {"s": ["s2", "s0"]}
        assert table["t.csv"]["n"].tolist() == list(range(50)) and file["texts"]["a.txt"]["text"] == "x"
        assert table.rows_of("a.txt").tolist() == [] and table.rows_of("t.csv").dtype == np.int64
        with pytest.raises(UnknownName, match=r"no column or member 'a\.csv'"):
            table["a.csv"]
        with pytest.raises(IndexError, match="row 50 of 50"):
            table[50]
        assert repr(table).endswith("tables: 50 rows of n, s>") and "tables (50 rows)" in repr(file)
        assert (file.classes[0], file.classes[0].rows, file.classes[0].columns) == ("tables", 50, ["n", "s"])


@pytest.mark.parametrize("ahead", [0, 1, 5])
def test_batches_are_read_ahead_in_order_and_no_further(tmp_path: Path, ahead: int) -> None:
    with _opened(tmp_path, {"t.csv": b"n\n" + b"".join(b"%d\n" % n for n in range(50))}) as file:
        asked = 0

        def lots() -> Iterator[list[int]]:
            nonlocal asked
            for first in range(0, 50, 5):
                asked += 1
                yield list(range(first, first + 5))

        given = file["tables"].batches(lots(), ["n"], ahead)
        for number in range(3):
            assert next(given)["n"].tolist() == list(range(number * 5, number * 5 + 5))
            assert asked == number + 1 + ahead
        rest = [row for batch in given for row in batch["n"].tolist()]
        assert rest == list(range(15, 50))


@pytest.mark.parametrize(("image", "row"), [({"layout": "ragged"}, 5), ({"resize": {"width": 400, "height": 400, "mode": "fill"}}, 5)])
def test_damage_names_the_row_and_its_member(tmp_path: Path, image: dict[str, Any], row: int) -> None:
    _opened(tmp_path, {f"{n}.png": picture(300, 300, n) for n in range(9)}, image=image).close()
    with h5py.File(tmp_path / "out.h5", "r+") as file:
        pixels = file["images/pixels"]
        ragged = isinstance(pixels, h5py.Group)
        dataset, place = (pixels["values"], (int(pixels["offset"][row]),)) if ragged else (pixels, (row, 0, 0, 0))
        dataset.id.write_direct_chunk(place, b"nothing of the kind", 0)
    with h5dat_lib.open(tmp_path / "out.h5") as opened:
        column = opened["images"].pixels
        for read in (
            lambda: column[row],
            lambda: column[:],
            lambda: column[[1, 5, 7]],
            lambda: column.rows(range(9)),
            lambda: opened["images"][5],
        ):
            with pytest.raises(FormatError, match=r"out\.h5, /images/pixels.*images\[5\] \(5\.png\)$"):
                read()
        assert column[4].dtype == np.uint8


BARE = {"compression": {"filter": "none"}}
SQUARE = {"width": 90, "height": 90, "mode": "fill"}
CHANGED = {
    "dense": {"image": {"resize": SQUARE}, **BARE},
    "ragged": {"image": {"layout": "ragged"}, **BARE},
    "encoded": {"image": {"storage": "encoded"}},
    "deflated": {"image": {"resize": SQUARE}},
}


@pytest.mark.parametrize("stored", CHANGED)
def test_bytes_that_have_changed_are_an_error_that_names_row_and_member_where_chunks_are_verified(tmp_path: Path, stored: str) -> None:
    _opened(tmp_path, {f"{n}.jpg": picture(90, 80, n, format="JPEG") for n in range(9)}, **CHANGED[stored]).close()
    with h5dat_lib.open(tmp_path / "out.h5", verify=True) as file:
        expected = file["images"].pixels.rows(range(9))
        assert file["images"].origin(8).member == "8.jpg"
    with h5py.File(tmp_path / "out.h5") as plain:
        pixels = plain["images/pixels"]
        dense = isinstance(pixels, h5py.Dataset)
        at = (
            pixels.id.get_chunk_info(8).byte_offset
            if dense
            else pixels["values"].id.get_chunk_info(0).byte_offset + int(pixels["offset"][8])
        )
    with open(tmp_path / "out.h5", "r+b") as raw:
        raw.seek(at + 700)
        byte = raw.read(1)[0]
        raw.seek(at + 700)
        raw.write(bytes([byte ^ 1]))
    with h5dat_lib.open(tmp_path / "out.h5", verify=True) as file:
        column = file["images"].pixels
        for read in (lambda: column[8], lambda: column.rows([8]), lambda: column.rows([8], stack=True), lambda: file["images"][8]):
            with pytest.raises(FormatError, match=r"out\.h5, /images/pixels.*found CRC .*as it was written.*images\[8\] \(8\.jpg\)$"):
                read()
        if dense:  # each in a chunk of its own
            assert all(np.array_equal(column[row], expected[row]) for row in range(8))


def test_a_few_pictures_of_many_are_few_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that are kept are read by their place in the file: their own bytes, not those of their chunks."""
    _opened(tmp_path, {f"{n:03}.jpg": picture(80, 60, n, format="JPEG") for n in range(300)}, image={"storage": "encoded"}).close()
    with h5dat_lib.open(tmp_path / "out.h5") as file:
        pixels = file["images"].pixels
        for row in range(60):
            pixels[row]
        sizes: list[int] = []
        original = Handle.read_at
        monkeypatch.setattr(Handle, "read_at", lambda self, at, size: (sizes.append(size), original(self, at, size))[1])
        for row in range(3, 20):
            pixels[row]
        read, requests = sum(sizes), len(sizes)
        assert read == sum(len(pixels.encoded(row)) for row in range(3, 20)) and requests <= 2 * 17


def test_values_of_which_none_has_a_byte_are_read(tmp_path: Path) -> None:
    with _opened(tmp_path, {"a.json": b'""'}) as file:
        assert file["documents"].pairs(0) == [("", "", "string")]
        assert file["documents/_pairs"]["value"][:] == [""]
