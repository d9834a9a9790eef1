"""`kill -9` in the middle of a sync, then the same again: the object is the file, and nothing is left in the bucket."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

import h5dat_lib
from h5dat_lib.sync import sync
from tests.conftest import Bucket, make_zip
from tests.faulty_proxy import Fault, FaultyProxy
from tests.sync.conftest import MIB, make_file, noise, overwrite, start, uploads

pytestmark = pytest.mark.slow


def killed_when(process: subprocess.Popen[bytes], reached: Callable[[], bool]) -> None:
    """Kills a process, and all that it has started, as soon as something is reached."""
    while not reached():
        assert process.poll() is None, process.stderr and process.stderr.read()
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stderr:
        process.stderr.close()


@pytest.mark.parametrize("point", ["the upload has begun", "a part has arrived", "the object is replaced"])
def test_a_sync_that_is_killed_is_gone_on_with(bucket: Bucket, faulty: FaultyProxy, tmp_path: Path, point: str) -> None:
    path, uri = make_file(tmp_path / "a.h5", 24), bucket.uri("a.h5")
    sync(path, uri)
    etag = bucket.client.head_object(Bucket=bucket.name, Key="a.h5")["ETag"]
    overwrite(path, 12 * MIB)
    # the store does what it is asked, and its answer does not arrive
    fault = {"the upload has begun": "?uploads", "the object is replaced": "uploadId="}.get(point)
    faulty.will(Fault("POST", fault, after=0, seconds=20) if fault else Fault("PUT", "partNumber=2", status=503, seconds=9))
    reached = {
        "the upload has begun": lambda: bool(uploads(bucket)),
        "a part has arrived": lambda: any("partNumber=2" in path for _, path in faulty.requests),
        "the object is replaced": lambda: bucket.client.head_object(Bucket=bucket.name, Key="a.h5")["ETag"] != etag,
    }[point]
    killed_when(start("sync", path, uri), reached)
    took = sync(path, uri)
    assert took.times == (point != "the object is replaced")
    assert bucket.get("a.h5") == path.read_bytes()
    assert uploads(bucket) == []


def test_a_file_that_goes_on_after_a_kill_is_sent_in_an_upload_of_its_own(bucket: Bucket, faulty: FaultyProxy, tmp_path: Path) -> None:
    path, uri = make_file(tmp_path / "a.h5", 24), bucket.uri("a.h5")
    faulty.will(Fault("PUT", "partNumber=2", status=503, seconds=9))
    killed_when(start("sync", path, uri), lambda: any("partNumber=2" in path for _, path in faulty.requests))
    assert uploads(bucket) == ["a.h5"]
    overwrite(path, 12 * MIB)
    sync(path, uri)
    assert bucket.get("a.h5") == path.read_bytes()
    assert uploads(bucket) == []


def test_a_killed_ingest_leaves_nothing_doubled_and_nothing_behind(
    bucket: Bucket, faulty: FaultyProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("H5DAT_HOME", str(tmp_path / "home"))
    uri, config = bucket.uri("out.h5"), tmp_path / "config.json"
    settings = {"task_runner": "threads", "unknown": "bytes", "commit_seconds": 0, "batch_seconds": 0.01, "s3": {"sync_seconds": 0}}
    config.write_text(json.dumps(settings))
    archive = make_zip(tmp_path / "a.zip", {f"{n}.bin": noise(2 * MIB, n) for n in range(9)}, zipfile.ZIP_STORED)
    words = ("ingest", archive, "-o", uri, "-c", config, "--direct", "--quiet")
    for match in ("partNumber=2", "uploadId="):
        faulty.will(Fault("", match, status=503, seconds=9))
        seen = len(faulty.requests)
        killed_when(start(*words), lambda seen=seen, match=match: any(match in path for _, path in faulty.requests[seen:]))
        faulty._faults.clear()
    process = start(*words)
    assert process.communicate()[1] == b"" and process.returncode == 0
    [working_copy] = (tmp_path / "home").rglob("out.h5")
    assert bucket.get("out.h5") == working_copy.read_bytes()
    assert uploads(bucket) == []
    with h5dat_lib.open(working_copy) as file:
        table = file["files"]
        assert [table.origin(row).member for row in range(len(table))] == [f"{n}.bin" for n in range(9)]
