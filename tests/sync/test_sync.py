from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from h5dat_lib.sync import pull, sync
from tests.conftest import Bucket

MIB = 1 << 20


def make_file(path: Path, mebibytes: int, seed: int = 0) -> Path:
    """An HDF5 file of noise, with a contiguous dataset that can be overwritten in place."""
    with h5py.File(path, "w", libver=("v110", "v110")) as file:
        file["noise"] = np.frombuffer(np.random.default_rng(seed).bytes(mebibytes * MIB), "u1")
    return path


def overwrite(path: Path, at: int, data: bytes = b"changed") -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


def uploads(bucket: Bucket) -> list[str]:
    return [upload["Key"] for upload in bucket.client.list_multipart_uploads(Bucket=bucket.name).get("Uploads", ())]


@pytest.mark.parametrize("mebibytes", [1, 12])
def test_a_file_becomes_an_object_and_a_file_again(bucket: Bucket, tmp_path: Path, mebibytes: int) -> None:
    path, uri = make_file(tmp_path / "a.h5", mebibytes), bucket.uri("folder/a.h5")
    took = sync(path, uri)
    assert bucket.get("folder/a.h5") == path.read_bytes()
    assert took.sent == path.stat().st_size and took.times == 1 and not took.without
    assert pull(uri, tmp_path / "b.h5").received == took.sent
    assert (tmp_path / "b.h5").read_bytes() == path.read_bytes()
    assert uploads(bucket) == []


def test_only_what_has_changed_is_sent(bucket: Bucket, tmp_path: Path) -> None:
    path, uri = make_file(tmp_path / "a.h5", 60), bucket.uri("a.h5")
    sync(path, uri)
    overwrite(path, 30 * MIB + 17)
    took = sync(path, uri)
    assert bucket.get("a.h5") == path.read_bytes()
    assert (took.sent, took.copied) == (5 * MIB, path.stat().st_size - 5 * MIB)
