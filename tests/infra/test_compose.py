"""infra/compose.yaml: read by Compose itself where it is, by its schema where a package has that, and looked at piece by piece."""

from __future__ import annotations

import importlib
import importlib.resources
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

INFRA = Path(__file__).resolve().parents[2] / "infra"
PROJECT: dict[str, Any] = yaml.safe_load((INFRA / "compose.yaml").read_text())
SERVICES: dict[str, Any] = PROJECT["services"]
FILLED_IN = {
    "POSTGRES_PASSWORD": "p", "H5DAT_AUTH": "h5dat:p", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "s",
}  # fmt: skip


def sample() -> dict[str, str]:
    """What env.sample says, comments left out; what has to be filled in is filled in."""
    lines = re.findall(r"^(\w+)=(.*)$", (INFRA / "env.sample").read_text(), re.MULTILINE)
    return {name: FILLED_IN.get(name, value.strip('"')) for name, value in lines}


def has_compose() -> bool:
    return bool(shutil.which("docker")) and subprocess.run(["docker", "compose", "version"], capture_output=True).returncode == 0


@pytest.mark.skipif(not has_compose(), reason="docker compose is not on this machine")
def test_compose_reads_it_with_the_sample_and_refuses_it_without(tmp_path: Path) -> None:
    (tmp_path / "env").write_text("".join(f'{name}="{value}"\n' for name, value in sample().items()))
    command = ["docker", "compose", "--file", INFRA / "compose.yaml", "--env-file", tmp_path / "env", "config", "--format", "json"]
    clean = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME")}
    found = json.loads(subprocess.run(command, env=clean, capture_output=True, text=True, check=True).stdout)
    assert set(found["services"]) == set(SERVICES)
    (tmp_path / "env").write_text("")
    assert subprocess.run(command, env=clean, capture_output=True).returncode != 0


def test_it_is_as_the_specification_says() -> None:
    pytest.importorskip("check_jsonschema", reason="the package that has the specification's schema is not installed")
    schema = importlib.resources.files("check_jsonschema") / "builtin_schemas" / "vendor" / "compose-spec.json"
    jsonschema.validate(PROJECT, json.loads(schema.read_text()))


