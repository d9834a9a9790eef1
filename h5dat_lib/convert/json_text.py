"""JSON text in; its documents out, one after the other, as values in which nothing is rounded, merged or left out.

A value is a tuple of (key, value) for an object, so that repeated keys are kept, a list, a `str`, `bytes` for an integer as written, a
`Number` or a `Constant`, a `bool` or None.
"""

from __future__ import annotations

import codecs
import contextlib
import gc
import itertools
import json
import re
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, NamedTuple, NoReturn

import numpy as np

from h5dat_lib.config import Limits
from h5dat_lib.errors import MemberError

STEP = 256 << 10
"""Bytes that are read at a time, but for the first read of four times as many: what the text holds besides one document.

An error's line is counted from the start of what is held, which would take most of the time with many faulty lines in much more.
"""

_Utf8 = codecs.getincrementaldecoder("utf-8")
_SPACE = re.compile(r"[ \t\r\n]*")
_ONLY_OPENS = re.compile(r"[\[{ \t\r]*")
_CONSTANT = re.compile(r'"(?:[^"\\]|\\.)*"|(NaN|-?Infinity)', re.DOTALL)
_INDENT = 1 << 16
"""Characters that an array and the white space before its first item may take to be looked at for what it holds."""
_MOST_SPACE = 1 << 20
"""White space around a document that belongs to it."""
_NEAR_END = 16
"""Characters before the end of what was read in which an error may be due to what was not: a pair of escaped surrogates has 12."""
_NO_STRUCTURE = bytes(set(range(256)) - set(b'[]{},"'))
_LEVELS = np.array([1 if byte in b"[{" else -1 if byte in b"]}" else 0 for byte in range(256)], np.int8)


class Number(str):
    """A number with a fraction or an exponent, as written."""

    __slots__ = ()


class Constant(str):
    """``NaN``, ``Infinity`` or ``-Infinity``, which are no JSON."""

    __slots__ = ()


def _refused(name: str) -> NoReturn:
    raise ValueError(name)


def _decoder(constant: Callable[[str], Any]) -> Callable[[str, int], tuple[Any, int]]:
    # Numbers stay text, so that none is rounded and a long one takes no quadratic time; a call of str.encode costs a third of a class's.
    return json.JSONDecoder(object_pairs_hook=tuple, parse_int=str.encode, parse_float=Number, parse_constant=constant).raw_decode


