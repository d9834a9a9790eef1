"""The flow, on a real Prefect server with real worker processes: what it makes, what the server shows, what is left behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

import h5dat_lib
from tests.conftest import config, make_zip, picture
from tests.flows.conftest import FirstRun
from tests.poison.killers import REASONS, assert_only_killers_are_rejected, poisoned, texts

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Server:
    """A standing server, and the environment in which commands find it."""

    url: str
    environment: dict[str, str]

    def ask(self, what: str, **filters: Any) -> Any:
        """What the API answers, for example to ``flow_runs``."""
        url = f"{self.url}/api/{what}/filter"
        request = urllib.request.Request(url, json.dumps(filters).encode(), {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def run_of(self, output: Path) -> Any:
        """The flow run that wrote an output."""
        [run] = self.ask("flow_runs", flow_runs={"name": {"any_": [str(output)]}})
        return run

    def of_run(self, what: str, run: Any, count: int) -> Any:
        """Task runs or artifacts of a run, once there are as many; the server learns of them with a delay."""
        for _ in range(100):
            found = self.ask(what, flow_runs={"id": {"any_": [run["id"]]}})
            if len(found) >= count:
                break
            time.sleep(0.1)
        return found


def _environment(home: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return {**kept, "H5DAT_HOME": str(home), "PYTHONPATH": str(ROOT)}


def _h5dat(environment: dict[str, str], *words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "flows.cli", *map(str, words)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=180, check=False)


@pytest.fixture(scope="module")
def server(first_run: FirstRun, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    environment = _environment(shutil.copytree(first_run.home, tmp_path_factory.mktemp("home") / "home"))
    up = _h5dat(environment, "up")
    assert up.returncode == 0, up
    try:
        yield Server(up.stdout.split()[-1].rstrip("/"), environment)
    finally:
        down = _h5dat(environment, "down")
        assert down.returncode == 0, down


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    members = {f"{n:03}.png": picture(40, 30, n) for n in range(60)} | {"bad.json": b"{", "good.json": b'{"a": 1}'}
    return make_zip(tmp_path / "a.zip", members)


@pytest.fixture
def small_batches(tmp_path: Path) -> Path:
    path = tmp_path / "small.json"
    path.write_text('{"batch_seconds": 0.01, "workers": 2}')
    return path


def test_a_run_through_prefect_gives_what_a_direct_one_gives_and_is_seen_on_the_server(
    server: Server, tmp_path: Path, archive: Path, small_batches: Path
) -> None:
    output = tmp_path / "out.h5"
    ran = _h5dat(server.environment, "ingest", archive, "-o", output, "-c", small_batches, "--json")
    assert (ran.returncode, ran.stderr) == (0, ""), ran
    report = json.loads(ran.stdout)
    h5dat_lib.ingest(archive, tmp_path / "direct.h5", config(batch_seconds=0.01))
    with h5dat_lib.open(output) as one, h5dat_lib.open(tmp_path / "direct.h5") as other:
        assert (one["images"].pixels[:] == other["images"].pixels[:]).all()
        assert list(one.rejects()) == list(other.rejects())

    run = server.run_of(output)
    assert run["state_type"] == "COMPLETED"
    tasks = server.of_run("task_runs", run, report["batches"] + 1)
    batches = [task["name"] for task in tasks if task["name"].startswith("batch")]
    assert sorted(batches) == sorted(f"batch 0-{number}" for number in range(report["batches"]))
    assert report["batches"] > 2
    artifacts = {artifact["key"] or artifact["type"]: artifact["data"] for artifact in server.of_run("artifacts", run, 4)}
    assert artifacts["progress"] == 100.0
    classes = {entry["class"]: entry["rows"] for entry in json.loads(artifacts["h5dat-classes"])}
    assert classes == {"documents": 1, "images": 60, "(all)": 61}
    assert [entry["member"] for entry in json.loads(artifacts["h5dat-rejects"])] == ["bad.json"]
    assert "(data:image/jpeg;base64," in artifacts["h5dat-contact-sheet"]
    logs = [entry["message"] for entry in server.ask("logs", logs={"flow_run_id": {"any_": [run["id"]]}}, limit=200)]
    assert any(message.startswith("batch 0-1: ") for message in logs)
    assert any(message.startswith("committed batches 0-") for message in logs)


def test_members_that_kill_their_workers_are_rejected_and_the_pool_comes_back(server: Server, tmp_path: Path) -> None:
    killers = [name for name in REASONS if name != "hang"]
    names = ["a", "hang", *(name for killer in killers for name in (killer, f"behind-{killer}"))]
    (tmp_path / "tight.json").write_text('{"workers": 2, "limits": {"member_seconds": 3, "member_memory": 268435456}}')
    words = ["ingest", make_zip(tmp_path / "a.zip", texts(*names)), "-o", tmp_path / "out.h5", "-c", tmp_path / "tight.json", "--quiet"]
    ran = _h5dat(server.environment | poisoned(), *words)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", ""), ran
    assert_only_killers_are_rejected(tmp_path / "out.h5", names)
    run = server.run_of(tmp_path / "out.h5")
    assert run["state_type"] == "COMPLETED"
    [lost] = [task for task in server.of_run("task_runs", run, 2) if task["name"] == "batch 0-0"]
    assert (lost["state_type"], lost["state"]["message"].split(";")[0]) == ("CRASHED", "its worker process has ended")


def test_a_failed_run_is_failed_on_the_server_and_one_line_here(server: Server, tmp_path: Path, archive: Path) -> None:
    (tmp_path / "strict.json").write_text('{"max_rejects": 0, "task_runner": "threads"}')
    ran = _h5dat(server.environment, "ingest", archive, "-o", tmp_path / "out.h5", "-c", tmp_path / "strict.json")
    assert ran.returncode == 1 and ran.stderr.count("\n") == 1, ran
    assert server.run_of(tmp_path / "out.h5")["state_type"] == "FAILED"
    with h5dat_lib.open(tmp_path / "out.h5") as file:
        assert len(file["images"]) == 60


def test_bad_input_makes_no_flow_run(server: Server, tmp_path: Path) -> None:
    ran = _h5dat(server.environment, "ingest", tmp_path / "none.zip", "-o", tmp_path / "out.h5")
    assert ran.returncode == 2 and ran.stderr.count("\n") == 1 and "none.zip" in ran.stderr, ran
    assert server.ask("flow_runs", flow_runs={"name": {"any_": [str(tmp_path / "out.h5")]}}) == []


def test_the_python_function_runs_the_same_flow(server: Server, tmp_path: Path, archive: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, flows\nfrom h5dat_lib import Config\n"
        "if __name__ == '__main__':\n    print(flows.ingest(sys.argv[1], sys.argv[2], Config(workers=1)).rows)\n"
    )
    command = [sys.executable, str(script), str(archive), str(tmp_path / "out.h5")]
    ran = subprocess.run(command, env=server.environment, capture_output=True, text=True, timeout=180, check=False)
    assert (ran.returncode, ran.stdout) == (0, "61\n"), ran
    assert server.run_of(tmp_path / "out.h5")["state_type"] == "COMPLETED"


def test_without_a_server_one_is_started_for_the_run_and_its_history_kept(home: Path, tmp_path: Path, archive: Path) -> None:
    environment = _environment(home)
    ran = _h5dat(environment, "ingest", archive, "-o", tmp_path / "out.h5", "--quiet")
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", ""), ran
    assert len(_processes_with(home)) == 0
    up = _h5dat(environment, "up")
    try:
        later = Server(up.stdout.split()[-1].rstrip("/"), environment)
        assert later.run_of(tmp_path / "out.h5")["state_type"] == "COMPLETED"
    finally:
        _h5dat(environment, "down")


def _processes_with(home: Path) -> list[psutil.Process]:
    """Processes that work in this home, by their environment."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("H5DAT_HOME") == str(home) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def _started(environment: dict[str, str], tmp_path: Path) -> subprocess.Popen[bytes]:
    """An ingest that has committed its first batches and has more to do."""
    archive = make_zip(tmp_path / "slow.zip", {f"{n:04}.bmp": picture(900, 900, n, format="BMP") for n in range(100)}, zipfile.ZIP_STORED)
    (tmp_path / "small.json").write_text('{"batch_seconds": 0.3, "workers": 2}')
    words = ["ingest", archive, "-o", tmp_path / "out.h5", "-c", tmp_path / "small.json"]
    command = [sys.executable, "-m", "flows.cli", *map(str, words)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
    output, deadline = tmp_path / "out.h5", time.monotonic() + 120
    while not (output.exists() and output.stat().st_size > 1_000_000) and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.02)
    return process


