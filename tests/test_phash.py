"""Perceptual hashes: those that docs/format.md describes, by plain Python; the same for all time; near for what looks alike."""

from __future__ import annotations

import io
import math
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from h5dat_lib.convert.image import fingerprint
from h5dat_lib.phash import frequencies, hashes, phash

PICTURES = Path(__file__).parents[1] / "samples" / "pictures"


def described(picture: Any) -> int | None:
    """docs/format.md, step by step, without numpy's help."""
    rows, columns = (max(1, side // 128) for side in picture.shape[:2])
    grey = [[_grey(pixel, picture.dtype) for pixel in row[columns // 2 :: columns]] for row in picture[rows // 2 :: rows].tolist()]
    if picture.dtype != np.uint8:
        numbers = [value for row in grey for value in row if math.isfinite(value)]
        low, high = min(numbers, default=0), max(numbers, default=0)
        if not low < high:
            return None
        grey = [[(value - low) / (high - low) * 255 if math.isfinite(value) else 0 for value in row] for row in grey]
    found = [_rounded(_frequency(grey, down, across) * 64) for down in range(8) for across in range(8)]
    if not any(found[1:]):
        return None
    return int("".join("01"[value > median(found)] for value in found), 2)


def _grey(pixel: list[float], dtype: Any) -> float:
    grey = pixel[0] if len(pixel) < 3 else (77 * pixel[0] + 150 * pixel[1] + 29 * pixel[2]) / 256
    if len(pixel) in (1, 3) or dtype.kind != "u":
        return grey
    most = np.iinfo(dtype).max
    return float(most - (most - grey) * pixel[-1] / most)


def _frequency(grey: list[list[float]], down: int, across: int) -> float:
    height, width = len(grey), len(grey[0])
    if down >= height or across >= width:
        return 0
    waves = [math.cos(math.pi * (2 * x + 1) * across / (2 * width)) for x in range(width)]
    lines = (sum(map(float.__mul__, map(float, row), waves)) for row in grey)
    return sum(line * math.cos(math.pi * (2 * y + 1) * down / (2 * height)) for y, line in enumerate(lines)) / (height * width)


def _rounded(value: float) -> int:
    return round(value)  # half to even, as IEEE 754 has it


def noise(*shape: int, dtype: str = "u1") -> Any:
    """Smooth noise of any type, with a range of its own."""
    rng = np.random.default_rng(sum(shape))
    small = rng.integers(0, 200, (shape[0] // 9 + 2, shape[1] // 9 + 2, shape[2]))
    large = small.repeat(9, 0).repeat(9, 1)[: shape[0], : shape[1]] + rng.integers(0, 30, shape)
    return (large * (257 if dtype == "<u2" else 1)).astype(dtype)


SHAPES: dict[str, Any] = {
    "grey": noise(33, 21, 1),
    "RGB": noise(21, 47, 3),
    "sampled": noise(270, 390, 3),
    "grey and alpha": noise(20, 20, 2),
    "RGBA": noise(17, 40, 4),
    "16 bit": noise(30, 30, 3, dtype="<u2"),
    "16 bit RGBA": noise(30, 30, 4, dtype="<u2"),
    "integers": noise(30, 40, 1, dtype="<i4") - 1000,
    "floats": noise(30, 40, 1, dtype="<f4") / 7,
    "floats with gaps": np.where(noise(30, 40, 1) > 150, np.nan, noise(30, 40, 1, dtype="<f8")),
    "two pixels": np.array([[[3], [200]]], "u1"),
    "very wide": noise(1, 3000, 3),
    "very high": noise(3000, 2, 1),
    "one bit": (noise(40, 30, 1) > 120).astype("u1") * 255,
    "symmetric": np.abs(np.arange(-20, 21))[None, :, None].repeat(30, 0).astype("u1"),
}


@pytest.mark.parametrize("name", SHAPES)
def test_a_hash_is_what_the_format_says(name: str) -> None:
    assert phash(SHAPES[name]) == described(SHAPES[name]) is not None


NONE: dict[str, Any] = {
    "one pixel": np.full((1, 1, 3), 9, "u1"),
    "few pixels of one colour": np.full((3, 5, 3), 9, "u1"),
    "one colour": np.full((30, 40, 3), 200, "u1"),
    "one value of 16 bit": np.full((30, 40, 1), 777, "<u2"),
    "no numbers": np.full((5, 5, 1), np.nan),
    "nothing but alpha 0": np.concatenate([noise(9, 9, 3), np.zeros((9, 9, 1), "u1")], axis=2),
}


@pytest.mark.parametrize("name", NONE)
def test_what_has_nothing_in_it_has_no_hash(name: str) -> None:
    assert phash(NONE[name]) is described(NONE[name]) is None


def test_numbers_at_the_end_of_their_range_make_a_hash() -> None:
    values = np.array([[1.7e308, -1.7e308, np.nan], [np.inf, 0, -np.inf], [5e-324, 1, 2]])[..., None]
    assert phash(values) is not None
    assert phash(np.array([[[5e-324], [0.0]]])) is None


def test_16_bit_are_hashed_as_the_same_picture_of_8_bit() -> None:
    picture = noise(64, 48, 3)
    stretched = ((picture - picture.min()) * (255 / (np.ptp(picture)))).astype("u1")
    assert _apart(phash(stretched.astype("<u2") * 257), phash(stretched)) <= 2


def test_many_are_hashed_as_each_alone() -> None:
    pictures = [noise(20 + n, 30, 3) for n in range(20)] + [NONE["one colour"]]
    found = hashes([*map(frequencies, pictures), None])
    values, missing = np.asarray(found.values), np.asarray(found.missing)
    assert found.dtype == "<u8" and [None if gone else int(value) for value, gone in zip(values, missing, strict=True)] == [
        *map(phash, pictures),
        None,
    ]
    assert hashes([frequencies(pictures[0])]).missing is None


GOLDEN = {
    "astronaut.jpg": "c2924c5532bddfc8",
    "brick.png": "a99708775dc6ab0c",
    "camera.jpg": "9ff1c1c0434e8cbc",
    "chelsea.png": "b15fe6465121175e",
    "clock.gif": "d993669c993364cc",
    "coffee.webp": "bb8320376c0f3637",
    "gravel.tif": "c6771cbe3d2424a6",
    "hubble.png": "dcfc0003077cfde2",
    "retina.bmp": "c0cc1f977ac02d0f",
    "rocket.jpg": "c0371bec1be51267",
}


@pytest.mark.parametrize("name", GOLDEN)
def test_the_hash_of_a_picture_stays_what_it_is(name: str) -> None:
    assert f"{fingerprint((PICTURES / name).read_bytes()):016x}" == GOLDEN[name]


CHANGES: dict[str, Any] = {
    "quality": (lambda image: image, 30),
    "half": (lambda image: image.resize((image.width // 2, image.height // 2)), 85),
    "a third": (lambda image: image.resize((image.width // 3, image.height // 3)), 70),
    "larger": (lambda image: image.resize((image.width * 2, image.height * 2)), 85),
    "stretched": (lambda image: image.resize((image.width, image.height // 2)), 85),
    "brighter": (lambda image: ImageEnhance.Brightness(image).enhance(1.15), 85),
    "darker": (lambda image: ImageEnhance.Brightness(image).enhance(0.8), 85),
    "cut a little": (lambda image: image.crop((image.width // 100, 0, image.width, image.height - image.height // 100)), 85),
    "grey": (lambda image: image.convert("L"), 85),
}
PHOTOS = ("astronaut.jpg", "rocket.jpg", "chelsea.png", "coffee.webp", "camera.jpg", "hubble.png")


@pytest.mark.parametrize("change", CHANGES)
def test_what_looks_alike_is_near_and_what_does_not_is_far(change: str) -> None:
    how, quality = CHANGES[change]
    originals = {name: ImageOps.exif_transpose(Image.open(PICTURES / name)).convert("RGB") for name in PHOTOS}
    stored = {name: phash(np.asarray(image)) for name, image in originals.items()}
    for name, image in originals.items():
        out = io.BytesIO()
        how(image).save(out, "JPEG", quality=quality)
        found = fingerprint(out.getvalue())
        apart = {other: _apart(found, value) for other, value in stored.items()}
        assert apart.pop(name) <= 8 < min(apart.values()), (name, apart)


def _apart(left: int | None, right: int | None) -> int:
    assert left is not None and right is not None
    return (left ^ right).bit_count()
