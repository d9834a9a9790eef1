from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from h5dat_lib.errors import MemberError
from tests.convert.pictures import picture, pixels_of, rows, saved, value

REAL = (Path(__file__).parents[1] / "data" / "images" / "picture.qoi").read_bytes()
"""By another encoder: tests/data/images/ORIGIN.md."""


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
@pytest.mark.parametrize(("width", "height"), [(37, 23), (1, 1), (1, 9), (200, 1), (62, 62)])
def test_pixels_are_pillows(mode: str, width: int, height: int) -> None:
    for image in (picture(mode, width, height), Image.new(mode, (width, height))):
        data = saved(image, "QOI")
        np.testing.assert_array_equal(pixels_of(data, "a.qoi"), np.asarray(Image.open(io.BytesIO(data))))


def test_a_real_one_is_read() -> None:
    np.testing.assert_array_equal(pixels_of(REAL, "a.qoi"), np.asarray(Image.open(io.BytesIO(REAL))))


def test_any_cut_is_rejected_or_marked() -> None:
    for end in range(0, len(REAL), 7):
        with pytest.raises(MemberError):
            rows(REAL[:end], "a.qoi")
        if end >= 14:
            assert value(rows(REAL[:end], "a.qoi", damaged="tolerant")[0], "damage") != b""


@pytest.mark.parametrize(("width", "height"), [(37, 24), (37, 22), (38, 23), (36, 23)])
def test_more_or_fewer_pixels_than_the_header_says_are_found(width: int, height: int) -> None:
    data = saved(picture(), "QOI")
    wrong = data[:4] + struct.pack(">LL", width, height) + data[12:]
    with pytest.raises(MemberError, match=f"found other pixels than {width} x {height}"):
        rows(wrong, "a.qoi")
    assert value(rows(wrong, "a.qoi", damaged="tolerant")[0], "damage").startswith(b"found other pixels")


def test_lost_operations_are_found() -> None:
    data = saved(picture(), "QOI")
    for at in range(14, len(data) - 30, 97):
        with pytest.raises(MemberError, match="found other pixels than 37 x 23"):
            rows(data[:at] + data[at + 12 :], "a.qoi")


@pytest.mark.parametrize("data", [b"", b"qoif", b"qoif" + struct.pack(">LLBB", 3, 3, 5, 0), b"qoix" + struct.pack(">LLBB", 3, 3, 3, 0)])
def test_what_is_none_is_a_member_error(data: bytes) -> None:
    with pytest.raises(MemberError):
        rows(data, "a.qoi")
