"""The same command again: it goes on where the last run ended, however that was, and adds nothing twice."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

import h5py
import pytest

import h5dat_lib
from h5dat_lib.config import Config
from h5dat_lib.errors import BudgetExceeded, InputError, OutputError
from h5dat_lib.lock import WorkFolder
from h5dat_lib.pipeline import Ingest, Start
from h5dat_lib.plan.batches import Batch
from h5dat_lib.stage.batch import Staged, stage
from tests.conftest import config, make_folder, make_tar, make_zip, picture

MEMBERS = {f"{n:04}.txt": f"text {n}".encode() for n in range(600)}
SMALL = {"batch_seconds": 0.02, "workers": 1, "commit_seconds": 0}


class _Dies(BaseException):
    """What ends a run without its having a say, as a kill does."""


class _Worker:
    """A worker that counts what it converts, and dies after some batches."""

    def __init__(self, batches: int = 1 << 30) -> None:
        self.converted = 0
        self._batches = batches

    def __call__(self, batch: Batch) -> Future[Staged]:
        future: Future[Staged] = Future()
        if self.converted == self._batches:
            future.set_exception(_Dies())
        else:
            self.converted += 1
            future.set_result(stage(batch))
        return future


KINDS: dict[str, Callable[[Path, dict[str, bytes]], Path]] = {"a.zip": make_zip, "a.tar.gz": make_tar, "a": make_folder}


def _texts(output: Path) -> list[str]:
    with h5dat_lib.open(output) as file:
        return list(file["texts"].text[:])


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_committed_is_not_converted_again_and_what_was_staged_is_used(tmp_path: Path, kind: str) -> None:
    archive, output = KINDS[kind](tmp_path / kind, MEMBERS), tmp_path / "out.h5"
    first, again = _Worker(6), _Worker()
    with pytest.raises(_Dies), Ingest(archive, output, config(**SMALL)) as run:
        run.run(first, run.commit)
    done = len(_texts(output))
    left = sorted((tmp_path / ".out.h5.h5dat").glob("*.stage"))
    assert 0 < done < len(MEMBERS) and left
    with Ingest(archive, output, config(**SMALL)) as run:
        report = run.run(again, run.commit)
        batches = report.batches
    assert report.skipped == done and report.members == len(MEMBERS) - done
    assert again.converted == batches - len(left)
    assert _texts(output) == [data.decode() for data in MEMBERS.values()]
    assert not (tmp_path / ".out.h5.h5dat").exists()
    assert not h5dat_lib.verify(output).mismatches


def test_a_run_that_was_killed_is_recorded_as_such_by_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive, output = make_zip(tmp_path / "a.zip", MEMBERS), tmp_path / "out.h5"
    with monkeypatch.context() as patch:
        patch.setattr(Ingest, "_end", lambda run, status: None)
        with pytest.raises(_Dies), Ingest(archive, output, config(**SMALL)) as run:
            run.run(_Worker(6), run.commit)
    h5dat_lib.ingest(archive, output, config(**SMALL))
    with h5dat_lib.open(output) as file:
        assert [run["status"] for run in file.runs()] == ["killed", "done"]


@pytest.mark.parametrize("damage", ["cut", "empty", "other"])
def test_a_staged_batch_that_is_not_whole_is_made_anew(tmp_path: Path, damage: str) -> None:
    archive, output = make_zip(tmp_path / "a.zip", MEMBERS), tmp_path / "out.h5"
    with pytest.raises(_Dies), Ingest(archive, output, config(**SMALL, commit_bytes=1 << 40)) as run:
        run.run(_Worker(6), run.commit)
    for staged in (tmp_path / ".out.h5.h5dat").glob("*.stage"):
        data = staged.read_bytes()
        staged.write_bytes({"cut": data[:-7], "empty": b"", "other": bytes(len(data))}[damage])
    h5dat_lib.ingest(archive, output, config(**SMALL))
    assert _texts(output) == [data.decode() for data in MEMBERS.values()]


def test_a_resumed_run_may_cut_batches_in_another_way(tmp_path: Path) -> None:
    archive, output = make_zip(tmp_path / "a.zip", MEMBERS), tmp_path / "out.h5"
    with pytest.raises(_Dies), Ingest(archive, output, config(**SMALL)) as run:
        run.run(_Worker(9), run.commit)
    h5dat_lib.ingest(archive, output, config(batch_seconds=0.05, workers=2))
    assert _texts(output) == [data.decode() for data in MEMBERS.values()]


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_archive_again_is_not_even_planned(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    archive, output = KINDS[kind](tmp_path / kind, MEMBERS), tmp_path / "out.h5"
    h5dat_lib.ingest(archive, output, config())
    before = output.read_bytes()
    monkeypatch.setattr("h5dat_lib.pipeline.Plan", None)
    report = h5dat_lib.ingest(archive, output, config())
    assert (report.batches, report.rows, report.skipped) == (0, 0, len(MEMBERS))
    assert output.read_bytes() == before


@pytest.mark.parametrize("kind", ["a.zip", "a.tar.gz"])
def test_a_copy_of_an_archive_under_another_name_or_with_another_time_is_the_same_archive(tmp_path: Path, kind: str) -> None:
    archive, output = KINDS[kind](tmp_path / kind, MEMBERS), tmp_path / "out.h5"
    h5dat_lib.ingest(archive, output, config())
    os.utime(archive, (1, 1))
    copy = shutil.copyfile(archive, tmp_path / f"copy-{kind}")
    report = h5dat_lib.ingest([archive, copy], output, config())
    assert (report.batches, report.skipped) == (0, 2 * len(MEMBERS))


def test_an_archive_that_is_given_twice_comes_in_once(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "a.zip", MEMBERS)
    assert h5dat_lib.ingest([archive, archive], tmp_path / "out.h5", config()).rows == len(MEMBERS)


def test_a_changed_archive_under_the_same_name_is_seen_as_changed(tmp_path: Path) -> None:
    archive, output = make_zip(tmp_path / "a.zip", {"a.txt": b"one"}), tmp_path / "out.h5"
    h5dat_lib.ingest(archive, output, config())
    make_zip(archive, {"a.txt": b"two"})
    report = h5dat_lib.ingest(archive, output, config())
    assert report.changed == (str(archive),)
    assert _texts(output) == ["one", "two"]


@pytest.mark.parametrize("kind", KINDS)
def test_of_a_grown_archive_only_what_is_new_comes_in_when_duplicates_are_skipped(tmp_path: Path, kind: str) -> None:
    output = tmp_path / "out.h5"
    archive = KINDS[kind](tmp_path / kind, dict(list(MEMBERS.items())[:500]))
    h5dat_lib.ingest(archive, output, config(duplicates="skip"))
    shutil.rmtree(archive) if archive.is_dir() else archive.unlink()
    KINDS[kind](archive, MEMBERS)
    report = h5dat_lib.ingest(archive, output, config(duplicates="skip"))
    assert (report.rows, report.duplicates, report.rejects) == (100, 500, 0)
    assert _texts(output) == [data.decode() for data in MEMBERS.values()]
    with h5dat_lib.open(output) as file:
        assert file["texts"].origin(599).member == "0599.txt"
        members = file["lineage/members"]
        assert [members["rows"][row] for row in (500, 1099)] == [0, 1] and members["converter"][500] == "duplicate"


@pytest.mark.parametrize(("duplicates", "rows"), [("keep", 4), ("skip", 3)])
def test_archives_of_one_run_that_share_members_count_them(tmp_path: Path, duplicates: str, rows: int) -> None:
    archives = [
        make_zip(tmp_path / "a.zip", {"a.txt": b"same", "b.txt": b"one"}),
        make_zip(tmp_path / "b.zip", {"c.txt": b"same", "d.txt": b"two"}),
    ]
    h5dat_lib.ingest(archives[0], tmp_path / "out.h5", config(duplicates=duplicates))
    report = h5dat_lib.ingest(archives, tmp_path / "out.h5", config(duplicates=duplicates))
    assert report.duplicates == 1 and len(_texts(tmp_path / "out.h5")) == rows


def test_of_archives_given_together_the_later_ones_skip_what_the_earlier_ones_have(tmp_path: Path) -> None:
    shared = {f"{n}.txt": str(n).encode() for n in range(300)}
    archives = [make_zip(tmp_path / f"{name}.zip", {**shared, f"{name}.txt": name.encode()}) for name in "abc"]
    report = h5dat_lib.ingest(archives, tmp_path / "out.h5", config(duplicates="skip", **SMALL))
    assert (report.rows, report.duplicates) == (303, 600)


def test_members_that_are_alike_within_one_archive_are_no_duplicates(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "a.zip", {"a/x.txt": b"same", "b/x.txt": b"same"})
    assert h5dat_lib.ingest(archive, tmp_path / "out.h5", config(duplicates="skip")).rows == 2


def test_another_configuration_is_refused_with_the_difference_unless_it_is_a_new_run(tmp_path: Path) -> None:
    archive, output = make_zip(tmp_path / "a.zip", {"a.png": picture(seed=1)}), tmp_path / "out.h5"
    h5dat_lib.ingest(archive, output, config())
    before = output.read_bytes()
    other = config(document={"pairs": False}, table={"header": True})
    with pytest.raises(
        OutputError, match=r"document\.pairs: true in the file, false now; table\.header: null in the file, true now.*--new-run"
    ):
        h5dat_lib.ingest(archive, output, other)
    assert output.read_bytes() == before
    assert h5dat_lib.ingest(archive, output, other, start=Start(new_run=True)).rows == 1
    with h5dat_lib.open(output) as file:
        assert [json.loads(run["configuration"])["document"]["pairs"] for run in file.runs()] == [True, False]
    for known in (config(), other):
        assert h5dat_lib.ingest(archive, output, known).batches == 0


def test_a_difference_of_pages_is_told_in_a_line(tmp_path: Path) -> None:
    archive, output = make_zip(tmp_path / "a.zip", {"a.png": picture(seed=1)}), tmp_path / "out.h5"
    h5dat_lib.ingest(archive, output, config())
    classes = [{"name": f"images{number}", "medium": "images", "folders": [str(number)]} for number in range(30)]
    with pytest.raises(OutputError, match=r'schema\.classes: \[\] in the file, \[\{"name": "images0", .*\.\.\. now') as told:
        h5dat_lib.ingest(archive, output, config(schema={"classes": classes}))
    assert len(str(told.value)) < 600 + len(str(output))


@pytest.mark.parametrize(
    "change", [{"workers": 3}, {"batch_seconds": 1.0}, {"limits": {"pixels": 1000}}, {"max_rejects": 5}, {"commit_seconds": 0}]
)
def test_how_a_run_is_carried_out_may_change(tmp_path: Path, change: dict[str, object]) -> None:
    archive, output = make_zip(tmp_path / "a.zip", MEMBERS), tmp_path / "out.h5"
    h5dat_lib.ingest(archive, output, config())
    assert h5dat_lib.ingest(archive, output, config(**change)).batches == 0


def test_restart_makes_the_output_anew(tmp_path: Path) -> None:
    first, second = make_zip(tmp_path / "a.zip", {"a.txt": b"one"}), make_zip(tmp_path / "b.zip", {"b.txt": b"two"})
    output = tmp_path / "out.h5"
    h5dat_lib.ingest(first, output, config())
    with pytest.raises(InputError):
        h5dat_lib.ingest(tmp_path / "none.zip", output, config(), start=Start(restart=True))
    assert _texts(output) == ["one"]
    h5dat_lib.ingest(second, output, config(image={"color": "L"}), start=Start(restart=True))
    assert _texts(output) == ["two"]


def test_restart_does_not_remove_a_file_that_is_not_ours(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "out.h5", "w") as file:
        file["precious"] = 1
    with pytest.raises(h5dat_lib.H5datError, match="without H5DAT's mark"):
        h5dat_lib.ingest(make_zip(tmp_path / "a.zip", {"a.txt": b"x"}), tmp_path / "out.h5", config(), start=Start(restart=True))
    with h5py.File(tmp_path / "out.h5") as file:
        assert file["precious"][()] == 1


def test_an_ingest_that_waits_begins_when_the_other_has_ended(tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    archives = [make_zip(tmp_path / f"{n}.zip", {f"{n}.txt": str(n).encode()}) for n in range(2)]
    output = tmp_path / "out.h5"
    with ThreadPoolExecutor(1) as pool:
        with Ingest(archives[0], output, config()) as run:
            waiting = pool.submit(h5dat_lib.ingest, archives[1], output, config(), None, Start(wait=True))
            time.sleep(0.3)
            assert not waiting.done()
            run.run(_Worker(), run.commit)
        assert waiting.result(30).rows == 1
    assert _texts(output) == ["0", "1"]


def test_staged_batches_of_a_living_run_are_left_alone(tmp_path: Path) -> None:
    with WorkFolder(tmp_path / "out.h5") as living:
        (living.path / "a.stage").write_bytes(b"x")
        with pytest.raises(OutputError, match="another ingest is writing it"):
            h5dat_lib.ingest(make_zip(tmp_path / "a.zip", MEMBERS), tmp_path / "out.h5", config())
        assert (living.path / "a.stage").exists()


def test_a_failed_run_keeps_what_it_staged_and_a_good_one_leaves_nothing(tmp_path: Path) -> None:
    output = tmp_path / "out.h5"
    (tmp_path / ".out.h5.h5dat").mkdir()
    (tmp_path / ".out.h5.h5dat" / "of-another-time.stage").write_bytes(b"x")
    with pytest.raises(BudgetExceeded):
        h5dat_lib.ingest(make_zip(tmp_path / "a.zip", {"a.json": b"{", **MEMBERS}), output, config(max_rejects=0))
    h5dat_lib.ingest(make_zip(tmp_path / "b.zip", MEMBERS), output, config())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zip", "b.zip", "out.h5"]


def test_commits_are_grouped_by_bytes_and_seconds(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "a.zip", MEMBERS)

    def commits(name: str, settings: Config) -> int:
        count = 0
        with Ingest(archive, tmp_path / name, settings) as run:

            def commit(staged: list[Staged]) -> object:
                nonlocal count
                count += 1
                return run.commit(staged)

            run.run(_Worker(), commit)  # type: ignore[arg-type]
        return count

    each = commits("each.h5", config(batch_seconds=0.02, workers=1, commit_seconds=0))
    assert commits("seconds.h5", config(batch_seconds=0.02, workers=1, commit_seconds=1000)) == 2  # the first at once, the rest at the end
    assert 2 < commits("bytes.h5", config(batch_seconds=0.02, workers=1, commit_seconds=1000, commit_bytes=80_000)) < each
