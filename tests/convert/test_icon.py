from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image

from h5dat_lib.config import ImageOptions, Limits, MediumOptions
from h5dat_lib.errors import MemberError
from tests.convert.conftest import converted
from tests.convert.pictures import picture, pixels_of, rows, saved, value


def bitmap(colours: np.ndarray, bits: int, mask: np.ndarray) -> bytes:
    """A bitmap as icons have it: bottom row first, colours, then a bit for each pixel that shows nothing."""
    height, width = mask.shape
    pixels = [row.tobytes() + bytes(-len(row.tobytes()) % 4) for row in colours[::-1]]
    bits_of = [np.packbits(row).tobytes() + bytes(-(-width // 8) * -1 % 4) for row in mask[::-1]]
    header = struct.pack("<LllHHLLllLL", 40, width, 2 * height, 1, bits, 0, 0, 0, 0, 0, 0)
    return header + b"".join(pixels) + b"".join(bits_of)


def directory(kind: int, *bodies: tuple[int, int, bytes], bits: int = 0) -> bytes:
    """An icon (1) or a cursor (2) of pictures (width, height, bytes)."""
    at, head = 6 + 16 * len(bodies), struct.pack("<HHH", 0, kind, len(bodies))
    for width, height, body in bodies:
        head += struct.pack("<BBBBHHLL", width % 256, height % 256, 0, 0, 1, bits, len(body), at)
        at += len(body)
    return head + b"".join(body for *_, body in bodies)


COLOURS = np.random.default_rng(3).integers(0, 256, (32, 32, 4)).astype(np.uint8)
MASK = np.random.default_rng(4).random((32, 32)) < 0.5
OPAQUE = np.zeros((32, 32), bool)


@pytest.mark.parametrize(("kind", "path"), [(1, "a.ico"), (2, "a.cur")])
@pytest.mark.parametrize("said", [0, 24, 7])
def test_colours_and_mask_are_read_whatever_the_directory_says(kind: int, path: str, said: int) -> None:
    data = directory(kind, (32, 32, bitmap(COLOURS[:, :, :3], 24, MASK)), bits=said)
    (block,) = rows(data, path)
    np.testing.assert_array_equal(value(block, "pixels")[:, :, :3], COLOURS[:, :, 2::-1])
    np.testing.assert_array_equal(value(block, "pixels")[:, :, 3] == 0, MASK)
    assert value(block, "format") == (b"ICO" if kind == 1 else b"CUR")


@pytest.mark.parametrize(("kind", "path"), [(1, "a.ico"), (2, "a.cur")])
def test_alpha_is_read(kind: int, path: str) -> None:
    data = directory(kind, (32, 32, bitmap(COLOURS, 32, OPAQUE)), bits=7)
    np.testing.assert_array_equal(pixels_of(data, path), COLOURS[:, :, [2, 1, 0, 3]])


@pytest.mark.parametrize(("kind", "path"), [(1, "a.ico"), (2, "a.cur")])
def test_the_largest_is_taken_and_0_means_256(kind: int, path: str) -> None:
    small = (32, 32, bitmap(COLOURS, 32, OPAQUE))
    large = (256, 256, saved(picture("RGBA", 256, 256), "PNG"))
    for bodies in ((small, large), (large, small)):
        np.testing.assert_array_equal(pixels_of(directory(kind, *bodies), path), np.asarray(picture("RGBA", 256, 256)))


def test_of_equal_sizes_the_one_with_the_most_bits_is_taken() -> None:
    one_bit = (32, 32, struct.pack("<LllHHLLllLL", 40, 32, 64, 1, 1, 0, 0, 0, 0, 2, 0) + bytes((0, 0, 0, 0, 255, 255, 255, 0)) + bytes(256))
    full = (32, 32, bitmap(COLOURS, 32, OPAQUE))
    for bodies in ((one_bit, full), (full, one_bit)):
        np.testing.assert_array_equal(pixels_of(directory(1, *bodies), "a.ico"), COLOURS[:, :, [2, 1, 0, 3]])


def test_an_icon_of_apple_gives_the_picture_with_the_most_pixels() -> None:
    def entry(name: bytes, size: int) -> bytes:
        body = saved(Image.new("RGBA", (size, size), (size, 0, 0, 255)), "PNG")
        return name + struct.pack(">L", len(body) + 8) + body

    body = entry(b"ic12", 64) + entry(b"icp5", 32) + entry(b"ic11", 32)
    data = b"icns" + struct.pack(">L", len(body) + 8) + body
    assert pixels_of(data, "a.icns").shape == (64, 64, 4)


def test_a_picture_within_that_is_too_large_is_refused() -> None:
    data = directory(1, (16, 16, saved(Image.new("L", (500, 500)), "PNG")))
    with pytest.raises(MemberError, match="found 500 x 500 pixels"):
        converted(data, "a.ico", limits=Limits(pixels=1000))
    body = struct.pack("<LllHHLLllLL", 40, 30000, 60000, 1, 24, 0, 0, 0, 0, 0, 0)
    with pytest.raises(MemberError, match="found 30000 x 30000 pixels"):
        converted(directory(1, (16, 16, body)), "a.ico")


@pytest.mark.parametrize("damaged", ["strict", "tolerant"])
def test_a_cut_bitmap_is_a_member_error(damaged: str) -> None:
    data = directory(1, (32, 32, bitmap(COLOURS[:, :, :3], 24, MASK)))
    for end in range(0, len(data), 61):
        with pytest.raises(MemberError):
            converted(data[:end], "a.ico", MediumOptions(image=ImageOptions(damaged=damaged)))


def test_a_cut_png_within_is_marked_in_tolerant_mode() -> None:
    data = directory(2, (64, 64, saved(picture(width=64, height=64), "PNG")))
    with pytest.raises(MemberError, match="cut in chunk IDAT"):
        rows(data[:-900], "a.cur")
    assert value(rows(data[:-900], "a.cur", damaged="tolerant")[0], "damage").startswith(b"cut in chunk IDAT")


def test_the_largest_of_several_bitmaps_is_pillows() -> None:
    data = saved(picture("RGBA", 48, 48), "ICO", sizes=[(16, 16), (48, 48)], bitmap_format="bmp")
    np.testing.assert_array_equal(pixels_of(data, "a.ico"), np.asarray(Image.open(io.BytesIO(data))))
