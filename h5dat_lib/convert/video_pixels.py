"""A decoded frame in, its pixels out: RGB or grey, turned upright, in the size that was asked for.

FFmpeg's own ``scale`` filter converts, with the flags of its command line, so that the pixels are those of ``ffmpeg -pix_fmt rgb24``:
BT.601 or BT.709, limited or full range, as the video says; BT.601 and limited range where it does not. More than 8 bit are rounded to 8.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
from av.filter import Graph
from av.video.frame import VideoFrame

from h5dat_lib.config import VideoOptions
from h5dat_lib.convert.colours import recoloured
from h5dat_lib.convert.picture import Pixels
from h5dat_lib.convert.sizes import resize

__all__ = ["Developer", "turn"]

_UPRIGHT: tuple[int, ...] = (1, 0, 0, 1)
_TICK = Fraction(1, 1000)
"""Filters want to know what times are counted in; these do not look at them."""


class Developer:
    """Frames -> pixels (height, width, channels) uint8. A frame whose pixels lie closely in memory is not copied."""

    def __init__(self, options: VideoOptions) -> None:
        self._options = options
        self._form: tuple[object, ...] = ()
        self._graph = Graph()
        self._matrix = _UPRIGHT

    def pixels(self, frame: VideoFrame) -> Pixels:
        """The pixels of a frame. Raises MemberError when they cannot be resized."""
        form = (frame.width, frame.height, frame.format.name, frame.colorspace, frame.color_range, frame.rotation)
        if form != self._form:
            # not for every frame: one whose side data were looked at is in a cycle, and waits for the garbage collector
            self._form, self._graph, self._matrix = form, _graph(frame), _matrix(frame)
        turned = _turned(self._rgb(frame), self._matrix)
        return np.ascontiguousarray(resize(recoloured(turned, self._options.color), self._options.resize))

    def _rgb(self, frame: VideoFrame) -> Pixels:
        self._graph.vpush(frame)
        plane = self._graph.vpull().planes[0]
        rows: Pixels = np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)
        return rows[:, : 3 * plane.width].reshape(plane.height, plane.width, 3)


def turn(frame: VideoFrame) -> int:
    """The degrees, clockwise, that a frame is turned by to be shown upright: 0, 90, 180 or 270."""
    a, b, _, _ = _matrix(frame)
    return round(math.degrees(math.atan2(b, a)) / 90) * 90 % 360


def _graph(frame: VideoFrame) -> Graph:
    graph = Graph()
    graph.threads = 1
    source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=_TICK)
    nodes = (source, graph.add("scale", "flags=bicubic"), graph.add("format", "rgb24"), graph.add("buffersink"))
    graph.link_nodes(*nodes).configure()
    return graph


def _matrix(frame: VideoFrame) -> tuple[int, ...]:
    """a, b, c, d of a display matrix in whole turns: a pixel at (x, y) is shown at (ax + cy, bx + dy). ISO/IEC 14496-12, 6.2.2."""
    data: Any = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return _UPRIGHT
    a, b, _, c, d = (int(value) for value in np.frombuffer(data, np.int32)[:5])
    if abs(a) + abs(d) < abs(b) + abs(c):
        a = d = 0
    else:
        b = c = 0
    return tuple((value > 0) - (value < 0) for value in (a, b, c, d))


def _turned(pixels: Pixels, matrix: tuple[int, ...]) -> Pixels:
    a, b, c, d = matrix
    if b:
        pixels = pixels.swapaxes(0, 1)
    return pixels[:: -1 if b + d < 0 else 1, :: -1 if a + c < 0 else 1]
