from __future__ import annotations

import io
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from h5dat_lib.columns import Fault
from h5dat_lib.config import ImageOptions, Limits, MediumOptions, Resize
from h5dat_lib.convert import image
from h5dat_lib.convert.image import OPENERS, SIGNATURES, WEAK_SIGNATURES, attributes, decode, from_attributes, probe
from h5dat_lib.errors import MemberError
from tests.convert.conftest import content_of, converted
from tests.convert.pictures import SUFFIX, exif, picture, reference, rows, saved, value

__all__ = ["reference"]  # what the corpora are compared with

IMAGES = Path(__file__).parents[1] / "data" / "images"


CASES = [
    *[("JPEG", mode, {}) for mode in ("L", "RGB", "CMYK")],
    ("JPEG", "RGB", {"progressive": True}),
    ("JPEG", "RGB", {"subsampling": 0, "quality": 95}),
    *[("PNG", mode, {}) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")],
    ("PNG", "P", {"transparency": 3}),
    ("PNG", "L", {"transparency": 40}),
    ("PNG", "RGB", {"transparency": (0, 0, 0)}),
    *[("BMP", mode, {}) for mode in ("1", "L", "P", "RGB")],
    *[("GIF", mode, {}) for mode in ("L", "P")],
    ("GIF", "P", {"transparency": 3}),
    *[("TIFF", mode, {}) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "I;16", "I", "F")],
    ("TIFF", "RGB", {"compression": "tiff_lzw"}),
    ("TIFF", "RGB", {"big_tiff": True}),
    *[("WEBP", mode, {"lossless": True}) for mode in ("RGB", "RGBA")],
]


@pytest.mark.parametrize(("kind", "mode", "how"), CASES)
def test_pixels_and_description_are_pillows(convert, kind: str, mode: str, how: dict) -> None:
    data = saved(picture(mode), kind, **how)
    (block,) = convert(data, "a" + SUFFIX[kind])
    (pixels,) = block.columns["pixels"].values
    expected = reference(data)
    assert pixels.shape == expected.shape
    assert pixels.dtype == expected.dtype.newbyteorder("<")
    np.testing.assert_array_equal(pixels, expected)
    assert [block.columns[name].values[0] for name in ("height", "width", "channels")] == list(expected.shape)
    assert list(block.columns["format"].values) == [kind.encode()]
    assert list(block.columns["mode"].values) == [Image.open(io.BytesIO(data)).mode.encode()]
    assert list(block.columns["orientation"].values) == [1]
    assert probe(data, ImageOptions(), Limits()) == (expected.shape, pixels.dtype.str)


def test_an_animation_gives_its_first_frame(convert) -> None:
    data = saved(picture("P"), "GIF", save_all=True, append_images=[picture("P").rotate(90)])
    np.testing.assert_array_equal(convert(data, "a.gif")[0].columns["pixels"].values[0], reference(data))


def test_encoded_storage_keeps_the_bytes_and_tells_how_to_decode_them(convert) -> None:
    data = saved(picture(), "JPEG", exif=exif(6))
    options = ImageOptions(storage="encoded", color="L", resize=Resize(width=16, height=16))
    (block,) = convert(data, "a.jpg", MediumOptions(image=options))
    assert block.columns["pixels"].values == [data]
    assert block.columns["pixels"].layout == "encoded"
    pixels = decode(data, options)
    assert pixels.shape == tuple(block.columns[name].values[0] for name in ("height", "width", "channels"))
    assert block.attributes["color"] == "L"
    assert Resize.model_validate_json(block.attributes["resize"]) == options.resize
    plain = convert(data, "a.jpg", MediumOptions(image=options.model_copy(update={"storage": "decoded"})))[0]
    np.testing.assert_array_equal(pixels, plain.columns["pixels"].values[0])


@pytest.mark.parametrize("kind", list(SUFFIX))
@pytest.mark.parametrize("storage", ["decoded", "encoded"])
def test_more_pixels_than_allowed_are_refused_from_the_header(convert, kind: str, storage: str) -> None:
    with pytest.raises(MemberError, match="too large: found 37 x 23 pixels, expected at most 850"):
        convert(saved(picture(), kind), "a" + SUFFIX[kind], MediumOptions(image=ImageOptions(storage=storage)), Limits(pixels=850))


