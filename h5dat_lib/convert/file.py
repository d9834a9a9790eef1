"""Any file: a member's bytes in, one row of those bytes out."""

from __future__ import annotations

from collections.abc import Iterator

from h5dat_lib.archive.member import Content
from h5dat_lib.columns import Block, Bytes
from h5dat_lib.config import MediumOptions


def convert(content: Content, options: MediumOptions) -> Iterator[Block]:
    """One block of one row: ``data``, the member byte for byte. Raises MemberError above ``limits.whole_bytes``."""
    yield Block(1, {"data": Bytes([content.read()], "bytes")})
