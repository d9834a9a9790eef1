"""The whole path: what comes out is what the standard library, Pillow and plain h5py say went in."""

from __future__ import annotations

import errno
import io
import json
import zipfile
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

import h5dat_lib
from h5dat_lib.errors import BudgetExceeded, Interrupted, OutputError
from h5dat_lib.journal import Disk
from h5dat_lib.pipeline import Ingest
from h5dat_lib.plan.batches import Batch
from h5dat_lib.stage.batch import Staged, stage
from tests.conftest import config, make_folder, make_tar, make_zip, picture

MEMBERS = {
    **{f"pictures/{n:03}.png": picture(seed=n) for n in range(40)},
    **{f"styles/{n:03}.json": json.dumps({"id": n, "tags": ["a", {"b": n / 2}], "ok": True, "none": None}).encode() for n in range(40)},
    "items.csv": b"id,name,price\n1,one,1.5\n2,,2.5\n3,three,\n",
    "lines.jsonl": b'{"a": 1}\n{"a": 2}\n',
    "read.txt": "grüße".encode(),
}


ARCHIVES: dict[str, Callable[[Path], Path]] = {
    "zip": lambda folder: make_zip(folder / "a.zip", MEMBERS),
    "stored": lambda folder: make_zip(folder / "a.zip", MEMBERS, zipfile.ZIP_STORED),
    "bzip2": lambda folder: make_zip(folder / "a.zip", MEMBERS, zipfile.ZIP_BZIP2),
    "lzma": lambda folder: make_zip(folder / "a.zip", MEMBERS, zipfile.ZIP_LZMA),
    "tar": lambda folder: make_tar(folder / "a.tar", MEMBERS, "w"),
    "tar.gz": lambda folder: make_tar(folder / "a.tar.gz", MEMBERS, "w:gz"),
    "tar.bz2": lambda folder: make_tar(folder / "a.tar.bz2", MEMBERS, "w:bz2"),
    "tar.xz": lambda folder: make_tar(folder / "a.tar.xz", MEMBERS, "w:xz"),
    "folder": lambda folder: make_folder(folder / "a", MEMBERS),
}


@pytest.mark.parametrize("kind", ARCHIVES)
def test_every_container_gives_the_same_rows(tmp_path: Path, kind: str) -> None:
    archive = ARCHIVES[kind](tmp_path)
    report = h5dat_lib.ingest(archive, tmp_path / "out.h5", config(batch_seconds=0.02))
    assert (report.members, report.rejects, report.rows) == (len(MEMBERS), 0, 86)
    with h5dat_lib.open(tmp_path / "out.h5") as file:
        names = [file["images"].origin(row).member for row in range(40)]
        assert sorted(names) == [f"pictures/{n:03}.png" for n in range(40)]
        for row, name in enumerate(names):
            assert np.array_equal(file["images"].pixels[row], np.asarray(Image.open(io.BytesIO(MEMBERS[name]))))
        document = next(row for row in range(42) if file["documents"].origin(row).member == "styles/003.json")
        assert file["documents"].document[document].encode() == MEMBERS["styles/003.json"]
        assert ("tags.1.b", "1.5", "number") in file["documents"].pairs(document)
        assert file["tables"].name[:] == ["one", None, "three"]
        assert file["texts"].text[0] == "grüße"
    assert not h5dat_lib.verify(tmp_path / "out.h5").mismatches


def test_plain_h5py_reads_pictures_texts_and_origins(tmp_path: Path) -> None:
    h5dat_lib.ingest(make_zip(tmp_path / "a.zip", MEMBERS), tmp_path / "out.h5", config())
    with h5py.File(tmp_path / "out.h5") as file:
        assert file["images/pixels"].shape == (40, 6, 8, 3)
        assert np.array_equal(file["images/pixels"][7], np.asarray(Image.open(io.BytesIO(MEMBERS["pictures/007.png"]))))
        path, member = file["lineage/members/path"], file["images/_member"][7]
        start, size = path["offset"][member], path["length"][member]
        assert path["values"][start : start + size].tobytes() == b"pictures/007.png"
        assert file["tables/price"][:].tolist()[:2] == [1.5, 2.5] and np.isnan(file["tables/price"][2])
        assert file["tables/name/mask"][:].tolist() == [False, True, False]


def test_the_same_input_gives_the_same_content_whatever_the_workers(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "a.zip", MEMBERS)
    for name, workers in (("one", 1), ("five", 5)):
        h5dat_lib.ingest(archive, tmp_path / name, config(workers=workers, batch_seconds=0.01))
    assert _content(tmp_path / "one") == _content(tmp_path / "five")


def _content(path: Path) -> dict[str, bytes]:
    """Every dataset but those that hold times and identifiers of the run."""
    volatile = ("time", "seconds", "run_id", "start", "end", "configuration", "checksums", "config")
    content: dict[str, bytes] = {}

    def note(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset) and not any(word in name for word in volatile):
            content[name] = item[:].tobytes()

    with h5py.File(path) as file:
        file.visititems(note)
    return content


