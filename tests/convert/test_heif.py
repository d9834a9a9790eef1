from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pillow_heif
import pytest
from PIL import Image

from h5dat_lib.columns import Block
from h5dat_lib.config import ImageOptions, Limits, MediumOptions
from h5dat_lib.convert import handler_for
from h5dat_lib.convert.heif import open_heif
from h5dat_lib.errors import MemberError
from tests.convert.conftest import Convert
from tests.convert.test_every_image import pam

IMAGES = Path(__file__).parents[1] / "data" / "images"


def data(file: str) -> bytes:
    return (IMAGES / file).read_bytes()


def value(block: Any, column: str) -> Any:
    assert isinstance(block, Block)
    return block.columns[column].values[0]  # type: ignore[union-attr, index]


@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
def test_a_picture_that_is_to_be_turned_is_turned(convert: Convert, quarters: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    file = pillow_heif.from_bytes("RGB", (16, 12), pam("rgb").tobytes())
    file[0].info["exif"] = exif.tobytes()
    stream = io.BytesIO()
    file.save(stream, quality=-1, chroma=444)
    before, mark, after = stream.getvalue().partition(b"irot")
    assert mark
    (row,) = convert(
        before + mark + bytes([quarters]) + after[1:], "x.heic"
    )  # quarters of a turn, anticlockwise (ISO/IEC 23008-12, 6.5.10)
    expected = np.rot90(pam("rgb"), quarters)
    assert value(row, "pixels").shape == expected.shape
    assert np.abs(value(row, "pixels").astype(int) - expected).max() <= 1
    assert value(row, "orientation") == 1


def test_an_orientation_that_only_exif_tells_is_not_applied() -> None:
    image = pillow_heif.open_heif(data("exif_only.heic"))[0]
    exif = Image.Exif()
    exif.load(image.info["exif"])
    assert exif[0x0112] == 6
    assert open_heif(data("exif_only.heic"), ImageOptions(), Limits()).decode().pixels.shape == (12, 16, 3)


def test_ten_bits_take_the_upper_bits_of_sixteen() -> None:
    picture = open_heif(data("ten_bits.heic"), ImageOptions(), Limits())
    pixels = picture.decode().pixels
    assert (picture.dtype, picture.mode, pixels.dtype) == ("<u2", "RGB;16", np.dtype("<u2"))
    assert (pixels % 64 == 0).all() and pixels.max() == 1023 << 6


def test_the_first_picture_is_a_row_and_all_when_asked_for(convert: Convert) -> None:
    (row,) = convert(data("two.heic"), "x.heic")
    assert value(row, "frames") == 2
    rows = convert(data("two.heic"), "x.heic", MediumOptions(image=ImageOptions(frames="all")))
    assert [value(row, "pixels").shape for row in rows] == [(12, 16, 3), (6, 8, 3)]
    for found, expected in zip(rows, ("rgb", "small"), strict=True):
        assert np.abs(value(found, "pixels").astype(int) - pam(expected)).max() <= 1


def test_the_primary_picture_comes_first() -> None:
    stream = io.BytesIO()
    file = pillow_heif.HeifFile()
    for colour in ("red", "lime", "blue"):
        file.add_from_pillow(Image.new("RGB", (16, 12), colour))
    file.save(stream, quality=-1, chroma=444, primary_index=2)
    picture = open_heif(stream.getvalue(), ImageOptions(), Limits())
    found = [frame.decode().pixels[0, 0].argmax() for frame in (picture, picture.frame(1), picture.frame(2))]
    assert found == [2, 0, 1]


def test_alpha_is_a_channel() -> None:
    picture = open_heif(data("picture.heif"), ImageOptions(), Limits())
    assert (picture.channels, picture.mode) == (4, "RGBA")


@pytest.mark.parametrize(("limits", "reason"), [(Limits(pixels=191), "limits.pixels"), (Limits(frames=1), "limits.frames")])
def test_limits_hold_before_anything_is_decoded(limits: Limits, reason: str) -> None:
    with pytest.raises(MemberError, match=reason):
        open_heif(data("two.heic"), ImageOptions(), limits)


def test_what_is_no_heif_is_refused() -> None:
    with pytest.raises(MemberError, match="cannot be decoded as HEIF"):
        open_heif(b"\0\0\0\x18ftypheic" + bytes(100), ImageOptions(), Limits())


@pytest.mark.parametrize("brand", [b"heic", b"heix", b"mif1"])
def test_it_is_recognised_by_its_brand(brand: bytes) -> None:
    handler = handler_for(b"\0\0\0\x18ftyp" + brand, "x.dat")
    assert handler is not None and handler.name == "heif"
