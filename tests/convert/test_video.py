"""Videos against FFmpeg's command line: the MD5 of each frame as RGB lies beside each file, made by another version of FFmpeg."""

from __future__ import annotations

import gc
import hashlib
import random
import shutil
import subprocess
from pathlib import Path
from typing import Any, BinaryIO

import av
import numpy as np
import pytest

from h5dat_lib.archive.member import Content, Member, Part
from h5dat_lib.columns import Arrays, Block, Fault, Pieces, References, Strings
from h5dat_lib.config import Limits, MediumOptions, Resize, VideoOptions
from h5dat_lib.convert import handler_for
from h5dat_lib.convert.sizes import resize
from h5dat_lib.convert.video import SIGNATURES, probe
from h5dat_lib.errors import MemberError

from .conftest import MemoryReader

DATA = Path(__file__).parents[1] / "data" / "video"
FILES = sorted(path.name.removesuffix(".framemd5") for path in DATA.glob("*.framemd5"))
CLOSE = {"mpeg4.avi", "wmv2.wmv"}
"""Of codings whose standard leaves rounding open: versions of FFmpeg differ by 1 in a few samples, and nowhere by more."""
Frame = tuple[int, float, bool, str]
"""Number, time, keyframe, MD5."""


def data_of(name: str) -> bytes:
    return (DATA / name).read_bytes()


def content_of(data: bytes, name: str, part: Part = (0, 1), limits: Limits | None = None) -> Content:
    return Content(MemoryReader(data), Member(name, len(data), len(data), 0), limits or Limits(), part)


def converted(
    data: bytes, name: str, video: VideoOptions | None = None, part: Part = (0, 1), limits: Limits | None = None
) -> list[Block | Fault]:
    content = content_of(data, name, part, limits)
    handler = handler_for(content.head(), name, "videos")
    assert handler is not None and handler.medium == "videos"
    return list(handler.convert(content, MediumOptions(video=video or VideoOptions())))


def pixels_of(blocks: list[Block | Fault]) -> list[np.ndarray]:
    found = [block.columns["pixels"] for block in blocks if isinstance(block, Block) and block.table == "frames"]
    return [pixels for column in found if isinstance(column, Arrays) for pixels in column.values if isinstance(pixels, np.ndarray)]


def values_of(block: Block, name: str) -> list[Any]:
    column = block.columns[name]
    assert not isinstance(column, Strings)
    return list(column.values)


def frames_of(blocks: list[Block | Fault]) -> list[Frame]:
    tables = [block for block in blocks if isinstance(block, Block) and block.table == "frames"]
    rows = [row for table in tables for row in zip(*(values_of(table, name) for name in ("frame", "time", "keyframe")), strict=True)]
    digests = [hashlib.md5(pixels.tobytes()).hexdigest() for pixels in pixels_of(blocks)]
    return [(int(number), float(time), bool(key), digest) for (number, time, key), digest in zip(rows, digests, strict=True)]


def row_of(blocks: list[Block | Fault]) -> dict[str, Any]:
    [block] = [block for block in blocks if isinstance(block, Block) and block.table == ""]
    assert block.rows == 1 and block is blocks[-1]
    return {name: next(iter(values_of(block, name)), None) for name in block.columns}


def reasons(blocks: list[Block | Fault]) -> list[str]:
    return [block.reason for block in blocks if isinstance(block, Fault)]


def expected(name: str) -> tuple[list[float], list[str]]:
    """Seconds and MD5 of each frame, by the command line."""
    lines = (DATA / f"{name}.framemd5").read_text().splitlines()
    [rate] = [line.partition(":")[2].split("/") for line in lines if line.startswith("#tb")]
    fields = [line.split(",") for line in lines if not line.startswith("#")]
    return [int(field[2]) * int(rate[0]) / int(rate[1]) for field in fields], [field[5] for field in fields]


# Frames


