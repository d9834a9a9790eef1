"""What goes on in a thread beside a block of code, for as long as that lasts."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["meanwhile"]


@contextmanager
def meanwhile(do: Callable[[threading.Event], None], name: str) -> Iterator[None]:
    """Calls ``do`` in a thread of this name; the event that it is given is set when the block ends, which waits for it."""
    over = threading.Event()
    thread = threading.Thread(target=do, args=(over,), name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
