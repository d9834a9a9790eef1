"""A prefix in S3 as a folder: the same members in the same order, and what is wrong with one object costs that one."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path

import pytest

import h5dat_lib
from h5dat_lib.archive import open_archive, open_reader
from h5dat_lib.config import Limits, S3Options
from h5dat_lib.errors import InputError, MemberError
from h5dat_lib.storage import aws, s3
from tests.conftest import Bucket, config, make_folder, picture
from tests.faulty_proxy import Fault, FaultyProxy

LIMITS = Limits()
FILES = {
    name: name.encode() * 10
    for name in ("b.txt", "a/z.txt", "a-b/c.txt", "a/b/c.txt", "a.txt", "a b+c%20ü.txt", "z/" + "deep/" * 20 + "x.txt")
}


@pytest.fixture
def uri(bucket: Bucket) -> str:
    for name, data in FILES.items():
        bucket.put(f"in/{name}", data)
    bucket.put("in/a/", b"")  # what consoles put for a folder
    bucket.put("in-other/x.txt", b"not below the prefix")
    return bucket.uri("in/")


def test_objects_are_the_members_of_a_folder_of_the_same_files_in_its_order(uri: str, tmp_path: Path) -> None:
    local = open_archive(make_folder(tmp_path / "in", FILES), LIMITS)
    remote = open_archive(uri, LIMITS)
    assert [(member.path, member.size) for member in remote.members()] == [(member.path, member.size) for member in local.members()]
    assert (remote.kind, remote.size) == ("folder", sum(map(len, FILES.values())))
    assert aws.requests["ListObjectsV2"] == sum(aws.requests[name] for name in aws.requests if name != "bytes in") == 1


@pytest.mark.parametrize("expected", [True, False])
def test_their_bytes_are_read_whole_and_as_streams(uri: str, expected: bool) -> None:
    members = list(open_archive(uri, LIMITS).members())
    with closing(open_reader("folder", uri)) as reader:
        if expected:
            reader.expect(members)
        for member in members[::2]:
            assert reader.read(member, 10_000) == FILES[member.path]
            with reader.open(member) as stream:
                assert stream.read() == FILES[member.path]
        assert reader.read(members[0], 3) == FILES[members[0].path][:4]


def test_small_objects_are_one_request_each(uri: str, tmp_path: Path) -> None:
    report = h5dat_lib.ingest(uri, tmp_path / "out.h5", config())
    assert (report.rows, report.rejects) == (len(FILES), 0)
    assert report.requests == 1 + len(FILES)


def test_objects_are_fetched_while_others_are_waited_for(uri: str, faulty: FaultyProxy) -> None:
    members = list(open_archive(uri, LIMITS).members())
    with closing(open_reader("folder", uri)) as reader:
        reader.expect(members)
        end = time.monotonic() + 10
        while len(faulty.requests) < 1 + len(FILES) and time.monotonic() < end:
            time.sleep(0.01)
        assert len(faulty.requests) == 1 + len(FILES)
        assert [reader.read(member, 10_000) for member in members] == [FILES[member.path] for member in members]
    assert len(faulty.requests) == 1 + len(FILES)


def test_a_prefix_that_is_in_is_listed_and_not_read(uri: str, bucket: Bucket, tmp_path: Path) -> None:
    h5dat_lib.ingest(uri, tmp_path / "out.h5", config())
    report = h5dat_lib.ingest(uri, tmp_path / "out.h5", config())
    assert (report.members, report.requests) == (0, 1)
    bucket.put("in/new.txt", b"new")
    assert h5dat_lib.ingest(uri, tmp_path / "out.h5", config(duplicates="skip")).rows == 1


def test_an_output_below_the_prefix_is_no_member(uri: str, bucket: Bucket) -> None:
    output = bucket.put("in/out.h5", b"an output")
    assert "out.h5" not in {member.path for member in open_archive(uri, LIMITS, frozenset([output])).members()}


def test_a_whole_bucket_is_a_folder(uri: str, bucket: Bucket) -> None:
    for whole in (f"s3://{bucket.name}", f"s3://{bucket.name}/"):
        assert {member.path for member in open_archive(whole, LIMITS).members()} == {f"in/{name}" for name in FILES} | {"in-other/x.txt"}


def test_a_prefix_without_objects_and_a_bucket_that_is_not_there_are_refused(bucket: Bucket, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="found no members, expected at least one"):
        h5dat_lib.ingest(bucket.uri("nothing/"), tmp_path / "out.h5", config())
    with pytest.raises(InputError, match="s3://no-such-bucket-of-ours/in/: found NoSuchBucket"):
        open_archive("s3://no-such-bucket-of-ours/in/", LIMITS)


def test_an_object_that_is_replaced_gone_or_frozen_costs_its_member(uri: str, faulty: FaultyProxy, bucket: Bucket) -> None:
    members = {member.path: member for member in open_archive(uri, LIMITS).members()}
    bucket.put("in/b.txt", b"other bytes")
    bucket.client.delete_object(Bucket=bucket.name, Key="in/a.txt")
    faulty.will(Fault(match="z.txt", status=403, code="InvalidObjectState"))
    with closing(open_reader("folder", uri)) as reader:
        for path, says in (("b.txt", "replaced since"), ("a.txt", "NoSuchKey"), ("a/z.txt", "restore it from Glacier")):
            with pytest.raises(MemberError, match=says):
                reader.read(members[path], 10_000)
        with pytest.raises(MemberError, match="replaced since"), reader.open(members["b.txt"]) as stream:
            stream.read()


def test_a_store_that_is_away_ends_the_run_and_not_the_members(
    uri: str, faulty: FaultyProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0.001)
    monkeypatch.setattr(s3, "_FIRST_WAIT", 0.001)
    aws.use(S3Options(attempts=2))
    members = list(open_archive(uri, LIMITS).members())
    with closing(open_reader("folder", uri)) as reader, faulty.away(), pytest.raises(InputError, match="look at the network"):
        reader.read(members[0], 10_000)


def test_pictures_below_a_prefix_give_the_rows_of_a_folder(bucket: Bucket, tmp_path: Path) -> None:
    files = {f"{n % 3}/{n}.png": picture(seed=n) for n in range(12)}
    for name, data in files.items():
        bucket.put(f"in/{name}", data)
    h5dat_lib.ingest(bucket.uri("in/"), tmp_path / "remote.h5", config())
    h5dat_lib.ingest(make_folder(tmp_path / "in", files), tmp_path / "local.h5", config())
    with h5dat_lib.open(tmp_path / "remote.h5") as remote, h5dat_lib.open(tmp_path / "local.h5") as local:
        assert (remote["images"].pixels[:] == local["images"].pixels[:]).all()
        assert remote["images"].origin(5).member == local["images"].origin(5).member
        assert remote.archives()[0]["uri"] == bucket.uri("in/")
