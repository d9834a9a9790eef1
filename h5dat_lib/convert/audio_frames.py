"""A sound track as decoded frames: a member's bytes in, FFmpeg's frames (PyAV) out, checked to be whole.

Facts of FFmpeg 8: of MP4 and Ogg it leaves samples in place that lie behind the end of the last packet; it goes on behind damage without
an error unless ``err_detect`` says otherwise, and takes a file that was cut short for a short one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from h5dat_lib.archive.member import Content
from h5dat_lib.archive.seekable import seekable
from h5dat_lib.config import Damaged
from h5dat_lib.convert.extent import missing
from h5dat_lib.errors import MemberError

if TYPE_CHECKING:
    from av import AudioFrame, AudioLayout, Packet
    from av.audio.stream import AudioStream
    from av.container import InputContainer

__all__ = ["DEMUXERS", "NoTrackError", "Track"]

_HELD_FRAMES = 4
"""Frames kept back until the end is known: a last packet may say that it, and some of the one before, is not to be heard."""
_GAP_SECONDS = 0.005
"""Time between the frames of a Matroska file that is no rounding, but shows a lost one: it counts milliseconds, and frames last longer."""
_ENDS_IN_PACKETS = ("mov", "ogg")
"""Containers whose last packet says where in it the sound ends."""
_SAYS_DURATION = {"flac": 0.0, "aiff": 0.0, "mov": 0.002}
"""Containers that record how long the sound is, and how many seconds too much: an MP4 often counts in 1/600 s."""
DEMUXERS = {
    "mp3": "mp3", "wav": "wav", "flac": "flac", "ogg": "ogg", "m4a": "mov", "aac": "aac", "aiff": "aiff", "wma": "asf", "mka": "matroska",
}  # fmt: skip
"""FFmpeg's names of the containers, by format."""
_OF_VIDEOS = "mov,matroska,avi,mpeg,mpegvideo,mpegts,asf,ogg"
"""Without this, playlists would be among what FFmpeg recognises, and they open other files."""


class NoTrackError(MemberError):
    """A member without an audio track."""


