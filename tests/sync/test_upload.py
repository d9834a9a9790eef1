"""Uploads that meet stores which can less, answers that go lost, and others who write the same object."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from h5dat_lib.config import S3Options
from h5dat_lib.errors import OutputError
from h5dat_lib.storage import aws
from h5dat_lib.sync import pull, sync
from tests.conftest import Bucket
from tests.faulty_proxy import Fault, FaultyProxy
from tests.sync.conftest import MIB, make_file, overwrite, uploads


@pytest.fixture
def synced(bucket: Bucket, faulty: FaultyProxy, tmp_path: Path) -> Path:
    """A file that is in the bucket, and has changed since."""
    path = make_file(tmp_path / "a.h5", 24)
    sync(path, bucket.uri("a.h5"))
    overwrite(path, 12 * MIB)
    return path


@pytest.mark.parametrize(
    ("fault", "without", "sent"),
    [
        (Fault("PUT", "partNumber=1", status=501, code="NotImplemented"), "copies of parts", 5),
        (Fault("POST", "?uploads", status=400, code="InvalidRequest"), "checksums of whole objects", 24),
        (Fault("POST", "uploadId=", status=400, code="BadDigest"), "checksums of whole objects", 24),
        (Fault("POST", "uploadId=", status=501, code="NotImplemented"), "conditional writes", 5),
    ],
    ids=["no copies", "no whole checksums", "whole checksums that are wrong", "no conditions"],
)
def test_what_a_store_cannot_do_is_done_in_another_way_and_said(
    bucket: Bucket, faulty: FaultyProxy, synced: Path, fault: Fault, without: str, sent: int
) -> None:
    faulty.will(replace(fault))
    took = sync(synced, bucket.uri("a.h5"))
    assert bucket.get("a.h5") == synced.read_bytes()
    assert [line.partition(":")[0] for line in took.without] == [without]
    assert took.sent >= sent * MIB
    assert uploads(bucket) == []


def test_a_small_file_is_replaced_without_conditions_where_there_are_none(bucket: Bucket, faulty: FaultyProxy, tmp_path: Path) -> None:
    path = make_file(tmp_path / "a.h5", 1)
    faulty.will(Fault("PUT", "a.h5", status=501, code="NotImplemented"))
    assert sync(path, bucket.uri("a.h5")).without
    assert bucket.get("a.h5") == path.read_bytes()


@pytest.mark.parametrize("mebibytes", [1, 24])
def test_an_answer_that_goes_lost_is_no_failure(bucket: Bucket, faulty: FaultyProxy, tmp_path: Path, mebibytes: int) -> None:
    path = make_file(tmp_path / "a.h5", mebibytes)
    last = ("POST", "uploadId=") if mebibytes > 10 else ("PUT", "a.h5")
    faulty.will(Fault(*last, status=500, code="InternalError", reaches=True))
    assert sync(path, bucket.uri("a.h5")).times == 1
    assert bucket.get("a.h5") == path.read_bytes()
    assert sync(path, bucket.uri("a.h5")).sent == 0
    assert uploads(bucket) == []


@pytest.mark.parametrize("mebibytes", [1, 24])
def test_what_another_has_written_in_between_is_not_replaced(bucket: Bucket, faulty: FaultyProxy, tmp_path: Path, mebibytes: int) -> None:
    path, uri = make_file(tmp_path / "a.h5", mebibytes), bucket.uri("a.h5")
    sync(path, uri)
    overwrite(path, MIB // 2)
    faulty.will(Fault("PUT", "a.h5", seconds=1))
    failures: list[OutputError] = []

    def attempt() -> None:
        try:
            sync(path, uri)
        except OutputError as exc:
            failures.append(exc)

    seen = len(faulty.requests)
    thread = threading.Thread(target=attempt)
    thread.start()
    while not any(method == "PUT" for method, _ in faulty.requests[seen:]):
        thread.join(0.01)
    bucket.put("a.h5", b"another's")
    thread.join()
    assert "replaced since" in str(failures[0])
    assert bucket.get("a.h5") == b"another's"
    assert uploads(bucket) == []
    with pytest.raises(OutputError, match=r"has been replaced since .* --replace"):
        sync(path, uri)
    assert sync(path, uri, replace=True).copied == 0
    assert bucket.get("a.h5") == path.read_bytes()


def test_an_upload_that_somebody_ended_is_begun_anew(bucket: Bucket, faulty: FaultyProxy, synced: Path) -> None:
    faulty.will(Fault("POST", "uploadId=", status=404, code="NoSuchUpload"))
    assert sync(synced, bucket.uri("a.h5")).times == 1
    assert bucket.get("a.h5") == synced.read_bytes()
    assert uploads(bucket) == []


def test_what_is_refused_leaves_no_upload(bucket: Bucket, faulty: FaultyProxy, synced: Path) -> None:
    before = bucket.get("a.h5")
    faulty.will(Fault("PUT", "partNumber=2", status=403, code="AccessDenied"))
    with pytest.raises(OutputError, match="AccessDenied"):
        sync(synced, bucket.uri("a.h5"))
    assert uploads(bucket) == []
    assert bucket.get("a.h5") == before


def test_a_store_that_is_away_for_a_while_is_waited_for(bucket: Bucket, faulty: FaultyProxy, synced: Path) -> None:
    aws.use(S3Options(attempts=1))
    failures: list[BaseException] = []

    def attempt() -> None:
        try:
            sync(synced, bucket.uri("a.h5"), S3Options(attempts=1))
        except BaseException as exc:
            failures.append(exc)

    with faulty.away():
        thread = threading.Thread(target=attempt)
        thread.start()
        thread.join(1.2)
        assert thread.is_alive()
    thread.join()
    assert not failures
    assert bucket.get("a.h5") == synced.read_bytes()


def test_a_store_that_stays_away_is_said_and_the_next_sync_goes_on(
    bucket: Bucket, faulty: FaultyProxy, synced: Path, impatient: Callable[[float], None]
) -> None:
    impatient(0.3)
    faulty.will(Fault("POST", "uploadId=", times=99, after=-1))
    with pytest.raises(OutputError, match="look at the network"):
        sync(synced, bucket.uri("a.h5"), S3Options(attempts=1))
    assert uploads(bucket) == ["a.h5"]
    faulty._faults.clear()
    took = sync(synced, bucket.uri("a.h5"))
    assert (took.sent, took.copied) == (0, 0)  # all parts had arrived
    assert bucket.get("a.h5") == synced.read_bytes()
    assert uploads(bucket) == []


def test_a_pull_that_is_cut_off_takes_the_ranges_again(bucket: Bucket, faulty: FaultyProxy, tmp_path: Path) -> None:
    path = make_file(tmp_path / "a.h5", 24)
    sync(path, bucket.uri("a.h5"))
    faulty.will(Fault("GET", "a.h5", times=2, after=1000))
    pull(bucket.uri("a.h5"), tmp_path / "b.h5")
    assert (tmp_path / "b.h5").read_bytes() == path.read_bytes()
