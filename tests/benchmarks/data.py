"""Archives of real-looking members for the benchmarks, made once and kept in a folder."""

from __future__ import annotations

import io
import json
import random
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image


def photo(rng: np.random.Generator, width: int, height: int) -> bytes:
    """A JPEG with the statistics of a photograph: smooth shapes at every scale, with sensor noise on top."""
    pixels = np.zeros((height, width, 3))
    for scale in (4, 16, 64, 256):
        small = rng.normal(0, scale**0.7, (max(height // scale, 2), max(width // scale, 2), 3)).astype("f4")
        for channel in range(3):
            pixels[..., channel] += np.asarray(Image.fromarray(small[..., channel]).resize((width, height), Image.Resampling.BICUBIC))
    pixels += rng.normal(0, 2, pixels.shape)
    out = io.BytesIO()
    Image.fromarray(np.clip(pixels + 128, 0, 255).astype("u1")).save(out, "JPEG", quality=85)
    return out.getvalue()


def document(source: random.Random, number: int) -> bytes:
    """A product as JSON, about 3 KB, 60 scalars."""
    words = [f"{source.choice(_WORDS)} {source.choice(_WORDS)} {source.choice(_WORDS)} {source.choice(_WORDS)}" for _ in range(30)]
    product = {
        "id": number,
        "price": source.randint(100, 9999),
        "rating": round(source.random() * 5, 2),
        "in_stock": source.random() < 0.5,
        "names": {language: word for language, word in zip(("en", "de", "fr", "es"), words, strict=False)},
        "attributes": [{"name": word, "value": source.randint(0, 99), "note": None} for word in words[4:20]],
        "description": " ".join(words * 2),
    }
    return json.dumps(product, indent=1).encode()


_WORDS = (
    "men",
    "women",
    "blue",
    "navy",
    "striped",
    "check",
    "shirt",
    "trousers",
    "cotton",
    "watch",
    "casual",
    "formal",
    "running",
    "shoes",
    "bag",
)


def made(folder: Path, name: str, make: Callable[[Path], None]) -> Path:
    """The file of that name in ``folder``; made when it is not there."""
    path = folder / name
    if not path.exists():
        partial = path.with_suffix(".making")
        make(partial)
        partial.rename(path)
    return path


def photos(folder: Path, count: int = 500) -> Path:
    """``count`` JPEGs of 1440x1080 in a stored zip: 50 different ones, repeated under other names."""

    def make(path: Path) -> None:
        rng = np.random.default_rng(1)
        pool = [photo(rng, 1440, 1080) for _ in range(50)]
        _zip(path, ((f"photos/{n:06}.jpg", pool[n % 50]) for n in range(count)), zipfile.ZIP_STORED)

    return made(folder, f"photos-{count}.zip", make)


def small_files(folder: Path, count: int = 20_000) -> Path:
    """``count`` JPEGs of 80x60 and as many JSON documents of 3 KB, in turn, in a deflated zip."""

    def make(path: Path) -> None:
        rng, source = np.random.default_rng(2), random.Random(2)
        pool = [photo(rng, 80, 60) for _ in range(200)]
        _zip(path, _pairs(pool, source, count), zipfile.ZIP_DEFLATED)

    return made(folder, f"small-{count}.zip", make)


def _pairs(pool: list[bytes], source: random.Random, count: int) -> Iterator[tuple[str, bytes]]:
    for number in range(count):
        yield f"images/{number:06}.jpg", pool[number % len(pool)]
        yield f"styles/{number:06}.json", document(source, number)


def _zip(path: Path, members: Iterator[tuple[str, bytes]], method: int) -> None:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members:
            archive.writestr(zipfile.ZipInfo(name), data, method, compresslevel=6)