def test_ctrl_c_ends_the_flow_and_leaves_a_readable_output(server: Server, tmp_path: Path) -> None:
    process = _started(server.environment, tmp_path)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, (out, err)
    *progress, said = err.splitlines()
    assert b"same command" in said and all(b" members, " in line for line in progress), err  # none but on a busy machine
    with h5dat_lib.open(tmp_path / "out.h5") as file:
        assert 0 < len(file["images"]) < 100
    assert server.run_of(tmp_path / "out.h5")["state_type"] == "CANCELLED"


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux' own")
def test_a_killed_flow_leaves_no_worker_and_no_server_and_the_next_goes_on_at_once(home: Path, tmp_path: Path) -> None:
    process = _started(_environment(home), tmp_path)
    assert len(_processes_with(home)) >= 4  # flow, server, two workers
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    deadline = time.monotonic() + 10
    while left := _processes_with(home):
        assert time.monotonic() < deadline, f"still there: {left}"
        time.sleep(0.1)
    started = time.monotonic()
    subprocess.run(process.args, env=_environment(home), capture_output=True, check=True, timeout=120)
    assert time.monotonic() - started < 50, "waited for the lease of the killed run, which is 60 s"
    with h5dat_lib.open(tmp_path / "out.h5") as file:
        members = [file["images"].origin(row).member for row in range(len(file["images"]))]
        assert members == sorted(members) and len(set(members)) == 100


