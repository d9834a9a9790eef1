"""Speed of whole runs: photos beside an ideal loop, small files directly and through Prefect, encoded photos beside cp, scaling.

Start-up (processes, imports, planning, server) is apart: the clock of `one_run` starts when all workers have imported what they need, and
stops when the last commit is on the disk.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import time
from pathlib import Path
from typing import Any

from tests.benchmarks import data
from tests.benchmarks.figures import Figure, Goal, Setup, best, in_turn, number, ratio, spread
from tests.benchmarks.programs import one_run, run, server
from tests.benchmarks.read_back import read_back

_PHOTOS = 500
_MANY_PHOTOS = 1_500
"""So many that the last commit, which nothing is done beside, is a small part of the run."""
_ENCODED_PHOTOS = 7_000


def photos(setup: Setup) -> list[Figure]:
    """Photos decoded and deflated: the ideal loop's seconds against ours, directly and through Prefect."""
    archive = data.photos(setup.folder, _PHOTOS)
    output = setup.output("photos")
    with server() as home:
        ideal, direct, prefect = in_turn(
            setup.rounds,
            lambda: json.loads(run("-m", "tests.benchmarks.ideal_loop", archive).stdout),
            lambda: one_run("direct", archive, output),
            lambda: one_run("prefect", archive, output, home=home),
        )
    output.unlink()
    ours = (("direct", direct), ("through Prefect", prefect))
    return [_beside_ideal(f"photos, {name}", ideal, runs) for name, runs in ours] + [_photos_rate(direct)]


def _beside_ideal(name: str, ideal: list[dict[str, Any]], runs: list[dict[str, Any]]) -> Figure:
    theirs, ours = [found["seconds"] for found in ideal], _seconds(runs)
    busy = ratio([found["cpu"] for found in ideal], [found["cpu"] for found in runs])
    times = f"ideal {spread(theirs, 's')}, ours {spread(ours, 's')}"
    detail = f"{times}; best against best {number(best(theirs, ours))}, processor time {number(busy)}; {_shares(runs)}"
    return Figure(name, ratio(theirs, ours), "of the ideal loop", Goal(least=0.85), detail)


def _photos_rate(runs: list[dict[str, Any]]) -> Figure:
    return Figure("photos, direct, rate", statistics.median(_PHOTOS / seconds for seconds in _seconds(runs)), "photos/s")


def small_files(setup: Setup) -> list[Figure]:
    """Small pictures and documents: members a second, directly and through Prefect."""
    archive = data.small_files(setup.folder, 20_000)
    output = setup.output("small")
    with server() as home:
        direct, prefect = in_turn(
            setup.rounds,
            lambda: one_run("direct", archive, output),
            lambda: one_run("prefect", archive, output, home=home),
        )
    output.unlink()
    rates = [[found["members"] / found["seconds"]["run"] for found in runs] for runs in (direct, prefect)]
    share = ratio(_seconds(direct), _seconds(prefect))
    busy = ratio([found["cpu"] for found in direct], [found["cpu"] for found in prefect])
    return [
        Figure(
            "small files, direct",
            statistics.median(rates[0]),
            "members/s",
            Goal(least=3000),
            f"{spread(rates[0], '/s')}; {_shares(direct)}",
        ),
        Figure("small files, planning", _planning(direct), "us/member"),
        Figure(
            "small files, through Prefect", statistics.median(rates[1]), "members/s", None, f"{spread(rates[1], '/s')}; {_shares(prefect)}"
        ),
        Figure(
            "small files, Prefect / direct",
            share,
            "x",
            Goal(least=0.8),
            f"best against best {number(best(_seconds(direct), _seconds(prefect)))}, processor time {number(busy)}",
        ),
        _commit_share("small files", direct),
        _chunk_rate("small files", direct),
    ]


def _planning(runs: list[dict[str, Any]]) -> float:
    return statistics.median(found["seconds"]["planning"] / found["members"] for found in runs) * 1e6


def commit(setup: Setup) -> list[Figure]:
    """The writer's share of a run of photos: seconds in `Output.commit`, chunks a second within, and what waiting for the disk costs."""
    output, archive = setup.output("commit"), data.photos(setup.folder, _MANY_PHOTOS)

    def ingested(*words: str) -> dict[str, Any]:
        output.unlink(missing_ok=True)
        os.sync()
        return one_run("direct", archive, output, *words)

    runs, unsynced = in_turn(setup.rounds, ingested, lambda: ingested("--unsynced"))
    output.unlink()
    return [_commit_share("photos", runs), _chunk_rate("photos", runs), _sync_cost(runs, unsynced)]


