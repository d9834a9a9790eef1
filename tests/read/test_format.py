"""What marks a file as ours, and that readers of other make open it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import h5py
import pytest

import h5dat_lib
from tests.conftest import config, make_zip, picture

MEMBERS = {"a.png": picture(), "b.png": picture(9, 9), "a.json": b'{"a": [1, "x"]}', "a.csv": b"n,s\n1,x\n,y\n", "a.txt": b"text"}


@pytest.fixture
def output(tmp_path: Path) -> Path:
    h5dat_lib.ingest(make_zip(tmp_path / "a.zip", MEMBERS), tmp_path / "out.h5", config())
    return tmp_path / "out.h5"


def test_a_file_says_what_it_is_and_has_paged_file_space(output: Path) -> None:
    with h5py.File(output) as file:
        assert (file.attrs["format"], file.attrs["format_version"]) == ("h5dat", 1)
        assert file.id.get_create_plist().get_file_space_strategy()[:2] == (h5py.h5f.FSPACE_STRATEGY_PAGE, True)


def test_every_dataset_grows_along_its_first_axis_and_has_a_checksum_a_chunk(output: Path) -> None:
    with h5py.File(output) as file:
        datasets: list[str] = []
        file.visititems(lambda name, item: datasets.append(name) if isinstance(item, h5py.Dataset) else None)
        for name in datasets:
            dataset = file[name]
            assert dataset.maxshape[0] is None and all(dataset.maxshape[1:]), name
            assert dataset.dtype.kind != "O", f"{name} is of variable length"
            if not name.startswith("lineage/checksums"):
                assert len(file[f"lineage/checksums/{name}"]) == dataset.id.get_num_chunks(), name


def test_every_column_of_a_table_has_its_rows(output: Path) -> None:
    with h5py.File(output) as file:
        tables = [*[name for name in file if name != "lineage"], "documents/_pairs", "documents/_keys"]
        tables += [f"lineage/{name}" for name in ("archives", "runs", "batches", "members")]
        for name in tables:
            for link in file[name].attrs["columns"]:
                parts = _parts_with_rows(file[name][link])
                assert {len(part) for part in parts} == {file[name].attrs["rows"]}, f"{name}/{link}"


def _parts_with_rows(column: h5py.Dataset | h5py.Group) -> list[h5py.Dataset]:
    """The datasets of a column that have a value a row: all but the bytes of text and of ragged pictures."""
    if isinstance(column, h5py.Dataset):
        return [column]
    return [column[part] for part in column if part != "values" or "offset" not in column]


def test_nothing_is_asked_for_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """HDF5's complaint about it comes out as a UnicodeDecodeError when Python's garbage collector closes another object meanwhile."""

    def get(found: h5py.Group | h5py.AttributeManager, name: str) -> object:
        assert name in found
        return found[name]

    monkeypatch.setattr(h5py.Group, "get", get)
    monkeypatch.setattr(h5py.AttributeManager, "get", get)
    archive, output = make_zip(tmp_path / "a.zip", MEMBERS), tmp_path / "out.h5"
    for more in ({}, {"more.csv": b"n,s,day\n2,x,2020-01-01\n"}):
        h5dat_lib.ingest(make_zip(archive, MEMBERS | more), output, config())
    with h5dat_lib.open(output) as file:
        assert file.describe()["members"] == 2 * len(MEMBERS) + 1


@pytest.mark.skipif(shutil.which("h5dump") is None, reason="HDF5's own tools are not installed")
def test_hdf5s_own_tools_read_every_value(output: Path) -> None:
    ran = subprocess.run(["h5dump", str(output)], capture_output=True, text=True, check=False)
    assert ran.returncode == 0 and ran.stderr == ""
    assert '"y' in ran.stdout
