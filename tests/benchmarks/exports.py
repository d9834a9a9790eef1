"""Photos kept encoded, exported as the files that they were, against unzip; and as shards, in bytes of the archive a second."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import h5dat_lib
from h5dat_lib.config import load
from tests.benchmarks import data
from tests.benchmarks.figures import Figure, Goal, Setup, best, in_turn, number, ratio, spread


def exports(setup: Setup) -> Iterator[Figure]:
    """Seconds of unzip's by ours, in this process, both from the page cache and neither synced."""
    archive, output = data.photos(setup.folder), setup.output("exports")
    h5dat_lib.ingest(archive, output, load(task_runner="threads", image={"storage": "encoded"}))
    folder = setup.folder / "exported"

    def unzip() -> float:
        return _seconds(folder, lambda: subprocess.run(["unzip", "-q", archive, "-d", folder], check=True))

    theirs, ours = in_turn(setup.rounds, unzip, lambda: _seconds(folder, lambda: h5dat_lib.export(output, folder)))
    detail = f"unzip {spread(theirs, 's')}, ours {spread(ours, 's')}; best rounds {number(best(theirs, ours))}"
    yield Figure("export, encoded photos as files", ratio(theirs, ours), "of unzip's rate", Goal(least=0.5), detail)
    for form in ("webdataset", "parquet", "huggingface"):
        [seconds] = in_turn(setup.rounds, lambda form=form: _seconds(folder, lambda: h5dat_lib.export(output, folder, form)))  # type: ignore[misc]
        yield Figure(f"export, encoded photos, {form}", archive.stat().st_size / min(seconds) / 1e6, "MB/s", None, spread(seconds, "s"))
    output.unlink()


def _seconds(folder: Path, step: Callable[[], object]) -> float:
    started = time.perf_counter()
    step()
    seconds = time.perf_counter() - started
    shutil.rmtree(folder)
    return seconds