class _Backwards:
    """Workers of which the one that was asked last is done first."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Batch, Future[Staged]]] = []

    def __call__(self, batch: Batch) -> Future[Staged]:
        workers = self

        class Waited(Future[Staged]):
            def result(self, timeout: float | None = None) -> Staged:
                workers.finish()
                return super().result(timeout)

        self._waiting.append((batch, Waited()))
        return self._waiting[-1][1]

    def finish(self) -> None:
        for batch, future in reversed(self._waiting):
            future.set_result(stage(batch))
        self._waiting.clear()


def test_batches_that_finish_in_another_order_come_out_in_archive_order(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "a.zip", MEMBERS)
    with Ingest(archive, tmp_path / "out.h5", config(batch_seconds=0.004, workers=1)) as run:
        report = run.run(_Backwards(), run.commit)
    assert report.batches > 4
    with h5dat_lib.open(tmp_path / "out.h5") as file:
        assert [file["images"].origin(row).member for row in range(40)] == [f"pictures/{n:03}.png" for n in range(40)]


def test_no_more_batches_than_the_window_are_under_way(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "a.zip", {f"{n}.txt": b"x" for n in range(3000)})
    under_way = most = 0

    def convert(batch: Batch) -> Future[Staged]:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        future: Future[Staged] = Future()
        future.set_result(stage(batch))
        return future

    with Ingest(archive, tmp_path / "out.h5", config(batch_seconds=0.01, workers=2, commit_seconds=0)) as run:

        def commit(staged: list[Staged]) -> object:
            nonlocal under_way
            under_way -= len(staged)
            assert len(list(run.path.parent.glob(".out.h5.h5dat/*.stage"))) <= 12  # a window that is staged, and one under way
            return run.commit(staged)

        run.run(convert, commit)  # type: ignore[arg-type]
    assert most <= 12


def test_the_same_archive_again_adds_nothing(tmp_path: Path) -> None:
    archive, output = make_zip(tmp_path / "a.zip", MEMBERS), tmp_path / "out.h5"
    h5dat_lib.ingest(archive, output, config())
    before = output.stat()
    report = h5dat_lib.ingest(archive, output, config())
    assert (report.batches, report.rows) == (0, 0) and report.skipped >= 1
    assert (output.stat().st_mtime_ns, output.stat().st_ino) == (before.st_mtime_ns, before.st_ino)


def test_an_output_within_the_folder_that_is_read_is_no_member_of_it(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "a", MEMBERS)
    report = h5dat_lib.ingest(folder, folder / "out.h5", config())
    assert (report.members, report.rejects) == (len(MEMBERS), 0)
    again = h5dat_lib.ingest(folder, folder / "out.h5", config())
    assert again.batches == 0 and again.skipped > 0


def test_another_archive_is_added_to_an_output_that_is_there(tmp_path: Path) -> None:
    output = tmp_path / "out.h5"
    h5dat_lib.ingest(make_zip(tmp_path / "a.zip", {"a.png": picture(seed=1), "a.json": b'{"x": 1}'}), output, config())
    h5dat_lib.ingest(make_zip(tmp_path / "b.zip", {"b.png": picture(seed=2), "b.json": b'{"y": 2}'}), output, config())
    with h5dat_lib.open(output) as file:
        assert [file["images"].origin(row).archive for row in range(2)] == [str(tmp_path / "a.zip"), str(tmp_path / "b.zip")]
        assert file["documents"].pairs(1) == [("y", "2", "integer")]
        assert len(file.runs()) == 2
    assert not h5dat_lib.verify(output).mismatches


def test_a_dense_column_that_becomes_ragged_stays_in_its_place(tmp_path: Path) -> None:
    output = tmp_path / "out.h5"
    h5dat_lib.ingest(make_zip(tmp_path / "a.zip", {f"{n}.bmp": picture(500, 500, n, format="BMP") for n in range(40)}), output, config())
    before = output.stat().st_size
    h5dat_lib.ingest(make_zip(tmp_path / "b.zip", {"odd.png": picture(3, 4)}), output, config())
    assert output.stat().st_size < before * 1.1
    with h5dat_lib.open(output) as file:
        assert file["images"].pixels.layout == "ragged"
        assert np.array_equal(file["images"].pixels[39], np.asarray(Image.open(io.BytesIO(picture(500, 500, 39, format="BMP")))))
    assert not h5dat_lib.verify(output).mismatches


def test_several_archives_are_one_run(tmp_path: Path) -> None:
    archives = [make_zip(tmp_path / f"{n}.zip", {f"{n}.txt": str(n).encode()}) for n in range(3)]
    report = h5dat_lib.ingest(archives, tmp_path / "out.h5", config())
    with h5dat_lib.open(tmp_path / "out.h5") as file:
        assert file["texts"].text[:] == ["0", "1", "2"]
        assert {file["texts"].origin(row).run for row in range(3)} == {report.run}


def test_a_commit_that_is_called_again_adds_nothing(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "a.zip", {"a.txt": b"x"})
    with Ingest(archive, tmp_path / "out.h5", config()) as run:

        def convert(batch: Batch) -> Future[Staged]:
            future: Future[Staged] = Future()
            future.set_result(stage(batch))
            return future

        def commit(staged: list[Staged]) -> object:
            first, again = run.commit(staged), run.commit(staged)
            assert (first.batches, again.batches, again.skipped) == (1, 0, 1)
            return first

        run.run(convert, commit)  # type: ignore[arg-type]
    with h5dat_lib.open(tmp_path / "out.h5") as file:
        assert len(file["texts"]) == 1


def test_an_interrupted_run_leaves_a_readable_output_and_goes_on_from_there(tmp_path: Path) -> None:
    archive, output = make_zip(tmp_path / "a.zip", {f"{n:04}.txt": str(n).encode() for n in range(2000)}), tmp_path / "out.h5"
    settings = config(batch_seconds=0.02, workers=1, commit_seconds=0)

    class Stopping:
        """A worker that is stopped after its third batch."""

        def __init__(self) -> None:
            self.count = 0

        def __call__(self, batch: Batch) -> Future[Staged]:
            self.count += 1
            future: Future[Staged] = Future()
            if self.count > 6:
                future.set_exception(Interrupted("stopped"))
            else:
                future.set_result(stage(batch))
            return future

    with Ingest(archive, output, settings) as run, pytest.raises(Interrupted):
        run.run(Stopping(), run.commit)
    with h5dat_lib.open(output) as file:
        first = len(file["texts"])
        assert 0 < first < 2000
        assert file.runs()[0]["status"] == "interrupted"
    report = h5dat_lib.ingest(archive, output, settings)
    assert report.skipped > 0 and report.rows == 2000 - first
    with h5dat_lib.open(output) as file:
        assert file["texts"].text[:] == [str(n) for n in range(2000)]


def test_two_runs_into_one_output_do_not_mix(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "a.zip", {"a.txt": b"x"})
    with Ingest(archive, tmp_path / "out.h5", config()), pytest.raises(OutputError, match=r"another ingest is writing it \(process"):
        Ingest(archive, tmp_path / "out.h5", config()).__enter__()


def test_a_disk_that_fails_to_take_what_was_written_fails_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([OSError(errno.EIO, "Input/output error")])

    def fails_once(disk: Disk, descriptor: int) -> None:
        for error in answers:
            raise error

    monkeypatch.setattr(Disk, "sync", fails_once)
    with pytest.raises(OutputError, match="Input/output error"):
        h5dat_lib.ingest(make_zip(tmp_path / "a.zip", {"a.txt": b"x"}), tmp_path / "out.h5", config())
    assert not (tmp_path / "out.h5").exists()
    assert h5dat_lib.ingest(tmp_path / "a.zip", tmp_path / "out.h5", config()).rows == 1


@pytest.mark.parametrize(("budget", "fails"), [(None, False), (2, False), (1, True), (0.5, False), (0.1, True), (0, True)])
def test_an_error_budget_fails_the_run_and_keeps_what_was_committed(tmp_path: Path, budget: float | None, fails: bool) -> None:
    members = {"a.json": b"{", "b.json": b"{", **{f"{n}.txt": b"x" for n in range(4)}}
    settings = config(max_rejects=budget)
    if fails:
        with pytest.raises(BudgetExceeded, match="found 2 rejects"):
            h5dat_lib.ingest(make_zip(tmp_path / "a.zip", members), tmp_path / "out.h5", settings)
    else:
        h5dat_lib.ingest(make_zip(tmp_path / "a.zip", members), tmp_path / "out.h5", settings)
    with h5dat_lib.open(tmp_path / "out.h5") as file:
        assert len(file["texts"]) == 4 and len(list(file.rejects())) == 2


def test_lineage_records_run_archive_member_and_batch(tmp_path: Path) -> None:
    import hashlib
    import zlib

    archive = make_zip(tmp_path / "a.zip", MEMBERS)
    report = h5dat_lib.ingest(archive, tmp_path / "out.h5", config())
    with h5dat_lib.open(tmp_path / "out.h5") as file:
        origin = file["images"].origin(3)
        data = MEMBERS["pictures/003.png"]
        assert (origin.member, origin.size, origin.crc32) == ("pictures/003.png", len(data), zlib.crc32(data))
        assert origin.sha256 == hashlib.sha256(data).hexdigest()
        assert (origin.archive, origin.run, origin.converter) == (str(archive), report.run, "png/3")
        [run], [source] = file.runs(), file.archives()
        assert run["status"] == "done" and run["members"] == len(MEMBERS) and run["end"] >= run["start"] > 0
        assert "h5py" in json.loads(run["versions"]) and json.loads(run["configuration"])["workers"] == 2
        assert source["sha256"] == hashlib.sha256(archive.read_bytes()).hexdigest()
        assert source["config_digest"] == config().digest()


def test_processes_give_what_threads_give(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "a.zip", MEMBERS)
    h5dat_lib.ingest(archive, tmp_path / "threads", config(batch_seconds=0.01))
    h5dat_lib.ingest(archive, tmp_path / "processes", config(batch_seconds=0.01, task_runner="processes"))
    assert _content(tmp_path / "threads") == _content(tmp_path / "processes")
