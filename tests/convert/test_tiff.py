from __future__ import annotations

import struct

import numpy as np
import pytest
from numpy.typing import NDArray

from h5dat_lib.config import ImageOptions, Limits, MediumOptions
from h5dat_lib.convert.image import probe
from h5dat_lib.errors import MemberError
from tests.convert.conftest import converted
from tests.convert.pictures import deep, picture, pixels_of, rows, saved, value

_FORMATS = {"u": 1, "i": 2, "f": 3}


def tiff(pixels: NDArray, order: str = "<", **tags: int) -> bytes:
    """An uncompressed TIFF of one strip, written by hand; ``tags`` (named ``t`` and a number) are added to those it needs."""
    height, width, samples = pixels.shape
    body = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    bits_at = 8 + len(body)
    fields = {256: width, 257: height, 259: 1, 262: 2 if samples > 2 else 1, 273: 8, 277: samples, 278: height, 279: len(body)}
    fields |= {339: _FORMATS[pixels.dtype.kind]} | {int(name[1:]): number for name, number in tags.items()}
    entries = {tag: struct.pack(order + "HHLL", tag, 4, 1, number) for tag, number in fields.items()}
    entries[258] = struct.pack(order + "HHLL", 258, 3, samples, bits_at)
    if samples == 1:
        entries[258] = struct.pack(order + "HHLHH", 258, 3, 1, 8 * pixels.itemsize, 0)
    bits = struct.pack(f"{order}{samples}H", *[8 * pixels.itemsize] * samples)
    directory = struct.pack(order + "H", len(entries)) + b"".join(entries[tag] for tag in sorted(entries)) + bytes(4)
    mark = b"II*\0" if order == "<" else b"MM\0*"
    return mark + struct.pack(order + "L", bits_at + len(bits)) + body + bits + directory


def test_big_endian_16_bit_becomes_little_endian(convert) -> None:
    deep = np.asarray(picture("I;16"))
    entries = [
        (256, 3, 37),
        (257, 3, 23),
        (258, 3, 16),
        (259, 3, 1),
        (262, 3, 1),
        (273, 4, 8),
        (277, 3, 1),
        (278, 3, 23),
        (279, 4, deep.nbytes),
    ]
    directory = b"".join(
        struct.pack(">HHI", tag, kind, 1) + struct.pack(">HH" if kind == 3 else ">I", *((value, 0) if kind == 3 else (value,)))
        for tag, kind, value in entries
    )
    data = (
        b"MM\0*"
        + struct.pack(">I", 8 + deep.nbytes)
        + deep.astype(">u2").tobytes()
        + struct.pack(">H", len(entries))
        + directory
        + bytes(4)
    )
    (pixels,) = convert(data, "a.tif")[0].columns["pixels"].values
    assert pixels.dtype.str == "<u2"
    np.testing.assert_array_equal(pixels[:, :, 0], deep)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("channels", [3, 4])
def test_colours_of_16_bit_stay_16_bit(order: str, channels: int) -> None:
    data = tiff(deep(channels), order, **({"t338": 2} if channels == 4 else {}))
    (block,) = rows(data, "a.tif")
    np.testing.assert_array_equal(value(block, "pixels"), deep(channels))
    assert value(block, "mode") == (b"RGB;16" if channels == 3 else b"RGBA;16")
    assert probe(data, ImageOptions(), Limits()) == (deep(channels).shape, "<u2")


def test_a_fourth_sample_that_means_nothing_is_left_out() -> None:
    np.testing.assert_array_equal(pixels_of(tiff(deep(4), t338=0), "a.tif"), deep(4)[:, :, :3])


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_real_numbers_stay_as_they_are(order: str, channels: int) -> None:
    pixels = (np.random.default_rng(1).random((5, 8, channels)) * 1000 - 300).astype(np.float32)
    (block,) = rows(tiff(pixels, order, **({"t338": 2} if channels == 4 else {})), "a.tif")
    np.testing.assert_array_equal(value(block, "pixels"), pixels)
    assert value(block, "pixels").dtype.str == "<f4"


@pytest.mark.parametrize("orientation", range(1, 9))
def test_16_bit_are_turned_as_8_bit_are(orientation: int) -> None:
    (block,) = rows(tiff(deep(3), t274=orientation), "a.tif")
    upper = tiff((deep(3) >> 8).astype(np.uint8), t274=orientation)
    np.testing.assert_array_equal(value(block, "pixels") >> 8, pixels_of(upper, "a.tif"))
    assert value(block, "orientation") == orientation
    assert (value(block, "height"), value(block, "width")) == value(block, "pixels").shape[:2]


def test_uncompressed_planes_of_16_bit_are_not_mixed_up() -> None:
    with pytest.raises(MemberError, match="uncompressed planes of 16 bit"):
        rows(tiff(deep(3), t284=2), "a.tif")


def test_pages_of_different_kinds_are_rows() -> None:
    first, second = picture("RGB"), picture("L", 9, 8)
    data = saved(first, "TIFF", save_all=True, append_images=[second, picture("I;16", 4, 3)])
    blocks = rows(data, "a.tif", frames="all")
    assert [value(block, "mode") for block in blocks] == [b"RGB", b"L", b"I;16"]
    for block, page in zip(blocks, (first, second, picture("I;16", 4, 3)), strict=True):
        np.testing.assert_array_equal(value(block, "pixels").squeeze(), np.asarray(page))
    assert {value(block, "frames") for block in blocks} == {3}


def test_every_page_is_bounded() -> None:
    data = saved(picture(width=5, height=5), "TIFF", save_all=True, append_images=[picture(width=60, height=60)])
    with pytest.raises(MemberError, match=r"found 60 x 60 pixels"):
        converted(data, "a.tif", MediumOptions(image=ImageOptions(frames="all")), Limits(pixels=1000))


@pytest.mark.parametrize("pixels", [deep(3), deep(3).astype(np.float32)])
def test_a_page_that_opencv_decodes_is_bounded(pixels: NDArray) -> None:
    with pytest.raises(MemberError, match=r"found 13 x 9 pixels, expected at most 100"):
        converted(tiff(pixels), "a.tif", limits=Limits(pixels=100))
    with pytest.raises(MemberError, match=r"pixels in a tile"):
        converted(tiff(pixels, t322=64, t323=64), "a.tif", limits=Limits(pixels=200))


def test_what_neither_reads_is_a_member_error() -> None:
    for pixels in (deep(3).astype(np.float64), deep(3).astype(np.uint32), deep(5)):
        with pytest.raises(MemberError, match="cannot be decoded as TIFF"):
            rows(tiff(pixels), "a.tif")


@pytest.mark.parametrize("data", [tiff(deep(3)), tiff(deep(3).astype(np.float32)), saved(picture(), "TIFF", compression="tiff_lzw")])
def test_any_cut_is_rejected_or_shows_the_same(data: bytes) -> None:
    whole = pixels_of(data, "a.tif")
    for end in range(0, len(data), 13):
        try:
            found = pixels_of(data[:end], "a.tif")
        except MemberError:
            continue
        np.testing.assert_array_equal(found, whole)
