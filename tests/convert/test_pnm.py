from __future__ import annotations

import numpy as np
import pytest

from h5dat_lib.config import ImageOptions, Limits, MediumOptions
from h5dat_lib.convert.image import probe
from h5dat_lib.errors import MemberError
from tests.convert.conftest import converted
from tests.convert.pictures import deep, pixels_of, rows, value


def numbers(values: np.ndarray) -> bytes:
    return b" ".join(b"%d" % number for number in values.ravel()) + b"\n"


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize("comment", [b"", b"# made by hand\n"])
def test_16_bit_stay_16_bit(channels: int, plain: bool, comment: bytes) -> None:
    pixels = deep(channels)
    kind = {(1, True): b"P2", (3, True): b"P3", (1, False): b"P5", (3, False): b"P6"}[channels, plain]
    data = kind + b"\n" + comment + b"13 9\n65535\n" + (numbers(pixels) if plain else pixels.astype(">u2").tobytes())
    (block,) = rows(data, "a.ppm")
    np.testing.assert_array_equal(value(block, "pixels"), pixels)
    assert value(block, "mode") == (b"I;16" if channels == 1 else b"RGB;16")
    assert probe(data, ImageOptions(), Limits()) == (pixels.shape, "<u2")


@pytest.mark.parametrize("channels", [1, 3])
def test_samples_are_brought_to_the_full_range(channels: int) -> None:
    pixels = deep(channels) % 1001
    data = b"P%d 13 9 1000\n" % (5 if channels == 1 else 6) + pixels.astype(">u2").tobytes()
    np.testing.assert_array_equal(pixels_of(data, "a.ppm"), np.rint(pixels / 1000 * 65535))


def test_bits_are_black_where_they_are_set() -> None:
    np.testing.assert_array_equal(pixels_of(b"P4\n3 2\n\x40\xa0", "a.pbm")[:, :, 0], [[255, 0, 255], [0, 255, 0]])
    np.testing.assert_array_equal(pixels_of(b"P1\n3 2\n0 1 0\n1 0 1\n", "a.pbm")[:, :, 0], [[255, 0, 255], [0, 255, 0]])


def test_a_last_number_that_may_be_cut_is_rejected_or_marked() -> None:
    data = b"P2\n2 1\n255\n7 254"
    with pytest.raises(MemberError, match="may be cut"):
        rows(data, "a.pgm")
    (block,) = rows(data, "a.pgm", damaged="tolerant")
    assert value(block, "damage").startswith(b"may be cut")
    assert value(block, "pixels").ravel().tolist() == [7, 254]
    assert pixels_of(data + b"\n", "a.pgm").ravel().tolist() == [7, 254]


def test_a_text_that_starts_like_one_is_none() -> None:
    for data in (b"P3 is the third\n", b"P6\nis the sixth\n", b"P5", b"P2 0 0 255\n\n"):
        with pytest.raises(MemberError):
            rows(data, "a.ppm")


def test_colours_of_16_bit_are_bounded() -> None:
    data = b"P6 13 9 65535\n" + deep(3).astype(">u2").tobytes()
    assert len(converted(data, "a.ppm", limits=Limits(pixels=13 * 9))) == 1
    with pytest.raises(MemberError, match="found 13 x 9 pixels"):
        converted(data, "a.ppm", MediumOptions(), Limits(pixels=13 * 9 - 1))
