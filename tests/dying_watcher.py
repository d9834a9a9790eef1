"""A program whose watchers die: a JSON line in, a watcher forked that kills itself at a step or ends when its queue is empty, its end out.

Keys of a line: ``step`` (of `STEPS`, "" to live), ``queue``, ``rules``, ``via`` ("" without Prefect), ``environment``. What it prints is
the exit code, negative for a signal. One program for many watchers, because its imports take as long as a whole watcher.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from h5dat_lib.landing import deliveries
from h5dat_lib.landing.deliveries import FromQueue, Outcome
from h5dat_lib.landing.landed import Landed
from h5dat_lib.landing.loop import Ingest, Landing
from h5dat_lib.landing.rules import Goal, Rules
from h5dat_lib.pipeline import ingest
from h5dat_lib.storage.queue import Queue

STEPS: dict[str, tuple[str, str, bool]] = {
    "received": ("h5dat_lib.storage.queue", "Queue.receive", True),
    "parsed": ("h5dat_lib.landing.deliveries", "objects_of", True),
    "looked at": ("h5dat_lib.landing.loop", "_look", True),
    "committed": ("h5dat_lib.commit.transaction", "Output.commit", True),
    "synced": ("h5dat_lib.sync.working_copy", "WorkingCopy.sync", True),
    "ingested": ("h5dat_lib.landing.loop", "Landing._ingested", True),
    "before it is deleted": ("h5dat_lib.storage.queue", "Queue.delete", False),
    "event emitted": ("flows.watch", "_emit", True),
    "run created": ("prefect.client.orchestration", "SyncPrefectClient.create_flow_run_from_deployment", True),
}
"""Where a watcher dies: module, function, and whether behind it, once it has returned something."""


def die_at(step: str) -> None:
    module, name, behind = STEPS[step]
    owner: Any = importlib.import_module(module)
    *parents, last = name.split(".")
    for parent in parents:
        owner = getattr(owner, parent)
    plain: Callable[..., Any] = getattr(owner, last)

    def dying(*words: Any, **named: Any) -> Any:
        if not behind:
            os.kill(os.getpid(), signal.SIGKILL)
        found = plain(*words, **named)
        if found != []:
            os.kill(os.getpid(), signal.SIGKILL)
        return found

    setattr(owner, last, dying)


def directly(goal: Goal, some: Sequence[Landed]) -> Outcome:
    """Without Prefect."""
    report = ingest([landed.archive for landed in some], goal.output, goal.config)
    return Outcome("ingested" if report.batches else "known")


def _ingest(via: str) -> Ingest:
    if not via:
        return directly
    return importlib.import_module("flows.watch").ingest_via(via)  # type: ignore[no-any-return]


def watch(order: dict[str, Any]) -> None:
    os.environ.update(order["environment"])
    queue = Queue(order["queue"])
    service = Landing(Rules.model_validate(order["rules"]), [FromQueue(queue)], _ingest(order["via"]), _say)
    deliveries._WAIT_SECONDS = 1
    if order["step"]:
        die_at(order["step"])
    while _left(queue):
        service._round(service.sources[0])


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def _left(queue: Queue) -> int:
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    answer = queue._client.get_queue_attributes(QueueUrl=queue.url, AttributeNames=names)
    return sum(map(int, answer["Attributes"].values()))


def main() -> None:
    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if not child:
            code = 1
            try:
                watch(order)
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    for module in sys.argv[1:]:
        importlib.import_module(module)
    main()
