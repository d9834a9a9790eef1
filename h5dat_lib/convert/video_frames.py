"""A video's bytes in, its timeline and the decoded frames that are asked for out.

One pass over the packets lists all frames without decoding any. Afterwards no more is decoded than the wanted frames need. FFmpeg
decodes, by way of PyAV, in one thread.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import BinaryIO, TypeAlias

import av
import numpy as np
from av.codec.context import ThreadType
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from h5dat_lib.archive.member import Content
from h5dat_lib.archive.seekable import seekable
from h5dat_lib.convert.extent import missing
from h5dat_lib.convert.video_choice import Flags, Numbers, runs
from h5dat_lib.errors import MemberError

__all__ = ["Film", "Lost", "Shown", "Timeline"]

Video: TypeAlias = "av.Packet[VideoStream]"
_BUFFER_BYTES = 1 << 18
_NOWHERE = -(1 << 63)
_USUAL_RATE = 25
"""Frames a second of what tells neither times nor a rate; FFmpeg takes it, too."""
_SHOW_FRAME = 0x10
_WITHOUT_PLACES = ("avi", "asf", "mpegvideo")
"""Containers that tell one time of a packet; FFmpeg makes up the other."""
_NO_FRAME = "the decoder gave no frame"
_PROGRESSIVE = (0, 1)  # AVFieldOrder: unknown, progressive


@dataclass(frozen=True)
class Timeline:
    """All frames of a video, in the order in which they are shown.

    ``places`` (frames,) int64 are what the container calls their times; it has none when they had to be counted. ``times`` (frames,)
    float64 are seconds from the start of the container, which sound shares. ``keyframes`` (frames,) are those that are coded by
    themselves. ``anchors`` (keyframes, 2) int64 are the places of all keyframes, rising, shown or not, and when they are decoded.
    ``unsettled`` are the places of those keyframes of H.264 that others follow which are shown before them: decoding may start there,
    but FFmpeg finds fault with references in what follows. ``end`` is when the last frame ends, in seconds. ``shortfall`` says what is
    missing behind the last frame, if anything.
    """

    places: NDArray[np.int64]
    times: NDArray[np.float64]
    keyframes: Flags
    anchors: NDArray[np.int64]
    unsettled: frozenset[int]
    end: float
    shortfall: str


@dataclass(frozen=True)
class Shown:
    """A decoded frame, and its number."""

    number: int
    frame: VideoFrame


@dataclass(frozen=True)
class Lost:
    """Frames from ``number`` on, up to some keyframe, could not be decoded."""

    number: int
    reason: str


@dataclass(frozen=True)
class _Failure:
    """The decoder failed on the packet of this place."""

    place: int
    reason: str


class Film:
    """The first video track of a member. ``demuxer`` is FFmpeg's name of the container: no other is tried on hostile bytes.

    Raises MemberError when the container cannot be read, has no video track, or one with larger frames than ``limits.pixels``.
    Holds some 40 bytes for each frame of the video, and the decoder's own frames.
    """

    def __init__(self, content: Content, demuxer: str) -> None:
        self._file: BinaryIO = seekable(content)
        self._demuxer = demuxer
        self._limits = content.limits
        self._shortfall = missing(demuxer, self._file) or ""
        self._open()
        width, height = self.stream.codec_context.width, self.stream.codec_context.height
        if width * height > self._limits.pixels:
            raise MemberError(
                f"too large: found frames of {width} x {height} pixels, expected at most {self._limits.pixels} (limits.pixels)"
            )

    def close(self) -> None:
        """Closes the container and the member's bytes."""
        self._container.close()
        self._file.close()

    @cached_property
    def timeline(self) -> Timeline:
        """The frames of the video; lists them when it is first asked for. Raises MemberError when there are none."""
        timeline = self._listed()
        if not len(timeline.times):
            raise MemberError(f"no frames: {timeline.shortfall or 'found a video track without any, expected some'}")
        return timeline

    def frames(self, numbers: Numbers, keyframes: bool = False) -> Iterator[Shown | Lost]:
        """The frames of these numbers, rising, and what of them could not be decoded. ``keyframes`` says that all are such.

        A frame is given only when all that it is made from is whole: behind damage decoding goes on with the next keyframe.
        """
        timeline = self.timeline
        if not len(numbers):
            return
        if not len(timeline.places):
            yield from self._picked(numbers, self._numbered(0))
        elif keyframes:
            yield from self._keyframes(numbers)
        else:
            for anchor, wanted in runs(numbers, timeline.anchors[:, 0], timeline.places):
                yield from self._run(anchor, wanted)

    def sample(self) -> VideoFrame:
        """The first frame that can be decoded. Raises MemberError when there is none."""
        for found in self._decoded(self._all_packets()):
            if isinstance(found, VideoFrame):
                return found
        raise MemberError("no frames: found none that can be decoded")

    @property
    def has_sound(self) -> bool:
        """Whether there is an audio track."""
        return bool(self._container.streams.audio)

    # The container

    def _open(self) -> None:
        self._file.seek(0)
        try:
            self._container = av.open(self._file, "r", self._demuxer, metadata_errors="replace", buffer_size=_BUFFER_BYTES)
        except av.FFmpegError as exc:
            raise MemberError(f"cannot be read as {self._demuxer}: {_short(exc)}") from exc
        self.stream = _track(self._container.streams.video)
        context = self.stream.codec_context
        context.thread_type, context.thread_count = ThreadType.NONE, 1
        # Without `explode` decoders patch damaged frames up and say nothing.
        context.options = {"err_detect": "crccheck+bitstream+buffer+explode", "max_pixels": str(self._limits.pixels)}

    def _listed(self) -> Timeline:
        packets = _Packets()
        hidden = _vp8_hidden if self.codec == "vp8" else _never
        for packet in self._demuxed():
            packets.add(packet, not packet.is_discard and not hidden(packet))
        if not self._has_places(packets):
            return self._counted()
        return packets.timeline(self._container.start_time, self.stream, self._shortfall)

    def _demuxed(self) -> Iterator[Video]:
        """The packets up to where the container is damaged, without the last one of a file that is cut short: it may be half a one."""
        held: Video | None = None
        try:
            for packet in self._container.demux(self.stream):
                if not packet.size:
                    continue
                if held is not None:
                    yield held
                held = packet
        except av.FFmpegError as exc:
            self._shortfall = self._shortfall or f"damaged at its end: {_short(exc)}"
        except IndexError:
            pass  # what PyAV 18.1 raises at the end when a further track has turned up on the way
        if held is not None and not self._shortfall:
            yield held

    def _has_places(self, packets: _Packets) -> bool:
        """Whether the packets' places are those of the frames that come of them.

        In a transport stream a packet of interlaced H.264 may hold half a frame, and an AVI tells only when packets are decoded.
        """
        context = self.stream.codec_context
        fields = self._demuxer == "mpegts" and self.codec == "h264" and context.field_order not in _PROGRESSIVE
        guessed = self._demuxer in _WITHOUT_PLACES and context.has_b_frames and packets.in_order
        return packets.have_places and not fields and not guessed

    @property
    def codec(self) -> str:
        """FFmpeg's name of the track's coding, such as ``h264``."""
        return self.stream.codec_context.codec.canonical_name

    def _counted(self) -> Timeline:
        """The timeline of a video whose packets do not tell: it is decoded as a whole, once more than others."""
        places, keyframes = array("q"), bytearray()
        for found in self._decoded(self._all_packets()):
            if isinstance(found, VideoFrame):
                places.append(_NOWHERE if found.pts is None else found.pts)
                keyframes.append(found.key_frame)
        seconds, step = float(self.stream.time_base or 0), 1 / float(self.stream.average_rate or _USUAL_RATE)
        told = bool(np.all(np.diff(places) > 0)) and _NOWHERE not in places[:1]
        times = np.arange(len(places), dtype=np.float64) * step
        if told:
            times = np.subtract(places, places[:1]) * seconds
        nothing = np.zeros((0, 2), np.int64)
        end = float(times[-1]) + step if len(times) else 0.0
        return Timeline(nothing[:, 0], times, np.frombuffer(keyframes, np.bool_), nothing, frozenset(), end, self._shortfall)

    # Decoding

    def _run(self, anchor: int, wanted: Numbers) -> Iterator[Shown | Lost]:
        """The wanted frames, decoded from one of the keyframes on; from the first where that one does not stand by itself."""
        unsettled = anchor and int(self.timeline.anchors[anchor, 0]) in self.timeline.unsettled
        found = self._picked(wanted, self._numbered(anchor - 1 if unsettled else anchor))
        first = next(found)
        if anchor and isinstance(first, Lost):
            yield from self._run(0, wanted)
            return
        yield first
        yield from found

    def _keyframes(self, wanted: Numbers) -> Iterator[Shown | Lost]:
        """The wanted frames, decoded from nothing but keyframes; with intra refresh what is listed as keyframes may need others."""
        for found in self._picked(wanted, self._numbered(0, keyframes=True)):
            if isinstance(found, Shown) and not found.frame.key_frame:
                yield from self._run(0, wanted[wanted >= found.number])
                return
            yield found

    def _picked(self, wanted: Numbers, found: Iterator[Shown | Lost]) -> Iterator[Shown | Lost]:
        """The wanted ones among the frames, and what was lost: first that, where a wanted one does not come."""
        taken = 0
        for one in found:
            if isinstance(one, Lost):
                yield one
                continue
            if one.number > wanted[taken]:
                yield Lost(int(wanted[taken]), _NO_FRAME)
                taken = int(np.searchsorted(wanted, one.number))
            if taken < len(wanted) and one.number == wanted[taken]:
                yield one
                taken += 1
            if taken == len(wanted):
                return
        yield Lost(int(wanted[taken]), _NO_FRAME)

    def _numbered(self, anchor: int, keyframes: bool = False) -> Iterator[Shown | Lost]:
        """All frames from a keyframe on, with their numbers; ``keyframes``: those alone."""
        places = self.timeline.places
        if not len(places):
            yield from _enumerated(self._decoded(self._all_packets()))
            return
        for found in self._decoded(self._packets(anchor), keyframes, frozenset() if keyframes else self.timeline.unsettled):
            place = found.place if isinstance(found, _Failure) else _place(found)
            number = int(np.searchsorted(places, place))
            if isinstance(found, _Failure):
                yield Lost(number, found.reason)
            elif found.is_corrupt:
                yield Lost(number, "marked as damaged by the decoder")
            elif number < len(places) and places[number] == place:
                yield Shown(number, found)

    def _all_packets(self) -> Iterator[Video]:
        self._open()
        return self._demuxed()

    def _packets(self, anchor: int) -> Iterator[Video]:
        """The packets from a keyframe on. Where a container cannot go there, all before are read, too."""
        place, coded = (int(value) for value in self.timeline.anchors[anchor])
        arrived = _from(self._sought(coded), place, coded)
        first = next(arrived, None)
        if first is None:
            yield from _from(self._all_packets(), place, coded)
            return
        yield first
        yield from arrived

    def _sought(self, coded: int) -> Iterator[Video]:
        """The packets from where the container is sent to find that time; none where it cannot go."""
        try:
            self._container.seek(coded, stream=self.stream)
        except av.FFmpegError:
            return
        yield from self._demuxed()

    def _decoded(
        self, packets: Iterator[Video], keyframes: bool = False, unsettled: frozenset[int] = frozenset()
    ) -> Iterator[VideoFrame | _Failure]:
        """What comes of the packets; behind a failure, from the next keyframe on. ``keyframes``: of those alone.

        Frames that are coded behind the first keyframe but shown before it may be made from frames that are not there, and are left out;
        so is, and whatever fails there, all behind one of the ``unsettled`` keyframes up to the next.
        """
        failed, settling, first = True, False, _NOWHERE
        for packet in packets:
            if packet.is_keyframe and (failed or settling):
                settling = failed and _place(packet) in unsettled
                first, failed = _place(packet), False
            elif not packet.is_keyframe and (failed or keyframes):
                continue
            frames, failure = self._attempt(packet, lenient=settling or _NOWHERE < _place(packet) < first)
            if not settling:
                yield from (frame for frame in frames if _place(frame) >= first)
            if failure is not None:
                failed = True
                yield failure
        if not settling:
            yield from (frame for frame in self._drained() if _place(frame) >= first)

    def _attempt(self, packet: Video, lenient: bool) -> tuple[list[VideoFrame], _Failure | None]:
        """The frames that a packet completes; with a failure, all that were complete before it. ``lenient``: it may well fail."""
        place, reason = _place(packet), "marked as damaged by the container"
        try:
            if not packet.is_corrupt:
                return self.stream.codec_context.decode(packet), None
        except av.FFmpegError as exc:
            if lenient:
                return [], None
            reason = _short(exc)
        return [frame for frame in self._drained() if _place(frame) != place], _Failure(place, reason)

    def _drained(self) -> list[VideoFrame]:
        """The frames that the decoder still holds back; it starts anew afterwards."""
        context = self.stream.codec_context
        try:
            return context.decode(None)
        except av.FFmpegError:
            return []
        finally:
            context.flush_buffers()