_RETRIED = """
import sys
from flows.ingest_archives import ingest_archives
from h5dat_lib.config import load
from h5dat_lib.pipeline import Ingest
from pathlib import Path

plain, calls = Ingest.commit, []

def commit(self, staged):
    calls.append(len(staged))
    if len(calls) == 3:
        raise OSError("the network is away for a moment")
    return plain(self, staged)

Ingest.commit = commit
if __name__ == "__main__":
    report = ingest_archives.with_options(retries=1, retry_delay_seconds=0)([sys.argv[1]], sys.argv[2], load(Path(sys.argv[3])))
    print(report.skipped, report.rows)
"""


def test_a_retry_by_prefect_goes_on_from_the_last_commit(server: Server, tmp_path: Path, archive: Path) -> None:
    (tmp_path / "retried.py").write_text(_RETRIED)
    (tmp_path / "each.json").write_text('{"batch_seconds": 0.01, "commit_seconds": 0, "task_runner": "threads", "workers": 1}')
    command = [sys.executable, tmp_path / "retried.py", archive, tmp_path / "out.h5", tmp_path / "each.json"]
    environment = server.environment | {"PREFECT_API_URL": f"{server.url}/api"}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, ran
    skipped, rows = map(int, ran.stdout.split()[-2:])
    with h5dat_lib.open(tmp_path / "out.h5") as file:
        assert skipped > 0 and len(file["images"]) == 60 and rows < 61
        assert [run["status"] for run in file.runs()] == ["failed", "done"]
