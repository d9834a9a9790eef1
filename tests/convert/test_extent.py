"""What the containers of small real files record of themselves, whole, cut short and changed by hand."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from h5dat_lib.convert.extent import missing

DATA = Path(__file__).parents[1] / "data" / "audio"
FILES = {
    "wav": "s16_stereo_44k.wav",
    "aiff": "s16_stereo_44k.aiff",
    "mov": "aac_mono_48k.m4a",
    "matroska": "opus_stereo_48k.mka",
    "ogg": "vorbis_mono_48k.ogg",
    "asf": "wmav2_stereo_44k.wma",
    "mp3": "vbr_mono_48k.mp3",
    "aac": "aac_stereo_48k.aac",
}


def found(demuxer: str, data: bytes) -> str | None:
    file = io.BytesIO(data)
    file.seek(7)
    reason = missing(demuxer, file)
    assert file.tell() == 7
    return reason


@pytest.mark.parametrize("demuxer", FILES)
def test_whole_files_pass(demuxer: str) -> None:
    assert found(demuxer, (DATA / FILES[demuxer]).read_bytes()) is None


@pytest.mark.parametrize("demuxer", FILES)
def test_files_that_were_cut_short_are_told_wherever_the_cut_is(demuxer: str) -> None:
    data = (DATA / FILES[demuxer]).read_bytes()
    for size in range(len(data) // 2, len(data), 41):
        frame_ends = demuxer == "aac" and data[size : size + 2] == b"\xff\xf1"  # nothing says how many frames there are
        assert frame_ends or found(demuxer, data[:size]) is not None, size


def test_a_cut_avi_is_told() -> None:
    data = b"RIFF" + struct.pack("<I", 92) + b"AVI " + bytes(88)
    assert found("avi", data) is None
    assert found("avi", data[:-1]) == "found 99 bytes, expected 100"


def test_an_mp4_box_may_have_a_64_bit_size_or_go_to_the_end() -> None:
    large = struct.pack(">I4sQ", 1, b"mdat", 40) + bytes(24)
    assert found("mov", large) is None
    assert found("mov", large[:-1]) == "found 39 bytes, expected 40"
    assert found("mov", struct.pack(">I4s", 0, b"mdat") + bytes(5)) is None


def test_a_matroska_segment_may_be_of_unknown_size() -> None:
    header, segment = b"\x1a\x45\xdf\xa3\x81\0", b"\x18\x53\x80\x67"
    assert found("matroska", header + segment + b"\x85" + bytes(5)) is None
    assert found("matroska", header + segment + b"\x85" + bytes(4)) == "found 15 bytes, expected 16"
    assert found("matroska", header + segment + b"\x01" + b"\xff" * 7 + bytes(4)) is None


@pytest.mark.parametrize("size", [0x7FFFF024, 0xFFFFFFFF])
def test_sizes_that_stand_for_unknown_ones_pass(size: int) -> None:
    data = b"RIFF" + struct.pack("<I", size) + b"WAVEdata" + struct.pack("<I", size) + bytes(10)
    assert found("wav", data) is None


def test_a_lost_page_and_a_lost_last_page_are_told() -> None:
    data = (DATA / FILES["ogg"]).read_bytes()
    starts = [at for at in range(len(data)) if data[at : at + 4] == b"OggS"]
    lost = data[: starts[2]] + data[starts[3] :]
    assert found("ogg", lost) == f"found page 3 at byte {starts[2]}, expected 2"
    assert found("ogg", data[: starts[-1]]) == f"found the end after {starts[-1]} bytes, expected a last page"
    assert found("ogg", data + b"TAG" + bytes(125)) is None
    assert found("ogg", data + data) is None  # streams one after the other
    assert found("ogg", data + b"\0" + data) == f"found no page at byte {len(data)}"


def test_a_lost_frame_is_told() -> None:
    data = (DATA / FILES["aac"]).read_bytes()
    assert found("aac", data[:500] + data[520:]) is not None


@given(st.sampled_from([*FILES, "avi", "flac"]), st.binary(max_size=300), st.sampled_from([0, 4, 12, 40, 400]))
def test_any_bytes_are_looked_at_without_an_error(demuxer: str, data: bytes, keep: int) -> None:
    start = (DATA / FILES[demuxer]).read_bytes()[:keep] if demuxer in FILES else b""
    found(demuxer, bytes(8) + start + data)
    found(demuxer, start + data + bytes(8))
