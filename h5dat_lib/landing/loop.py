"""Deliveries -> each object that landed is looked at, ingested, and answered for once that is safe; goes on until it is asked to stop.

Messages come at least once and in any order, so nothing rests on them: an archive that is in is known to its output, and nothing to do.
"""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from types import FrameType

from h5dat_lib.errors import (
    BudgetExceeded,
    ConfigError,
    FormatError,
    H5datError,
    InputError,
    Interrupted,
    OutputError,
    Unavailable,
    escaped,
)
from h5dat_lib.landing.deliveries import Deliveries, Delivery, Outcome
from h5dat_lib.landing.landed import Landed, in_order
from h5dat_lib.landing.rules import Goal, Rules
from h5dat_lib.storage import Pin, aws, open_source
from h5dat_lib.storage.meanwhile import meanwhile

__all__ = ["Ingest", "Landing", "Stop"]

Ingest = Callable[[Goal, Sequence[Landed]], Outcome]
"""Sees to it that objects go into their output. Returns once that is recorded safely; raises what the pipeline raises."""

TOGETHER = 50
"""Archives of one output that go into it in one run, at most."""
_PATIENCE = 900.0
"""Seconds for which a delivery is kept and tried again while a server is away; then it is given back, to come again later."""
_LONGEST_PAUSE = 60.0
_BEAT_SECONDS = 10.0
_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_REPLACED = ("412", "PreconditionFailed")
"""The object is another than when it was looked at: it is looked at again."""
_GONE = ("404", "NoSuchKey", "NoSuchVersion")


class _Left(BaseException):
    """Leaves what only waits, past everything there that catches exceptions to try again."""


