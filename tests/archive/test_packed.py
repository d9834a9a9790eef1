"""The standard library compresses a file and puts it into an archive, we read the file."""

from __future__ import annotations

import bz2
import gzip
import lzma
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

import h5dat_lib
from h5dat_lib.archive.packed import unpacked_path
from h5dat_lib.archive.stream import zstd
from tests.conftest import config, make_tar, make_zip, picture

PACK: dict[str, Callable[[bytes], bytes]] = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "zst": zstd.compress}
CSV = b"name,price\nsoap,3\n"


@pytest.mark.parametrize("suffix", PACK)
@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_a_compressed_table_in_an_archive_is_a_table(tmp_path: Path, make: Callable[..., Path], suffix: str) -> None:
    packed = PACK[suffix](CSV)
    report = h5dat_lib.ingest(make(tmp_path / "a", {f"b.csv.{suffix}": packed}), tmp_path / "out.h5", config())
    assert (report.members, report.rejects) == (1, 0)
    with h5dat_lib.open(tmp_path / "out.h5") as file:
        assert (file["tables"]["name"][0], file["tables"]["price"][0]) == ("soap", 3)
        origin = file["tables"].origin(0)
    assert (origin.member, origin.size, origin.crc32) == (f"b.csv.{suffix}", len(packed), zlib.crc32(packed))


def test_content_decides_behind_a_compression_too(tmp_path: Path) -> None:
    h5dat_lib.ingest(make_zip(tmp_path / "a.zip", {"picture.gz": gzip.compress(picture())}), tmp_path / "out.h5", config())
    with h5dat_lib.open(tmp_path / "out.h5") as file:
        assert file["images"].format[0] == "PNG"


def test_an_archive_behind_a_compression_is_not_opened(tmp_path: Path) -> None:
    inner = make_tar(tmp_path / "inner.tar.gz", {"a.csv": CSV}).read_bytes()
    report = h5dat_lib.ingest(make_zip(tmp_path / "a.zip", {"b.tar.gz": inner, "c.csv": CSV}), tmp_path / "out.h5", config())
    assert report.rejects == 1
    with h5dat_lib.open(tmp_path / "out.h5") as file:
        assert [(reject.member, reject.reason.partition(":")[0]) for reject in file.rejects()] == [("b.tar.gz", "nested archive")]


@pytest.mark.parametrize("damage", [lambda data: data[:-9], lambda data: data[:20] + bytes(4) + data[24:]])
def test_a_damaged_compression_is_a_reject(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    data = damage(gzip.compress(CSV * 50))
    h5dat_lib.ingest(make_zip(tmp_path / "a.zip", {"b.csv.gz": data, "c.csv": CSV}), tmp_path / "out.h5", config())
    with h5dat_lib.open(tmp_path / "out.h5") as file:
        assert [reject.member for reject in file.rejects()] == ["b.csv.gz"]


def test_a_bomb_behind_a_compression_is_a_reject(tmp_path: Path) -> None:
    bomb = gzip.compress(b"a,b\n" * (40 << 20), 9)
    h5dat_lib.ingest(make_zip(tmp_path / "a.zip", {"b.csv.gz": bomb, "c.csv": CSV}), tmp_path / "out.h5", config())
    with h5dat_lib.open(tmp_path / "out.h5") as file:
        assert [reject.reason.partition(":")[0] for reject in file.rejects()] == ["decompression bomb"]


@pytest.mark.parametrize(("path", "expected"), [("a/b.csv.gz", "a/b.csv"), ("b.GZ", "b"), ("b.csv", "b.csv"), (".gz", ".gz")])
def test_a_path_loses_what_a_compression_adds(path: str, expected: str) -> None:
    assert unpacked_path(path) == expected
