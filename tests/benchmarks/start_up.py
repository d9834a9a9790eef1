"""Wall seconds of commands that do next to nothing: what a user waits for before the work begins."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from tests.benchmarks import data
from tests.benchmarks.figures import Figure, Goal, Setup, in_turn, spread
from tests.benchmarks.programs import cli, run, server, temporary_home

_PREFECT_LOADED = """
import sys
sys.argv = ["h5dat", {}]
from flows.cli import main
try:
    main()
finally:
    sys.stderr.write(f"prefect {{'prefect' in sys.modules}}")
"""


def start_up(setup: Setup) -> list[Figure]:
    """An ingest of one small picture in every way there is, and the commands that need no server."""
    return [*_without_server(setup), *_with_servers(setup)]


def _without_server(setup: Setup) -> list[Figure]:
    archive, output = data.one_picture(setup.folder), setup.output("start-up")
    cli("ingest", archive, "-o", output, "--direct", "-q")
    found = in_turn(
        setup.rounds,
        lambda: _ingest(archive, output, "--direct"),
        lambda: cli("ls", output),
        lambda: cli("--help"),
    )
    loaded = [_loads_prefect("ls", str(output)), _loads_prefect("--help")]
    output.unlink()
    return [
        _figure("start-up, ingest --direct", found[0], Goal(most=2)),
        _figure("start-up, ls", found[1], Goal(most=0.5)),
        _figure("start-up, --help", found[2], Goal(most=0.5)),
        Figure("start-up, ls and --help that load Prefect", sum(loaded), "of 2", Goal(most=0)),
    ]


def _with_servers(setup: Setup) -> list[Figure]:
    archive, output = data.one_picture(setup.folder), setup.output("start-up")
    with temporary_home() as home:
        fresh = _ingest(archive, output, home=home)
        own = [_ingest(archive, output, home=home) for _ in range(setup.rounds)]
    with server() as home:
        standing = [_ingest(archive, output, home=home) for _ in range(setup.rounds)]
    output.unlink()
    return [
        _figure("start-up, ingest, server up", standing, Goal(most=10)),
        _figure("start-up, ingest, own server, warm database", own, Goal(most=25)),
        _figure("start-up, ingest, own server, first ever", [fresh], None),
    ]


def _ingest(archive: Path, output: Path, *options: str, home: Path | None = None) -> float:
    output.unlink(missing_ok=True)
    return cli("ingest", archive, "-o", output, "-q", *options, home=home)


def _figure(name: str, seconds: Sequence[float], goal: Goal | None) -> Figure:
    return Figure(name, statistics.median(seconds), "s", goal, f"{spread(seconds, 's')}, {len(seconds)} times")


def _loads_prefect(*arguments: str) -> bool:
    program = _PREFECT_LOADED.format(", ".join(map(repr, arguments)))
    found = run("-c", program).stderr.rpartition("prefect ")[2]
    return {"True": True, "False": False}[found]
