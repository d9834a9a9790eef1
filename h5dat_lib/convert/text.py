"""Plain text: a member's bytes in, one row of UTF-8 text out."""

from __future__ import annotations

from collections.abc import Iterator

from h5dat_lib.archive.member import Content
from h5dat_lib.columns import Block, Bytes, Scalars
from h5dat_lib.config import MediumOptions
from h5dat_lib.convert.encoding import detect, to_text


def convert(content: Content, options: MediumOptions) -> Iterator[Block]:
    """One block of one row: ``text``, UTF-8 without byte order mark, and ``encoding`` S16, the codec the member was read with.

    Raises MemberError when the bytes are no text.
    """
    data = content.read()
    codec = detect(data, options.text.encoding)
    text = to_text(data, codec).encode()
    yield Block(1, {"text": Bytes([text], "text"), "encoding": Scalars([codec.name.encode()[:16]], "|S16")})
