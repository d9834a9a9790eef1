"""A member as a stream that can seek: the same bytes as `io.BytesIO` gives, checked, with few opens and little memory."""

from __future__ import annotations

import gzip
import io
import random
import tarfile
import tracemalloc
import zipfile
from contextlib import closing
from pathlib import Path
from typing import BinaryIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from h5dat_lib.archive import open_archive, open_reader
from h5dat_lib.archive.member import WHOLE_BYTES, Content, Member
from h5dat_lib.archive.seekable import seekable
from h5dat_lib.config import Limits
from h5dat_lib.errors import MemberError

DATA = random.Random(3).randbytes(5 << 20)
KINDS = ("zip, deflated", "zip, stored", "tar", "folder", "gz", "file")


class ForwardReader:
    """A Reader of one member whose streams do not seek; it counts how often it is opened."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.opened = 0

    def open(self, member: Member) -> BinaryIO:
        self.opened += 1
        return _Forward(self.data)  # type: ignore[return-value]

    def read(self, member: Member, limit: int) -> bytes:
        return self.data[: limit + 1]

    def close(self) -> None: ...


class _Forward(io.RawIOBase):
    def __init__(self, data: bytes) -> None:
        self._inner = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        return self._inner.readinto(buffer)


def forward(data: bytes, size: int | None = None, crc32: int | None = None) -> tuple[Content, ForwardReader]:
    reader = ForwardReader(data)
    return Content(reader, Member("a.bin", len(data) if size is None else size, len(data), 0, crc32=crc32), Limits()), reader


def archive_of(kind: str, folder: Path) -> Path:
    folder = folder / kind.replace(", ", "-")
    folder.mkdir()
    (folder / "a.bin").write_bytes(DATA)
    path = folder / "archive"
    if kind.startswith("zip"):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if "deflated" in kind else zipfile.ZIP_STORED) as archive:
            archive.write(folder / "a.bin", "a.bin")
    elif kind == "tar":
        with tarfile.open(path, "w") as tar:
            tar.add(folder / "a.bin", "a.bin")
    elif kind == "gz":
        path.write_bytes(gzip.compress(DATA, 1))
    return {"folder": folder, "file": folder / "a.bin"}.get(kind, path)


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("archives")
    return {kind: archive_of(kind, folder) for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_every_container_gives_the_bytes_at_any_place(kind: str, archives: dict[str, Path]) -> None:
    archive = open_archive(archives[kind], Limits())
    [member] = archive.members()
    with closing(open_reader(archive.kind, archive.uri)) as reader:
        content = Content(reader, member, Limits())
        with seekable(content) as stream:
            assert content.size == len(DATA) and len(content.sha256) == 64
            for at in (len(DATA) - 10, 3 << 20, 0, (2 << 20) + 7, len(DATA) + 5, 1 << 20):
                assert stream.seek(at) == at
                assert stream.read(1000) == DATA[at : at + 1000]
            assert stream.seek(-3, io.SEEK_END) == len(DATA) - 3
            assert stream.seek(-3, io.SEEK_CUR) == len(DATA) - 6 and stream.read() == DATA[-6:]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(DATA) + 100), st.integers(0, 3 << 20)), max_size=8))
def test_any_order_of_reads_gives_what_memory_gives(reads: list[tuple[int, int]]) -> None:
    content, _ = forward(DATA)
    with seekable(content) as stream:
        for at, size in reads:
            stream.seek(at)
            assert stream.read(size) == DATA[at : at + size]


def test_a_small_member_is_read_once_and_kept() -> None:
    content, reader = forward(DATA[:WHOLE_BYTES])
    with seekable(content) as stream:
        stream.seek(100)
        assert stream.read() == DATA[100:WHOLE_BYTES]
    assert reader.opened == 0


def test_a_pass_needs_two_opens_and_probing_the_ends_none() -> None:
    content, reader = forward(DATA)
    with seekable(content) as stream:
        for at in (0, len(DATA) - 20, 300, len(DATA) - 200_000, 0):
            stream.seek(at)
            stream.read(100)
        assert stream.read() == DATA[100:]
    assert reader.opened == 2, "one to check, one to read"


def test_a_jump_back_between_the_ends_opens_once_more() -> None:
    content, reader = forward(DATA)
    with seekable(content) as stream:
        for at in (3 << 20, 2 << 20):
            stream.seek(at)
            assert stream.read(10) == DATA[at : at + 10]
    assert reader.opened == 3


def test_the_size_may_be_unknown_before() -> None:
    content, _ = forward(DATA, size=-1)
    with seekable(content) as stream:
        assert stream.seek(0, io.SEEK_END) == len(DATA) == content.size


@pytest.mark.parametrize(("size", "crc32"), [(len(DATA) + 1, None), (len(DATA), 1)])
def test_damage_is_found_before_anything_is_read(size: int, crc32: int | None) -> None:
    content, _ = forward(DATA, size, crc32)
    with pytest.raises(MemberError, match="damaged: found"):
        seekable(content)


def test_a_source_that_has_become_shorter_is_damage() -> None:
    content, reader = forward(DATA)
    with seekable(content) as stream:
        reader.data = DATA[: 3 << 20]
        stream.seek(3 << 20)
        stream.read(10)
        stream.seek(2 << 20)
        with pytest.raises(MemberError, match="found the end after 3145728 bytes, expected 5242880"):
            stream.read(2 << 20)


def test_memory_does_not_grow_with_the_member() -> None:
    content, _ = forward(bytes(64 << 20))
    tracemalloc.start()
    with seekable(content) as stream:
        for at in (60 << 20, 30 << 20, 0):
            stream.seek(at)
            stream.read(1 << 20)
        _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 << 20
