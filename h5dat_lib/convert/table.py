"""CSV and its kin: a member's bytes in, blocks of typed rows out.

The type of a column is that of all its values. A member is read as if it went on as it begins; where a value says otherwise, what was
made of it so far is dropped, it is read to its end for the types alone, and then once more for the rows.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from h5dat_lib.archive.member import Content
from h5dat_lib.columns import Block, Draft, Fault, Pairs, PairType, Strings
from h5dat_lib.config import Limits, MediumOptions, TableOptions
from h5dat_lib.convert.ahead import ahead
from h5dat_lib.convert.csv_form import Form, check_field, find_form, unique_names
from h5dat_lib.convert.csv_records import OtherForm, Wanted, read_records
from h5dat_lib.convert.csv_types import PAIR_TYPES, STRING, Decimal, Evidence, Kind, longest, without

if TYPE_CHECKING:
    import pyarrow as pa

BLOCK_ROWS = 64 << 10
"""Most rows of one block."""
_HELD_BYTES = 8 << 20
"""Records that are held until it is guessed how a member goes on; one that has no more is not guessed at."""
_FAULT_BYTES = 200
"""What a fault takes besides its reason."""
REST = "_rest"
"""The column of what records have beyond their last named field."""


@dataclass(frozen=True, slots=True)
class Columns:
    """What becomes of the fields of a record: the names and types of the first so many; no other has a name or a value."""

    names: tuple[str, ...]
    kinds: tuple[Kind, ...]
    decimal: Decimal

    def stay(self, later: Columns) -> bool:
        """Whether they are still the same, apart from the words that have been seen since."""
        return self.names == later.names and all(
            replace(kind, words=()) == replace(other, words=()) for kind, other in zip(self.kinds, later.kinds, strict=True)
        )


class _Otherwise(Exception):
    """The member does not go on as it began."""


def convert(content: Content, options: MediumOptions) -> Iterator[Block | Fault | Draft]:
    """Blocks of at most `BLOCK_ROWS` rows, one a record; as a draft, where the member has more than `_HELD_BYTES`.

    A column is int64 when every value is the canonical text of one, float64 when every value is a number in decimal or exponent
    notation, bool when every value is true or false, in small letters, capitals or with a capital, a date (datetime64) when all are
    ISO 8601 dates or times of one form that comes back exactly, and a string otherwise; so is one without values. An empty
    unquoted field is missing, a quoted one is an empty string; ``options.table.missing`` are missing in all but string columns.
    A missing value is 0, False, NaT or '' under a mask, and NaN without one.

    Commas are decimal where they do not separate the fields and a column has one that cannot separate thousands, while none has
    such a point; numbers with separated thousands are strings. A record with more or fewer fields than columns becomes a Fault or is
    filled up, as ``options.table.ragged`` says. Columns at the end that have neither a name nor a value are left out.

    Holds a few times `_HELD_BYTES`, or the longest record. Raises MemberError when the member is empty, is no text, has more
    columns or a longer field than the limits allow, a record longer than ``limits.whole_bytes``, or quotes that are not closed.
    """
    form = find_form(content, options.table)
    while True:
        try:
            columns = yield from _at_once(content, form, options.table)
            break
        except OtherForm as exc:
            form = exc.form
            yield Draft.DROPPED
    if columns is not None:
        records = ahead(read_records(content, form, _wanted(form, columns, options.table)))
        yield from _blocks(records, columns, options.table)


def _at_once(content: Content, form: Form, options: TableOptions) -> Generator[Block | Fault | Draft, None, Columns | None]:
    """Gives all blocks in one reading, or else nothing that is kept, and returns the columns for another."""
    survey = _Survey(form, options, content.limits)
    records = read_records(content, form, survey.wanted)
    first = _first(survey.seen(records))
    following = next(records, None)
    columns = survey.columns()
    if following is None:
        yield from _blocks(first, columns, options)
        return None
    # Reading, typing and, by whoever takes the blocks, packing go on at the same time.
    rest = survey.seen(ahead(chain((following,), records)))
    if not options.pairs:
        try:
            yield Draft.BEGUN
            yield from ahead(_blocks(chain(first, survey.typed(rest, columns)), columns, options))
            yield Draft.KEPT
            return None
        except _Otherwise:
            yield Draft.DROPPED
    first.clear()
    deque(rest, 0)
    return survey.columns()


def _first(parts: Iterator[pa.RecordBatch | Fault]) -> list[pa.RecordBatch | Fault]:
    held, size = [], 0
    while size < _HELD_BYTES and (part := next(parts, None)) is not None:
        held.append(part)
        size += _FAULT_BYTES + len(part.reason) if isinstance(part, Fault) else part.nbytes
    return held


class _Survey:
    """The columns of a member, by all its records so far."""

    def __init__(self, form: Form, options: TableOptions, limits: Limits) -> None:
        self._form = form
        self._limits = limits
        self._fill = options.ragged == "fill"
        self._decimal = options.decimal
        self._names = unique_names((*form.names, REST)) if self._fill else form.names
        both: tuple[Decimal, ...] = (".",) if form.delimiter == "," else (".", ",")
        decimals = (options.decimal,) if options.decimal else both
        self._evidence = [Evidence(options.missing, decimals, options.dates) for _ in self._names]

    @property
    def wanted(self) -> Wanted:
        """All fields as strings."""
        import pyarrow as pa

        return Wanted((pa.string(),) * len(self._form.names), fill=self._fill, rest=self._fill)

    def seen(self, parts: Iterable[pa.RecordBatch | Fault]) -> Iterator[pa.RecordBatch | Fault]:
        """The records, each batch once it has been looked at."""
        for part in parts:
            if not isinstance(part, Fault):
                for column, values in zip(self._evidence, part.columns, strict=True):
                    check_field(longest(values), self._limits)
                    column.add(values)
            yield part

    def typed(self, parts: Iterable[pa.RecordBatch | Fault], columns: Columns) -> Iterator[pa.RecordBatch | Fault]:
        """The records, each batch of which was seen last, in the types of the columns. Raises _Otherwise when they have others by now."""
        import pyarrow as pa

        for part in parts:
            if isinstance(part, Fault):
                yield part
                continue
            if not columns.stay(self.columns()):
                raise _Otherwise
            values = [column.last(kind) for column, kind in zip(self._evidence, columns.kinds, strict=False)]
            yield pa.RecordBatch.from_arrays(values, list(columns.names))

    def columns(self) -> Columns:
        clear = {separator for column in self._evidence for separator in column.clear}
        decimal: Decimal = self._decimal or ("," if clear == {","} else ".")
        form, kept = self._form, len(self._names)
        while kept > max(len(form.names) - form.nameless, 1) and self._evidence[kept - 1].empty:
            kept -= 1
        kinds = [column.kind(decimal) for column in self._evidence[: len(form.names)]] + [STRING]
        return Columns(self._names[:kept], tuple(kinds[:kept]), decimal)


def _wanted(form: Form, columns: Columns, options: TableOptions) -> Wanted:
    """Arrow reads the columns in their types, but not where words mean "no value", which it would take out of strings, too."""
    import pyarrow as pa

    kinds = columns.kinds[: len(form.names)]
    types = tuple(pa.string() if kind.words or options.pairs else kind.arrow for kind in kinds)
    return Wanted(types, columns.decimal, options.ragged == "fill", len(columns.kinds) > len(form.names))


def _blocks(parts: Iterable[pa.RecordBatch | Fault], columns: Columns, options: TableOptions) -> Iterator[Block | Fault]:
    empty = True
    for part in parts:
        if isinstance(part, Fault):
            yield part
            continue
        for start in range(0, part.num_rows, BLOCK_ROWS):
            empty = False
            yield _block(part.slice(start, BLOCK_ROWS), columns, options.pairs)
    if empty:
        yield Block(0, {name: Strings(b"", np.zeros(0, np.int64)) for name in columns.names})


def _block(batch: pa.RecordBatch, columns: Columns, with_pairs: bool) -> Block:
    found = batch.columns[: len(columns.kinds)]
    named = dict(zip(columns.names, zip(columns.kinds, found, strict=True), strict=True))
    pairs = _pairs(columns, found) if with_pairs else None
    return Block(batch.num_rows, {name: kind.column(values) for name, (kind, values) in named.items()}, pairs)


def _pairs(columns: Columns, values: list[Any]) -> Pairs:
    """Every field, record by record, as it is written; a missing one is null."""
    import pyarrow as pa

    rows = len(values[0])
    texts = [without(texts, kind.words).cast(pa.binary()).to_pylist() for kind, texts in zip(columns.kinds, values, strict=True)]
    fields = [value for record in zip(*texts, strict=True) for value in record]
    of_columns = [PAIR_TYPES[kind.name] for kind in columns.kinds] * rows
    types = [PairType.NULL if value is None else kind for value, kind in zip(fields, of_columns, strict=True)]
    keys = list(columns.names) * rows
    return Pairs(np.repeat(np.arange(rows), len(columns.names)).tolist(), keys, [value or b"" for value in fields], types)
