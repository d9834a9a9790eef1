"""Each handler beside its bare decoder, in one process and on members in memory: what checks, hashes and rows cost on top.

The handler's side is a member as the worker sees it: read, counted, CRC-32 and SHA-256, recognised, converted to blocks of rows. Nothing is
packed or compressed. The decoder's side is the one call that gives the same values.
"""

from __future__ import annotations

import io
import json
import random
import statistics
import time
import zlib
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import simplejpeg
from PIL import Image
from pyarrow import csv

from h5dat_lib.archive.member import Content, Member
from h5dat_lib.config import Config
from h5dat_lib.convert import handler_for, single_threaded
from tests.benchmarks import data
from tests.benchmarks.figures import Figure, Setup, in_turn, number, ratio

_CONFIG = Config()
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


def converters(setup: Setup) -> list[Figure]:
    """The bare decoder's seconds as a share of the handler's, for a typical member of each format."""
    single_threaded()
    pa.set_cpu_count(1)
    return [_compared(setup, name, path, member, bare) for name, path, member, bare in _cases()]


def _cases() -> list[tuple[str, str, bytes, Callable[[bytes], Any]]]:
    rng, source = np.random.default_rng(7), random.Random(7)
    small, large = data.photo(rng, 80, 60), data.photo(rng, 1440, 1080)
    picture = Image.open(io.BytesIO(large)).resize((720, 540))
    products = [json.loads(data.document(source, number)) for number in range(6)]
    return [
        ("jpeg 80x60", "a.jpg", small, simplejpeg.decode_jpeg),
        ("jpeg 1440x1080", "a.jpg", large, simplejpeg.decode_jpeg),
        ("png 720x540", "a.png", _saved(picture, "PNG"), _pillow),
        ("webp 720x540", "a.webp", _saved(picture, "WEBP"), _pillow),
        ("json 3 KB", "a.json", data.document(source, 1), json.loads),
        ("json 17 KB", "a.json", json.dumps(products, indent=1).encode(), json.loads),
        ("csv 100 MB", "a.csv", data.table(100), _arrow),
    ]


def _saved(picture: Image.Image, kind: str) -> bytes:
    out = io.BytesIO()
    picture.save(out, kind)
    return out.getvalue()


def _pillow(member: bytes) -> Any:
    return np.asarray(Image.open(io.BytesIO(member)))


def _arrow(member: bytes) -> Any:
    return csv.read_csv(io.BytesIO(member), csv.ReadOptions(use_threads=False))


def _compared(setup: Setup, name: str, path: str, member: bytes, bare: Callable[[bytes], Any]) -> Figure:
    entry = Member(path, len(member), len(member), 0, crc32=zlib.crc32(member))
    ours, theirs = lambda: _convert(entry, member), lambda: bare(member)
    seconds = in_turn(setup.rounds, lambda: _each(theirs), lambda: _each(ours))
    decoder, handler = (statistics.median(side) for side in seconds)
    detail = f"decoder {_duration(decoder)}, handler {_duration(handler)}, {number(len(member) / 1e6 / handler)} MB/s"
    return Figure(f"converter, {name}", ratio(*seconds), "of its decoder", None, detail)


def _convert(entry: Member, member: bytes) -> None:
    content = Content(_InMemory(member), entry, _CONFIG.limits)
    handler = handler_for(content.head(), entry.path)
    if handler is None:
        raise TypeError(f"{entry.path}: no handler")
    for _ in handler.convert(content, _CONFIG):
        pass


def _each(call: Callable[[], Any]) -> float:
    """Seconds of one call, over as many as last `_LEAST_SECONDS`."""
    started, calls = time.perf_counter(), 0
    while (passed := time.perf_counter() - started) < _LEAST_SECONDS:
        call()
        calls += 1
    return passed / calls


def _duration(seconds: float) -> str:
    return f"{seconds * 1e6:.0f} us" if seconds < 1e-3 else f"{seconds * 1e3:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"
