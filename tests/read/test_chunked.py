"""Rows of a dataset are what h5py reads, however they are asked for; a chunk that is not what it should be is an error, never memory."""

from __future__ import annotations

import os
import zlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from h5dat_lib.errors import FormatError
from h5dat_lib.read.chunked import Rows
from h5dat_lib.read.handle import Handle, How

FILTERS: list[dict[str, Any]] = [{}, {"compression": "gzip"}, {"compression": "gzip", "shuffle": True}, {"compression": "lzf"}]


def _file(folder: Path, values: np.ndarray[Any, Any], chunks: Any, **filters: Any) -> h5py.Dataset:
    with h5py.File(folder / "x.h5", "w") as file:
        file.create_dataset("x", data=values, chunks=chunks, maxshape=(None, *values.shape[1:]) if chunks else None, **filters)
    return h5py.File(folder / "x.h5")["x"]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_rows_are_what_h5py_reads(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    rows, height, width = (data.draw(st.integers(1, 12)) for _ in range(3))
    shape = data.draw(st.sampled_from([(rows,), (rows, 3), (rows, height, width, 2)]))
    kind = data.draw(st.sampled_from(["u1", "<i8", ">u2", "<f4", "?", "S5"]))
    chunks = (data.draw(st.integers(1, 5)), *(data.draw(st.integers(1, size)) for size in shape[1:]))
    filters = data.draw(st.sampled_from(FILTERS))
    values = np.random.default_rng(rows).integers(0, 2, shape).astype(kind)
    dataset = _file(tmp_path_factory.mktemp("x"), values, None if not filters and data.draw(st.booleans()) else chunks, **filters)
    found = Rows(dataset, Handle(Path(dataset.file.filename), How(trusted=True)) if data.draw(st.booleans()) else None)
    assert (len(found), found.dtype, found.shape) == (rows, dataset.dtype, dataset.shape)
    index = st.integers(-rows, rows - 1)
    asked = data.draw(st.slices(rows) | st.lists(index) | st.lists(st.booleans(), min_size=rows, max_size=rows).map(np.array))
    assert np.array_equal(found[asked], values[asked] if isinstance(asked, slice | np.ndarray) else values[np.array(asked, int)])
    row = data.draw(st.integers(0, rows - 1))
    assert np.array_equal(found[row], values[row]) and np.array_equal(found[row], dataset[row])


@pytest.mark.parametrize("band", [7, 3, 2])
def test_pictures_without_a_filter_are_read_from_their_places_without_a_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, band: int
) -> None:
    values = np.random.default_rng(1).integers(0, 256, (50, 7, 5, 3), "u1")
    dataset = _file(tmp_path, values, (1, band, 5, 3))
    rows = Rows(dataset, Handle(tmp_path / "x.h5"))
    monkeypatch.setattr(Rows, "_chunk", None)  # nothing is read as a chunk
    monkeypatch.setattr("h5dat_lib.read.chunked._BARE_BYTES", 300)  # several threads
    asked = np.random.default_rng(2).permutation(50)
    out = np.zeros((50, 7, 5, 3), "u1")
    assert rows.take(asked, out) is out and (out == values[asked]).all()
    assert (rows[:] == values).all() and (rows[[49, 0, 0]] == values[[49, 0, 0]]).all() and (rows[3] == values[3]).all()


def test_a_picture_without_a_filter_that_the_file_has_lost_is_an_error(tmp_path: Path) -> None:
    values = np.random.default_rng(1).integers(0, 256, (50, 40, 50, 3), "u1")
    rows = Rows(_file(tmp_path, values, (1, 40, 50, 3)), Handle(tmp_path / "x.h5"))
    assert (rows[:] == values).all()
    os.truncate(tmp_path / "x.h5", 200_000)
    with pytest.raises(FormatError, match=r"found chunks that are not in the file whole, expected 6000 bytes each"):
        rows[:]


def test_what_hdf5_says_of_damage_may_be_no_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """h5py decodes HDF5's messages, in which bytes of the file may stand."""

    class Damaged:
        ndim = 1

        def __getattr__(self, name: str) -> Any:
            return self if name == "id" else self.fail

        def fail(self, *words: object) -> None:
            b"\xa9".decode()

    values = np.random.default_rng(1).integers(0, 256, 1000, "u1")
    rows = Rows(_file(tmp_path, values, (10,)), Handle(tmp_path / "x.h5"))
    monkeypatch.setattr(rows, "_here", Damaged)
    assert rows._places is not None
    monkeypatch.setattr(rows._places, "_dataset", Damaged)
    with pytest.raises(FormatError, match="found no chunk that can be read"):
        rows[:]


