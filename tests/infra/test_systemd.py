"""infra/systemd: what systemd itself says of the units, where it is, and what they say of their settings."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

UNITS = sorted((Path(__file__).resolve().parents[2] / "infra" / "systemd").glob("*.service"))
NAMES = [unit.stem for unit in UNITS]

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not on this machine")


def settings(unit: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in re.findall(r"^(\w+)=(.*)$", unit.read_text(), re.MULTILINE):
        found.setdefault(name, []).append(value)
    return found


def analyzed(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["systemd-analyze", *map(str, words)], capture_output=True, text=True)


def test_there_is_a_unit_for_each_part() -> None:
    assert NAMES == ["h5dat-serve", "h5dat-server", "h5dat-watch", "h5dat-worker"]


@needs_systemd
def test_systemd_finds_nothing_wrong(tmp_path: Path) -> None:
    """With programs in place of those in /opt: it looks whether they are there."""
    program = shutil.which("true")
    for unit in UNITS:
        (tmp_path / unit.name).write_text(re.sub(r"/opt/h5dat/bin/\w+", str(program), unit.read_text()))
    ran = analyzed("verify", *(tmp_path / unit.name for unit in UNITS))
    assert (ran.returncode, ran.stdout, "\n".join(line for line in ran.stderr.splitlines() if "h5dat" in line)) == (0, "", "")
    (tmp_path / "h5dat-serve.service").write_text(UNITS[0].read_text())  # it would say so
    assert analyzed("verify", tmp_path / "h5dat-serve.service").returncode != 0


@needs_systemd
def test_units_are_exposed_to_little() -> None:
    """2.0 of 10 at most: what is left is that they have a network, and run Python."""
    ran = analyzed("security", "--offline=true", "--threshold=20", "--no-pager", *UNITS)
    assert ran.returncode == 0, ran.stdout[-200:]


@pytest.mark.parametrize("unit", UNITS, ids=NAMES)
def test_a_unit_comes_back_and_keeps_secrets_out_of_itself(unit: Path) -> None:
    found = settings(unit)
    assert found["Restart"] == ["always"]
    assert found["StartLimitIntervalSec"] == ["0"]
    assert [file for file in found["EnvironmentFile"] if not file.startswith("/etc/h5dat/")] == []
    assert [line for line in found["Environment"] if re.search("AUTH|PASSWORD|SECRET|ACCESS_KEY", line)] == []


@pytest.mark.parametrize("unit", UNITS, ids=NAMES)
def test_a_unit_writes_to_its_own_folder_alone(unit: Path) -> None:
    found = settings(unit)
    (folder,) = found["StateDirectory"]
    assert found["WorkingDirectory"] == [f"/var/lib/{folder}"]
    assert (found["ProtectSystem"], found["User"]) == (["strict"], ["h5dat"])
    for variable in ("HOME", "PREFECT_HOME"):
        (value,) = re.findall(rf"\b(?<!_){variable}=(\S+)", " ".join(found["Environment"]))
        assert Path(value).is_relative_to(f"/var/lib/{folder}")


@pytest.mark.parametrize("unit", UNITS, ids=NAMES)
def test_what_a_unit_takes_from_its_settings_is_in_the_sample(unit: Path) -> None:
    found = settings(unit)
    (file,) = found["EnvironmentFile"]
    sample = (unit.parent / f"{Path(file).name}.sample").read_text()
    for variable in re.findall(r"\$\{?(\w+)", " ".join(found["ExecStart"])):
        assert re.search(rf"^{variable}=", sample, re.MULTILINE), variable
