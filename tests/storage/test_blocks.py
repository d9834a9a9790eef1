"""A file object of blocks: what it gives, what it asks for, and that HDF5 may be interrupted between seek and read."""

from __future__ import annotations

import io
import json
import multiprocessing
import pickle
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import pytest

import h5dat_lib
from h5dat_lib.errors import InputError
from h5dat_lib.storage import BlockFile, aws, s3
from tests.conftest import Bucket, Ran, config, make_folder, picture
from tests.faulty_proxy import Fault, FaultyProxy

DATA = random.Random(3).randbytes((3 << 20) + 5)


def _read(file: BlockFile, start: int, size: int) -> bytes:
    buffer = bytearray(size)
    file.seek(start)
    return bytes(buffer[: file.readinto(memoryview(buffer))])


def test_every_range_is_what_the_object_holds(bucket: Bucket) -> None:
    noise = random.Random(4)
    with BlockFile(bucket.put("a", DATA)) as file:
        for start, size in [(0, 1), (len(DATA) - 3, 10), (len(DATA), 1), ((1 << 20) - 1, 2), (0, len(DATA))] + [
            (noise.randrange(len(DATA)), noise.randrange(3 << 20)) for _ in range(30)
        ]:
            assert _read(file, start, size) == DATA[start : start + size]
        assert file.seek(0, io.SEEK_END) == len(DATA)


def test_neighbouring_blocks_are_one_request_and_are_fetched_once(bucket: Bucket) -> None:
    with BlockFile(bucket.put("a", DATA)) as file:
        assert file.requests == 1
        _read(file, 100, len(DATA))
        _read(file, 5, len(DATA))
        assert file.requests == 2
    assert aws.requests["bytes in"] == len(DATA)


