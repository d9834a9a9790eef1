"""The values of a column of text in -> the type that all of them have, and the values in that type out.

Arrow is loaded by those who call: nothing here may be imported at start.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from h5dat_lib.columns import Array, Column, PairType, Scalars, Strings

if TYPE_CHECKING:
    import pyarrow as pa

Decimal = Literal[".", ","]

_INTEGER = re.compile(r"-?\d+", re.ASCII)
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_TIME = re.compile(r"\d{4}-\d\d-\d\d([T ])\d\d:\d\d:\d\d(?:\.(\d{3}|\d{6}|\d{9}))?(Z|\+00:00)?", re.ASCII)
_THOUSANDS = r"^[+-]?[1-9]\d{0,2}([.,]\d{3})+$"
"""What may as well be a whole number whose thousands are separated."""
_UNITS = {None: "s", 3: "ms", 6: "us", 9: "ns"}
"""numpy's unit by the digits of the fraction of a second, all of which it writes again; other numbers of digits stay strings."""
_FIRST_DAY = int(np.datetime64("0001-01-01", "D").astype(int))
_TRUE, _FALSE = ("true", "True", "TRUE"), ("false", "False", "FALSE")


@dataclass(frozen=True, slots=True)
class Kind:
    """The type of a column.

    ``words`` mean "no value" in it; none when it has been seen to hold none. ``decimal`` is that of floats. Dates have a ``unit``,
    numpy's, a ``form`` as of `Scalars`, and a ``template`` of their text, with zeros for the digits.
    """

    name: Literal["integer", "float", "boolean", "date", "string"]
    words: tuple[str, ...] = ()
    decimal: Decimal = "."
    unit: str = ""
    form: str = ""
    template: bytes = b""

    @property
    def arrow(self) -> pa.DataType:
        """Arrow's type, which takes the text of every value as CSV or in a cast, once decimal commas are points."""
        import pyarrow as pa

        if self.name == "date":
            return pa.date32() if self.unit == "D" else pa.timestamp(self.unit, "UTC" if len(self.form) > 1 else None)
        return {"integer": pa.int64(), "float": pa.float64(), "boolean": pa.bool_(), "string": pa.string()}[self.name]

    def column(self, values: pa.Array) -> Column:
        """The values, which are strings or of `arrow`'s type already, as a column."""
        import pyarrow as pa

        if values.type == pa.string():
            values = without(values, self.words)
            values = values if self.name == "string" else _pointed(values, self.decimal).cast(self.arrow)
        return _COLUMNS[self.name](values, self)


STRING = Kind("string")
PAIR_TYPES = {
    "integer": PairType.INTEGER,
    "float": PairType.NUMBER,
    "boolean": PairType.BOOLEAN,
    "date": PairType.STRING,
    "string": PairType.STRING,
}


def _candidates(text: str, decimals: tuple[Decimal, ...], dates: bool) -> tuple[Kind, ...]:
    """The types a column can have whose first value is this; all of them hold only what has the form that they describe."""
    floats = tuple(Kind("float", decimal=decimal) for decimal in decimals if _is_number(text, decimal))
    if floats:
        return (Kind("integer"), *floats) if _INTEGER.fullmatch(text) else floats
    if text in _TRUE + _FALSE:
        return (Kind("boolean"),)
    if dates and _DATE.fullmatch(text):
        return (Kind("date", unit="D", template=b"0000-00-00"),)
    if dates and (found := _TIME.fullmatch(text)):
        unit = _UNITS[len(found[2]) if found[2] else None]
        return (Kind("date", unit=unit, form=found[1] + (found[3] or ""), template=re.sub(r"\d", "0", text).encode()),)
    return ()


@lru_cache(maxsize=16)
def _pass_for_values(words: tuple[str, ...], decimals: tuple[Decimal, ...], dates: bool) -> bool:
    """Whether one of the words for "no value" passes for a value, as -999 does, so that it would not be noticed."""
    return any(_candidates(word, decimals, dates) for word in words)


def _is_number(text: str, decimal: Decimal) -> bool:
    return (decimal == "." or "." not in text) and _NUMBER.fullmatch(text.replace(decimal, ".", 1)) is not None


