"""A TIFF's bytes in, its pages out, with 16 bit and real numbers kept.

Pillow reads it, but of colours of 16 bit it keeps the upper half, and it knows no colours that are real numbers: OpenCV decodes those.
Facts of the format: TIFF 6.0, sections 2 (directories), 8 (baseline fields), 15 (tiles), 18 (ExtraSamples) and 19 (SampleFormat).
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any

from PIL import ImageFile

from h5dat_lib.config import ImageOptions, Limits
from h5dat_lib.convert import frames, opencv, orientation
from h5dat_lib.convert.picture import Decoded, Picture, check_pixels
from h5dat_lib.convert.pillow import Source, borrowed, check_tile, counted, picture_of, plugin
from h5dat_lib.errors import MemberError

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _SAMPLES, _PLANES, _EXTRA, _FORMAT = 256, 257, 258, 259, 262, 277, 284, 338, 339
_PROFILE = 34675
_BIG = 43
"""In the header of a BigTIFF, whose offsets have 8 bytes."""
_NONE, _RGB, _SEPARATE, _UNKNOWN, _PREMULTIPLIED, _UNSIGNED, _REAL = 1, 2, 2, 0, 1, 1, 3
_DEEP = {(16, _UNSIGNED): (";16", "<u2"), (32, _REAL): (";32F", "<f4")}
"""Colours that Pillow does not keep, by bits and format of a sample: what is added to its mode, and the dtype."""


def open_tiff(data: bytes, options: ImageOptions, limits: Limits) -> Picture:
    """The first page. Raises MemberError when its directory is damaged, above a limit, or of a kind that is not read."""
    with borrowed("TIFF", limits):
        return _page(Source("TIFF", data, options, limits), None, 0)


def _page(source: Source, image: ImageFile.ImageFile | None, number: int) -> Picture:
    """A page by its number. ``image`` is the file as Pillow has opened it for the pages before, if it could."""
    with borrowed("TIFF", source.limits):
        try:
            image = image or plugin("TIFF", source.data)
            image.seek(number)
            tags = image.tag_v2  # type: ignore[attr-defined]
        except SyntaxError:  # Pillow has no mode for it
            tags = _tags(source.data, number)
            if not _is_for_opencv(tags):
                raise
        if image is None or _is_for_opencv(tags):
            return _deep(source, image, tags, number)
        source = counted(source, image)
        return replace(picture_of(image, source), frame=partial(_page, source, image))


def _tags(data: bytes, number: int) -> Mapping[int, Any]:
    from PIL import TiffImagePlugin  # only who has a TIFF pays for loading it

    start = next(islice(frames.directories(data), number, None), None)
    if start is None:
        raise MemberError(f"cannot be decoded as TIFF: found no directory of page {number}")
    tags = TiffImagePlugin.ImageFileDirectory_v2(data[: 16 if _BIG in data[2:4] else 8])
    stream = io.BytesIO(data)
    stream.seek(start)
    tags.load(stream)
    return tags


def _kind(tags: Mapping[int, Any]) -> tuple[int, int] | None:
    """Bits and format of the samples of a page of colours; None when it has none, or they are not all alike."""
    bits, formats = set(tags.get(_BITS, ())), set(tags.get(_FORMAT, (_UNSIGNED,)))
    if tags.get(_PHOTOMETRIC) != _RGB or len(bits) != 1 or len(formats) != 1:
        return None
    return bits.pop(), formats.pop()


def _is_for_opencv(tags: Mapping[int, Any]) -> bool:
    """Whether it is colours that Pillow does not keep and OpenCV reads: neither separate planes nor colours multiplied with alpha."""
    kind, separate = _kind(tags), tags.get(_PLANES) == _SEPARATE
    if kind == (16, _UNSIGNED) and separate and tags.get(_COMPRESSION, _NONE) == _NONE:
        raise MemberError("cannot be decoded as TIFF: found uncompressed planes of 16 bit, which Pillow mixes up; expected compressed ones")
    return kind in _DEEP and tags.get(_SAMPLES) in (3, 4) and not separate and _PREMULTIPLIED not in tags.get(_EXTRA, ())


# What OpenCV decodes


def _deep(source: Source, image: ImageFile.ImageFile | None, tags: Mapping[int, Any], number: int) -> Picture:
    """A page as OpenCV gives it, with all its samples."""
    samples, extra = tags[_SAMPLES], tags.get(_EXTRA, ())
    width, height = tags.get(_WIDTH, 0), tags.get(_HEIGHT, 0)
    check_pixels(width, height, source.limits)
    check_tile(tags, source.limits)
    source = counted(source, image)
    kind, dtype = _DEEP[_kind(tags) or (0, 0)]
    channels = 3 if extra == (_UNKNOWN,) else samples
    turn = tags.get(orientation.TAG, 1)
    return Picture(
        format="TIFF",
        mode=("RGB" if channels == 3 else "RGBA") + kind,
        height=width if turn in (5, 6, 7, 8) else height,
        width=height if turn in (5, 6, 7, 8) else width,
        channels=channels,
        dtype=dtype,
        decode=partial(_decode, source.data, samples, channels, number),
        frames=source.frames,
        frame=partial(_page, source, image),
        orientation=turn if turn in range(1, 9) else 1,
        turned=True,
        profile=tags.get(_PROFILE, b""),
    )


def _decode(data: bytes, samples: int, channels: int, number: int) -> Decoded:
    pixels = opencv.decode(data, samples, deep=True, page=number)
    if pixels is None:
        raise MemberError("cannot be decoded as TIFF: damaged, or compressed in a way that is not known")
    return Decoded(pixels[:, :, :channels])
