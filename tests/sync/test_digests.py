from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest

from h5dat_lib.storage import LocalSource
from h5dat_lib.sync.digests import NOTHING, SPAN, Digests, digests_of


class Counted(LocalSource):
    """A file whose reads are counted, by span."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self.read: list[int] = []

    def read_at(self, offset: int, size: int) -> bytes:
        self.read.append(offset // SPAN)
        return super().read_at(offset, size)


def written(path: Path, data: bytes) -> Counted:
    path.write_bytes(data)
    return Counted(path)


def noise(size: int) -> bytes:
    return np.random.default_rng(size).bytes(size)


@pytest.mark.parametrize("size", [0, 1, SPAN - 1, SPAN, 3 * SPAN + 7])
def test_the_crc_of_spans_is_that_of_their_bytes(tmp_path: Path, size: int) -> None:
    data = noise(size)
    digests = digests_of(written(tmp_path / "a", data))
    assert digests.crc_of(0, size) == zlib.crc32(data)
    assert all(digests.crc_of(at, size - at) == zlib.crc32(data[at:]) for at in range(0, size, SPAN))


def test_only_what_may_have_changed_is_read_again(tmp_path: Path) -> None:
    data = bytearray(noise(6 * SPAN + 10))
    before = digests_of(written(tmp_path / "a", bytes(data)))
    data[2 * SPAN + 5] ^= 1
    data += noise(SPAN)
    source = written(tmp_path / "a", bytes(data))
    after = digests_of(source, before, {2})
    assert source.read == [2, 6, 7]
    assert after == digests_of(source)
    assert [number for number, same in enumerate(after.same(before)) if not same] == [2, 6, 7]


@pytest.mark.parametrize("size", [0, 3 * SPAN, 3 * SPAN - 10, SPAN + 1])
def test_a_file_that_was_cut_has_the_digests_of_what_is_left(tmp_path: Path, size: int) -> None:
    data = noise(5 * SPAN)
    before = digests_of(written(tmp_path / "a", data))
    source = written(tmp_path / "a", data[:size])
    assert digests_of(source, before, set()) == digests_of(source)


def test_the_name_tells_files_apart_also_by_their_ends(tmp_path: Path) -> None:
    names = {digests_of(written(tmp_path / "a", bytes(size))).name for size in (0, 1, 2, SPAN, SPAN + 1)}
    assert len(names) == 5


def test_digests_survive_json(tmp_path: Path) -> None:
    digests = digests_of(written(tmp_path / "a", noise(2 * SPAN + 1)))
    assert Digests.model_validate_json(digests.model_dump_json()) == digests
    assert Digests.model_validate_json(NOTHING.model_dump_json()) == NOTHING
