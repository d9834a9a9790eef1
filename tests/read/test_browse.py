"""Any HDF5 file can be looked through: names, shapes, attributes; no link out of it is followed."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

import h5dat_lib
from h5dat_lib.errors import FormatError, UnknownName


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["secret"] = 1
    with h5py.File(tmp_path / "foreign.h5", "w") as file:
        file.attrs["title"] = "shop"
        file["shop/shirt 1"] = np.zeros((3, 4), "f4")
        file.create_dataset("shop/Shirt 2", (10,), h5py.string_dtype(), chunks=(5,))
        file["shop/shoe"] = np.dtype("i4")
        file["shop"].attrs.update({"sizes": np.arange(3), "name": "x", "empty": h5py.Empty("f4"), "file": file.ref})
        file["shop/loop"] = file["shop"]
        file["soft"] = h5py.SoftLink("/shop")
        file["shirt out"] = h5py.ExternalLink("other.h5", "/secret")
    return tmp_path / "foreign.h5"


def test_a_file_of_another_make_is_looked_through(foreign: Path) -> None:
    with h5dat_lib.open(foreign) as file:
        assert file.classes == () and file.groups() == ["shop", "shop/loop"]
        assert [(info.path, info.shape, info.dtype, info.chunks) for info in file.datasets()] == [
            ("shop/Shirt 2", (10,), "object", (5,)),
            ("shop/shirt 1", (3, 4), "float32", None),
        ]
        assert file.find("shirt*") == ["shirt out", "shop/Shirt 2", "shop/shirt 1"]
        assert file.find("shop/s*") == ["shop/Shirt 2", "shop/shirt 1", "shop/shoe"] and file.find("nothing") == []
        assert file.attrs() == {"title": "shop"}
        attributes = file.attrs("shop")
        assert attributes["sizes"] == [0, 1, 2] and attributes["name"] == "x" and isinstance(attributes["file"], str)
        with pytest.raises(FormatError, match=r"without H5DAT's mark.*look through it with groups"):
            file["shop"]


def test_links_are_not_followed(foreign: Path) -> None:
    with h5dat_lib.open(foreign) as file:
        for path in ("soft", "soft/shoe", "shirt out"):
            with pytest.raises(FormatError, match="links are not followed"):
                file.attrs(path)
        with pytest.raises(UnknownName, match=r"no 'shp'; it has .*did you mean 'shop'"):
            file.attrs("shp")
        with pytest.raises(UnknownName, match="no 'x'"):
            file.attrs("shop/shirt 1/x")


def test_groups_without_end_are_an_error(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "deep.h5", "w") as file:
        file["/".join("abcd" * 20)] = 1
    with h5dat_lib.open(tmp_path / "deep.h5") as opened, pytest.raises(FormatError, match="32 levels"):
        opened.groups()


def test_damaged_groups_are_an_error(foreign: Path) -> None:
    raw = foreign.read_bytes().replace(b"SNOD", b"XXXX").replace(b"OHDR", b"XXXX").replace(b"TREE", b"XXXX")
    foreign.write_bytes(raw)
    with pytest.raises(FormatError), h5dat_lib.open(foreign) as file:
        file.groups()
