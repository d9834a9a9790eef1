"""Rows -> files: a picture as it was or as PNG, sound as WAV, documents, texts and tables as they are written. One table of media."""

from __future__ import annotations

import codecs
import io
import os
import re
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, groupby
from operator import itemgetter
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import imagecodecs
import numpy as np

from h5dat_lib.archive.packed import unpacked_path
from h5dat_lib.column_writers import date_strings
from h5dat_lib.columns import Array
from h5dat_lib.config import Medium
from h5dat_lib.convert import by_extension
from h5dat_lib.convert.ahead import ahead
from h5dat_lib.errors import FormatError
from h5dat_lib.exporting.selection import Chosen, Member, Members, Tally
from h5dat_lib.read_columns import Column, Encoded, Nullable, Plain, Ragged, python_value

__all__ = [
    "Encoders",
    "Part",
    "Sources",
    "named",
    "parts",
    "picture_files",
    "places",
    "read_columns",
    "sound_files",
    "wholes",
    "with_ending",
]

_PNG_LEVEL = 1
"""zlib's: 6, libpng's own, takes five times as long for 8 % less (a photo of 2048 x 1536)."""
_PARTS = ("item", "line", "frame", "message")
"""Columns that say which part of its member a row is."""
_BOMS = {"utf-8": codecs.BOM_UTF8, "utf-16-le": codecs.BOM_UTF16_LE, "utf-16-be": codecs.BOM_UTF16_BE}
_DELIMITERS = {".csv": ",", ".tsv": "\t", ".tab": "\t", ".psv": "|"}
_DOCUMENTS = (".json", ".jsonl", ".ndjson")
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
    if samples.dtype.str not in ("<i2", "<f4") or samples.ndim != 2 or samples.nbytes > _MOST_WAV or rate is np.ma.masked:
        return FileOf(_npy(samples), ".npy")
    return FileOf(_wav_header(samples, int(rate)) + samples.tobytes(), ".wav")


def _wav_header(samples: Array, rate: int) -> bytes:
    """RIFF with a format and, of what is no PCM, a count of samples (Multimedia Programming Interface and Data Specifications 1.0)."""
    width, (count, channels) = samples.itemsize, samples.shape
    kind = 1 if samples.dtype.kind == "i" else 3
    form = struct.pack("<HHIIHH", kind, channels, rate, rate * channels * width, channels * width, 8 * width)
    more = b"" if kind == 1 else struct.pack("<4sII", b"fact", 4, count)
    form += b"" if kind == 1 else b"\0\0"
    head = b"WAVE" + struct.pack("<4sI", b"fmt ", len(form)) + form + more + struct.pack("<4sI", b"data", samples.nbytes)
    return struct.pack("<4sI", b"RIFF", len(head) + samples.nbytes) + head


def _is_member(data: bytes, member: Member) -> bool:
    """Whether bytes are those that the member had in its archive."""
    return len(data) == member.size and zlib.crc32(data) == member.crc32


def _text_file(text: str, names: Sequence[str], member: Member, sources: Sources) -> bytes:
    """The text in one of these encodings when it is then the member byte for byte; otherwise as UTF-8."""
    for name in () if sources.utf8 else names:
        with suppress(LookupError, ValueError):
            data = text.encode(name)
            for found in (data, _BOMS.get(name, b"") + data):
                if _is_member(found, member):
                    return found
    return text.encode()


# Rows to parts


Make = Callable[[Chosen, Array, Sources], Iterator[Part]]


def parts(each: Chosen, rows: Array, sources: Sources) -> Iterator[Part]:
    """The files that rows of a table are, a row after the other; rows of tables are none."""
    return _MAKERS[each.medium](each, rows, sources)


def wholes(each: Chosen, sources: Sources) -> Iterator[Part]:
    """The same of all rows that are chosen, with the rows of one document or table in one file. A part is to be used before the next is
    asked for."""
    if each.medium in _WHOLES:
        return _WHOLES[each.medium](each, sources)
    made = (list(parts(each, rows, sources)) for rows in each.runs(read_columns(each)))
    return chain.from_iterable(ahead(made))


