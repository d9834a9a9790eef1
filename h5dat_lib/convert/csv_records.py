"""A table's bytes and its form in -> its records as Arrow's batches out, with faults for those that have another number of fields."""

from __future__ import annotations

import bisect
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

import numpy as np

from h5dat_lib.archive.member import Content
from h5dat_lib.columns import Fault
from h5dat_lib.config import Limits
from h5dat_lib.convert.csv_form import Form, too_long_record
from h5dat_lib.convert.csv_rewrite import Rewriter
from h5dat_lib.convert.encoding import Codec, Utf8, guess
from h5dat_lib.errors import MemberError

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow import csv as arrow

_SHOWN = 200
_BLOCK_BYTES_AT_MOST = 256 << 20
_CLOSING = "\x1e"
"""What the record begins with that is put behind the last one; it is made to separate records, and nobody uses it."""


class _Source(Protocol):
    """What bytes are read from: some, at most ``size``, and none at the end."""

    def read(self, size: int, /) -> bytes: ...


class OtherForm(MemberError):
    """The member has to be read again, in another form."""

    def __init__(self, form: Form) -> None:
        super().__init__(f"unsteady: found a member that reads otherwise the second time, as {form.codec.name}")
        self.form = form


@dataclass(frozen=True, slots=True)
class Wanted:
    """What of the fields is wanted: the first ``types``, each as this Arrow type, with ``decimal`` in floats.

    ``fill``: records with another number of fields are filled up, or lose what they have beyond; with ``rest`` that becomes one more
    column of strings, as it is written. Otherwise they are faults.
    """

    types: tuple[Any, ...]
    decimal: str = "."
    fill: bool = False
    rest: bool = False


def read_records(content: Content, form: Form, wanted: Wanted) -> Iterator[pa.RecordBatch | Fault]:
    """Batches of the records that end in each ``form.block_bytes``; nothing but an empty unquoted field is null.

    Raises OtherForm when the encoding is another than the start of the member had, or a record is longer than a block, and MemberError
    when it is longer than the limits allow, or when quotes are not closed.
    """
    import pyarrow as pa

    with _opened(content, form) as source:
        try:
            yield from _read(source, form, content.limits, wanted)
        except MemberError as exc:
            if form.codec.certain or not isinstance(source, Utf8) or not source.undecodable or not source.ascii:
                raise
            raise OtherForm(replace(form, codec=Codec(guess(source.undecodable)))) from exc
        except pa.ArrowException as exc:
            raise _other_block(content.limits, form, exc) from exc


def _opened(content: Content, form: Form) -> BinaryIO | Utf8:
    """The member as UTF-8; one that has been read to its end before, and checked with that, as it is."""
    if content.size < 0 or form.codec.name != "utf-8":
        return Utf8(content.open(), form.codec)
    stream = content.open() if content.small else content.reopen()
    stream.read(form.codec.bom)
    return stream


def _read(source: _Source, form: Form, limits: Limits, wanted: Wanted) -> Iterator[pa.RecordBatch | Fault]:
    import pyarrow as pa
    from pyarrow import csv as arrow

    ragged = _Ragged(form)
    names = [str(number) for number in range(len(form.names))]
    used = names[: len(wanted.types)]
    reading = arrow.ReadOptions(use_threads=False, block_size=form.block_bytes, column_names=names)
    conversion = arrow.ConvertOptions(
        check_utf8=False,
        column_types=dict(zip(used, wanted.types, strict=True)),
        include_columns=used,
        null_values=[""],
        strings_can_be_null=True,
        quoted_strings_can_be_null=False,
        decimal_point=wanted.decimal,
    )
    take = _Filler(ragged, reading, conversion, wanted.rest).take if wanted.fill else ragged.take
    stream = pa.PythonFile(_Stream(_records(source, form, limits, ragged.closing)), "r")
    with arrow.open_csv(stream, reading, _parsing(form, ragged.note), conversion) as reader:
        for batch in reader:
            yield from take(batch)
        ragged.check_closed()
        yield from take(pa.RecordBatch.from_pylist([], schema=reader.schema), last=True)


def _parsing(form: Form, note: Any = None) -> arrow.ParseOptions:
    from pyarrow import csv as arrow

    return arrow.ParseOptions(
        delimiter=form.delimiter,
        quote_char=form.quote,
        newlines_in_values=True,
        ignore_empty_lines=note is not None,
        invalid_row_handler=note,
    )


def _other_block(limits: Limits, form: Form, exc: Exception) -> MemberError:
    if "straddling" not in str(exc):  # Arrow's word for a record that is longer than a block; it has no exception of its own
        return MemberError(f"not CSV: {str(exc).splitlines()[0][:_SHOWN]}")
    enough = _record_bytes(form, limits)
    if form.block_bytes < enough:
        return OtherForm(replace(form, block_bytes=min(form.block_bytes * 8, enough)))
    return too_long_record(form.block_bytes, limits)


def _record_bytes(form: Form, limits: Limits) -> int:
    """How long a record may be: in a quoted field every byte may be a quote, which is written twice."""
    return min(len(form.names) * (2 * limits.csv_field_bytes + 3), limits.whole_bytes, _BLOCK_BYTES_AT_MOST)


# Bytes


