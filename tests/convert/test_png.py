from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from h5dat_lib.config import ImageOptions, MediumOptions
from h5dat_lib.convert.image import decode
from h5dat_lib.errors import MemberError
from tests.convert.pictures import deep, exif, picture, pixels_of, png, png_chunk, reference, rows, saved, value

LARGE = saved(picture(width=200, height=200), "PNG")


def test_a_png_with_a_wrong_checksum_is_a_member_error(convert) -> None:
    data = bytearray(saved(picture(), "PNG"))
    data[data.index(b"IDAT") + 8] ^= 0xFF
    with pytest.raises(MemberError):
        convert(bytes(data), "a.png")


def test_an_orientation_behind_the_pixels_of_a_png_is_found(convert) -> None:
    data = saved(picture(), "PNG")
    body = b"eXIf" + exif(6)[6:]
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    late = data[:-12] + chunk + data[-12:]
    (block,) = convert(late, "a.png", MediumOptions(image=ImageOptions(storage="encoded")))
    assert [block.columns[name].values[0] for name in ("height", "width")] == [37, 23]
    np.testing.assert_array_equal(decode(late, ImageOptions()), reference(late))


@pytest.mark.parametrize(("color", "channels", "mode"), [(0, 1, b"I;16"), (2, 3, b"RGB;16"), (4, 2, b"LA;16"), (6, 4, b"RGBA;16")])
def test_16_bit_stay_16_bit(color: int, channels: int, mode: bytes) -> None:
    (block,) = rows(png(deep(channels), color), "a.png")
    np.testing.assert_array_equal(value(block, "pixels"), deep(channels))
    assert (value(block, "pixels").dtype.str, value(block, "mode")) == ("<u2", mode)


@pytest.mark.parametrize(("color", "channels"), [(0, 1), (2, 3)])
def test_a_transparent_colour_of_16_bit_becomes_alpha(color: int, channels: int) -> None:
    pixels = deep(channels)
    found = pixels_of(png(pixels, color, png_chunk(b"tRNS", pixels[2, 3].astype(">u2").tobytes())), "a.png")
    np.testing.assert_array_equal(found[:, :, :channels], pixels)
    np.testing.assert_array_equal(found[:, :, channels], 65535 * (pixels != pixels[2, 3]).any(axis=2))


def test_16_bit_are_turned_as_exif_says() -> None:
    body = exif(6)[6:]
    (block,) = rows(png(deep(3), 2, png_chunk(b"eXIf", body)), "a.png")
    assert value(block, "orientation") == 6
    np.testing.assert_array_equal(value(block, "pixels"), np.rot90(deep(3), -1))


@pytest.mark.parametrize("chunk", [b"IDAT", b"gAMA", b"tEXt", b"IEND"])
def test_every_checksum_counts_in_strict_mode(chunk: bytes) -> None:
    data = bytearray(png(np.asarray(picture()), 2, png_chunk(b"gAMA", bytes(4)), png_chunk(b"tEXt", b"a\0b")))
    size = struct.unpack_from(">L", data, data.index(chunk) - 4)[0]
    data[data.index(chunk) + 4 + size + 3] ^= 1
    with pytest.raises(MemberError, match=f"cannot be decoded as PNG: bad checksum of chunk {chunk.decode()} at byte"):
        rows(bytes(data), "a.png")
    (block,) = rows(bytes(data), "a.png", damaged="tolerant")
    assert value(block, "damage").startswith(b"bad checksum of chunk " + chunk)
    np.testing.assert_array_equal(value(block, "pixels"), np.asarray(picture()))


def test_what_lies_before_a_cut_is_kept_in_tolerant_mode_and_the_rest_is_black() -> None:
    cut = LARGE[: len(LARGE) // 2]
    with pytest.raises(MemberError, match="cannot be decoded as PNG: cut in chunk IDAT"):
        rows(cut, "a.png")
    (block,) = rows(cut, "a.png", damaged="tolerant")
    pixels = value(block, "pixels")
    assert value(block, "damage").startswith(b"cut in chunk IDAT at byte ")
    np.testing.assert_array_equal(pixels[:50], reference(LARGE)[:50])
    assert not pixels[-20:].any()
    assert value(rows(LARGE, "a.png", damaged="tolerant")[0], "damage") == b""


@pytest.mark.parametrize("bits", [8, 16])
def test_a_stream_that_is_damaged_behind_right_checksums_is_found(bits: int) -> None:
    pixels = np.asarray(picture()) if bits == 8 else deep(3)
    stream = zlib.compress(b"".join(b"\0" + row.astype(pixels.dtype.newbyteorder(">")).tobytes() for row in pixels))
    for damaged in (
        stream[: len(stream) // 2],
        stream[:-1] + bytes((stream[-1] ^ 1,)),
        stream[:50] + bytes((stream[50] ^ 9,)) + stream[51:],
    ):
        with pytest.raises(MemberError, match="cannot be decoded as PNG"):
            rows(png(pixels, 2, stream=damaged), "a.png")


@pytest.mark.parametrize("color", ["keep", "RGB"])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_interlaced_pictures_are_the_same(mode: str, color: str) -> None:
    """Interlaced by hand: seven passes, each a picture (PNG, 8.1)."""
    pixels = np.asarray(picture(mode)).reshape(23, 37, -1)
    passes = [(0, 8, 0, 8), (0, 8, 4, 8), (4, 8, 0, 4), (0, 4, 2, 4), (2, 4, 0, 2), (0, 2, 1, 2), (1, 2, 0, 1)]
    rows_of = [b"\0" + row.tobytes() for y, dy, x, dx in passes for row in pixels[y::dy, x::dx] if row.size]
    data = bytearray(png(pixels, {"L": 0, "RGB": 2, "RGBA": 6}[mode], stream=zlib.compress(b"".join(rows_of))))
    data[28] = 1
    data[29:33] = struct.pack(">L", zlib.crc32(data[12:29]))
    expected = pixels if color == "keep" else np.asarray(picture(mode).convert(color))
    np.testing.assert_array_equal(pixels_of(bytes(data), "a.png", color=color), expected)


def test_a_picture_before_the_animation_is_its_first_frame() -> None:
    shades = [Image.new("RGB", (5, 4), (number * 90, 0, 0)) for number in range(3)]
    data = saved(shades[0], "PNG", save_all=True, append_images=shades[1:], default_image=True)
    blocks = rows(data, "a.png", frames="all")
    assert [value(block, "pixels")[0, 0, 0] for block in blocks] == [0, 90, 180]
    assert {value(block, "frames") for block in blocks} == {3}
    assert Image.open(io.BytesIO(data)).n_frames == 3


@pytest.mark.parametrize("color", [1, 3, 5])
def test_colour_types_that_have_no_16_bit_are_a_member_error(color: int) -> None:
    with pytest.raises(MemberError, match="cannot be decoded as PNG"):
        rows(png(deep(3), color), "a.png")


@pytest.mark.parametrize(("color", "channels"), [(4, 2), (6, 4)])
def test_a_transparent_colour_means_nothing_where_there_is_alpha(color: int, channels: int) -> None:
    data = png(deep(channels), color, png_chunk(b"tRNS", bytes(6)))
    np.testing.assert_array_equal(pixels_of(data, "a.png"), deep(channels))