def test_every_part_is_there() -> None:
    assert set(SERVICES) == {"postgres", "server", "deploy", "worker", "watcher", "store"}
    assert {service["image"] for service in SERVICES.values()} == {"h5dat", "h5dat-store", "postgres:16-bookworm"}
    targets = {service["build"]["target"] for service in SERVICES.values() if "build" in service}
    assert targets <= set(re.findall(r" AS (\S+)$", (INFRA / "Dockerfile").read_text(), re.MULTILINE))


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_can_write_and_do_as_little_as_it_has_to(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service and "privileged" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert any(each.startswith("/tmp:") for each in service["tmpfs"])
    assert service.get("user") == ("postgres" if name == "postgres" else None)  # the others' images say who
    # Only this machine reaches what is open
    assert [port for port in service.get("ports", ()) if not port.startswith("127.0.0.1:")] == []


def test_a_service_waits_for_what_it_needs() -> None:
    conditions = {
        (name, on): (each["condition"], each.get("required", True))
        for name, service in SERVICES.items()
        for on, each in service.get("depends_on", {}).items()
    }
    healthy, done = ("service_healthy", True), ("service_completed_successfully", True)
    assert conditions == {("server", "postgres"): healthy, ("deploy", "server"): healthy} | {
        (name, on): each
        for name in ("worker", "watcher")
        for on, each in {"server": healthy, "deploy": done, "store": ("service_healthy", False)}.items()
    }
    assert SERVICES["store"]["profiles"] == ["store"]  # why it need not be there


def test_what_is_waited_for_has_a_health_check_of_its_own() -> None:
    assert SERVICES["postgres"]["healthcheck"]["test"][:2] == ["CMD", "pg_isready"]
    for name in ("server", "worker", "watcher"):
        assert SERVICES[name]["environment"]["H5DAT_HEALTH"]  # what the image's own looks at
    assert "--with-healthcheck" in SERVICES["worker"]["command"]
    url = SERVICES["worker"]["environment"]
    assert url["H5DAT_HEALTH"] == f"http://{url['PREFECT_WORKER_WEBSERVER_HOST']}:{url['PREFECT_WORKER_WEBSERVER_PORT']}/health"
    assert f"--heartbeat {SERVICES['watcher']['environment']['H5DAT_HEALTH']} " in SERVICES["watcher"]["command"]
    port = re.search(r"-s3\.port=(\d+)", " ".join(SERVICES["store"]["command"]))
    assert port and f"H5DAT_HEALTH=http://127.0.0.1:{port[1]}/healthz" in (INFRA / "Dockerfile").read_text()


def test_what_has_to_outlive_a_container_is_in_volumes() -> None:
    volumes = {name: [each.split(":") for each in service.get("volumes", ())] for name, service in SERVICES.items()}
    named = {name: [(each[0], each[1]) for each in found if each[0] in PROJECT["volumes"]] for name, found in volumes.items()}
    assert named.pop("postgres") == [("postgres", "/var/lib/postgresql/data")]
    assert named.pop("deploy") == []
    assert named == {
        "server": [("server", "/var/lib/h5dat")], "worker": [("working-copies", "/var/lib/h5dat")],
        "watcher": [("watcher", "/var/lib/h5dat")], "store": [("store", "/var/lib/h5dat")],
    }  # fmt: skip
    assert ":".join(volumes["watcher"][-1]).endswith("}:/etc/h5dat:ro")
    assert "/var/lib/h5dat" in " ".join(SERVICES["deploy"]["tmpfs"])  # no volume without a name


def test_the_database_is_reached_by_the_server_alone() -> None:
    assert PROJECT["networks"]["database"] == {"internal": True}
    assert {name for name, service in SERVICES.items() if "database" in service["networks"]} == {"postgres", "server"}
    assert {name for name, service in SERVICES.items() if "store" in service["networks"]} == {"worker", "watcher", "store"}


def test_secrets_come_from_the_env_file_and_go_to_who_needs_them() -> None:
    text = (INFRA / "compose.yaml").read_text()
    variables = set(re.findall(r"(?<!\$)\$\{(\w+)", text)) | {
        name for name, value in SERVICES["worker"]["environment"].items() if value is None
    }
    documented = set(re.findall(r"^#?(\w+)=", (INFRA / "env.sample").read_text(), re.MULTILINE))
    assert variables - documented - {"BUCKETS"} == set()
    has_password = {name for name, service in SERVICES.items() if "POSTGRES_PASSWORD" in json.dumps(service.get("environment", {}))}
    assert has_password == {"postgres", "server"}
    has_keys = {name for name, service in SERVICES.items() if "AWS_SECRET_ACCESS_KEY" in service.get("environment", {})}
    assert has_keys == {"worker", "watcher", "store"}
    assert all(SERVICES[name]["environment"]["AWS_SECRET_ACCESS_KEY"] is None for name in has_keys)
    assert [name for name in FILLED_IN if not re.search(rf"^{name}=(h5dat:)?$", (INFRA / "env.sample").read_text(), re.MULTILINE)] == []


# Names that others give


def prefect_settings() -> set[str]:
    """Every variable that Prefect reads a setting from."""
    from prefect.settings.base import PrefectBaseSettings
    from prefect.settings.models.root import Settings
    from pydantic import AliasChoices

    def names(model: type[PrefectBaseSettings]) -> set[str]:
        found: set[str] = set()
        for name, field in model.model_fields.items():
            if isinstance(field.annotation, type) and issubclass(field.annotation, PrefectBaseSettings):
                found |= names(field.annotation)
            elif isinstance(field.validation_alias, AliasChoices):
                found |= {each.upper() for each in field.validation_alias.choices if isinstance(each, str)}
            else:
                found.add(f"{model.model_config.get('env_prefix', '')}{name}".upper())
        return found

    return names(Settings)


def test_every_setting_of_prefect_is_one() -> None:
    known = prefect_settings()
    assert "PREFECT_API_URL" in known
    files = [INFRA.parent / "docs" / "operations.md", *(path for path in INFRA.rglob("*") if path.is_file() and path.suffix != ".pyc")]
    used = {name: path.name for path in files for name in re.findall(r"\bPREFECT_[A-Z0-9_]+\b", path.read_text())}
    assert {name: file for name, file in used.items() if name not in known} == {}


def commands() -> list[list[str]]:
    """Command lines of all services and units, without the folder that the program is in."""
    composed = [service["command"] for service in SERVICES.values() if "command" in service]
    units = [unit.read_text() for unit in (INFRA / "systemd").glob("*.service")]
    lines = [line for unit in units for line in re.findall(r"^ExecStart=/opt/h5dat/bin/(.*)$", unit, re.MULTILINE)]
    return [each.split() if isinstance(each, str) else each for each in [*composed, *lines]]


@pytest.mark.parametrize("program", ["server", "worker"])
def test_every_option_of_prefect_is_one(program: str) -> None:
    app = importlib.import_module(f"prefect.cli.{program}")
    known = {name for each in getattr(app, f"{program}_app")["start"].assemble_argument_collection() for name in each.names}
    used = [{word for word in each if word.startswith("--")} for each in commands() if each[:3] == ["prefect", program, "start"]]
    assert len(used) == 2  # of Compose, and of systemd
    assert set.union(*used) <= known
