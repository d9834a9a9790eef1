"""Rows -> files: a picture as it was or as PNG, sound as WAV, documents, texts and tables as they are written. One table of media."""

from __future__ import annotations

import codecs
import io
import os
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import imagecodecs
import numpy as np

from h5dat_lib.archive.packed import unpacked_path
from h5dat_lib.columns import Array
from h5dat_lib.config import Medium
from h5dat_lib.convert import by_extension
from h5dat_lib.exporting.selection import VALUES, Chosen, Member, Members, Tally
from h5dat_lib.read.columns import Column, Encoded, python_value

__all__ = [
    "Encoders",
    "Part",
    "Sources",
    "document_file",
    "is_member",
    "named",
    "parts",
    "picture_files",
    "places",
    "read_columns",
    "sound_files",
    "with_ending",
]

_PNG_LEVEL = 1
"""zlib's: 6, libpng's own, takes five times as long for 8 % less (a photo of 2048 x 1536)."""
_PARTS = ("item", "line", "frame", "message")
"""Columns that say which part of its member a row is."""
_BOMS = {"utf-8": codecs.BOM_UTF8, "utf-16-le": codecs.BOM_UTF16_LE, "utf-16-be": codecs.BOM_UTF16_BE}
_MOST_WAV = (1 << 32) - 64
"""Sizes in a WAV are 32 bit."""


class FileOf(NamedTuple):
    """A file's bytes and its ending; "" when they are those that the member had within it."""

    data: bytes
    ending: str


@dataclass(frozen=True)
class Part:
    """A file that is made of a row, or of several. ``place`` is which part of its member it is, "" for all of it.

    ``data`` are its bytes, in pieces that are made as they are asked for. ``ending`` is as of `FileOf`.
    """

    row: int
    member: Member
    place: str
    ending: str
    data: Iterable[bytes]
    is_member: bool = False
    """Whether they are those of the whole member, as it was in its archive."""


class Encoders:
    """Threads that encode pictures, as many as there are cores, four at most; a context manager."""

    def __enter__(self) -> Encoders:
        self._pool = ThreadPoolExecutor(min(os.cpu_count() or 1, 4), "h5dat-encode")
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def each(self, do: Callable[[Any], Any], values: Sequence[Any]) -> Iterator[Any]:
        """What ``do`` makes of each value, in order."""
        return self._pool.map(do, values)


@dataclass(frozen=True)
class Sources:
    """What rows are made files of with: their members, encoders, and the tally that is kept."""

    members: Members
    encoders: Encoders
    tally: Tally
    utf8: bool = False
    """Whether texts and documents are to be UTF-8 whatever their members were."""


# Values to files


def picture_files(column: Column, rows: Array, encoders: Encoders) -> list[FileOf | None]:
    """Files of pictures: those that were kept as they are, others as PNG; None where one is missing.

    What PNG cannot hold, neither 8 nor 16 bit or of more than four channels, becomes a NumPy file.
    """
    if isinstance(column, Encoded):
        return [FileOf(data, "") for data in column.files(rows)]
    return list(encoders.each(_picture_file, column.rows(rows)))


def _picture_file(pixels: Array | None) -> FileOf | None:
    if pixels is None:
        return None
    if pixels.dtype.str in ("|u1", "<u2") and pixels.ndim == 3 and 0 < pixels.shape[2] <= 4 and pixels.size:
        return FileOf(bytes(imagecodecs.png_encode(np.ascontiguousarray(pixels), level=_PNG_LEVEL)), ".png")
    return FileOf(_npy(pixels), ".npy")


def _npy(values: Array) -> bytes:
    out = io.BytesIO()
    np.save(out, values, allow_pickle=False)
    return out.getvalue()


def sound_files(samples: Sequence[Array | None], rates: Iterable[Any]) -> list[FileOf | None]:
    """WAV files of samples (samples, channels), int16 or float32, at so many a second; NumPy files of what that cannot hold."""
    return [None if sound is None else _sound_file(sound, rate) for sound, rate in zip(samples, rates, strict=True)]


def _sound_file(samples: Array, rate: Any) -> FileOf:
    rate, is_wav = python_value(rate), samples.dtype.str in ("<i2", "<f4") and samples.ndim == 2 and samples.shape[1] < 1 << 16
    if not is_wav or not isinstance(rate, int) or max(samples.nbytes, rate * samples.itemsize * samples.shape[1]) > _MOST_WAV or rate < 1:
        return FileOf(_npy(samples), ".npy")
    return FileOf(_wav_header(samples, rate) + samples.tobytes(), ".wav")


def _wav_header(samples: Array, rate: int) -> bytes:
    """RIFF with a format and, of what is no PCM, a count of samples (Multimedia Programming Interface and Data Specifications 1.0)."""
    width, (count, channels) = samples.itemsize, samples.shape
    kind = 1 if samples.dtype.kind == "i" else 3
    form = struct.pack("<HHIIHH", kind, channels, rate, rate * channels * width, channels * width, 8 * width)
    more = b"" if kind == 1 else struct.pack("<4sII", b"fact", 4, count)
    form += b"" if kind == 1 else b"\0\0"
    head = b"WAVE" + struct.pack("<4sI", b"fmt ", len(form)) + form + more + struct.pack("<4sI", b"data", samples.nbytes)
    return struct.pack("<4sI", b"RIFF", len(head) + samples.nbytes) + head


def is_member(data: bytes, member: Member) -> bool:
    """Whether bytes are those that the member had in its archive."""
    return len(data) == member.size and zlib.crc32(data) == member.crc32


