"""What the tests of syncing share: files of noise, and what is left in a bucket."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.conftest import Bucket

MIB = 1 << 20
ROOT = Path(__file__).parents[2]


def noise(size: int, seed: int = 0) -> bytes:
    """Bytes that do not deflate."""
    return np.random.default_rng(seed).bytes(size)


def make_file(path: Path, mebibytes: int, seed: int = 0) -> Path:
    """An HDF5 file of noise, whose dataset can be overwritten in place."""
    with h5py.File(path, "w", libver=("v110", "v110")) as file:
        file["noise"] = np.frombuffer(noise(mebibytes * MIB, seed), "u1")
    return path


def overwrite(path: Path, at: int, data: bytes = b"changed") -> None:
    """Writes into the middle of a file."""
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


def uploads(bucket: Bucket) -> list[str]:
    """Keys of the uploads in parts that have not ended."""
    return [upload["Key"] for upload in bucket.client.list_multipart_uploads(Bucket=bucket.name).get("Uploads", ())]


def start(*words: object) -> subprocess.Popen[bytes]:
    """The command line in a process of its own, which can be killed."""
    command = [sys.executable, "-m", "flows.cli", *map(str, words)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets for how many seconds a store may be away."""
    return lambda seconds: monkeypatch.setattr("h5dat_lib.sync.persistence._AWAY_SECONDS", seconds)
