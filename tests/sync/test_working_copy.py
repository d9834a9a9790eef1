"""Who has changed what, and what is done about it: never is anything lost."""

from __future__ import annotations

import os
from pathlib import Path

import h5py
import pytest

from h5dat_lib.config import S3Options
from h5dat_lib.errors import InputError, OutputError
from h5dat_lib.journal import JournaledFile
from h5dat_lib.lock import OutputLock
from h5dat_lib.storage import aws
from h5dat_lib.sync import difference, path_of, pull, sync
from h5dat_lib.sync.state import state_of
from tests.conftest import Bucket
from tests.sync.conftest import MIB, make_file, overwrite, uploads


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


def test_what_has_not_changed_is_not_sent_and_not_read(bucket: Bucket, tmp_path: Path) -> None:
    path, uri = make_file(tmp_path / "a.h5", 12), bucket.uri("a.h5")
    sync(path, uri)
    again = sync(path, uri)
    assert (again.times, again.sent, again.copied, again.requests) == (0, 0, 0, 1)


def test_a_change_is_found_whatever_the_times_of_the_file_say(bucket: Bucket, tmp_path: Path) -> None:
    path, uri = make_file(tmp_path / "a.h5", 12), bucket.uri("a.h5")
    sync(path, uri)
    status = path.stat()
    overwrite(path, 5 * MIB)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert sync(path, uri).times == 1
    assert bucket.get("a.h5") == path.read_bytes()


def test_without_what_was_known_an_equal_object_is_still_recognised(bucket: Bucket, tmp_path: Path) -> None:
    path, uri = make_file(tmp_path / "a.h5", 12), bucket.uri("a.h5")
    sync(path, uri)
    state_of(path, uri).unlink()
    assert sync(path, uri).sent == 0
    overwrite(path, 5 * MIB)
    assert sync(path, uri).copied > 0


def test_an_object_that_is_not_known_is_not_replaced_unless_one_says_so(bucket: Bucket, tmp_path: Path) -> None:
    path, uri = make_file(tmp_path / "a.h5", 1), bucket.put("a.h5", b"another's")
    with pytest.raises(OutputError, match=r"`h5dat pull --replace .* `h5dat sync --replace"):
        sync(path, uri)
    assert bucket.get("a.h5") == b"another's"
    sync(path, uri, replace=True)
    assert bucket.get("a.h5") == path.read_bytes()


def test_a_pull_brings_what_another_machine_has_synced(bucket: Bucket, tmp_path: Path) -> None:
    here, there, uri = make_file(tmp_path / "here.h5", 12), tmp_path / "there.h5", bucket.uri("a.h5")
    sync(here, uri)
    pull(uri, there)
    overwrite(there, 6 * MIB)
    assert sync(there, uri).copied > 0
    pull(uri, here)
    assert here.read_bytes() == there.read_bytes()
    assert pull(uri, here).received == 0


def test_when_both_have_changed_nothing_is_lost(bucket: Bucket, tmp_path: Path) -> None:
    here, there, uri = make_file(tmp_path / "here.h5", 2), tmp_path / "there.h5", bucket.uri("a.h5")
    sync(here, uri)
    pull(uri, there)
    for path, data in ((here, b"here"), (there, b"there")):
        overwrite(path, MIB, data)
    sync(there, uri)
    kept = here.read_bytes()
    for attempt in (lambda: sync(here, uri), lambda: pull(uri, here)):
        with pytest.raises(OutputError, match="has changes of its own"):
            attempt()
    assert here.read_bytes() == kept
    assert bucket.get("a.h5") == there.read_bytes()
    pull(uri, here, replace=True)
    assert here.read_bytes() == there.read_bytes()


def test_an_object_that_was_deleted_is_asked_about(bucket: Bucket, tmp_path: Path) -> None:
    path, uri = make_file(tmp_path / "a.h5", 1), bucket.uri("a.h5")
    sync(path, uri)
    bucket.client.delete_object(Bucket=bucket.name, Key="a.h5")
    with pytest.raises(OutputError, match="found no object, expected the one"):
        sync(path, uri)
    sync(path, uri, replace=True)
    assert bucket.get("a.h5") == path.read_bytes()


def test_a_pull_of_nothing_says_so(bucket: Bucket, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="found nothing there, expected an object"):
        pull(bucket.uri("a.h5"), tmp_path / "a.h5")


