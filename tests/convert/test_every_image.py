"""A real file for every extension of a picture, against what an independent decoder, or the source, says that it shows.

tests/data/images/ORIGIN.md says how files and expected pixels were made.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from h5dat_lib.columns import Block, Scalars
from h5dat_lib.config import ImageOptions, Limits, MediumOptions
from h5dat_lib.convert import HANDLERS, by_extension
from h5dat_lib.errors import MemberError
from tests.convert.conftest import content_of

IMAGES = Path(__file__).parents[1] / "data" / "images"
EXTENSIONS = sorted(extension for handler in HANDLERS if handler.medium == "images" for extension in handler.extensions)
STRICT = MediumOptions()
TOLERANT = MediumOptions(image=ImageOptions(damaged="tolerant"))
ALL = MediumOptions(image=ImageOptions(frames="all"))
LIMITS = Limits(pixels=1 << 20)
"""What a changed header asks for shall cost little time."""
CUTS = 40
MUTATIONS = 200
NO_DAMAGE = Scalars([b""], "|S64")


@dataclass(frozen=True)
class Case:
    """A file, the PAM of what it shows, and by how much a sample may differ from that: why is said where it is more than 0."""

    file: str
    expected: str
    most: float = 0
    scale: float = 1
    """What an expected sample is multiplied with."""


CASES = (
    # djpeg with the same integer inverse DCT and upsampling
    *(Case(file, file) for file in ("picture.jpg", "picture.jpeg", "picture.jpe", "picture.jfif", "profile.jpg")),
    # ImageMagick turns inks into RGB by another rounding
    *(Case(file, file.split(".")[0], 2) for file in ("cmyk.jpg", "ycck.jpg")),
    *(
        Case(f"picture.{end}", "rgb")
        for end in ("png", "bmp", "dib", "pcx", "dcx", "sgi", "rgb", "tga", "ppm", "pnm", "pxr", "tif", "tiff")
    ),
    *(Case(file, "rgb") for file in ("interlaced.png", "animated.png", "tiled.tif", "big.tif", "pages.tif")),
    *(Case(f"picture.{end}", "rgb") for end in ("jp2", "j2k", "j2c", "jpc", "jpx", "jpf", "avif", "eps")),
    *(Case(f"picture.{end}", "rgba") for end in ("ico", "cur", "webp", "psd", "dds", "qoi")),
    *(Case(file, "rgba") for file in ("rgba.tga", "sizes.ico")),
    *(Case(f"rgb16.{end}", "rgb16") for end in ("png", "tif", "ppm", "jp2")),
    Case("picture.icns", "square"),
    Case("picture.pgm", "grey"),
    Case("picture.pbm", "bits"),
    Case("bits.png", "bits"),
    Case("ccitt.tif", "bits"),
    Case("grey16.png", "grey16"),
    Case("float.tif", "grey", 1e-6, 1 / 255),
    Case("jpeg.tif", "jpeg.tif"),
    Case("palette_alpha.png", "palette_alpha"),
    Case("picture.gif", "picture.gif"),
    Case("animated.gif", "animated.gif.0"),
    Case("animated.webp", "opaque"),
    Case("picture.fits", "grey"),
    Case("picture.blp", "picture.blp"),
    Case("preview.eps", "rgb"),
    # heif-enc turns RGB into the coded planes by a rounding that its decoders cannot undo
    Case("picture.heic", "rgb", 1),
    Case("picture.heif", "rgba", 1),
    Case("two.heic", "rgb", 1),
    # 10 bits in the upper bits of 16
    Case("ten_bits.heic", "rgb16", 127),
    # librsvg blends in steps of 8 bit, and interpolates gradients by other ones
    *(Case(f"picture.{end}", "picture.svg", 2) for end in ("svg", "svgz")),
)
FILES = [case.file for case in CASES]
needs_ghostscript = pytest.mark.skipif(shutil.which("gs") is None, reason="needs Ghostscript: no `gs` on the PATH")


def marked(things: Iterable[Any]) -> list[Any]:
    """Cases or file names as parameters of a test; those that a program draws only where it is installed."""
    named = [(thing, getattr(thing, "file", thing)) for thing in things]
    return [pytest.param(thing, id=file, marks=needs_ghostscript if file.endswith(".eps") else ()) for thing, file in named]


def pam(name: str) -> NDArray[Any]:
    """A portable arbitrary map as (height, width, depth)."""
    header, _, samples = (IMAGES / "expected" / f"{name}.pam").read_bytes().partition(b"ENDHDR\n")
    says = dict(line.split(" ", 1) for line in header.decode().splitlines() if " " in line)
    dtype = ">u2" if int(says["MAXVAL"]) > 255 else "|u1"
    return np.frombuffer(samples, dtype).reshape(int(says["HEIGHT"]), int(says["WIDTH"]), int(says["DEPTH"]))


def rows(data: bytes, file: str, options: MediumOptions = STRICT) -> list[Block]:
    """What the handler of its extension makes of it, whatever it has become."""
    handler = by_extension(file)
    assert handler is not None
    return [block for block in handler.convert(content_of(data, file, LIMITS), options) if isinstance(block, Block)]


def pixels(block: Block) -> NDArray[Any]:
    return block.columns["pixels"].values[0]  # type: ignore[union-attr, return-value]


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_every_extension_has_a_file(extension: str) -> None:
    assert any(file.endswith(extension) for file in FILES)


@pytest.mark.parametrize("case", marked(CASES))
def test_a_file_gives_the_pixels_that_another_decoder_finds(case: Case) -> None:
    found, expected = pixels(rows((IMAGES / case.file).read_bytes(), case.file)[0]), pam(case.expected)
    assert found.shape == expected.shape
    assert np.abs(found.astype(float) - expected * case.scale).max() <= case.most


@pytest.mark.parametrize(
    ("file", "expected", "durations"),
    [
        ("animated.gif", ["animated.gif.0", "animated.gif.1"], [0.1, 0.25]),
        ("animated.png", ["rgb", "second"], [0.1, 0.25]),
        ("animated.webp", ["opaque", "opaque_second"], [0.1, 0.25]),
        ("pages.tif", ["rgb", "small"], [0, 0]),
        ("picture.dcx", ["rgb", "second"], [0, 0]),
    ],
)
def test_all_frames_of_a_file_are_rows_with_their_durations(file: str, expected: list[str], durations: list[float]) -> None:
    found = rows((IMAGES / file).read_bytes(), file, ALL)
    assert [row.columns["duration"].values[0] for row in found] == pytest.approx(durations)  # type: ignore[union-attr, index]
    for row, name in zip(found, expected, strict=True):
        assert np.array_equal(pixels(row), pam(name))


def outcome(data: bytes, file: str, options: MediumOptions) -> list[Block]:
    """The rows, none when the picture is refused; any other exception is the test's failure."""
    try:
        return rows(data, file, options)
    except MemberError:
        return []


