"""The command that exports: its words reach the library, what it has made is told, errors are a line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import h5dat_lib
from tests.conftest import Ran, config, make_zip, picture

Run = Callable[..., Ran]


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exports")
    members = {f"{n}.jpg": picture(8 + n, seed=n, format="JPEG") for n in range(6)} | {"t.csv": b"n\n1\n2\n", "x.txt": b"words"}
    h5dat_lib.ingest(make_zip(folder / "a.zip", members), folder / "a.h5", config(image={"storage": "encoded"}))
    return folder / "a.h5"


def test_json_says_what_was_made(h5dat: Run, output: Path, tmp_path: Path) -> None:
    made = json.loads(h5dat("export", output, tmp_path / "out", "--classes", "images,texts", "--where", "member < '4'", "--json").out)
    assert (made["form"], made["files"], made["rows"], made["identical"], made["left_out"]) == ("folder", 4, 4, 4, [])
    assert set(made) == {"path", "form", "files", "bytes", "rows", "identical", "renamed", "left_out", "seconds"}
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["0.jpg", "1.jpg", "2.jpg", "3.jpg"]


def test_people_are_told_what_was_left_out(h5dat: Run, output: Path, tmp_path: Path) -> None:
    ran = h5dat("export", output, tmp_path / "out.tar", "--split", "all=1")
    assert "7 rows as webdataset in 1 files" in ran.out and "left out: 2 rows of tables" in ran.out and ran.err == ""
    assert h5dat("export", output, tmp_path / "quiet", "--quiet").out == ""


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (("--to", "zip"), "expected one of folder, webdataset, parquet, huggingface, coco"),
        (("--split", "train=x"), "expected a column, or shares"),
        (("--classes", "image"), "no class 'image'"),
        (("--where", "n > 1", "--to", "webdataset"), "found nothing for webdataset in the rows"),
        (("--by", "size", "--to", "webdataset"), "expected key or name"),
    ],
)
def test_what_cannot_be_is_one_line(h5dat: Run, output: Path, tmp_path: Path, words: tuple[str, ...], found: str) -> None:
    ran = h5dat("export", output, tmp_path / "out", *words)
    assert ran.code == 2 and found in ran.err and ran.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
