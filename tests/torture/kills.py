"""Real ``kill -9`` of the command line, at random moments, again and again until a run ends by itself."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import psutil

import h5dat_lib
from h5dat_lib.journal import journal_of
from tests.conftest import make_folder, make_tar, make_zip, picture
from tests.torture.contents import doubled, lost, members_of, rows_of
from tests.torture.figures import Figures

ROOT = Path(__file__).parents[2]
MOST_KILLS = 8
"""After so many kills a run is let alone."""
END_SECONDS = 10.0
"""How long workers may outlive their parent."""
RUN_SECONDS = 300.0
SETTINGS = {"workers": 2, "batch_seconds": 0.02, "commit_seconds": 0}
"""Many batches, and a commit for each few."""

MEMBERS = {
    **{f"pictures/{n:03}.png": picture(8 + n % 2, 6, n) for n in range(150)},
    **{f"texts/{n:03}.txt": f"text {n}".encode() * n for n in range(150)},
    **{f"documents/{n:03}.json": b'{"n": %d, "of": ["a", %d]}' % (n, n) for n in range(150)},
    **{f"tables/{n}.csv": b"id,name\n" + b"".join(b"%d,name %d\n" % (row, n) for row in range(100)) for n in range(20)},
    **{f"bad/{n}.json": b"{" * (n + 1) for n in range(10)},
}


ARCHIVES: dict[str, Callable[[Path], Path]] = {
    "zip": lambda folder: make_zip(folder / "a.zip", MEMBERS),
    "tar.gz": lambda folder: make_tar(folder / "a.tar.gz", MEMBERS),
    "folder": lambda folder: make_folder(folder / "a", MEMBERS),
}


@dataclass
class Command:
    """An ingest on the command line, in a session of its own. ``way`` is ``--direct``, or nothing for Prefect."""

    archive: Path
    output: Path
    way: tuple[str, ...] = ("--direct",)
    settings: Mapping[str, object] = field(default_factory=lambda: SETTINGS)

    def start(self, under: Sequence[str] = (), stdout: int | None = None) -> subprocess.Popen[bytes]:
        """Starts it, as words of the command ``under`` where there is one, and keeps it as ``process``."""
        config = self.output.with_suffix(".json")
        config.write_text(json.dumps(self.settings))
        words = ["ingest", str(self.archive), "-o", str(self.output), "-c", str(config), "--quiet", *self.way]
        command, home = [*under, sys.executable, "-m", "flows.cli", *words], environment(self.output.parent)
        self.process = subprocess.Popen(command, cwd=ROOT, env=home, stdout=stdout, stderr=subprocess.DEVNULL, start_new_session=True)
        return self.process


def environment(folder: Path) -> dict[str, str]:
    """This process's environment, without a Prefect API of the user's, and with a home for servers in this folder."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return kept | {"H5DAT_HOME": str(folder / "home"), "PYTHONPATH": str(ROOT)}


def kill(command: Command, random: Random, seconds: float) -> bool:
    """Starts a command and kills it at any moment of so many seconds, or in a commit; False when it had ended by itself before."""
    process = command.start()
    if random.random() < 0.5:
        _wait_for_commit(command, process, random, seconds)
    else:
        with suppress(subprocess.TimeoutExpired):
            process.wait(random.uniform(0, seconds))
    if process.poll() is not None:
        return False
    # A quarter of the kills leave the workers to find out for themselves that their parent is gone.
    end = os.kill if random.random() < 0.25 else os.killpg
    end(process.pid, signal.SIGKILL)
    process.wait()
    return True


def _wait_for_commit(command: Command, process: subprocess.Popen[bytes], random: Random, seconds: float) -> None:
    """Returns some milliseconds after one of the commits has begun."""
    begun = time.monotonic() + random.uniform(0, seconds)
    while process.poll() is None and not (time.monotonic() > begun and journal_of(command.output).exists()):
        time.sleep(0.001)
    time.sleep(random.uniform(0, 0.05))


