"""A queue, or the listing of a prefix -> deliveries of landed objects, each answered for once it is known what came of them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal, Protocol

from h5dat_lib.errors import InputError
from h5dat_lib.landing.landed import Landed, objects_of
from h5dat_lib.landing.rules import Goal, Rules
from h5dat_lib.landing.seen import Seen
from h5dat_lib.storage import aws
from h5dat_lib.storage.queue import Message, Queue

__all__ = ["Deliveries", "Delivery", "FromListing", "FromQueue", "Outcome"]

_MOST = 100
"""Deliveries that are taken at once, so that those of one output go into it together."""
_WAIT_SECONDS = 5
"""How long is waited for something new at a time."""
_FIRST_DELAY, _LONGEST_DELAY = 30.0, 3600.0
"""Seconds after which something that failed is tried again: twice as long each time."""

Kind = Literal["ingested", "known", "handed over", "left out", "gone", "failed", "refused"]


@dataclass(frozen=True)
class Outcome:
    """What came of an object or a delivery.

    ingested: it is in, committed and synced. known: it was in. handed over: a flow run on the server will do it. left out: no archive for
    us. gone: it was deleted before it could be read. failed: to be tried again, ``soon`` if only a server was away. refused: trying again
    would not help.
    """

    kind: Kind
    reason: str = ""
    soon: bool = False


_GRAVITY: tuple[Kind, ...] = ("gone", "left out", "known", "handed over", "ingested", "refused", "failed")


@dataclass(frozen=True)
class Delivery:
    """What comes at once and is answered for as one: a message, or an entry of a listing. ``fault``: why it cannot be understood."""

    token: Any
    objects: tuple[Landed, ...]
    fault: str = ""
    last: bool = False
    """Whether it would not be delivered again if it failed."""

    def outcome(self, outcomes: Sequence[Outcome]) -> Outcome:
        """What came of it, from what came of its objects: the gravest."""
        if self.fault:
            return Outcome("refused", self.fault)
        gravest = max(outcomes, key=lambda each: _GRAVITY.index(each.kind), default=Outcome("left out", "nothing landed"))
        given_up = self.last and gravest.kind == "failed" and not gravest.soon
        return Outcome("refused", gravest.reason) if given_up else gravest


class Deliveries(Protocol):
    """Where deliveries come from."""

    def take(self) -> list[Delivery]:
        """What is new, up to a bounded number; waits a few seconds for it."""
        ...

    def held(self, deliveries: Sequence[Delivery]) -> AbstractContextManager[None]:
        """Keeps deliveries from others while they are worked on."""
        ...

    def settle(self, delivery: Delivery, outcome: Outcome) -> Outcome:
        """Answers for a delivery: it comes again only if it failed. Returns the outcome as it could be settled."""
        ...


class FromQueue:
    """Messages of a queue. One that is refused goes to the dead-letter queue; without one it is left, and comes back now and then."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue

    def take(self) -> list[Delivery]:
        more = self._queue.receive(_WAIT_SECONDS)
        end = time.monotonic() + self._queue.visibility / 3  # then the first ones have to be held
        found: dict[str, Message] = {}
        while more:
            found |= {message.id: message for message in more}  # its last receipt is the one that counts
            more = self._queue.receive(0) if len(found) < _MOST and time.monotonic() < end else []
        return [self._delivery(message) for message in found.values()]

    def _delivery(self, message: Message) -> Delivery:
        most = self._queue.most_receives
        last = most is not None and message.received >= most
        try:
            return Delivery(message, objects_of(message.body), last=last)
        except InputError as exc:
            return Delivery(message, (), str(exc), last)

    def held(self, deliveries: Sequence[Delivery]) -> AbstractContextManager[None]:
        return self._queue.held([delivery.token for delivery in deliveries])

    def settle(self, delivery: Delivery, outcome: Outcome) -> Outcome:
        message: Message = delivery.token
        if outcome.kind == "refused" and self._queue.bury(message, outcome.reason):
            return outcome
        if outcome.kind in ("failed", "refused"):
            self._queue.release(message, _delay(message.received))
        else:
            self._queue.delete(message)
        return outcome


class FromListing:
    """Objects below a prefix, listed again and again. What came of each is remembered by key, ETag and output.

    A listing is taken page by page, in whatever order the store has, and memory holds one page of it.
    """

    def __init__(self, bucket: str, prefix: str, every: float, rules: Rules, seen: Seen) -> None:
        self._bucket, self._prefix, self._every = bucket, prefix, every
        self._rules, self._seen = rules, seen
        self._round: Iterator[Delivery] = iter(())
        self._next = 0.0
        self._failures: Counter[str] = Counter()
        self._not_before: dict[str, float] = {}

    def take(self) -> list[Delivery]:
        found = self._some()
        if not found and (left := self._next - time.monotonic()) > 0:
            time.sleep(min(left, _WAIT_SECONDS))
        elif not found:
            self._next = time.monotonic() + self._every
            self._round = self._listed()
            found = self._some()
        return found

    def _some(self) -> list[Delivery]:
        return list(islice(self._round, _MOST))

    def _listed(self) -> Iterator[Delivery]:
        """New objects of one listing. Objects are whole once they are listed: a multipart upload is not, until it is completed."""
        pages = iter(aws.client("s3").get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._prefix))
        while True:
            with aws.explained(f"s3://{self._bucket}/{self._prefix}"):
                page = next(pages, None)
            if page is None:
                return
            entries = [self._entry(found) for found in page.get("Contents", ())]
            for landed in self._seen.new(self._bucket, [(each, _output(self._rules, each)) for each in entries]):
                if time.monotonic() >= self._not_before.get(landed.key, 0.0):
                    yield Delivery(landed, (landed,))

    def _entry(self, found: dict[str, Any]) -> Landed:
        return Landed(self._bucket, found["Key"], etag=found["ETag"].strip('"'), size=found["Size"])

    def held(self, deliveries: Sequence[Delivery]) -> AbstractContextManager[None]:
        return nullcontext()

    def settle(self, delivery: Delivery, outcome: Outcome) -> Outcome:
        landed: Landed = delivery.token
        if outcome.kind == "failed":
            self._failures[landed.key] += 1
            self._not_before[landed.key] = time.monotonic() + _delay(self._failures[landed.key])
            return outcome
        self._failures.pop(landed.key, None)
        self._not_before.pop(landed.key, None)
        self._seen.note(landed, _output(self._rules, landed), outcome.kind, outcome.reason)
        return outcome


def _output(rules: Rules, landed: Landed) -> str:
    """The output of an object, "" when it has none."""
    try:
        goal = rules.goal(landed)
    except InputError:
        return ""
    return goal.output if isinstance(goal, Goal) else ""


def _delay(times: int) -> float:
    return min(_FIRST_DELAY * 2.0 ** min(times - 1, 10), _LONGEST_DELAY)
