"""Workers that die, hang or take all memory: it costs the member that does it, and no other; real processes, real deaths."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

import h5dat_lib
from h5dat_lib.archive import open_archive
from h5dat_lib.errors import H5datError
from h5dat_lib.plan.batches import Batch, Plan
from h5dat_lib.plan.layout import Forms
from h5dat_lib.stage.batch import Staged, stage
from h5dat_lib.stage.staged import StagedFile
from h5dat_lib.stage.workers import Convert, OpenPool, Workers, interrupts_held_back
from tests.conftest import config, make_zip, picture
from tests.poison.killers import REASONS, assert_only_killers_are_rejected, poisoned, texts


def command(tmp_path: Path, *archives: Path, seconds: float = 3, batch_seconds: float = 8) -> list[str]:
    """An ingest of archives with tight limits."""
    limits = {"member_seconds": seconds, "member_memory": 1 << 28}
    (tmp_path / "tight.json").write_text(json.dumps({"workers": 2, "batch_seconds": batch_seconds, "limits": limits}))
    words = ["ingest", *archives, "-o", tmp_path / "out.h5", "-c", tmp_path / "tight.json", "--quiet"]
    return [sys.executable, "-m", "flows.cli", *map(str, words)]


def processes_with(folder: Path) -> list[psutil.Process]:
    """Living processes that have this folder as their H5DAT_HOME, as all have that a command of a test starts."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("H5DAT_HOME") == str(folder) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def assert_all_gone(folder: Path) -> None:
    """No process of a command is left, after some seconds at most."""
    for _ in range(50):
        if not processes_with(folder):
            return
        time.sleep(0.1)
    pytest.fail(f"still there: {processes_with(folder)}")


