"""Documents in; typed columns of the scalars that most of them have out.

A column is named by the dotted path to its scalar, as a pair's key is; one that is named as a column of every class of documents, and
one that starts with ``$.``, has ``$.`` before it. Of a key that comes twice in an object the last one counts.
"""

from __future__ import annotations

import functools
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, Literal

import numpy as np

from h5dat_lib.columns import STRING_BYTES, Array, Categories, Column, Scalars, Strings
from h5dat_lib.convert.json_pairs import scalar_texts, step, steps
from h5dat_lib.convert.json_text import Constant, Number, parsed

Kind = Literal["auto", "category", "text"]

OWN = ("document", "line", "item")
"""Columns of every class of documents."""
MOST_COLUMNS = 256
"""Columns that a class of documents is given unasked."""
_ENOUGH = 8
"""Documents from which on strings that repeat are taken for categories."""
_EXACT_DIGITS = 15
"""Decimal digits that any double keeps (DBL_DIG of IEEE 754 binary64), and so no more characters of a number without an exponent."""
_EXACT_INTEGER = 1 << 53
"""Doubles hold every integer up to here."""
_INTEGER_CHARACTERS = 20
"""Of the longest 64-bit integer, with its sign."""


_STEP = re.compile(r"(?:^|\.)((?:[^.\\]|\\.)*)", re.DOTALL)
_ESCAPED = re.compile(r"\\(?:u([0-9a-f]{4})|(.))", re.DOTALL)


def common_keys(documents: Iterable[bytes]) -> dict[str, Kind]:
    """The paths of the scalars, outside of arrays, that at least half of the documents have: at most `MOST_COLUMNS`, in their order.

    Strings that are all found twice on average become categories. What is longer than `STRING_BYTES` somewhere is left out.
    """
    found: dict[str, list[bytes]] = {}
    strings: Counter[str] = Counter()
    count = 0
    for document in documents:
        count += 1
        for path, value in dict(_scalars("", "", parsed(document))).items():
            found.setdefault(path, []).extend(scalar_texts([value]))
            strings[path] += type(value) is str
    common = [path for path, texts in found.items() if 2 * len(texts) >= count and max(map(len, texts)) <= STRING_BYTES]
    return {path: _kind(found[path], strings[path]) for path in common[:MOST_COLUMNS]}


def _kind(texts: Sequence[bytes], strings: int) -> Kind:
    repeats = len(texts) >= _ENOUGH and strings == len(texts) and 2 * len(set(texts)) <= len(texts)
    return "category" if repeats else "auto"


def _scalars(path: str, prefix: str, value: Any) -> Iterator[tuple[str, Any]]:
    """The scalars of a document that lie in no array, but for nulls."""
    if type(value) is tuple:
        for key, child in value:
            below = prefix + step(key)
            yield from _scalars(below, f"{below}.", child)
    elif type(value) is not list and value is not None:
        yield path, value


class _Node:
    """A step of the wanted paths: the column of the scalar that it leads to, and the steps behind it."""

    __slots__ = ("below", "column")

    def __init__(self) -> None:
        self.column: int | None = None
        self.below: dict[str, _Node] = {}


class Fields:
    """The columns that documents are to have: their values in a document, and columns of the values in several."""

    def __init__(self, keys: Mapping[str, Kind]) -> None:
        self.attributes = {"keys": json.dumps(dict(keys))} if keys else {}
        self._keys = keys
        self._names = [f"$.{path}" if path in OWN or path.startswith("$.") else path for path in keys]
        self._root = _Node()
        for column, path in enumerate(keys):
            node = self._root
            for key in _split(path):
                node = node.below.setdefault(key, _Node())
            node.column = column

    def values(self, document: Any) -> list[Any]:
        """The scalar of each column; None for null, and where there is none."""
        if not self._keys:
            return []
        found: list[Any] = [None] * len(self._keys)
        _find(self._root, document if type(document) in (tuple, list) else (("", document),), found)
        return found

    def columns(self, rows: Sequence[Sequence[Any]]) -> dict[str, Column]:
        """Columns of the values of several documents, without those that would hold nothing, whose type nobody could tell."""
        values = zip(*rows, strict=True)
        made = {name: _COLUMNS[kind](each) for name, kind, each in zip(self._names, self._keys.values(), values, strict=True)}
        return {name: column for name, column in made.items() if column is not None}


