"""Videos: a member's bytes in, a row for each wanted frame in the table ``frames`` and one row for the video out.

FFmpeg decodes, by way of PyAV; pixels are those that its command line gives as ``rgb24``. Frames that are shown are given as they are
coded: interlaced ones are not split, pixels that are not square are not stretched.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING

import numpy as np

from h5dat_lib.archive.member import WHOLE, Content
from h5dat_lib.columns import Arrays, Block, Column, Fault, References, Scalars
from h5dat_lib.config import MediumOptions
from h5dat_lib.convert.audio import sound_columns
from h5dat_lib.convert.handler import Signature, carries
from h5dat_lib.convert.picture import Pixels
from h5dat_lib.convert.video_choice import Numbers, chosen, part, spread
from h5dat_lib.convert.video_summary import Summary
from h5dat_lib.errors import MemberError

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

    from h5dat_lib.convert.video_frames import Film, Lost

_BLOCK_BYTES = 8 << 20
_DAMAGE_BYTES = 64
_CHANNELS = {"RGB": 3, "L": 1}
DEMUXERS = {
    "mp4": "mov",
    "mkv": "matroska",
    "avi": "avi",
    "mpeg": "mpeg",
    "m2v": "mpegvideo",
    "ts": "mpegts",
    "wmv": "asf",
    "gif-video": "gif",
}
"""FFmpeg's names of the containers."""
SIGNATURES: dict[str, tuple[Signature, ...]] = {
    # A QuickTime file of old starts with one of these boxes; the others are in ISO/IEC 14496-12, 4.3.
    "mp4": tuple(((4, box),) for box in (b"ftyp", b"moov", b"mdat", b"wide")),
    "mkv": (((0, b"\x1a\x45\xdf\xa3"),),),
    "avi": (((0, b"RIFF"), (8, b"AVI ")),),
    "mpeg": (((0, b"\0\0\1\xba"),),),
    "m2v": (((0, b"\0\0\1\xb3"),),),
    "ts": tuple(tuple((at, b"\x47") for at in range(first, 3 * length, length)) for length, first in ((188, 0), (192, 4), (204, 0))),
    "wmv": (((0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11"),),),
    "gif-video": (((0, b"GIF87a"),), ((0, b"GIF89a"),)),
}
"""Groups of (offset, bytes) by format."""


def convert(kind: str, content: Content, options: MediumOptions) -> Iterator[Block | Fault]:
    """Blocks of frames of at most 8 MiB, and one row of the class's own table at the end. ``kind`` is a name in `DEMUXERS`.

    Columns of ``frames``: ``pixels`` (height, width, channels) uint8; ``video``, the row of the video; ``frame`` uint64, the number in
    the whole video in the order in which frames are shown, from 0; ``time`` float64, when it is shown, in seconds from the start of the
    container; ``keyframe`` bool, coded by itself.

    Columns of the video: ``first``, the row of its first frame, and ``count`` uint64, of how many rows; ``total`` uint64, frames in the
    file; ``width``, ``height`` uint32 of the video as it is shown; ``rotation`` int16, degrees clockwise that have been applied;
    ``pixel_aspect`` float64, the width of a pixel by its height; ``fps`` float64, frames in the file by its duration; ``duration``
    float64, from the first frame to the end of the last, in seconds; ``codec`` and ``format`` S16; ``audio`` bool, whether there is an
    audio track; ``damage`` S64, what was lost, only when damage is tolerated; ``summary`` (height, width, channels), when asked for; and
    the columns of `sound_columns`, when asked for: there damaged sound is marked, whatever the options of audio say.

    Strict, frames come up to where damage begins, and a Fault says what it is; tolerant, all that can be decoded. Of a member that is
    converted in parts each part gives its own frames, and a row that counts them; sound and summary are in that of the first.
    Raises MemberError when there is no video track, its frames are too large, or none of the wanted ones can be decoded.
    """
    from h5dat_lib.convert.video_frames import Film

    with closing(Film(content, DEMUXERS[kind])) as film:
        yield from _Reel(kind, content, film, options).blocks()


def probe(content: Content, options: MediumOptions) -> tuple[tuple[int, ...], str]:
    """Shape (height, width, channels) and dtype of the frames that `convert` will give, from the first that can be decoded.

    Raises MemberError as `convert` does, and when the member starts as no video does.
    """
    from h5dat_lib.convert.video_frames import Film
    from h5dat_lib.convert.video_pixels import Developer

    with closing(Film(content, DEMUXERS[_kind(content.head())])) as film:
        return Developer(options.video).pixels(film.sample()).shape, "|u1"


def _kind(head: bytes) -> str:
    for kind, groups in SIGNATURES.items():
        if carries(head, groups):
            return kind
    raise MemberError(f"not a video: found {head[:8]!r}, expected the start of {', '.join(DEMUXERS)}")


class _Reel:
    """One part of a video on its way to blocks: the frames that were taken, and what was lost. Holds one block."""

    def __init__(self, kind: str, content: Content, film: Film, options: MediumOptions) -> None:
        from h5dat_lib.convert.video_pixels import Developer

        self._kind = kind
        self._content = content
        self._film = film
        self._options = options
        self._developer = Developer(options.video)
        self._number, self._parts = content.part
        self._summary = self._new_summary()
        self._sample: VideoFrame | None = None
        self._lost: list[str] = []
        self._count = 0

    def blocks(self) -> Iterator[Block | Fault]:
        """The blocks of the frames, the fault if there is one, the row of the video."""
        wanted = self._wanted()
        for numbers, pixels in _grouped(self._taken(wanted)):
            self._count += len(numbers)
            yield self._frame_block(np.asarray(numbers), pixels)
        if self._number == self._parts - 1 and (shortfall := self._film.timeline.shortfall):
            self._lost.append(shortfall)
        if self._lost and not self._count and self._content.part == WHOLE:
            raise MemberError("; ".join(self._lost))
        sound = self._sound()
        if self._lost and self._options.video.damaged == "strict":
            yield Fault("; ".join(self._lost))
        yield Block(1, self._row(len(wanted)) | sound)

    def _new_summary(self) -> Summary | None:
        video = self._options.video
        return Summary(video.summary, _CHANNELS[video.color]) if video.summary != "none" and self._number == 0 else None

    def _wanted(self) -> Numbers:
        """The frames of this part that the options ask for."""
        timeline, mine = self._film.timeline, part(self._film.timeline.keyframes, self._number, self._parts)
        numbers = chosen(timeline.times, timeline.keyframes, self._options.video)
        return numbers[(numbers >= mine.start) & (numbers < mine.stop)]

    def _taken(self, wanted: Numbers) -> Iterator[tuple[int, Pixels]]:
        """Numbers and pixels of the wanted frames; those of the summary are decoded on the way."""
        from h5dat_lib.convert.video_frames import Lost

        video, total = self._options.video, len(self._film.timeline.times)
        shown = spread(total, video.summary_frames) if self._summary else wanted[:0]
        in_rows, in_summary = np.zeros((2, total), np.bool_)
        in_rows[wanted], in_summary[shown] = True, True
        last = int(wanted[-1]) if len(wanted) else -1
        for found in self._film.frames(np.flatnonzero(in_rows | in_summary), video.keyframes and self._summary is None):
            if isinstance(found, Lost):
                if found.number <= last:
                    self._lose(found)
                    if video.damaged == "strict":
                        return
                continue
            self._sample = self._sample or found.frame
            pixels = self._developer.pixels(found.frame)
            if self._summary and in_summary[found.number]:
                self._summary.add(pixels)
            if in_rows[found.number]:
                yield found.number, pixels

    def _lose(self, lost: Lost) -> None:
        """Notes the first damage."""
        if not self._lost:
            self._lost.append(f"damaged from frame {lost.number} on, at {self._film.timeline.times[lost.number]:.3f} s: {lost.reason}")

    def _frame_block(self, numbers: Numbers, pixels: list[Pixels]) -> Block:
        timeline = self._film.timeline
        columns: dict[str, Column] = {
            "pixels": Arrays(pixels),
            "video": References([0] * len(numbers), "."),
            "frame": Scalars(numbers, "<u8"),
            "time": Scalars(timeline.times[numbers], "<f8"),
            "keyframe": Scalars(timeline.keyframes[numbers], "?"),
        }
        return Block(len(numbers), columns, table="frames")

    def _row(self, wanted: int) -> dict[str, Column]:
        from h5dat_lib.convert.video_pixels import turn

        timeline, stream = self._film.timeline, self._film.stream
        frame = self._sample or self._film.sample()
        rotation, duration = turn(frame), timeline.end - float(timeline.times[0])
        width, height = (frame.width, frame.height) if rotation % 180 == 0 else (frame.height, frame.width)
        aspect = float(stream.codec_context.sample_aspect_ratio or 1)
        columns: dict[str, Column] = {
            "first": References([0], "./frames"),
            "count": Scalars([self._count], "<u8"),
            "total": Scalars([len(timeline.times)], "<u8"),
            "width": Scalars([width], "<u4"),
            "height": Scalars([height], "<u4"),
            "rotation": Scalars([rotation], "<i2"),
            "pixel_aspect": Scalars([aspect if rotation % 180 == 0 else 1 / aspect], "<f8"),
            "fps": Scalars([len(timeline.times) / duration if duration > 0 else math.nan], "<f8"),
            "duration": Scalars([duration], "<f8"),
            "codec": Scalars([self._film.codec.encode()], "S16"),
            "format": Scalars([self._kind.encode()], "S16"),
            "audio": Scalars([self._film.has_sound], "?"),
        }
        if self._options.video.damaged == "tolerant":
            damage = "; ".join([f"{wanted - self._count} frames lost"] * (wanted > self._count) + self._lost)
            columns["damage"] = Scalars([damage.encode()[:_DAMAGE_BYTES]], "S64")
        if self._summary:
            columns["summary"] = Arrays([self._summary.picture()])
        return columns

    def _sound(self) -> dict[str, Column]:
        """The columns of the sound track; without it, and a fault instead, when it is none that can be decoded."""
        if not self._options.video.audio or self._number:
            return {}
        audio = self._options.audio.model_copy(update={"damaged": "tolerant"})
        try:
            return sound_columns(self._content, self._options.model_copy(update={"audio": audio}))
        except MemberError as exc:
            self._lost.append(f"sound: {exc.reason}")
            return {}


def _grouped(taken: Iterator[tuple[int, Pixels]]) -> Iterator[tuple[list[int], list[Pixels]]]:
    """Frames in groups of at most `_BLOCK_BYTES`, or one."""
    numbers: list[int] = []
    pixels: list[Pixels] = []
    size = 0
    for number, frame in taken:
        if numbers and size + frame.nbytes > _BLOCK_BYTES:
            yield numbers, pixels
            numbers, pixels, size = [], [], 0
        numbers.append(number)
        pixels.append(frame)
        size += frame.nbytes
    if numbers:
        yield numbers, pixels
