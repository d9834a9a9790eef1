"""CSV and TSV: a member's bytes in, blocks of typed rows out.

The member is read twice, as a stream: once to find what type each column has over all its rows, once for the rows.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from h5dat_lib.archive.member import Content
from h5dat_lib.columns import Block, Column, Fault, Pairs, PairType, Scalars, Strings
from h5dat_lib.config import Limits, MediumOptions, TableOptions
from h5dat_lib.convert.encoding import SAMPLE_BYTES, Codec, Utf8, detect, guess, to_text
from h5dat_lib.errors import MemberError

if TYPE_CHECKING:
    import pyarrow as pa

BLOCK_ROWS = 64 << 10
"""Most rows of one block."""
BLOCK_BYTES = 4 << 20
"""Bytes of CSV that are parsed at a time; a block has the rows that end in them. Raised eightfold while a record is longer."""

_DELIMITERS = (",", "\t", ";", "|")
_NONE = "\x1f"
"""What stands for the delimiter of a table of one column; it is made to separate units, and nobody uses it."""
_ALIKE = 0.5
"""Share of the records that have to have one number of fields, for a delimiter to be taken for one."""
_SHOWN = 200
_INTEGER = re.compile(r"-?\d+")
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")
_YEAR = re.compile(r"(18|19|20|21)\d\d")
_BOOLEANS = ("true", "false")


@dataclass(frozen=True, slots=True)
class Form:
    """How a member is written: ``header_bytes`` (of UTF-8) and ``header_lines`` come before the first record."""

    codec: Codec
    delimiter: str
    quote: str
    names: tuple[str, ...]
    header_bytes: int
    header_lines: int
    block_bytes: int = BLOCK_BYTES


def convert(content: Content, options: MediumOptions) -> Iterator[Block | Fault]:
    """Blocks of at most `BLOCK_ROWS` rows, one a record.

    A column is int64 when every value is the canonical text of one, float64 when every value is a number in decimal or exponent
    notation, bool when every value is true or false in any case, and a string otherwise; so is one without values. An empty
    unquoted field is missing, a quoted one is an empty string; ``options.table.missing`` are missing in all but string columns.
    A missing value is 0, False or '' under a mask, and NaN without one. A record with more or fewer fields than columns becomes
    a Fault. Holds a few times `BLOCK_BYTES`, or the longest record.
    Raises MemberError when the member is empty, is no text, has more columns or a longer field than the limits allow, or a record
    longer than ``limits.whole_bytes``.
    """
    table = options.table
    form = _form(content, table, "\t" if content.member.path.lower().endswith((".tsv", ".tab")) else ",")
    form, kinds = _survey(content, form, table.missing)
    empty = True
    for part in _batches(content, form):
        if isinstance(part, Fault):
            yield part
        elif part.num_rows:
            empty = False
            yield _block(part, form.names, kinds, table.pairs)
    if empty:
        yield Block(0, {name: Strings(b"", np.zeros(0, np.int64)) for name in form.names})


# Form: codec, delimiter, header


def _form(content: Content, options: TableOptions, expected: str) -> Form:
    codec, text, complete = _sample(content, options, expected)
    delimiter = options.delimiter or _delimiter(text, complete, options.quote, expected)
    records = _records(text, delimiter, options.quote)
    if not records:
        raise _too_long("no end of the first record", content.limits) if text.strip("\r\n") else MemberError("empty: found no records")
    first, lines = records[0]
    _check_record(first, content.limits)
    header = options.header if options.header is not None else _has_header([fields for fields, _ in records])
    if not header:
        return Form(codec, delimiter, options.quote, _names([""] * len(first)), 0, 0)
    size = sum(len(line.encode()) for _, line in zip(range(lines), io.StringIO(text, newline=""), strict=False))
    return Form(codec, delimiter, options.quote, _names(first), size, lines)


def _sample(content: Content, options: TableOptions, expected: str) -> tuple[Codec, str, bool]:
    """The codec, the first `SAMPLE_BYTES` as text, or as much as holds one record, and whether that is all."""
    # this is the process's own: it may be higher already, and is only raised
    csv.field_size_limit(max(csv.field_size_limit(), content.limits.csv_field_bytes))
    with content.open() as stream:
        data = stream.read(SAMPLE_BYTES)
        complete = len(data) < SAMPLE_BYTES
        codec = detect(data, options.encoding, complete)
        text = to_text(data, codec, complete)
        while not complete and len(records := _records(text, options.delimiter or expected, options.quote)) < 2:
            _check_start(records, len(data), content.limits)
            wanted = len(data) * 7
            more = stream.read(wanted)
            complete = len(more) < wanted
            data += more
            text = to_text(data, codec, complete)
    return codec, text, complete


def _check_start(records: list[tuple[list[str], int]], size: int, limits: Limits) -> None:
    """Raises MemberError when more than the first ``size`` bytes, in which at most one record has begun, need not be looked at."""
    for fields, _ in records:
        _check_record(fields, limits)
    if size > (limits.whole_bytes if records else 2 * limits.csv_field_bytes):
        raise _too_long(f"no end of the first record in {size} bytes", limits)


def _check_record(fields: list[str], limits: Limits) -> None:
    if len(fields) > limits.csv_columns:
        raise MemberError(f"too many columns: found {len(fields)} or more, expected at most {limits.csv_columns} (limits.csv_columns)")
    _check_field(max(map(len, fields)), limits)


def _check_field(size: int, limits: Limits) -> None:
    if size > limits.csv_field_bytes:
        raise _too_long(f"a field of {size} bytes or more", limits)


def _too_long(found: str, limits: Limits) -> MemberError:
    expected = f"fields of at most {limits.csv_field_bytes} bytes (limits.csv_field_bytes) and quotes that are closed"
    return MemberError(f"too large: found {found}, expected {expected}")


def _records(text: str, delimiter: str, quote: str) -> list[tuple[list[str], int]]:
    """The records of a sample, and the number of lines up to the end of each; those after an over-long field are left out."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, quotechar=quote)
    records: list[tuple[list[str], int]] = []
    with suppress(csv.Error):  # longer than csv.field_size_limit(): no form can be told from it
        records.extend((fields, reader.line_num) for fields in reader if fields)
    return records


