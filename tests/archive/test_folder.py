"""A folder's files in order, and nothing that is no file."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from dataclasses import astuple
from pathlib import Path

import pytest

from h5dat_lib.archive import open_archive, open_reader
from h5dat_lib.archive.member import Member
from h5dat_lib.config import Limits
from h5dat_lib.errors import InputError, MemberError

LIMITS = Limits()
Members = Callable[..., list[tuple[str, bytes | str]]]


def fill(folder: Path, contents: dict[str, bytes]) -> Path:
    for name, data in contents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def test_lists_files_depth_first_with_names_sorted(tmp_path: Path, members: Members) -> None:
    contents = {"a/2": b"2", "b": b"3", "a/1/z": b"1", "c/d/e": b"", "a-b": b"0"}
    fill(tmp_path, contents)
    (tmp_path / "empty").mkdir()
    assert members(tmp_path) == [(name, contents[name]) for name in ["a/1/z", "a/2", "a-b", "b", "c/d/e"]]


def test_knows_its_size_once_it_has_been_listed(tmp_path: Path) -> None:
    archive = open_archive(fill(tmp_path, {"a": b"12", "b/c": b"345"}), LIMITS)
    assert [(member.path, member.size) for member in archive.members()] == [("a", 2), ("b/c", 3)]
    assert (archive.kind, archive.size) == ("folder", 5)


def test_rejects_links_fifos_and_sockets(tmp_path: Path, members: Members) -> None:
    fill(tmp_path, {"file": b"x", "folder/f": b"y"})
    (tmp_path / "to_file").symlink_to("file")
    (tmp_path / "to_folder").symlink_to("folder")
    (tmp_path / "to_nothing").symlink_to("nothing")
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(tmp_path / "s"))
        expected = [("fifo", "fifo"), ("file", b"x"), ("folder/f", b"y"), ("s", "socket")]
        assert members(tmp_path) == expected + [(name, "link") for name in ("to_file", "to_folder", "to_nothing")]


@pytest.mark.skipif(os.uname().sysname == "Darwin", reason="file names are UTF-8 there")
def test_a_name_that_is_not_utf8_is_shown_as_escapes_and_opens_after_a_pass_through_json(tmp_path: Path, members: Members) -> None:
    (Path(os.fsdecode(tmp_path)) / os.fsdecode(b"b\xe4.txt")).write_bytes(b"bytes")
    (tmp_path / "b\\xe4.txt").write_bytes(b"backslash")
    assert sorted(members(tmp_path)) == [("b\\xe4.txt", b"backslash"), ("b\\xe4.txt", b"bytes")]
    reader = open_reader("folder", str(tmp_path))
    kept = [Member(*json.loads(json.dumps(astuple(member)))) for member in open_archive(tmp_path, LIMITS).members()]
    assert sorted(reader.read(member, 100) for member in kept) == [b"backslash", b"bytes"]


def test_a_file_that_cannot_be_read_is_found_out_when_it_is(tmp_path: Path) -> None:
    archive = open_archive(fill(tmp_path, {"a": b"x", "b": b"y"}), LIMITS)
    first, second = archive.members()
    (tmp_path / "a").unlink()
    (tmp_path / "b").unlink()
    (tmp_path / "b").symlink_to("/etc/passwd")
    reader = open_reader("folder", str(tmp_path))
    for member in (first, second):
        with pytest.raises(MemberError, match=str(tmp_path)) as caught:
            reader.read(member, 100)
        assert caught.value.stage == "read"


def test_a_folder_within_that_cannot_be_listed_is_a_reject(tmp_path: Path, members: Members, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, {"a/b": b"x", "c": b"y"})
    listdir = os.listdir

    def refusing(path: str) -> list[str]:
        if path.endswith("/a"):
            raise PermissionError(13, "Permission denied")
        return listdir(path)

    monkeypatch.setattr(os, "listdir", refusing)
    assert members(tmp_path) == [("a", "cannot be listed: Permission denied"), ("c", b"y")]


def test_the_folder_itself_must_be_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refusing(path: str) -> list[str]:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "listdir", refusing)
    with pytest.raises(InputError, match=f"{tmp_path}: cannot be listed: Permission denied"):
        open_archive(tmp_path, LIMITS)


def test_folders_may_nest_deeper_than_python_recurses(tmp_path: Path, members: Members) -> None:
    path = "/".join("d" * 1500)
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(os.open("f", os.O_CREAT | os.O_WRONLY, dir_fd=here))
    os.close(here)
    found = members(tmp_path)
    # removed here, level by level: pytest's own removal recurses
    (tmp_path / path / "f").unlink()
    for depth in range(1500, 0, -1):
        os.rmdir(f"{tmp_path}{'/d' * depth}")
    assert found == [(f"{path}/f", b"")]


@pytest.mark.parametrize("change", ["content", "name", "new"])
def test_the_fingerprint_changes_with_any_file(tmp_path: Path, change: str) -> None:
    archive = open_archive(fill(tmp_path, {"a/b": b"x", "c": b"y"}), LIMITS)
    first = archive.fingerprint()
    assert archive.fingerprint() == first
    match change:
        case "content":
            (tmp_path / "c").write_bytes(b"longer")
        case "name":
            (tmp_path / "c").rename(tmp_path / "d")
        case "new":
            (tmp_path / "new").touch()
    assert archive.fingerprint() != first
