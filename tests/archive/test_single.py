"""The standard library compresses, we read."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import tracemalloc
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from h5dat_lib.archive import open_archive, open_reader
from h5dat_lib.archive.member import Content
from h5dat_lib.archive.stream import zstd
from h5dat_lib.config import Limits
from h5dat_lib.errors import MemberError

LIMITS = Limits()
Members = Callable[..., list[tuple[str, bytes | str]]]
PACK: dict[str, Callable[[bytes], bytes]] = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "zst": zstd.compress}


@pytest.mark.parametrize("size", [0, 1, 511, 100_000, 3 << 20])
@pytest.mark.parametrize("kind", PACK)
def test_a_compressed_file_is_one_member_named_without_the_suffix(tmp_path: Path, members: Members, kind: str, size: int) -> None:
    data = os.urandom(size // 2) + bytes(size - size // 2)
    path = tmp_path / f"data.csv.{kind.upper()}"
    path.write_bytes(PACK[kind](data))
    archive = open_archive(path, LIMITS)
    assert (archive.kind, archive.streamed, archive.size) == (kind, False, path.stat().st_size)
    assert members(path) == [("data.csv", data)]
    assert [member.size for member in archive.members()] == [-1]


@pytest.mark.parametrize("between", [b"", bytes(512), bytes(700_000)])
@pytest.mark.parametrize("kind", PACK)
def test_pieces_that_follow_each_other_are_read_through(tmp_path: Path, members: Members, kind: str, between: bytes) -> None:
    parts = [b"one" * 1000, b"", b"two" * 300_000, b"three"]
    (tmp_path / f"a.{kind}").write_bytes(between.join(PACK[kind](part) for part in parts))
    assert members(tmp_path / f"a.{kind}") == [("a", b"".join(parts))]


@pytest.mark.parametrize("tail", [bytes(5), b"garbage", bytes(100) + b"garbage", b"\x1f"])
@pytest.mark.parametrize("kind", PACK)
def test_bytes_behind_the_end_are_left_alone(tmp_path: Path, members: Members, kind: str, tail: bytes) -> None:
    (tmp_path / f"a.{kind}").write_bytes(PACK[kind](b"data" * 999) + tail)
    assert members(tmp_path / f"a.{kind}") == [("a", b"data" * 999)]


@pytest.mark.parametrize("kind", PACK)
def test_a_cut_file_says_how_far_it_went(tmp_path: Path, members: Members, kind: str) -> None:
    packed = PACK[kind](os.urandom(1 << 20))
    (tmp_path / f"a.{kind}").write_bytes(packed[: len(packed) // 2])
    ((_, reason),) = members(tmp_path / f"a.{kind}")
    assert isinstance(reason, str)
    assert reason.startswith("damaged: found the end of the ")


def test_a_gzip_whose_checksum_differs_is_damaged(tmp_path: Path, members: Members) -> None:
    packed = bytearray(gzip.compress(b"data" * 999))
    packed[-6] ^= 1
    (tmp_path / "a.gz").write_bytes(packed)
    ((_, reason),) = members(tmp_path / "a.gz")
    assert isinstance(reason, str)
    assert reason.startswith("damaged: found invalid gzip data")


def test_zstandard_behind_a_skippable_frame_is_recognised(tmp_path: Path, members: Members) -> None:
    skippable = b"\x50\x2a\x4d\x18" + (4).to_bytes(4, "little") + b"size"
    (tmp_path / "a.zst").write_bytes(skippable + zstd.compress(b"data") + skippable + zstd.compress(b"more"))
    assert members(tmp_path / "a.zst") == [("a", b"datamore")]


def test_reads_no_more_than_one_byte_above_the_limit_in_bounded_memory(tmp_path: Path, members: Members) -> None:
    (tmp_path / "bomb.gz").write_bytes(gzip.compress(bytes(100 << 20)))
    (member,) = open_archive(tmp_path / "bomb.gz", LIMITS).members()
    reader = open_reader("gz", str(tmp_path / "bomb.gz"))
    tracemalloc.start()
    assert len(reader.read(member, 100_000)) == 100_001
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    reader.close()
    assert peak < 3 << 20
    ((_, reason),) = members(tmp_path / "bomb.gz", Limits(whole_bytes=1000))
    assert reason == "too large: found more than the 1000 bytes that may be read whole"


def test_any_other_file_is_its_own_member(tmp_path: Path, members: Members) -> None:
    (tmp_path / "table.csv").write_bytes(b"a,b\n1,2\n")
    archive = open_archive(tmp_path / "table.csv", LIMITS)
    assert (archive.kind, [member.size for member in archive.members()]) == ("file", [8])
    assert members(tmp_path / "table.csv") == [("table.csv", b"a,b\n1,2\n")]


def test_a_file_that_has_become_shorter_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(b"x" * 100)
    (member,) = open_archive(path, LIMITS).members()
    os.truncate(path, 40)
    reader = open_reader("file", str(path))
    with pytest.raises(Exception, match="found 40 of 100 bytes"):
        reader.read(member, 1000)
    reader.close()


def test_the_fingerprint_tells_a_changed_file(tmp_path: Path) -> None:
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(b"1", mtime=0))
    os.utime(path, (1, 1))
    first = open_archive(path, LIMITS).fingerprint()
    assert open_archive(path, LIMITS).fingerprint() == first
    path.write_bytes(gzip.compress(b"2", mtime=0))
    os.utime(path, (1, 1))
    assert open_archive(path, LIMITS).fingerprint() != first


def test_what_comes_out_is_bounded_by_what_goes_in_while_it_is_decompressed(tmp_path: Path) -> None:
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(bytes(65 << 20)))
    (member,) = open_archive(path, LIMITS).members()
    with closing(open_reader("gz", str(path), Limits(ratio=100))) as reader, pytest.raises(MemberError, match="decompression bomb: found"):
        reader.read(member, 1 << 30)
    with closing(open_reader("gz", str(path), Limits(ratio=10_000))) as reader:
        assert len(reader.read(member, 1 << 30)) == 65 << 20


def test_the_bytes_of_an_archive_bound_those_of_a_member(tmp_path: Path) -> None:
    (tmp_path / "a.gz").write_bytes(gzip.compress(bytes(2000)))
    limits = Limits(archive_bytes=1000)
    (member,) = open_archive(tmp_path / "a.gz", limits).members()
    with closing(open_reader("gz", str(tmp_path / "a.gz"), limits)) as reader:
        with pytest.raises(MemberError, match="more than the 1000 bytes"):
            Content(reader, member, limits).read()
        with pytest.raises(MemberError, match="more than 1000 bytes"):
            Content(reader, member, limits).open().read()


def test_little_that_is_very_even_is_no_bomb(tmp_path: Path, members: Members) -> None:
    (tmp_path / "a.gz").write_bytes(gzip.compress(bytes(5 << 20)))
    assert members(tmp_path / "a.gz", Limits(ratio=2)) == [("a", bytes(5 << 20))]
