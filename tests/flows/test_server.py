"""Real servers for one run: started, what they keep and send, stopped, and gone when their parent is."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from flows.server import Api, ServerError, running_server
from flows.server_state import born
from tests.flows.conftest import ROOT, FirstRun, call, enabled_services, python


def test_importing_what_starts_servers_imports_no_prefect() -> None:
    code = "import sys, flows.home, flows.prefect_client, flows.server, flows.server_state, flows.standing_server, flows.local"
    assert python(f"{code}; print('prefect' in sys.modules, 'asyncio' in sys.modules)") == "False False\n"


def test_a_server_that_dies_is_reported_with_its_last_line(bare: Path) -> None:
    (bare / "prefect").mkdir(parents=True)
    (bare / "prefect" / "prefect.db").mkdir()  # no database can be there
    with running_server() as api, pytest.raises(ServerError, match=r"ended with code \d+, its last line: \S+") as error:
        api.wait_until_healthy()
    assert "\n" not in str(error.value)


def test_history_is_kept_from_run_to_run_on_a_free_port(first_run: FirstRun, second_server: Api) -> None:
    """The events of task runs, too, though the server is stopped at once: it writes what it has received first."""
    assert call(f"{second_server.url}/flow_runs/{first_run.flow_run}")["state"]["type"] == "COMPLETED"
    runs = call(f"{second_server.url}/task_runs/filter", {})
    assert [run["state"]["type"] for run in runs] == ["COMPLETED"] * 200
    assert first_run.url.startswith("http://127.0.0.1:")
    with pytest.raises(urllib.error.URLError):
        call(f"{first_run.url}/health")


def test_what_is_sent_and_asked_for_stays_on_this_machine(second_server: Api) -> None:
    api = second_server
    settings = call(f"{api.url}/admin/settings")["server"]
    ui = call(f"{api.ui_url}/ui-settings")
    with urllib.request.urlopen(api.ui_url) as page:
        policy = page.headers["content-security-policy"]
    assert call(f"{api.url}/collections/views/aggregate-worker-metadata")["prefect"]
    assert settings["analytics_enabled"] is False
    assert settings["ui"]["show_promotional_content"] is False
    assert (ui["api_url"], ui["default_ui"]) == (api.url, "v1")
    assert "https" not in policy
    assert api.ui_url.removeprefix("http://") in policy
    assert enabled_services(api) == {"task_run_recorder", "event_persister", "repossessor", "db_vacuum"}  # records, but does not schedule


def test_a_server_outlives_the_thread_that_launched_it_and_the_terminals_interrupt(second_server: Api) -> None:
    process = second_server.process
    assert process is not None
    assert os.getsid(process.pid) == process.pid
    second_server.wait_until_healthy()


def test_a_server_dies_with_its_parent(home: Path) -> None:
    code = """
import sys, threading, time
from flows.server import launch
api = launch()
api.wait_until_healthy()
print(api.process.pid, flush=True)
time.sleep(600)
"""
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert born(pid) is not None
    parent.kill()
    parent.communicate()
    assert _within(10, lambda: born(pid) is None)


def _within(seconds: float, holds: Callable[[], bool]) -> bool:
    end = time.monotonic() + seconds
    while not holds() and time.monotonic() < end:
        time.sleep(0.05)
    return holds()
