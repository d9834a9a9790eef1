"""JSON and JSON Lines: a member's bytes in; each document as UTF-8, its scalars as key/value pairs, and typed columns out.

What is a row: a document; of an array of objects, each item. An array is one of objects when its first item is an object; any other
array, and an empty one, is one document.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import Any

from h5dat_lib.archive.member import Content
from h5dat_lib.columns import Block, Bytes, Column, Fault, Pairs, Scalars, Untyped
from h5dat_lib.config import DocumentOptions, Limits, MediumOptions
from h5dat_lib.convert.encoding import Utf8, detect
from h5dat_lib.convert.json_columns import NO_FIELDS, common_keys, fields
from h5dat_lib.convert.json_pairs import PairList, check_keys
from h5dat_lib.convert.json_text import Document, JsonText, Lost, check_limits, single_object
from h5dat_lib.errors import MemberError

__all__ = ["common_keys", "convert", "convert_lines"]

BLOCK_ROWS = 1000
"""Most documents in one block."""
BLOCK_BYTES = 8 << 20
"""Bytes of documents after which a block ends; one document may exceed it."""


def convert(content: Content, options: MediumOptions) -> Iterator[Block | Fault]:
    """Blocks of rows: ``document``, JSON text as UTF-8 without byte order mark, typed columns and pairs, as the options say.

    A member that is one document is one row. Of an array of objects each item is one, with its index from 0 as ``item`` (uint64). In
    several objects, such as JSON Lines, each is one, as of `convert_lines`; the first two must be without fault.
    A block without rows has further pairs of the row before it.

    UTF-16 and UTF-32 are recognised. Raises MemberError that names line and column when the member is no JSON, and above the limits
    of a document, before any row is given; an item beyond the limits is a Fault. Holds two blocks of at most `BLOCK_ROWS` documents
    and `BLOCK_BYTES`, and one document.
    """
    if content.small and (document := single_object(content.read(), options.document.numbers)):
        yield from _blocks([document], "", options.document, content.limits)
        return
    text = _text(content, options)
    if text.holds_objects():
        yield from _items(text, content, options)
        return
    before, documents = text.space, text.documents()
    first = [_sound(found) for found in islice(documents, 2)]
    if not first:
        raise MemberError("not JSON: found nothing at line 1, column 1, expected a document")
    if len(first) == 1:
        whole = first[0]._replace(data=before.encode() + first[0].data + text.space.encode())
        yield from _blocks([whole], "", options.document, content.limits)
        return
    if not all(type(document.value) is tuple for document in first):
        raise MemberError(f"not JSON: found a second document at line {first[1].place}, expected one, or several objects")
    yield from _blocks(chain(first, documents), "line", options.document, content.limits)


def _sound(found: Document | Lost) -> Document:
    if isinstance(found, Lost):
        raise found.flaw
    return found


def convert_lines(content: Content, options: MediumOptions) -> Iterator[Block | Fault]:
    """Blocks of rows, one a document: as of `convert`, with ``line`` (uint64, from 1), the line that it starts at.

    Documents may stand one a line, several on a line, or go over lines. A line that is no JSON, or a document beyond the limits, becomes
    a Fault and costs nothing else. Where documents go over lines, nobody can say where the one behind a flaw starts: it is the last
    Fault, and says so. Raises MemberError when there are no documents at all. Holds a block and a document.
    """
    documents = _text(content, options).documents()
    first = next(documents, None)
    if first is None:
        raise MemberError("empty: found no documents, expected one a line")
    yield from _blocks(chain([first], documents), "line", options.document, content.limits)


def _text(content: Content, options: MediumOptions) -> JsonText:
    content.check()  # damage found at the end of the stream would come after rows that were given already
    head = content.head()[:4]
    codec = detect(head, json.detect_encoding(head))
    stream = content.open()
    if codec.name == "utf-8":
        stream.read(codec.bom)
    else:
        stream = io.BufferedReader(Utf8(stream, codec), 1 << 20)
    return JsonText(stream, options.document.numbers, content.limits)


def _items(text: JsonText, content: Content, options: MediumOptions) -> Iterator[Block | Fault]:
    blocks = _blocks(text.items(), "item", options.document, content.limits)
    head = list(islice(blocks, 2))
    if len(head) > 1:  # a shorter array has been read to its end before any of its rows is given; so must this one
        for _ in _text(content, options).items():
            pass
    yield from chain(head, blocks)


def _blocks(documents: Iterable[Document | Lost], place: str, options: DocumentOptions, limits: Limits) -> Iterator[Block | Fault]:
    """``place`` is ``line`` or ``item``; when it is empty, what is wrong with the one document raises MemberError."""
    rows = _Rows(place, options, limits)
    for found in documents:
        if isinstance(found, Lost):
            yield _fault("line", found.line, found.flaw, "; nothing behind it was read" if found.is_last else "")
            continue
        try:
            yield from rows.add(found)
        except MemberError as exc:
            if not place:
                raise
            yield _fault(place, found.place, exc)
        if rows.full:
            yield from rows.take()
    yield from rows.take()


def _fault(place: str, number: int, error: MemberError, more: str = "") -> Fault:
    return Fault(f"{place} {number}: {error.reason.replace(f'line {number}, column', 'column')}{more}")


class _Rows:
    """The rows of one block of documents."""

    def __init__(self, place: str, options: DocumentOptions, limits: Limits) -> None:
        self._place = place
        self._limits = limits
        self._fields = fields(tuple(options.columns.items())) if isinstance(options.columns, dict) else NO_FIELDS
        self._pairs = PairList() if options.pairs else None
        self._start()

    def _start(self) -> None:
        self._documents: list[bytes] = []
        self._numbers: list[int] = []
        self._values: list[list[Any]] = []
        self._size = 0

    @property
    def full(self) -> bool:
        return len(self._documents) >= BLOCK_ROWS or self._size >= BLOCK_BYTES

    def add(self, document: Document) -> Iterator[Block]:
        """Adds a document; to be exhausted. Gives the block when it has too many pairs. Raises MemberError, and adds nothing, beyond a
        limit."""
        value, data, number = document
        check_limits(data, self._limits)
        if self._pairs is not None:
            check_keys(value, len(data))
        self._documents.append(data)
        self._numbers.append(number)
        self._values.append(self._fields.values(value))
        self._size += len(data)
        return map(self._block, self._pairs.add(len(self._documents) - 1, value)) if self._pairs is not None else iter(())

    def take(self) -> Iterator[Block]:
        """The rest of the block, when there is one."""
        pairs = self._pairs.take() if self._pairs is not None else None
        if self._documents or (pairs and pairs.keys):
            yield self._block(pairs)

    def _block(self, pairs: Pairs | None) -> Block:
        columns: dict[str, Column] = {}
        if self._documents:
            columns = {"document": Bytes(self._documents, "text")}
            if self._place:
                columns[self._place] = Scalars(self._numbers, "<u8")
        untyped = Untyped(self._values, self._fields.columns) if self._fields.attributes and self._documents else None
        block = Block(len(self._documents), columns, pairs, self._fields.attributes, untyped=untyped)
        self._start()
        return block
