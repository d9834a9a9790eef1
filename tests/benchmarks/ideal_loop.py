"""The least that must be done for photos: a bare pool decodes each and deflates its pixels. Archive or folder in, seconds out, as JSON.

    python -m tests.benchmarks.ideal_loop ARCHIVE

Nothing is checked, hashed, recorded or written; where the members lie is known before the clock starts, and the workers have met.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import time
import zipfile
from pathlib import Path

import simplejpeg
from isal import isal_zlib

from tests.benchmarks.one_run import processor_seconds

WORKERS = 2
_LOCAL_BYTES = 30
_opened: dict[str, int] = {}


def convert(place: tuple[str, int, int]) -> int:
    """Decodes one member and deflates its pixels; returns how many bytes that gave."""
    path, at, size = place
    if path not in _opened:
        _opened[path] = os.open(path, os.O_RDONLY)
    pixels = simplejpeg.decode_jpeg(os.pread(_opened[path], size, at))
    return len(isal_zlib.compress(memoryview(pixels).cast("B"), 1))


def places(path: str) -> list[tuple[str, int, int]]:
    """Path, first byte and size of the data of each stored member, or of each file in a folder."""
    if Path(path).is_dir():
        return [(str(file), 0, file.stat().st_size) for file in sorted(Path(path).iterdir())]
    with zipfile.ZipFile(path) as archive, open(path, "rb") as file:
        found = []
        for info in archive.infolist():
            file.seek(info.header_offset + 26)
            name, extra = (int.from_bytes(file.read(2), "little") for _ in range(2))
            found.append((path, info.header_offset + _LOCAL_BYTES + name + extra, info.file_size))
    return found


def main() -> None:
    members = places(sys.argv[1])
    with multiprocessing.get_context("spawn").Pool(WORKERS) as pool:
        pool.map(convert, members[: 4 * WORKERS], chunksize=1)
        started, before = time.perf_counter(), processor_seconds()
        size = sum(pool.imap_unordered(convert, members, chunksize=4))
        seconds = time.perf_counter() - started
        cpu = processor_seconds() - before
    print(json.dumps({"members": len(members), "seconds": seconds, "bytes": size, "cpu": cpu}))


if __name__ == "__main__":
    main()
