"""A long video that is converted in parts: the same rows as by one worker, whatever happens between two parts."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

import h5dat_lib
from h5dat_lib.commit.transaction import Committed, Output
from h5dat_lib.stage.batch import Staged
from tests.conftest import config, make_zip

FILM = (Path(__file__).parent / "data/video/h264.mp4").read_bytes()
MEMBERS = {"a.txt": b"text", "film.mp4": FILM, "b.txt": b"text", "again.mp4": FILM, "c.txt": b"text"}
IN_PARTS = config(batch_seconds=0.008, commit_seconds=0, workers=2)


@pytest.fixture(autouse=True)
def _short_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("h5dat_lib.plan.batches._PART_BYTES", len(FILM) // 3)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return make_zip(tmp_path / "films.zip", MEMBERS)


def _content(path: Path) -> dict[str, np.ndarray]:
    """All that is said of videos, frames and members, by h5py alone."""
    with h5py.File(path) as file:
        names = [f"videos/frames/{name}" for name in ("pixels", "video", "frame", "time", "keyframe", "_member")]
        names += [f"videos/{name}" for name in ("first", "count", "duration", "_member")]
        return {name: file[name][:] for name in (*names, "lineage/members/rows", "lineage/members/size", "lineage/members/sha256")}


def _assert_alike(found: Path, expected: Path) -> None:
    one, other = _content(found), _content(expected)
    for name, values in one.items():
        assert np.array_equal(values, other[name]), name
    assert h5dat_lib.verify(found).mismatches == []


@pytest.fixture
def by_one(archive: Path, tmp_path: Path) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("h5dat_lib.plan.batches._MOST_PARTS", 1)
        h5dat_lib.ingest(archive, tmp_path / "one.h5", config())
    return tmp_path / "one.h5"


def _ingest_some(archive: Path, output: Path, batches: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that ends when so many batches are in, as a kill would end it."""
    original, left = Output.commit, batches

    def commit(self: Output, staged: list[Staged], *others: object) -> Committed:
        nonlocal left
        committed = original(self, staged[:left], *others)  # type: ignore[arg-type]
        left -= len(staged)
        if left <= 0:
            raise KeyboardInterrupt
        return committed

    with monkeypatch.context() as patch:
        patch.setattr(Output, "commit", commit)
        with pytest.raises(KeyboardInterrupt):
            h5dat_lib.ingest(archive, output, IN_PARTS)


def test_parts_give_what_one_worker_gives(archive: Path, by_one: Path, tmp_path: Path) -> None:
    report = h5dat_lib.ingest(archive, tmp_path / "parts.h5", IN_PARTS)
    assert report.batches > len(MEMBERS)
    assert (report.members, report.rejects) == (len(MEMBERS), 0)
    _assert_alike(tmp_path / "parts.h5", by_one)
    again = h5dat_lib.ingest(archive, tmp_path / "parts.h5", IN_PARTS)
    assert (again.members, again.skipped) == (0, len(MEMBERS))


@pytest.mark.parametrize("batches", [1, 3, 4, 7])
def test_a_run_that_ended_between_two_parts_goes_on(
    archive: Path, by_one: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batches: int
) -> None:
    _ingest_some(archive, tmp_path / "parts.h5", batches, monkeypatch)
    h5dat_lib.ingest(archive, tmp_path / "parts.h5", IN_PARTS)
    _assert_alike(tmp_path / "parts.h5", by_one)


@pytest.mark.parametrize("batches", [2, 3, 5, 6])
def test_a_run_that_goes_on_may_cut_its_batches_otherwise(
    archive: Path, by_one: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batches: int
) -> None:
    _ingest_some(archive, tmp_path / "parts.h5", batches, monkeypatch)
    h5dat_lib.ingest(archive, tmp_path / "parts.h5", config(batch_seconds=600))
    _assert_alike(tmp_path / "parts.h5", by_one)


def test_what_came_in_between_two_parts_makes_a_row_of_the_rest(
    archive: Path, by_one: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "parts.h5"
    _ingest_some(archive, output, 3, monkeypatch)
    h5dat_lib.ingest(make_zip(tmp_path / "other.zip", {"other.mp4": FILM}), output, IN_PARTS)
    h5dat_lib.ingest(archive, output, IN_PARTS)
    with h5dat_lib.open(output) as file, h5dat_lib.open(by_one) as whole:
        videos, frames = file["videos"], file["videos/frames"]
        names = [videos.origin(row).member for row in range(len(videos))]
        assert names == ["film.mp4", "other.mp4", "film.mp4", "again.mp4"]
        for row, (first, count) in enumerate(zip(videos["first"][:].tolist(), videos["count"][:].tolist(), strict=True)):
            assert (frames["video"][first : first + count] == row).all()
        mine = [number for row in (0, 2) for number in _numbers(file, row)]
        assert mine == _numbers(whole, 0)


def _numbers(file: h5dat_lib.File, video: int) -> list[int]:
    first, count = int(file["videos"]["first"][video]), int(file["videos"]["count"][video])
    numbers: list[int] = file["videos/frames"]["frame"][first : first + count].tolist()
    return numbers
