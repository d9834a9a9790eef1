"""A column -> an Arrow array, and named arrays -> a table: what pandas, Polars and SQL take. Pictures and other arrays stay numpy's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from h5dat_lib.columns import Array
from h5dat_lib.errors import InputError
from h5dat_lib.read.columns import Categorical, Column, Encoded, Nullable, Plain, Raw, Text

ROW, OTHER_ROW = "row", "other_row"


def arrow_array(name: str, column: Column, rows: Any) -> pa.Array:
    """Values of these rows: numbers, booleans, dates and strings of Arrow's types, categories as a dictionary, files as binary.

    Raises InputError for a column of arrays.
    """
    if type(column) not in _ARRAYS:
        raise InputError(
            f"column {name!r}: found arrays ({column.layout}), expected values that a table can hold; read it by {name}.rows(...)"
        )
    return _ARRAYS[type(column)](column, rows)


def is_typed(column: Column) -> bool:
    """Whether a column is of numbers, booleans, dates, strings or categories."""
    return type(column) in (Plain, Nullable, Categorical, Text)


def of_few(values: list[str], codes: Array) -> pa.Array:
    """Strings of which each is that of its code, -1 where there is none: a dictionary, in which each string is once, as pandas wants it."""
    missing, places = codes < 0, {value: place for place, value in enumerate(dict.fromkeys(values))}
    if len(places) < len(values):
        codes = np.array([places[value] for value in values], "i4")[codes]
    return pa.DictionaryArray.from_arrays(pa.array(codes.astype("i4"), mask=missing), pa.array(list(places), pa.string()))


def joined(left: Mapping[str, pa.Array], right: Mapping[str, pa.Array]) -> pa.Table:
    """Pairs of rows whose ``on`` are equal, in the order of ``row``, then ``other_row``. What is missing is equal to nothing."""
    sides = [pa.table({name: _plain(values) for name, values in side.items()}) for side in (left, right)]
    kinds = {side.schema.field("on").type for side in sides}
    if len(kinds) > 1:
        sides = [side.set_column(side.schema.get_field_index("on"), "on", side["on"].cast(pa.string())) for side in sides]
    return sides[0].join(sides[1], "on", join_type="inner").sort_by([(ROW, "ascending"), (OTHER_ROW, "ascending")])


def _plain(values: pa.Array) -> pa.Array:
    return pc.cast(values, values.type.value_type) if pa.types.is_dictionary(values.type) else values


def _of_scalars(column: Column, rows: Any) -> pa.Array:
    values = column[rows]
    if isinstance(values, list):
        return pa.array(values, pa.string())
    if isinstance(values, np.ma.MaskedArray):
        return pa.array(values.data, mask=np.ma.getmaskarray(values))
    return pa.array(values, from_pandas=True)  # NaN is a missing value, see docs/format.md


def _of_categories(column: Any, rows: Any) -> pa.Array:
    return of_few(column.categories, column.codes[rows])


def _of_text(column: Column, rows: Any) -> pa.Array:
    return pa.array(column[rows], pa.large_string())


def _of_files(column: Any, rows: Any) -> pa.Array:
    return pa.array(column.files(rows), pa.large_binary())


_ARRAYS: dict[type[Column], Callable[[Any, Any], pa.Array]] = {
    Plain: _of_scalars,
    Nullable: _of_scalars,
    Categorical: _of_categories,
    Text: _of_text,
    Raw: lambda column, rows: pa.array(column[rows], pa.large_binary()),
    Encoded: _of_files,
}
