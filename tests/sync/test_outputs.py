"""Outputs in S3, by the command line."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import pytest

from h5dat_lib.config import Config
from h5dat_lib.errors import OutputError
from h5dat_lib.pipeline import Ingest
from h5dat_lib.stage.workers import direct_workers
from h5dat_lib.storage import LocalSource
from h5dat_lib.sync.background import SyncedOutput
from h5dat_lib.sync.digests import digests_of
from tests.conftest import Bucket, Ran, make_zip, picture
from tests.conftest import config as threaded
from tests.faulty_proxy import Fault, FaultyProxy
from tests.sync.conftest import MIB, noise, overwrite, uploads

Command = Callable[..., Ran]


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("H5DAT_HOME", str(tmp_path / "home"))
    path = tmp_path / "config.json"
    path.write_text('{"task_runner": "threads", "workers": 2}')
    return path


def archive(path: Path, first: int, count: int, width: int = 8) -> Path:
    return make_zip(path, {f"{n}.png": picture(width, seed=n) for n in range(first, first + count)})


def rows(bucket: Bucket, key: str) -> int:
    """Rows of the pictures in an object, by plain h5py."""
    with h5py.File(io.BytesIO(bucket.get(key))) as file:
        return int(file["images/pixels"].shape[0])


def ingest(h5dat: Command, path: Path, uri: str, config: Path, *words: str) -> Ran:
    return h5dat("ingest", path, "-o", uri, "-c", config, "--direct", *words)


def test_an_output_in_s3_is_made_and_added_to(bucket: Bucket, tmp_path: Path, h5dat: Command, config: Path) -> None:
    uri = bucket.uri("out/pictures.h5")
    ran = ingest(h5dat, archive(tmp_path / "1.zip", 0, 5), uri, config, "--json")
    assert ran.code == 0, ran.err
    report = json.loads(ran.out)
    assert report["output"] == uri and report["synced"]["times"] == 1
    assert bucket.get("out/pictures.h5") == Path(report["path"]).read_bytes()
    assert ingest(h5dat, archive(tmp_path / "2.zip", 5, 3), uri, config, "--quiet").code == 0
    assert rows(bucket, "out/pictures.h5") == 8
    again = json.loads(ingest(h5dat, tmp_path / "2.zip", uri, config, "--json").out)
    assert (again["skipped"], again["synced"]["sent"]) == (3, 0)
    anew = ingest(h5dat, tmp_path / "2.zip", uri, config, "--restart")
    assert "working copy" in anew.out and rows(bucket, "out/pictures.h5") == 3


def test_on_another_machine_it_is_restored_and_gone_on_with(
    bucket: Bucket, tmp_path: Path, h5dat: Command, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = bucket.uri("out.h5")
    ingest(h5dat, archive(tmp_path / "1.zip", 0, 2), uri, config)
    for machine, first in (("other", 2), ("home", 4)):
        monkeypatch.setenv("H5DAT_HOME", str(tmp_path / machine))
        ran = ingest(h5dat, archive(tmp_path / f"{machine}.zip", first, 2), uri, config, "--json")
        assert ran.code == 0, ran.err
        assert json.loads(ran.out)["synced"]["received"] > 0
    assert rows(bucket, "out.h5") == 6


def test_what_was_replaced_while_a_run_waited_for_its_turn_is_planned_anew(bucket: Bucket, tmp_path: Path, config: Path) -> None:
    uri, first = bucket.uri("out.h5"), archive(tmp_path / "1.zip", 0, 2)
    here, there = (threaded(s3={"cache_dir": str(tmp_path / name)}) for name in ("here", "there"))
    with Ingest([first, archive(tmp_path / "2.zip", 2, 2)], uri, here) as waiting:
        with Ingest(first, uri, there) as other, direct_workers(there, other.folder) as convert:
            other.run(convert, other.commit)
        with direct_workers(here, waiting.folder) as convert:
            report = waiting.run(convert, waiting.commit)
    assert (report.members, report.skipped) == (2, 2)
    assert rows(bucket, "out.h5") == 4


def test_only_what_was_added_and_where_columns_go_on_is_sent(bucket: Bucket, tmp_path: Path, h5dat: Command, config: Path) -> None:
    uri = bucket.uri("out.h5")
    config.write_text('{"task_runner": "threads", "unknown": "bytes"}')
    members = {f"{n}.bin": noise(MIB, n) for n in range(60)}
    first = json.loads(ingest(h5dat, make_zip(tmp_path / "1.zip", members, zipfile.ZIP_STORED), uri, config, "--json").out)
    before = Path(first["path"]).read_bytes()
    grown = json.loads(ingest(h5dat, make_zip(tmp_path / "2.zip", {"a.bin": noise(MIB, 99)}), uri, config, "--json").out)
    after = Path(grown["path"]).read_bytes()
    assert bucket.get("out.h5") == after
    places = sum(after[at : at + MIB] != before[at : at + MIB] for at in range(0, len(after), MIB))
    took = grown["synced"]
    assert took["sent"] + took["copied"] == len(after)
    assert took["sent"] <= 10 * MIB * places and took["copied"] > len(after) / 2


def test_a_failed_run_syncs_what_it_has_committed(bucket: Bucket, tmp_path: Path, h5dat: Command, config: Path) -> None:
    config.write_text('{"task_runner": "threads", "max_rejects": 0}')
    path = make_zip(tmp_path / "1.zip", {"a.png": picture(), "b.png": b"no picture"})
    ran = ingest(h5dat, path, bucket.uri("out.h5"), config)
    assert ran.code == 1 and "found 1 rejects" in ran.err
    assert rows(bucket, "out.h5") == 1


def test_a_store_that_goes_away_costs_no_commits(
    bucket: Bucket, faulty: FaultyProxy, tmp_path: Path, h5dat: Command, config: Path, impatient: Callable[[float], None]
) -> None:
    impatient(0.2)
    config.write_text('{"task_runner": "threads", "commit_seconds": 0, "s3": {"attempts": 1, "sync_seconds": 0}}')
    uri, path = bucket.uri("out.h5"), archive(tmp_path / "1.zip", 0, 3)
    faulty.will(Fault("PUT", times=99, after=-1))
    ran = ingest(h5dat, path, uri, config)
    assert ran.code == 2 and "look at the network" in ran.err
    faulty._faults.clear()
    ran = ingest(h5dat, path, uri, config, "--json")
    assert json.loads(ran.out)["skipped"] == 3
    assert rows(bucket, "out.h5") == 3


def test_a_run_that_fails_while_the_store_is_away_says_both(
    bucket: Bucket, faulty: FaultyProxy, tmp_path: Path, h5dat: Command, config: Path, impatient: Callable[[float], None]
) -> None:
    impatient(0)
    config.write_text('{"task_runner": "threads", "max_rejects": 0, "s3": {"attempts": 1}}')
    faulty.will(Fault("PUT", times=99, after=-1))
    path = make_zip(tmp_path / "1.zip", {"a.png": picture(), "b.png": b"no picture"})
    ran = ingest(h5dat, path, bucket.uri("out.h5"), config)
    assert ran.code == 1 and "found 1 rejects" in ran.err and "look at the network" in ran.err


def test_rejects_of_an_output_in_s3_are_tried_again(bucket: Bucket, tmp_path: Path, h5dat: Command, config: Path) -> None:
    config.write_text('{"task_runner": "threads", "limits": {"pixels": 10}}')
    uri = bucket.uri("out.h5")
    ran = ingest(h5dat, archive(tmp_path / "1.zip", 0, 2), uri, config, "--json")
    assert json.loads(ran.out)["rejects"] == 2, ran.err
    config.write_text('{"task_runner": "threads"}')
    ran = h5dat("retry", uri, "-c", config, "--direct", "--json")
    assert json.loads(ran.out)["rows"] == 2, ran.err
    assert rows(bucket, "out.h5") == 2
    assert "no rejects" in h5dat("retry", uri, "--direct").out


def test_commits_wait_for_a_sync_and_what_they_change_is_what_is_read(bucket: Bucket, tmp_path: Path, config: Path) -> None:
    settings = threaded(commit_seconds=0, batch_seconds=0.01, s3={"sync_seconds": 0, "cache_dir": str(tmp_path)})
    changed: list[set[int]] = []
    seen: list[bytes] = []

    class Watched(SyncedOutput):
        def after_commit(self, found: set[int]) -> None:  # type: ignore[override]
            changed.append(found)
            seen.append(self.path.read_bytes())
            super().after_commit(found)

    path = make_zip(tmp_path / "1.zip", {f"{n}.png": picture(500, 500, n) for n in range(8)})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("h5dat_lib.pipeline.SyncedOutput", Watched)
        with Ingest(path, bucket.uri("out.h5"), settings) as run, direct_workers(settings, run.folder) as convert:
            report = run.run(convert, run.commit)
    assert report.synced and report.synced.times == len(changed) > 2
    for before, after, spans in zip([b"", *seen], seen, changed, strict=False):
        found = {at // MIB for at in range(0, len(after), MIB) if before[at : at + MIB] != after[at : at + MIB]}
        assert found <= spans
    assert bucket.get("out.h5") == seen[-1] == run.path.read_bytes()
    assert digests_of(LocalSource(str(run.path))) == run._in_s3._copy._known  # type: ignore[union-attr]


def test_a_working_copy_that_others_change_between_commits_is_read_anew(bucket: Bucket, tmp_path: Path, config: Path) -> None:
    settings = threaded(s3={"cache_dir": str(tmp_path)})
    with Ingest(archive(tmp_path / "1.zip", 0, 3), bucket.uri("out.h5"), settings) as run, direct_workers(settings, run.folder) as convert:
        run.run(convert, run.commit)
    output = SyncedOutput(bucket.uri("out.h5"), settings.s3)
    output.restore(anew=False)
    overwrite(output.path, MIB, b"by others")
    output.before_commit()
    output.after_commit(set())
    output.finish()
    output.close()
    assert bucket.get("out.h5") == output.path.read_bytes()


def test_sync_and_pull_by_the_command_line(bucket: Bucket, tmp_path: Path, h5dat: Command, config: Path) -> None:
    path, uri = tmp_path / "out.h5", bucket.uri("out.h5")
    assert h5dat("ingest", archive(tmp_path / "1.zip", 0, 2), "-o", path, "-c", config, "--direct", "--quiet").code == 0
    ran = h5dat("sync", path, uri, "--check", "--json")
    assert (ran.code, json.loads(ran.out)["difference"]) == (1, "found no object")
    ran = h5dat("sync", path, uri, "--json")
    assert json.loads(ran.out)["sent"] == path.stat().st_size
    assert "nothing to do" in h5dat("sync", path, uri).out
    assert h5dat("sync", path, uri, "--check").code == 0
    assert h5dat("pull", uri, tmp_path / "copy.h5", "--quiet").out == ""
    assert (tmp_path / "copy.h5").read_bytes() == path.read_bytes()
    bucket.put("out.h5", b"another's")
    ran = h5dat("sync", path, uri)
    assert ran.code == 2 and "--replace" in ran.err
    assert h5dat("sync", path, uri, "--replace").code == 0
    assert uploads(bucket) == []


def test_a_replaced_output_is_said_before_anything_is_converted(bucket: Bucket, tmp_path: Path, h5dat: Command, config: Path) -> None:
    uri, settings = bucket.uri("out.h5"), Config()
    ingest(h5dat, archive(tmp_path / "1.zip", 0, 1), uri, config)
    copy = SyncedOutput(uri, settings.s3)
    overwrite(copy.path, MIB, b"of its own")
    bucket.put("out.h5", b"another's")
    ran = ingest(h5dat, archive(tmp_path / "2.zip", 1, 1), uri, config)
    assert ran.code == 2 and "has been replaced since" in ran.err
    with pytest.raises(OutputError, match="replaced since"):
        copy.restore(anew=False)
    assert bucket.get("out.h5") == b"another's"


@pytest.mark.usefixtures("bucket")
def test_a_bucket_that_is_not_there_is_said_before_anything_is_converted(tmp_path: Path, h5dat: Command, config: Path) -> None:
    ran = ingest(h5dat, archive(tmp_path / "1.zip", 0, 1), "s3://no-such-bucket-of-ours/out.h5", config)
    assert (ran.code, ran.out) == (2, "") and "found NoSuchBucket" in ran.err and "check its name" in ran.err
    assert not list((tmp_path / "home").rglob("out.h5"))