@pytest.mark.parametrize("name", FILES)
def test_frames_are_those_of_the_command_line(name: str) -> None:
    blocks = converted(data_of(name), name)
    frames, (times, digests) = frames_of(blocks), expected(name)
    assert reasons(blocks) == [] and [number for number, *_ in frames] == list(range(len(digests)))
    assert name in CLOSE or [digest for *_, digest in frames] == digests
    if name != "b_frames_h264.avi":  # the command line's times are a guess of the decoder there
        steps = np.diff([time for _, time, *_ in frames])
        assert np.allclose(steps, np.diff(times), atol=0.0011)


@pytest.mark.parametrize("name", FILES)
def test_the_row_describes_the_video(name: str) -> None:
    row, frames = row_of(blocks := converted(data_of(name), name)), frames_of(blocks)
    height, width, _ = pixels_of(blocks)[0].shape
    assert (row["count"], row["total"], row["width"], row["height"]) == (len(frames), len(frames), width, height)
    assert row["duration"] == pytest.approx(len(frames) / row["fps"])
    assert row["format"] in [kind.encode() for kind in SIGNATURES] and row["codec"]


def test_frames_refer_to_their_video_and_it_to_its_first_frame() -> None:
    *frames, video = converted(data_of("h264.mp4"), "h264.mp4")
    assert isinstance(video, Block) and video.columns["first"] == References([0], "./frames")
    assert all(isinstance(block, Block) and block.columns["video"] == References([0] * block.rows, ".") for block in frames)


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs the ffmpeg command")
@pytest.mark.parametrize("name", sorted(CLOSE))
def test_where_versions_round_differently_they_differ_by_little(name: str) -> None:
    command = ["ffmpeg", "-v", "error", "-i", str(DATA / name), "-map", "0:v:0", "-fps_mode", "passthrough", "-pix_fmt", "rgb24"]
    raw = subprocess.run([*command, "-f", "rawvideo", "-"], capture_output=True, check=True).stdout
    found = np.stack(pixels_of(converted(data_of(name), name))).astype(int)
    difference = np.abs(found - np.frombuffer(raw, np.uint8).reshape(found.shape))
    assert difference.max() <= 3 and difference.mean() < 0.01


@pytest.mark.parametrize(
    ("name", "column", "value"),
    [
        ("rotated.mp4", "rotation", 270), ("h264.mp4", "rotation", 0), ("wide_pixels.mp4", "pixel_aspect", 4 / 3),
        ("h264.mp4", "audio", True), ("vfr.mkv", "audio", False), ("hevc.mp4", "codec", b"hevc"), ("av1.mp4", "codec", b"av1"),
        ("h264.mov", "format", b"mp4"), ("vp9.webm", "format", b"mkv"), ("animation.gif", "format", b"gif-video"),
    ],
)  # fmt: skip
def test_what_the_row_says(name: str, column: str, value: object) -> None:
    assert row_of(converted(data_of(name), name))[column] == pytest.approx(value)


def test_times_of_a_variable_rate_are_true() -> None:
    times = [time for _, time, *_ in frames_of(converted(data_of("vfr.mkv"), "vfr.mkv"))]
    assert len(set(np.diff(times).round(3))) > 1 and np.allclose(times, expected("vfr.mkv")[0])


def test_a_transport_stream_that_starts_late_starts_at_0() -> None:
    assert frames_of(converted(data_of("mpeg2.ts"), "a.ts"))[0][1] == 0.0


def test_a_recording_that_starts_in_the_middle_counts_from_its_first_keyframe() -> None:
    whole = frames_of(converted(data_of("mpeg2.ts"), "a.ts"))
    late = frames_of(blocks := converted(data_of("mpeg2.ts")[188 * 40 :], "a.ts"))
    assert reasons(blocks) == [] and late[0][0] == 0 and late[0][2] and len(late) < len(whole)
    assert [digest for *_, digest in late] == [digest for *_, digest in whole][-len(late) :]


