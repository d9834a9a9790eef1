"""The watch: it kills who stays at a member for too long, leaves alone who is idle, and tells who died of itself."""

from __future__ import annotations

import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from h5dat_lib.stage.marks import IDLE, Mark, Place, read_mark
from h5dat_lib.stage.watch import Death, Watch, reason_of


def _sleep(folder: Path, place: Place) -> None:
    mark = Mark()
    mark.share(folder / f"pool-{os.getpid()}.mark")
    mark.note(place)
    signal.pause()


def test_a_worker_is_killed_that_stays_at_a_member_for_too_long_and_no_other(tmp_path: Path) -> None:
    places = [Place(0, 7, 3, 0.5), Place(0, 8, 0, 600.0), IDLE]
    context = multiprocessing.get_context("spawn")
    stuck, *others = [context.Process(target=_sleep, args=(tmp_path, place)) for place in places]
    for process in (stuck, *others):
        process.start()
    watch = Watch(tmp_path)
    watch.start()
    stuck.join(20)
    watch.stop()
    assert (stuck.exitcode, [process.exitcode for process in others]) == (-signal.SIGKILL, [None, None])
    for process in others:
        process.terminate()
        process.join()
    assert watch.deaths("pool-") == [Death(places[0], "timed out: found more than 0.5 s in the decoder", condemned=True)]
    assert list(tmp_path.iterdir()) == []


def test_workers_that_were_ended_are_named_when_none_died_by_itself(tmp_path: Path) -> None:
    place = Place(0, 7, 3)
    process = multiprocessing.get_context("spawn").Process(target=_sleep, args=(tmp_path, place))
    process.start()
    watch = Watch(tmp_path)
    watch.see()
    while not any(read_mark(path) == place for path in tmp_path.glob("*.mark")):
        process.join(0.01)
    process.terminate()
    process.join()
    assert [(death.place, death.by_itself) for death in watch.deaths("pool-")] == [(place, False)]


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (-11, "crashed: the decoder died of SIGSEGV"),
        (-9, "out of memory: the worker was killed (signal 9)"),
        (-40, "crashed: the decoder died of signal 40"),
        (3, "crashed: the decoder called exit(3)"),
    ],
)
def test_an_exit_code_says_how_a_process_died(code: int, reason: str) -> None:
    assert reason_of(code) == reason