@pytest.mark.parametrize("kind", list(SUFFIX))
def test_half_a_picture_is_a_member_error(convert, kind: str) -> None:
    data = saved(picture(width=200, height=200), kind)
    with pytest.raises(MemberError, match=f"cannot be decoded as {kind}"):
        convert(data[: len(data) // 2], "a" + SUFFIX[kind])


@pytest.mark.parametrize("suffix", SUFFIX.values())
@pytest.mark.parametrize("storage", ["decoded", "encoded"])
@pytest.mark.parametrize("data", [b"", b"not a picture at all", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_picture_is_a_member_error(convert, suffix: str, storage: str, data: bytes) -> None:
    with pytest.raises(MemberError):
        convert(data, "a" + suffix, MediumOptions(image=ImageOptions(storage=storage)))


def test_a_bitmap_without_a_file_header_is_read(convert) -> None:
    data = saved(picture(), "DIB")
    np.testing.assert_array_equal(convert(data, "a.dib")[0].columns["pixels"].values[0], np.asarray(picture()))
    np.testing.assert_array_equal(decode(data, ImageOptions()), np.asarray(picture()))


def test_a_picture_of_more_frames_than_allowed_is_a_member_error() -> None:
    file = io.BytesIO()
    Image.new("L", (4, 4), 0).save(file, "GIF", save_all=True, append_images=[Image.new("L", (4, 4), n) for n in (1, 2)])
    assert len(converted(file.getvalue(), "a.gif", limits=Limits(frames=3))) == 1
    with pytest.raises(MemberError, match=r"found more than 2 frames \(limits.frames\)"):
        converted(file.getvalue(), "a.gif", limits=Limits(frames=2))


# Formats


def test_every_signature_has_an_opener() -> None:
    assert {*SIGNATURES, *WEAK_SIGNATURES} <= {*OPENERS}


ENCODED = ["AVIF", "BMP", "DDS", "DIB", "GIF", "ICO", "JPEG2000", "PCX", "PNG", "PPM", "QOI", "SGI", "TGA", "TIFF", "WEBP"]


@pytest.mark.parametrize("kind", ENCODED)
def test_what_is_stored_encoded_is_read_without_its_name(kind: str) -> None:
    data = saved(picture("RGB", 32, 32), kind)
    (block,) = rows(data, f"a.{kind.lower().replace('jpeg2000', 'jp2')}", storage="encoded")
    np.testing.assert_array_equal(decode(value(block, "pixels"), ImageOptions()), reference(data))


@pytest.mark.parametrize("kind", ["avif", "heic"])
def test_what_starts_as_a_picture_of_any_codec_goes_by_the_codec_that_it_names(kind: str) -> None:
    data = (IMAGES / f"picture.{kind}").read_bytes()
    other = data.replace(b"ftyp" + kind.encode(), b"ftypmif1", 1)
    assert other != data
    (block,) = rows(other, "a", storage="encoded")
    assert value(block, "format") == {"avif": b"AVIF", "heic": b"HEIF"}[kind]
    np.testing.assert_array_equal(decode(value(block, "pixels"), ImageOptions()), decode(data, ImageOptions()))


def test_content_decides_and_the_name_only_helps() -> None:
    assert value(rows(saved(picture(), "PNG"), "a.tga")[0], "format") == b"PNG"
    assert value(rows(saved(picture(), "TGA"), "a.tga")[0], "format") == b"TGA"
    assert value(rows(saved(picture(), "PCX"), "a")[0], "format") == b"PCX"
    with pytest.raises(MemberError):
        rows(b"a text that is none\n" * 20, "a.tga")


@pytest.mark.parametrize("start", [b"BMW is a car", b"P3 and P4", b"\n\n\n", b"GIF", b"icon", b"DDS ", b"8BPS are bits"])
def test_texts_are_no_pictures(start: bytes) -> None:
    assert not any(all(start.startswith(mark, at) for at, mark in group) for groups in SIGNATURES.values() for group in groups)


# Options


OPTIONS = [
    ImageOptions(),
    ImageOptions(color="L", resize=Resize(width=5, height=6, mode="pad", color=9)),
    ImageOptions(profile="srgb", damaged="tolerant", vector_size=640),
]


@pytest.mark.parametrize("options", OPTIONS)
def test_options_survive_as_attributes(options: ImageOptions) -> None:
    assert all(isinstance(text, str) for text in attributes(options).values())
    assert from_attributes(attributes(options)) == options


def test_older_attributes_are_read() -> None:
    assert from_attributes({"color": "RGB", "resize": ""}) == ImageOptions(color="RGB")


@pytest.mark.parametrize("how", [{"color": "purple"}, {"resize": "{"}, {"damaged": "very"}, {"vector_size": "-1"}])
def test_attributes_that_mean_nothing_are_an_error(how: dict) -> None:
    with pytest.raises(ValueError, match=r"."):
        from_attributes(how)


# Damage


KINDS: list[tuple[str, dict]] = [
    ("TIFF", {"compression": "tiff_lzw"}),
    ("TIFF", {"compression": "tiff_adobe_deflate"}),
    ("JPEG", {"progressive": True}),
    *((kind, {}) for kind in ("AVIF", "BLP", "BMP", "DDS", "GIF", "ICNS", "ICO", "JPEG", "JPEG2000")),
    *((kind, {}) for kind in ("PCX", "PNG", "PPM", "QOI", "SGI", "TGA", "TIFF", "WEBP")),
]


@pytest.mark.parametrize("damaged", ["strict", "tolerant"])
@pytest.mark.parametrize(("kind", "how"), KINDS)
def test_a_cut_is_rejected_or_marked_or_costs_no_pixels(kind: str, how: dict, damaged: str) -> None:
    data = saved(picture("P" if kind in ("BLP", "GIF") else "RGB", 32, 32), kind, **how)
    options = MediumOptions(image=ImageOptions(damaged=damaged))
    (whole,) = image.convert(kind, content_of(data, "a"), options)
    for end in range(0, len(data), max(len(data) // 40, 1)):
        try:
            (block,) = image.convert(kind, content_of(data[:end], "a"), options)
        except MemberError:
            continue
        if damaged == "strict" or not value(block, "damage"):
            np.testing.assert_array_equal(value(block, "pixels"), value(whole, "pixels"))


@pytest.mark.parametrize("damaged", ["strict", "tolerant"])
@pytest.mark.parametrize(("kind", "how"), KINDS)
def test_changed_bytes_end_in_rows_or_a_member_error(kind: str, how: dict, damaged: str) -> None:
    data = saved(picture("P" if kind in ("BLP", "GIF") else "RGB", 32, 32), kind, **how)
    options = MediumOptions(image=ImageOptions(damaged=damaged, frames="all"))
    rng = np.random.default_rng(5)
    for _ in range(30):
        changed = bytearray(data)
        for at in rng.integers(0, len(data), 3):
            changed[at] = rng.integers(0, 256)
        with suppress(MemberError):
            for block in image.convert(kind, content_of(bytes(changed), "a"), options):
                assert isinstance(block, Fault) or value(block, "pixels").ndim == 3
