"""Files: what is opened and what is refused; classes, members, and errors that say what is there."""

from __future__ import annotations

from pathlib import Path

import h5py
import pytest

import h5dat_lib
from h5dat_lib.errors import FormatError, InputError
from tests.conftest import config, make_zip, picture

PICTURES = {f"{n}.png": picture(8, 6, seed=n) for n in range(4)}


def _opened(folder: Path, members: dict[str, bytes]) -> h5dat_lib.File:
    h5dat_lib.ingest(make_zip(folder / "a.zip", members), folder / "out.h5", config())
    return h5dat_lib.open(folder / "out.h5")


def test_classes_and_errors_name_what_is_there(tmp_path: Path) -> None:
    with _opened(tmp_path, PICTURES) as file:
        assert file.classes == ("images",)
        with pytest.raises(KeyError, match="no class 'image'; it has images"):
            file["image"]
        with pytest.raises(IndexError, match="row 4 of 4"):
            file["images"].pixels[4]
        with pytest.raises(IndexError, match="row -5 of 4"):
            file["images"].origin(-5)


def test_members_are_found_by_a_glob_or_a_text(tmp_path: Path) -> None:
    members = {"shop/a1.png": picture(), "shop/B2.png": picture(seed=1), "t.csv": b"n\n1\n2\n"}
    with _opened(tmp_path, members) as file:
        assert [found.member for found in file.members("*.PNG")] == ["shop/a1.png", "shop/B2.png"]
        assert [(found.table, found.row, found.rows) for found in file.members("t.c")] == [("tables", 0, 2)]
        assert [found.member for found in file.members("shop/b*")] == ["shop/B2.png"] and not list(file.members("nothing"))


def test_a_file_that_is_not_ours_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        h5dat_lib.open(tmp_path / "missing.h5")
    (tmp_path / "text.h5").write_text("no")
    with pytest.raises(FormatError, match="cannot be opened as HDF5"):
        h5dat_lib.open(tmp_path / "text.h5")
    h5py.File(tmp_path / "foreign.h5", "w").close()
    with h5dat_lib.open(tmp_path / "foreign.h5") as file:
        assert file.classes == () and "x" not in file
        for read in (lambda: file["x"], file.describe, lambda: list(file.rejects())):
            with pytest.raises(FormatError, match="without H5DAT's mark"):
                read()
    with pytest.raises(FormatError, match="without H5DAT's mark"):
        h5dat_lib.verify(tmp_path / "foreign.h5")


def test_a_newer_layout_version_is_refused(tmp_path: Path) -> None:
    _opened(tmp_path, PICTURES).close()
    with h5py.File(tmp_path / "out.h5", "r+") as file:
        file.attrs["format_version"] = 2
    with pytest.raises(FormatError, match="found layout version 2, expected at most 1"):
        h5dat_lib.open(tmp_path / "out.h5")
