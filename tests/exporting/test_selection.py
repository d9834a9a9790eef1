"""Which rows are exported, in what batches, from files in S3 and from damaged ones."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

import h5dat_lib
from h5dat_lib.errors import FormatError, UnknownName
from h5dat_lib.exporting import FORMS, ExportOptions, selection
from h5dat_lib.exporting.destination import numbered, safe_path
from h5dat_lib.exporting.selection import Chosen
from tests.conftest import Bucket, config, make_zip, picture


def test_a_slip_in_a_condition_is_answered_by_the_class_that_nearly_has_the_column(tmp_path: Path) -> None:
    h5dat_lib.ingest(make_zip(tmp_path / "a.zip", {"a.png": picture(), "b.csv": b"n\n1\n"}), tmp_path / "a.h5", config())
    with pytest.raises(UnknownName, match=r"images has no column 'hieght'.*did you mean 'height'"):
        h5dat_lib.export(tmp_path / "a.h5", tmp_path / "out", options=ExportOptions(where="hieght > 5"))


@pytest.mark.parametrize("storage", ["decoded", "encoded"])
def test_a_batch_has_about_so_many_bytes_or_one_row(tmp_path: Path, storage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "BATCH_BYTES", 10_000)
    members = {f"{n}.png": picture(10 * (n % 9 + 1), 40, seed=n) for n in range(40)}
    h5dat_lib.ingest(make_zip(tmp_path / "a.zip", members), tmp_path / "a.h5", config(image={"storage": storage}))
    with h5dat_lib.open(tmp_path / "a.h5") as file:
        pixels = file["images"].pixels
        sizes = [len(members[f"{n}.png"]) if storage == "encoded" else pixels[n].nbytes for n in range(40)]
        runs = list(Chosen("images", file["images"], "images", np.arange(40)).runs(["pixels"]))
    assert np.array_equal(np.concatenate(runs), np.arange(40)) and len(runs) > 10
    assert all(sum(sizes[row] for row in rows[1:]) <= 10_000 for rows in runs)


def test_a_file_in_s3_is_exported(tmp_path: Path, bucket: Bucket) -> None:
    h5dat_lib.ingest(
        make_zip(tmp_path / "a.zip", {"a.jpg": picture(format="JPEG")}), tmp_path / "a.h5", config(image={"storage": "encoded"})
    )
    found = h5dat_lib.export(bucket.put("a.h5", (tmp_path / "a.h5").read_bytes()), tmp_path / "out")
    assert found.identical == 1 and (tmp_path / "out" / "a.jpg").read_bytes() == picture(format="JPEG")


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("images/_member", 99, "rows of member 99"),
        ("lineage/members/archive", 7, "found archive 7"),
        ("images/_member", 2**63 + 1, "rows of member"),
    ],
)
def test_lineage_that_leads_nowhere_is_damage(tmp_path: Path, path: str, value: int, words: str) -> None:
    h5dat_lib.ingest(make_zip(tmp_path / "a.zip", {"a.png": picture(), "b.png": picture()}), tmp_path / "a.h5", config())
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        file[path][1:] = value
    with pytest.raises(FormatError, match=words):
        h5dat_lib.export(tmp_path / "a.h5", tmp_path / "out")
    assert sorted(name.name for name in tmp_path.iterdir()) == ["a.h5", "a.zip"]


@pytest.mark.parametrize(
    ("name", "layout", "words"),
    [("images/pixels", "text", "pixels: found a column of layout text"), ("tables/n", "dense", "expected values that CSV can hold")],
)
def test_columns_that_are_no_files_are_damage(tmp_path: Path, name: str, layout: str, words: str) -> None:
    members = {"a.png": picture(), "b.png": picture(9), "t.csv": b"n\n1\n"}
    h5dat_lib.ingest(make_zip(tmp_path / "a.zip", members), tmp_path / "a.h5", config())
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        file[name].attrs["layout"] = layout
    with pytest.raises(FormatError, match=words):
        h5dat_lib.export(tmp_path / "a.h5", tmp_path / "out")


def test_frames_go_with_their_videos_and_other_classes_do_not(tmp_path: Path) -> None:
    film = (Path(__file__).parents[1] / "data" / "audio" / "film.mp4").read_bytes()
    h5dat_lib.ingest(make_zip(tmp_path / "a.zip", {"f.mp4": film, "a.png": picture()}), tmp_path / "a.h5", config())
    found = h5dat_lib.export(tmp_path / "a.h5", tmp_path / "out", options=ExportOptions(["videos"]))
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"f.mp4"}
    assert [(left.name, left.rows) for left in found.left_out] == [("videos", 1)]


@pytest.mark.parametrize("to", FORMS)
def test_whoever_watches_is_told_how_many_rows_are_done(tmp_path: Path, to: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "BATCH_BYTES", 300)
    h5dat_lib.ingest(make_zip(tmp_path / "a.zip", {f"{n}.png": picture(seed=n) for n in range(6)}), tmp_path / "a.h5", config())
    told: list[tuple[int, int]] = []
    found = h5dat_lib.export(tmp_path / "a.h5", tmp_path / "out", to, watch=lambda done, total: told.append((done, total)))
    assert told[-1] == (6, 6) and found.rows == 6 and told == sorted(told)


@pytest.mark.parametrize(
    ("path", "safe"),
    [
        ("a/b.jpg", "a/b.jpg"),
        ("ä b/%41~.x", "ä b/%41~.x"),
        ("/a", "a"),
        ("a/../b", "a/%2E%2E/b"),
        ("C:/x", "C%3A/x"),
        ("a\\b", "a%5Cb"),
        ("nul.txt/NUL", "%nul.txt/%NUL"),
        ("a.", "a%2E"),
        ("", "%"),
    ],
)
def test_a_path_is_what_it_was_as_far_as_it_is_safe(path: str, safe: str) -> None:
    assert safe_path(path) == safe
    assert len(safe_path("ä" * 500 + ".jpg").encode()) <= 200 and safe_path("ä" * 500 + ".jpg").endswith("ä.jpg")


def test_a_number_comes_before_the_endings() -> None:
    names = ["a.jpg", "a/b.tar.gz", ".x", "x"]
    assert [numbered(name, 2) for name in names] == ["a~2.jpg", "a/b~2.tar.gz", ".x~2", "x~2"] and numbered("a.jpg", 1) == "a.jpg"
