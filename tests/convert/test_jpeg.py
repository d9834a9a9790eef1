from __future__ import annotations

import io
import struct
from collections.abc import Callable

import cv2
import numpy as np
import pytest
from PIL import Image

from h5dat_lib.config import ImageOptions, Limits, Resize
from h5dat_lib.convert import jpeg
from h5dat_lib.convert.image import probe
from h5dat_lib.errors import MemberError
from tests.convert.pictures import exif, picture, pixels_of, reference, rows, saved, value

LARGE = saved(picture(width=320, height=240), "JPEG", quality=90)


def segment(marker: int, body: bytes) -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", len(body) + 2) + body


def behind_start(data: bytes, more: bytes) -> bytes:
    return data[:2] + more + data[2:]


# Damage


def cut_scan(data: bytes) -> bytes:
    return data[: len(data) // 2]


def cut_with_an_end(data: bytes) -> bytes:
    return data[: len(data) // 2] + b"\xff\xd9"


def swapped_tables(data: bytes) -> bytes:
    """The code lengths of a table as those of another: still a valid table, but not that of the scan."""
    at = data.index(b"\xff\xc4\x00\xb5")
    return data[: at + 21] + data[at + 21 : at + 183][::-1] + data[at + 183 :]


def noise_in_the_scan(data: bytes) -> bytes:
    at = len(data) * 2 // 3
    return data[:at] + bytes(range(1, 200)) + data[at + 199 :]


def garbage_behind(data: bytes) -> bytes:
    return data + b"<html>not found</html>"


ALL = [cut_scan, cut_with_an_end, garbage_behind]


@pytest.mark.parametrize(
    ("damage", "how"),
    [*((damage, {}) for damage in (*ALL, swapped_tables, noise_in_the_scan)), *((damage, {"progressive": True}) for damage in ALL)],
)
def test_damage_is_rejected_or_marked(damage: Callable[[bytes], bytes], how: dict) -> None:
    data = damage(saved(picture(width=320, height=240), "JPEG", quality=90, **how))
    with pytest.raises(MemberError, match="cannot be decoded as JPEG: "):
        rows(data, "a.jpg")
    (block,) = rows(data, "a.jpg", damaged="tolerant")
    assert value(block, "damage") != b""
    assert value(block, "pixels").shape == (240, 320, 3)


def test_what_lies_before_a_cut_is_kept_and_the_rest_is_grey() -> None:
    pixels = pixels_of(cut_scan(LARGE), "a.jpg", damaged="tolerant")
    np.testing.assert_array_equal(pixels[:80], reference(LARGE)[:80])
    assert (pixels[-16:, -16:] == 128).all()


def test_nothing_is_marked_where_nothing_is_wrong() -> None:
    assert value(rows(LARGE, "a.jpg", damaged="tolerant")[0], "damage") == b""
    assert "damage" not in rows(LARGE, "a.jpg")[0].columns


def test_what_libjpeg_says_is_recorded() -> None:
    with pytest.raises(MemberError, match="cut: found no end of the picture"):
        rows(cut_scan(LARGE), "a.jpg")
    with pytest.raises(MemberError, match="22 bytes behind the end of the picture"):
        rows(garbage_behind(LARGE), "a.jpg")


# What may lie behind a picture

FILM = struct.pack(">L", 24) + b"ftypmp42" + bytes(12)
TAILS = [b"\0", b"\0" * 700, b"\xff" * 40, b"\0\0 what the buffer of a camera held", FILM, b"\0\0\x01\x0aImage_UTC_Data....SEFHSEFT"]


@pytest.mark.parametrize("tail", TAILS)
def test_what_cameras_and_phones_write_behind_a_picture_is_no_damage(tail: bytes) -> None:
    (block,) = rows(LARGE + tail, "a.jpg", damaged="tolerant")
    assert value(block, "damage") == b""
    np.testing.assert_array_equal(pixels_of(LARGE + tail, "a.jpg"), reference(LARGE))


def test_further_pictures_are_no_garbage_when_they_are_announced() -> None:
    behind = LARGE + b"\x01" + LARGE[:-2]
    np.testing.assert_array_equal(pixels_of(behind_start(behind, segment(0xE2, b"MPF\0II*\0")), "a.jpg"), reference(LARGE))
    with pytest.raises(MemberError, match="behind the end of the picture"):
        rows(behind, "a.jpg")


def test_an_end_marker_within_a_comment_between_scans_is_none() -> None:
    data = saved(picture(width=64, height=64), "JPEG", progressive=True)
    second = data.index(b"\xff\xda", data.index(b"\xff\xda") + 2)
    data = data[:second] + segment(0xFE, b"\xff\xd9 tail") + data[second:]
    for more in (b"", b"\0\0\0"):
        np.testing.assert_array_equal(pixels_of(data + more, "a.jpg"), reference(data))


@pytest.mark.parametrize("damaged", ["strict", "tolerant"])
def test_encoded_pictures_are_looked_at_for_their_end(damaged: str) -> None:
    for broken in (cut_scan, garbage_behind):
        if damaged == "strict":
            with pytest.raises(MemberError, match="cannot be decoded as JPEG"):
                rows(broken(LARGE), "a.jpg", storage="encoded")
        else:
            (block,) = rows(broken(LARGE), "a.jpg", storage="encoded", damaged="tolerant")
            assert value(block, "damage") != b"" and value(block, "pixels") == broken(LARGE)


# Colours


@pytest.mark.parametrize("transform", [0, 2])
def test_inks_are_inverted_where_adobe_says_so(transform: int) -> None:
    """Pillow writes Adobe's inverted inks; without the segment the same numbers mean the opposite."""
    data = saved(picture("CMYK"), "JPEG", quality=100)
    assert b"Adobe" in data
    np.testing.assert_array_equal(pixels_of(data, "a.jpg"), reference(data))
    at = data.index(b"\xff\xee")
    plain = data[:at] + data[at + 2 + struct.unpack_from(">H", data, at + 2)[0] :]
    inks = 255 - np.asarray(Image.open(io.BytesIO(data))).astype(int)
    expected = (255 - inks[:, :, :3]) * (255 - inks[:, :, 3:]) // 255
    np.testing.assert_allclose(pixels_of(plain, "a.jpg").astype(int), expected, atol=1)


def test_pixels_are_those_of_another_libjpeg_turbo() -> None:
    for how in ({}, {"progressive": True}, {"subsampling": 0}, {"subsampling": 1}, {"restart_marker_rows": 1}):
        data = saved(picture(width=101, height=57), "JPEG", **how)
        expected = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
        np.testing.assert_array_equal(pixels_of(data, "a.jpg"), expected)


@pytest.mark.parametrize("stray", [b"\xff\xff", b"\0\0\0", b"\xff\0junk"])
def test_stray_bytes_between_segments_do_no_harm(stray: bytes) -> None:
    at = LARGE.index(b"\xff\xdb")
    data = LARGE[:at] + stray + LARGE[at:]
    np.testing.assert_array_equal(pixels_of(data, "a.jpg"), reference(LARGE))


@pytest.mark.parametrize("damage", [cut_scan, cut_with_an_end, swapped_tables, noise_in_the_scan])
def test_stray_bytes_between_segments_hide_no_damage(damage: Callable[[bytes], bytes]) -> None:
    at = LARGE.index(b"\xff\xdb")
    data = damage(LARGE[:at] + b"\0\0\0" + LARGE[at:])
    with pytest.raises(MemberError, match="cannot be decoded as JPEG"):
        rows(data, "a.jpg")
    assert value(rows(data, "a.jpg", damaged="tolerant")[0], "damage") != b""


# Fewer pixels


def waves(width: int, height: int) -> Image.Image:
    y, x = np.mgrid[:height, :width]
    channels = [128 + 100 * np.sin(x / across) * np.cos(y / down) for across, down in ((9, 30), (40, 11), (25, 25))]
    return Image.fromarray(np.stack(channels, axis=2).astype(np.uint8))


@pytest.mark.parametrize("mode", ["fit", "fill", "pad"])
@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize(("width", "height"), [(40, 30), (20, 11), (9, 31), (32, 32)])
@pytest.mark.parametrize("size", [(352, 256), (353, 256), (352, 249), (601, 400)])
def test_what_is_made_small_looks_the_same(size: tuple, mode: str, orientation: int, width: int, height: int) -> None:
    data = saved(waves(*size), "JPEG", quality=92, exif=exif(orientation))
    options = ImageOptions(resize=Resize(width=width, height=height, mode=mode))
    found = pixels_of(data, "a.jpg", resize=options.resize)
    whole = pixels_of(saved(Image.fromarray(reference(data)), "PNG"), "a.png", resize=options.resize)
    assert found.shape == whole.shape == probe(data, options, Limits())[0]
    assert np.abs(found.astype(int) - whole).mean() < 2


@pytest.mark.parametrize("mode", ["fit", "fill", "pad"])
def test_what_is_made_small_is_decoded_small(mode: str) -> None:
    data = saved(waves(352, 256), "JPEG")
    how = ImageOptions(resize=Resize(width=32, height=32, mode=mode))
    assert jpeg.open_jpeg(data, how, Limits()).decode().pixels.shape == (64, 88, 3)


@pytest.mark.parametrize("interpolation", ["nearest", "linear", "cubic", "lanczos"])
def test_with_other_filters_all_pixels_are_decoded(interpolation: str) -> None:
    how = Resize(width=20, height=20, interpolation=interpolation)
    found = pixels_of(LARGE, "a.jpg", resize=how)
    np.testing.assert_array_equal(found, pixels_of(saved(Image.fromarray(reference(LARGE)), "PNG"), "a.png", resize=how))


def test_nothing_is_decoded_smaller_than_twice_what_is_wanted() -> None:
    for size in (40, 79, 81, 119, 121, 300):
        pixels = jpeg.open_jpeg(LARGE, ImageOptions(resize=Resize(width=size, height=size)), Limits()).decode().pixels
        assert pixels.shape == (240, 320, 3) or pixels.shape[1] >= 2 * size


def test_any_cut_is_rejected_or_marked() -> None:
    for how in ({}, {"progressive": True}):
        data = saved(picture(), "JPEG", **how)
        for end in range(0, len(data), 11):
            with pytest.raises(MemberError):
                rows(data[:end], "a.jpg")
            try:
                (block,) = rows(data[:end], "a.jpg", damaged="tolerant")
            except MemberError:
                continue
            assert value(block, "damage") != b""
