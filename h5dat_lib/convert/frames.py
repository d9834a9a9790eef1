"""A picture's bytes in, the number of its frames out: counted by the records that a file has of them, none is decoded.

Facts of formats: TIFF 6.0, section 2; BigTIFF as libtiff describes it; GIF89a, sections 18 to 26; the WebP container
specification, "Animation"; PNG third edition, 11.3.6.1 and 11.3.6.2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice, repeat
from typing import Literal

from h5dat_lib.errors import MemberError

__all__ = ["color_table_bytes", "count", "directories"]

_EXTENSION, _IMAGE = 0x21, 0x2C


def count(data: bytes, kind: str, most: int) -> int:
    """Frames of an animation or directories of a TIFF, counted up to ``most + 1``; 1 for formats that have but one.

    Where a file is cut between two frames one counts that is not there: asking for it says so, and none is left out silently.

    Raises MemberError when the directories of a TIFF go round in a circle.
    """
    frames = _FRAMES.get(kind)
    return sum(1 for _ in islice(frames(data), most + 1)) if frames else 1


def directories(data: bytes) -> Iterator[int]:
    """Where the directory of each page of a TIFF lies, in order; the last may lie behind the end of a file that is cut.

    Raises MemberError when they go round in a circle.
    """
    order: Literal["little", "big"] = "little" if data.startswith(b"II") else "big"
    big = 43 in data[2:4]
    pointer_bytes, count_bytes, entry_bytes = (8, 8, 20) if big else (4, 2, 12)
    at = 8 if big else 4
    seen: set[int] = set()
    while (directory := int.from_bytes(data[at : at + pointer_bytes], order)) > 0:
        if directory in seen:
            raise MemberError(f"damaged: found TIFF directories that lead back to the one at byte {directory}, expected a last one")
        seen.add(directory)
        yield directory
        if directory >= len(data):
            return
        entries = int.from_bytes(data[directory : directory + count_bytes], order)
        at = directory + count_bytes + entries * entry_bytes


def _gif(data: bytes) -> Iterator[None]:
    """The images, and one more, of which nothing is known, where the file is cut before its trailer."""
    at = 13 + color_table_bytes(data[10:11])
    while at < len(data) and (block := data[at]) in (_EXTENSION, _IMAGE):
        if block == _IMAGE:
            yield
            at += 11 + color_table_bytes(data[at + 9 : at + 10])
        else:
            at += 2
        while at < len(data) and (size := data[at]):
            at += 1 + size
        at += 1
    if at >= len(data):
        yield


def color_table_bytes(packed: bytes) -> int:
    """Bytes of the table of colours that this packed field of a GIF announces (sections 18 and 20)."""
    return 3 << (packed[0] % 8 + 1) if packed and packed[0] & 0x80 else 0


def _webp(data: bytes) -> Iterator[None]:
    at = 12
    while len(name := data[at : at + 4]) == 4:
        if name == b"ANMF":
            yield
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        at += 8 + size + size % 2


def _png(data: bytes) -> Iterator[None]:
    """What the animation control chunk announces, before the pixels, and a picture that is shown by those who know no animations:
    one without a frame control chunk before it.
    """
    at, announced, controlled = 8, 0, False
    while (name := data[at + 4 : at + 8]) not in (b"", b"IDAT"):
        if name == b"acTL":
            announced = int.from_bytes(data[at + 8 : at + 12], "big")
        controlled |= name == b"fcTL"
        at += 12 + int.from_bytes(data[at : at + 4], "big")
    yield from repeat(None, announced + (announced > 0 and not controlled))


_FRAMES: dict[str, Callable[[bytes], Iterator[object]]] = {"TIFF": directories, "GIF": _gif, "WEBP": _webp, "PNG": _png}
