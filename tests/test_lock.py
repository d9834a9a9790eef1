"""One run an output: who holds it is named, who waits gets it, and who took it over from a killed run knows."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from h5dat_lib.errors import OutputError
from h5dat_lib.lock import WorkFolder


def _killed(output: Path) -> None:
    """A process that held the folder, and was killed."""
    code = "import os, sys; from pathlib import Path; from h5dat_lib.lock import WorkFolder; f = WorkFolder(Path(sys.argv[1])).__enter__();"
    code += "[(f.path / name).write_bytes(b'x') for name in ('a.stage', 'b.partial', 'c.plan')]; os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", code, str(output)], cwd=Path(__file__).parent.parent, check=False)


def test_a_second_holder_is_refused_and_the_first_is_named(tmp_path: Path) -> None:
    with WorkFolder(tmp_path / "out.h5"), pytest.raises(OutputError, match=r"another ingest is writing it \(process \d+ on .*--wait"):
        WorkFolder(tmp_path / "out.h5").__enter__()


def test_who_waits_gets_it_when_the_first_has_ended(tmp_path: Path) -> None:
    order: list[str] = []

    def second() -> None:
        with WorkFolder(tmp_path / "out.h5", wait=True):
            order.append("second")

    with WorkFolder(tmp_path / "out.h5"):
        waiting = threading.Thread(target=second)
        waiting.start()
        waiting.join(0.3)
        order.append("first")
    waiting.join(10)
    assert order == ["first", "second"]
    assert list(tmp_path.iterdir()) == []


def test_of_a_killed_run_what_was_staged_whole_stays_and_the_rest_is_removed(tmp_path: Path) -> None:
    _killed(tmp_path / "out.h5")
    with WorkFolder(tmp_path / "out.h5") as folder:
        assert folder.took_over
        assert [path.name for path in folder.path.iterdir()] == ["a.stage"]
    assert list(tmp_path.iterdir()) == []


def test_after_a_run_that_failed_what_was_staged_stays_and_nobody_was_killed(tmp_path: Path) -> None:
    folder = WorkFolder(tmp_path / "out.h5").__enter__()
    (folder.path / "a.stage").write_bytes(b"x")
    (folder.path / "a.plan").write_bytes(b"x")
    folder.__exit__(KeyError, KeyError(), None)
    with WorkFolder(tmp_path / "out.h5") as folder:
        assert not folder.took_over
        assert [path.name for path in folder.path.iterdir()] == ["a.stage"]


def test_a_link_to_an_output_is_the_same_output(tmp_path: Path) -> None:
    (tmp_path / "link.h5").symlink_to(tmp_path / "out.h5")
    with WorkFolder(tmp_path / "out.h5"), pytest.raises(OutputError, match="another ingest"):
        WorkFolder(tmp_path / "link.h5").__enter__()


def test_runs_that_work_in_different_folders_exclude_each_other(tmp_path: Path) -> None:
    with WorkFolder(tmp_path / "out.h5", tmp_path / "one"), pytest.raises(OutputError, match="another ingest"):
        WorkFolder(tmp_path / "out.h5", tmp_path / "other").__enter__()


def test_outputs_of_one_name_may_share_a_folder_to_work_in(tmp_path: Path) -> None:
    with WorkFolder(tmp_path / "a" / "out.h5", tmp_path / "work"), WorkFolder(tmp_path / "b" / "out.h5", tmp_path / "work"):
        assert len(list((tmp_path / "work").iterdir())) == 2