def _sync_cost(runs: list[dict[str, Any]], unsynced: list[dict[str, Any]]) -> Figure:
    cost = ratio(_seconds(runs), _seconds(unsynced)) - 1
    waits = spread([found["seconds"]["sync"] for found in runs], "s")
    sides = f"with {spread(_seconds(runs), 's')}, without {spread(_seconds(unsynced), 's')}"
    detail = f"{sides}; {runs[-1]['calls']['sync']} calls took {waits}, while the workers went on"
    return Figure("fsync, photos, cost", cost, "of the run", Goal(most=0.05), detail)


def _commit_share(name: str, runs: list[dict[str, Any]]) -> Figure:
    shares = [found["seconds"]["commit"] / found["seconds"]["run"] for found in runs]
    commits = spread([found["seconds"]["commit"] for found in runs], "s")
    return Figure(
        f"commit, {name}, share of the run",
        statistics.median(shares),
        "of the run",
        None,
        f"{commits} in {runs[-1]['calls']['commit']} commits",
    )


def _chunk_rate(name: str, runs: list[dict[str, Any]]) -> Figure:
    rates = [found["calls"]["chunks"] / found["seconds"]["commit"] for found in runs]
    each = [found["seconds"]["chunks"] / found["calls"]["chunks"] * 1e6 for found in runs]
    detail = f"{runs[-1]['calls']['chunks']} chunks; writing one takes {spread(each, 'us')}"
    return Figure(f"commit, {name}, chunks", statistics.median(rates), "chunks/s of commit", None, detail)


def encoded(setup: Setup) -> list[Figure]:
    """A gigabyte of photos kept encoded: seconds of cp of the archive against ours, both from the page cache and synced to the disk."""
    archive = data.photos(setup.folder, _ENCODED_PHOTOS)
    output, copy = setup.output("encoded"), setup.folder / "copy.zip"
    config = setup.folder / "encoded.json"
    config.write_text('{"image": {"storage": "encoded"}}')

    def ours() -> dict[str, Any]:
        output.unlink(missing_ok=True)
        os.sync()
        return one_run("direct", archive, output, "--config", config)

    copies, runs = in_turn(setup.rounds, lambda: _copied(archive, copy), ours)
    copy.unlink()
    output.unlink()
    size = archive.stat().st_size
    planned = [found["seconds"]["planning"] + found["seconds"]["run"] for found in runs]
    synced = [found["all"] for found in copies]
    speed = number(size / 1e6 / statistics.median(_seconds(runs)))
    detail = f"cp and sync {spread(synced, 's')}, ours {spread(_seconds(runs), 's')} or {speed} MB/s; {_shares(runs)}"
    return [
        Figure("encoded, synced", ratio(synced, _seconds(runs)), "of cp", Goal(least=0.5), detail),
        Figure("encoded, synced, with planning", ratio(synced, planned), "of cp"),
    ]


def _copied(archive: Path, copy: Path) -> dict[str, float]:
    """Seconds of cp, and of cp and fsync. The archive has been read before, so it comes from the page cache."""
    copy.unlink(missing_ok=True)
    subprocess.run(["cat", archive], stdout=subprocess.DEVNULL, check=True)
    os.sync()
    started = time.perf_counter()
    subprocess.run(["cp", archive, copy], check=True)
    copied = time.perf_counter() - started
    with copy.open("rb+") as file:
        os.fsync(file.fileno())
    return {"copy": copied, "all": time.perf_counter() - started}


def scaling(setup: Setup) -> list[Figure]:
    """Seconds a member at 100,000 members against 10,000; then the large output is verified and read back."""
    small, large = data.small_files(setup.folder, 5_000), data.small_files(setup.folder, 50_000)
    outputs = setup.output("scaling-10000"), setup.output("scaling-100000")
    few, many = in_turn(setup.rounds, lambda: one_run("direct", small, outputs[0]), lambda: one_run("direct", large, outputs[1]))
    each = [[found["seconds"]["run"] / found["members"] * 1e6 for found in runs] for runs in (few, many)]
    busy = ratio([found["cpu"] / found["members"] for found in many], [found["cpu"] / found["members"] for found in few])
    detail = f"at 10,000 {spread(each[0], 'us')}, at 100,000 {spread(each[1], 'us')}, processor time {number(busy)}; {_shares(many)}"
    figures = [Figure("scaling, 100,000 / 10,000 members", ratio(each[1], each[0]), "x a member", Goal(most=1.1), detail)]
    figures += read_back(outputs[1], large)
    for output in outputs:
        output.unlink()
    return figures


def _seconds(runs: list[dict[str, Any]]) -> list[float]:
    return [found["seconds"]["run"] for found in runs]


def _shares(runs: list[dict[str, Any]]) -> str:
    """Where the clock's seconds go in the main process, as medians."""
    parts = {name: statistics.median(found["seconds"][name] for found in runs) for name in ("commit", "sync")}
    return f"commits {number(parts['commit'])} s, of that waiting for the disk {number(parts['sync'])} s"
