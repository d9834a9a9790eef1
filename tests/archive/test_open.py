"""What an archive is, is told by its content first and its name second."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import tarfile
import zipfile
from pathlib import Path

import pytest

from h5dat_lib.archive import is_container, open_archive
from h5dat_lib.archive.stream import zstd
from h5dat_lib.config import Limits
from h5dat_lib.errors import InputError

LIMITS = Limits()


def zip_bytes() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a", b"x")
    return buffer.getvalue()


def tar_bytes(layout: int = tarfile.USTAR_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=layout) as archive:
        archive.addfile(tarfile.TarInfo("a"))
    return buffer.getvalue()


def v7_tar_bytes() -> bytes:
    header = bytearray(tar_bytes()[:512])
    header[257:] = bytes(255)
    header[148:156] = b"%06o\0 " % (256 + sum(header[:148]) + sum(header[156:]))
    return bytes(header) + bytes(1024)


@pytest.mark.parametrize(
    ("data", "kind", "streamed"),
    [
        (zip_bytes(), "zip", False),
        (b"MZ program" + zip_bytes(), "zip", False),
        (tar_bytes(), "tar", False),
        (tar_bytes(tarfile.GNU_FORMAT), "tar", False),
        (tar_bytes(tarfile.PAX_FORMAT), "tar", False),
        (v7_tar_bytes(), "tar", False),
        (gzip.compress(tar_bytes()), "tar.gz", True),
        (bz2.compress(tar_bytes()), "tar.bz2", True),
        (lzma.compress(tar_bytes()), "tar.xz", True),
        (zstd.compress(tar_bytes()), "tar.zst", True),
        (gzip.compress(v7_tar_bytes()), "tar.gz", True),
        (gzip.compress(b"a,b"), "gz", False),
        (bz2.compress(b"a,b"), "bz2", False),
        (bz2.compress(b""), "bz2", False),
        (lzma.compress(b"a,b"), "xz", False),
        (zstd.compress(b"a,b"), "zst", False),
        (b"a,b\n1,2\n", "file", False),
        (b"BZh9 is how this text starts", "file", False),
        (bytes(5000), "file", False),
    ],
)
@pytest.mark.parametrize("name", ["a", "a.jpg"])
def test_content_tells_the_kind(tmp_path: Path, data: bytes, kind: str, streamed: bool, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    archive = open_archive(path, LIMITS)
    assert (archive.kind, archive.streamed, archive.uri, archive.size) == (kind, streamed, str(path), len(data))
    assert open_archive(str(path), LIMITS).fingerprint() == archive.fingerprint()


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz", "a.TGZ", "a.gz", "a.xz"])
def test_a_name_that_promises_more_than_the_content_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"<html>404 not found</html>")
    with pytest.raises(InputError, match=f"{name}: found b'<html>404 not fo' at its start, expected a"):
        open_archive(tmp_path / name, LIMITS)


def test_a_tar_gz_that_holds_no_tar_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(b"no tar"))
    with pytest.raises(InputError, match=r"found b'no tar' at its start, expected a tar\.gz by its name"):
        open_archive(tmp_path / "a.tar.gz", LIMITS)


def test_a_tar_gz_cut_in_its_first_header_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(os.urandom(400) + tar_bytes())[:300])
    with pytest.raises(InputError, match="found the end of the gzip data"):
        open_archive(tmp_path / "a.tar.gz", LIMITS)


def test_a_tar_of_zeros_is_a_tar_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(bytes(10_240))
    assert open_archive(tmp_path / "a.tar", LIMITS).kind == "tar"


@pytest.mark.parametrize(("magic", "name"), [(b"7z\xbc\xaf\x27\x1c", "7z"), (b"Rar!\x1a\x07\x01\0", "rar")])
def test_other_containers_are_refused_by_name(tmp_path: Path, magic: bytes, name: str) -> None:
    (tmp_path / "a").write_bytes(magic + bytes(100))
    with pytest.raises(InputError, match=f"found a {name} archive, expected a zip"):
        open_archive(tmp_path / "a", LIMITS)


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.zip").touch()
    with pytest.raises(InputError, match="found an empty file"):
        open_archive(tmp_path / "a.zip", LIMITS)


def test_what_is_no_file_is_refused_without_waiting_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(InputError, match="found a fifo, expected a regular file"):
        open_archive(tmp_path / "fifo", LIMITS)
    with pytest.raises(InputError, match="found a device"):
        open_archive("/dev/null", LIMITS)
    with pytest.raises(InputError, match="found nothing there"):
        open_archive(tmp_path / "missing", LIMITS)


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (zip_bytes(), "zip"),
        (tar_bytes(), "tar"),
        (tar_bytes(tarfile.GNU_FORMAT), "tar"),
        (gzip.compress(b"x"), "gzip"),
        (bz2.compress(b"x"), "bzip2"),
        (lzma.compress(b"x"), "xz"),
        (zstd.compress(b"x"), "zstd"),
        (b"7z\xbc\xaf\x27\x1c", "7z"),
        (b"Rar!\x1a\x07\0", "rar"),
        (b"\xff\xd8\xff\xe0 JPEG", None),
        (b"", None),
        (b"PK, as in text", None),
    ],
)
def test_first_bytes_tell_a_container(data: bytes, name: str | None) -> None:
    assert is_container(data[:4096]) == name
