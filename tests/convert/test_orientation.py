from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from h5dat_lib.config import ImageOptions, Limits
from h5dat_lib.convert.image import probe
from h5dat_lib.convert.orientation import of_metadata, upright
from tests.convert.pictures import SUFFIX, exif, picture, reference, saved


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_and_recorded(convert, kind: str, orientation: int) -> None:
    data = saved(picture(), kind, exif=exif(orientation))
    (block,) = convert(data, "a" + SUFFIX[kind])
    np.testing.assert_array_equal(block.columns["pixels"].values[0], reference(data))
    assert list(block.columns["orientation"].values) == [orientation]
    assert probe(data, ImageOptions(), Limits())[0] == reference(data).shape


def test_orientation_in_xmp_counts_as_pillow_counts_it(convert) -> None:
    data = saved(picture(), "JPEG", xmp=b'<x:xmpmeta><rdf tiff:Orientation="6"/></x:xmpmeta>')
    np.testing.assert_array_equal(convert(data, "a.jpg")[0].columns["pixels"].values[0], reference(data))


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_is_none(convert, value: int) -> None:
    assert list(convert(saved(picture(), "JPEG", exif=exif(value)), "a.jpg")[0].columns["orientation"].values) == [1]


def test_broken_exif_does_not_cost_the_picture(convert) -> None:
    data = saved(picture(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert convert(data, "a.jpg")[0].rows == 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_first_row_and_column_end_up_where_exif_says(orientation: int) -> None:
    """Exif 2.32, 4.6.4: where the 0th row and the 0th column of what is stored are to be seen."""
    row, column = ["tl", "tr", "br", "bl", "lt", "rt", "rb", "lb"][orientation - 1]
    pixels = np.array([[[0], [1], [2]], [[3], [4], [5]]], np.uint8)
    turned = upright(pixels, orientation)[:, :, 0]
    sides = {"t": turned[0], "b": turned[-1], "l": turned[:, 0], "r": turned[:, -1]}
    assert set(sides[row].tolist()) == {0, 1, 2}
    assert set(sides[column].tolist()) == {0, 3}


@given(st.binary(max_size=60), st.sampled_from([b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08", b""]), st.booleans())
def test_any_metadata_has_some_orientation_and_that_of_pillow(data: bytes, start: bytes, counted: bool) -> None:
    entry = struct.pack("<H", 1) if counted else b""
    found = b"Exif\0\0" + start + entry + data
    image = Image.open(io.BytesIO(saved(picture(width=2, height=2), "JPEG")))
    image.info["exif"] = found
    try:
        expected = image.getexif().get(0x0112, 1)
    except Exception:
        expected = 1
    assert of_metadata({"exif": found}) == (expected if expected in range(1, 9) else 1)