def _delimiter(text: str, complete: bool, quote: str, expected: str) -> str:
    """The candidate that gives the most records the same number of fields, more than one; on a tie the expected one, then in order."""
    best, score = _NONE, 0.0
    for candidate in dict.fromkeys((expected, *_DELIMITERS)):
        alike = _alike(text, candidate, quote, complete) if candidate in text else 0.0
        if alike > score:
            best, score = candidate, alike
    return best if score >= _ALIKE else _NONE


def _alike(text: str, delimiter: str, quote: str, complete: bool) -> float:
    records = _records(text, delimiter, quote)
    # The last record of a sample may be cut.
    counts = [len(fields) for fields, _ in (records if complete or len(records) < 2 else records[:-1])]
    usual, share = max(Counter(counts).items(), key=lambda found: (found[1], found[0]), default=(1, 0))
    return share / len(counts) if usual > 1 else 0.0


def _has_header(records: list[list[str]]) -> bool:
    """Whether the first record names the columns.

    Every column that holds nothing but numbers below has a vote: for, when its first field is none; against, when it is one. A year
    there is no vote, as it may be either. When that leaves it open, the first record is a header.
    """
    first, rest = records[0], records[1:200]
    votes = 0
    for at, field in enumerate(first):
        below = [fields[at] for fields in rest if len(fields) == len(first) and fields[at]]
        if all(map(_NUMBER.fullmatch, below)) and field and not _YEAR.fullmatch(field):
            votes += -1 if _NUMBER.fullmatch(field) else bool(below)
    return votes >= 0


