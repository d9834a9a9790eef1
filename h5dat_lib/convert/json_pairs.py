"""Documents in; their scalars as key/value pairs out.

A pair's key is the dotted path to the scalar: array indices are numbers, a dot or a backslash within a key has a backslash before
it, and a document that is a scalar itself has the key ''. Its value is text: strings as they are (half a surrogate pair as the
escape it was), numbers exactly as written, ``true`` or ``false``, and nothing for null. Empty containers give no pair.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from h5dat_lib.columns import Pairs, PairType
from h5dat_lib.convert.json_text import Constant, Number
from h5dat_lib.errors import MemberError

KEY_CHARACTERS = 256 << 20
"""Characters that the keys of one document may have in all."""
KEY_RATIO = 16
"""Characters of keys for each byte of a document; annotations of pictures, as of COCO, take 4."""
MOST_PAIRS = 1 << 16
"""Pairs that are collected before they are given on."""

_CONTAINERS = (tuple, list)
_TYPES: dict[type, int] = {
    str: PairType.STRING,
    bytes: PairType.INTEGER,
    Number: PairType.NUMBER,
    bool: PairType.BOOLEAN,
    type(None): PairType.NULL,
    Constant: PairType.CONSTANT,
}
_WORDS: dict[bool | None, bytes] = {True: b"true", False: b"false", None: b""}
_TEXTS: dict[type, Callable[[Any], bytes]] = {
    str: str.encode,
    bytes: bytes,
    Number: str.encode,
    bool: _WORDS.__getitem__,
    type(None): _WORDS.__getitem__,
    Constant: str.encode,
}
_Lists = tuple[list[int], list[str], list[bytes], list[int]]


def scalar_texts(values: Sequence[Any]) -> list[bytes]:
    """Scalars as UTF-8: strings as they are, numbers as written, nothing for null."""
    try:
        return [_TEXTS[type(value)](value) for value in values]
    except UnicodeEncodeError:
        return [value.encode("utf-8", "backslashreplace") if type(value) is str else _TEXTS[type(value)](value) for value in values]


def step(key: str) -> str:
    """A key as one step of a path."""
    if key.isidentifier():
        return key
    if "\\" in key or "." in key:
        key = key.replace("\\", "\\\\").replace(".", "\\.")
    return key if key.isascii() else key.encode("utf-8", "backslashreplace").decode()


class PairList:
    """Pairs of the rows of one block, collected document by document."""

    def __init__(self) -> None:
        self._held: _Lists = ([], [], [], [])

    def add(self, row: int, document: Any) -> Iterator[Pairs]:
        """Adds every scalar of a document. Gives what is held when it is more than `MOST_PAIRS`, from then on as of row -1."""
        rows, keys, values, types = self._held
        stack = [("", steps(document) if type(document) in _CONTAINERS else iter((("", document),)))]
        while stack:
            prefix, children = stack[-1]
            for key, value in children:
                path = prefix + (key if key.isidentifier() else step(key))
                kind = type(value)
                if kind is str:  # the most frequent case, without a call
                    keys.append(path)
                    values.append(value.encode("utf-8", "backslashreplace"))
                    types.append(PairType.STRING)
                elif kind is tuple or kind is list:
                    stack.append((path + ".", steps(value)))
                    break
                else:
                    keys.append(path)
                    values.append(_TEXTS[kind](value))
                    types.append(_TYPES[kind])
            else:
                stack.pop()
                if len(keys) > MOST_PAIRS:
                    rows.extend([row] * (len(keys) - len(rows)))
                    yield self.take()
                    row, (rows, keys, values, types) = -1, self._held
        rows.extend([row] * (len(keys) - len(rows)))

    def take(self) -> Pairs:
        """What is held, which is then forgotten."""
        held, self._held = self._held, ([], [], [], [])
        return Pairs(*held)


def steps(container: Any) -> Iterator[tuple[str, Any]]:
    """The keys of an object, or the indices of an array, with what is there."""
    return iter(container) if type(container) is tuple else zip(map(str, range(len(container))), container, strict=True)


def check_keys(document: Any, size: int) -> None:
    """Raises MemberError for a document of ``size`` bytes when the keys of its pairs would be far larger than itself.

    A long key over many values is repeated for each of them. More than `KEY_CHARACTERS` in all are too many, or `KEY_RATIO` for each
    byte of a document that is large itself.
    """
    if size * size <= 4 * KEY_CHARACTERS or type(document) not in _CONTAINERS:
        return  # half of it as one key over values in the other half would not be enough
    most = max(KEY_CHARACTERS, KEY_RATIO * size)
    characters, stack = 0, [(0, document)]
    while stack:
        length, container = stack.pop()
        characters += (length + 1) * len(container)
        if characters > most:
            raise MemberError(f"too large: found keys of more than {most} characters in all, with the path to each value")
        if type(container) is tuple:
            stack.extend((length + len(key) + 1, value) for key, value in container if type(value) in _CONTAINERS)
        else:
            length += len(str(len(container))) + 1
            stack.extend((length, value) for value in container if type(value) in _CONTAINERS)
