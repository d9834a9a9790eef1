"""JSON and JSON Lines: a member's bytes in; each document as UTF-8, and its scalars as key/value pairs, out.

A pair's key is the dotted path to the scalar: array indices are numbers, a dot or a backslash within a key has a backslash before
it, and a document that is a scalar itself has the key ''. Its value is text: strings as they are (half a surrogate pair as the
escape it was), numbers exactly as written, ``true`` or ``false``, and nothing for null. Empty containers give no pair.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from typing import Any, NoReturn

import numpy as np

from h5dat_lib.archive.member import Content
from h5dat_lib.columns import Block, Bytes, Column, Fault, Pairs, PairType, Scalars
from h5dat_lib.config import Limits, MediumOptions
from h5dat_lib.convert.encoding import Codec, Utf8, detect
from h5dat_lib.errors import MemberError

BLOCK_ROWS = 1000
"""Most lines of a JSON Lines member in one block."""
BLOCK_BYTES = 8 << 20
"""Bytes of documents and keys after which a block of lines ends; one line may exceed it."""
KEY_CHARACTERS = 256 << 20
"""Most characters of all keys of one document: a long key over many values is repeated for each of them."""

_SPACE = b" \t\r\n"
_NO_STRUCTURE = bytes(set(range(256)) - set(b'[]{},"'))
_LEVELS = np.array([1 if byte in b"[{" else -1 if byte in b"]}" else 0 for byte in range(256)], np.int8)
_STEP = 1 << 20


class _Integer(str):
    """An integer as written."""


class _Number(str):
    """A number with a fraction or an exponent, as written."""


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


# Objects become tuples of (key, value), so that they differ from arrays and repeated keys are kept; numbers stay text,
# so that none is rounded and a long one takes no quadratic time.
_DECODER = json.JSONDecoder(object_pairs_hook=tuple, parse_int=_Integer, parse_float=_Number, parse_constant=_no_constant)
_CONSTANT = re.compile(r'"(?:[^"\\]|\\.)*"|(NaN|-?Infinity)', re.DOTALL)


class _PairList:
    """Pairs of the rows of one block, collected scalar by scalar."""

    def __init__(self) -> None:
        self.rows: list[int] = []
        self.keys: list[str] = []
        self.values: list[bytes] = []
        self.types: list[int] = []
        self._characters = 0

    def add(self, row: int, document: Any) -> int:
        """Adds every scalar of a document as `_DECODER` gives it, or none; gives the characters of their keys.

        Raises RecursionError, and MemberError above `KEY_CHARACTERS`.
        """
        before, self._characters = len(self.keys), 0
        try:
            if isinstance(document, (tuple, list)):
                self._walk("", document)
            else:
                self._scalar("", document)
        except (RecursionError, MemberError):
            del self.keys[before:], self.values[before:], self.types[before:]
            raise
        self.rows.extend([row] * (len(self.keys) - before))
        return self._characters

    def _walk(self, prefix: str, container: Any) -> None:
        self._characters += (len(prefix) + 1) * len(container)
        if self._characters > KEY_CHARACTERS:
            raise MemberError(f"too large: found keys of more than {KEY_CHARACTERS} characters in all, with the path to each value")
        items = container if type(container) is tuple else enumerate(container)
        for key, value in items:
            path = prefix + (_step(key) if type(key) is str else str(key))
            kind = type(value)
            if kind is str:
                # The most frequent case, without a call.
                self.keys.append(path)
                self.values.append(value.encode("utf-8", "backslashreplace"))
                self.types.append(PairType.STRING)
            elif kind is tuple or kind is list:
                self._walk(path + ".", value)
            else:
                self._scalar(path, value)

    def _scalar(self, path: str, value: Any) -> None:
        kind, text = _scalar_text(value)
        self.keys.append(path)
        self.values.append(text)
        self.types.append(kind)

    def pairs(self) -> Pairs:
        return Pairs(self.rows, self.keys, self.values, self.types)


def convert(content: Content, options: MediumOptions) -> Iterator[Block]:
    """One block of one row: ``document``, the JSON text as UTF-8 without byte order mark, and its pairs when asked for.

    UTF-16 and UTF-32 are recognised. Raises MemberError that names line and column when the member is no JSON, and above
    ``limits.json_depth`` and ``limits.json_values``.
    """
    data = content.read()
    text = _decoded(data)
    document = data if data.isascii() else text.encode()
    _check_limits(document, content.limits)
    pairs = _PairList()
    _parse(text, pairs if options.document.pairs else None, 0)
    yield Block(1, {"document": Bytes([document], "text")}, pairs.pairs() if options.document.pairs else None)


def convert_lines(content: Content, options: MediumOptions) -> Iterator[Block | Fault]:
    """Blocks of rows, one a line that is not blank: ``document`` (UTF-8) and ``line`` uint64, counted from 1; and their pairs.

    Holds one block: at most `BLOCK_ROWS` lines, `BLOCK_BYTES` bytes and one line. A line that is no JSON, or exceeds the limits of a
    document, becomes a Fault.
    Raises MemberError when a line is longer than ``limits.whole_bytes``, or when there are only blank lines.
    """
    content.check()  # damage found at the end of the stream would come after rows that were given already
    rows = _Lines(options.document.pairs, content.limits)
    found = False
    with _utf8_lines(content) as stream:
        for number, line in _lines(stream, content.limits.whole_bytes):
            found = True
            fault = rows.add(number, line)
            if fault is not None:
                yield fault
            if rows.full:
                yield rows.block()
                rows = _Lines(options.document.pairs, content.limits)
    if rows.documents:
        yield rows.block()
    if not found:
        raise MemberError("empty: found no documents, expected one a line")


class _Lines:
    """The rows of one block of lines."""

    def __init__(self, with_pairs: bool, limits: Limits) -> None:
        self.documents: list[bytes] = []
        self._limits = limits
        self._numbers: list[int] = []
        self._size = 0
        self._pairs = _PairList() if with_pairs else None

    @property
    def full(self) -> bool:
        return len(self.documents) >= BLOCK_ROWS or self._size >= BLOCK_BYTES

    def add(self, number: int, line: bytes) -> Fault | None:
        try:
            _check_limits(line, self._limits)
            size = _parse(_utf8(line, Codec("utf-8")), self._pairs, len(self.documents))
        except MemberError as exc:
            return Fault(f"line {number}: {exc.reason.replace('line 1, column', 'column')}")
        self.documents.append(line)
        self._numbers.append(number)
        self._size += len(line) + size
        return None

    def block(self) -> Block:
        columns: dict[str, Column] = {"document": Bytes(self.documents, "text"), "line": Scalars(self._numbers, "<u8")}
        return Block(len(self.documents), columns, self._pairs.pairs() if self._pairs else None)


def _utf8_lines(content: Content) -> io.BufferedIOBase:
    """The member as UTF-8. Without a byte order mark as it is: a line that is not UTF-8 shall cost only itself."""
    codec = detect(content.head()[:4], "utf-8")
    stream = content.open()
    if codec.name != "utf-8":
        return io.BufferedReader(Utf8(stream, codec), 1 << 20)
    stream.read(codec.bom)
    return stream  # type: ignore[return-value]


def _lines(stream: io.BufferedIOBase, limit: int) -> Iterator[tuple[int, bytes]]:
    """Lines that are not blank, without the white space around them, and their numbers from 1."""
    number = 0
    while line := stream.readline(limit + 1):
        number += 1
        if len(line) > limit:
            raise MemberError(f"too large: found a line of more than {limit} bytes at line {number}")
        document = line.strip(_SPACE)
        if document:
            yield number, document


def _decoded(data: bytes) -> str:
    """The text of a document; a byte order mark or, without one, the zero bytes of UTF-16 and UTF-32 tell its codec."""
    codec = detect(data[:4], json.detect_encoding(data))
    return _utf8(data, codec) if codec.name == "utf-8" else _other(data, codec)


def _utf8(data: bytes, codec: Codec) -> str:
    try:
        return data[codec.bom :].decode()
    except UnicodeDecodeError as exc:
        at = exc.start + codec.bom
        where = f"line {data.count(10, 0, at) + 1}, column {at - data.rfind(10, 0, at)}"
        raise MemberError(f"not JSON: found byte 0x{data[at]:02x} at {where}, expected UTF-8") from exc


def _other(data: bytes, codec: Codec) -> str:
    try:
        return data[codec.bom :].decode(codec.name)
    except UnicodeDecodeError as exc:
        raise MemberError(f"not JSON: found bytes at {exc.start + codec.bom} that are not {codec.name}") from exc


def _parse(text: str, pairs: _PairList | None, row: int) -> int:
    """Checks a document and adds its pairs, all or none; gives the characters of their keys. Raises MemberError."""
    try:
        document = _DECODER.decode(text)
        return pairs.add(row, document) if pairs is not None else 0
    except json.JSONDecodeError as exc:
        raise MemberError(f"not JSON: {exc.msg} at line {exc.lineno}, column {exc.colno}") from exc
    except ValueError as exc:
        raise MemberError(f"not JSON: found {exc} at {_constant_place(text)}, expected a number or null") from exc
    except RecursionError as exc:
        raise MemberError("nested too deeply: found more levels than Python can follow") from exc


def _check_limits(document: bytes, limits: Limits) -> None:
    """Raises MemberError for a document with more levels or values than allowed, before anything is built of it.

    A value follows an opening bracket or a comma, so counting these bytes is enough for most documents: they have too few.
    """
    openings = document.count(b"[") + document.count(b"{")
    if openings > limits.json_depth or openings + document.count(b",") >= limits.json_values:
        _scan(document, limits)


def _scan(document: bytes, limits: Limits) -> None:
    """`_check_limits` without the brackets and commas in strings; holds little more than those of the document."""
    if b"\\" in document:
        document = document.replace(b"\\\\", b"").replace(b'\\"', b"")
    structure = np.frombuffer(document.translate(None, _NO_STRUCTURE), np.uint8)
    quotes, depth, values = 0, 0, 1
    for start in range(0, len(structure), _STEP):
        piece = structure[start : start + _STEP]
        before = np.cumsum(piece == ord('"')) + quotes
        outside = piece[before % 2 == 0]
        quotes = int(before[-1])
        levels = np.cumsum(_LEVELS[outside], dtype=np.int64) + depth
        depth = int(levels[-1]) if len(levels) else depth
        values += int(np.count_nonzero((outside == ord(",")) | (_LEVELS[outside] > 0)))
        if levels.max(initial=0) > limits.json_depth:
            raise MemberError(f"nested too deeply: found more levels than {limits.json_depth} (limits.json_depth)")
        if values > limits.json_values:
            raise MemberError(f"too large: found more than {limits.json_values} values (limits.json_values)")


def _constant_place(text: str) -> str:
    """Line and column of the first NaN or Infinity; the decoder does not tell."""
    at = next((match.start() for match in _CONSTANT.finditer(text) if match[1]), 0)
    return f"line {text.count(chr(10), 0, at) + 1}, column {at - text.rfind(chr(10), 0, at)}"


def _step(key: str) -> str:
    """A key as one step of a path."""
    if "\\" in key or "." in key:
        key = key.replace("\\", "\\\\").replace(".", "\\.")
    return key if key.isascii() else key.encode("utf-8", "backslashreplace").decode()


def _scalar_text(value: Any) -> tuple[int, bytes]:
    if value is None:
        return PairType.NULL, b""
    if isinstance(value, bool):
        return PairType.BOOLEAN, b"true" if value else b"false"
    kind = PairType.INTEGER if type(value) is _Integer else PairType.NUMBER if type(value) is _Number else PairType.STRING
    return kind, value.encode("utf-8", "backslashreplace")