def unmarked(found: list[Block]) -> list[NDArray[Any]]:
    """Pixels of rows that nothing is said to be wrong with."""
    return [pixels(block) for block in found if not block.columns.get("damage", NO_DAMAGE).values[0]]  # type: ignore[union-attr, index]


@pytest.mark.parametrize("options", [STRICT, TOLERANT], ids=["strict", "tolerant"])
@pytest.mark.parametrize("file", marked(FILES))
def test_a_cut_file_gives_no_other_pixels_without_saying_so(file: str, options: MediumOptions) -> None:
    whole = (IMAGES / file).read_bytes()
    expected = pixels(rows(whole, file)[0])
    cuts = CUTS if not file.endswith(".eps") else 4  # each is a process
    for size in np.linspace(0, len(whole) - 1, cuts, dtype=int).tolist():
        for found in unmarked(outcome(whole[:size], file, options)):
            assert np.array_equal(found, expected), size


@pytest.mark.parametrize("file", marked(FILES))
def test_a_changed_file_is_refused_or_has_pixels(file: str) -> None:
    whole = (IMAGES / file).read_bytes()
    chance = random.Random(file)
    for number in range(MUTATIONS if not file.endswith(".eps") else 6):
        data = bytearray(whole)
        for _ in range(chance.choice((1, 1, 2, 8))):
            data[chance.randrange(len(data))] = chance.choice((0, 1, 127, 128, 255, chance.randrange(256)))
        for block in outcome(bytes(data), file, (STRICT, TOLERANT)[number % 2]):
            assert pixels(block).ndim == 3
