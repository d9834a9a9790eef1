"""A spool holds members whole or not at all."""

from __future__ import annotations

import io
import os
import zlib
from contextlib import closing
from pathlib import Path

import pytest

from h5dat_lib.archive import open_reader
from h5dat_lib.archive.member import Content, Member
from h5dat_lib.archive.spool import SpoolWriter
from h5dat_lib.config import Limits
from h5dat_lib.errors import MemberError, OutputError

LIMITS = Limits()


def member(path: str, size: int = -1) -> Member:
    return Member(path, size, max(size, 0), 0)


class Breaking(io.RawIOBase):
    """Gives two MiB, then fails as a damaged archive does."""

    def __init__(self) -> None:
        self.left = 2

    def read(self, size: int = -1) -> bytes:
        if not self.left:
            raise MemberError("archive ends in the middle of this member", "read")
        self.left -= 1
        return bytes(1 << 20)


@pytest.mark.parametrize("size", [0, 1, 3000, (1 << 20) + 1, 3 << 20])
def test_what_was_added_can_be_read_at_once(tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    with SpoolWriter(tmp_path / "spool", LIMITS) as spool, closing(open_reader("tar", str(tmp_path / "spool"))) as reader:
        first = spool.add(member("a", 3), io.BytesIO(b"abc"))
        second = spool.add(member("b"), io.BytesIO(data))
        assert (first.offset, second.offset, second.size, second.crc32) == (0, 3, size, zlib.crc32(data))
        assert Content(reader, first, LIMITS).read() == b"abc"
        assert Content(reader, second, LIMITS).read() == data
        with reader.open(second) as stream:
            assert io.BufferedReader(stream).read() == data  # type: ignore[type-var]


@pytest.mark.parametrize(
    ("data", "size", "limits", "reason"),
    [
        (Breaking(), -1, LIMITS, "archive ends in the middle"),
        (io.BytesIO(b"x" * 5000), -1, Limits(member_bytes=4999), "too large: found more than 4999 bytes"),
        (io.BytesIO(b"x" * 5000), 6000, LIMITS, "damaged: found 5000 bytes, expected 6000"),
    ],
)
def test_a_member_that_fails_leaves_nothing_behind(tmp_path: Path, data: io.BytesIO, size: int, limits: Limits, reason: str) -> None:
    path = tmp_path / "spool"
    with SpoolWriter(path, limits) as spool:
        spool.add(member("a"), io.BytesIO(b"abc"))
        with pytest.raises(MemberError, match=reason):
            spool.add(member("b", size), data)
        assert path.stat().st_size == 3
        assert spool.add(member("c"), io.BytesIO(b"def")).offset == 3
    assert path.read_bytes() == b"abcdef"


def test_a_spool_that_cannot_be_written_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written"):
        SpoolWriter(tmp_path / "missing" / "spool", LIMITS)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a full disk")
def test_a_full_disk_is_an_output_error() -> None:
    with SpoolWriter(Path("/dev/full"), LIMITS) as spool, pytest.raises(OutputError, match="No space left"):
        spool.add(member("a"), io.BytesIO(b"abc"))