# Choice and parts


@pytest.mark.parametrize("name", FILES)
def test_parts_together_are_the_whole(name: str) -> None:
    data = data_of(name)
    whole = frames_of(converted(data, name))
    for count in (2, 3, 7):
        parts = [converted(data, name, part=(number, count)) for number in range(count)]
        assert [frame for blocks in parts for frame in frames_of(blocks)] == whole
        assert [row_of(blocks)["count"] for blocks in parts] == [len(frames_of(blocks)) for blocks in parts]


@pytest.mark.parametrize("name", FILES)
def test_frames_are_the_same_however_they_are_chosen(name: str) -> None:
    data, dice = data_of(name), random.Random(name)
    whole = {frame[0]: frame for frame in frames_of(converted(data, name))}
    for _ in range(12):
        start, every = round(dice.uniform(0, 1.9), 3), dice.choice((1, 2, 5))
        options = VideoOptions(start=start, every=every, keyframes=dice.random() < 0.3, max_frames=dice.choice((None, 1, 4)))
        blocks = converted(data, name, options)
        assert reasons(blocks) == [] and all(frame == whole[frame[0]] for frame in frames_of(blocks))


@pytest.mark.parametrize("name", ["open_gop.mp4", "open_gop.mkv", "mpeg2.mpeg", "mpeg2.ts", "hevc.mp4", "intra_refresh.mp4", "trimmed.mp4"])
def test_each_single_frame_is_that_of_the_whole(name: str) -> None:
    data = data_of(name)
    for frame in frames_of(converted(data, name)):
        alone = converted(data, name, VideoOptions(start=max(0.0, frame[1] - 1e-4), max_frames=1))
        assert frames_of(alone) == [frame]


def test_only_keyframes_are_decoded_when_only_they_are_wanted() -> None:
    frames = frames_of(converted(data_of("h264.mp4"), "a.mp4", VideoOptions(keyframes=True)))
    assert [number for number, *_ in frames] == [0, 8, 16] and all(key for _, _, key, _ in frames)


def test_a_choice_of_nothing_is_a_video_without_rows() -> None:
    blocks = converted(data_of("rotated.mp4"), "a.mp4", VideoOptions(start=60))
    row = row_of(blocks)
    assert len(blocks) == 1 and (row["count"], row["total"], row["width"], row["height"]) == (0, 20, 96, 128)


# Pixels


@pytest.mark.parametrize("mode", ["fit", "fill", "pad"])
def test_frames_are_resized_as_pictures_are(mode: str) -> None:
    how = Resize(width=40, height=40, mode=mode)  # type: ignore[arg-type]
    small = pixels_of(converted(data_of("h264.mp4"), "a.mp4", VideoOptions(resize=how)))
    large = pixels_of(converted(data_of("h264.mp4"), "a.mp4"))
    assert all(np.array_equal(one, resize(other, how)) for one, other in zip(small, large, strict=True))


def test_grey_is_that_of_pictures() -> None:
    from PIL import Image

    grey = pixels_of(converted(data_of("h264.mp4"), "a.mp4", VideoOptions(color="L", max_frames=1)))[0]
    rgb = pixels_of(converted(data_of("h264.mp4"), "a.mp4", VideoOptions(max_frames=1)))[0]
    assert grey.shape == (96, 128, 1) and np.array_equal(grey[:, :, 0], np.asarray(Image.fromarray(rgb).convert("L")))


@pytest.mark.parametrize("name", ["rotated.mp4", "h264.mp4", "animation.gif"])
def test_the_shape_is_known_beforehand(name: str) -> None:
    options = MediumOptions(video=VideoOptions(resize=Resize(width=32, height=32), color="L"))
    content = content_of(data_of(name), name)
    handler = handler_for(content.head(), name, "videos")
    assert handler is not None
    [first, *_] = pixels_of(list(handler.convert(content, options)))
    assert probe(content, options) == (first.shape, "|u1")


