r"""CSV with comments, backslash escapes or spaces around quotes in -> CSV as RFC 4180 has it out.

Escapes are those of MySQL's SELECT ... INTO OUTFILE and ``mysql --batch`` (MySQL 8 manual, LOAD DATA, "FIELDS ESCAPED BY") and of
PostgreSQL's COPY (manual, "Text Format"), which agree: ``\N`` for no value, a letter for a control character, a backslash before
what else would end something.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from h5dat_lib.errors import MemberError

_CONTROLS = {b"0": b"\0", b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v", b"Z": b"\x1a"}
_LEGITIMATE = "".join(letter.decode() for letter in _CONTROLS) + "N\\\"'\r\n"
"""What may stand behind a backslash that escapes."""


@dataclass(frozen=True, slots=True)
class Quirks:
    """In what a table departs from RFC 4180: backslash escapes, spaces around quoted fields, lines that start with ``comment``."""

    escapes: bool = False
    spaces: bool = False
    comment: str = ""

    def __bool__(self) -> bool:
        return bool(self.escapes or self.spaces or self.comment)


def find_quirks(text: str, delimiter: str, quote: str, comment: str) -> Quirks:
    """The quirks of a table by its start. Spaces that are wrongly found cost time only, escapes have to be proven."""
    d, q = re.escape(delimiter), re.escape(quote)
    spaces = re.search(rf"(?:^|{d}) +{q}(?!{q})|{q} +(?:{d}|[\r\n])", text, re.MULTILINE)
    return Quirks(_has_escapes(text, delimiter, quote), spaces is not None, comment)


def _has_escapes(text: str, delimiter: str, quote: str) -> bool:
    r"""Whether a field is ``\N``, or a quoted one has ``\"`` where without escapes it would end, and no backslash escapes nothing."""
    if "\\" not in text:
        return False
    d, q = re.escape(delimiter), re.escape(quote)
    null = rf"(?:^|{d})\\N(?=$|[\r\n]|{d})"
    within = rf"(?:^|{d}){q}(?:[^{q}\\]++|{q}{q}|\\.)*?\\{q}(?!{q}|{d}|[\r\n])"
    odd = rf"\\(?![{re.escape(_LEGITIMATE)}{d}{q}]|\Z)"
    # Pairs of backslashes go first, so that the second of them is not taken for one that escapes.
    return bool(re.search(f"{null}|{within}", text, re.MULTILINE | re.DOTALL)) and not re.search(odd, text.replace("\\\\", ""))


class Rewriter:
    """Rewrites a stream, in pieces: what is not yet a whole record is held back, up to ``most`` bytes."""

    def __init__(self, quirks: Quirks, delimiter: str, quote: str, most: int) -> None:
        self._quirks = quirks
        self._comment = quirks.comment.encode()
        self._quote = quote.encode()
        self._most = most
        d, q = re.escape(delimiter.encode()), re.escape(self._quote)
        space = rb" *+" if quirks.spaces else rb""
        escape, no_escape = (rb"|\\.", rb"\\\\") if quirks.escapes else (rb"", rb"")
        inner = rb"(?:[^%b%b]++|%b%b%b)*+" % (q, no_escape, q, q, escape)
        bare = rb"(?!%b%b)(?:[^%b\r\n%b]++%b)*+" % (space, q, d, no_escape, escape)
        field = rb"(?:%b%b%b%b[^%b\r\n]*+|%b)" % (space, q, inner, q, d, bare)
        self._record = re.compile(rb"%b(?:%b%b)*+(?:\r\n|\r(?!\Z)|\n)" % (field, d, field), re.DOTALL)
        self._field = re.compile(
            rb"(?:(?<=%b)|\A)(?:%b%b(%b)%b%b(?=[%b\r\n]|\Z)|(%b))" % (d, space, q, inner, q, space, d, bare), re.DOTALL
        )
        self._escape = re.compile(rb"\\(.)|%b%b" % (q, q), re.DOTALL)

    def rewrite(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """Raises MemberError when a record is longer than ``most`` bytes."""
        held = b""
        for chunk in chunks:
            held += chunk
            records, end = self._records(held)
            yield b"".join(records)
            held = held[end:]
            if len(held) > self._most:
                raise MemberError(f"too large: found no end of a record in {self._most} bytes, expected quotes that are closed")
        yield self._rewritten(held)

    def _records(self, data: bytes) -> tuple[list[bytes], int]:
        records, end = [], 0
        while found := self._record.match(data, end):
            records.append(self._rewritten(found[0]))
            end = found.end()
        return records, end

    def _rewritten(self, record: bytes) -> bytes:
        if self._comment and record.startswith(self._comment):
            return b""
        if self._quirks.spaces or (self._quirks.escapes and b"\\" in record):
            return self._field.sub(self._plain_field, record)
        return record

    def _plain_field(self, field: re.Match[bytes]) -> bytes:
        inner, bare = field.groups()
        if bare is not None and not (self._quirks.escapes and b"\\" in bare):
            return bytes(bare)
        if bare == rb"\N":
            return b""
        text = bytes(inner if bare is None else bare)
        if self._quirks.escapes:
            text = self._escape.sub(self._unescaped, text).replace(self._quote, self._quote * 2)
        return self._quote + text + self._quote

    def _unescaped(self, escape: re.Match[bytes]) -> bytes:
        letter = escape[1]
        return self._quote if letter is None else _CONTROLS.get(letter, letter)