class _Packets:
    """What the packets of a track tell of its frames, in the order of decoding."""

    def __init__(self) -> None:
        self._places = array("q")
        self._coded = array("q")
        self._durations = array("q")
        self._keyframes = bytearray()
        self._shown = bytearray()

    def __len__(self) -> int:
        return len(self._places)

    def add(self, packet: Video, shown: bool) -> None:
        place = _place(packet)
        self._places.append(place)
        self._coded.append(place if packet.dts is None else packet.dts)
        self._durations.append(packet.duration or 0)
        self._keyframes.append(packet.is_keyframe)
        self._shown.append(shown)

    @property
    def have_places(self) -> bool:
        """Whether each packet has a place of its own, by which its frame is known."""
        places = np.sort(np.asarray(self._places))
        return not len(places) or bool(places[0] != _NOWHERE and np.all(np.diff(places) > 0))

    @property
    def in_order(self) -> bool:
        """Whether frames seem to be shown in the order in which they are coded."""
        return bool(np.all(np.diff(self._places) > 0))

    def timeline(self, start_time: int | None, stream: VideoStream, shortfall: str) -> Timeline:
        """The timeline of packets that are frames. What comes before the first keyframe that can be trusted is no part of it: a
        recording of a broadcast starts where it was switched on."""
        places, coded = np.asarray(self._places), np.asarray(self._coded)
        keyframes, shown = np.frombuffer(self._keyframes, np.bool_).copy(), np.frombuffer(self._shown, np.bool_)
        keyframes[:1] |= not keyframes.any()
        unsettled = np.zeros_like(keyframes)
        if stream.codec_context.codec.canonical_name == "h264":
            unsettled = _open(places, keyframes)
        settled = keyframes & ~unsettled
        first = int(np.argmax(np.append(settled if settled.any() else keyframes, True)))
        later = np.arange(len(places)) >= first
        order = np.argsort(places)
        anchored = order[(keyframes & later)[order]]
        order = order[(shown & later & (places >= places[first : first + 1]))[order]]
        shown_at, seconds, step = places[order], float(stream.time_base or 0), 1 / float(stream.average_rate or _USUAL_RATE)
        durations = np.asarray(self._durations)[order] * seconds
        lead = _lead(start_time, float(shown_at[0]) * seconds) if len(order) else 0.0
        times = (shown_at - shown_at[:1]) * seconds + lead
        end = float(np.max(times + np.where(durations > 0, durations, step), initial=0))
        anchors = np.stack((places, coded), axis=1)[anchored]
        return Timeline(shown_at, times, keyframes[order], anchors, frozenset(places[unsettled].tolist()), end, shortfall)


