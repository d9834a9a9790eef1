"""Words -> the rows of a table that have all of them in their texts, whatever the case; one slab of texts is in memory at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, Protocol

import numpy as np

from h5dat_lib.columns import Array
from h5dat_lib.errors import FormatError, InputError
from h5dat_lib.read.columns import Categorical, Column, Nullable, Plain, Text

_SLAB = 4096
"""Texts that are read at a time..."""
_SLAB_BYTES = 16 << 20
"""...or as many as are so many bytes, and one at least."""


class Source(Protocol):
    """The table that is searched."""

    @property
    def columns(self) -> list[str]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, which: Any) -> Any: ...


def words_of(text: str) -> list[str]:
    """What is looked for. Raises InputError when there is nothing."""
    words = text.casefold().split()
    if not words:
        raise InputError(f"found no words in {text!r}, expected at least one to look for")
    return words


def containing(table: Source, pairs: Source | None, words: Sequence[str]) -> Array:
    """Numbers (n,) int64 of the rows whose strings, categories, texts and ``pairs`` together have every word in them.

    Holds a byte a row and word.
    """
    found = np.zeros((len(words), len(table)), bool)
    for name in table.columns:
        column = table[name]
        if isinstance(column, Categorical):
            _look_up(column, words, found)
        elif isinstance(column, Plain | Nullable | Text) and column.describe()["dtype"] == "string":
            for rows in _slabs(column):
                found[:, rows] |= _has(column[rows], words)
    if pairs is not None:
        _look_through(pairs, words, found)
    return np.flatnonzero(found.all(0))


def _look_through(pairs: Source, words: Sequence[str], found: Array) -> None:
    """The values of pairs, whose rows their column ``row`` has."""
    for part in _slabs(pairs["value"]):
        has, rows = _has(pairs["value"][part], words), pairs["row"][part]
        if np.max(rows, initial=0) >= found.shape[1]:
            raise FormatError(f"{pairs!r}: found pairs of row {rows.max()}, expected rows below {found.shape[1]}; make the file anew")
        for word, hits in enumerate(has):
            found[word, rows[hits]] = True


def _look_up(column: Categorical, words: Sequence[str], found: Array) -> None:
    """Each category once."""
    has = np.append(_has(column.categories, words), np.zeros((len(words), 1), bool), axis=1)  # -1 is no category
    for rows in _slabs(column):
        found[:, rows] |= has[:, column.codes[rows]]


def _has(texts: Sequence[str | None], words: Sequence[str]) -> Array:
    """(words, texts) bool."""
    folded = ["" if text is None else text.casefold() for text in texts]
    return np.array([[word in text for text in folded] for word in words], bool).reshape(len(words), len(folded))


def _slabs(column: Column) -> Iterator[slice]:
    """All rows, in order; of texts of any length so many at a time as are not too many bytes."""
    for first in range(0, len(column), _SLAB):
        end = min(first + _SLAB, len(column))
        edges = [first, end]
        if isinstance(column, Text):
            slab = np.cumsum(column.sizes(np.arange(first, end))) // _SLAB_BYTES
            edges = [first, *(np.flatnonzero(np.diff(slab)) + first + 1).tolist(), end]
        yield from (slice(*ends) for ends in pairwise(edges))