def left_processes(session: int) -> list[psutil.Process]:
    """Processes of a session that live on, after the time that they have to end."""
    end = time.monotonic() + END_SECONDS
    while True:
        found = [process for process in psutil.process_iter() if _is_of(process, session)]
        if not found or time.monotonic() > end:
            return found
        time.sleep(0.05)


def _is_of(process: psutil.Process, session: int) -> bool:
    try:
        return os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.NoSuchProcess, ProcessLookupError):
        return False


@dataclass
class Victim:
    """A command that is killed until it ends by itself, and what it ought to end as."""

    name: str
    command: Command
    whole: dict[str, list[str]]
    members: Counter[tuple[str, str]]
    figures: Figures
    seconds: float

    def suffer(self, random: Random, kind: str, most: int = MOST_KILLS) -> int:
        """Kills it until it ends, at most so often; looks at the output after each kill and at the end; the number of kills."""
        kills = 0
        while kills < most and kill(self.command, random, self.seconds):
            kills += 1
            self.figures.counts[kind] += 1
            self._look(f"{self.name}, kill {kills}")
        if kills == most or self.command.process.returncode:
            self._end()
        self._look_at_the_end()
        return kills

    def _end(self) -> None:
        if self.command.start().wait(RUN_SECONDS):
            self.figures.violate(f"{self.name}: the run after the kills ended with {self.command.process.returncode}")

    def _look(self, name: str) -> None:
        """After a kill: no process is left, and plain h5py reads rows that are whole, or is refused."""
        if left := left_processes(self.command.process.pid):
            self.figures.violate(f"{name}: left processes {left}")
        try:
            found = members_of(self.command.output)
        except OSError:
            self.figures.counts["outputs refused until recovery"] += self.command.output.exists()
            return
        self.figures.counts["outputs read by plain h5py after a kill"] += 1
        if found - self.members:
            self.figures.violate(f"{name}: plain h5py finds members that are doubled: {found - self.members}")

    def _look_at_the_end(self) -> None:
        self.figures.counts["killed runs finished and compared"] += 1
        output = self.command.output
        found, members = rows_of(output), members_of(output)
        self.figures.counts["rows lost"] += lost(found, self.whole)
        self.figures.counts["rows doubled"] += doubled(found, self.whole)
        if found != self.whole:
            self.figures.violate(f"{self.name}: other rows than an undisturbed run")
        if members != self.members:
            self.figures.violate(f"{self.name}: lost members {self.members - members}, doubled members {members - self.members}")
        if h5dat_lib.verify(output).mismatches:
            self.figures.violate(f"{self.name}: the output does not verify")
        if left := [path.name for path in output.parent.glob(f".{output.name}*")]:
            self.figures.violate(f"{self.name}: left {left}")


def killed(kind: str, seed: int, kills: int, way: tuple[str, ...] = ("--direct",)) -> Figures:
    """Ingests an archive of this kind into one output after the other, until so many kills have hit."""
    figures, random = Figures(), Random(f"{seed}/{kind}")
    what = "kills survived, direct" if way else "kills survived, Prefect"
    with TemporaryDirectory() as name:
        folder = Path(name)
        archive = ARCHIVES[kind](folder)
        whole = Command(archive, folder / "whole.h5", way)
        began = time.monotonic()
        if whole.start().wait(RUN_SECONDS):
            raise RuntimeError(f"an undisturbed run of a {kind} ended with {whole.process.returncode}")
        seconds, round_ = time.monotonic() - began, 0
        members = Counter((archive.name, member) for member in MEMBERS)
        while figures.counts[what] < kills:
            command = Command(archive, folder / f"{round_}.h5", way)
            victim = Victim(f"{kind}, seed {seed}, output {round_}", command, rows_of(whole.output), members, figures, seconds)
            if not victim.suffer(random, what, min(MOST_KILLS, kills - figures.counts[what])):
                seconds *= 0.8  # the undisturbed run had been slow
            command.output.unlink()
            round_ += 1
    return figures