def _names(fields: list[str]) -> tuple[str, ...]:
    """Names for the columns: an empty one becomes column_N, counted from 1; a repeated one gets the first _2, _3... that is free."""
    given = {field.strip() for field in fields}
    names: dict[str, None] = {}
    counts: dict[str, int] = {}
    for number, field in enumerate(fields, 1):
        stem = name = field.strip() or f"column_{number}"
        while name in names or (name in given and name != field.strip()):
            counts[stem] = counts.get(stem, 1) + 1
            name = f"{stem}_{counts[stem]}"
        names[name] = None
    return tuple(names)


# First reading: types


@dataclass(frozen=True, slots=True)
class Kind:
    """The type of a column, and the words that mean "no value" in it: none when the column has been seen to hold none."""

    name: str
    missing: tuple[str, ...] = ()


class _Evidence:
    """The types one column can still have, after the values seen so far."""

    def __init__(self, missing: tuple[str, ...]) -> None:
        self._missing = missing
        self._names: tuple[str, ...] = tuple(_CHECKS)
        self._seen = False
        # A word such as -999 passes for a value, so it is not noticed.
        self._words = any(_NUMBER.fullmatch(word) or word.lower() in _BOOLEANS for word in missing)

    def add(self, values: pa.Array) -> None:
        if not self._names:
            return
        values = values.drop_null()
        names = self._holding(values)
        if not names and self._missing:
            # Words for "no value" are rare: they are only looked for where they may be what is in the way.
            values = values.filter(_is_word(values, self._missing, inverted=True))
            names = self._holding(values)
            self._words = True
        if len(values):
            self._names, self._seen = names, True

    def _holding(self, values: pa.Array) -> tuple[str, ...]:
        if not len(values):
            return ()
        if "integer" in self._names and _all_integers(values):
            return ("integer", "float")  # what is written as an int64 may stand in a column of floats
        return tuple(name for name in self._names if name != "integer" and _CHECKS[name](values))

    def kind(self) -> Kind:
        if not self._seen or not self._names:
            return Kind("string")
        return Kind(self._names[0], self._missing if self._words else ())


def _is_word(values: pa.Array, words: tuple[str, ...], inverted: bool = False) -> pa.Array:
    import pyarrow as pa
    import pyarrow.compute as pc

    found = pc.is_in(values, value_set=pa.array(words, pa.string()))
    return pc.invert(found) if inverted else found


def _all_integers(values: pa.Array) -> bool:
    """Whether each is exactly what its int64 is written as, so that writing it back gives the same text."""
    import pyarrow as pa

    if not _INTEGER.fullmatch(values[0].as_py()):
        return False
    try:
        values.cast(pa.int64())
    except pa.ArrowInvalid:
        return False
    # Arrow takes neither a plus sign nor spaces, but zeros in front, -0 and hexadecimal.
    zero, _, lengths = _leading_zeros(values)
    return not np.any(zero & (lengths > 1))


def _all_floats(values: pa.Array) -> bool:
    """Whether each is a finite number; not those with zeros in front or whole ones beyond int64, which are names."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not _NUMBER.fullmatch(values[0].as_py()):
        return False
    try:
        numbers = values.cast(pa.float64())
        whole = values.filter(pc.invert(pc.match_substring(values, ".")))
        whole.filter(pc.invert(pc.match_substring_regex(whole, "[eE]"))).cast(pa.int64())
    except pa.ArrowInvalid:
        return False
    zero, follower, _ = _leading_zeros(values)
    led = np.any(zero & (follower >= ord("0")) & (follower <= ord("9")))
    return not led and bool(pc.all(pc.is_finite(numbers)).as_py())


def _leading_zeros(values: pa.Array) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Of each number without null: whether a zero is its first digit, the byte behind that digit or 0, and the length in bytes."""
    _, offsets, data = values.buffers()
    ends = np.frombuffer(offsets, np.int32)[values.offset : values.offset + len(values) + 1]
    # One byte more, so that the byte behind the very last one can be looked at.
    text = np.append(np.frombuffer(data, np.uint8, ends[-1] - ends[0], ends[0]), np.uint8(0))
    ends = ends - ends[0]
    first = ends[:-1] + ((text[ends[:-1]] == ord("-")) | (text[ends[:-1]] == ord("+")))
    follower = np.where(first + 1 < ends[1:], text[np.minimum(first + 1, ends[1:])], 0)
    return text[first] == ord("0"), follower, np.diff(ends)