def _text_file(text: str, names: Sequence[str], member: Member, sources: Sources) -> bytes:
    """The text in one of these encodings when it is then the member byte for byte; otherwise as UTF-8."""
    for name in () if sources.utf8 else names:
        with suppress(LookupError, ValueError):
            data = text.encode(name)
            for found in (data, _BOMS.get(name, b"") + data):
                if is_member(found, member):
                    return found
    return text.encode()


def document_file(text: str, member: Member, sources: Sources) -> bytes:
    """A document, as `_text_file`: JSON is in one of the encodings of Unicode (RFC 8259, 8.1)."""
    return _text_file(text, tuple(_BOMS), member, sources)


# Rows to parts


Make = Callable[[Chosen, Array, Sources], Iterator[Part]]


def parts(each: Chosen, rows: Array, sources: Sources) -> Iterator[Part]:
    """The files that rows of a table are, a row after the other; rows of tables are none."""
    return _MAKERS[each.medium](each, rows, sources)


def _parts_of(each: Chosen, rows: Array, sources: Sources, files: Sequence[FileOf | None], what: str) -> Iterator[Part]:
    members = sources.members.of(each, rows)
    found = places(each, rows, members)
    for row, member, place, file in zip(rows.tolist(), members, found, files, strict=True):
        if file is None:
            sources.tally.left_out[each.name, f"they have no {what}"] += 1
        else:
            yield Part(row, member, place, file.ending, (file.data,), not place and is_member(file.data, member))


def places(each: Chosen, rows: Array, members: Sequence[Member]) -> list[str]:
    """Which part of its member each row is, where that gave several."""
    names = (
        ["frame"] if each.is_frames else [name for name in _PARTS if name in each.table.columns and each.medium in ("images", "documents")]
    )
    found = [""] * len(rows)
    for name in reversed(names):
        for at, value in enumerate(map(python_value, each.table[name].rows(rows))):
            if isinstance(value, int) and (each.is_frames or members[at].rows > 1):
                found[at] = f"{name}-{value:06d}"
    return found


def _pictures(each: Chosen, rows: Array, sources: Sources) -> Iterator[Part]:
    files = picture_files(each.table["pixels"], rows, sources.encoders)
    return _parts_of(each, rows, sources, files, "picture")


def _sounds(each: Chosen, rows: Array, sources: Sources) -> Iterator[Part]:
    columns = each.table.rows(rows, ["samples", "sample_rate"])
    return _parts_of(each, rows, sources, sound_files(columns["samples"], columns["sample_rate"]), "sound")


def _videos(each: Chosen, rows: Array, sources: Sources) -> Iterator[Part]:
    """Frames; of videos themselves what was made of them: a summary, their sound."""
    if each.is_frames:
        yield from _pictures(each, rows, sources)
        return
    if "summary" in each.table.columns:
        yield from _parts_of(each, rows, sources, picture_files(each.table["summary"], rows, sources.encoders), "summary")
    if "audio_samples" in each.table.columns:
        columns = each.table.rows(rows, ["audio_samples", "audio_sample_rate"])
        yield from _parts_of(each, rows, sources, sound_files(columns["audio_samples"], columns["audio_sample_rate"]), "sound")
    if not {"summary", "audio_samples"} & {*each.table.columns}:
        sources.tally.left_out[each.name, "a video is in the file as its frames"] += len(rows)


def _texts(each: Chosen, rows: Array, sources: Sources) -> Iterator[Part]:
    columns = each.table.rows(rows, ["text", "encoding"])
    members = sources.members.of(each, rows)
    rewritten = [
        None if text is None else FileOf(_text_file(text, (str(encoding),), member, sources), "")
        for text, encoding, member in zip(columns["text"], columns["encoding"], members, strict=True)
    ]
    return _parts_of(each, rows, sources, rewritten, "text")


def _documents(each: Chosen, rows: Array, sources: Sources) -> Iterator[Part]:
    texts = each.table["document"].rows(rows)
    members = sources.members.of(each, rows)
    files = [
        None if text is None else FileOf(document_file(text, member, sources), "") for text, member in zip(texts, members, strict=True)
    ]
    return _parts_of(each, rows, sources, files, "document")


def _data(each: Chosen, rows: Array, sources: Sources) -> Iterator[Part]:
    files = [None if data is None else FileOf(data, "") for data in each.table["data"].rows(rows)]
    return _parts_of(each, rows, sources, files, "data")


def _no_parts(each: Chosen, rows: Array, sources: Sources) -> Iterator[Part]:
    sources.tally.left_out[each.name, "a record of a table is no file; its columns can be labels of what is"] += len(rows)
    return iter(())


_MAKERS: dict[Medium, Make] = {
    "images": _pictures,
    "videos": _videos,
    "audio": _sounds,
    "documents": _documents,
    "texts": _texts,
    "files": _data,
    "tables": _no_parts,
}
"""What a row of each medium is as files."""


def read_columns(each: Chosen) -> list[str]:
    """The columns of a table that files are made of, whose values decide how many rows are in memory; of tables all."""
    return [name for name in each.table.columns if each.medium == "tables" or name in VALUES[each.medium]]


# Names


def named(part: Part) -> str:
    """The path of a file: that of its member, without what compressed it and with the ending of what it has become.

    Parts of a member lie in a folder named as it.
    """
    path = unpacked_path(part.member.path)
    if part.place:
        return f"{part.member.path}/{part.place}{part.ending or PurePosixPath(path).suffix}"
    return part.member.path if part.is_member else with_ending(path, part.ending)


def with_ending(path: str, ending: str) -> str:
    """A path with another ending, in place of that of a known format."""
    if not ending or path.lower().endswith(ending):
        return path
    return (str(PurePosixPath(path).with_suffix("")) if by_extension(path) else path) + ending
