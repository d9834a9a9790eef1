"""Marks: what a process noted last is read by others, also after its death."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from h5dat_lib.stage.marks import IDLE, Mark, Place, read_mark


def test_a_private_mark_is_read_by_its_process_only(tmp_path: Path) -> None:
    mark = Mark()
    mark.note(Place(1, 2, 3, 4.5))
    assert mark.place == Place(1, 2, 3, 4.5) and not mark.shared
    assert list(tmp_path.iterdir()) == []


def test_a_shared_mark_is_idle_until_a_place_is_noted(tmp_path: Path) -> None:
    mark = Mark()
    mark.share(tmp_path / "a.mark")
    assert mark.shared and read_mark(tmp_path / "a.mark") == IDLE
    mark.note(Place(1, 2, 3, 4.5))
    assert read_mark(tmp_path / "a.mark") == Place(1, 2, 3, 4.5)


def test_a_mark_outlives_a_process_that_is_killed(tmp_path: Path) -> None:
    code = """
import os, pathlib, sys
from h5dat_lib.stage.marks import Mark, Place
mark = Mark()
mark.share(pathlib.Path(sys.argv[1]))
mark.note(Place(0, 7, 41))
os.kill(os.getpid(), 9)
"""
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.mark")], check=False).returncode == -9
    assert read_mark(tmp_path / "a.mark") == Place(0, 7, 41)


def test_a_mark_that_is_not_there_or_not_begun_is_idle(tmp_path: Path) -> None:
    (tmp_path / "empty.mark").touch()
    assert read_mark(tmp_path / "none.mark") == read_mark(tmp_path / "empty.mark") == IDLE