def _open(places: NDArray[np.int64], keyframes: Flags) -> Flags:
    """Which packets are keyframes that others follow, before the next one, which are shown before them."""
    starts = np.flatnonzero(keyframes)
    opens = np.zeros_like(keyframes)
    if len(starts):
        opens[starts] = np.minimum.reduceat(places, starts) < places[starts]
    return opens


def _lead(start_time: int | None, first: float) -> float:
    """Seconds from time 0 to the first frame, which the container shows at ``first``. Time 0 is the container's start, which is that of
    the sound where that comes first; sound that starts below 0 is the decoder's run-up and is not heard."""
    start = 0.0 if start_time is None else start_time / av.time_base
    return max(0.0, round(first - max(start, min(first, 0.0)), 6))


def _place(one: Video | VideoFrame) -> int:
    return _NOWHERE if one.pts is None else one.pts


def _enumerated(found: Iterator[VideoFrame | _Failure]) -> Iterator[Shown | Lost]:
    number = 0
    for one in found:
        if isinstance(one, _Failure):
            yield Lost(number, one.reason)
        else:
            yield Shown(number, one)
            number += 1


def _from(packets: Iterator[Video], place: int, coded: int) -> Iterator[Video]:
    """The packets from that keyframe on; none when they have passed it."""
    for packet in packets:
        if packet.pts == place and packet.is_keyframe:
            yield packet
            break
        if packet.dts is not None and packet.dts > coded:
            return
    yield from packets


def _track(streams: Sequence[VideoStream]) -> VideoStream:
    """The first track that is a video, and not the picture on a record's cover. Raises MemberError."""
    track = next((stream for stream in streams if not stream.disposition & Disposition.attached_pic), None)
    if track is None:
        raise MemberError("no video track: found none, expected one; for its sound, give it a class of medium audio")
    if track.codec_context is None:
        raise MemberError("no decoder: found a video track of a coding that FFmpeg does not know, expected one that it decodes")
    return track


def _vp8_hidden(packet: Video) -> bool:
    """Whether a frame of VP8 is one to predict from and not to show (RFC 6386, 9.1)."""
    return not memoryview(packet)[0] & _SHOW_FRAME


def _never(_: Video) -> bool:
    return False


def _short(exc: Exception) -> str:
    """What FFmpeg says, without the number and the name of the function that PyAV adds."""
    return getattr(exc, "strerror", None) or str(exc)
