"""The mark is HDF5's own: HDF5 refuses a file that bears it, and no part of a superblock passes for a whole one."""

from __future__ import annotations

from pathlib import Path
from random import Random

import h5py
import pytest

from h5dat_lib.superblock import SUPERBLOCK_BYTES, is_whole, marked


@pytest.fixture(params=["v110", "v108", "earliest"])
def hdf5(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A file with a superblock of version 3, 2 and 0."""
    path = tmp_path / "a.h5"
    with h5py.File(path, "w", libver=(request.param, "v110")) as file:
        file["x"] = range(100)
    return path


def _mark(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(marked(data) + data[SUPERBLOCK_BYTES:])


def test_a_file_of_hdf5s_making_is_whole(hdf5: Path) -> None:
    assert is_whole(hdf5.read_bytes())


def test_hdf5_refuses_a_marked_file_and_opens_it_without_the_mark(hdf5: Path) -> None:
    data = hdf5.read_bytes()
    _mark(hdf5)
    assert not is_whole(hdf5.read_bytes())
    with pytest.raises(OSError, match="Unable to synchronously open file"):
        h5py.File(hdf5)
    hdf5.write_bytes(data)
    with h5py.File(hdf5) as file:
        assert file["x"][:].tolist() == [*range(100)]


def test_the_mark_is_the_one_that_hdf5_itself_sets_while_it_writes(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w", libver=("v110", "v110")) as file:
        file.flush()
        being_written = path.read_bytes()[:SUPERBLOCK_BYTES]
    assert not is_whole(being_written)
    assert marked(being_written) == being_written  # flags and checksum are HDF5's


def test_marking_twice_is_marking_once(hdf5: Path) -> None:
    data = hdf5.read_bytes()
    assert marked(marked(data) + data[SUPERBLOCK_BYTES:]) == marked(data)


@pytest.mark.parametrize("before", ["zeros", "marked"])
def test_a_superblock_of_version_3_of_which_a_part_arrived_is_not_whole(tmp_path: Path, before: str) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w", libver=("v110", "v110")) as file:
        file["x"] = range(100)
    after = path.read_bytes()[:SUPERBLOCK_BYTES]
    old = bytes(SUPERBLOCK_BYTES) if before == "zeros" else marked(after)
    torn = [after[:size] + old[size:] for size in range(SUPERBLOCK_BYTES)] + [
        old[:size] + after[size:] for size in range(1, SUPERBLOCK_BYTES)
    ]
    assert [image for image in torn if image != after and is_whole(image)] == []


@pytest.mark.parametrize("data", [b"", b"\x89HDF", b"\x89HDF\r\n\x1a\n\x03", b"PK\x03\x04" + bytes(100), bytes(100)])
def test_what_is_not_hdf5_is_not_whole(data: bytes) -> None:
    assert not is_whole(data)


def test_a_changed_bit_of_a_superblock_of_version_3_is_found(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w", libver=("v110", "v110")):
        pass
    head = bytearray((tmp_path / "a.h5").read_bytes()[:SUPERBLOCK_BYTES])
    random = Random(1)
    for _ in range(200):
        at, bit = random.randrange(9, SUPERBLOCK_BYTES), 1 << random.randrange(8)
        head[at] ^= bit
        assert not is_whole(bytes(head))
        head[at] ^= bit
