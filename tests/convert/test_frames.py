"""Pillow counts the frames that it wrote, and so do we, without decoding them."""

from __future__ import annotations

import io
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from h5dat_lib.columns import Fault
from h5dat_lib.config import ImageOptions, MediumOptions
from h5dat_lib.convert import frames
from h5dat_lib.errors import MemberError
from tests.convert.conftest import converted
from tests.convert.pictures import rows


def animation(kind: str, count: int, mode: str = "RGB", **how: object) -> bytes:
    first, *others = [Image.new(mode, (9, 7), (number * 30,) * len(mode)) for number in range(count)]
    out = io.BytesIO()
    first.save(out, kind, save_all=True, append_images=others, **how)
    return out.getvalue()


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("count", [1, 2, 7])
@pytest.mark.parametrize(
    ("kind", "how"), [("TIFF", {}), ("TIFF", {"big_tiff": True}), ("TIFF", {"compression": "tiff_lzw"}), ("GIF", {}), ("PNG", {})]
)
def test_frames_are_counted_as_pillow_counts_them(kind: str, how: dict[str, object], count: int, mode: str) -> None:
    data = animation(kind, count, mode, **how)
    expected = Image.open(io.BytesIO(data)).n_frames
    assert expected == count
    assert max(frames.count(data, kind, 100), 1) == expected
    assert frames.count(data, kind, 3) == min(frames.count(data, kind, 100), 4)


def test_frames_of_a_webp_are_counted() -> None:
    data = animation("WEBP", 5)
    assert frames.count(data, "WEBP", 100) == Image.open(io.BytesIO(data)).n_frames == 5


def test_formats_of_one_frame_have_one() -> None:
    assert frames.count(b"\xff\xd8\xff", "JPEG", 1) == 1


def test_directories_of_a_big_endian_tiff_are_counted() -> None:
    assert frames.count(struct.pack(">2sHIHIHI", b"MM", 42, 8, 0, 14, 0, 0), "TIFF", 100) == 2


def test_a_picture_before_an_animation_is_a_frame_as_well() -> None:
    assert frames.count(animation("PNG", 4, default_image=True), "PNG", 100) == 4
    assert frames.count(animation("PNG", 4), "PNG", 100) == 4


@pytest.mark.parametrize("kind", ["GIF", "TIFF"])
def test_a_cut_between_frames_leaves_none_out_silently(kind: str) -> None:
    data = animation(kind, 3)
    cut = data[:-1] if kind == "GIF" else data[: list(frames.directories(data))[-1]]
    assert frames.count(cut, kind, 100) == (4 if kind == "GIF" else 3)
    path = "a." + kind.lower()
    with pytest.raises(MemberError, match=f"cannot be decoded as {kind}"):
        rows(cut, path, frames="all")
    blocks = converted(cut, path, MediumOptions(image=ImageOptions(frames="all", damaged="tolerant")))
    assert isinstance(blocks[-1], Fault) and len(blocks) == (4 if kind == "GIF" else 3)
    assert len(rows(cut, path)) == 1


@pytest.mark.parametrize("kind", ["GIF", "PNG", "TIFF", "WEBP"])
def test_frames_are_counted_once_whatever_their_number(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data, counts, count = animation(kind, 6), list[str](), frames.count
    monkeypatch.setattr(frames, "count", lambda data, kind, most: counts.append(kind) or count(data, kind, most))
    assert len(rows(data, "a." + kind.lower(), frames="all")) == 6
    assert counts == [kind]


def test_directories_that_go_round_are_damage() -> None:
    with pytest.raises(MemberError, match="lead back to the one at byte 8"):
        frames.count(struct.pack("<2sHIHIHI", b"II", 42, 8, 0, 14, 0, 8), "TIFF", 100)


@given(st.binary(max_size=200), st.sampled_from(["TIFF", "GIF", "WEBP", "PNG"]), st.sampled_from([b"II*\0\x08\0\0\0", b"MM\0+", b""]))
def test_any_bytes_have_some_number_of_frames(data: bytes, kind: str, start: bytes) -> None:
    try:
        assert 0 <= frames.count(start + data, kind, 10) <= 11
    except MemberError:
        assert kind == "TIFF"
