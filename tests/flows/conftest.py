"""What the server tests share: homes apart from the user's, the history of a first run in one, and a server that started from it."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from flows.server import Api, launch, running_server
from flows.standing_server import down

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class FirstRun:
    """A flow run on the first server that there was in a home, and the home as that server left it: its database is migrated."""

    home: Path
    url: str
    flow_run: str


@pytest.fixture(scope="session")
def first_run(tmp_path_factory: pytest.TempPathFactory) -> FirstRun:
    """Takes 15 s, once for all processes that share the tests. The server is stopped as soon as the flow has ended."""
    own = tmp_path_factory.getbasetemp()
    folder = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    with (folder / "first.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        noted = folder / "first.json"
        if not noted.exists():
            noted.write_text(json.dumps(_first_run(folder / "first" / "home")))
        url, flow_run = json.loads(noted.read_text())
    return FirstRun(folder / "first" / "home", url, flow_run)


def _first_run(home: Path) -> tuple[str, str]:
    with pytest.MonkeyPatch.context() as patch:
        isolate(patch, home)
        with running_server() as api:
            api.wait_until_healthy()
            return api.url, _hello(api.url)


def _hello(url: str) -> str:
    """The id of a flow run with 200 task runs."""
    code = """
import os, sys
from flows.prefect_client import client_environment
os.environ.update(client_environment(sys.argv[1]))
from prefect import flow, runtime, task
@task
def step(i): pass
@flow
def hello():
    for i in range(200): step(i)
    print(runtime.flow_run.id)
hello()
"""
    return python(code, url).strip()


@pytest.fixture(scope="session")
def second_server(first_run: FirstRun, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """A server for one run, to look at; the thread that launched it has ended."""
    home = tmp_path_factory.mktemp("second") / "home"
    shutil.copytree(first_run.home, home)
    apis: list[Api] = []
    with pytest.MonkeyPatch.context() as patch:
        isolate(patch, home)
        thread = threading.Thread(target=lambda: apis.append(launch()))
        thread.start()
        thread.join()
    (api,) = apis
    try:
        api.wait_until_healthy()
        yield api
    finally:
        api.stop()


@pytest.fixture
def home(first_run: FirstRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home of the test's own, its database migrated."""
    path = tmp_path / "home"
    shutil.copytree(first_run.home, path)
    isolate(monkeypatch, path)
    yield path
    down()


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with nothing in it, for what needs no server; also the working folder."""
    isolate(monkeypatch, tmp_path / "home")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


def isolate(patch: pytest.MonkeyPatch, home: Path) -> None:
    """Makes this the home, and hides what the user has configured."""
    for name in list(os.environ):
        if name.startswith("PREFECT_") or name.lower().endswith("_proxy") or name == "DO_NOT_TRACK":
            patch.delenv(name)
    patch.setenv("H5DAT_HOME", str(home))
    patch.setenv("HOME", str(home.parent))


def call(url: str, body: dict[str, Any] | None = None) -> Any:
    """What an API answers: to a GET, or to a POST if there is a body."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read())


def enabled_services(api: Api) -> set[str]:
    """The services that a server says it runs."""
    services = call(f"{api.url}/admin/settings")["server"]["services"]
    return {name for name, service in services.items() if service["enabled"]}


def python(code: str, *arguments: str) -> str:
    """What a program prints that can import ours."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, env=environment).stdout