def run(tmp_path: Path, *archives: Path, batch_seconds: float = 8) -> None:
    """Ingests archives of killers; the run ends well, without a word, and leaves no process."""
    words = [*command(tmp_path, *archives, batch_seconds=batch_seconds), "--direct"]
    ran = subprocess.run(
        words, env={**os.environ, **poisoned(), "H5DAT_HOME": str(tmp_path)}, capture_output=True, text=True, timeout=120, check=False
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", ""), ran
    assert_all_gone(tmp_path)


def test_each_way_to_kill_a_worker_costs_its_member_and_no_other(tmp_path: Path) -> None:
    names = [name for killer in REASONS for name in (f"before-{killer}", killer, f"behind-{killer}")]
    run(tmp_path, make_zip(tmp_path / "a.zip", texts(*names)))
    assert_only_killers_are_rejected(tmp_path / "out.h5", names)


def test_a_killer_may_be_anywhere_and_most_members_killers(tmp_path: Path) -> None:
    archives = [["segv-only"], ["segv-first", "a", "b"], ["c", "d", "exit-last"], ["kill-0", "e", *(f"segv-{n}" for n in range(40))]]
    run(tmp_path, *[make_zip(tmp_path / f"{number}.zip", texts(*names)) for number, names in enumerate(archives)])
    assert_only_killers_are_rejected(tmp_path / "out.h5", [name for names in archives for name in names])


def test_where_no_process_can_be_forked_a_worker_dies_for_each_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", poisoned()["PYTHONPATH"])
    monkeypatch.setattr("h5dat_lib.stage.workers._TRY", stage)
    names = ["a", "segv", "b", "hang", "exit", "c"]
    settings = config(task_runner="processes", limits={"member_seconds": 3})
    h5dat_lib.ingest(make_zip(tmp_path / "a.zip", texts(*names)), tmp_path / "out.h5", settings)
    assert_only_killers_are_rejected(tmp_path / "out.h5", names)


def test_batches_of_several_archives_are_kept_whole_around_their_killers(tmp_path: Path) -> None:
    names = [[f"{archive}-{n}" for n in range(120)] for archive in "ab"]
    for of_archive in names:
        of_archive[5:5] = [f"segv-{of_archive[0]}"]
        of_archive[90:90] = [f"hang-{of_archive[0]}", f"abort-{of_archive[0]}"]
    make_zip(tmp_path / "a.zip", texts(*names[0]))
    with tarfile.open(tmp_path / "b.tar.gz", "w:gz") as archive:
        for name, data in texts(*names[1]).items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    run(tmp_path, tmp_path / "a.zip", tmp_path / "b.tar.gz", batch_seconds=0.02)
    assert_only_killers_are_rejected(tmp_path / "out.h5", names[0] + names[1])


@pytest.fixture
def hanging(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A run whose pool goes on while a batch is converted apart, in a process that hangs."""
    members = texts("segv", "hang") | {f"{n:04}.bmp": picture(700, 700, n, format="BMP") for n in range(4)}
    words = [*command(tmp_path, make_zip(tmp_path / "a.zip", members), seconds=600), "--direct"]
    environment = {**os.environ, **poisoned(), "H5DAT_HOME": str(tmp_path)}
    process = subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    pieces = tmp_path / ".out.h5.h5dat"
    deadline = time.monotonic() + 60
    # The reject of the first killer is staged, and the piece behind it begun.
    while not (list(pieces.glob("*.piece")) and list(pieces.glob("*.1.*.partial"))) and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    yield process
    process.kill()
    process.communicate()


def test_ctrl_c_does_not_wait_for_a_decoder_that_hangs(tmp_path: Path, hanging: subprocess.Popen[str]) -> None:
    os.killpg(hanging.pid, signal.SIGINT)
    _, err = hanging.communicate(timeout=10)
    assert hanging.returncode == 130 and err.count("\n") == 1, err
    assert_all_gone(tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux' own")
def test_a_run_that_is_killed_leaves_no_process_not_even_one_that_hangs(tmp_path: Path, hanging: subprocess.Popen[str]) -> None:
    assert len(processes_with(tmp_path)) >= 4  # the run, a worker, the worker that forks, its child
    hanging.kill()
    assert_all_gone(tmp_path)


# What the pool does, played


@pytest.fixture
def batch(tmp_path: Path) -> Batch:
    settings = config()
    (tmp_path / "config.json").write_text(settings.to_json())
    archive = make_zip(tmp_path / "a.zip", texts("a", "b", "c"))
    [batch] = Plan(open_archive(str(archive), settings.limits), 0, settings, tmp_path).batches(Forms())
    return batch


def played(*outcomes: Callable[[Batch], Staged]) -> OpenPool:
    """A pool of which each batch that is sent has the next outcome."""
    left = deque(outcomes)

    def convert(batch: Batch) -> Future[Staged]:
        future: Future[Staged] = Future()
        try:
            future.set_result(left.popleft()(batch))
        except (BrokenProcessPool, MemoryError, OSError) as exc:
            future.set_exception(exc)
        return future

    @contextmanager
    def open_pool(start: Callable[[], None]) -> Iterator[Convert]:
        yield convert

    return open_pool


def fails(error: Exception) -> Callable[[Batch], Staged]:
    def fail(batch: Batch) -> Staged:
        raise error

    return fail


def test_a_batch_that_is_lost_through_no_fault_of_its_own_is_sent_again(tmp_path: Path, batch: Batch) -> None:
    pool = played(fails(BrokenProcessPool()), fails(BrokenProcessPool()), stage)
    with Workers(pool, config(), tmp_path) as workers:
        assert workers.submit(batch).result().paths == (batch.stage,)


def test_workers_that_die_before_they_begin_end_the_run(tmp_path: Path, batch: Batch) -> None:
    pool = played(*[fails(BrokenProcessPool())] * 9)
    with Workers(pool, config(), tmp_path) as workers, pytest.raises(H5datError, match="died 3 times before they had begun"):
        workers.submit(batch).result()


def test_an_error_of_a_worker_is_raised_by_the_result(tmp_path: Path, batch: Batch) -> None:
    with Workers(played(fails(OSError("no such device"))), config(), tmp_path) as workers, pytest.raises(OSError, match="no such device"):
        workers.submit(batch).result()


def test_a_batch_that_finds_no_memory_behind_the_decoder_is_converted_in_pieces(tmp_path: Path, batch: Batch) -> None:
    with Workers(played(fails(MemoryError())), config(), tmp_path) as workers:
        staged = workers.submit(batch).result()
    assert (staged.members, staged.rows, staged.rejects, len(staged.paths)) == (3, 3, 0, 2)
    rows = []
    for path in staged.paths:
        with StagedFile(Path(path)) as file:
            rows += [segment.rows for segment in file.segments("texts")]
    assert rows == [1, 2]


def test_a_result_that_is_not_there_in_time_raises_timeout_error(tmp_path: Path, batch: Batch) -> None:
    @contextmanager
    def open_pool(start: Callable[[], None]) -> Iterator[Convert]:
        yield lambda batch: Future()

    with Workers(open_pool, config(), tmp_path) as workers, pytest.raises(TimeoutError):
        workers.submit(batch).result(0.3)


def test_a_pool_whose_workers_are_ended_while_batches_are_sent_to_them_ends(tmp_path: Path) -> None:
    """What is sent is more than a pipe holds."""
    script = tmp_path / "pool.py"
    script.write_text(
        "import multiprocessing, time\n"
        "from h5dat_lib.stage.workers import process_pool\n"
        "def start(): pass\n"
        "def work(batch): time.sleep(60)\n"
        "if __name__ == '__main__':\n"
        "    with process_pool(1, start, work) as submit:\n"
        "        for _ in range(4):\n"
        "            submit(bytes(1 << 20))\n"
        "        time.sleep(2)\n"
        "        for process in multiprocessing.active_children():\n"
        "            process.terminate()\n"
        "    print('ended')\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    ran = subprocess.run([sys.executable, str(script)], env=environment, capture_output=True, text=True, timeout=40, check=False)
    assert ran.stdout == "ended\n", ran


def test_a_process_that_is_just_starting_does_not_see_ctrl_c() -> None:
    code = "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\nprint('goes on')"
    with interrupts_held_back():
        ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "goes on\n", "")
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
