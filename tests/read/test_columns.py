"""A file that lies about its rows, shapes, types or places is an error that says where; it never takes memory or time without bound."""

from __future__ import annotations

import contextlib
import re
import resource
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import h5dat_lib
from h5dat_lib.errors import FormatError, H5datError
from tests.conftest import config, make_zip, picture

MOST_BYTES = 300 << 20
"""More memory than this is not taken, whatever a file says."""


def _original(folder: Path, **settings: Any) -> Path:
    members = {f"{n}.png": picture(8, 6 + n % 2, n) for n in range(6)} | {f"{n}.json": b'{"n": [%d, "x"]}' % n for n in range(6)}
    members |= {"a.csv": b"n,s,e\n" + b"".join(b"%d,name %d,%s\n" % (n, n, b"" if n == 3 else b"5") for n in range(9)), "a.txt": b"text"}
    h5dat_lib.ingest(make_zip(folder / "a.zip", members | {"bad.json": b"{"}), folder / "out.h5", config(**settings))
    return folder / "out.h5"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _original(tmp_path_factory.mktemp("lies"))


@pytest.fixture
def output(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(original, tmp_path / "out.h5"))


def _set(path: str, row: Any, value: Any) -> Callable[[h5py.File], None]:
    return lambda file: file[path].__setitem__(row, value)


def _attribute(path: str, name: str, value: Any) -> Callable[[h5py.File], None]:
    return lambda file: file[path].attrs.__setitem__(name, value)


def _without(path: str) -> Callable[[h5py.File], None]:
    return lambda file: file.__delitem__(path)


def _instead(path: str, values: Any, **how: Any) -> Callable[[h5py.File], None]:
    def tamper(file: h5py.File) -> None:
        attributes = dict(file[path].attrs)
        del file[path]
        file.create_dataset(path, data=values, **how).attrs.update(attributes)

    return tamper


def _resized(path: str, rows: int) -> Callable[[h5py.File], None]:
    return lambda file: file[path].resize(rows, axis=0)


def _bomb(file: h5py.File) -> None:
    file["images/pixels/values"].id.write_direct_chunk((0,), zlib.compress(bytes(1 << 28), 9), 0)


def _short(file: h5py.File) -> None:
    file["images/pixels/values"].id.write_direct_chunk((0,), zlib.compress(b"abc"), 0)


LIES: dict[str, Callable[[h5py.File], object]] = {
    "rows too many": _attribute("images", "rows", np.uint64(7)),
    "rows without end": _attribute("images", "rows", np.uint64(2**62)),
    "rows too few": _attribute("images", "rows", np.uint64(1)),
    "rows below zero": _attribute("images", "rows", np.int64(-1)),
    "rows are words": _attribute("images", "rows", "six"),
    "rows are many": _attribute("images", "rows", np.arange(3)),
    "columns are one": _attribute("images", "columns", "pixels"),
    "columns are numbers": _attribute("images", "columns", np.arange(3)),
    "columns that are not there": _attribute("images", "columns", ["pixels", "depth"]),
    "columns elsewhere": _attribute("images", "columns", ["../texts/text", "/"]),
    "an offset behind the end": _set("images/pixels/offset", 2, 2**40),
    "an offset at the end of numbers": _set("images/pixels/offset", 2, 2**64 - 1),
    "a length behind the end": _set("images/pixels/length", 2, 2**40),
    "a length at the end of numbers": _set("images/pixels/length", 2, 2**64 - 1),
    "a shape of terabytes": _set("images/pixels/shape", 2, [2**31, 2**31, 3]),
    "a shape of nothing": _set("images/pixels/shape", 2, [0, 0, 0]),
    "a type of objects": _set("images/pixels/dtype", 2, b"|O"),
    "a type of nothing": _set("images/pixels/dtype", 2, b"\xff\xfe"),
    "a type of other size": _set("images/pixels/dtype", 2, b"<f8"),
    "a type that is code": _set("images/pixels/dtype", 2, b"01"),
    "a bomb": _bomb,
    "a chunk that is short": _short,
    "fewer offsets": _resized("images/pixels/offset", 3),
    "more lengths": _resized("images/pixels/length", 8000),
    "no offsets": _without("images/pixels/offset"),
    "no column": _without("images/pixels"),
    "signed offsets": _instead("images/pixels/offset", -np.arange(6), chunks=(6,), maxshape=(None,)),
    "offsets of other make": _instead("images/pixels/offset", [b"a"] * 6),
    "flat shapes": _instead("images/pixels/shape", np.arange(6, dtype="<u4")),
    "values that are not bytes": _instead("images/pixels/values", np.arange(6, dtype="<u8")),
    "a scalar": _instead("images/height", 3),
    "words": _instead("images/height", ["x"] * 6),
    "another layout": _attribute("images/pixels", "layout", "sparse"),
    "a layout of numbers": _attribute("images/pixels", "layout", np.arange(3)),
    "a layout that it is not": _attribute("images/pixels", "layout", "dense"),
    "a layout of pictures": _attribute("images/pixels", "layout", "encoded"),
    "a layout with a mask": _attribute("images/pixels", "layout", "nullable"),
    "a layout of a group": _attribute("images/height", "layout", "ragged"),
}


