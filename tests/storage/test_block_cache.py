"""Blocks on disk: what they spare, that nothing wrong is read from them, and that they take no more room than they may."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path
from random import Random

import pytest

import h5dat_lib
from h5dat_lib.config import S3Options
from h5dat_lib.errors import ConfigError
from h5dat_lib.storage import BlockFile, aws
from h5dat_lib.storage.block_cache import BlockCache
from tests.conftest import Bucket, config, make_zip, picture

MIB = 1 << 20
DATA = Random(5).randbytes(5 * MIB + 7)


def read(uri: str, folder: Path, most_bytes: int = 1 << 30) -> tuple[bytes, int]:
    """The whole object through blocks on disk, and the bytes that came from the store."""
    before = aws.requests["bytes in"]
    buffer = bytearray(len(DATA) + 1)
    with BlockFile(uri, folder, most_bytes) as file:
        file.seek(0)
        size = file.readinto(memoryview(buffer))
    return bytes(buffer[:size]), aws.requests["bytes in"] - before


def blocks_of(folder: Path) -> Path:
    (found,) = folder.glob("*/blocks")
    return found


def test_what_was_fetched_once_is_not_fetched_again_but_for_the_first_block_which_tells_the_version(bucket: Bucket, tmp_path: Path) -> None:
    uri = bucket.put("a", DATA)
    assert read(uri, tmp_path) == (DATA, len(DATA))
    assert read(uri, tmp_path) == (DATA, MIB)
    assert oct(blocks_of(tmp_path).parent.stat().st_mode & 0o777) == "0o700"


def test_another_version_of_the_object_has_blocks_of_its_own(bucket: Bucket, tmp_path: Path) -> None:
    uri = bucket.put("a", DATA)
    read(uri, tmp_path)
    other = DATA[::-1]
    bucket.put("a", other)
    assert read(uri, tmp_path) == (other, len(DATA))


@pytest.mark.parametrize("damage", ["a byte", "its end", "its checksum"])
def test_a_block_that_is_not_as_it_was_put_there_is_fetched_again(bucket: Bucket, tmp_path: Path, damage: str) -> None:
    uri = bucket.put("a", DATA)
    read(uri, tmp_path)
    blocks = blocks_of(tmp_path)
    if damage == "its end":
        os.truncate(blocks, 5 * MIB + 3)
    with (blocks if damage == "a byte" else blocks.with_name("sums")).open("r+b") as file:
        file.seek(3 * MIB + 5 if damage == "a byte" else 8 * 3)
        file.write(b"?")
    found, received = read(uri, tmp_path)
    assert found == DATA and MIB < received <= MIB + MIB + (7 if damage == "its end" else 0)
    assert read(uri, tmp_path) == (DATA, MIB)


def test_no_more_than_may_be_is_kept_and_what_was_opened_longest_ago_makes_room(tmp_path: Path) -> None:
    def taken() -> int:
        return sum(path.stat().st_blocks * 512 for path in tmp_path.glob("*/blocks"))

    for number in range(5):
        cache = BlockCache(tmp_path, str(number), MIB, 4 * MIB)
        for block in range(3):
            cache.put(block, DATA[:MIB])
        assert taken() <= 4 * MIB
        cache.close()
    cache = BlockCache(tmp_path, "4", MIB, 4 * MIB)
    assert cache.get(0) == DATA[:MIB], "the one that was opened last is still there"
    cache.close()


def test_without_room_all_is_fetched_each_time(bucket: Bucket, tmp_path: Path) -> None:
    uri = bucket.put("a", DATA)
    for _ in range(2):
        assert read(uri, tmp_path, 0) == (DATA, len(DATA))


def test_a_folder_that_cannot_be_written_is_told(bucket: Bucket, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"cannot hold blocks of s3://.*s3\.blocks_dir"):
        BlockFile(bucket.put("a", DATA), tmp_path / "file" / "below", MIB)


def _pixels(arguments: tuple[str, S3Options]) -> tuple[int, int]:
    with h5dat_lib.open(arguments[0], s3=arguments[1]) as file:
        return int(file["images"].pixels[0].sum()), file.requests


def test_processes_share_what_one_of_them_has_fetched(bucket: Bucket, tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "a.zip", {f"{n}.png": picture(400, 300, n) for n in range(20)})
    h5dat_lib.ingest(archive, tmp_path / "a.h5", config())
    uri = bucket.put("a.h5", (tmp_path / "a.h5").read_bytes())
    options = S3Options(blocks_dir=tmp_path / "blocks")
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        first, requests = pool.apply(_pixels, ((uri, options),))
    assert requests > 1
    assert _pixels((uri, options)) == (first, 1)