def _parts_of(each: Chosen, rows: Array, sources: Sources, files: Sequence[FileOf | None], what: str) -> Iterator[Part]:
    members = sources.members.of(each, rows)
    found = places(each, rows, members)
    for row, member, place, file in zip(rows.tolist(), members, found, files, strict=True):
        if file is None:
            sources.tally.left_out[each.name, f"they have no {what}"] += 1
        else:
            yield Part(row, member, place, file.ending, (file.data,), not place and _is_member(file.data, member))


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
        None if text is None else FileOf(_text_file(text, tuple(_BOMS), member, sources), "")
        for text, member in zip(texts, members, strict=True)
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


_COLUMNS: dict[Medium, tuple[str, ...]] = {
    "images": ("pixels",),
    "videos": ("pixels", "summary", "audio_samples"),
    "audio": ("samples",),
    "documents": ("document",),
    "texts": ("text",),
    "files": ("data",),
}
"""The columns whose values decide how many rows are in memory; of tables all."""


def read_columns(each: Chosen) -> list[str]:
    """The columns of a table that files are made of."""
    return [name for name in each.table.columns if name in _COLUMNS.get(each.medium, (name,))]


# Rows of a member to one file


def _whole_documents(each: Chosen, sources: Sources) -> Iterator[Part]:
    records = chain.from_iterable(ahead(_document_records(each, sources)))
    for (_, kind, member), group in groupby(records, key=lambda record: (record[0], record[2], record[3])):
        yield _document_part(kind, member, group, sources)


def _document_part(kind: str, member: Member, records: Iterator[Any], sources: Sources) -> Part:
    """The file of the documents of a member; kind "document" has one."""
    first, ending = next(records), _document_ending(member, kind)
    if kind != "document":
        return Part(first[1], member, "", ending, _DOCUMENT_FILES[kind](chain([first], records)))
    data = _text_file(first[4], tuple(_BOMS), member, sources)
    return Part(first[1], member, "", ending, (data,), _is_member(data, member))


def _document_ending(member: Member, kind: str) -> str:
    kept = PurePosixPath(unpacked_path(member.path)).suffix.lower() in _DOCUMENTS
    return "" if kept else ".jsonl" if kind in ("line", "message") else ".json"


def _document_records(each: Chosen, sources: Sources) -> Iterator[list[tuple[int, int, str, Member, str]]]:
    """Number of the member, row, how documents of it are written, member, and text of each document."""
    names = [name for name in ("item", "line", "message") if name in each.table.columns]
    for rows in each.runs(["document"]):
        columns = each.table.rows(rows, ["document", *names])
        kinds = ["document"] * len(rows)
        for name in names:
            kinds = [kind if python_value(value) is None else name for kind, value in zip(kinds, columns[name], strict=True)]
        records = zip(
            each.table.member_numbers(rows).tolist(), rows.tolist(), kinds, sources.members.of(each, rows), columns["document"], strict=True
        )
        found = [record for record in records if record[4] is not None]
        sources.tally.left_out[each.name, "they have no document"] += len(rows) - len(found)
        yield found


def _lines(records: Iterable[Any]) -> Iterator[bytes]:
    """A document a line: line ends in JSON stand only where any space may."""
    for record in records:
        yield re.sub(r"[\r\n]+", " ", record[4].strip()).encode() + b"\n"


def _items(records: Iterable[Any]) -> Iterator[bytes]:
    for number, record in enumerate(records):
        yield (b",\n" if number else b"[\n") + record[4].encode()
    yield b"\n]\n"


_DOCUMENT_FILES: dict[str, Callable[[Iterable[Any]], Iterator[bytes]]] = {
    "line": _lines,
    "message": _lines,
    "item": _items,
}


_Slab = tuple[int, int, Member, dict[str, list[str | None]]]
"""Of neighbouring rows of one member its number, the place of the first of them among those chosen, the member, and fields by column."""


