"""Archives of real-looking members for the benchmarks, made once and kept in a folder."""

from __future__ import annotations

import io
import json
import random
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def photo(rng: np.random.Generator, width: int, height: int) -> bytes:
    """A JPEG of `pixels`."""
    out = io.BytesIO()
    Image.fromarray(pixels(rng, width, height)).save(out, "JPEG", quality=85)
    return out.getvalue()


def pixels(rng: np.random.Generator, width: int, height: int) -> NDArray[np.uint8]:
    """(height, width, 3) with the statistics of a photograph: smooth shapes at every scale, with sensor noise on top."""
    shapes = np.zeros((height, width, 3))
    for scale in (4, 16, 64, 256):
        small = rng.normal(0, scale**0.7, (max(height // scale, 2), max(width // scale, 2), 3)).astype("f4")
        for channel in range(3):
            shapes[..., channel] += np.asarray(Image.fromarray(small[..., channel]).resize((width, height), Image.Resampling.BICUBIC))
    shapes += rng.normal(0, 2, shapes.shape)
    return np.clip(shapes + 128, 0, 255).astype("u1")


def document(source: random.Random, number: int) -> bytes:
    """A product as JSON, about 3 KB, 60 scalars."""
    words = [f"{source.choice(_WORDS)} {source.choice(_WORDS)} {source.choice(_WORDS)} {source.choice(_WORDS)}" for _ in range(30)]
    product = {
        "id": number,
        "price": source.randint(100, 9999),
        "rating": round(source.random() * 5, 2),
        "in_stock": source.random() < 0.5,
        "names": dict(zip(("en", "de", "fr", "es"), words, strict=False)),
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


def many(folder: Path, count: int = 1_000_000) -> Path:
    """``count`` members in a stored zip64, in turn a picture of one pixel and a JSON document of 2 bytes; written by hand, in seconds."""

    def make(path: Path) -> None:
        one_pixel = io.BytesIO()
        Image.new("L", (1, 1)).save(one_pixel, "PNG")
        kinds = (("images", "png", one_pixel.getvalue()), ("styles", "json", b"{}"))
        with path.open("wb") as file, path.with_suffix(".directory").open("w+b") as directory:
            for number in range(count):
                folder_name, extension, data = kinds[number % 2]
                _member(file, directory, f"{folder_name}/{number // 2:07}.{extension}".encode(), data)
            directory.seek(0)
            start = file.tell()
            shutil.copyfileobj(directory, file)
            _end(file, start, count)
        path.with_suffix(".directory").unlink()

    return made(folder, f"many-{count}.zip", make)


def _member(file: BinaryIO, directory: BinaryIO, name: bytes, data: bytes) -> None:
    """A stored member: local header and data, and its directory entry (APPNOTE 4.3.7, 4.3.12)."""
    common = struct.pack("<HHHHHIIIHH", 20, 0, 0, 0, 33, zlib.crc32(data), len(data), len(data), len(name), 0)
    directory.write(b"PK\1\2" + struct.pack("<H", 20) + common + struct.pack("<HHHII", 0, 0, 0, 0, file.tell()) + name)
    file.write(b"PK\3\4" + common + name + data)


def _end(file: BinaryIO, start: int, count: int) -> None:
    """The zip64 end record, its locator, and the end record that points to it (APPNOTE 4.3.14 to 4.3.16)."""
    end = file.tell()
    file.write(b"PK\6\6" + struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, count, count, end - start, start))
    file.write(b"PK\6\7" + struct.pack("<IQI", 0, end, 1))
    file.write(b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0))


def documents(folder: Path, count: int = 100_000) -> Path:
    """``count`` JSON documents of 3 KB in a deflated zip."""

    def make(path: Path) -> None:
        source = random.Random(5)
        _zip(path, ((f"styles/{number:06}.json", document(source, number)) for number in range(count)), zipfile.ZIP_DEFLATED)

    return made(folder, f"documents-{count}.zip", make)


def lines(folder: Path, megabytes: int = 1000) -> Path:
    """A JSONL of that many megabytes, 2 KB a document; after 10,000 documents they come again."""

    def make(path: Path) -> None:
        source = random.Random(6)
        block = b"".join(json.dumps(json.loads(document(source, number))).encode() + b"\n" for number in range(10_000))
        _filled(path, b"", block, megabytes)

    return made(folder, f"lines-{megabytes}.jsonl", make)


def table_file(folder: Path, megabytes: int = 1000) -> Path:
    """`table` as a file."""
    return made(folder, f"table-{megabytes}.csv", lambda path: _filled(path, *_table(), megabytes))


def _filled(path: Path, head: bytes, block: bytes, megabytes: int) -> None:
    with path.open("wb") as file:
        file.write(head)
        for _ in range(max(megabytes * 1_000_000 // len(block), 1)):
            file.write(block)


def large_photos(folder: Path, count: int = 60) -> Path:
    """A folder of ``count`` JPEGs of 24 megapixels: 6 different ones, each linked under other names."""

    def make(path: Path) -> None:
        rng = np.random.default_rng(8)
        path.mkdir()
        for number in range(count):
            member = path / f"{number:04}.jpg"
            if number < 6:
                member.write_bytes(photo(rng, 6000, 4000))
            else:
                member.hardlink_to(path / f"{number % 6:04}.jpg")

    return made(folder, f"photos-24mp-{count}", make)


def one_picture(folder: Path) -> Path:
    """A zip with one picture of 80x60."""

    def make(path: Path) -> None:
        _zip(path, iter([("images/0.jpg", photo(np.random.default_rng(3), 80, 60))]), zipfile.ZIP_STORED)

    return made(folder, "one-picture.zip", make)


def table(megabytes: int = 100) -> bytes:
    """A CSV of that many megabytes: integers, floats, words and dates in eight columns."""
    head, block = _table()
    return head + block * (megabytes * 1_000_000 // len(block))


def _table() -> tuple[bytes, bytes]:
    """The header, and 20,000 records."""
    source = random.Random(4)
    lines = [
        f"{n},{source.randint(0, 10**6)},{source.random():.6f},{source.gauss(0, 100):.3f},{source.choice(_WORDS)},"
        f"{source.choice(_WORDS)} {source.choice(_WORDS)},2026-{n % 12 + 1:02}-{n % 28 + 1:02},{n % 2 == 0}\n"
        for n in range(20_000)
    ]
    return b"id,count,share,value,word,words,day,even\n", "".join(lines).encode()