def _longest(values: pa.Array) -> int:
    """Bytes of the longest value."""
    ends = np.frombuffer(values.buffers()[1], np.int32)[values.offset : values.offset + len(values) + 1]
    return int(np.diff(ends).max(initial=0))


def _all_booleans(values: pa.Array) -> bool:
    import pyarrow.compute as pc

    if values[0].as_py().lower() not in _BOOLEANS:
        return False
    return bool(pc.all(_is_word(pc.ascii_lower(values), _BOOLEANS)).as_py())


_CHECKS: dict[str, Callable[[Any], bool]] = {"integer": _all_integers, "float": _all_floats, "boolean": _all_booleans}


def _survey(content: Content, form: Form, missing: tuple[str, ...]) -> tuple[Form, tuple[Kind, ...]]:
    """The type of each column over all rows, and the form in which the member could be read to its end."""
    while True:
        evidence = [_Evidence(missing) for _ in form.names]
        try:
            for part in _batches(content, form):
                if not isinstance(part, Fault):
                    for column, values in zip(evidence, part.columns, strict=True):
                        _check_field(_longest(values), content.limits)
                        column.add(values)
            return form, tuple(column.kind() for column in evidence)
        except _OtherForm as exc:
            form = exc.form


class _OtherForm(MemberError):
    """The member has to be read again, in another form."""

    def __init__(self, form: Form) -> None:
        super().__init__(f"unsteady: found a member that reads otherwise the second time, as {form.codec.name}")
        self.form = form


# Reading


def _batches(content: Content, form: Form) -> Iterator[pa.RecordBatch | Fault]:
    """Records as batches of string columns, and those with another number of fields. Raises MemberError and _OtherForm."""
    import pyarrow as pa

    faults: list[Fault] = []
    with Utf8(content.open(), form.codec) as source:
        try:
            _skip(source, form.header_bytes)
            for batch in _reader(source, form, faults):
                yield from faults
                faults.clear()
                for start in range(0, batch.num_rows, BLOCK_ROWS):
                    yield batch.slice(start, BLOCK_ROWS)
        except MemberError as exc:
            if form.codec.certain or not source.undecodable or not source.ascii:
                raise
            raise _OtherForm(replace(form, codec=Codec(guess(source.undecodable)))) from exc
        except pa.ArrowException as exc:
            raise _other_block(content.limits, form, exc) from exc
    yield from faults


def _skip(source: Utf8, size: int) -> None:
    while size > 0 and (data := source.read(size)):
        size -= len(data)


def _reader(source: Utf8, form: Form, faults: list[Fault]) -> Iterator[pa.RecordBatch]:
    """All columns as strings, their names their numbers; nothing but an empty unquoted field is null."""
    import pyarrow as pa
    from pyarrow import csv as arrow

    names = [str(number) for number in range(len(form.names))]
    try:
        reader = arrow.open_csv(
            pa.PythonFile(source, "r"),
            arrow.ReadOptions(use_threads=False, block_size=form.block_bytes, column_names=names),
            arrow.ParseOptions(
                delimiter=form.delimiter,
                quote_char=form.quote,
                newlines_in_values=True,
                invalid_row_handler=partial(_note, faults, form.header_lines),
            ),
            arrow.ConvertOptions(
                check_utf8=False,
                column_types=dict.fromkeys(names, pa.string()),
                null_values=[""],
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
            ),
        )
    except pa.ArrowInvalid as exc:
        if "Empty CSV file" in str(exc):
            return
        raise
    with reader:
        yield from reader


