"""Sound: a member's bytes in, one row of samples (samples, channels) out, decoded piece by piece by FFmpeg's libraries (PyAV).

Samples are what ``ffmpeg -f s16le`` and ``-f f32le`` give. int16 of more than 16 bits is cut off (rounded towards minus infinity), of
floats rounded to the nearest and clipped, without dither; float32 keeps 24 bits exactly. What an encoder put before and behind the
sound is left out where the file says so: LAME's tag, Opus' pre-skip, MP4's edit list, the last granule of an Ogg stream, the
duration of the last packet of an MP4. Opus at low rates may come out otherwise than from libopus: how its speech layer is brought to
48 kHz is left to the decoder (RFC 6716, 4.2.9), which is one possible cause; none has been isolated.

Resampling is libswresample's: a polyphase filter of 32 taps at the lower of the two rates (Kaiser window, beta 9) that passes up to 0.97
of its Nyquist frequency.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

import numpy as np

from h5dat_lib.archive.member import Content
from h5dat_lib.columns import Array, Arrays, Block, Column, Pairs, PairType, Pieces, Scalars
from h5dat_lib.config import AudioOptions, MediumOptions
from h5dat_lib.convert.audio_frames import NoTrackError, Track
from h5dat_lib.errors import MemberError

__all__ = ["SIGNATURES", "convert", "sound_columns"]

PIECE_SAMPLES = 1 << 16
"""Samples of each channel that are handed on at once, of codecs with short frames."""
_FEW_SAMPLES = 4096
"""Samples of a frame from which on joining frames costs more time than it saves."""
_DTYPES = {"int16": ("s16", "<i2"), "float32": ("flt", "<f4")}
"""FFmpeg's name of a sample format, and numpy's."""
SIGNATURES: dict[str, tuple[tuple[tuple[int, bytes], ...], ...]] = {
    "mp3": (((0, b"ID3"),),),
    "wav": (((0, b"RIFF"), (8, b"WAVE")), ((0, b"RF64"), (8, b"WAVE"))),
    "flac": (((0, b"fLaC"),),),
    "ogg": (((0, b"OggS"),),),
    "m4a": (((4, b"ftyp"),),),
    "aac": (((0, b"\xff\xf1"),), ((0, b"\xff\xf9"),)),
    "aiff": (((0, b"FORM"), (8, b"AIFF")), ((0, b"FORM"), (8, b"AIFC"))),
    "wma": (((0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11"),),),
    "mka": (((0, b"\x1a\x45\xdf\xa3"),),),
}
"""Groups of (offset, bytes) by format. The two bytes that an MP3 without a tag starts with are too few to tell one: it goes by its
extension. M4A, WMA and MKA start like videos, and go by their extension, too."""


def convert(kind: str, content: Content, options: MediumOptions) -> Iterator[Block]:
    """One block of one row: ``samples`` (samples, channels) int16 or float32, ``sample_rate`` <u4 (samples a second), ``channels`` |u1,
    ``layout`` S16 (FFmpeg's name, such as stereo), ``duration`` <f8 (seconds), ``codec`` S16, ``format`` S16, ``damage`` S64 (tolerant
    only; empty when there is none), and its tags as pairs, keys in lower case.

    ``kind`` is a key of `SIGNATURES`, or ``soundtrack`` for the first audio track of a video. Raises MemberError, also while the
    samples are taken, when there is no sound, when it changes its rate or layout, and, strict, when anything of it is
    damaged or missing, or it is larger than ``limits.member_bytes``.
    """
    track = Track(content, kind, options.audio.damaged)
    most = content.limits.member_bytes
    yield Block(1, _track_columns(track, options.audio, most) | {"format": _text(track.format)}, _pairs(track.tags))


def sound_columns(content: Content, options: MediumOptions, prefix: str = "audio_") -> dict[str, Column]:
    """The columns of `convert` but ``format`` and the tags, for the row of a video; each name with the prefix.

    Of a video without sound: samples of shape (0, 0), rate 0, empty strings.
    """
    try:
        track = Track(content, "soundtrack", options.audio.damaged)
        columns = _track_columns(track, options.audio, content.limits.member_bytes)
    except NoTrackError:
        nothing = np.zeros((0, 0), options.audio.dtype)
        columns = _columns(nothing, 0, 0, "", "", [0.0]) | _damage([b""], options.audio)
    return {prefix + name: column for name, column in columns.items()}


def _track_columns(track: Track, options: AudioOptions, most: int) -> dict[str, Column]:
    """The row. Its duration and damage are filled in when the samples have been taken."""
    channels = 1 if options.mono else track.layout.nb_channels
    rate = options.sample_rate or track.rate
    durations, damages = list[float](), list[bytes]()

    def pieces() -> Iterator[Array]:
        samples = 0
        for piece in _pieces(track, options, most):
            samples += len(piece)
            yield piece
        durations.append(samples / rate)
        damages.append(track.damage.encode()[:64])

    samples = Pieces(_DTYPES[options.dtype][1], (channels,), pieces())
    return _columns(samples, rate, channels, "mono" if options.mono else _layout(track), track.codec, durations) | _damage(damages, options)


def _pieces(track: Track, options: AudioOptions, most: int) -> Iterator[Array]:
    """The samples as they are to be stored, (samples, channels) each; what is above ``most`` bytes of them counts as damage."""
    import av

    mixed = options.mono and track.layout.nb_channels > 1
    form = "fltp" if mixed else _DTYPES[options.dtype][0]
    together = PIECE_SAMPLES if track.frame_samples < _FEW_SAMPLES else None
    resampler = av.AudioResampler(form, rate=options.sample_rate, frame_size=together)
    size = 0
    for frame in chain(track.frames(), [None]):
        try:
            resampled = resampler.resample(frame)
        except av.FFmpegError as exc:
            found = f"{track.layout.nb_channels} channels at {track.rate} Hz"
            raise MemberError(f"cannot be mixed or resampled: found {found} ({exc.strerror})") from exc
        for piece in resampled:
            array = piece.to_ndarray()
            array = _mixed(array, options.dtype) if mixed else array.reshape(piece.samples, -1)
            size += array.nbytes
            if size > most:
                track.lose(f"found more than {most} bytes of samples (limits.member_bytes)")
                return
            yield array


def _layout(track: Track) -> str:
    """FFmpeg's name; of one or two channels without one, mono and stereo."""
    name = track.layout.name.split(" (")[0]
    return {"1 channels": "mono", "2 channels": "stereo"}.get(name, name)


def _mixed(planes: Array, dtype: str) -> Array:
    """The average of all channels, each with the same weight: (channels, samples) float32 -> (samples, 1)."""
    mean: Array = planes.mean(axis=0, dtype=np.float32)[:, None]
    return mean if dtype == "float32" else np.clip(np.rint(mean * 32768), -32768, 32767).astype(np.int16)


def _columns(samples: Array | Pieces, rate: int, channels: int, layout: str, codec: str, durations: list[float]) -> dict[str, Column]:
    return {
        "samples": Arrays([samples], pictures=False),
        "sample_rate": Scalars([rate], "<u4"),
        "channels": Scalars([channels], "|u1"),
        "layout": _text(layout),
        "duration": Scalars(durations, "<f8"),
        "codec": _text(codec),
    }


def _text(value: str) -> Scalars:
    return Scalars([value.encode()[:16]], "|S16")


def _damage(damages: list[bytes], options: AudioOptions) -> dict[str, Column]:
    return {"damage": Scalars(damages, "|S64")} if options.damaged == "tolerant" else {}


def _pairs(tags: dict[str, str]) -> Pairs:
    return Pairs([0] * len(tags), list(tags), [value.encode() for value in tags.values()], [PairType.STRING] * len(tags))