def _records(source: _Source, form: Form, limits: Limits, closing: str) -> Iterator[bytes]:
    """The bytes of the records as RFC 4180 has them, and of the closing record."""
    _skip(source, form.lead)
    if form.quirks:
        most = max(_record_bytes(form, limits), form.block_bytes)
        rewriter = Rewriter(form.quirks, form.delimiter, form.quote, most)
        source = _Stream(rewriter.rewrite(_chunks(source, form.block_bytes)))
    _skip(source, form.header_bytes)
    yield from _chunks(source, form.block_bytes)
    yield f"\n{closing}\n".encode()


def _chunks(source: _Source, size: int) -> Iterator[bytes]:
    while data := source.read(size):
        yield data


def _skip(source: _Source, size: int) -> None:
    while size > 0 and (data := source.read(size)):
        size -= len(data)


class _Stream:
    """Chunks of bytes as what Arrow takes for a file."""

    closed = False

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._ready = b""

    def read(self, size: int) -> bytes:
        """As many bytes, fewer at the end."""
        parts, missing = [self._ready], size - len(self._ready)
        while missing > 0 and (chunk := next(self._chunks, None)) is not None:
            parts.append(chunk)
            missing -= len(chunk)
        data = b"".join(parts) if self._ready or len(parts) > 2 else parts[-1]
        self._ready = data[size:]
        return data[:size]

    def close(self) -> None: ...


# Records with another number of fields


@dataclass(slots=True)
class _Ragged:
    """The records with another number of fields that Arrow has met and of which nothing has been made yet.

    Behind the last record of a member stands the closing one, which has a field too many as well. When it has not been met at the end,
    it lies within quotes that were never closed.
    """

    form: Form
    records: list[tuple[int, int, str]] = field(default_factory=list)
    """Number, from 1, number of fields, text."""
    closed: bool = False

    @property
    def closing(self) -> str:
        """The closing record."""
        return _CLOSING + self.form.delimiter * len(self.form.names)

    def note(self, record: Any) -> str:
        """Called by Arrow, maybe in another thread."""
        self.closed = record.text == self.closing
        if not self.closed:
            self.records.append((record.number, record.actual_columns, record.text))
        return "skip"

    def check_closed(self) -> None:
        """Raises MemberError when quotes were not closed at the end."""
        if not self.closed:
            raise MemberError("not CSV: found quotes that are opened and never closed")

    def take(self, batch: pa.RecordBatch, last: bool = False) -> Iterator[pa.RecordBatch | Fault]:
        """Each of the records as a fault, and the batch as it is."""
        expected = len(self.form.names)
        for number, fields, text in self.records:
            shown = text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
            yield Fault(f"record {self.form.header_lines + number}: found {fields} fields, expected {expected}: {shown}")
        self.records.clear()
        if not last:
            yield batch


class _Filler:
    """Puts the records with another number of fields back between the others, as `Wanted` says."""

    def __init__(self, ragged: _Ragged, reading: arrow.ReadOptions, conversion: arrow.ConvertOptions, rest: bool) -> None:
        form = ragged.form
        d, q = re.escape(form.delimiter), re.escape(form.quote)
        self._ragged = ragged
        self._reading = reading
        self._conversion = conversion
        self._rest = rest
        self._whole = 0
        self._filled = 0
        self._fields = re.compile(rf"(?:(?:{q}(?:[^{q}]++|{q}{q})*+{q})?+[^{d}]*+{d}){{{len(form.names)}}}")

    def take(self, batch: pa.RecordBatch, last: bool = False) -> Iterator[pa.RecordBatch]:
        """The batch with the records that belong into it; those behind its end are left for the next, unless it is the last."""
        import pyarrow as pa

        records, rows = self._ragged.records, batch.num_rows
        # Of the records before the one with this number, so many were whole and in earlier batches, and so many were filled up.
        places = [number - 1 - self._whole - self._filled - nth for nth, (number, _, _) in enumerate(records)]
        count = len(records) if last else bisect.bisect_left(places, rows)
        self._whole += rows
        self._filled += count
        if self._rest:
            batch = _with_rest(batch, pa.nulls(rows, pa.string()))
        if count:
            order = np.insert(np.arange(rows), places[:count], np.arange(rows, rows + count))
            batch = pa.concat_batches([batch, self._parsed(records[:count])]).take(pa.array(order))
            del records[:count]
        yield batch

    def _parsed(self, records: list[tuple[int, int, str]]) -> pa.RecordBatch:
        import pyarrow as pa
        from pyarrow import csv as arrow

        width = len(self._ragged.form.names)
        texts, rests = zip(*(self._split(text, width - fields) for _, fields, text in records), strict=True)
        data = io.BytesIO(("\n".join(texts) + "\n").encode())
        parsed = arrow.read_csv(data, self._reading, _parsing(self._ragged.form), self._conversion)
        [batch] = parsed.combine_chunks().to_batches()
        return _with_rest(batch, pa.array(rests, pa.string())) if self._rest else batch

    def _split(self, text: str, missing: int) -> tuple[str, str | None]:
        """A record with the right number of fields, and what it has beyond them."""
        if missing > 0:
            return text + self._ragged.form.delimiter * missing, None
        found = self._fields.match(text)
        if found is None:
            raise MemberError(f"not CSV: found a record that cannot be split: {text[:_SHOWN]}")
        return found[0][:-1], text[found.end() :]


def _with_rest(batch: pa.RecordBatch, rest: pa.Array) -> pa.RecordBatch:
    return batch.append_column("rest", rest)