class Stop:
    """Whether the service has been asked to stop: what only waits ends at once, anything else at its next step."""

    def __init__(self) -> None:
        self._asked = False
        self._waiting = False

    def ask(self, number: int = 0, frame: FrameType | None = None) -> None:
        """A signal handler."""
        self._asked = True
        if self._waiting:
            raise _Left

    def check(self) -> None:
        """Raises Interrupted when it has been asked for."""
        if self._asked:
            raise Interrupted("stopped; what was not done yet stays where it came from")

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """The block may be left in its middle."""
        self._waiting = True
        try:
            self.check()
            yield
        except _Left:
            self.check()
        finally:
            self._waiting = False

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """SIGTERM and Ctrl-C ask to stop, in a program's main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.ask) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


@dataclass
class Landing:
    """The service: takes deliveries from its sources in turn, and answers for them.

    ``tell`` is given a line for each delivery that is answered for and for each new trouble, ``observe`` the counts of outcomes so far.
    ``heartbeat`` is touched as long as it lives.
    """

    rules: Rules
    sources: Sequence[Deliveries]
    ingest: Ingest
    tell: Callable[[str], None]
    observe: Callable[[Mapping[str, int]], None] = lambda counts: None
    heartbeat: Path | None = None
    counts: Counter[str] = field(default_factory=Counter)
    stop: Stop = field(default_factory=Stop)
    _troubles: dict[int, tuple[int, str]] = field(default_factory=dict)
    _reached: bool = False

    def run(self) -> None:
        """Goes on until it is asked to stop. Raises H5datError when a source cannot be used from the beginning."""
        with self.stop.on_signals():
            try:
                while True:
                    for source in self.sources:
                        self._round(source)
            except Interrupted as exc:
                self.tell(str(exc))

    def _round(self, source: Deliveries) -> None:
        with meanwhile(self._beat, "heartbeat"):
            deliveries = self._taken(source)
            if not deliveries:
                return
            before = Counter(self.counts)
            with source.held(deliveries):
                self._worked_on(source, deliveries)
        if self.counts != before:
            self.observe(self.counts)

    def _taken(self, source: Deliveries) -> list[Delivery]:
        """What is new; nothing when the source cannot be reached, after a pause that grows each time."""
        aws.use(self.rules.s3)
        times, said = self._troubles.pop(id(source), (0, ""))
        try:
            with self.stop.at_once():
                found = source.take()
        except H5datError as exc:
            if isinstance(exc, Interrupted) or not (self._reached or aws.is_passing(exc)):
                raise
            if str(exc) != said:
                self.tell(escaped(str(exc)))
            self._troubles[id(source)] = (times + 1, str(exc))
            self._pause(min(2.0**times, _LONGEST_PAUSE))
            return []
        self._reached = True
        return found

    def _worked_on(self, source: Deliveries, deliveries: Sequence[Delivery]) -> None:
        """Answers for deliveries; tries again while only a server is away, for so long as our patience lasts."""
        end, pause, said = time.monotonic() + _PATIENCE, 1.0, ""
        while left := self._tried(source, deliveries):
            reason = next((outcome.reason for _, outcome in left if outcome.reason), "")
            if time.monotonic() + pause > end:
                for delivery, outcome in left:
                    self._settle(source, delivery, delivery.outcome([replace(outcome, soon=False)]))
                return
            if reason != said:
                self.tell(escaped(f"{reason}; tried again for {_PATIENCE / 60:.0f} minutes"))
            self._pause(pause)
            pause = min(2 * pause, _LONGEST_PAUSE) if len(left) == len(deliveries) else 1.0  # it goes on, if only in part
            deliveries, said = [delivery for delivery, _ in left], reason

    def _tried(self, source: Deliveries, deliveries: Sequence[Delivery]) -> list[tuple[Delivery, Outcome]]:
        """Those deliveries that are to be tried again soon; all others have been answered for."""
        away = Outcome("failed", soon=True)
        left = [(delivery, away) for delivery in deliveries]
        for outcomes in self._steps(in_order(landed for delivery in deliveries for landed in delivery.objects)):
            now = [(delivery, delivery.outcome([outcomes.get(landed, away) for landed in delivery.objects])) for delivery, _ in left]
            left = [(delivery, outcome) for delivery, outcome in now if outcome.soon]
            for delivery, outcome in now:
                if not outcome.soon:
                    self._settle(source, delivery, outcome)
            self.stop.check()
        return left

    def _steps(self, objects: Sequence[Landed]) -> Iterator[Mapping[Landed, Outcome]]:
        """What came of the objects, after each step as far as it is known by then."""
        known: dict[Landed, Outcome] = {}
        groups: dict[tuple[str, str], tuple[Goal, dict[Landed, list[Landed]]]] = {}
        for landed in objects:
            found = self._looked_at(landed)
            if isinstance(found, Outcome):
                known[landed] = found
                if found.soon:
                    break  # the store is away: it would take as long to find out for each
            else:
                goal, exact = found
                groups.setdefault((goal.rule, goal.output), (goal, {}))[1].setdefault(exact, []).append(landed)
        yield known
        for goal, members in groups.values():
            rest = iter(members)
            while some := list(islice(rest, TOGETHER)):
                for exact, outcome in self._ingested(goal, some).items():
                    known |= dict.fromkeys(members[exact], outcome)
                yield known

    def _looked_at(self, landed: Landed) -> Outcome | tuple[Goal, Landed]:
        """Where an object goes, and the object as it is now; or why it goes nowhere."""
        try:
            goal = self.rules.goal(landed)
            if isinstance(goal, str):
                return Outcome("left out", goal)
            aws.use(goal.config.s3)
            with self.stop.at_once():
                found = _look(landed)
        except H5datError as exc:
            return _failure(exc)
        if found is None and landed.raw_key:
            return self._looked_at(replace(landed, key=landed.raw_key, raw_key=""))
        if found is None:
            return Outcome("gone", "it was deleted before it could be read")
        exact, head = found
        return Outcome("left out", "an HDF5 file, no archive") if head == _SIGNATURE else (goal, exact)

    def _ingested(self, goal: Goal, some: Sequence[Landed]) -> dict[Landed, Outcome]:
        """What came of objects that go into one output together; of which some cannot be used is found by halving."""
        try:
            return dict.fromkeys(some, self.ingest(goal, some))
        except Exception as exc:  # whatever it is, it must not stop what comes after
            outcome = _failure(exc)
            if len(some) == 1 or outcome.soon or isinstance(exc, OutputError | ConfigError | FormatError):
                return dict.fromkeys(some, outcome)
        middle = len(some) // 2
        return self._ingested(goal, some[:middle]) | self._ingested(goal, some[middle:])

    def _settle(self, source: Deliveries, delivery: Delivery, outcome: Outcome) -> None:
        """Answers for a delivery. If that fails it comes again, and there is nothing to do then."""
        try:
            settled = source.settle(delivery, outcome)
        except H5datError as exc:
            settled = Outcome("failed", f"{outcome.kind}, but: {exc}")
        self.counts[settled.kind] += 1
        names = ", ".join(landed.uri for landed in delivery.objects) or "message"
        self.tell(escaped(f"{names}: {settled.kind}" + (f": {settled.reason}" if settled.reason else "")))

    def _pause(self, seconds: float) -> None:
        with self.stop.at_once():
            time.sleep(seconds)

    def _beat(self, over: threading.Event) -> None:
        """Touches the heartbeat at the beginning of a round, and while a long run keeps it."""
        while self.heartbeat:
            self.heartbeat.touch()
            if over.wait(_BEAT_SECONDS):
                return


def _look(landed: Landed) -> tuple[Landed, bytes] | None:
    """An object as it is now, and its first bytes, by one request; None when it is not there."""
    try:
        source = open_source(landed.archive)
    except InputError as exc:
        if aws.error_code(exc) in _GONE:
            return None
        raise
    pin = source.pin or Pin(source.size, landed.etag)
    head = source.read_at(0, len(_SIGNATURE))
    source.close()
    return Landed(landed.bucket, landed.key, pin.version, pin.etag, pin.size), head


def _failure(exc: Exception) -> Outcome:
    """What an error means for the object that it was met with."""
    if isinstance(exc, Interrupted):
        raise exc
    reason, code = str(exc) or type(exc).__name__, aws.error_code(exc)
    if isinstance(exc, Unavailable) or isinstance(exc.__cause__, ConnectionError) or aws.is_passing(exc) or code in _REPLACED:
        return Outcome("failed", reason, soon=True)
    if code in _GONE:
        return Outcome("gone", reason)
    if isinstance(exc, InputError | BudgetExceeded) and (aws.cause(exc) is None or code == "InvalidObjectState"):
        return Outcome("refused", reason)
    # a setting, a policy, a disk, or a fault of ours: not this archive's
    return Outcome("failed", reason if isinstance(exc, H5datError) else f"{type(exc).__name__}: {reason}")