def _note(faults: list[Fault], before: int, record: Any) -> str:
    """Called by Arrow, maybe in another thread, for a record with another number of fields."""
    text = record.text if len(record.text) <= _SHOWN else record.text[:_SHOWN] + "..."
    faults.append(
        Fault(f"record {before + record.number}: found {record.actual_columns} fields, expected {record.expected_columns}: {text}")
    )
    return "skip"


def _other_block(limits: Limits, form: Form, exc: Exception) -> MemberError:
    if "straddling" not in str(exc):
        return MemberError(f"not CSV: {str(exc).splitlines()[0][:_SHOWN]}")
    # in a quoted field every byte may be a quote, which is written twice
    enough = min(len(form.names) * (2 * limits.csv_field_bytes + 3), limits.whole_bytes, 256 << 20)
    if form.block_bytes < enough:
        return _OtherForm(replace(form, block_bytes=min(form.block_bytes * 8, enough)))
    return _too_long(f"a record of more than {form.block_bytes} bytes", limits)


# Rows


def _block(batch: pa.RecordBatch, names: tuple[str, ...], kinds: tuple[Kind, ...], with_pairs: bool) -> Block:
    texts = [_present(values, kind.missing) for values, kind in zip(batch.columns, kinds, strict=True)]
    columns = {name: _COLUMNS[kind.name](values) for name, kind, values in zip(names, kinds, texts, strict=True)}
    return Block(batch.num_rows, columns, _pairs(names, kinds, texts) if with_pairs else None)


def _present(values: pa.Array, missing: tuple[str, ...]) -> pa.Array:
    """The texts of a column, null where its value is missing."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not missing:
        return values
    return pc.if_else(_is_word(values, missing), pa.scalar(None, pa.string()), values)


def _mask(values: pa.Array) -> np.ndarray[Any, Any] | None:
    return np.asarray(values.is_null()) if values.null_count else None


def _integers(values: pa.Array) -> Column:
    import pyarrow as pa

    return Scalars(values.cast(pa.int64()).fill_null(0).to_numpy(), "<i8", _mask(values))


def _floats(values: pa.Array) -> Column:
    import pyarrow as pa

    return Scalars(values.cast(pa.float64()).fill_null(float("nan")).to_numpy(), "<f8")


def _booleans(values: pa.Array) -> Column:
    import pyarrow.compute as pc

    truth = pc.equal(pc.ascii_lower(values), "true").fill_null(False)
    return Scalars(truth.to_numpy(zero_copy_only=False), "|b1", _mask(values))


def _strings(values: pa.Array) -> Column:
    """Arrow's own buffers: the bytes one after the other, and the differences of the offsets."""
    _, offsets, data = values.buffers()
    ends = np.frombuffer(offsets, np.int32)[values.offset : values.offset + len(values) + 1]
    text = data.slice(ends[0], ends[-1] - ends[0]).to_pybytes() if data is not None else b""
    return Strings(text, np.diff(ends).astype(np.int64), _mask(values))


_COLUMNS: dict[str, Callable[[Any], Column]] = {"integer": _integers, "float": _floats, "boolean": _booleans, "string": _strings}
_PAIR_TYPES = {"integer": PairType.INTEGER, "float": PairType.NUMBER, "boolean": PairType.BOOLEAN, "string": PairType.STRING}


def _pairs(names: tuple[str, ...], kinds: tuple[Kind, ...], texts: list[Any]) -> Pairs:
    """Every field, record by record, as it is written; a missing one is null."""
    import pyarrow as pa

    rows = len(texts[0])
    fields = [value for record in zip(*(values.cast(pa.binary()).to_pylist() for values in texts), strict=True) for value in record]
    of_columns = [_PAIR_TYPES[kind.name] for kind in kinds] * rows
    types = [PairType.NULL if value is None else kind for value, kind in zip(fields, of_columns, strict=True)]
    return Pairs(np.repeat(np.arange(rows), len(names)).tolist(), list(names) * rows, [value or b"" for value in fields], types)
