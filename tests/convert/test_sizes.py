from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from h5dat_lib.config import ImageOptions, Limits, MediumOptions, Resize
from h5dat_lib.convert.image import probe
from h5dat_lib.convert.sizes import resize, resized, seen, wanted
from tests.convert.pictures import picture, reference, saved

SIZES = st.integers(1, 70)
RESIZES = st.builds(Resize, width=SIZES, height=SIZES, mode=st.sampled_from(["fit", "fill", "pad"]))


@pytest.mark.parametrize("interpolation", ["nearest", "linear", "area", "cubic", "lanczos"])
@pytest.mark.parametrize(("mode", "shape"), [("fit", (12, 20)), ("fill", (20, 20)), ("pad", (20, 20))])
@pytest.mark.parametrize("source", ["L", "RGBA", "I;16", "I", "F"])
def test_resizing_gives_the_size_and_keeps_the_dtype(convert, interpolation: str, mode: str, shape: tuple, source: str) -> None:
    data = saved(picture(source), "TIFF")
    options = ImageOptions(resize=Resize(width=20, height=20, mode=mode, interpolation=interpolation))
    (pixels,) = convert(data, "a.tif", MediumOptions(image=options))[0].columns["pixels"].values
    assert pixels.shape[:2] == shape
    assert pixels.dtype == reference(data).dtype
    assert probe(data, options, Limits()) == (pixels.shape, pixels.dtype.str)


@pytest.mark.parametrize("mode", ["fit", "fill", "pad"])
def test_extreme_aspects_stay_small(convert, mode: str) -> None:
    options = MediumOptions(image=ImageOptions(resize=Resize(width=10, height=10, mode=mode)))
    (pixels,) = convert(saved(Image.new("L", (1, 30000), 9), "PNG"), "a.png", options)[0].columns["pixels"].values
    assert pixels.shape == ((10, 1, 1) if mode == "fit" else (10, 10, 1))


def test_fill_shows_the_centre_and_pad_the_colour_around(convert) -> None:
    stripes = Image.fromarray(np.repeat(np.array([[0, 100, 200]], np.uint8), 30, axis=1).repeat(30, axis=0))
    data = saved(stripes, "PNG")
    fill = (
        convert(data, "a.png", MediumOptions(image=ImageOptions(resize=Resize(width=30, height=30, mode="fill"))))[0]
        .columns["pixels"]
        .values[0]
    )
    assert (fill == 100).all()
    pad = (
        convert(data, "a.png", MediumOptions(image=ImageOptions(resize=Resize(width=90, height=40, mode="pad", color=7))))[0]
        .columns["pixels"]
        .values[0]
    )
    assert (pad[:5] == 7).all()
    assert (pad[35:] == 7).all()
    assert (pad[5:35, 40] == 100).all()


@given(SIZES, SIZES, RESIZES)
def test_the_size_is_the_one_that_was_foretold(height: int, width: int, how: Resize) -> None:
    pixels = resize(np.zeros((height, width, 3), np.uint8), how)
    assert pixels.shape[:2] == resized(height, width, how)
    assert all(part <= side for part, side in zip(seen(height, width, how), (height, width), strict=True))
    assert all(part <= side for part, side in zip(wanted(height, width, how), resized(height, width, how), strict=True))


@given(st.integers(8, 70), st.integers(8, 70), RESIZES)
def test_a_picture_that_was_decoded_to_fewer_pixels_gets_the_same_size(height: int, width: int, how: Resize) -> None:
    fewer = np.zeros((-(-height // 2), -(-width // 2), 1), np.uint8)
    assert resize(fewer, how, (height, width)).shape[:2] == resized(height, width, how)
