"""Which archives lie below a prefix, where each goes, and which are not there yet."""

from __future__ import annotations

from pathlib import Path

import pytest

import h5dat_lib
from h5dat_lib.errors import ConfigError, InputError
from h5dat_lib.landing.destined import Destined, destined, lacking
from tests.conftest import Bucket, config, make_folder, make_zip

NAMES = ("a.tar.gz", "b.zip", "2024/c.v2.zip", "2024/deep/d", ".hidden.zip", ".partly/e.zip")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_folder(tmp_path / "in", dict.fromkeys(NAMES, b"x"))


def names(prefix: Path, pattern: str = "**", output: str = "/all.h5") -> list[str]:
    return [Path(each.archive).relative_to(prefix).as_posix() for each in destined(str(prefix), output, pattern)]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("**", ["2024/c.v2.zip", "2024/deep/d", "a.tar.gz", "b.zip"]),
        ("*", ["a.tar.gz", "b.zip"]),
        ("**/*.zip", ["2024/c.v2.zip", "b.zip"]),
        ("2024/*", ["2024/c.v2.zip"]),
    ],
)
def test_files_that_match_are_found_sorted_without_hidden_ones(folder: Path, pattern: str, found: list[str]) -> None:
    assert names(folder, pattern) == names(Path(f"{folder}/"), pattern) == found


def test_an_output_may_be_named_by_each_archive(folder: Path) -> None:
    outputs = {Path(each.archive).name: each.output for each in destined(str(folder), "s3://b/{prefix}/{stem}.h5")}
    assert outputs == {
        "a.tar.gz": "s3://b/a.h5", "b.zip": "s3://b/b.h5", "c.v2.zip": "s3://b/2024/c.v2.h5", "d": "s3://b/2024/deep/d.h5",
    }  # fmt: skip


def test_outputs_below_the_prefix_are_no_archives(folder: Path) -> None:
    (folder / "b.h5").touch()
    (folder / "other.h5").touch()
    assert "b.h5" not in names(folder, "*", f"{folder}/{{stem}}.h5")
    assert "other.h5" not in names(folder, "*", f"{folder}/other.h5")
    assert "b.h5" in names(folder, "*", f"{folder}/other.h5")


def test_an_unknown_placeholder_and_a_missing_folder_are_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"found \{name\}, expected \{stem\} or \{prefix\}"):
        destined(str(tmp_path), "/{name}.h5")
    with pytest.raises(InputError, match="absent/: cannot be listed"):
        destined(str(tmp_path / "absent"), "/all.h5")


def test_objects_below_a_prefix_are_found_and_folder_markers_are_not(quick_bucket: Bucket) -> None:
    for key in ("in/a.zip", "in/", "in/x/b c+.zip", "in/x/.c.zip", "inner/d.zip"):
        quick_bucket.put(key, b"x")
    found = destined(quick_bucket.uri("in"), "/{prefix}/{stem}.h5")
    assert found == [Destined(quick_bucket.uri("in/a.zip"), "/a.h5"), Destined(quick_bucket.uri("in/x/b c+.zip"), "/x/b c+.h5")]


def test_archives_that_are_whole_in_their_output_are_not_lacking(tmp_path: Path) -> None:
    inputs = make_folder(tmp_path / "in", {"broken.zip": b"PK\3\4"})
    for name in ("a", "b"):
        make_zip(inputs / f"{name}.zip", {f"{name}.txt": name.encode()})
    output = str(tmp_path / "out.h5")
    wanted = destined(str(inputs), output)
    assert lacking(wanted, config()) == wanted
    h5dat_lib.ingest(inputs / "a.zip", output, config())
    assert [Path(each.archive).name for each in lacking(wanted, config())] == ["b.zip", "broken.zip"]
    make_zip(inputs / "a.zip", {"a.txt": b"another"})
    assert len(lacking(wanted, config())) == 3