class Track:
    """The first audio track of a member: what it is, known once its first frame is decoded, and all its frames, to be taken once.

    ``kind`` is a key of `DEMUXERS`; of any other, the container is recognised among those of videos. ``damage`` is what was found first
    to be wrong, when ``damaged`` is tolerant; strict, MemberError is raised for it. Holds a few frames.
    """

    def __init__(self, content: Content, kind: str, damaged: Damaged) -> None:
        self.damage = ""
        self._damaged_is = damaged
        self._decoded = 0
        self._first: AudioFrame | None = None
        self._last: Packet[AudioStream] | None = None
        with ExitStack() as files:
            file = files.enter_context(seekable(content))
            self._container = files.enter_context(_opened(file, kind))
            self._stream = _audio_stream(self._container)
            self._demuxer = self._container.format.name.split(",")[0]
            self.format = kind if kind in DEMUXERS else self._demuxer
            if reason := missing(self._demuxer, file):
                self.lose(reason)
            self._rest = self._whole()
            self._first = next(self._rest, None)
            self._check_first()
            self._files = files.pop_all()

    @property
    def rate(self) -> int:
        """Samples a second."""
        return self._first.sample_rate if self._first else self._stream.codec_context.sample_rate

    @property
    def layout(self) -> AudioLayout:
        """The channels, 1 to 255."""
        return self._first.layout if self._first else self._stream.codec_context.layout

    @property
    def codec(self) -> str:
        """FFmpeg's name, such as mp3."""
        return self._stream.codec_context.codec.canonical_name

    @property
    def frame_samples(self) -> int:
        """Samples of the first frame; those that follow have as many, in most codecs."""
        return self._first.samples if self._first else 0

    @property
    def tags(self) -> dict[str, str]:
        """Title, artist and whatever else the container and the track say of themselves, by key in lower case."""
        return {key.lower(): value for said in (self._container.metadata, self._stream.metadata) for key, value in said.items()}

    def frames(self) -> Iterator[AudioFrame]:
        """Decoded frames of one rate and layout, less what is behind the end; the file is closed afterwards."""
        with self._files:
            if self._first:
                yield self._first
            yield from self._rest
            self._check_duration()

    def _check_first(self) -> None:
        if self._first is None and (self.damage or not self.codec.startswith("pcm_")):  # a WAV may well be without samples
            raise MemberError(f"no sound: found nothing that decodes as {self.codec}")
        if not 0 < self.layout.nb_channels < 256:
            raise MemberError(f"unknown sound: found {self.layout.nb_channels} channels, expected 1 to 255")

    def _whole(self) -> Iterator[AudioFrame]:
        """Frames, less what is behind the end."""
        held: deque[AudioFrame] = deque()
        for frame in self._uniform(self._checked()):
            held.append(frame)
            self._decoded += frame.samples
            if len(held) > _HELD_FRAMES:
                yield held.popleft()
        excess = self._excess()
        if 0 < excess < sum(frame.samples for frame in held):
            self._decoded -= excess
            while excess >= held[-1].samples:
                excess -= held.pop().samples
            held.append(_shortened(held.pop(), excess) if excess else held.pop())
        yield from held

    def _excess(self) -> int:
        """Samples behind the end of the last packet, as its container has it. FFmpeg itself leaves them there."""
        last = self._last
        if self._demuxer not in _ENDS_IN_PACKETS or last is None or last.pts is None or not last.duration:
            return 0
        duration = (last.duration + (1 << 31)) % (1 << 32) - (1 << 31)  # PyAV takes what is before the packet's start for unsigned
        seconds = (last.pts + duration - (self._stream.start_time or 0)) * last.time_base
        return self._decoded - round(seconds * self.rate)

    def _uniform(self, frames: Iterator[AudioFrame]) -> Iterator[AudioFrame]:
        """Frames as long as they have the rate, the layout and the type of the first, and follow each other in time."""
        kind, end = None, None
        for frame in frames:
            found = (frame.sample_rate, frame.layout.name, frame.format.name)
            kind = kind or found
            if found != kind:
                self.lose(f"found a change to {found[0]} Hz {found[1]} {found[2]}, expected {kind[0]} Hz {kind[1]} {kind[2]}")
                return
            if self._demuxer == "matroska" and frame.time is not None:
                if end is not None and frame.time > end + _GAP_SECONDS:
                    self.lose(f"found no sound for {frame.time - end:.3f} s")
                end = frame.time + frame.samples / frame.sample_rate
            yield frame

    def _checked(self) -> Iterator[AudioFrame]:
        """What decodes of the packets; what does not is damage."""
        from av import FFmpegError

        try:
            for packet in self._packets():
                try:
                    yield from packet.decode()
                except FFmpegError as exc:
                    if any(bytes(packet)):  # zeros fill up many an MP3
                        self.lose(f"found a packet that does not decode ({exc.strerror})")
        except FFmpegError as exc:
            self.lose(f"found bytes that cannot be read ({exc.strerror})")

    def _packets(self) -> Iterator[Packet[AudioStream]]:
        for packet in self._container.demux(self._stream):
            if packet.is_corrupt and self._demuxer != "wav":  # FFmpeg marks the last one of a WAV that does not say its size
                self.lose("found a packet that is marked as damaged")
            self._last = packet if packet.size else self._last  # an empty one ends the stream
            yield packet

    def _check_duration(self) -> None:
        stream, tolerance = self._stream, _SAYS_DURATION.get(self._demuxer)
        fragmented = self._demuxer == "mov" and not stream.frames  # FFmpeg then takes the duration of the longest track
        if tolerance is None or fragmented or stream.duration is None or stream.time_base is None:
            return
        seconds = float(stream.duration * stream.time_base)
        if self._decoded / self.rate < seconds - tolerance:
            self.lose(f"found {self._decoded} samples, expected {seconds * self.rate:.0f}")

    def lose(self, reason: str) -> None:
        """Strict, raises MemberError; tolerant, notes what was found first."""
        at = f" at {self._decoded / self.rate:.3f} s" if self._decoded else ""
        if self._damaged_is == "strict":
            raise MemberError(f"damaged: {reason}{at}")
        self.damage = self.damage or f"{reason}{at}"


def _opened(file: BinaryIO, kind: str) -> InputContainer:
    import av

    demuxer = DEMUXERS.get(kind)
    options = {} if demuxer else {"format_whitelist": _OF_VIDEOS}
    try:
        return av.open(file, "r", format=demuxer, options=options, metadata_errors="backslashreplace")
    except av.FFmpegError as exc:
        raise MemberError(f"not {kind}, or damaged: {exc.strerror}") from exc


def _audio_stream(container: InputContainer) -> AudioStream:
    if not container.streams.audio:
        raise NoTrackError("no sound: found no audio track")
    stream = container.streams.audio[0]
    if stream.codec_context is None:
        raise MemberError("unknown sound: found a codec that FFmpeg does not have")
    stream.codec_context.thread_count = 1
    stream.codec_context.options = {"err_detect": "crccheck+bitstream+buffer+explode"}
    return stream


def _shortened(frame: AudioFrame, excess: int) -> AudioFrame:
    """The frame less its last samples."""
    import av

    values = excess if frame.format.is_planar else excess * frame.layout.nb_channels
    kept: Any = np.ascontiguousarray(frame.to_ndarray()[:, :-values])
    short = av.AudioFrame.from_ndarray(kept, frame.format.name, frame.layout.name)
    short.sample_rate, short.time_base, short.pts = frame.sample_rate, frame.time_base, frame.pts
    return short
