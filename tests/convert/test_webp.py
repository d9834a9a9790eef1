from __future__ import annotations

import numpy as np
import pytest

from h5dat_lib.config import ImageOptions, Limits
from h5dat_lib.convert.image import probe
from h5dat_lib.errors import MemberError
from tests.convert.pictures import picture, pixels_of, reference, rows, saved


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
@pytest.mark.parametrize(
    "how", [{"quality": 80}, {"lossless": True}, {"lossless": True, "exif": b"Exif\0\0"}, {"quality": 20, "method": 6}]
)
def test_both_decoders_give_pillows_pixels(mode: str, how: dict) -> None:
    for width, height in ((37, 23), (1, 1), (16, 200)):
        data = saved(picture(mode, width, height), "WEBP", **how)
        np.testing.assert_array_equal(pixels_of(data, "a.webp"), reference(data))
        assert probe(data, ImageOptions(), Limits()) == (reference(data).shape, "|u1")


@pytest.mark.parametrize("how", [{"quality": 80}, {"lossless": True}])
def test_any_cut_is_a_member_error_in_both_modes(how: dict) -> None:
    data = saved(picture(), "WEBP", **how)
    for end in range(0, len(data), 7):
        for damaged in ("strict", "tolerant"):
            with pytest.raises(MemberError):
                rows(data[:end], "a.webp", damaged=damaged)
