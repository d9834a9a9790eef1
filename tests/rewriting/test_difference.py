"""A comparison names what differs by its member, and nothing else: no order of files, no storage, no run, no time."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

import h5dat_lib
from h5dat_lib.errors import FormatError, InputError
from h5dat_lib.rewriting.difference import Compared, Difference
from tests.conftest import make_zip, picture
from tests.rewriting.test_merging import made, members

Change = Callable[[h5py.File], None]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("difference")
    made(folder, "out.h5", make_zip(folder / "a.zip", members(1)))
    return folder


def _changed(home: Path, tmp_path: Path, change: Change, **how: object) -> Compared:
    """The output compared with a copy of it that h5py has changed."""
    copy = tmp_path / "changed.h5"
    shutil.copyfile(home / "out.h5", copy)
    with h5py.File(copy, "r+") as file:
        change(file)
    return h5dat_lib.diff(home / "out.h5", copy, **how)  # type: ignore[arg-type]


def test_a_file_is_the_same_as_itself_and_as_another_run_of_the_same_archive(home: Path, tmp_path: Path) -> None:
    again = made(tmp_path, "again.h5", home / "a.zip")
    for other in (home / "out.h5", again):
        found = h5dat_lib.diff(home / "out.h5", other)
        assert (found.same, found.differences, found.counts, found.more, found.storage) == (True, (), {}, 0, ())
    assert h5dat_lib.diff(home / "out.h5", home / "out.h5", runs=True).same
    assert set(h5dat_lib.diff(home / "out.h5", again, runs=True).counts) == {"run", "member"}


@pytest.mark.parametrize(
    ("settings", "layout"),
    [
        ({"image": {"layout": "ragged"}}, "dense and ragged"),
        ({"image": {"storage": "encoded", "phash": "always"}}, "dense and encoded"),
        ({"compression": {"filter": "none"}}, "filters deflate and none"),
    ],
)
def test_other_storage_is_said_and_no_difference(home: Path, tmp_path: Path, settings: dict[str, object], layout: str) -> None:
    found = h5dat_lib.diff(home / "out.h5", made(tmp_path, "other.h5", home / "a.zip", **settings))
    assert found.same and found.counts == {}
    assert any(line.startswith("images/pixels: ") and layout in line for line in found.storage)


def _pixel(file: h5py.File) -> None:
    file["images/pixels"][1, 2, 3, 0] ^= 1


def _number(file: h5py.File) -> None:
    file["tables/x"][7] = 99


def _missing(file: h5py.File) -> None:
    file["tables/y"][2] = np.nan


def _text(file: h5py.File) -> None:
    column = file["texts/text"]
    column["values"][column["offset"][2] + np.uint64(3)] = ord("!")


def _pair(file: h5py.File) -> None:
    column = file["documents/_pairs/value"]
    column["values"][0] = ord("9")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (_pixel, Difference("values", "both", "images", "pixels", member="p1-1.png")),
        (_number, Difference("values", "both", "tables", "x", member="t1.csv", part=7)),
        (_missing, Difference("values", "both", "tables", "y", member="t1.csv", part=2)),
        (_text, Difference("values", "both", "texts", "text", member="t1-2.txt")),
        (_pair, Difference("pairs", "both", "documents", "_pairs", member="d1-0.json")),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_another_value_is_named_by_member_part_and_column(home: Path, tmp_path: Path, change: Change, expected: Difference) -> None:
    found = _changed(home, tmp_path, change)
    assert not found.same
    [difference] = found.differences
    assert difference.archive == str(home / "a.zip")
    assert (difference.kind, difference.where, difference.table, difference.column, difference.member, difference.part) == (
        expected.kind, expected.where, expected.table, expected.column, expected.member, expected.part,
    )  # fmt: skip


def test_rows_and_members_that_only_one_has_are_counted_and_listed_up_to_the_limit(home: Path, tmp_path: Path) -> None:
    more = {**members(1), "z.csv": b"x,y,name\n" + b"1,2,c\n" * 5, "z.png": picture(8, 6, 7), "bad2.png": b"\x89PNG\r\n\x1a\nbad"}
    (tmp_path / "a.zip").parent.mkdir(exist_ok=True)
    archive = make_zip(tmp_path / "a.zip", more)
    other = made(tmp_path, "more.h5", archive)
    with h5py.File(other, "r+") as file:  # as if the archive had come in by parts: known by its place
        file["lineage/archives/fingerprint"][0] = h5py.File(home / "out.h5")["lineage/archives/fingerprint"][0]
    found = h5dat_lib.diff(home / "out.h5", other)
    assert found.counts == {"rows": 6, "reject": 1}
    assert {(d.kind, d.where, d.table, d.member, d.rows) for d in found.differences} == {
        ("rows", "b", "images", "z.png", 1),
        ("rows", "b", "tables", "z.csv", 5),
        ("reject", "b", "", "bad2.png", 0),
    }
    back = h5dat_lib.diff(other, home / "out.h5", limit=1)
    assert (len(back.differences), back.differences[0].where, back.more + max(back.differences[0].rows, 1)) == (1, "a", 7)


def test_files_of_other_archives_have_no_rows_in_common(home: Path, tmp_path: Path) -> None:
    other = made(tmp_path, "other.h5", make_zip(tmp_path / "b.zip", {"p1-0.png": members(1)["p1-0.png"], "x.svg": b"<svg/>"}))
    found = h5dat_lib.diff(home / "out.h5", other)
    assert found.counts["archive"] == 2 and found.counts["class"] == 3 + 3 + 30 and found.counts["rows"] == 4
    assert {d.table for d in found.differences if d.kind == "class"} == {"documents", "tables", "texts"}


def test_columns_and_attributes_that_only_one_has_are_named(home: Path, tmp_path: Path) -> None:
    def change(file: h5py.File) -> None:
        file["tables"].attrs["columns"] = np.array(["_member", "x", "name"], h5py.string_dtype())
        file["images"].attrs["licence"] = "CC0"
        file.attrs["title"] = "mine"

    found = _changed(home, tmp_path, change)
    assert {(d.kind, d.where, d.table, d.column) for d in found.differences} == {
        ("column", "a", "tables", "y"),
        ("attribute", "b", "images", ""),
        ("attribute", "b", "/", ""),
    }


def test_archives_are_found_again_by_their_bytes_whatever_their_order(home: Path, tmp_path: Path) -> None:
    copy = shutil.copyfile(home / "a.zip", tmp_path / "copy.zip")
    other = make_zip(tmp_path / "b.zip", {"b.txt": b"b"})
    one, two = made(tmp_path, "1.h5", copy, other), made(tmp_path, "2.h5", other, home / "a.zip")
    assert h5dat_lib.diff(one, two).counts == {"order": 1}
    assert not h5dat_lib.diff(one, home / "out.h5").same


def test_numbers_of_other_types_are_compared_exactly(home: Path, tmp_path: Path) -> None:
    def as_type(dtype: str, change: int = 0) -> Change:
        def convert(file: h5py.File) -> None:
            values = file["tables/x"][:].astype(dtype)
            values[3] += change
            crcs = file["lineage/checksums/tables/x"][:]
            chunks, shuffle = file["tables/x"].chunks, file["tables/x"].shuffle
            del file["tables/x"]
            file["tables"].create_dataset("x", data=values, maxshape=(None,), chunks=chunks, compression="gzip", shuffle=shuffle)
            assert len(crcs) == 1

        return convert

    found = _changed(home, tmp_path, as_type("<f8"))
    assert found.same and "tables/x: dtype int64 and float64" in found.storage[0]
    assert _changed(home, tmp_path, as_type("<f8", 1)).counts == {"values": 1}


def test_a_column_of_categories_is_compared_with_one_of_strings(tmp_path: Path) -> None:
    same = {f"{n}.json": b'{"b": "alike"}' for n in range(40)}
    other = {f"{n}.json": b'{"b": "other %d"}' % n for n in range(40)}
    one, two = (made(tmp_path, f"{n}.h5", make_zip(tmp_path / f"{n}.zip", each)) for n, each in enumerate((same, other)))
    found = h5dat_lib.diff(one, two)
    assert found.counts == {"archive": 2, "attribute": 1, "rows": 80}
    assert any(line.startswith("documents/b: layout categorical and plain") for line in found.storage)


def test_what_cannot_be_compared_is_said(home: Path, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = 1
    for path, kind in ((tmp_path / "other.h5", FormatError), (tmp_path / "none.h5", InputError)):
        with pytest.raises(kind, match=path.name):
            h5dat_lib.diff(home / "out.h5", path)


def test_a_chunk_that_is_stored_alike_is_not_inflated(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise AssertionError("a value was compared")

    monkeypatch.setattr("h5dat_lib.rewriting.difference._Comparison._compare_values", fails)
    assert h5dat_lib.diff(home / "out.h5", home / "out.h5").same


def test_a_damaged_chunk_is_named_with_its_row_and_member(home: Path, tmp_path: Path) -> None:
    def cut(file: h5py.File) -> None:
        stored = file["images/pixels"].id.read_direct_chunk((2, 0, 0, 0))[1]
        file["images/pixels"].id.write_direct_chunk((2, 0, 0, 0), stored[: len(stored) // 2])

    with pytest.raises(FormatError, match=r"needed for images\[2\] \(p1-2.png\)"):
        _changed(home, tmp_path, cut)
