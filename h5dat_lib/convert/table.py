"""CSV and its kin: a member's bytes in, blocks of typed rows out.

The member is read twice, as a stream: once to find what type each column has over all its rows, once for the rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from h5dat_lib.archive.member import Content
from h5dat_lib.columns import Block, Fault, Pairs, PairType, Strings
from h5dat_lib.config import MediumOptions, TableOptions
from h5dat_lib.convert.csv_form import Form, check_field, find_form, unique_names
from h5dat_lib.convert.csv_records import OtherForm, Wanted, read_records
from h5dat_lib.convert.csv_types import PAIR_TYPES, STRING, Decimal, Evidence, Kind, longest, without

if TYPE_CHECKING:
    import pyarrow as pa

BLOCK_ROWS = 64 << 10
"""Most rows of one block."""
REST = "_rest"
"""The column of what records have beyond their last named field."""


@dataclass(frozen=True, slots=True)
class Columns:
    """What becomes of the fields of a record: the names and types of the first so many; no other has a name or a value."""

    names: tuple[str, ...]
    kinds: tuple[Kind, ...]
    decimal: Decimal


def convert(content: Content, options: MediumOptions) -> Iterator[Block | Fault]:
    """Blocks of at most `BLOCK_ROWS` rows, one a record.

    A column is int64 when every value is the canonical text of one, float64 when every value is a number in decimal or exponent
    notation, bool when every value is true or false, in small letters, capitals or with a capital, a date (datetime64) when all are
    ISO 8601 dates or times of one form that comes back exactly, and a string otherwise; so is one without values. An empty
    unquoted field is missing, a quoted one is an empty string; ``options.table.missing`` are missing in all but string columns.
    A missing value is 0, False, NaT or '' under a mask, and NaN without one.

    Commas are decimal where they do not separate the fields and a column has one that cannot separate thousands, while none has
    such a point; numbers with separated thousands are strings. A record with more or fewer fields than columns becomes a Fault or is
    filled up, as ``options.table.ragged`` says. Columns at the end that have neither a name nor a value are left out.

    Holds a few times `csv_form.BLOCK_BYTES`, or the longest record. Raises MemberError when the member is empty, is no text, has more
    columns or a longer field than the limits allow, a record longer than ``limits.whole_bytes``, or quotes that are not closed.
    """
    form, columns = _survey(content, find_form(content, options.table), options.table)
    empty = True
    for part in read_records(content, form, _wanted(form, columns, options.table)):
        if isinstance(part, Fault):
            yield part
            continue
        for start in range(0, part.num_rows, BLOCK_ROWS):
            empty = False
            yield _block(part.slice(start, BLOCK_ROWS), columns, options.table.pairs)
    if empty:
        yield Block(0, {name: Strings(b"", np.zeros(0, np.int64)) for name in columns.names})


def _survey(content: Content, form: Form, options: TableOptions) -> tuple[Form, Columns]:
    """The columns by all rows, and the form in which the member could be read to its end."""
    while True:
        try:
            return form, _columns(content, form, options)
        except OtherForm as exc:
            form = exc.form


def _columns(content: Content, form: Form, options: TableOptions) -> Columns:
    import pyarrow as pa

    fill = options.ragged == "fill"
    names = unique_names((*form.names, REST)) if fill else form.names
    both: tuple[Decimal, ...] = (".",) if form.delimiter == "," else (".", ",")
    evidence = [Evidence(options.missing, (options.decimal,) if options.decimal else both, options.dates) for _ in names]
    for part in read_records(content, form, Wanted((pa.string(),) * len(form.names), fill=fill, rest=fill)):
        if not isinstance(part, Fault):
            for column, values in zip(evidence, part.columns, strict=True):
                check_field(longest(values), content.limits)
                column.add(values)
    clear = {separator for column in evidence for separator in column.clear}
    decimal: Decimal = options.decimal or ("," if clear == {","} else ".")
    kept = len(names)
    while kept > max(len(form.names) - form.nameless, 1) and evidence[kept - 1].empty:
        kept -= 1
    kinds = [column.kind(decimal) for column in evidence[: len(form.names)]] + [STRING]
    return Columns(names[:kept], tuple(kinds[:kept]), decimal)


def _wanted(form: Form, columns: Columns, options: TableOptions) -> Wanted:
    """Arrow reads the columns in their types, but not where words mean "no value", which it would take out of strings, too."""
    import pyarrow as pa

    kinds = columns.kinds[: len(form.names)]
    types = tuple(pa.string() if kind.words or options.pairs else kind.arrow for kind in kinds)
    return Wanted(types, columns.decimal, options.ragged == "fill", len(columns.kinds) > len(form.names))


def _block(batch: pa.RecordBatch, columns: Columns, with_pairs: bool) -> Block:
    named = dict(zip(columns.names, zip(columns.kinds, batch.columns, strict=True), strict=True))
    pairs = _pairs(columns, batch.columns) if with_pairs else None
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
