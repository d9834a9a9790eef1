"""Outputs in S3, by the command line."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import h5py
import pytest

from tests.conftest import Bucket, Ran, make_zip, picture

Command = Callable[..., Ran]


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("H5DAT_HOME", str(tmp_path / "home"))
    path = tmp_path / "config.json"
    path.write_text('{"task_runner": "threads", "workers": 2}')
    return path


def rows(bucket: Bucket, key: str) -> int:
    """Rows of the pictures in an object, by plain h5py."""
    with h5py.File(io.BytesIO(bucket.get(key))) as file:
        return int(file["images/pixels"].shape[0])


def test_an_output_in_s3_is_made_and_added_to(bucket: Bucket, tmp_path: Path, h5dat: Command, config: Path) -> None:
    uri = bucket.uri("out/pictures.h5")
    first = make_zip(tmp_path / "1.zip", {f"{n}.png": picture(seed=n) for n in range(5)})
    ran = h5dat("ingest", first, "-o", uri, "-c", config, "--direct", "--json")
    assert ran.code == 0, ran.err
    report = json.loads(ran.out)
    assert report["output"] == uri and report["synced"]["times"] == 1
    assert rows(bucket, "out/pictures.h5") == 5
    assert bucket.get("out/pictures.h5") == Path(report["path"]).read_bytes()
    second = make_zip(tmp_path / "2.zip", {f"{n}.png": picture(seed=n + 5) for n in range(3)})
    ran = h5dat("ingest", second, "-o", uri, "-c", config, "--direct", "--quiet")
    assert ran.code == 0, ran.err
    assert rows(bucket, "out/pictures.h5") == 8