NO_FIELDS = Fields({})


@functools.lru_cache(maxsize=64)
def fields(keys: tuple[tuple[str, Kind], ...]) -> Fields:
    """The fields of a class, which every document asks for."""
    return Fields(dict(keys))


def _find(node: _Node, container: Any, found: list[Any]) -> None:
    below = node.below
    for key, value in steps(container):
        wanted = below.get(key)
        if wanted is None:
            continue
        if type(value) is tuple or type(value) is list:
            if wanted.below:
                _find(wanted, value, found)
        elif wanted.column is not None:
            found[wanted.column] = value


def _split(path: str) -> list[str]:
    """The keys of a dotted path, as they are in a document."""
    return [_ESCAPED.sub(lambda found: chr(int(found[1], 16)) if found[1] else found[2], key) for key in _STEP.findall(path)]


def _auto(values: Sequence[Any]) -> Column | None:
    """A column of the type that all values have; strings of the values as written when there is none that loses nothing."""
    kinds = {_TYPED[kind] for kind in map(type, values) if kind is not _NONE}
    if not kinds:
        return None
    made = kinds.pop() if len(kinds) == 1 else _doubles if kinds == {_integers, _doubles} else _text
    column = made(values)
    return _text(values) if column is None else column


def _integers(values: Sequence[Any]) -> Column | None:
    if max(len(value) for value in values if value is not None) > _INTEGER_CHARACTERS:
        return None
    numbers = [int(value or 0) for value in values]
    return Scalars(numbers, "<i8", _missing(values)) if min(numbers) >= -(1 << 63) and max(numbers) < 1 << 63 else None


def _doubles(values: Sequence[Any]) -> Column | None:
    numbers = [math.nan if value is None else _double(value) for value in values]
    return None if None in numbers else Scalars(numbers, "<f8")


def _booleans(values: Sequence[Any]) -> Column:
    return Scalars([bool(value) for value in values], "?", _missing(values))


def _text(values: Sequence[Any]) -> Column:
    texts = scalar_texts(values)
    return Strings(b"".join(texts), np.array([len(text) for text in texts], np.uint64), _missing(values))


def _categories(values: Sequence[Any]) -> Column:
    return Categories([None if value is None else text.decode() for value, text in zip(values, scalar_texts(values), strict=True)])


_COLUMNS: dict[Kind, Callable[[Sequence[Any]], Column | None]] = {"auto": _auto, "category": _categories, "text": _text}
_TYPED: dict[type, Callable[[Sequence[Any]], Column | None]] = {
    bytes: _integers,
    Number: _doubles,
    Constant: _doubles,
    bool: _booleans,
    str: _text,
}
_NONE = type(None)


def _missing(values: Sequence[Any]) -> Array | None:
    return np.array([value is None for value in values]) if None in values else None


def _double(text: bytes | Number | Constant) -> float | None:
    """A number as a double, when that can be written as the same number again: in the fewest digits that tell it, or in 17."""
    if isinstance(text, bytes):
        return float(text) if len(text) <= _INTEGER_CHARACTERS and abs(int(text)) <= _EXACT_INTEGER else None
    number = float(text)
    if isinstance(text, Constant) or (len(text) <= _EXACT_DIGITS and "e" not in text and "E" not in text):
        return number
    if number == 0 or math.isinf(number):
        return None if re.match(r"[-0.]*[1-9]", text) else number
    return number if Decimal(text) in (Decimal(repr(number)), Decimal(f"{number:.16e}")) else None
