"""The user's own Prefect: found where Prefect finds it, and what is set there left as it is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flows.prefect_client import client_environment, configured_api_url
from flows.server import running_server

ASK_PREFECT = """
import json, os, sys
import prefect.context
from prefect.settings import PREFECT_API_URL
for line in sys.stdin:
    folder, environment = json.loads(line)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    prefect.context.refresh_global_settings_context()  # what importing prefect does
    print(PREFECT_API_URL.value(), flush=True)
"""

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


@pytest.fixture(scope="module")
def url_by_prefect(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], str]]:
    """The URL that Prefect itself takes in this environment, with the working folder as the user's home.

    One process answers for all cases: Prefect takes 1.5 s to import. It reads HOME only then, so HOME is a link to the case's folder.
    """
    user = tmp_path_factory.mktemp("user") / "home"
    command, environment = [sys.executable, "-c", ASK_PREFECT], os.environ | {"HOME": str(user)}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as process:
        questions, answers = process.stdin, process.stdout
        assert questions is not None
        assert answers is not None

        def ask() -> str:
            user.unlink(missing_ok=True)
            user.symlink_to(Path.cwd())
            print(json.dumps([os.getcwd(), os.environ | {"HOME": str(user)}]), file=questions, flush=True)
            return answers.readline().strip()

        yield ask


@pytest.mark.parametrize("case", CONFIGURATIONS)
def test_a_configured_api_is_found_where_prefect_finds_it_and_left_alone(
    case: str, bare: Path, monkeypatch: pytest.MonkeyPatch, url_by_prefect: Callable[[], str]
) -> None:
    files, environment = CONFIGURATIONS[case]
    for name, text in files.items():
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(text)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert str(configured_api_url()) == url_by_prefect()
    if configured_api_url():
        with running_server() as api:
            api.wait_until_healthy()
            assert (api.url, api.process) == ("http://chosen/api", None)
        assert not bare.exists()


def test_the_clients_environment_overrides_nothing_that_the_user_has_set(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("prefect.toml").write_text("[client]\nserver_version_check_enabled = true\n")
    monkeypatch.setenv("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "DEBUG")
    environment = client_environment("http://127.0.0.1:1/api")
    assert environment["PREFECT_API_URL"] == "http://127.0.0.1:1/api"
    assert environment["DO_NOT_TRACK"] == "1"
    assert "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL" not in environment
    assert "PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED" not in environment


def test_one_certificate_is_enough_for_http_and_never_used_for_https(bare: Path) -> None:
    import ssl

    file = client_environment("http://127.0.0.1:1/api")["PREFECT_API_SSL_CERT_FILE"]
    assert len(ssl.create_default_context(cafile=file).get_ca_certs()) == 1
    assert "PREFECT_API_SSL_CERT_FILE" not in client_environment("https://api.example/api")


def test_a_proxy_is_not_asked_for_this_machine(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "NO_PROXY" not in client_environment("http://127.0.0.1:1/api")
    monkeypatch.setenv("HTTP_PROXY", "http://proxy:3128")
    monkeypatch.setenv("NO_PROXY", "intra")
    assert client_environment("http://127.0.0.1:1/api")["NO_PROXY"] == "intra,127.0.0.1"
