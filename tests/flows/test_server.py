"""Real servers: started, found, shared, stopped, and gone when their parent is."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flows import server

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose database is migrated: 8 s, once."""
    path = tmp_path_factory.mktemp("migrated")
    with pytest.MonkeyPatch.context() as patch:
        _isolate(patch, path)
        with server.running_server() as api:
            api.wait_until_healthy()
    return path


@pytest.fixture
def home(migrated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    path = tmp_path / "home"
    shutil.copytree(migrated, path)
    _isolate(monkeypatch, path)
    yield path
    server.down()


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with nothing in it, for what needs no server; also the working folder."""
    _isolate(monkeypatch, tmp_path / "home")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


def _isolate(patch: pytest.MonkeyPatch, home: Path) -> None:
    for name in list(os.environ):
        if name.startswith("PREFECT_") or name.lower().endswith("_proxy") or name == "DO_NOT_TRACK":
            patch.delenv(name)
    patch.setenv("H5DAT_HOME", str(home))
    patch.setenv("HOME", str(home.parent))


def _call(url: str, body: dict[str, Any] | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read())


def _within(seconds: float, holds: Callable[[], bool]) -> bool:
    end = time.monotonic() + seconds
    while not holds() and time.monotonic() < end:
        time.sleep(0.05)
    return holds()


def _python(code: str, *arguments: str, cwd: Path = ROOT) -> str:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=cwd, env=environment).stdout


# ---------------------------------------------------------------------------------------------------- without a server


def test_importing_the_module_imports_no_prefect() -> None:
    assert _python("import sys, flows.server; print('prefect' in sys.modules, 'asyncio' in sys.modules)") == "False False\n"


CONFIGURATIONS = {
    "environment": ({}, {"PREFECT_API_URL": "http://chosen/api"}),
    "dotenv": ({".env": "PREFECT_API_URL=http://chosen/api\n"}, {}),
    "prefect_toml": ({"prefect.toml": '[api]\nurl = "http://chosen/api"\n'}, {}),
    "pyproject": ({"pyproject.toml": '[tool.prefect.api]\nurl = "http://chosen/api"\n'}, {}),
    "active_profile": (
        {"mine/profiles.toml": 'active = "a"\n[profiles.a]\nPREFECT_API_URL = "http://chosen/api"\n[profiles.b]\n'},
        {"PREFECT_HOME": "mine"},
    ),
    "profile_by_name": (
        {"mine.toml": 'active = "b"\n[profiles.a]\nPREFECT_API_URL = "http://chosen/api"\n[profiles.b]\n'},
        {"PREFECT_PROFILES_PATH": "mine.toml", "PREFECT_PROFILE": "a"},
    ),
    "home_profile": ({".prefect/profiles.toml": 'active = "a"\n[profiles.a]\nPREFECT_API_URL = "http://chosen/api"\n'}, {}),
    "inactive_profile": ({".prefect/profiles.toml": 'active = "b"\n[profiles.a]\nPREFECT_API_URL = "http://no/api"\n[profiles.b]\n'}, {}),
    "nothing": ({}, {}),
}


@pytest.mark.parametrize("case", CONFIGURATIONS)
def test_a_configured_api_is_found_where_prefect_finds_it_and_left_alone(case: str, bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files, environment = CONFIGURATIONS[case]
    for name, text in files.items():
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(text)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    prefect = "from prefect.settings import PREFECT_API_URL; print(PREFECT_API_URL.value())"
    assert str(server.configured_api_url()) == _python(prefect, cwd=Path.cwd()).strip()
    if server.configured_api_url():
        with server.running_server() as api:
            api.wait_until_healthy()
            assert (api.url, api.process) == ("http://chosen/api", None)
        assert not bare.exists()


def test_the_clients_environment_overrides_nothing_that_the_user_has_set(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("prefect.toml").write_text("[client]\nserver_version_check_enabled = true\n")
    monkeypatch.setenv("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "DEBUG")
    environment = server.client_environment("http://127.0.0.1:1/api")
    assert environment["PREFECT_API_URL"] == "http://127.0.0.1:1/api"
    assert environment["DO_NOT_TRACK"] == "1"
    assert "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL" not in environment
    assert "PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED" not in environment


def test_one_certificate_is_enough_for_http_and_never_used_for_https(bare: Path) -> None:
    import ssl

    file = server.client_environment("http://127.0.0.1:1/api")["PREFECT_API_SSL_CERT_FILE"]
    assert len(ssl.create_default_context(cafile=file).get_ca_certs()) == 1
    assert "PREFECT_API_SSL_CERT_FILE" not in server.client_environment("https://api.example/api")


def test_a_proxy_is_not_asked_for_this_machine(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "NO_PROXY" not in server.client_environment("http://127.0.0.1:1/api")
    monkeypatch.setenv("HTTP_PROXY", "http://proxy:3128")
    monkeypatch.setenv("NO_PROXY", "intra")
    assert server.client_environment("http://127.0.0.1:1/api")["NO_PROXY"] == "intra,127.0.0.1"


def test_a_server_that_dies_is_reported_with_its_last_line(bare: Path) -> None:
    (bare / "prefect").mkdir(parents=True)
    (bare / "prefect" / "prefect.db").mkdir()  # no database can be there
    with server.running_server() as api, pytest.raises(server.ServerError, match=r"ended with code \d+, its last line: \S+") as error:
        api.wait_until_healthy()
    assert "\n" not in str(error.value)


def test_down_with_nothing_running_says_so(bare: Path) -> None:
    assert server.down().startswith("Nothing to stop")


def test_a_stale_state_file_stops_nobody(bare: Path) -> None:
    """The number of a process that ended belongs to another one today: this one."""
    bare.mkdir()
    (bare / "server.json").write_text(json.dumps({"pid": os.getpid(), "born": "long ago", "port": 1, "url": "http://127.0.0.1:1/api"}))
    assert server.down().startswith("Nothing to stop")
    assert not (bare / "server.json").exists()


# ---------------------------------------------------------------------------------------------- a server for one run


def test_history_is_kept_from_run_to_run_on_a_free_port(home: Path) -> None:
    """The events of task runs, too, though the server is stopped at once: it writes what it has received first."""
    with server.running_server() as api:
        api.wait_until_healthy()
        first = api.url
        flow_run = _hello(api.url)
    with server.running_server() as api:
        api.wait_until_healthy()
        assert _call(f"{api.url}/flow_runs/{flow_run}")["state"]["type"] == "COMPLETED"
        runs = _call(f"{api.url}/task_runs/filter", {})
        assert [run["state"]["type"] for run in runs] == ["COMPLETED"] * 200
        assert first.startswith("http://127.0.0.1:")
    with pytest.raises(urllib.error.URLError):
        _call(f"{first}/health")


def _hello(url: str) -> str:
    code = """
import os, sys
from flows.server import client_environment
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
    return _python(code, url).strip()


def test_what_is_sent_and_asked_for_stays_on_this_machine(home: Path) -> None:
    with server.running_server() as api:
        api.wait_until_healthy()
        settings = _call(f"{api.url}/admin/settings")["server"]
        ui = _call(f"{api.ui_url}/ui-settings")
        with urllib.request.urlopen(api.ui_url) as page:
            policy = page.headers["content-security-policy"]
        assert _call(f"{api.url}/collections/views/aggregate-worker-metadata")["prefect"]
    assert settings["analytics_enabled"] is False
    assert settings["ui"]["show_promotional_content"] is False
    assert (ui["api_url"], ui["default_ui"]) == (api.url, "v1")
    assert "https" not in policy
    assert api.ui_url.removeprefix("http://") in policy
    assert _enabled(settings) == {"task_run_recorder", "event_persister", "repossessor", "db_vacuum"}  # records, but does not schedule


def _enabled(settings: dict[str, Any]) -> set[str]:
    return {name for name, service in settings["services"].items() if service["enabled"]}


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
    assert server._born(pid) is not None
    parent.kill()
    parent.communicate()
    assert _within(10, lambda: server._born(pid) is None)


def test_a_server_outlives_the_thread_that_launched_it_and_the_terminals_interrupt(home: Path) -> None:
    apis: list[server.Api] = []
    thread = threading.Thread(target=lambda: apis.append(server.launch()))
    thread.start()
    thread.join()
    (api,) = apis
    assert api.process is not None
    assert os.getsid(api.process.pid) == api.process.pid
    api.wait_until_healthy()
    api.stop()


# ------------------------------------------------------------------------------------------------ a server that stays


def test_up_is_found_by_a_run_and_by_a_second_up_and_stopped_by_down(home: Path) -> None:
    results: list[server.Up] = []
    both = [threading.Thread(target=lambda: results.append(server.up())) for _ in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert sorted(up.started for up in results) == [False, True]
    assert len({up.ui_url for up in results}) == 1
    assert "already up" in str(server.up())
    state = json.loads((home / "server.json").read_text())
    with server.running_server() as api:
        assert (api.url, api.process) == (state["url"], None)
        assert _enabled(_call(f"{api.url}/admin/settings")["server"]) >= {"scheduler", "triggers", "foreman", "late_runs"}
    assert server._born(state["pid"]) == state["born"]
    assert server.down() == f"Stopped Prefect at {results[0].ui_url}"
    assert server._born(state["pid"]) is None