def _read_all(path: Path) -> None:
    with h5dat_lib.open(path) as file:
        file.describe()
        for name in file.classes:
            table = file[name]
            for column in table.columns:
                list(table[column][:])
            for row in range(len(table)):
                table.origin(row), table.pairs(row), [table[column][row] for column in table.columns]
        list(file.rejects())


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_about_a_column_is_an_error_and_no_memory(output: Path, lie: str) -> None:
    with h5py.File(output, "r+") as file:
        LIES[lie](file)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(H5datError, match=r"out\.h5, /images|MemberError|not a picture"):
        _read_all(output)
    h5dat_lib.verify(output)  # finds it or not, and ends
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < MOST_BYTES


TEXT_LIES: dict[str, Callable[[h5py.File], object]] = {
    "texts that overlap": _set("documents/document/offset", slice(None), 0),
    "texts behind the end": _set("documents/document/length", 5, 2**63),
    "texts in another order": _set("documents/document/offset", 0, 100),
    "texts that are none": _set("documents/document/values", slice(None), 255),
    "strings that are none": _set("tables/s", 3, b"\xff\xff"),
    "fewer missing": _resized("tables/e/mask", 3),
    "missing of other make": _instead("tables/e/mask", np.arange(9)),
    "no mask": _without("tables/e/mask"),
    "rejects without end": _attribute("lineage/rejects", "rows", np.uint64(2**60)),
    "archives without end": _attribute("lineage/archives", "rows", np.uint64(2**60)),
    "runs that are not there": _without("lineage/runs/run_id"),
    "a table that is none": _instead("lineage/archives", np.arange(9)),
}


@pytest.mark.parametrize("lie", TEXT_LIES)
def test_a_lie_about_texts_or_lineage_is_an_error(output: Path, lie: str) -> None:
    with h5py.File(output, "r+") as file:
        TEXT_LIES[lie](file)
    with pytest.raises(FormatError, match=r"out\.h5, /"):
        _read_all(output)
    h5dat_lib.verify(output)


REFERENCES: dict[str, Callable[[h5py.File], object]] = {
    "a member": _set("images/_member", 2, 2**63),
    "an archive": _set("lineage/members/archive", slice(None), 77),
    "a batch": _set("lineage/members/batch", slice(None), 77),
    "a run": _set("lineage/members/run", slice(None), 2**64 - 1),
    "a key": _set("documents/_pairs/key", slice(None), 77),
    "a type of a pair": _set("documents/_pairs/type", slice(None), 77),
    "an archive of a reject": _set("lineage/rejects/archive", slice(None), 77),
}


@pytest.mark.parametrize("name", REFERENCES)
def test_a_reference_to_what_is_not_there_is_an_index_error(output: Path, name: str) -> None:
    with h5py.File(output, "r+") as file:
        REFERENCES[name](file)
    with pytest.raises(IndexError):
        _read_all(output)


@pytest.mark.parametrize(
    ("name", "value"), [("color", "purple"), ("color", 3), ("resize", "{"), ("resize", '{"width": -1}'), ("resize", 5)]
)
def test_settings_of_encoded_pictures_that_are_none_are_an_error(tmp_path: Path, name: str, value: Any) -> None:
    output = _original(tmp_path, image={"storage": "encoded"})
    with h5py.File(output, "r+") as file:
        file["images"].attrs[name] = value
    with pytest.raises(FormatError, match=r"out\.h5, /images/pixels: found color"):
        _read_all(output)


@pytest.mark.parametrize("mark", [b"EAHD", b"EAIB", b"OHDR", b"FRHP", b"GCOL"])
def test_damaged_metadata_is_an_error(output: Path, mark: bytes) -> None:
    """The marks of HDF5's structures: indexes of chunks, object headers, heaps (HDF5 File Format Specification 3.0)."""
    raw = bytearray(output.read_bytes())
    for place in (found.start() for found in re.finditer(mark, bytes(raw))):
        raw[place + 8] ^= 0x10
    damaged = bytes(raw) != output.read_bytes()
    output.write_bytes(raw)
    with pytest.raises(FormatError) if damaged else contextlib.nullcontext():
        _read_all(output)


def test_a_damaged_string_in_an_attribute_is_an_error(output: Path) -> None:
    raw = bytearray(output.read_bytes())
    raw[raw.index(b"ragged\0\0") - 8] -= 1  # the size of the object in its global heap (File Format Specification 3.0, III.E)
    output.write_bytes(raw)
    with h5dat_lib.open(output) as file, pytest.raises(FormatError, match=r"out\.h5, /images/pixels: found damaged attributes"):
        _ = file["images"].pixels


@pytest.mark.parametrize("error", [RuntimeError, KeyError])
def test_a_table_that_hdf5_cannot_open_is_an_error(output: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception]) -> None:
    def broken(group: h5py.Group, name: str) -> bool:
        raise error("Can't get deprecated info for object")

    with h5dat_lib.open(output) as file:
        assert "images" in file and "depths" not in file and "lineage" not in file
        monkeypatch.setattr(h5py.Group, "__contains__", broken)
        for read in (file.runs, file.archives, lambda: list(file.rejects()), lambda: file["images"]):
            with pytest.raises(FormatError, match=r"out\.h5, .*: found a damaged group"):
                read()


def test_texts_come_back_in_any_order(output: Path) -> None:
    with h5dat_lib.open(output) as file:
        texts = file["documents"].document
        forth = texts[:]
        assert forth == [texts[row] for row in range(6)]
        assert texts[::-1] == forth[::-1] and texts[4::2] == forth[4::2] and texts[5:2] == []
        assert texts[[5, 0, 0]] == [forth[5], forth[0], forth[0]]
        assert file["tables"].e[[3, -1]].tolist() == [None, 5]
