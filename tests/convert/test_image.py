import io
import struct
import subprocess
import sys
import warnings
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from h5dat_lib.config import ImageOptions, Limits, MediumOptions, Resize
from h5dat_lib.convert.image import decode, probe
from h5dat_lib.errors import MemberError
from tests.convert.conftest import converted

SUFFIX = {"JPEG": ".jpg", "PNG": ".png", "BMP": ".bmp", "GIF": ".gif", "TIFF": ".tif", "WEBP": ".webp"}


def picture(mode: str = "RGB", width: int = 37, height: int = 23) -> Image.Image:
    rng = np.random.default_rng(7)
    y, x = np.mgrid[:height, :width]
    smooth = np.stack([x * 5 % 256, y * 9 % 256, (x + y) * 3 % 256], axis=2) + rng.integers(0, 9, (height, width, 3))
    rgb = Image.fromarray(np.clip(smooth, 0, 255).astype(np.uint8))
    if mode == "I;16":
        return Image.fromarray(rng.integers(0, 65536, (height, width)).astype(np.uint16))
    if mode in ("LA", "RGBA"):
        rgb.putalpha(Image.fromarray(rng.integers(0, 256, (height, width)).astype(np.uint8)))
    return rgb.convert(mode)


def saved(image: Image.Image, kind: str, **how: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **how)
    return file.getvalue()


def reference(data: bytes) -> np.ndarray:
    """The pixels by plain Pillow."""
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    elif image.mode == "RGB" and "transparency" in image.info:
        image = image.convert("RGBA")
    elif image.mode in ("1", "L") and "transparency" in image.info:
        image = image.convert("LA")
    elif image.mode == "1":
        image = image.convert("L")
    elif image.mode in ("CMYK", "YCbCr", "LAB", "HSV"):
        image = image.convert("RGB")
    pixels = np.asarray(image)
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def exif(orientation: int) -> bytes:
    made = Image.Exif()
    made[0x0112] = orientation
    return made.tobytes()


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
    assert block.columns["format"].values == [kind.encode()]
    assert block.columns["mode"].values == [Image.open(io.BytesIO(data)).mode.encode()]
    assert block.columns["orientation"].values == [1]
    assert probe(data, ImageOptions(), Limits()) == (expected.shape, pixels.dtype.str)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_and_recorded(convert, kind: str, orientation: int) -> None:
    data = saved(picture(), kind, exif=exif(orientation))
    (block,) = convert(data, "a" + SUFFIX[kind])
    np.testing.assert_array_equal(block.columns["pixels"].values[0], reference(data))
    assert block.columns["orientation"].values == [orientation]
    assert probe(data, ImageOptions(), Limits())[0] == reference(data).shape


def test_orientation_in_xmp_counts_as_pillow_counts_it(convert) -> None:
    data = saved(picture(), "JPEG", xmp=b'<x:xmpmeta><rdf tiff:Orientation="6"/></x:xmpmeta>')
    np.testing.assert_array_equal(convert(data, "a.jpg")[0].columns["pixels"].values[0], reference(data))


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_is_none(convert, value: int) -> None:
    assert convert(saved(picture(), "JPEG", exif=exif(value)), "a.jpg")[0].columns["orientation"].values == [1]


def test_broken_exif_does_not_cost_the_picture(convert) -> None:
    data = saved(picture(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert convert(data, "a.jpg")[0].rows == 1


def test_an_animation_gives_its_first_frame(convert) -> None:
    data = saved(picture("P"), "GIF", save_all=True, append_images=[picture("P").rotate(90)])
    np.testing.assert_array_equal(convert(data, "a.gif")[0].columns["pixels"].values[0], reference(data))


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


def test_a_png_with_a_wrong_checksum_is_a_member_error(convert) -> None:
    data = bytearray(saved(picture(), "PNG"))
    data[data.index(b"IDAT") + 8] ^= 0xFF
    with pytest.raises(MemberError):
        convert(bytes(data), "a.png")


@pytest.mark.parametrize("suffix", SUFFIX.values())
@pytest.mark.parametrize("storage", ["decoded", "encoded"])
@pytest.mark.parametrize("data", [b"", b"not a picture at all", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_picture_is_a_member_error(convert, suffix: str, storage: str, data: bytes) -> None:
    with pytest.raises(MemberError):
        convert(data, "a" + suffix, MediumOptions(image=ImageOptions(storage=storage)))


def test_postscript_is_never_tried(convert) -> None:
    with pytest.raises(MemberError):
        convert(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n", "a.tif")


def test_a_bitmap_without_a_file_header_is_read(convert) -> None:
    data = saved(picture(), "DIB")
    np.testing.assert_array_equal(convert(data, "a.dib")[0].columns["pixels"].values[0], np.asarray(picture()))
    np.testing.assert_array_equal(decode(data, ImageOptions()), np.asarray(picture()))


def test_warnings_of_pillow_are_neither_shown_nor_raised(convert) -> None:
    directory = struct.pack("<HHIIHHIII", 65000, 7, 1 << 20, 1 << 30, 65001, 2, 9, 1 << 30, 0)
    data = b"II*\0" + struct.pack("<IH", 8, 2) + directory
    with pytest.warns(UserWarning, match="Skipping tag"), suppress(OSError, SyntaxError):
        Image.open(io.BytesIO(data))
    filters = list(warnings.filters)
    with pytest.raises(MemberError) as caught:  # warnings are errors in these tests
        convert(data, "a.tif")
    assert "Skipping tag" not in caught.value.reason
    assert warnings.filters == filters


def test_what_pillow_logs_is_not_printed() -> None:
    data = saved(picture(), "TIFF").replace(struct.pack("<HHII", 277, 3, 1, 3), struct.pack("<HHII", 277, 3, 1, 65535))
    program = f"from tests.convert.conftest import converted\ntry: converted({data!r}, 'a.tif')\nexcept Exception as exc: print(exc)"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    assert ran.stdout.startswith("cannot be decoded as TIFF") and ran.stderr == ""


def test_an_orientation_behind_the_pixels_of_a_png_is_found(convert) -> None:
    data = saved(picture(), "PNG")
    body = b"eXIf" + exif(6)[6:]
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    late = data[:-12] + chunk + data[-12:]
    (block,) = convert(late, "a.png", MediumOptions(image=ImageOptions(storage="encoded")))
    assert [block.columns[name].values[0] for name in ("height", "width")] == [37, 23]
    np.testing.assert_array_equal(decode(late, ImageOptions()), reference(late))


def test_a_picture_of_more_frames_than_allowed_is_a_member_error() -> None:
    file = io.BytesIO()
    Image.new("L", (4, 4), 0).save(file, "GIF", save_all=True, append_images=[Image.new("L", (4, 4), n) for n in (1, 2)])
    assert len(converted(file.getvalue(), "a.gif", limits=Limits(frames=3))) == 1
    with pytest.raises(MemberError, match=r"found more than 2 frames \(limits.frames\)"):
        converted(file.getvalue(), "a.gif", limits=Limits(frames=2))
