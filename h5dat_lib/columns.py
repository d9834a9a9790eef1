"""What a column is: the values a converter gives, and the names and sizes of the layouts they take in HDF5.

A converter gives `Block`s of rows; staging packs and compresses their columns; committing writes them; reading opens them.
docs/format.md describes the layouts byte by byte.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal
from urllib.parse import unquote

from numpy.typing import NDArray

CHUNK_BYTES = 256 << 10
"""Most bytes of one chunk before compression: deflated pictures then leave 3 % of a 1 MiB page unused, larger chunks 14 % to 20 %."""
TEXT_CHUNK_BYTES = 64 << 10
"""Bytes of a chunk of text: reading one short string inflates no more."""
SCALAR_CHUNK_BYTES = 64 << 10
"""Bytes of a chunk of numbers."""
ARRAY_CHUNK_BYTES = 64 << 10
"""Bytes of a chunk of arrays that are no pictures, such as sound: a short one takes a chunk of its own."""
STRING_BYTES = 256
"""Longest string, in UTF-8 bytes, that a fixed-length string column holds; longer ones make it a text column."""

Array = NDArray[Any]
BytesLayout = Literal["text", "bytes", "encoded"]
FRAMES = "frames"
"""The table below a class of videos that holds their frames."""
MOST_CATEGORIES = 1 << 16
"""Distinct values of a column of categories; with more it becomes one of strings."""


@dataclass(frozen=True)
class Scalars:
    """Numbers, booleans, dates or short byte strings, one a row: (rows,) of ``dtype`` (a numpy dtype string).

    ``missing`` (rows,) bool marks rows without a value; a float column uses NaN instead. Dates are numpy's, such as ``<M8[D]``, and
    ``form`` says how they were written: what separates date and time, ``T`` or a space, and what follows, such as ``Z``.
    """

    values: Sequence[Any] | Array
    dtype: str
    missing: Array | None = None
    form: str = ""


@dataclass(frozen=True)
class Strings:
    """UTF-8 strings, one a row: all bytes one after the other, and (rows,) lengths in bytes.

    Stored with a fixed length while all are at most `STRING_BYTES` long and hold no NUL, as text otherwise.
    """

    data: bytes
    lengths: Array
    missing: Array | None = None


@dataclass(frozen=True)
class Categories:
    """Strings of which few are distinct, one a row; None where there is none. Stored as numbers and the names they stand for.

    Names are at most `STRING_BYTES` long in UTF-8 and hold no NUL; otherwise the column becomes one of strings.
    """

    values: Sequence[str | None]


@dataclass(frozen=True)
class Bytes:
    """Bytes of any length, one value a row. ``layout`` is ``text`` for UTF-8, ``bytes`` for any, ``encoded`` for a picture's file."""

    values: Sequence[bytes]
    layout: BytesLayout


@dataclass(frozen=True)
class Pieces:
    """One array that is too large for memory: arrays of ``dtype`` that lie one after the other along their first axis, in ``parts``.

    ``tail`` is the shape of all axes but the first. It is taken before the other columns of its block, whose values may be lists that
    are filled in while ``parts`` runs. When ``parts`` raises, nothing of the block is added.
    """

    dtype: str
    tail: tuple[int, ...]
    parts: Iterator[Array]


@dataclass(frozen=True)
class Arrays:
    """Arrays of any shape and dtype, one a row, all of one number of axes. Pictures, (height, width, channels), are stored dense
    while all agree and ragged otherwise; what is not ``pictures`` is always ragged.
    """

    values: Sequence[Array | Pieces]
    pictures: bool = True


@dataclass(frozen=True)
class References:
    """Row numbers of ``table``, one a row: counted from the table's first row of the same batch, absolute in the file.

    In ``lineage/archives`` and ``lineage/runs`` 0 is the archive and the run that the batch is of. A converter, which does not know
    its class, names the class's own table ``.`` and a table below it ``./frames``, and counts from the first row of its member.
    """

    values: Sequence[int] | Array
    table: str
    dtype: str = "<u8"


Column = Scalars | Strings | Categories | Bytes | Arrays | References


class PairType:
    """The type of a pair's value, as stored in the ``type`` column of a pairs table (uint8)."""

    STRING, INTEGER, NUMBER, BOOLEAN, NULL, CONSTANT = range(6)
    NAMES = ("string", "integer", "number", "boolean", "null", "constant")


@dataclass(frozen=True)
class Pairs:
    """Key/value pairs of a block: four sequences of one length. ``rows`` count from the block's first row; -1 is the row before."""

    rows: Sequence[int]
    keys: Sequence[str]
    values: Sequence[bytes]
    types: Sequence[int]


@dataclass(frozen=True)
class Fault:
    """A part of a member, such as one CSV record, that could not be converted while the rest could."""

    reason: str


class Draft(Enum):
    """What a converter says of the blocks and faults of its member, when it cannot know yet whether they hold.

    Those behind ``BEGUN``, before which there are none, are as good as any others once they are ``KEPT``, and never were when they are
    ``DROPPED`` or the conversion fails. All are of the class's own table, without pairs.
    """

    BEGUN = "begun"
    KEPT = "kept"
    DROPPED = "dropped"


@dataclass(frozen=True)
class Untyped:
    """Values of further columns, one sequence a row, whose types are decided once many rows are there: a block of one row of many
    columns then costs no more than a row of a large block. ``columns`` makes the columns of all those rows; it may leave some out.
    """

    rows: Sequence[Sequence[Any]]
    columns: Callable[[Sequence[Sequence[Any]]], Mapping[str, Column]]


@dataclass(frozen=True)
class Block:
    """Rows that a converter gives: columns of one length by name, and the key/value pairs of those rows."""

    rows: int
    columns: Mapping[str, Column]
    pairs: Pairs | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    """Attributes of the class that hold for all its rows, such as how encoded pictures are to be decoded."""
    table: str = ""
    """The table below the class's own that the rows are of, such as ``frames``; the class's own when empty."""
    untyped: Untyped | None = None
    """Further columns, of the same rows."""


def link_name(column: str) -> str:
    """The HDF5 link name of a data column: what HDF5 or this format reserves is percent-encoded.

    A slash, a percent sign, control characters, the name "." and a leading underscore, which marks a row's own bookkeeping.
    """
    escaped = re.sub(r"[%/\x00-\x1f]", lambda found: f"%{ord(found[0]):02X}", column)
    if escaped[:1] in ("_", ".", ""):
        return f"%{ord(escaped[0]):02X}{escaped[1:]}" if escaped else "%"
    return escaped


def column_name(link: str) -> str:
    """The name of the column behind a link: the inverse of `link_name`."""
    return "" if link == "%" else unquote(link)
