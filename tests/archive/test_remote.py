"""Archives in S3 give what their local copies give, by few requests and hardly more bytes than they have."""

from __future__ import annotations

import bz2
import gzip
import json
import random
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest

import h5dat_lib
from h5dat_lib.archive import open_archive
from h5dat_lib.config import Limits
from h5dat_lib.errors import InputError
from h5dat_lib.pipeline import Ingest, Report
from h5dat_lib.plan.batches import summarise
from h5dat_lib.stage.workers import direct_workers
from h5dat_lib.storage import aws, s3
from tests.conftest import Bucket, Ran, config, make_tar, make_zip, picture
from tests.faulty_proxy import Fault, FaultyProxy
from tests.servers import ACCESS, SECRET

MEMBERS = {f"pictures/{n:03}.png": picture(16, 16, seed=n) for n in range(20)} | {
    f"styles/{n:03}.json": json.dumps({"n": n, "name": "x" * n}).encode() for n in range(20)
}
MAKERS: dict[str, Callable[[Path], Any]] = {
    "a.zip": lambda path: make_zip(path, MEMBERS),
    "a.tar": lambda path: make_tar(path, MEMBERS, "w"),
    "a.tar.gz": lambda path: make_tar(path, MEMBERS, "w:gz"),
    "a.tar.bz2": lambda path: make_tar(path, MEMBERS, "w:bz2"),
    "a.csv": lambda path: path.write_text("a,b\n" + "1,x\n" * 3000),
    "a.csv.gz": lambda path: path.write_bytes(gzip.compress(b"a,b\n" + b"1,x\n" * 3000)),
    "a.txt.bz2": lambda path: path.write_bytes(bz2.compress(b"text\n" * 3000)),
    "a.jsonl": lambda path: path.write_bytes(b'{"a": 1}\n' * 3000),
}


def _rows(output: Path) -> Any:
    """Every row of an output, with what it came from but for where that lay."""
    with h5dat_lib.open(output) as file:
        tables = {name: (file[name].rows_as_dicts(), len(file[name])) for name in file.tables}
        origins = {name: [asdict(file[name].origin(row)) for row in (0, len(file[name]) - 1)] for name in file.tables}
    for found in (origin for both in origins.values() for origin in both):
        for key in ("archive", "run", "time"):
            found.pop(key)
    return repr(tables), origins


@pytest.mark.parametrize("name", MAKERS)
def test_an_archive_in_s3_gives_what_its_local_copy_gives(tmp_path: Path, bucket: Bucket, name: str) -> None:
    path = tmp_path / name
    MAKERS[name](path)
    uri = bucket.put(f"landing/{name}", path.read_bytes())
    report = h5dat_lib.ingest(uri, tmp_path / "remote.h5", config())
    h5dat_lib.ingest(path, tmp_path / "local.h5", config())
    assert _rows(tmp_path / "remote.h5") == _rows(tmp_path / "local.h5")
    with h5dat_lib.open(tmp_path / "remote.h5") as file:
        assert file.archives()[0]["uri"] == uri
    assert report.requests <= 12
    assert path.stat().st_size <= report.received


def test_a_zip_in_s3_is_the_same_archive_as_its_local_copy(tmp_path: Path, bucket: Bucket) -> None:
    path = make_zip(tmp_path / "a.zip", MEMBERS)
    uri = bucket.put("a.zip", path.read_bytes())
    assert open_archive(uri, Limits()).fingerprint() == open_archive(path, Limits()).fingerprint()
    h5dat_lib.ingest(path, tmp_path / "out.h5", config())
    report = h5dat_lib.ingest(uri, tmp_path / "out.h5", config())
    assert (report.members, report.skipped) == (0, 40)
    assert report.requests <= 4


def test_any_archive_that_is_in_is_not_fetched_again(tmp_path: Path, bucket: Bucket) -> None:
    for name in ("a.tar", "a.tar.gz", "a.csv"):
        MAKERS[name](tmp_path / name)
        uri = bucket.put(name, (tmp_path / name).read_bytes())
        h5dat_lib.ingest(uri, tmp_path / f"{name}.h5", config())
        copy = bucket.put(f"copy of {name}", (tmp_path / name).read_bytes())
        for again in (uri, copy):
            report = h5dat_lib.ingest(again, tmp_path / f"{name}.h5", config())
            assert (report.members, report.requests) == (0, 1)


@dataclass(frozen=True)
class Large:
    """A zip of many small members, in S3."""

    path: Path
    uri: str

    def ingested(self, **settings: object) -> Report:
        return h5dat_lib.ingest(self.uri, self.path.with_suffix(".h5"), config(**settings))


@pytest.fixture
def large(tmp_path: Path, bucket: Bucket) -> Large:
    noise = random.Random(1)
    path = make_zip(tmp_path / "large.zip", {f"{n // 100:02}/{n:05}.txt": noise.randbytes(900).hex().encode() for n in range(5000)})
    bucket.client.upload_file(str(path), bucket.name, "large.zip")
    return Large(path, bucket.uri("large.zip"))


def test_a_zip_of_many_members_costs_few_requests_and_hardly_more_bytes_than_it_has(large: Large) -> None:
    report = large.ingested()
    assert report.rows == 5000
    assert report.requests <= 10 + report.batches  # 2,000 for 177 thousand members would be 56
    assert report.received < 1.05 * large.path.stat().st_size


