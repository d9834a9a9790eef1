"""What the archive tests share: every member of an archive, read in both ways a reader has."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from h5dat_lib.archive import open_archive, open_reader
from h5dat_lib.archive.member import Archive, Content, Member, Reader
from h5dat_lib.archive.stream import read_whole
from h5dat_lib.config import Limits
from h5dat_lib.errors import InputError, MemberError

Found = list[tuple[str, bytes | str]]
LIMITS = Limits()


def _bytes_or_reason(reader: Reader, member: Member, limits: Limits) -> bytes | str:
    if member.reject is not None:
        return member.reject
    try:
        data = Content(reader, member, limits).read()
        with reader.open(member) as stream:
            assert read_whole(stream, limits.member_bytes) == data, "read and open differ"
    except MemberError as exc:
        return exc.reason if exc.stage == "read" else f"wrong stage: {exc.stage}"
    return data


def _listed(archive: Archive, limits: Limits) -> Iterator[tuple[str, bytes | str]]:
    with closing(open_reader(archive.kind, archive.uri)) as reader:
        for member in archive.members():
            yield member.path, _bytes_or_reason(reader, member, limits)


def _streamed(archive: Archive, limits: Limits) -> Iterator[tuple[str, bytes | str]]:
    for member, stream in archive.stream():
        try:
            yield member.path, member.reject or read_whole(stream, limits.member_bytes)
        except MemberError as exc:
            yield member.path, exc.reason


@pytest.fixture(scope="session")
def members() -> Callable[..., Found]:
    """Path and bytes of each member of an archive; the reason instead of the bytes where it cannot be read."""

    def found(path: Path, limits: Limits = LIMITS) -> Found:
        archive = open_archive(path, limits)
        return list((_streamed if archive.streamed else _listed)(archive, limits))

    return found


@pytest.fixture(scope="session")
def until_damage() -> Callable[[Path], Found]:
    """What `members` finds in an archive that is damaged, and last of all the error that says so."""

    def found(path: Path) -> Found:
        archive = open_archive(path, LIMITS)
        listed: Found = []
        try:
            for entry in (_streamed if archive.streamed else _listed)(archive, LIMITS):
                listed.append(entry)
        except InputError as exc:
            return [*listed, ("", str(exc))]
        pytest.fail(f"{path}: no damage was found")

    return found
