"""Worker processes -> those that stay at a member for too long are killed, and of what each died is known."""

from __future__ import annotations

import multiprocessing
import signal
import threading
import time
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

from h5dat_lib.stage.marks import IDLE, Place, read_mark

_LOOK_SECONDS = 1.0
"""How often it is looked whether a worker stays at a member for too long."""


@dataclass(frozen=True)
class Death:
    """How a worker died, and where. ``condemned``: it was killed by us, so that no second trial is needed."""

    place: Place
    reason: str
    by_itself: bool = True
    condemned: bool = False


class Watch:
    """Knows the worker processes of a run, kills one that stays at a member for too long, and says of what workers died.

    It counts the seconds that it sees a worker at the same place, so that time for which everything stood still does not count.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._processes: dict[int, BaseProcess] = {}
        self._waited: dict[int, tuple[Place, float]] = {}
        self._overdue: dict[int, Place] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def start(self) -> None:
        """Begins to look, about once a second."""
        self._thread.start()

    def stop(self) -> None:
        """Looks no more."""
        self._over.set()
        self._thread.join()

    def see(self) -> None:
        """Notes the processes that there are, for their exit codes: nobody else keeps them."""
        self._processes.update({process.pid: process for process in multiprocessing.active_children() if process.pid})

    def _run(self) -> None:
        last = time.monotonic()
        while not self._over.wait(_LOOK_SECONDS):
            now = time.monotonic()
            self._look(min(now - last, 2 * _LOOK_SECONDS))
            last = now

    def _look(self, seconds: float) -> None:
        self.see()
        for path in self._folder.glob("*.mark"):
            pid, place = _pid(path), read_mark(path)
            before, waited = self._waited.get(pid, (IDLE, 0.0))
            waited = waited + seconds if place == before else 0.0
            self._waited[pid] = (place, waited)
            if waited > place.seconds and pid in self._processes:
                self._overdue[pid] = place
                self._processes[pid].kill()

    def deaths(self, marks: str) -> list[Death]:
        """Where the workers of a pool that is closed died at work by themselves; if none did, where others were ended."""
        deaths = [self._death(path) for path in self._folder.glob(f"{marks}*.mark")]
        at_work = [death for death in deaths if death.place != IDLE]
        return [death for death in at_work if death.by_itself] or at_work

    def _death(self, path: Path) -> Death:
        pid, place = _pid(path), read_mark(path)
        path.unlink()
        process = self._processes.pop(pid, None)
        code = process.exitcode or 0 if process else 0
        if overdue := self._overdue.pop(pid, None):
            return Death(overdue, f"timed out: found more than {overdue.seconds:g} s in the decoder", condemned=True)
        return Death(place, reason_of(code), by_itself=code != -signal.SIGTERM)  # SIGTERM is how a broken pool ends the others


def _pid(mark: Path) -> int:
    return int(mark.stem.rpartition("-")[2])


_SIGNALS = {int(number): number.name for number in signal.Signals}


def reason_of(code: int) -> str:
    """Why a member is rejected whose process ended with this exit code, negative for a signal."""
    if code == -signal.SIGKILL:
        return "out of memory: the worker was killed (signal 9)"
    if code < 0:
        return f"crashed: the decoder died of {_SIGNALS.get(-code, f'signal {-code}')}"
    return f"crashed: the decoder called exit({code})"
