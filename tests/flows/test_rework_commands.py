"""diff, merge and repack on the command line: what they print, and their exit codes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import h5dat_lib
from tests.conftest import Ran, config, make_zip, picture


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rework")
    for n in range(2):
        archive = make_zip(folder / f"{n}.zip", {f"{n}{m}.png": picture(seed=n * 9 + m) for m in range(4)})
        h5dat_lib.ingest(archive, folder / f"{n}.h5", config())
    return folder


def test_diff_has_three_exit_codes(home: Path, tmp_path: Path, h5dat: Callable[..., Ran]) -> None:
    same = h5dat("diff", home / "0.h5", home / "0.h5")
    assert (same.code, same.out) == (0, f"{home / '0.h5'}, {home / '0.h5'}: the same values\n")
    other = h5dat("diff", home / "0.h5", home / "1.h5", "--limit", 4)
    lines = other.out.splitlines()
    assert other.code == 1
    assert lines[2] == f"- rows, images, member 00.png, of {home / '0.zip'}, 1 rows"
    assert lines[-2:] == ["... and 6 more", f"{home / '0.h5'}, {home / '1.h5'}: differ: 2 archive, 8 rows"]
    missing = h5dat("diff", home / "0.h5", tmp_path / "none.h5")
    assert missing.code == 2 and "no such file" in missing.err and len(missing.err.splitlines()) == 1
    assert h5dat("diff", home / "0.h5", home / "1.h5", "--quiet") == Ran(1, "", "")


def test_diff_prints_json_for_scripts(home: Path, h5dat: Callable[..., Ran]) -> None:
    ran = h5dat("diff", home / "0.h5", home / "1.h5", "--json", "--limit", 3)
    found = json.loads(ran.out)
    assert ran.code == 1
    assert list(found) == ["a", "b", "same", "differences", "counts", "more", "storage"]
    assert (found["same"], found["counts"], found["more"]) == (False, {"archive": 2, "rows": 8}, 7)
    assert found["differences"][2]["member"] == "00.png"


def test_merge_and_repack_say_what_they_have_done(home: Path, tmp_path: Path, h5dat: Callable[..., Ran]) -> None:
    shutil.copyfile(home / "0.h5", tmp_path / "copy.h5")
    ran = h5dat("merge", home / "0.h5", home / "1.h5", tmp_path / "copy.h5", "-o", tmp_path / "out.h5")
    assert ran.code == 0
    assert ran.out.splitlines()[0] == f"{home / '0.zip'}: is in several files, and came in once"
    assert "8 rows of 8 members in 2 archives, 0 rejects" in ran.out
    again = h5dat("merge", home / "0.h5", home / "1.h5", "-o", tmp_path / "out.h5")
    assert again.code == 2 and "is there already" in again.err
    repacked = h5dat("repack", tmp_path / "out.h5", "--layout", "ragged")
    assert (repacked.code, repacked.err.startswith("needs up to ")) == (0, True)
    assert "8 rows, 2.1 MB before, 2.1 MB now" in repacked.out
    wrong = h5dat("repack", tmp_path / "out.h5", "--filter", "zip")
    assert wrong.code == 2 and "filter" in wrong.err


def test_merge_and_repack_print_json_for_scripts(home: Path, tmp_path: Path, h5dat: Callable[..., Ran]) -> None:
    merged = json.loads(h5dat("merge", home / "0.h5", home / "1.h5", "-o", tmp_path / "out.h5", "--json").out)
    assert list(merged) == ["output", "inputs", "rows", "archives", "members", "rejects", "duplicates", "bytes", "seconds"]
    assert (merged["rows"], merged["archives"], merged["duplicates"]) == (8, 2, [])
    repacked = json.loads(h5dat("repack", tmp_path / "out.h5", "-o", tmp_path / "other.h5", "--json").out)
    assert list(repacked) == ["path", "output", "before", "after", "rows", "seconds"]
    assert repacked["after"] == (tmp_path / "other.h5").stat().st_size
