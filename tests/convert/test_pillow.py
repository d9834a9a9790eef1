from __future__ import annotations

import importlib
import io
import struct
import subprocess
import sys
import warnings
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from h5dat_lib.config import ImageOptions, Limits, MediumOptions
from h5dat_lib.convert.pillow import PLUGINS, borrowed
from h5dat_lib.errors import MemberError
from tests.convert.conftest import converted
from tests.convert.pictures import picture, rows, saved, value


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


def test_a_raised_limit_holds_against_pillows_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    for kind in ("GIF", "WEBP", "AVIF", "ICO", "TIFF"):
        data = saved(picture(width=32, height=32), kind, **({"save_all": True} if kind == "WEBP" else {}))
        assert len(converted(data, "a")) == 1
    assert Image.MAX_IMAGE_PIXELS == 10


def test_a_picture_within_a_picture_is_bounded_as_well() -> None:
    data = saved(picture(width=128, height=128), "ICNS")
    with pytest.raises(MemberError, match=r"limits\.pixels"):
        converted(data, "a.icns", limits=Limits(pixels=64 * 64))


def test_the_border_gives_back_what_it_borrowed_when_threads_meet_in_it() -> None:
    before = Image.MAX_IMAGE_PIXELS, list(warnings.filters)
    with borrowed("A", Limits(pixels=5)):
        with borrowed("B", Limits(pixels=7)):
            assert Image.MAX_IMAGE_PIXELS == 7
        assert Image.MAX_IMAGE_PIXELS == 7
    assert (Image.MAX_IMAGE_PIXELS, list(warnings.filters)) == before


ANIMATIONS = [("GIF", {}), ("PNG", {}), ("WEBP", {"lossless": True}), ("AVIF", {"quality": 100, "subsampling": "4:4:4"}), ("TIFF", {})]


@pytest.mark.parametrize(("kind", "how"), ANIMATIONS)
def test_all_frames_are_rows_with_their_number_and_duration(kind: str, how: dict) -> None:
    shades = [Image.new("RGB", (9, 7), (number * 60, 10, 200 - number * 60)) for number in range(3)]
    data = saved(shades[0], kind, save_all=True, append_images=shades[1:], **({} if kind == "TIFF" else {"duration": 250}), **how)
    blocks = rows(data, "a", frames="all")
    assert [value(block, "frame") for block in blocks] == [0, 1, 2]
    assert [value(block, "frames") for block in blocks] == [3, 3, 3]
    assert [value(block, "duration") for block in blocks] == [0.0 if kind == "TIFF" else 0.25] * 3
    for block, shade in zip(blocks, shades, strict=True):
        np.testing.assert_allclose(value(block, "pixels")[:, :, :3].astype(int), np.asarray(shade), atol=3 if kind == "AVIF" else 0)
    (first,) = rows(data, "a")
    assert value(first, "frames") == 3
    assert "frame" not in first.columns and "duration" not in first.columns


@pytest.mark.parametrize(("kind", "how"), ANIMATIONS[:3])
def test_frames_that_hold_but_what_changes_are_composed(kind: str, how: dict) -> None:
    shown = [np.full((30, 40, 3), (255, 0, 0), np.uint8) for _ in range(3)]
    shown[1][20:22, 5:9] = shown[2][20:22, 5:9] = (0, 0, 255)
    shown[2][3, 30] = (0, 255, 0)
    first, *others = map(Image.fromarray, shown)
    blocks = rows(saved(first, kind, save_all=True, append_images=others, duration=10, **how), "a", frames="all")
    for block, expected in zip(blocks, shown, strict=True):
        np.testing.assert_array_equal(value(block, "pixels")[:, :, :3], expected)


def test_a_frame_that_is_damaged_ends_the_rows_in_tolerant_mode() -> None:
    shades = [picture(width=40, height=40).rotate(90 * number) for number in range(3)]
    data = saved(shades[0], "GIF", save_all=True, append_images=shades[1:])
    blocks = converted(data[:-700], "a.gif", MediumOptions(image=ImageOptions(frames="all", damaged="tolerant")))
    assert [value(block, "damage") for block in blocks[:-1]] == [b""] * (len(blocks) - 1)
    assert blocks[-1].reason.startswith("frames from ")
    with pytest.raises(MemberError, match="cannot be decoded as GIF"):
        converted(data[:-700], "a.gif", MediumOptions(image=ImageOptions(frames="all")))


def test_every_plugin_is_there() -> None:
    for module, name in PLUGINS.values():
        assert hasattr(importlib.import_module(module), name)