def test_what_is_no_video_has_no_shape() -> None:
    with pytest.raises(MemberError, match="not a video: found b'PK"):
        probe(content_of(b"PK\3\4" + bytes(100), "a.mp4"), MediumOptions())


def test_blocks_are_bounded() -> None:
    blocks = converted(data_of("h264.mp4"), "a.mp4", VideoOptions(resize=Resize(width=1280, height=960, interpolation="nearest")))
    assert [block.rows for block in blocks if isinstance(block, Block)] == [2] * 10 + [1]


def test_decoded_frames_are_let_go() -> None:
    def alive() -> int:
        return sum(
            issubclass(type(one), av.VideoFrame) for one in gc.get_objects()
        )  # isinstance would ask objects of others for their class

    gc.collect()
    before = alive()
    gc.disable()  # it does not know how large frames are, and would come late
    try:
        blocks = converted(data_of("rotated.mp4"), "a.mp4", VideoOptions(resize=Resize(width=32, height=32)))
        assert len(frames_of(blocks)) == 20 and alive() - before <= 2
    finally:
        gc.enable()


# Summaries and sound


@pytest.mark.parametrize(("kind", "shape"), [("barcode", (96, 5, 3)), ("contact_sheet", (192, 384, 3))])
def test_a_summary_is_made_of_evenly_spaced_frames(kind: str, shape: tuple[int, ...]) -> None:
    options = VideoOptions(summary=kind, summary_frames=5, max_frames=1)  # type: ignore[arg-type]
    row = row_of(blocks := converted(data_of("h264.mp4"), "a.mp4", options))
    assert len(frames_of(blocks)) == 1 and isinstance(row["summary"], np.ndarray) and row["summary"].shape == shape
    wanted = [pixels_of(converted(data_of("h264.mp4"), "a.mp4"))[number] for number in (2, 6, 10, 14, 18)]
    if kind == "barcode":
        assert np.array_equal(row["summary"][:, 3], np.rint(wanted[3].mean(axis=1)))
    else:
        assert np.array_equal(row["summary"][96:, 128:256], wanted[4])


def test_sound_comes_with_the_first_part() -> None:
    first, second = (converted(data_of("h264.mp4"), "a.mp4", VideoOptions(audio=True), (number, 2))[-1] for number in (0, 1))
    assert isinstance(first, Block) and isinstance(second, Block)
    [samples] = values_of(first, "audio_samples")
    assert isinstance(samples, Pieces) and sum(len(piece) for piece in samples.parts) == pytest.approx(2 * 22050, abs=1024)
    assert not [name for name in second.columns if name.startswith("audio_")]


def test_a_video_without_sound_has_none() -> None:
    assert row_of(converted(data_of("vfr.mkv"), "a.mkv", VideoOptions(audio=True)))["audio_samples"].shape == (0, 0)


# Damage


