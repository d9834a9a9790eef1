"""Puts bad decoders into every Python process that has this folder on its path: texts of some names do what foreign code may do.

Spawned workers cannot be patched from a test; Python imports a module of this name when it starts.
"""

from __future__ import annotations

import ctypes
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import PurePath
from typing import Any

from h5dat_lib import convert


def _bloat() -> None:
    held = []
    while True:
        held.append(bytes(1 << 26))


def _hang() -> None:
    while True:
        time.sleep(1e6)


KILLERS: dict[str, Callable[[], Any]] = {
    "segv": lambda: ctypes.string_at(0),
    "abort": os.abort,
    "exit": lambda: os._exit(3),
    "exit0": lambda: os._exit(0),
    "sysexit": sys.exit,
    "kill": lambda: os.kill(os.getpid(), 9),
    "term": lambda: os.kill(os.getpid(), 15),
    "bloat": _bloat,
    "hang": _hang,
}
"""What a member ``NAME-anything.txt`` does instead of being converted."""

_plain = convert.by_extension(".txt")


def _convert(content: Any, options: Any) -> Iterator[Any]:
    KILLERS.get(PurePath(content.member.path).stem.partition("-")[0], bool)()
    yield from _plain.convert(content, options)


convert._BY_EXTENSION[".txt"] = (replace(_plain, convert=_convert),)