def _whole_tables(each: Chosen, sources: Sources) -> Iterator[Part]:
    """The records of a member as CSV that reads as the same values: empty strings in quotes, and nothing where a value is missing."""
    slabs = chain.from_iterable(ahead(_table_slabs(each, sources)))
    for _, group in groupby(slabs, key=itemgetter(0)):
        yield _table_part(each, group)


def _table_part(each: Chosen, slabs: Iterator[_Slab]) -> Part:
    """The file of the records of a member, with the columns that have a value in any of them."""
    number, place, member, fields = next(slabs)
    suffix = PurePosixPath(unpacked_path(member.path)).suffix.lower()
    records = chain([fields], (slab[3] for slab in slabs))
    data = _csv(_columns_of(each, number, place), records, _DELIMITERS.get(suffix, ","))
    return Part(int(each.rows[place]), member, "", "" if suffix in _DELIMITERS else ".csv", data)


def _columns_of(each: Chosen, number: int, place: int) -> list[str]:
    """The columns that a member has, of those that other members of the class have brought."""
    names = each.table.columns
    if len(np.unique(each.table.member_numbers(each.rows[[0, -1]]))) == 1:
        return names
    lacking = dict.fromkeys(names)
    for rows in Chosen(each.name, each.table, each.medium, each.rows[place:]).runs(names):
        own = rows[each.table.member_numbers(rows) == number]
        for name in [name for name in lacking if any(field is not None for field in _fields(each.table[name], own))]:
            del lacking[name]
        if not lacking or len(own) < len(rows):
            break
    return [name for name in names if name not in lacking]


def _csv(names: Sequence[str], slabs: Iterable[Mapping[str, Sequence[str | None]]], delimiter: str) -> Iterator[bytes]:
    special = re.compile(rf'["\r\n{re.escape(delimiter)}]|^[\s#]|\s$|^$')
    yield _csv_lines([[name] for name in names], special, delimiter)
    for fields in slabs:
        yield _csv_lines([fields[name] for name in names], special, delimiter)


def _csv_lines(columns: Sequence[Sequence[str | None]], special: re.Pattern[str], delimiter: str) -> bytes:
    quoted = [
        ["" if text is None else '"' + text.replace('"', '""') + '"' if special.search(text) else text for text in column]
        for column in columns
    ]
    return "".join(delimiter.join(record) + "\n" for record in zip(*quoted, strict=True)).encode()


def _table_slabs(each: Chosen, sources: Sources) -> Iterator[list[_Slab]]:
    place = 0
    for rows in each.runs(each.table.columns):
        numbers, slabs = each.table.member_numbers(rows), []
        for some in np.split(rows, np.flatnonzero(np.diff(numbers)) + 1):
            fields = {name: _fields(each.table[name], some) for name in each.table.columns}
            [number], [member] = each.table.member_numbers(some[:1]), sources.members.of(each, some[:1])
            slabs.append((int(number), place, member, fields))
            place += len(some)
        yield slabs


def _fields(column: Column, rows: Array) -> list[str | None]:
    """Values as CSV has them, None where one is missing."""
    values = column.rows(rows)
    if isinstance(column, Ragged):
        raise FormatError(f"column of layout {column.layout}: found arrays, expected values that a table can hold; make the file anew")
    if isinstance(values, np.ndarray) and values.dtype.kind == "M" and isinstance(column, Plain | Nullable):
        texts = [text.decode() for text in date_strings(np.ma.getdata(values), column.form).tolist()]
        missing = (np.ma.getmaskarray(values) | np.isnat(np.ma.getdata(values))).tolist()
        return [None if gone else text for text, gone in zip(texts, missing, strict=True)]
    return [_field(python_value(value)) for value in values]


def _field(value: Any) -> str | None:
    if value is None or value != value:
        return None
    return str(value).lower() if isinstance(value, bool) else str(value)


_WHOLES: dict[Medium, Callable[[Chosen, Sources], Iterator[Part]]] = {"documents": _whole_documents, "tables": _whole_tables}
"""Media of which a file has many rows."""


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
