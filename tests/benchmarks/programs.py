"""Runs programs for the benchmarks: the command line, one measured ingest, a Prefect server with a home of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def run(*arguments: str | int | Path, home: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Runs Python with these arguments and returns what it printed. Raises RuntimeError with its last lines when it failed."""
    found = subprocess.run(command(*arguments), cwd=ROOT, env=environment(home), capture_output=True, text=True, check=False)
    if found.returncode:
        raise RuntimeError(f"{' '.join(map(str, arguments))}: exit code {found.returncode}\n{found.stdout[-2000:]}{found.stderr[-4000:]}")
    return found


def command(*arguments: str | int | Path) -> list[str]:
    """The command line of Python with these arguments."""
    return [sys.executable, *map(str, arguments)]


def environment(home: Path | None = None) -> dict[str, str]:
    """This process's environment, without a Prefect API of the user's, and with a home for servers of ours."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return kept | ({"H5DAT_HOME": str(home)} if home else {})


def one_run(way: str, archive: Path, output: Path, *options: str | Path, home: Path | None = None) -> dict[str, Any]:
    """The figures of `tests.benchmarks.one_run`; the output is removed before."""
    output.unlink(missing_ok=True)
    printed = run("-m", "tests.benchmarks.one_run", way, archive, output, *options, home=home).stdout
    found: dict[str, Any] = json.loads(printed.splitlines()[-1])
    return found


def cli(*arguments: str | int | Path, home: Path | None = None) -> float:
    """Wall seconds of one `h5dat` command."""
    started = time.perf_counter()
    run("-m", "flows.cli", *arguments, home=home)
    return time.perf_counter() - started


@contextmanager
def temporary_home() -> Iterator[Path]:
    """A folder for the history of servers, removed at the end."""
    home = Path(tempfile.mkdtemp(prefix="h5dat-home-"))
    try:
        yield home
    finally:
        shutil.rmtree(home, ignore_errors=True)


@contextmanager
def server() -> Iterator[Path]:
    """The home of a server that `h5dat up` has started, and `h5dat down` stops."""
    with temporary_home() as home:
        cli("up", home=home)
        try:
            yield home
        finally:
            cli("down", home=home)
