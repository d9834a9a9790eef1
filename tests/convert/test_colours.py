from __future__ import annotations

import io
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from h5dat_lib.config import ImageOptions, Limits, MediumOptions
from h5dat_lib.convert.image import probe
from h5dat_lib.errors import MemberError
from tests.convert.pictures import deep, picture, pixels_of, png, png_chunk, reference, saved

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
SWAPPED = SRGB.replace(b"rXYZ", b"????", 1).replace(b"gXYZ", b"rXYZ", 1).replace(b"????", b"gXYZ", 1)
"""sRGB, but red light is what green is: converting to sRGB swaps the channels."""


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
@pytest.mark.parametrize("color", ["RGB", "L"])
def test_colour_is_converted_as_pillow_does(convert, mode: str, color: str) -> None:
    data = saved(picture(mode), "PNG")
    (pixels,) = convert(data, "a.png", MediumOptions(image=ImageOptions(color=color)))[0].columns["pixels"].values
    np.testing.assert_array_equal(pixels, np.asarray(Image.open(io.BytesIO(data)).convert(color)).reshape(pixels.shape))


def test_16_bit_becomes_8_bit_when_a_colour_is_asked_for(convert) -> None:
    data = saved(picture("I;16"), "PNG")
    deep = np.asarray(picture("I;16"))
    for color, channels in (("RGB", 3), ("L", 1)):
        (pixels,) = convert(data, "a.png", MediumOptions(image=ImageOptions(color=color)))[0].columns["pixels"].values
        assert pixels.shape == (23, 37, channels)
        assert all(np.array_equal(pixels[:, :, channel], deep // 256) for channel in range(channels))
        assert probe(data, ImageOptions(color=color), Limits()) == (pixels.shape, "|u1")


@pytest.mark.parametrize(("kind", "how"), [("JPEG", {"quality": 95}), ("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True})])
def test_a_profile_is_applied_only_when_asked_for(kind: str, how: dict) -> None:
    data = saved(picture(), kind, icc_profile=SWAPPED, **how)
    plain = reference(data)
    np.testing.assert_array_equal(pixels_of(data, "a"), plain)
    np.testing.assert_allclose(pixels_of(data, "a", profile="srgb").astype(int), plain[:, :, [1, 0, 2]], atol=1)


def test_pixels_that_are_srgb_or_have_no_profile_stay_as_they_are() -> None:
    for how in ({"icc_profile": SRGB}, {}):
        data = saved(picture(), "PNG", **how)
        np.testing.assert_allclose(pixels_of(data, "a", profile="srgb").astype(int), reference(data), atol=1)


def test_alpha_is_no_colour() -> None:
    data = saved(picture("RGBA"), "PNG", icc_profile=SWAPPED)
    np.testing.assert_allclose(pixels_of(data, "a", profile="srgb").astype(int), reference(data)[:, :, [1, 0, 2, 3]], atol=1)
    np.testing.assert_array_equal(pixels_of(data, "a", profile="srgb")[:, :, 3], reference(data)[:, :, 3])


def test_palettes_are_converted_behind_their_colours() -> None:
    data = saved(picture("P"), "PNG", icc_profile=SWAPPED)
    np.testing.assert_allclose(pixels_of(data, "a", profile="srgb").astype(int), reference(data)[:, :, [1, 0, 2]], atol=1)


@pytest.mark.parametrize("profile", [b"no profile", SRGB[:200], SRGB.replace(b"RGB XYZ", b"GRAYXYZ", 1)])
def test_a_profile_that_cannot_be_used_is_a_member_error(profile: bytes) -> None:
    data = saved(picture(), "PNG", icc_profile=profile)
    with pytest.raises(MemberError, match="cannot be converted to sRGB"):
        pixels_of(data, "a", profile="srgb")
    np.testing.assert_array_equal(pixels_of(data, "a"), reference(data))


def test_16_bit_are_not_brought_to_8_silently() -> None:
    data = png(deep(3), 2, png_chunk(b"iCCP", b"p\0\0" + zlib.compress(SWAPPED)))
    with pytest.raises(MemberError, match="found uint16 pixels with a profile, expected uint8"):
        pixels_of(data, "a", profile="srgb")
    upper = (deep(3) >> 8)[:, :, [1, 0, 2]]
    np.testing.assert_allclose(pixels_of(data, "a", profile="srgb", color="RGB").astype(int), upper, atol=1)
    grey = np.asarray(Image.fromarray(upper.astype(np.uint8)).convert("L"))
    np.testing.assert_allclose(pixels_of(data, "a", profile="srgb", color="L")[:, :, 0].astype(int), grey, atol=1)


def test_inks_are_converted_by_their_profile_and_not_before() -> None:
    """A profile of light on pixels of ink cannot be used; had they been made RGB before, it could."""
    data = saved(picture("CMYK"), "JPEG", icc_profile=SRGB)
    with pytest.raises(MemberError, match="cannot be converted to sRGB"):
        pixels_of(data, "a", profile="srgb")
    assert pixels_of(data, "a").shape[2] == 3
