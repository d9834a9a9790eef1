"""What the tests of deployments share: a standing server with everything deployed on it, a worker of its pool, and a run that is killed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote

import psutil
import pytest

from tests.conftest import make_zip, picture
from tests.flows.conftest import ROOT, FirstRun, call, first_run
from tests.servers import heed_interrupts

__all__ = ["first_run"]

POOL = "test-pool"
KILLED = 100
"""Members of the archive whose run is killed: some twenty batches, a commit each."""


@dataclass(frozen=True)
class Service:
    """A server that stays, the environment in which commands find it, and the worker of the pool."""

    url: str
    environment: dict[str, str]
    worker: subprocess.Popen[bytes]
    log: Path

    def ask(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """What the API answers: to a GET, or to a POST if there is a body. A busy server asks to be asked again, as it asks its clients."""

        def answer() -> Any:
            try:
                return [call(f"{self.url}/{path}", body)]
            except HTTPError as exc:
                if exc.code != 503:
                    raise
                return None

        return waited(answer)[0]

    def deployment(self, name: str) -> Any:
        return self.ask(f"deployments/name/{quote(name)}")

    def start(self, name: str, **parameters: Any) -> str:
        """Makes a run of a deployment as the UI does, and gives its id."""
        body = {"parameters": parameters, "idempotency_key": str(uuid.uuid4())}
        run: str = self.ask(f"deployments/{self.deployment(name)['id']}/create_flow_run", body)["id"]
        return run

    def until(self, run: str, *names: str, seconds: float = 240) -> Any:
        """A run once its state has one of these names."""
        return waited(lambda: found if (found := self.ask(f"flow_runs/{run}"))["state_name"] in names else None, seconds, self.log)

    def ended(self, run: str) -> Any:
        return self.until(run, "Completed", "Failed", "Cancelled", "Crashed", "TimedOut")

    def artifacts(self, run: str) -> dict[str, Any]:
        found = self.ask("artifacts/filter", {"flow_runs": {"id": {"any_": [run]}}})
        return {artifact["key"]: artifact["data"] for artifact in found}

    def h5dat(self, *words: object) -> subprocess.CompletedProcess[str]:
        return h5dat(self.environment, *words)

    def python(self, code: str, *arguments: object, **environment: str) -> str:
        """What a program prints that is a client of the server."""
        command = [sys.executable, "-c", code, *map(str, arguments)]
        ran = subprocess.run(command, env=self.environment | environment, capture_output=True, text=True, timeout=240, check=False)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout


def waited(look: Callable[[], Any], seconds: float = 120, log: Path | None = None) -> Any:
    """What is looked for, once it is there."""
    end = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < end, log.read_text() if log else "not in time"
        time.sleep(0.2)
    return found


def h5dat(environment: dict[str, str], *words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "flows.cli", *map(str, words)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)


@pytest.fixture(scope="session")
def service(first_run: FirstRun, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("service")
    shutil.copytree(first_run.home, folder / "home")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "AWS_", "H5DAT_"))}
    environment |= {"H5DAT_HOME": str(folder / "home"), "PYTHONPATH": str(ROOT), "HOME": str(folder), "PREFECT_WORKER_QUERY_SECONDS": "1"}
    try:
        deployed = h5dat(environment, "deploy", "--pool", POOL)
        assert deployed.returncode == 0, deployed
        url = deployed.stdout.split("Look at it: ")[1].split("/deployments")[0] + "/api"
        environment |= {"PREFECT_API_URL": url, "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false", "DO_NOT_TRACK": "1"}
        with (folder / "worker.log").open("wb") as log:
            command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", POOL, "--install-policy", "never"]
            worker = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=folder, preexec_fn=heed_interrupts)
        try:
            yield Service(url, environment, worker, folder / "worker.log")
        finally:
            worker.send_signal(signal.SIGTERM)
            worker.wait(60)
    finally:
        h5dat(environment, "down")


@dataclass(frozen=True)
class Killed:
    """A run whose process was killed in the middle, and the output that it was writing."""

    run: str
    output: Path
    workers: list[psutil.Process]
    certificates: set[str | None]
    """What the workers of its pool have for PREFECT_API_SSL_CERT_FILE."""


@pytest.fixture(scope="session")
def killed(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Killed]:
    """Begins at once and goes on beside the other tests; gives what there is to see once the process has been killed."""
    folder = tmp_path_factory.mktemp("killed")
    archive = make_zip(folder / "a.zip", {f"{n:03}.png": picture(400, 300, n) for n in range(KILLED)})
    output = folder / "out.h5"
    run = service.start(
        "ingest archives/ingest-archive", archives=[str(archive)], output=str(output),
        config={"batch_seconds": 0.1, "commit_seconds": 0, "workers": 1},
    )  # fmt: skip
    found: list[Killed] = []
    thread = threading.Thread(target=lambda: found.append(_kill(service, run, output)))
    thread.start()

    def get() -> Killed:
        thread.join()
        return found[0]

    return get


def _kill(service: Service, run: str, output: Path) -> Killed:
    waited(lambda: _committed(service, run), 240, service.log)
    process = next(each for each in psutil.Process(service.worker.pid).children(recursive=True) if _is_of(each, run))
    workers = process.children(recursive=True)
    certificates = {each.environ().get("PREFECT_API_SSL_CERT_FILE") for each in workers}
    process.kill()
    return Killed(run, output, workers, certificates)


def _committed(service: Service, run: str) -> bool:
    return any(
        (task["name"], task["state_name"]) == ("commit", "Completed")
        for task in service.ask("task_runs/filter", {"flow_runs": {"id": {"any_": [run]}}})
    )


def _is_of(process: psutil.Process, run: str) -> bool:
    try:
        return process.cmdline()[1:3] == ["-m", "prefect.engine"] and process.environ().get("PREFECT__FLOW_RUN_ID") == run
    except psutil.Error:
        return False
