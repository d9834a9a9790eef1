"""A staged file is what its writer finished, or an OutputError; an index that lies is never believed, and nothing is unpickled."""

from __future__ import annotations

import json
import os
import pickle
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from h5dat_lib.errors import OutputError
from h5dat_lib.stage.staged import _FOOTER, CHUNK, MAGIC, Segment, StagedChunks, StagedFile, StagedScalars, StageWriter

Index = list[dict[str, Any]]


@pytest.fixture
def staged(tmp_path: Path) -> Path:
    with StageWriter(tmp_path / "a.stage") as out:
        chunks = np.array([(out.blob(b"12345678"), 8, 1, zlib.crc32(b"12345678"))], CHUNK)
        text = StagedChunks("text", 8, chunks, np.array([0, 4], "<u8"), np.array([4, 4], "<u8"), None, None, None)
        numbers = StagedScalars(np.array([1, 2]), np.array([False, True]), "")
        out.add(Segment("t", 2, {"text": text, "n": numbers}, {}))
        out.finish()
    return tmp_path / "a.stage"


def _with_index(path: Path, change: Callable[[Index], Any]) -> None:
    """The same file with another index, and a footer that is right for it."""
    raw = path.read_bytes()
    at, size, _, _ = _FOOTER.unpack(raw[-_FOOTER.size :])
    index = json.loads(raw[at : at + size])
    changed = change(index)
    data = changed if isinstance(changed, bytes) else json.dumps(index).encode()
    path.write_bytes(raw[:at] + data + _FOOTER.pack(at, len(data), zlib.crc32(data), MAGIC))


def _read_all(path: Path) -> list[Segment]:
    with StagedFile(path) as file:
        segments = list(file.segments())
        for segment in segments:
            for at, size, _, crc in segment.columns["text"].chunks.tolist():  # type: ignore[union-attr]
                assert zlib.crc32(file.chunk(at, size)) == crc
        return segments


def _array(column: str, part: str, place: int, value: Any) -> Callable[[Index], None]:
    """Changes how an array is noted: its place (0), bytes (1), type (2) or shape (3)."""
    return lambda index: index[0]["columns"][column][part].__setitem__(place, value)


LIES: dict[str, Callable[[Index], Any]] = {
    "an array behind the end": _array("n", "values", 0, 10**6),
    "an array before the start": _array("n", "values", 0, -8),
    "an array of terabytes": _array("n", "values", 1, 2**45),
    "an array at the end of numbers": _array("n", "values", 0, 2**64),
    "an array at half a byte": _array("n", "values", 0, 8.5),
    "an array at a word": _array("n", "values", 0, "8"),
    "a type of objects": _array("n", "values", 2, "|O"),
    "a type with objects": _array("n", "values", 2, [["a", "|O"], ["b", "<i4"]]),
    "a type of nothing": _array("n", "values", 2, "nothing"),
    "a type that is a number": _array("n", "values", 2, 7),
    "a type that is code": _array("n", "values", 2, "01"),
    "another shape": _array("n", "values", 3, [3]),
    "a shape of terabytes": _array("n", "values", 3, [2**40]),
    "a shape below zero": _array("n", "values", 3, [-2, -1]),
    "a shape of words": _array("n", "values", 3, ["two"]),
    "chunks of other make": _array("text", "chunks", 2, "<u4"),
    "chunks that are one": _array("text", "chunks", 3, []),
    "rows too many": lambda index: index[0].__setitem__("rows", 2**40),
    "rows that are none": lambda index: index[0].__setitem__("rows", "two"),
    "fewer values": lambda index: index[0]["columns"]["n"].__setitem__("values", [*index[0]["columns"]["n"]["missing"][:3], [1]]),
    "a column of nothing": lambda index: index[0]["columns"].__setitem__("n", {}),
    "a column that is a list": lambda index: index[0]["columns"].__setitem__("n", []),
    "a part that nobody knows": lambda index: index[0]["columns"]["n"].__setitem__("more", 1),
    "no columns": lambda index: index[0].__delitem__("columns"),
    "no table": lambda index: index[0].__delitem__("table"),
    "a segment that is a number": lambda index: index.__setitem__(0, 5),
    "an index that is a number": lambda index: b"5",
    "an index that is no JSON": lambda index: b"{",
    "an index without end": lambda index: b"[" * 100_000,
    "an index that is a pickle": lambda index: pickle.dumps(_Trap()),
}


class _Trap:
    def __reduce__(self) -> tuple[Any, ...]:
        return pytest.fail, ("this was unpickled",)


@pytest.mark.parametrize("lie", LIES)
def test_an_index_that_lies_is_an_error_that_says_what_to_do(staged: Path, lie: str) -> None:
    _with_index(staged, LIES[lie])
    with pytest.raises(OutputError, match=r"a\.stage: not a complete staged batch: .*; run the same command again to stage it anew"):
        _read_all(staged)


@pytest.mark.parametrize(("at", "size"), [(8, 2**31), (10**6, 8), (2**63, 8)])
def test_a_chunk_that_lies_outside_is_an_error(staged: Path, at: int, size: int) -> None:
    with StagedFile(staged) as file, pytest.raises(OutputError, match="found bytes"):
        file.chunk(at, size)


@pytest.mark.parametrize("footer", [(2**64 - 1, 10, 0, MAGIC), (0, 2**63, 0, MAGIC), (0, 0, 0, MAGIC), (8, 8, 0, b"\x80\x04K\x05.\0\0\0")])
def test_a_footer_that_lies_is_an_error(staged: Path, footer: tuple[int, int, int, bytes]) -> None:
    staged.write_bytes(staged.read_bytes()[: -_FOOTER.size] + _FOOTER.pack(*footer))
    with pytest.raises(OutputError, match="not a complete staged batch"):
        StagedFile(staged)


def test_any_byte_of_the_end_that_is_changed_is_found(staged: Path) -> None:
    whole = staged.read_bytes()
    at, *_ = _FOOTER.unpack(whole[-_FOOTER.size :])
    for place in range(at, len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 0x10
        staged.write_bytes(changed)
        with pytest.raises(OutputError, match="not a complete staged batch"):
            StagedFile(staged)


def test_a_file_that_is_refused_is_closed_again(staged: Path) -> None:
    staged.write_bytes(b"")
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0
    for _ in range(5):
        with pytest.raises(OutputError):
            StagedFile(staged)
    assert (len(os.listdir("/proc/self/fd")) if before else 0) == before


def test_what_is_as_it_was_written_is_read(staged: Path) -> None:
    [segment] = _read_all(staged)
    assert segment.columns["n"].values.tolist() == [1, 2]  # type: ignore[union-attr]