def test_pictures_that_are_kept_as_files_are_fetched_once(tmp_path: Path, bucket: Bucket) -> None:
    path = make_zip(tmp_path / "a.zip", {f"{n}.jpg": picture(600, 400, n, format="JPEG") for n in range(40)})
    uri = bucket.put("a.zip", path.read_bytes())
    received = {}
    for storage in ("decoded", "encoded"):
        report = h5dat_lib.ingest(uri, tmp_path / f"{storage}.h5", config(image={"storage": storage}))
        received[storage] = report.received / path.stat().st_size
        assert report.rows == 40
    assert received["encoded"] < 1.05 < received["decoded"] < 2  # how pixels are cut is judged by the first 32


def test_workers_of_their_own_count_what_they_read(large: Large) -> None:
    report = large.ingested(task_runner="processes")
    assert report.batches < report.requests <= 10 + report.batches
    assert large.path.stat().st_size <= report.received < 1.05 * large.path.stat().st_size


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz", "a.csv"])
def test_an_archive_that_is_replaced_once_it_is_planned_ends_the_run(tmp_path: Path, bucket: Bucket, name: str) -> None:
    MAKERS[name](tmp_path / name)
    uri = bucket.put(name, (tmp_path / name).read_bytes())
    with Ingest(uri, tmp_path / "out.h5", config()) as run, direct_workers(run.config, run.folder) as convert:
        bucket.put(name, (tmp_path / name).read_bytes()[::-1])
        with pytest.raises(InputError, match=f"{uri}: found .*PreconditionFailed.*it has been replaced since, run again"):
            run.run(convert, run.commit)


def test_in_a_bucket_that_keeps_versions_a_run_goes_on_with_the_one_it_planned(tmp_path: Path, bucket: Bucket) -> None:
    bucket.client.put_bucket_versioning(Bucket=bucket.name, VersioningConfiguration={"Status": "Enabled"})
    uri = bucket.put("a.zip", make_zip(tmp_path / "a.zip", MEMBERS).read_bytes())
    with Ingest(uri, tmp_path / "out.h5", config()) as run, direct_workers(run.config, run.folder) as convert:
        bucket.put("a.zip", b"something else")
        assert run.run(convert, run.commit).rows == 40


def test_a_plan_of_an_archive_in_s3_reads_its_directory_and_the_first_members_only(tmp_path: Path, large: Large) -> None:
    aws.requests.clear()
    assert summarise(large.uri, config()).members == 5000
    requests, received = aws.traffic()
    assert requests <= 5
    assert received < 0.1 * large.path.stat().st_size


def test_members_whose_names_say_nothing_are_looked_at_in_few_requests(tmp_path: Path, bucket: Bucket) -> None:
    path = make_zip(tmp_path / "a.zip", {f"{n:05}": picture(seed=n) for n in range(300)})
    uri = bucket.put("a.zip", path.read_bytes())
    assert summarise(uri, config()).classes[0].name == "images"
    assert aws.traffic()[0] <= 10


def test_a_run_goes_on_through_a_bad_day_of_the_store(
    tmp_path: Path, large: Large, faulty: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0.001)
    monkeypatch.setattr(s3, "_FIRST_WAIT", 0.001)
    faulty.will(Fault(times=2, status=503, code="SlowDown"), Fault(times=2, after=10_000), Fault(after=-1), Fault(times=2, after=300_000))
    assert large.ingested().rows == 5000
    assert faulty._faults == []


def test_credentials_are_not_in_what_a_run_leaves_behind(tmp_path: Path, bucket: Bucket, large: Large) -> None:
    with Ingest(large.uri, tmp_path / "out.h5", config()) as run, direct_workers(run.config, run.folder) as convert:
        planned = b"".join(path.read_bytes() for path in run.folder.rglob("*") if path.is_file())
        run.run(convert, run.commit)
    left = (tmp_path / "out.h5").read_bytes() + planned
    assert SECRET.encode() not in left and ACCESS.encode() not in left


@pytest.mark.parametrize(
    ("key", "says"), [("nothing.zip", "NoSuchKey"), ("cut.zip", "cut short or damaged"), ("noise.bin", "no archive"), ("empty", "empty")]
)
def test_what_is_no_archive_is_one_line_and_leaves_nothing(
    h5dat: Callable[..., Ran], tmp_path: Path, bucket: Bucket, threads: Path, key: str, says: str
) -> None:
    bucket.put("cut.zip", make_zip(tmp_path / "a.zip", MEMBERS).read_bytes()[:2000])
    bucket.put("noise.bin", random.Random(1).randbytes(5000))
    bucket.put("empty", b"")
    ran = h5dat("ingest", bucket.uri(key), "-o", tmp_path / "out.h5", "--direct", "-c", threads)
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert bucket.uri(key) in ran.err and says in ran.err
    assert not (tmp_path / "out.h5").exists()


def test_the_report_says_what_was_read_from_s3(h5dat: Callable[..., Ran], tmp_path: Path, bucket: Bucket, threads: Path) -> None:
    uri = bucket.put("a.zip", make_zip(tmp_path / "a.zip", MEMBERS).read_bytes())
    ran = h5dat("ingest", uri, "-o", tmp_path / "out.h5", "--direct", "-c", threads)
    assert "read from S3 by " in ran.out
    with h5dat_lib.open(tmp_path / "out.h5") as file:
        run = file.runs()[0]
        assert 0 < run["requests"] <= 8
        assert run["received"] >= (tmp_path / "a.zip").stat().st_size
