from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from h5dat_lib.config import ImageOptions, Limits
from h5dat_lib.convert.image import probe
from h5dat_lib.errors import MemberError
from tests.convert.pictures import picture, pixels_of, rows, saved, value

DEEP = (Path(__file__).parents[1] / "data" / "images" / "rgb16.jp2").read_bytes()
"""By another encoder: tests/data/images/ORIGIN.md."""


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "I;16"])
@pytest.mark.parametrize("bare", [True, False])
def test_lossless_pictures_come_back(mode: str, bare: bool) -> None:
    data = saved(picture(mode), "JPEG2000", no_jp2=bare)
    (block,) = rows(data, "a.jp2")
    np.testing.assert_array_equal(value(block, "pixels").squeeze(), np.asarray(picture(mode)))
    assert value(block, "format") == b"JPEG2000"


def test_colours_of_16_bit_stay_16_bit() -> None:
    (block,) = rows(DEEP, "a.jp2")
    assert (value(block, "pixels").dtype.str, value(block, "mode")) == ("<u2", b"RGB;16")
    assert probe(DEEP, ImageOptions(), Limits())[1] == "<u2"
    assert (value(block, "pixels") % 256 != 0).any()


@pytest.mark.parametrize("data", [saved(picture(), "JPEG2000"), saved(picture(), "JPEG2000", no_jp2=True), DEEP])
def test_any_cut_is_rejected_in_strict_mode_and_marked_otherwise(data: bytes) -> None:
    marked = 0
    for end in [*range(0, len(data), max(len(data) // 60, 1)), len(data) - 1]:
        with pytest.raises(MemberError):
            rows(data[:end], "a.jp2")
        try:
            (block,) = rows(data[:end], "a.jp2", damaged="tolerant")
        except MemberError:
            continue
        assert value(block, "damage").startswith(b"cut")
        marked += 1
    assert marked


def test_what_fills_up_a_bare_codestream_is_no_damage() -> None:
    data = saved(picture(), "JPEG2000", no_jp2=True)
    np.testing.assert_array_equal(pixels_of(data + bytes(9), "a.j2k"), np.asarray(picture()))


def test_boxes_that_lead_nowhere_are_a_member_error() -> None:
    start = saved(picture(), "JPEG2000")[:12]
    for box in (b"", b"\0\0\0\x04free", b"\0\0\0\x01free" + bytes(8), b"\0\0\0\0free"):
        with pytest.raises(MemberError, match="found no codestream"):
            rows(start + box, "a.jp2")
