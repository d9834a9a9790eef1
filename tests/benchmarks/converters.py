"""Each handler beside its bare decoder, in one process and on members in memory: what checks, hashes and rows cost on top.

The handler's side is a member as the worker sees it: read, counted, CRC-32 and SHA-256, recognised, converted to blocks of rows. Nothing is
packed or compressed. The decoder's side is what gives the same values with one thread; where there are several, the fastest. Seconds
are those of the processor: both sides wait for nothing, and other load on the machine does not count.
"""

from __future__ import annotations

import io
import resource
import statistics
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from h5dat_lib.archive.member import Content, Member
from h5dat_lib.columns import Arrays, Block, Draft, Fault, Pieces
from h5dat_lib.config import Config
from h5dat_lib.convert import HANDLERS, Handler, handler_for, single_threaded
from tests.benchmarks import data
from tests.benchmarks.figures import Figure, Setup, in_turn, number, ratio
from tests.benchmarks.formats import CASES, UNITS, Case

_LIMITS = Config().limits
_LEAST_SECONDS = 0.3
"""One side of one round lasts at least this long."""


class _InMemory:
    """A reader of one member that is at hand."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def read(self, member: Member, limit: int) -> bytes:
        return self._data

    def open(self, member: Member) -> BinaryIO:
        return io.BytesIO(self._data)

    def close(self) -> None:
        pass


def converters(setup: Setup) -> Iterator[Figure]:
    """The bare decoder's seconds as a share of the handler's, for typical members of each format."""
    single_threaded()
    pa.set_cpu_count(1)
    return (_compared(setup, handler, case) for handler in HANDLERS for case in CASES[handler.name])


def _compared(setup: Setup, handler: Handler, case: Case) -> Figure:
    path = f"a{handler.extensions[0] if handler.extensions else '.mp4'}"
    member = _member(setup, handler.name, case)
    entry = Member(path, len(member), len(member), 0, crc32=zlib.crc32(member))
    bare = [lambda decode=decode: _each(lambda: decode(member)) for decode in case.decoders.values()]
    _convert(handler, entry, member, case)  # imports what it needs
    ours, *theirs = in_turn(setup.rounds, lambda: _each(lambda: _convert(handler, entry, member, case)), *bare)
    name, fastest = min(zip(case.decoders, theirs, strict=True), key=lambda found: statistics.median(found[1]))
    seconds = statistics.median(ours)
    rate = f"{number(case.decoders[name](member) / seconds)} {UNITS.get(handler.medium, 'MB/s')}"
    detail = f"{name} {_duration(statistics.median(fastest))}, handler {_duration(seconds)}, {rate}"
    return Figure(f"converter, {handler.name}, {case.name}", ratio(fastest, ours), "of its decoder", None, detail)


def _member(setup: Setup, handler: str, case: Case) -> bytes:
    folder = setup.folder / "members"
    folder.mkdir(exist_ok=True)
    name = "".join(letter if letter.isalnum() else "-" for letter in f"{handler} {case.name}")
    return data.made(folder, name, lambda path: _write(path, case.make())).read_bytes()


def _write(path: Path, member: bytes) -> None:
    path.write_bytes(member)


def _convert(handler: Handler, entry: Member, member: bytes, case: Case) -> None:
    content = Content(_InMemory(member), entry, _LIMITS)
    found = handler_for(content.head(), entry.path, handler.medium)
    if found is not handler:
        raise TypeError(f"{entry.path}: found the handler {found and found.name}, expected {handler.name}")
    for block in handler.convert(content, case.options):
        _exhaust(block)


def _exhaust(block: Block | Fault | Draft) -> None:
    """Takes what a block has not made yet: sound comes in pieces."""
    if isinstance(block, Fault):
        raise TypeError(block.reason)
    for column in () if isinstance(block, Draft) else block.columns.values():
        for value in column.values if isinstance(column, Arrays) else ():
            if isinstance(value, Pieces):
                deque(value.parts, 0)


def _each(call: Callable[[], Any]) -> float:
    """Processor seconds of one call, its child processes included, over as many as last `_LEAST_SECONDS`."""
    started, calls = _processor_seconds(), 0
    while (passed := _processor_seconds() - started) < _LEAST_SECONDS:
        call()
        calls += 1
    return passed / calls


def _processor_seconds() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def _duration(seconds: float) -> str:
    return f"{seconds * 1e6:.0f} us" if seconds < 1e-3 else f"{seconds * 1e3:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"
