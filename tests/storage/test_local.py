"""Local files by ranges and as streams."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from h5dat_lib.errors import InputError
from h5dat_lib.storage import LocalSource, is_folder, open_source


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "file").write_bytes(bytes(range(256)) * 10)
    return tmp_path / "file"


@pytest.mark.parametrize(
    ("offset", "size", "found"), [(0, 4, 4), (2550, 100, 10), (2560, 5, 0), (5000, 5, 0), (1 << 63, 5, 0), (-1, 5, 0), (10, 0, 0)]
)
def test_reads_ranges_short_only_at_the_end(path: Path, offset: int, size: int, found: int) -> None:
    source = open_source(str(path))
    assert source.read_at(offset, size) == (path.read_bytes()[offset : offset + size] if found else b"")
    assert len(source.read_at(offset, size)) == found
    source.close()


def test_a_range_that_the_system_gives_in_parts_is_read_whole(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pread = LocalSource._pread
    monkeypatch.setattr(LocalSource, "_pread", lambda self, offset, size: pread(self, offset, min(size, 100)))
    source = open_source(str(path))
    assert source.read_at(5, 1000) == path.read_bytes()[5:1005]
    assert source.read_at(0, 9999) == path.read_bytes()
    source.close()


def test_streams_have_positions_of_their_own_and_can_seek(path: Path) -> None:
    source = open_source(str(path))
    first, second = source.stream(), source.stream(256, 300)
    assert (first.read(3), second.read(3), first.read(2)) == (b"\0\1\2", b"\0\1\2", b"\3\4")
    assert second.seek(-4, io.SEEK_END) == 296
    assert (second.read(), second.read(), second.tell()) == (bytes([40, 41, 42, 43]), b"", 300)
    second.close()
    assert source.read_at(0, 1) == b"\0"
    source.close()
    source.close()


def test_the_fingerprint_changes_with_size_and_time(path: Path) -> None:
    os.utime(path, ns=(5, 5))
    source = open_source(str(path))
    assert (source.size, source.fingerprint_parts) == (2560, ("2560", "5"))
    source.close()


def test_what_cannot_be_opened_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="missing: found nothing there"):
        open_source(str(tmp_path / "missing"))
    with pytest.raises(InputError, match="found a folder, expected a regular file"):
        open_source(str(tmp_path))
    with pytest.raises(InputError, match="cannot be opened"):
        open_source(str(tmp_path / "nul\0"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read all")
def test_a_file_without_permission_is_an_input_error(path: Path) -> None:
    path.chmod(0)
    with pytest.raises(InputError, match="cannot be opened: Permission denied"):
        open_source(str(path))


def test_tells_folders(tmp_path: Path, path: Path) -> None:
    assert is_folder(str(tmp_path))
    assert not is_folder(str(path))
    assert not is_folder(str(tmp_path / "missing"))


def test_a_prefix_or_a_bucket_in_s3_is_a_folder_without_asking() -> None:
    assert [is_folder(uri) for uri in ("s3://b", "s3://b/", "s3://b/a/", "s3://b/a", "s3://b/a/b")] == [True, True, True, False, False]