class Evidence:
    """The types that one column can still have, after the values seen so far.

    ``empty`` tells that there were none. ``clear`` has the decimal separators that were seen where they cannot separate thousands.
    """

    def __init__(self, words: tuple[str, ...], decimals: tuple[Decimal, ...], dates: bool) -> None:
        self.empty = True
        self.clear: set[str] = set()
        self._words = words
        self._decimals = decimals
        self._dates = dates
        self._kinds: tuple[Kind, ...] = ()
        self._last: pa.Array = None
        self._typed: dict[Kind, pa.Array | None] = {}
        self._seen = False
        self._has_words = _pass_for_values(words, decimals, dates)

    def add(self, values: pa.Array) -> None:
        """Takes more values: strings, null where a field was empty."""
        self._last, self._typed = values, {}
        if self._seen and not self._kinds:
            return
        present = values.drop_null() if values.null_count else values
        self.empty = self.empty and not len(present)
        typed = self._holding(values, present)
        if not typed and self._words:
            # Words for "no value" are rare: they are only looked for where they may be what is in the way.
            values = without(values, self._words)
            present = values.drop_null()
            typed = self._holding(values, present)
            self._has_words = True
        if len(present):
            self._kinds, self._typed, self._seen = tuple(typed), typed, True

    def _holding(self, values: pa.Array, present: pa.Array) -> dict[Kind, pa.Array | None]:
        """The types that all values have, and the values in each, where they had to be made for that; ``present`` are those not null."""
        if not len(present):
            return {}
        kinds = self._kinds if self._seen else _candidates(present[0].as_py(), self._decimals, self._dates)
        if kinds and kinds[0].name == "integer":
            if (integers := _as_integers(values, present, kinds[0])) is not None:
                # What is written as an int64 may stand in a column of floats.
                return {kind: None if kind.name == "float" else integers for kind in kinds}
            kinds = kinds[1:]
        typed = {kind: found for kind in kinds if (found := _CHECKS[kind.name](values, present, kind)) is not None}
        self.clear |= {kind.decimal for kind in typed if len(self._decimals) > 1 and kind.name == "float" and _is_clear(present, kind)}
        return typed

    def kind(self, decimal: Decimal) -> Kind:
        """The type, in a table with this decimal separator: a string without any values."""
        kinds = [kind for kind in self._kinds if kind.name != "float" or kind.decimal == decimal]
        return replace(kinds[0], words=self._words if self._has_words else ()) if kinds else STRING

    def last(self, kind: Kind) -> pa.Array:
        """The values that were added last: in that type, where checking them has made them so, or as strings without the words."""
        typed = self._typed.get(replace(kind, words=()))
        if typed is None:
            return self._last if kind.name == "string" else without(self._last, self._words)
        return typed


def without(values: pa.Array, words: tuple[str, ...]) -> pa.Array:
    """Strings, null where they are one of the words."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not words:
        return values
    return pc.if_else(pc.is_in(values, value_set=pa.array(words, pa.string())), pa.scalar(None, pa.string()), values)


def _pointed(values: pa.Array, decimal: Decimal) -> pa.Array:
    """Numbers with a decimal point."""
    import pyarrow.compute as pc

    return values if decimal == "." else pc.replace_substring(values, decimal, ".")


# What all values of a column are: each takes values, null or not, with those that are not, and gives them in the type if all have it.


def _as_integers(values: pa.Array, present: pa.Array, kind: Kind) -> pa.Array | None:
    """If each is exactly what its int64 is written as, so that writing it back gives the same text."""
    import pyarrow as pa

    if not _INTEGER.fullmatch(present[0].as_py()):
        return None
    try:
        integers = values.cast(kind.arrow)
    except pa.ArrowInvalid:
        return None
    # Arrow takes neither a plus sign nor spaces, but zeros in front, -0 and hexadecimal.
    text, ends = _text(present)
    led, _ = _led_by_zero(text, ends)
    return None if np.any(np.diff(ends)[led] > 1) else integers


def _as_floats(values: pa.Array, present: pa.Array, kind: Kind) -> pa.Array | None:
    """If each is a finite number; not whole ones beyond int64, nor those with zeros in front, which are names.

    Those with zeros in front are numbers where each has a sign, as Db2 writes DECIMAL.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if kind.decimal == "," and pc.any(pc.match_substring(present, ".")).as_py():
        return None
    values, present = _pointed(values, kind.decimal), _pointed(present, kind.decimal)
    if not _NUMBER.fullmatch(present[0].as_py()):
        return None
    try:
        floats = values.cast(kind.arrow)
        numbers = floats.drop_null().to_numpy()
        # Only what is whole can be written without a point or an exponent.
        whole = present.filter(pa.array(np.trunc(numbers) == numbers))
        whole.filter(pc.invert(pc.match_substring_regex(whole, "[.eE]"))).cast(pa.int64())
    except pa.ArrowInvalid:
        return None
    return None if _has_names(present) or not np.isfinite(numbers).all() else floats