_DECODERS = {"keep": _decoder(Constant), "strict": _decoder(_refused)}


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """No garbage collection: it would look through all of a large document again and again, in four fifths of the time, for nothing."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def parsed(document: bytes) -> Any:
    """The value of a document that has been found to be one; white space may surround it."""
    text = document.decode()
    return _DECODERS["keep"](text, _space_end(text, 0))[0]


class Document(NamedTuple):
    """One document: its value, its text as UTF-8, and the line (from 1) or the item of an array (from 0) that it starts at."""

    value: Any
    data: bytes
    place: int


class Flaw(MemberError):
    """Text that is no JSON, or a document beyond a limit. ``at`` is the index of what was found, where it is known."""

    def __init__(self, reason: str, at: int | None = None) -> None:
        super().__init__(reason)
        self.at = at


def single_object(data: bytes, numbers: str) -> Document | None:
    """The document of bytes that are one object as UTF-8, as most small members are; None for all others, be they sound or not.

    `JsonText` gives the same, but takes 9 us to begin with, in which an object of 1 KB is parsed.
    """
    if not data.startswith(b"{"):
        return None
    try:
        text = data.decode()
        value, end = _DECODERS[numbers](text, 0)
    except (ValueError, RecursionError):
        return None
    return Document(value, data, 1) if _space_end(text, end) == len(text) else None


class Lost(NamedTuple):
    """What gave no document: the line that it starts at, why, and whether what is behind it was left unread."""

    line: int
    flaw: Flaw
    is_last: bool


class JsonText:
    """The documents of a UTF-8 stream, parsed one at a time.

    Holds one document, of at most ``limits.whole_bytes``, and a few times `STEP` bytes. A document that is longer than that is counted
    against the limits before anything is built of it.
    """

    def __init__(self, stream: BinaryIO, numbers: str, limits: Limits) -> None:
        self.space = ""
        """The white space before the current character, the first `_MOST_SPACE` of it."""
        self._stream = stream
        self._decode = _DECODERS[numbers]
        self._limits = limits
        # What is no UTF-8 becomes half surrogate pairs, which UTF-8 cannot hold: such a byte costs one document.
        self._utf8 = _Utf8("surrogateescape")
        self._ended = False
        self._text = ""
        self._at = 0
        self._counted = 0
        self._line = 1
        self._before = 0

    def token(self) -> str:
        """The next character that is no white space, which becomes the current one; '' at the end."""
        self.space = _SPACE.match(self._text, self._at)[0]  # type: ignore[index]
        self._at += len(self.space)
        while self._at == len(self._text) and self._more():
            self._at = _space_end(self._text, 0)
            self.space = (self.space + self._text[: self._at])[:_MOST_SPACE]
        return self._text[self._at : self._at + 1]

    def holds_objects(self) -> bool:
        """Whether the text is an array whose first item is an object; to be asked before anything else."""
        if self.token() != "[":
            return False
        while (second := _space_end(self._text, self._at + 1)) == len(self._text) < _INDENT and self._more():
            pass
        return self._text.startswith("{", second)

    def items(self) -> Iterator[Document]:
        """The items of a text that is an array. Raises Flaw."""
        self.token()
        self._at += 1
        for number in itertools.count():
            self.token()
            yield Document(*self._document(), number)
            mark = self.token()
            self._at += 1
            if mark == "]":
                break
            if mark != ",":
                raise self._flaw("Expecting ',' delimiter @", self._at - 1)
        if self.token():
            raise self._flaw("Extra data @", self._at)

    def documents(self) -> Iterator[Document | Lost]:
        """Documents with nothing but white space between them, or nothing at all, and what is wrong with the text.

        A line with a flaw gives no document, but for those more than `STEP` bytes before it. It costs no other line as long as each
        document was in one line; otherwise, as nobody can say where the next document starts, the flaw is the last that is given.
        """
        line_of_each, ended, held = True, 0, 0
        same_line: list[Document] = []
        while self.token():
            line = self._line_now()
            if line > ended or held > STEP:
                yield from same_line
                same_line, held = [], 0
            try:
                value, data = self._document()
            except Flaw as flaw:
                is_last = not (line_of_each and self._is_within_line(flaw.at))
                yield Lost(line, flaw, is_last)
                if is_last:
                    return
                self._skip_line()
                same_line, held = [], 0
                continue
            same_line.append(Document(value, data, line))
            held += len(data)
            ended = self._line_now()
            line_of_each = line_of_each and line == ended
        yield from same_line

    def _document(self) -> tuple[Any, bytes]:
        """The document at the current place, as value and UTF-8. Raises Flaw."""
        value, end = self._attempt() or self._long()
        start, self._at = self._at, end
        try:
            return value, self._text[start:end].encode()
        except UnicodeEncodeError as exc:
            self._at = start
            raise self._flaw("", start + exc.start) from exc

    def _long(self) -> tuple[Any, int]:
        """The value of a document that may go on behind what is held, and where it ends. Raises Flaw."""
        self._more()
        with _no_collection():
            while (found := self._attempt()) is None:
                self._close()
        return found

    def _attempt(self) -> tuple[Any, int] | None:
        """The value at the current place and where it ends; None when what is not read yet may change it. Raises Flaw."""
        try:
            value, end = self._decode(self._text, self._at)
        except json.JSONDecodeError as exc:
            if not self._ended and (exc.pos > len(self._text) - _NEAR_END or exc.msg.startswith("Unterminated")):
                return None
            raise self._flaw(f"{exc.msg} @", exc.pos) from exc
        except ValueError as exc:
            at = next((found.start() for found in _CONSTANT.finditer(self._text, self._at) if found[1]), self._at)
            raise self._flaw(f"found {exc} @, expected a number or null", at) from exc
        except RecursionError as exc:
            Border(self._limits).feed(self._text[self._at :].encode("utf-8", "surrogateescape"))
            raise Flaw("nested too deeply: found more levels than Python can follow") from exc
        certain = self._ended or end <= len(self._text) - _NEAR_END or type(value) in (tuple, list, str)
        return (value, end) if certain else None

    def _more(self) -> bool:
        """Reads on, and forgets what is before the current place; False at the end."""
        piece = self._read()
        if piece:
            self._append([piece])
        return bool(piece)

    def _close(self) -> None:
        """Reads on to the end of the document at the current place. Raises Flaw above the limits."""
        border, size, pieces = Border(self._limits), len(self._text) - self._at, [""]
        try:
            border.feed(self._text[self._at :].encode("utf-8", "surrogateescape"))
            while len(pieces) == 1 or (pieces[-1] and not border.closed):
                pieces.append(self._read())
                size += len(pieces[-1])
                if size > self._limits.whole_bytes + STEP:
                    raise _too_long(self._limits)
                border.feed(pieces[-1].encode("utf-8", "surrogateescape"))
        finally:
            self._append(pieces)

    def _read(self) -> str:
        text = ""
        while not text and not self._ended:
            data = self._stream.read(STEP if self._text else 4 * STEP)
            self._ended = not data
            text = self._utf8.decode(data, self._ended)
        return text

    def _append(self, pieces: list[str]) -> None:
        self._line_now()
        last = self._text.rfind("\n", 0, self._at)
        self._before = self._at - last - 1 + (self._before if last < 0 else 0)
        self._text = "".join([self._text[self._at :], *pieces])
        self._at = self._counted = 0

    def _line_now(self) -> int:
        self._line += self._text.count("\n", self._counted, self._at)
        self._counted = self._at
        return self._line

    def _flaw(self, what: str, at: int) -> Flaw:
        if "\udc80" <= self._text[at : at + 1] <= "\udcff":
            what = f"found byte 0x{ord(self._text[at]) - 0xDC00:02x} @, expected UTF-8"
        line = self._line_now() + self._text.count("\n", self._at, at)
        last = self._text.rfind("\n", 0, at)
        column = at - last + (self._before if last < 0 else 0)
        return Flaw(f"not JSON: {what.replace('@', f'at line {line}, column {column}')}", at)

    def _is_within_line(self, flaw: int | None) -> bool:
        """Whether what is wrong with the document at the current place is of its first line alone.

        It is when it is found there. When a line was cut off, it is found at the first character behind it, or where the next line, a
        document by itself, was taken for a part of it. A line of nothing but opening brackets belongs to the lines behind it.
        """
        end = self._text.find("\n", self._at)
        if end < 0 or (flaw is not None and flaw <= end):
            return True
        if flaw is None:
            return _ends_or_exceeds(self._text[self._at : end], self._limits)
        if _ONLY_OPENS.fullmatch(self._text, self._at, end):
            return False
        return flaw <= _space_end(self._text, end) or self._is_document(self._text[end : self._text.find("\n", end + 1)].strip())

    def _is_document(self, line: str) -> bool:
        try:
            value, end = self._decode(line, 0)
        except (ValueError, RecursionError):
            return False
        return end == len(line) and type(value) in (tuple, list)

    def _skip_line(self) -> None:
        while (end := self._text.find("\n", self._at)) < 0:
            self._at = len(self._text)
            if not self._more():
                return
        self._at = end


def _space_end(text: str, at: int) -> int:
    return _SPACE.match(text, at).end()  # type: ignore[union-attr]


def _ends_or_exceeds(line: str, limits: Limits) -> bool:
    border = Border(limits)
    try:
        border.feed(line.encode("utf-8", "surrogateescape"))
    except Flaw:
        return True
    return border.closed


def _too_long(limits: Limits) -> Flaw:
    return Flaw(f"too large: found a document of more than {limits.whole_bytes} bytes (limits.whole_bytes)")


class Border:
    """Where a document ends, and what is in it: counts brackets, commas and quotes, piece by piece.

    ``closed`` is True from the piece on that has the document's end.
    """

    def __init__(self, limits: Limits) -> None:
        self.closed = False
        self._limits = limits
        self._quotes = 0
        self._depth = 0
        self._values = 1
        self._rest = b""

    def feed(self, data: bytes) -> None:
        """Raises Flaw for a document with more levels or values than allowed."""
        for start in range(0, len(data), STEP):
            self._count(data[start : start + STEP])

    def _count(self, data: bytes) -> None:
        data = self._rest + data
        odd = (len(data) - len(data.rstrip(b"\\"))) % 2
        data, self._rest = data[: len(data) - odd], data[len(data) - odd :]
        if b"\\" in data:
            data = data.replace(b"\\\\", b"").replace(b'\\"', b"")
        structure = np.frombuffer(data.translate(None, _NO_STRUCTURE), np.uint8)
        if self.closed or not len(structure):
            return
        quotes = np.cumsum(structure == ord('"')) + self._quotes
        self._quotes = int(quotes[-1])
        outside = structure[quotes % 2 == 0]
        levels = np.cumsum(_LEVELS[outside], dtype=np.int64) + self._depth
        ends = np.flatnonzero(levels <= 0)
        if len(ends):
            self.closed = True
            outside, levels = outside[: ends[0]], levels[: ends[0]]
        if not len(levels):
            return
        self._depth = int(levels[-1])
        self._values += int(np.count_nonzero((outside == ord(",")) | (_LEVELS[outside] > 0)))
        if levels.max() > self._limits.json_depth:
            raise Flaw(f"nested too deeply: found more levels than {self._limits.json_depth} (limits.json_depth)")
        if self._values > self._limits.json_values:
            raise Flaw(f"too large: found more than {self._limits.json_values} values (limits.json_values)")


def check_limits(document: bytes, limits: Limits) -> None:
    """Raises Flaw for a document with more bytes, levels or values than allowed.

    A value follows an opening bracket or a comma, so counting bytes is enough for most documents: they have too few.
    """
    if len(document) > limits.whole_bytes:
        raise _too_long(limits)
    openings = document.count(b"[") + document.count(b"{")
    if openings > limits.json_depth or len(document) > limits.json_values:
        Border(limits).feed(document)