@pytest.mark.parametrize("asked", [3, -1, [0, 3], [-4], [1.5], ["a"], [[0]], np.array([True, False])])
def test_a_row_that_is_not_there_is_an_index_error(tmp_path: Path, asked: Any) -> None:
    rows = Rows(_file(tmp_path, np.arange(3), (2,)))
    with pytest.raises(IndexError):
        rows[asked]


def test_what_is_given_can_be_changed_without_changing_what_is_kept(tmp_path: Path) -> None:
    rows = Rows(_file(tmp_path, np.zeros((3, 4), "u1"), (2, 4), compression="gzip"))
    for asked in (0, slice(0, 3), [0, 1]):
        rows[asked][:] = 9
        assert not rows[asked].any()


def test_a_file_that_is_read_again_and_again_is_inflated_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = Rows(_file(tmp_path, np.arange(100_000), (8192,), compression="gzip"))
    inflated = 0
    original = Rows._inflated

    def count(self: Rows, data: bytes, place: tuple[int, ...]) -> bytes:
        nonlocal inflated
        inflated += 1
        return original(self, data, place)

    monkeypatch.setattr(Rows, "_inflated", count)
    assert [int(rows[number]) for number in range(0, 100_000, 500)] == list(range(0, 100_000, 500))
    assert rows[:][-1] == 99_999
    assert inflated == 13


CHUNKS = {
    "far too long": (
        zlib.compress(bytes(1 << 28), 9),
        0,
        "found a chunk at .* that cannot be inflated .LIBDEFLATE_INSUFFICIENT_SPACE., expected 65536 bytes",
    ),
    "a byte too long": (zlib.compress(bytes(65_537)), 0, "cannot be inflated"),
    "too short": (zlib.compress(b"abc"), 0, "found a chunk of 3 bytes"),
    "empty": (zlib.compress(b""), 0, "found a chunk of 0 bytes"),
    "cut": (zlib.compress(bytes(65_536))[:-5], 0, "cannot be inflated"),
    "not deflated": (b"nothing of the kind", 0, "cannot be inflated"),
    "another sum": (zlib.compress(bytes(65_536))[:-1] + b"\xff", 0, "cannot be inflated"),
    "bare and too short": (b"abc", 1, "found a chunk of 3 bytes"),
}


@pytest.mark.parametrize("name", CHUNKS)
@pytest.mark.parametrize("shuffle", [False, True])
def test_a_chunk_of_another_size_is_an_error(tmp_path: Path, name: str, shuffle: bool) -> None:
    data, mask, message = CHUNKS[name]
    with h5py.File(tmp_path / "x.h5", "w") as file:
        dataset = file.create_dataset("x", (16_384,), "<u4", chunks=(16_384,), maxshape=(None,), compression="gzip", shuffle=shuffle)
        dataset.id.write_direct_chunk((0,), data, mask << shuffle)
    with h5py.File(tmp_path / "x.h5") as file, pytest.raises(FormatError, match=f"x.h5, /x: .*{message}"):
        Rows(file["x"])[0]


def test_a_chunk_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("x", (10,), "u1", chunks=(5,), maxshape=(None,), compression="gzip")
    with h5py.File(tmp_path / "x.h5") as file, pytest.raises(FormatError, match=r"found no chunk that can be read at \(5,\)"):
        Rows(file["x"])[7]


@pytest.mark.parametrize("kind", [h5py.string_dtype(), h5py.ref_dtype, np.dtype([("a", "u1")]), h5py.vlen_dtype(np.int32)])
def test_values_that_are_no_numbers_are_an_error(tmp_path: Path, kind: Any) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("x", (10,), kind)
    with h5py.File(tmp_path / "x.h5") as file, pytest.raises(FormatError, match="expected rows of numbers"):
        Rows(file["x"])


@pytest.mark.parametrize(("filters", "mask"), [({"compression": "gzip"}, 1), ({"compression": "gzip", "shuffle": True}, 2)])
def test_a_chunk_that_was_just_stored_without_deflate_is_read_as_it_was_stored(tmp_path: Path, filters: dict[str, Any], mask: int) -> None:
    values = np.random.default_rng(1).integers(0, 256, 4096).astype("u1")
    with h5py.File(tmp_path / "x.h5", "w") as file:
        dataset = file.create_dataset("x", (4096,), "u1", chunks=(4096,), maxshape=(None,), **filters)
        dataset.id.write_direct_chunk((0,), values.tobytes(), mask)
        assert np.array_equal(Rows(dataset)[:], values)