@pytest.mark.parametrize("damaged", ["strict", "tolerant"])
@pytest.mark.parametrize("name", FILES)
def test_a_cut_file_says_so_and_gives_no_wrong_frame(name: str, damaged: str) -> None:
    data = data_of(name)
    whole = [digest for *_, digest in frames_of(converted(data, name))]
    for cut in range(1, 14):
        try:
            blocks = converted(data[: len(data) * cut // 14 - 1], name, VideoOptions(damaged=damaged))  # type: ignore[arg-type]
        except MemberError:
            continue
        assert all(digest in whole for *_, digest in frames_of(blocks))
        said = reasons(blocks) if damaged == "strict" else row_of(blocks)["damage"]
        assert said or len(frames_of(blocks)) == len(whole), "what is missing was sound, or what fills up the last packet"


@pytest.mark.parametrize("name", ["h264.mp4", "mpeg4.m4v", "mpeg2.ts", "vp9.webm", "hevc.mp4", "animation.gif", "wmv2.wmv", "b_frames.avi"])
def test_damage_ends_in_a_reject_or_in_frames(name: str) -> None:
    data, dice = data_of(name), random.Random(name)
    for _ in range(25):
        mutated = bytearray(data)
        for _ in range(dice.randrange(1, 5)):
            mutated[dice.randrange(len(mutated))] = dice.randrange(256)
        for damaged in ("strict", "tolerant"):
            try:
                blocks = converted(bytes(mutated), name, VideoOptions(damaged=damaged))
            except MemberError:
                continue
            row = row_of(blocks)
            assert row["count"] == row["total"] or reasons(blocks) or row.get("damage")


def damaged_h264() -> bytes:
    """The second of three groups of frames made unreadable, with all sizes as they were."""
    data = bytearray(data_of("h264.mp4"))
    at = data.index(b"mdat") + 4500
    data[at : at + 1500] = bytes(1500)
    return bytes(data)


def test_strict_ends_where_damage_begins() -> None:
    whole = frames_of(converted(data_of("h264.mp4"), "a.mp4"))
    frames = frames_of(blocks := converted(damaged_h264(), "a.mp4"))
    assert 0 < len(frames) < 16 and frames == whole[: len(frames)]
    [reason] = reasons(blocks)
    assert reason.startswith(f"damaged from frame {len(frames)} on, at {whole[len(frames)][1]:.3f} s: ")
    assert row_of(blocks)["count"] == len(frames) and "damage" not in row_of(blocks)


def test_tolerant_goes_on_behind_the_damage() -> None:
    whole = frames_of(converted(data_of("h264.mp4"), "a.mp4"))
    frames = frames_of(blocks := converted(damaged_h264(), "a.mp4", VideoOptions(damaged="tolerant")))
    assert reasons(blocks) == [] and set(frames) < set(whole) and frames[-1] == whole[-1]
    damage = row_of(blocks)["damage"]
    assert isinstance(damage, bytes) and damage.startswith(b"%d frames lost; damaged from frame " % (20 - len(frames)))


def test_damage_behind_what_is_wanted_does_not_matter() -> None:
    blocks = converted(damaged_h264(), "a.mp4", VideoOptions(max_frames=2))
    assert reasons(blocks) == [] and len(frames_of(blocks)) == 2


@pytest.mark.parametrize("name", ["sound_only.mp4", "cover.mp4"])
def test_sound_alone_is_no_video(name: str) -> None:
    with pytest.raises(MemberError, match="no video track: found none, expected one; for its sound, give it a class of medium audio"):
        converted(data_of(name), name)


def test_frames_may_be_too_large() -> None:
    with pytest.raises(MemberError, match=r"too large: found frames of 128 x 96 pixels, expected at most 12000 \(limits.pixels\)"):
        converted(data_of("h264.mp4"), "a.mp4", limits=Limits(pixels=12_000))


class RememberingReader(MemoryReader):
    """A Reader that keeps what it has opened."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.streams: list[BinaryIO] = []

    def open(self, member: Member) -> BinaryIO:
        self.streams.append(super().open(member))
        return self.streams[-1]


def test_nothing_is_left_open() -> None:
    data = data_of("h264.mp4") + (2 << 20).to_bytes(4, "big") + b"free" + bytes((2 << 20) - 8)
    content = Content(reader := RememberingReader(data), Member("a.mp4", len(data), len(data), 0), Limits())
    handler = handler_for(content.head(), "a.mp4", "videos")
    assert handler is not None and len(frames_of(list(handler.convert(content, MediumOptions())))) == 20
    assert len(reader.streams) == 3, "one for the head, one that is checked, one that is read"
    assert all(stream.closed for stream in reader.streams)


def test_a_playlist_is_not_followed() -> None:
    with pytest.raises(MemberError, match="cannot be read as mov"):
        converted(b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", "a.mp4")
