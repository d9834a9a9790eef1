"""Prefect's client: the API that the user has configured for it, and the environment that it is to start with."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from flows.home import home, write

__all__ = ["HOST", "client_environment", "configured_api_url", "service_environment", "worker_environment"]

HOST = "127.0.0.1"
"""Where servers of ours listen."""

CLIENT = {
    "DO_NOT_TRACK": "1",
    # Without an API a run fails with one clear line; it must not start a server of its own in every worker of the pool.
    "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
    # The console belongs to the progress display. Records still reach the API: its handler has a level of its own.
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    # Nor does it belong to the threads that send events: they print each one that they cannot deliver.
    "PREFECT_INTERNAL_LOGGING_LEVEL": "CRITICAL",
    # One request less at the start; the server is the same installation.
    "PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED": "false",
    # No CPU and memory sampling of each flow run.
    "PREFECT_TELEMETRY_ENABLE_RESOURCE_METRICS": "false",
}


_CONSOLE = ("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "PREFECT_INTERNAL_LOGGING_LEVEL")


def configured_api_url() -> str | None:
    """The URL of the Prefect API that the user has chosen, or None.

    Looked for where Prefect looks, in its order: environment, ``.env``, ``prefect.toml``, ``pyproject.toml``, active profile. Read here
    because ``prefect.settings`` takes 1.5 s to import, and reads the environment only once, which :func:`client_environment` comes before.
    """
    return _configured("PREFECT_API_URL", os.environ) or None


def _configured(name: str, environment: Mapping[str, str]) -> str | None:
    for settings in (environment, _dotenv(), _toml_settings(), _profile()):
        if value := settings.get(name):
            return str(value)
    return None


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # not there, or not for us to complain about: Prefect warns
        return {}


def _dotenv() -> Mapping[str, str]:
    if not Path(".env").is_file():
        return {}
    from dotenv import dotenv_values  # Prefect's own reader

    return {key: value for key, value in dotenv_values(".env").items() if value}


def _tables() -> tuple[dict[str, Any], dict[str, Any]]:
    return _toml(Path("prefect.toml")), _toml(Path("pyproject.toml")).get("tool", {}).get("prefect", {})


def _toml_settings() -> dict[str, str]:
    """The nested tables of prefect.toml and pyproject.toml as PREFECT_* names; the first file wins."""
    prefect_toml, pyproject = _tables()
    return _flat(pyproject) | _flat(prefect_toml)


def _flat(table: Mapping[str, Any], prefix: str = "PREFECT") -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in table.items():
        name = f"{prefix}_{key.upper()}"
        flat |= _flat(value, name) if isinstance(value, dict) else {name: str(value)}
    return flat


def _profile() -> dict[str, str]:
    """The active profile's settings; empty if there is none, as in Prefect's built-in default profile."""
    profiles = _toml(_profiles_path())
    active = os.environ.get("PREFECT_PROFILE") or profiles.get("active", "")
    settings: dict[str, str] = profiles.get("profiles", {}).get(active, {})
    return settings


def _profiles_path() -> Path:
    for settings in (os.environ, _dotenv(), *_tables()):
        if path := settings.get("PREFECT_PROFILES_PATH") or settings.get("profiles_path"):
            return Path(path)
    return Path(os.environ.get("PREFECT_HOME") or Path.home() / ".prefect").expanduser() / "profiles.toml"


def client_environment(url: str) -> dict[str, str]:
    """The environment for a flow process that talks to the API at *url*, and for its workers, which inherit it.

    To be set before ``prefect`` is imported. Nothing that the user has set, in the environment or in a profile, is in it.
    """
    wanted = CLIENT | {"PREFECT_API_URL": url}
    address = urlsplit(url)
    if address.scheme == "http":
        wanted["PREFECT_API_SSL_CERT_FILE"] = str(_one_certificate())
    environment = {name: value for name, value in wanted.items() if _configured(name, os.environ) is None}
    if address.hostname == HOST:
        environment |= _no_proxy()
    return environment


def service_environment(url: str) -> dict[str, str]:
    """The same for a process that serves runs: its console is where whoever runs the service looks."""
    return {name: value for name, value in client_environment(url).items() if name not in _CONSOLE}


def worker_environment() -> dict[str, str]:
    """What the workers of a flow's pool are to inherit from it, whoever started the flow: its own settings were read before."""
    url = configured_api_url() or ""
    return {name: value for name, value in service_environment(url).items() if name not in os.environ}


def _one_certificate() -> Path:
    """A file with one root certificate, for an API without TLS.

    Prefect builds two TLS contexts for each task run even for ``http://``, and loads all of certifi's roots into both: 110 of the 200 ms of
    CPU that a task run costs in a process pool.
    """
    path = home() / "one-certificate.pem"
    if not path.exists():
        import certifi

        end = "-----END CERTIFICATE-----\n"
        write(path, Path(certifi.where()).read_text(encoding="utf-8").split(end)[0] + end)
    return path


def _no_proxy() -> dict[str, str]:
    """A proxy that the user needs for the world must not be asked for this machine."""
    if not any(name.lower() in ("http_proxy", "all_proxy") for name in os.environ):
        return {}
    known = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    hosts = ",".join(filter(None, (known, HOST)))
    return {"no_proxy": hosts, "NO_PROXY": hosts}