def test_no_more_blocks_are_kept_than_may_be(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("h5dat_lib.storage.blocks._KEPT", 2)
    with BlockFile(bucket.put("a", DATA)) as file:
        assert _read(file, 0, len(DATA)) == DATA
        assert len(file._blocks) == 2


def test_a_seek_and_a_read_in_between_do_not_lead_a_read_elsewhere(bucket: Bucket) -> None:
    with BlockFile(bucket.put("a", DATA)) as file:
        file.seek(1000)
        assert _read(file, 5, 10) == DATA[5:15]  # as when a garbage collection closes a dataset
        buffer = bytearray(10)
        file.readinto(memoryview(buffer))
        assert buffer == DATA[1000:1010]


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Several classes, and some hundred batches."""
    folder = tmp_path_factory.mktemp("output")
    members = {f"{n:03}/a.png": picture(96, 64, seed=n) for n in range(200)} | {f"{n:03}/a.csv": b"a,b\n1,2\n" for n in range(100)}
    members |= {f"{n:03}/a.json": json.dumps({"n": n}).encode() for n in range(100)} | {f"{n:03}/a.txt": b"text" for n in range(100)}
    members |= {f"{n:03}/b.jpg": b"no picture" for n in range(20)}
    make_folder(folder / "in", members)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("h5dat_lib.plan.batches._FLOOR", 0.0)
        patch.setattr("h5dat_lib.plan.batches._SPREAD", 10_000)
        report = h5dat_lib.ingest(folder / "in", folder / "out.h5", config(batch_seconds=0.002, commit_seconds=600))
    assert report.batches > 200
    return folder / "out.h5"


def test_opening_an_output_in_s3_and_reading_a_picture_takes_few_requests(bucket: Bucket, output: Path) -> None:
    bucket.client.upload_file(str(output), bucket.name, "out.h5")
    with h5dat_lib.open(bucket.uri("out.h5")) as file, h5dat_lib.open(output) as local:
        assert (file["images"].pixels[150] == local["images"].pixels[150]).all()
        assert file.requests <= 10
        found, expected = file.describe(), local.describe()
        assert found.pop("path") == bucket.uri("out.h5") and expected.pop("path") == str(output)
        assert found == expected
        assert list(file.rejects()) == list(local.rejects())
        assert file["images"].origin(7) == local["images"].origin(7)


def test_an_output_in_s3_is_listed_and_verified_by_the_same_commands(bucket: Bucket, output: Path, h5dat: Callable[..., Ran]) -> None:
    bucket.client.upload_file(str(output), bucket.name, "out.h5")
    for command in ("ls", "rejects", "verify"):
        remote, local = h5dat(command, bucket.uri("out.h5"), "--json"), h5dat(command, output, "--json")
        assert remote.code == 0
        assert remote.out.replace(bucket.uri("out.h5"), "F") == local.out.replace(str(output), "F")
    assert bucket.uri("out.h5") in h5dat("ls", bucket.uri("out.h5")).out


def test_what_is_no_output_of_ours_is_said_in_one_line(bucket: Bucket, h5dat: Callable[..., Ran]) -> None:
    empty = io.BytesIO()
    h5py.File(empty, "w").close()
    for key, body, says in (
        ("a", b"no HDF5", "cannot be opened as HDF5"),
        ("b", b"", "HDF5"),
        ("c", empty.getvalue(), "without H5DAT's mark"),
    ):
        ran = h5dat("ls", bucket.put(key, body))
        assert (ran.code, ran.err.count("\n")) == (2, 1)
        assert bucket.uri(key) in ran.err and says in ran.err
    with pytest.raises(InputError, match="NoSuchKey"):
        h5dat_lib.open(bucket.uri("nothing"))


def test_an_output_that_is_replaced_or_out_of_reach_while_it_is_read_is_an_error(
    bucket: Bucket, output: Path, faulty: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "_FIRST_WAIT", 0.001)
    monkeypatch.setattr("h5dat_lib.storage.blocks._KEPT", 2)
    bucket.client.upload_file(str(output), bucket.name, "out.h5")
    with h5dat_lib.open(bucket.uri("out.h5")) as file:
        faulty.will(Fault(status=403, code="AccessDenied"))
        with pytest.raises(InputError, match="AccessDenied"):
            list(file["images"].pixels[:])
        bucket.put("out.h5", b"another")
        with pytest.raises(InputError, match="replaced since"):
            list(file["images"].pixels[:])


def test_a_file_of_hdf5_without_our_pages_is_read_too(bucket: Bucket) -> None:
    plain = io.BytesIO()
    with h5py.File(plain, "w") as file:
        file["a"] = range(1000)
    with BlockFile(bucket.put("a", plain.getvalue())) as blocks, h5py.File(blocks, "r") as file:
        assert file["a"][999] == 999
    with h5dat_lib.open(bucket.uri("a")) as opened:
        assert (opened.classes, opened.hdf5["a"][5]) == ((), 5)


def test_blocks_that_are_read_in_order_come_several_at_a_time(bucket: Bucket) -> None:
    data = DATA * 8
    with BlockFile(bucket.put("a", data)) as file:
        assert b"".join(_read(file, at, 1 << 18) for at in range(0, len(data), 1 << 18)) == data
        assert file.requests <= 6
    assert aws.requests["bytes in"] == len(data)


def test_a_file_in_s3_is_opened_anew_in_a_child_and_from_a_pickle(bucket: Bucket, output: Path) -> None:
    bucket.client.upload_file(str(output), bucket.name, "out.h5")
    with h5dat_lib.open(bucket.uri("out.h5")) as file, multiprocessing.get_context("fork").Pool(1) as pool:
        pixels = file["images"].pixels
        assert pool.apply(_sum, (pixels, 5)) == int(pixels[5].sum())
        with pickle.loads(pickle.dumps(file)) as again:
            assert (again["images"].pixels[5] == pixels[5]).all()


def _sum(pixels: Any, row: int) -> int:
    return int(pixels[row].sum())
