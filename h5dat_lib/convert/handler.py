"""What all converters share: a handler is one row of the table of formats."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from h5dat_lib.archive.member import Content
from h5dat_lib.columns import Block, Draft, Fault
from h5dat_lib.config import Medium, MediumOptions

Convert = Callable[[Content, MediumOptions], Iterator[Block | Fault | Draft]]
"""Member and options -> blocks of rows, in order. Raises MemberError when the member cannot be converted."""


Signature = tuple[tuple[int, bytes], ...]
"""(offset, bytes) pairs, of which a member carries all or is of another format."""


def carries(head: bytes, signatures: tuple[Signature, ...]) -> bool:
    """Whether the first bytes of a member carry one of the signatures."""
    return any(all(head.startswith(mark, at) for at, mark in signature) for signature in signatures)


@dataclass(frozen=True)
class Handler:
    """One format: how it is recognised, what converts it, and what that costs.

    ``signatures`` are (offset, bytes) groups: a head that has all of one group is of this format. Formats without one
    (JSON, CSV, text) are recognised by extension. ``version`` rises whenever the same member would give other rows.
    ``member_seconds`` and ``megabyte_seconds`` estimate the work on one core, for cutting batches only.
    """

    name: str
    version: int
    medium: Medium
    extensions: tuple[str, ...]
    signatures: tuple[Signature, ...]
    convert: Convert
    member_seconds: float
    megabyte_seconds: float

    def recognises(self, head: bytes) -> bool:
        """Whether the first bytes of a member carry one of the format's signatures."""
        return carries(head, self.signatures)
