"""One ingest in a process of its own, with start-up told apart: archive in, seconds of its parts out, as JSON.

    python -m tests.benchmarks.one_run direct|prefect ARCHIVE OUTPUT [--config FILE] [--profile FILE]

Start-up ends when every worker has imported all it needs: before the first batch is submitted they meet, and only then does the clock of
`Ingest.run` start. It runs until the last commit is on the disk.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import multiprocessing
import os
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

if TYPE_CHECKING:
    from h5dat_lib.pipeline import Report

_STARTED = time.monotonic()


def meet(folder: str, workers: int, modules: list[str]) -> None:
    """Imports what a worker will need, then waits until as many workers have done so."""
    import importlib

    for name in modules:
        importlib.import_module(name)
    (Path(folder) / str(os.getpid())).touch()
    while len(os.listdir(folder)) < workers:
        time.sleep(0.005)


def warm(pool: Executor, workers: int, modules: list[str]) -> None:
    """Returns when all workers of the pool are ready."""
    with tempfile.TemporaryDirectory() as folder:
        for future in [pool.submit(meet, folder, workers, modules) for _ in range(workers)]:
            future.result()


def processor_seconds() -> float:
    """Of this process and its children that are still there."""
    times = [process.cpu_times() for process in psutil.Process().children()]
    return time.process_time() + sum(found.user + found.system for found in times)


class Clock:
    """Seconds and calls of functions that are wrapped, by name; and processor seconds of the run, of all and of the main process."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.calls: Counter[str] = Counter()
        self.processor = 0.0
        self.processor_main = 0.0

    def wrap_run(self, owner: Any) -> None:
        """Wraps the run itself: the workers are there when it starts, and still there when it ends."""
        self.wrap(owner, "run", "run")
        plain = owner.run

        def counted(*args: Any, **kwargs: Any) -> Any:
            before, before_main = processor_seconds(), time.process_time()
            try:
                return plain(*args, **kwargs)
            finally:
                self.processor, self.processor_main = processor_seconds() - before, time.process_time() - before_main

        owner.run = counted

    def wrap(self, owner: Any, name: str, label: str) -> None:
        plain = getattr(owner, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            before = time.perf_counter()
            try:
                return plain(*args, **kwargs)
            finally:
                self.seconds[label] += time.perf_counter() - before
                self.calls[label] += 1

        setattr(owner, name, timed)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("way", choices=("direct", "prefect"))
    parser.add_argument("archive")
    parser.add_argument("output")
    parser.add_argument("--config", type=Path)
    parser.add_argument("--profile", help="cProfile of the main process from the clock's start")
    parser.add_argument("--unwarmed", action="store_true", help="leave start-up as it is, for memory")
    parser.add_argument("--unsynced", action="store_true", help="never wait for the disk, to see what waiting costs")
    options = parser.parse_args()
    if options.unsynced:
        _leave_out_syncs()
    clock = _clock(options.profile)
    report = _WAYS[options.way](options)
    _print(clock, report)


def _clock(profile: str | None) -> Clock:
    from h5dat_lib.commit.transaction import Output
    from h5dat_lib.commit.writer import Writer
    from h5dat_lib.journal import Disk
    from h5dat_lib.pipeline import Ingest

    clock = Clock()
    if profile:
        _profile(Ingest, profile)
    else:
        clock.wrap(Writer, "write_chunk", "chunks")
        clock.wrap(Writer, "flush", "flush")
    clock.wrap(Ingest, "__enter__", "planning")
    clock.wrap_run(Ingest)
    clock.wrap(Output, "commit", "commit")
    clock.wrap(Output, "end_run", "end_run")
    clock.wrap(Disk, "sync", "sync")
    clock.wrap(Disk, "sync_folder", "sync")
    return clock


def _leave_out_syncs() -> None:
    from h5dat_lib.journal import Disk

    Disk.sync = lambda self, descriptor: None  # type: ignore[method-assign]
    Disk.sync_folder = lambda self, path: None  # type: ignore[method-assign]


def _profile(owner: Any, file: str) -> None:
    plain = owner.run

    def profiled(*args: Any, **kwargs: Any) -> Any:
        profile = cProfile.Profile()
        try:
            return profile.runcall(plain, *args, **kwargs)
        finally:
            profile.dump_stats(file)

    owner.run = profiled


def _direct(options: argparse.Namespace) -> Report:
    from h5dat_lib.config import load
    from h5dat_lib.pipeline import Ingest
    from h5dat_lib.stage.workers import Workers, process_pool

    config = load(options.config, workers=2)
    open_pool = partial(process_pool if options.unwarmed else _warmed_pool, config.worker_count)
    with Ingest(options.archive, options.output, config) as run, Workers(open_pool, config, run.folder) as workers:
        return run.run(workers.submit, run.commit)


@contextmanager
def _warmed_pool(count: int, start: Callable[[], None]) -> Iterator[Any]:
    """`h5dat_lib.stage.workers.process_pool`, its workers ready when it is opened."""
    from h5dat_lib.stage.batch import stage

    with ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), start) as pool:
        warm(pool, count, ["h5dat_lib.stage.batch"])
        yield lambda batch: pool.submit(stage, batch)


def _through_prefect(options: argparse.Namespace) -> Report:
    from flows.local import ingest
    from h5dat_lib.config import load
    from h5dat_lib.pipeline import Ingest

    config = load(options.config, workers=2)
    if not options.unwarmed:
        _warm_before_run(Ingest, config.worker_count)
    return ingest(options.archive, options.output, config)


def _warm_before_run(owner: Any, workers: int) -> None:
    """Has Prefect's pool of processes warmed as it is opened, which the flow does right before `Ingest.run`."""
    plain = owner.__enter__

    def enter(self: Any) -> Any:
        from prefect.task_runners import ProcessPoolTaskRunner

        if not hasattr(ProcessPoolTaskRunner, "warmed"):
            _warm_on_enter(ProcessPoolTaskRunner, workers)
        return plain(self)

    owner.__enter__ = enter


def _warm_on_enter(runner: Any, workers: int) -> None:
    plain: Callable[[Any], Any] = runner.__enter__

    def enter(self: Any) -> Any:
        entered = plain(self)
        warm(self._executor, workers, ["h5dat_lib.stage.batch", "prefect.task_engine", "tasks.batches"])
        return entered

    runner.__enter__ = enter
    runner.warmed = True


_WAYS: dict[str, Callable[[argparse.Namespace], Any]] = {"direct": _direct, "prefect": _through_prefect}


def _print(clock: Clock, report: Any) -> None:
    seconds = dict(clock.seconds)
    found = {
        "members": report.members,
        "rows": report.rows,
        "rejects": report.rejects,
        "bytes": report.bytes,
        "batches": report.batches,
        "total": time.monotonic() - _STARTED,
        "seconds": seconds,
        "calls": dict(clock.calls),
        "cpu": clock.processor,
        "cpu_main": clock.processor_main,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
