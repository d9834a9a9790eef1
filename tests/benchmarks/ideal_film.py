"""The least that must be done for a video: two processes decode a half each, from keyframes on. Video in, seconds out, as JSON.

    python -m tests.benchmarks.ideal_film VIDEO [--deflate]

Where the halves meet is known before the clock starts, and the workers have met.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
import time
from typing import Any

import av
from av.video.reformatter import VideoReformatter
from isal import isal_zlib

from tests.benchmarks.ideal_loop import WORKERS

_END = 1 << 62


def convert(half: tuple[str, int, int, bool]) -> tuple[int, int]:
    """Decodes the frames from one time to another, counted as the stream does, to RGB; returns their number and bytes."""
    path, start, end, deflate = half
    reformatter, frames, size = VideoReformatter(), 0, 0
    with av.open(path, "r") as file:
        stream = file.streams.video[0]
        stream.codec_context.thread_count = 1
        file.seek(start, stream=stream)
        for frame in file.decode(stream):
            if (frame.pts or 0) >= end:
                break
            pixels: Any = reformatter.reformat(frame, format="rgb24").to_ndarray()
            size += len(isal_zlib.compress(memoryview(pixels).cast("B"), 1)) if deflate else pixels.nbytes
            frames += 1
    return frames, size


def halves(path: str, deflate: bool) -> list[tuple[str, int, int, bool]]:
    """From the start to the keyframe that is next to the middle, and from there on."""
    with av.open(path, "r") as file:
        times = sorted((packet.pts, packet.is_keyframe) for packet in file.demux(video=0) if packet.pts is not None)
    middle = times[len(times) // 2][0]
    cut = min((at for at, is_keyframe in times if is_keyframe), key=lambda at: abs(at - middle))
    return [(path, times[0][0], cut, deflate), (path, cut, _END, deflate)]


def main() -> None:
    parts = halves(sys.argv[1], "--deflate" in sys.argv)
    with multiprocessing.get_context("spawn").Pool(WORKERS) as pool:
        pool.map(convert, [(path, start, start + 1, deflate) for path, start, _, deflate in parts], chunksize=1)
        started = time.perf_counter()
        found = pool.map(convert, parts, chunksize=1)
        seconds = time.perf_counter() - started
    frames, size = (sum(numbers) for numbers in zip(*found, strict=True))
    print(json.dumps({"frames": frames, "bytes": size, "seconds": seconds}))


if __name__ == "__main__":
    main()
