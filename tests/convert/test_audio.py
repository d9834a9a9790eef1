"""Samples against decoders that are not FFmpeg's where there is one: Python's wave, flac, libsndfile; tests/data/audio/ORIGIN.md."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import tracemalloc
import wave
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from h5dat_lib.archive.member import Content, Member
from h5dat_lib.columns import Block, PairType, Pieces
from h5dat_lib.config import AudioOptions, Limits, MediumOptions
from h5dat_lib.convert import audio, handler_for
from h5dat_lib.errors import MemberError
from tests.convert.conftest import MemoryReader, content_of

DATA = Path(__file__).parents[1] / "data" / "audio"
LOSSLESS: dict[str, dict[str, Any]] = json.loads((DATA / "lossless.json").read_text())
LOSSY = np.load(DATA / "lossy.npz")
WAVES = ("u8_mono_8k.wav", "s16_stereo_44k.wav", "s24_stereo_96k.wav", "s32_stereo_8k.wav")
FLOATS = {"f32_stereo_22k.wav": ("<f4", 1501), "f64_stereo_22k.wav": ("<f8", 801)}
SOUNDS = sorted(path.name for path in DATA.iterdir() if path.suffix not in (".md", ".json", ".npz", ".mp4"))
LENGTHS = {  # of what was encoded
    "cbr_stereo_44k.mp3": 6345, "vbr_mono_48k.mp3": 5001,
    "vorbis_stereo_44k.ogg": 6345, "vorbis_mono_16k.oga": 6001, "vorbis_mono_48k.ogg": 5001,
    "opus_stereo_48k.opus": 6907, "opus_mono_48k.ogg": 5001, "opus_stereo_48k.mka": 5001,
    "aac_stereo_44k.m4a": 6345, "aac_mono_48k.m4a": 5001,
}  # fmt: skip
LIMITS = Limits()

Array = NDArray[Any]
Row = dict[str, Any]


def taken(columns: Any) -> tuple[Array, Row]:
    """The samples of a row, and its other columns, which are taken afterwards."""
    samples = next(name for name in columns if name.endswith("samples"))
    pieces = columns[samples].values[0]
    array = pieces if isinstance(pieces, np.ndarray) else np.concatenate([np.zeros((0, *pieces.tail), pieces.dtype), *pieces.parts])
    return array, {name: column.values[0] for name, column in columns.items() if name != samples}


def heard(data: bytes, path: str, limits: Limits = LIMITS, **options: Any) -> tuple[Array, Row]:
    content = content_of(data, path, limits)
    handler = handler_for(content.head(), path, "audio")
    assert handler is not None and handler.medium == "audio"
    samples = None
    for block in handler.convert(content, MediumOptions(audio=AudioOptions(**options))):
        assert isinstance(block, Block) and block.rows == 1
        samples = taken(block.columns)
    assert samples is not None
    return samples


def tags(name: str) -> dict[str, bytes]:
    content = content_of((DATA / name).read_bytes(), name)
    handler = handler_for(content.head(), name)
    assert handler is not None
    block = next(iter(handler.convert(content, MediumOptions())))
    assert isinstance(block, Block) and block.pairs is not None
    assert set(block.pairs.types) <= {PairType.STRING} and set(block.pairs.rows) <= {0}
    return dict(zip(block.pairs.keys, block.pairs.values, strict=True))


def sound(name: str, **options: Any) -> tuple[Array, Row]:
    return heard((DATA / name).read_bytes(), name, **options)


def full_scale(data: bytes, width: int) -> Array:
    """Samples of a WAV as int32, the highest bits first."""
    if width == 1:
        return (np.frombuffer(data, "|u1").astype("<i4") - 128) << 24
    raw = np.frombuffer(data, "|u1").reshape(-1, width)
    return np.concatenate([np.zeros((len(raw), 4 - width), "|u1"), raw], axis=1).view("<i4")[:, 0]


def by_wave(name: str) -> Array:
    with wave.open(str(DATA / name)) as file:
        return full_scale(file.readframes(file.getnframes()), file.getsampwidth()).reshape(-1, file.getnchannels())


# Lossless


@pytest.mark.parametrize("name", WAVES)
def test_a_wav_has_the_samples_that_python_reads(name: str) -> None:
    expected = by_wave(name)
    assert np.array_equal(sound(name)[0], expected >> 16)  # more than 16 bits are cut off, without dither
    assert np.array_equal(sound(name, dtype="float32")[0], (expected / (1 << 31)).astype("<f4"))


def test_float32_keeps_24_bits_exactly() -> None:
    samples, _ = sound("s24_stereo_96k.wav", dtype="float32")
    assert np.array_equal(samples.astype(float) * (1 << 31), by_wave("s24_stereo_96k.wav"))


@pytest.mark.parametrize("name", FLOATS)
def test_floats_are_kept_and_rounded_to_the_nearest_int16(name: str) -> None:
    dtype, count = FLOATS[name]
    data = (DATA / name).read_bytes()
    at = data.index(b"data") + 8
    expected = np.frombuffer(data, dtype, 2 * count, at).reshape(-1, 2)
    assert np.array_equal(sound(name, dtype="float32")[0], expected.astype("<f4"))
    assert np.array_equal(sound(name)[0], np.clip(np.rint(expected * 32768), -32768, 32767).astype("<i2"))


@pytest.mark.parametrize("name", LOSSLESS)
def test_lossless_sound_is_exact(name: str) -> None:
    expected = LOSSLESS[name]
    samples, _ = sound(name, dtype="float32" if expected["dtype"] == "<i4" else "int16")
    if expected["dtype"] == "<i4":
        samples = (samples.astype(float) * (1 << 31)).astype("<i4")
    assert list(samples.shape) == expected["shape"]
    assert hashlib.sha256(samples.tobytes()).hexdigest() == expected["sha256"]


@pytest.mark.parametrize("name", ["s24_stereo_96k.flac", "alac_s24_stereo_96k.m4a", "s24_stereo_96k.aif"])
def test_24_bits_in_int16_are_cut_off(name: str) -> None:
    exact = sound(name, dtype="float32")[0].astype(float) * 32768
    assert np.array_equal(sound(name)[0], np.floor(exact).astype("<i2"))


# Lossy


@pytest.mark.parametrize("name", LOSSY.files)
def test_lossy_sound_is_what_another_decoder_gives(name: str) -> None:
    samples, _ = sound(name)
    expected = LOSSY[name][: len(samples)]
    assert samples.shape == expected.shape
    assert np.abs(samples.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("name", LENGTHS)
def test_what_encoders_put_before_and_behind_the_sound_is_left_out(name: str) -> None:
    samples, row = sound(name)
    assert len(samples) == LENGTHS[name]
    assert row["duration"] == LENGTHS[name] / row["sample_rate"]


def test_a_fragmented_mp4_ends_where_its_last_packet_says() -> None:
    assert len(sound("fragmented_mono_16k.m4a")[0]) == 6001 + 1024  # it has no edit list, so AAC's priming stays, as with ffmpeg


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="compares with the ffmpeg command, which is not there")
@pytest.mark.parametrize("name", SOUNDS)
def test_samples_are_those_of_the_ffmpeg_command(name: str) -> None:
    expected = np.frombuffer(
        subprocess.run(["ffmpeg", "-v", "error", "-i", DATA / name, "-f", "s16le", "-"], capture_output=True, check=True).stdout, "<i2"
    )
    samples, row = sound(name)
    bound = 30 if row["codec"].startswith(b"adpcm") else 1  # ADPCM of FFmpeg before 6 is not exact
    assert len(expected) >= samples.size
    assert np.abs(samples.ravel().astype(int) - expected[: samples.size]).max() <= bound


# The row


@pytest.mark.parametrize(
    ("name", "rate", "layout", "codec", "kind"),
    [
        ("s16_51_48k.flac", 48_000, b"5.1", b"flac", b"flac"),
        ("u8_mono_8k.wav", 8_000, b"mono", b"pcm_u8", b"wav"),
        ("cbr_stereo_44k.mp3", 44_100, b"stereo", b"mp3", b"mp3"),
        ("opus_mono_48k.ogg", 48_000, b"mono", b"opus", b"ogg"),
        ("flac_mono_16k.oga", 16_000, b"mono", b"flac", b"ogg"),
        ("alac_s24_stereo_96k.m4a", 96_000, b"stereo", b"alac", b"m4a"),
        ("aac_stereo_48k.aac", 48_000, b"stereo", b"aac", b"aac"),
        ("s24_stereo_96k.aif", 96_000, b"stereo", b"pcm_s24be", b"aiff"),
        ("wmav2_stereo_44k.wma", 44_100, b"stereo", b"wmav2", b"wma"),
        ("opus_stereo_48k.mka", 48_000, b"stereo", b"opus", b"mka"),
    ],
)
def test_a_row_says_what_the_sound_is(name: str, rate: int, layout: bytes, codec: bytes, kind: bytes) -> None:
    samples, row = sound(name)
    count, channels = samples.shape
    assert row == {
        "sample_rate": rate, "channels": channels, "layout": layout, "duration": count / rate, "codec": codec, "format": kind,
    }  # fmt: skip


@pytest.mark.parametrize("name", ["cbr_stereo_44k.mp3", "vorbis_stereo_44k.ogg", "opus_stereo_48k.opus", "aac_stereo_44k.m4a"])
def test_tags_are_pairs(name: str) -> None:
    assert tags(name)["title"] == b"A title"


def test_tags_of_one_key_are_joined_and_their_keys_in_lower_case() -> None:
    assert tags("s16_stereo_44k.flac") == {"title": b"A title;Another", "artist": "Ä".encode()}


def test_a_tag_that_is_not_utf8_is_escaped() -> None:
    data = (DATA / "s16_stereo_44k.wav").read_bytes()
    info = b"LIST\x10\0\0\0INFOINAM\4\0\0\0caf\xe9"
    content = content_of(data[:4] + (len(data) - 8 + len(info)).to_bytes(4, "little") + data[8:] + info, "a.wav")
    block = next(audio.convert("wav", content, MediumOptions()))
    assert block.pairs is not None and list(block.pairs.values) == [rb"caf\xe9"]


def test_a_wav_without_samples_is_a_row_without_samples() -> None:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(8000)
    samples, row = heard(out.getvalue(), "a.wav")
    assert samples.shape == (0, 2) and row["duration"] == 0 and row["sample_rate"] == 8000


# Options


def test_mono_is_the_average_of_all_channels_with_the_same_weight() -> None:
    name = "s16_51_48k.wav"
    channels = sound(name)[0].astype(float)
    mixed, row = sound(name, mono=True)
    assert mixed.shape == (len(channels), 1) and row["layout"] == b"mono" and row["channels"] == 1
    assert np.abs(mixed[:, 0] - channels.mean(axis=1)).max() <= 0.5001
    exact = sound(name, mono=True, dtype="float32")[0][:, 0]
    assert np.allclose(exact, channels.mean(axis=1) / 32768, atol=1e-7)


def test_mono_of_two_channels_is_rounded_to_the_nearest_even_number() -> None:
    channels = by_wave("s16_stereo_44k.wav") >> 16
    assert np.array_equal(sound("s16_stereo_44k.wav", mono=True)[0][:, 0], np.rint(channels.sum(axis=1) / 2))


def test_mono_of_one_channel_is_the_channel() -> None:
    assert np.array_equal(sound("u8_mono_8k.wav", mono=True)[0], sound("u8_mono_8k.wav")[0])


def tone(hertz: float, rate: int, seconds: float = 0.5) -> Array:
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(rate * seconds)) / rate)


def as_wav(values: Array, rate: int) -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(4)
        file.setframerate(rate)
        file.writeframes(np.rint(values * ((1 << 31) - 1)).astype("<i4").tobytes())
    return out.getvalue()


@pytest.mark.parametrize(("rate", "wanted"), [(44_100, 16_000), (48_000, 44_100), (8_000, 48_000), (22_050, 11_025)])
def test_a_resampled_tone_is_the_tone_at_the_new_rate(rate: int, wanted: int) -> None:
    samples, row = heard(as_wav(tone(1000, rate), rate), "a.wav", sample_rate=wanted, dtype="float32")
    expected = tone(1000, wanted)
    assert row["sample_rate"] == wanted and abs(len(samples) - len(expected)) <= 1
    inner = slice(100, min(len(samples), len(expected)) - 100)  # the filter sees silence beyond both ends
    assert np.abs(samples[inner, 0] - expected[inner]).max() < 5e-5  # -80 dB


def test_what_is_above_the_new_nyquist_frequency_is_filtered_out() -> None:
    samples, _ = heard(as_wav(tone(12_000, 44_100), 44_100), "a.wav", sample_rate=16_000, dtype="float32")
    assert np.abs(samples[100:-100]).max() < 1e-3


# Damage


def raises(data: bytes, path: str) -> bool:
    try:
        heard(data, path)
    except MemberError:
        return True
    return False


def test_sound_that_was_cut_short_is_a_member_error() -> None:
    quiet = {"alaw_mono_16k.wav": 1, "mulaw_mono_16k.wav": 1, "u8_mono_8k.wav": 1}  # the byte that pads the samples to an even number
    for name in SOUNDS:
        data = (DATA / name).read_bytes()
        for size in (len(data) * 3 // 10, len(data) // 2, len(data) * 9 // 10, len(data) - 10, len(data) - 1 - quiet.get(name, 0)):
            assert raises(data[:size], name), f"{name} of {size} bytes"


@pytest.mark.parametrize(
    "name", ["s16_stereo_44k.wav", "cbr_stereo_44k.mp3", "s16_stereo_44k.flac", "opus_mono_48k.ogg", "aac_mono_48k.m4a"]
)
def test_tolerant_keeps_what_came_before_the_cut_and_says_so(name: str) -> None:
    data, whole = (DATA / name).read_bytes(), sound(name)[0]
    samples, row = heard(data[: len(data) * 8 // 10], name, damaged="tolerant")
    assert 0 < len(samples) < len(whole)
    assert np.abs(samples[:-1200].astype(int) - whole[: max(0, len(samples) - 1200)]).max(initial=0) <= 1  # all but the last frame
    assert row["damage"].startswith(b"found ") and len(row["damage"]) <= 64
    assert row["duration"] == len(samples) / row["sample_rate"]


@pytest.mark.parametrize("name", SOUNDS)
def test_whole_sound_has_no_damage(name: str) -> None:
    assert sound(name, damaged="tolerant")[1]["damage"] == b""


@pytest.mark.parametrize("name", ["s16_stereo_44k.flac", "flac_mono_16k.oga", "vorbis_mono_48k.ogg", "opus_mono_48k.ogg"])
def test_a_changed_byte_is_found_where_the_format_has_checksums(name: str) -> None:
    data = bytearray((DATA / name).read_bytes())
    for at in range(len(data) // 5, len(data), len(data) // 11):
        data[at] ^= 0x10
        with pytest.raises(MemberError):
            heard(bytes(data), name)
        data[at] ^= 0x10


@pytest.mark.parametrize(
    "name", ["cbr_stereo_44k.mp3", "plain_mono_16k.mp3", "aac_stereo_48k.aac", "opus_stereo_48k.mka", "fragmented_mono_16k.m4a"]
)
def test_a_missing_stretch_is_found(name: str) -> None:
    data = (DATA / name).read_bytes()
    for at in (len(data) // 2, len(data) * 2 // 3):
        with pytest.raises(MemberError):
            heard(data[:at] + data[at + 50 :], name)


def test_a_wav_of_a_pipe_says_nothing_of_its_size_and_is_read_to_its_end() -> None:
    data = bytearray((DATA / "s16_stereo_44k.wav").read_bytes())
    at = data.index(b"data") + 4
    data[4:8] = data[at : at + 4] = b"\xff" * 4
    assert np.array_equal(heard(bytes(data), "a.wav")[0], sound("s16_stereo_44k.wav")[0])


@pytest.mark.parametrize("kept", [1.0, 0.7])
def test_the_64_bit_size_of_an_rf64_is_its_size(kept: float) -> None:
    data = (DATA / "s16_stereo_44k.wav").read_bytes()
    at = data.index(b"data") + 4
    sizes = b"ds64" + (28).to_bytes(4, "little") + bytes(8) + (len(data) - at - 4).to_bytes(8, "little") + bytes(12)
    large = b"RF64\xff\xff\xff\xffWAVE" + sizes + data[12:at] + b"\xff" * 4 + data[at + 4 :]
    assert raises(large[: int(len(large) * kept)], "a.wav") == (kept < 1)


ID3 = b"ID3\4\0\0\0\0\0\x0a" + bytes(10)
APE = b"APETAGEX" + (2000).to_bytes(4, "little") + (32).to_bytes(4, "little") + bytes(4) + b"\0\0\0\xa0" + bytes(8)


@pytest.mark.parametrize("name", ["vbr_mono_48k.mp3", "plain_mono_16k.mp3"])
@pytest.mark.parametrize(
    ("before", "behind"),
    [(ID3, b""), (ID3 + ID3, b""), (b"", b"TAG" + bytes(125)), (b"", APE + bytes(32))],
    ids=["ID3v2", "two ID3v2", "ID3v1", "APE"],
)
def test_tags_around_an_mp3_are_passed_over(name: str, before: bytes, behind: bytes) -> None:
    assert np.array_equal(heard(before + (DATA / name).read_bytes() + behind, name)[0], sound(name)[0])


@pytest.mark.parametrize(("before", "behind"), [(b"garbage\xff\xff" * 9, b""), (b"", bytes(999))], ids=["garbage", "zeros"])
def test_garbage_before_an_mp3_and_zeros_behind_it_are_passed_over(before: bytes, behind: bytes) -> None:
    name = "plain_mono_16k.mp3"
    assert np.array_equal(heard(before + (DATA / name).read_bytes() + behind, name)[0], sound(name)[0])


def test_sound_that_changes_its_rate_is_a_member_error() -> None:
    joined = (DATA / "plain_mono_16k.mp3").read_bytes() + (DATA / "vbr_mono_48k.mp3").read_bytes()
    with pytest.raises(MemberError, match=r"found a change to \d+ Hz mono fltp, expected"):
        heard(joined, "a.mp3")
    assert heard(joined, "a.mp3", damaged="tolerant")[1]["damage"].startswith(b"found a change to ")


@pytest.mark.parametrize("path", ["a.mp3", "a.wav", "a.flac", "a.ogg", "a.m4a", "a.aac", "a.aiff", "a.wma", "a.mka"])
@pytest.mark.parametrize("data", [b"", b"\0" * 100, b"no sound at all" * 50], ids=["empty", "zeros", "text"])
def test_what_is_no_sound_is_a_member_error(path: str, data: bytes) -> None:
    with pytest.raises(MemberError):
        heard(data, path)


def test_playlists_are_never_followed() -> None:
    playlist = f"#EXTM3U\n#EXTINF:1,\n{DATA / 's16_stereo_44k.wav'}\n".encode()
    for kind in (*audio.SIGNATURES, "soundtrack"):
        with pytest.raises(MemberError):
            next(audio.convert(kind, content_of(playlist, "a.mp3"), MediumOptions()))


class BrokenReader(MemoryReader):
    """Gives all bytes when they are checked, and only three quarters of them when they are decoded."""

    def open(self, member: Member) -> Any:
        self.opened += 1
        return NoSeeking(self.data if self.opened == 2 else self.data[: len(self.data) * 3 // 4])


class NoSeeking(io.BytesIO):
    def seekable(self) -> bool:
        return False


def test_an_archive_that_fails_while_it_is_read_is_named_as_such() -> None:
    data = as_wav(np.zeros(1 << 20), 8000)
    content = Content(BrokenReader(data), Member("a.wav", len(data), len(data), 0), LIMITS)
    block = next(audio.convert("wav", content, MediumOptions()))
    with pytest.raises(MemberError, match="as when it was read before"):
        taken(block.columns)


# Limits


def test_more_bytes_of_samples_than_allowed_are_a_member_error() -> None:
    data = (DATA / "aac_stereo_44k.m4a").read_bytes()
    with pytest.raises(MemberError, match=r"found more than 20000 bytes of samples \(limits.member_bytes\)"):
        heard(data, "a.m4a", Limits(member_bytes=20_000))


def test_memory_does_not_grow_with_the_sound() -> None:
    content = content_of(as_wav(np.zeros(8 << 20), 48_000), "a.wav")
    block = next(audio.convert("wav", content, MediumOptions()))
    pieces = block.columns["samples"].values[0]  # type: ignore[union-attr]
    assert isinstance(pieces, Pieces)
    tracemalloc.start()
    assert sum(map(len, pieces.parts)) == 8 << 20
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20


# Videos


def test_the_sound_of_a_video_is_a_row_of_a_class_of_sound() -> None:
    samples, row = heard((DATA / "film.mp4").read_bytes(), "film.mp4")
    assert samples.shape == (5001, 1) and row["format"] == b"mov" and row["codec"] == b"aac"


def film(name: str, **options: Any) -> tuple[Array, Row]:
    content = content_of((DATA / name).read_bytes(), name)
    return taken(audio.sound_columns(content, MediumOptions(audio=AudioOptions(**options))))


def test_the_sound_of_a_video_is_columns_of_its_row() -> None:
    samples, row = film("film.mp4", damaged="tolerant")
    assert np.array_equal(samples, heard((DATA / "film.mp4").read_bytes(), "film.mp4")[0])
    assert row == {
        "audio_sample_rate": 48_000, "audio_channels": 1, "audio_layout": b"mono", "audio_duration": 5001 / 48_000,
        "audio_codec": b"aac", "audio_damage": b"",
    }  # fmt: skip


@pytest.mark.parametrize("dtype", ["int16", "float32"])
def test_a_video_without_sound_has_samples_of_no_shape(dtype: str) -> None:
    samples, row = film("silent.mp4", dtype=dtype)
    assert samples.shape == (0, 0) and samples.dtype == dtype
    assert row == {
        "audio_sample_rate": 0, "audio_channels": 0, "audio_layout": b"", "audio_duration": 0.0, "audio_codec": b"",
    }  # fmt: skip


def test_a_silent_video_is_no_sound() -> None:
    with pytest.raises(MemberError, match="found no audio track"):
        heard((DATA / "silent.mp4").read_bytes(), "silent.mp4")


# Recognising


@pytest.mark.parametrize("name", SOUNDS)
def test_sound_is_recognised_without_a_class(name: str) -> None:
    handler = handler_for((DATA / name).read_bytes()[:4096], name)
    assert handler is not None and handler.medium == "audio"
    convert = handler.convert
    assert isinstance(convert, partial) and convert.func is audio.convert


@pytest.mark.parametrize("name", [name for name in SOUNDS if not name.endswith((".m4a", ".wma", ".mka")) and name != "plain_mono_16k.mp3"])
def test_most_sound_is_recognised_by_its_content(name: str) -> None:
    data = (DATA / name).read_bytes()
    handler = handler_for(data[:4096], "misleading.csv")
    assert (handler is not None and handler.medium == "audio") or data[:1] == b"\xff"


def test_too_long_sound_of_a_video_is_cut_and_marked() -> None:
    data = (DATA / "film.mp4").read_bytes()
    options = MediumOptions(audio=AudioOptions(damaged="tolerant"))
    columns = audio.sound_columns(content_of(data, "film.mp4", Limits(member_bytes=len(data))), options)
    assert sum(part.nbytes for part in columns["audio_samples"].values[0].parts) <= len(data)  # type: ignore[union-attr]
    assert b"found more than" in columns["audio_damage"].values[0]  # type: ignore[union-attr]


def test_more_channels_than_can_be_mixed_are_a_reject() -> None:
    """FFmpeg mixes at most 64 (SWR_CH_MAX in its swresample_internal.h)."""
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setparams((247, 2, 8000, 0, "NONE", ""))
        file.writeframes(bytes(247 * 2 * 100))
    with pytest.raises(MemberError, match="cannot be mixed or resampled: found 247 channels"):
        heard(out.getvalue(), "a.wav", mono=True)
