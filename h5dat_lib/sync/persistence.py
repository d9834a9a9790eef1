"""A step that needs the store -> its result, also when the store is away for a while."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from h5dat_lib.errors import OutputError
from h5dat_lib.storage import aws
from h5dat_lib.sync.remote import code_of

__all__ = ["may_pass", "persistently"]

Result = TypeVar("Result")

_AWAY_SECONDS = 120.0
"""For how long a store may be away, beyond the tries of each request."""
_LONGEST_WAIT = 15.0


def may_pass(exc: OutputError) -> bool:
    """Whether the same step may do better later: there was no answer, or the upload was ended by somebody else."""
    return aws.is_passing(exc.__cause__) or code_of(exc) == "NoSuchUpload"


def persistently(step: Callable[[], Result], stop: threading.Event | None = None) -> Result:
    """Takes a step again and again, with waits that grow, for two minutes after it has failed first; raises its last error, and at once
    one that will not pass, or when ``stop`` is set."""
    stop = stop or threading.Event()
    end, wait = 0.0, 0.5
    while True:
        try:
            return step()
        except OutputError as exc:
            end = end or time.monotonic() + _AWAY_SECONDS
            if not may_pass(exc) or time.monotonic() > end or stop.wait(wait):
                raise
        wait = min(2 * wait, _LONGEST_WAIT)