def test_other_bytes_than_were_written_are_refused(bucket: Bucket, tmp_path: Path) -> None:
    path, uri = make_file(tmp_path / "a.h5", 1), bucket.uri("a.h5")
    sync(path, uri)
    metadata = bucket.client.head_object(Bucket=bucket.name, Key="a.h5")["Metadata"]
    bucket.client.put_object(Bucket=bucket.name, Key="a.h5", Body=b"other bytes", Metadata=metadata)
    with pytest.raises(OutputError, match="found other bytes than its checksum says"):
        pull(uri, tmp_path / "b.h5")
    assert sorted(each.name for each in tmp_path.iterdir() if "b.h5" in each.name) == []


@pytest.mark.parametrize("checksum", ["by its name", "by the store", "by reading it"])
def test_a_difference_is_found(bucket: Bucket, tmp_path: Path, checksum: str) -> None:
    path, uri = make_file(tmp_path / "a.h5", 12), bucket.uri("a.h5")
    words = {"by the store": {"ChecksumAlgorithm": "CRC32"}, "by reading it": {"ChecksumAlgorithm": "SHA256"}}
    if checksum == "by its name":
        sync(path, uri)
    else:
        bucket.client.put_object(Bucket=bucket.name, Key="a.h5", Body=path.read_bytes(), **words[checksum])
    aws.requests.clear()
    assert difference(path, uri) == ""
    assert ("GetObject" in aws.requests) == (checksum == "by reading it")
    overwrite(path, 3 * MIB)
    assert difference(path, uri) == "the object has other bytes than the file"
    with path.open("ab") as file:
        file.write(b"more")
    assert "bytes, the file" in difference(path, uri)
    bucket.client.delete_object(Bucket=bucket.name, Key="a.h5")
    assert difference(path, uri) == "found no object"


def test_a_file_that_is_being_written_is_not_synced(bucket: Bucket, tmp_path: Path) -> None:
    path, uri = make_file(tmp_path / "a.h5", 1), bucket.uri("a.h5")
    with OutputLock(path), pytest.raises(OutputError, match="another ingest is writing it"):
        sync(path, uri)
    with h5py.File(path, "r+"), pytest.raises(OutputError, match="is being written by another program"):
        sync(path, uri)


def test_what_a_killed_run_had_half_written_is_taken_back_first(bucket: Bucket, tmp_path: Path) -> None:
    path, uri = make_file(tmp_path / "a.h5", 1), bucket.uri("a.h5")
    whole = path.read_bytes()
    journaled = JournaledFile(path)
    journaled.seek(MIB // 2)
    journaled.write(bytes(MIB))
    journaled._write_held()
    for descriptor in (journaled._file, journaled._journal):
        os.close(descriptor)  # as a kill does
    assert path.read_bytes() != whole
    sync(path, uri)
    assert bucket.get("a.h5") == whole


def test_what_is_no_hdf5_file_is_refused(bucket: Bucket, tmp_path: Path) -> None:
    (tmp_path / "a.h5").write_bytes(b"no HDF5")
    with pytest.raises(OutputError, match="found no HDF5 file that is whole"):
        sync(tmp_path / "a.h5", bucket.uri("a.h5"))
    with pytest.raises(InputError, match="no such file"):
        sync(tmp_path / "b.h5", bucket.uri("a.h5"))


def test_each_object_has_a_place_of_its_own(tmp_path: Path) -> None:
    options = S3Options(cache_dir=tmp_path)
    uris = ["s3://b/a.h5", "s3://b/x/a.h5", "s3://b//a.h5", "s3://b/../a.h5", "s3://c/a.h5", "s3://b/a.h5/a.h5"]
    paths = {path_of(uri, options) for uri in uris}
    assert len(paths) == len(uris)
    assert all(path.name == "a.h5" and path.resolve().is_relative_to(tmp_path) and ".." not in path.parts for path in paths)


@pytest.mark.parametrize("key", ["", "folder/", "..", "a/..", "x" * 201, "a\nb"])
def test_a_key_that_names_no_file_is_refused(key: str) -> None:
    with pytest.raises(OutputError, match=r"expected one such as s3://b/output\.h5"):
        path_of(f"s3://b/{key}", S3Options())
