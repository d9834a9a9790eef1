"""A function, run in a forked child: what kills it, hangs or takes too much memory is seen, and survived. Linux only."""

from __future__ import annotations

import faulthandler
import os
import resource
import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_FAILED = 70
"""Exit code of a child whose function raised; sysexits.h has it as EX_SOFTWARE."""
_TIMERS = {signal.ITIMER_PROF: signal.SIGPROF, signal.ITIMER_REAL: signal.SIGALRM}


@dataclass(frozen=True)
class Ended:
    """How a child ended: ``code`` is negative for a signal; ``peak`` are bytes that were resident at most, the parent's among them."""

    code: int
    peak: int

    @property
    def name(self) -> str:
        """What it died of; "" for a child that came to its end."""
        if self.code >= 0:
            return f"exit code {self.code}" if self.code else ""
        return "timeout" if -self.code in _TIMERS.values() else signal.Signals(-self.code).name


def in_child(work: Callable[[], None], memory: int, log: Path) -> Ended:
    """Runs ``work`` with ``memory`` bytes of address space more than there are now; ``log`` gets what it prints, and where it died."""
    child = os.fork()
    if child == 0:
        _run(work, memory, log)
    _, status, used = os.wait4(child, 0)
    return Ended(os.waitstatus_to_exitcode(status), used.ru_maxrss << 10)


def _run(work: Callable[[], None], memory: int, log: Path) -> None:
    """Never returns: what is the parent's is not to be done twice."""
    code = _FAILED
    try:
        _redirect(log)
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + memory,) * 2)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _redirect(log: Path) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    faulthandler.enable(descriptor, all_threads=False)
    for number in _TIMERS.values():
        signal.signal(number, signal.SIG_DFL)
        faulthandler.register(number, descriptor, chain=True)


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Ends this process when what is inside works for longer, or lasts ten times as long, even if it never comes back from native code."""
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.setitimer(signal.ITIMER_REAL, 10 * seconds)
    try:
        yield
    finally:
        for timer in _TIMERS:
            signal.setitimer(timer, 0)