def _has_names(numbers: pa.Array) -> bool:
    """Whether one has a zero and then another digit in front, and one has no sign."""
    text, ends = _text(numbers)
    led, signed = _led_by_zero(text, ends)
    behind = ends[:-1][led] + signed[led] + 1
    followers = text[behind[behind < ends[1:][led]]]
    return bool(np.any((followers >= ord("0")) & (followers <= ord("9")))) and not signed.all()


def _led_by_zero(text: Array, ends: Array) -> tuple[Array, Array]:
    """The rows of numbers, none empty, whose first digit is a zero, and (rows,) whether each has a sign."""
    first = text[ends[:-1]]
    signed = (first == ord("-")) | (first == ord("+"))
    if signed.any():
        first[signed] = text[ends[:-1][signed] + 1]
    return np.flatnonzero(first == ord("0")), signed


def _text(values: pa.Array) -> tuple[Array, Array]:
    """(bytes,) uint8 of strings, one after the other, and (rows + 1,) where each starts and the last one ends."""
    _, offsets, data = values.buffers()
    ends = np.frombuffer(offsets, np.int32)[values.offset : values.offset + len(values) + 1]
    text = np.frombuffer(data, np.uint8, ends[-1] - ends[0], ends[0]) if data is not None else np.empty(0, np.uint8)
    return text, ends - ends[0]


def longest(values: pa.Array) -> int:
    """Bytes of the longest of some strings."""
    return int(np.diff(_text(values)[1]).max(initial=0))


def _is_clear(values: pa.Array, kind: Kind) -> bool:
    """Whether one of the numbers has a decimal separator that cannot separate thousands."""
    import pyarrow.compute as pc

    fractions = values.filter(pc.match_substring(values, kind.decimal))
    return bool(pc.any(pc.invert(pc.match_substring_regex(fractions, _THOUSANDS))).as_py())


def _as_booleans(values: pa.Array, present: pa.Array, kind: Kind) -> pa.Array | None:
    import pyarrow as pa
    import pyarrow.compute as pc

    return values.cast(kind.arrow) if pc.all(pc.is_in(present, value_set=pa.array(_TRUE + _FALSE))).as_py() else None


def _as_dates(values: pa.Array, present: pa.Array, kind: Kind) -> pa.Array | None:
    """If each is written as the template, and is a day of the calendar (proleptic, years 1 to 9999) and a time of day."""
    import pyarrow as pa
    import pyarrow.compute as pc

    template = np.frombuffer(kind.template, np.uint8)
    text, ends = _text(present)
    if np.any(np.diff(ends) != len(template)):
        return None
    # A byte below the template's wraps around to a large one.
    most = np.where(template == ord("0"), 9, 0).astype(np.uint8)
    if np.any(text.reshape(-1, len(template)) - template > most):
        return None
    try:
        dates = values.cast(kind.arrow)
    except pa.ArrowInvalid:
        return None
    return dates if pc.min(dates).cast(pa.date32()).value >= _FIRST_DAY else None


_CHECKS: dict[str, Callable[[Any, Any, Kind], Any]] = {"float": _as_floats, "boolean": _as_booleans, "date": _as_dates}


# Values -> columns


def _mask(values: pa.Array) -> Array | None:
    return np.asarray(values.is_null()) if values.null_count else None


def _filled(values: pa.Array, empty: float) -> pa.Array:
    return values.fill_null(empty) if values.null_count else values


def _integers(values: pa.Array, _: Kind) -> Column:
    return Scalars(_filled(values, 0).to_numpy(), "<i8", _mask(values))


def _floats(values: pa.Array, _: Kind) -> Column:
    return Scalars(_filled(values, float("nan")).to_numpy(), "<f8")


def _booleans(values: pa.Array, _: Kind) -> Column:
    return Scalars(_filled(values, False).to_numpy(zero_copy_only=False), "|b1", _mask(values))


def _dates(values: pa.Array, kind: Kind) -> Column:
    dtype = f"<M8[{kind.unit}]"
    return Scalars(values.to_numpy(zero_copy_only=False).astype(dtype, copy=False), dtype, _mask(values), kind.form)


def _strings(values: pa.Array, _: Kind) -> Column:
    """Arrow's own buffers: the bytes one after the other, and the differences of the offsets."""
    text, ends = _text(values)
    return Strings(text.tobytes(), np.diff(ends).astype(np.int64), _mask(values))


_COLUMNS: dict[str, Callable[[Any, Kind], Column]] = {
    "integer": _integers,
    "float": _floats,
    "boolean": _booleans,
    "date": _dates,
    "string": _strings,
}
