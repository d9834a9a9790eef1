"""What the converter tests share: a member held in memory."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from typing import BinaryIO

import pytest

from h5dat_lib.archive.member import Content, Member
from h5dat_lib.columns import Block, Draft, Fault
from h5dat_lib.config import Limits, MediumOptions
from h5dat_lib.convert import handler_for

Convert = Callable[..., list[Block | Fault]]


class MemoryReader:
    """A Reader of one member that is bytes."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.opened = 0

    def open(self, member: Member) -> BinaryIO:
        self.opened += 1
        return io.BytesIO(self.data)

    def read(self, member: Member, limit: int) -> bytes:
        return self.data[: limit + 1]

    def close(self) -> None: ...


def content_of(data: bytes, path: str, limits: Limits | None = None, streamed: bool = False) -> Content:
    return Content(MemoryReader(data), Member(path, -1 if streamed else len(data), len(data), 0), limits or Limits())


def converted(
    data: bytes, path: str, options: MediumOptions | None = None, limits: Limits | None = None, streamed: bool = False
) -> list[Block | Fault]:
    content = content_of(data, path, limits, streamed)
    handler = handler_for(content.head(), path)
    assert handler is not None
    return kept(handler.convert(content, options or MediumOptions()))


def kept(parts: Iterable[Block | Fault | Draft]) -> list[Block | Fault]:
    """What a converter gives, without what it has dropped."""
    found: list[Block | Fault] = []
    begun = 0
    for part in parts:
        if part is Draft.BEGUN:
            begun = len(found)
        elif part is Draft.DROPPED:
            del found[begun:]
        elif not isinstance(part, Draft):
            found.append(part)
    return found


@pytest.fixture
def convert() -> Convert:
    return converted
