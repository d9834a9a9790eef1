"""What `h5dat up` notes of the server that it starts: its process and its URL, for later runs and for `h5dat down`."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from flows.home import home, write

__all__ = ["STOP_SECONDS", "Standing", "born", "record", "state_file"]

STOP_SECONDS = 25.0
"""How long a server may take to end before it is killed."""


@dataclass(frozen=True)
class Standing:
    """The server of ``h5dat up`` as its state file describes it. ``born`` tells its process from a later one of the same number."""

    pid: int
    born: str
    port: int
    url: str

    @classmethod
    def read(cls) -> Standing | None:
        """The recorded server if its process is still there, else None."""
        try:
            standing = cls(**json.loads(state_file().read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None
        return standing if standing.poll() is None else None

    def poll(self) -> int | None:
        """None while the process is there, as :class:`subprocess.Popen` says it."""
        return None if born(self.pid) == self.born else 0

    def stop(self) -> None:
        self._signal(signal.SIGTERM)
        if not self._gone(STOP_SECONDS):
            self._signal(signal.SIGKILL)
            self._gone(5)

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def _gone(self, seconds: float) -> bool:
        end = time.monotonic() + seconds
        while self.poll() is None and time.monotonic() < end:
            time.sleep(0.05)
        return self.poll() is not None


def state_file() -> Path:
    return home() / "server.json"


def record(standing: Standing) -> None:
    write(state_file(), json.dumps(asdict(standing), indent=2) + "\n")


def born(pid: int) -> str | None:
    """When process *pid* started, in the system's own words; None if there is no such process."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return _born_by_ps(pid) if sys.platform != "linux" else None
    return None if fields[0] in "ZX" else fields[19]  # state; starttime, field 22 of proc(5)


def _born_by_ps(pid: int) -> str | None:
    answer = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return answer.stdout.strip() or None
