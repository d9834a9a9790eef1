"""The start of a table in -> how it is written out: encoding, delimiter, quirks, header, names of the columns."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import PurePosixPath

from h5dat_lib.archive.member import Content
from h5dat_lib.config import Limits, TableOptions
from h5dat_lib.convert.csv_rewrite import Quirks, Rewriter, find_quirks
from h5dat_lib.convert.encoding import SAMPLE_BYTES, Codec, detect, to_text
from h5dat_lib.errors import MemberError

BLOCK_BYTES = 2 << 20
"""Bytes of CSV that are parsed at a time; a block has the rows that end in them. Raised eightfold while a record is longer."""

_DELIMITERS = (",", "\t", ";", "|")
_BY_EXTENSION = {".tsv": "\t", ".tab": "\t", ".psv": "|"}
_NAMELESS = (".del",)
"""IBM Db2's EXPORT writes no names (Db2 documentation, "Delimited ASCII (DEL) file format")."""
_NONE = "\x1f"
"""What stands for the delimiter of a table of one column; it is made to separate units, and nobody uses it."""
_ALIKE = 0.5
"""Share of the records that have to have one number of fields, for a delimiter to be taken for one."""
_SEPARATOR = re.compile(r'"?sep=([\x01-\x09\x0b\x0c\x0e-\x7f])"?(?:\r\n?|\n)', re.IGNORECASE)
"""The first line by which Excel is told the delimiter."""
_ESCAPE = re.compile(r"\\.", re.DOTALL)
_REMARKS = re.compile(r"(?:#[^\r\n]*(?:\r\n?|\n)|[\r\n])*")
_TYPED = re.compile(r"[+-]?(\d+([.,]\d*)?|[.,]\d+)([eE][+-]?\d+)?|\d{4}-\d\d-\d\d([T ]\d\d:\S+)?|true|false", re.IGNORECASE)
"""Fields that name no column: numbers, dates and truth values."""
_YEAR = re.compile(r"(18|19|20|21)\d\d")
_VOTERS = 200
"""Records below the first that are looked at to tell whether it names the columns."""


@dataclass(frozen=True, slots=True)
class Form:
    """How a member is written, as UTF-8 without a byte order mark.

    The first ``lead`` bytes are no records, nor are the next ``header_bytes``, counted after rewriting: ``header_lines`` lines with
    the names. ``names`` are those of all fields of a record; the last ``nameless`` of them were made up.
    """

    codec: Codec
    delimiter: str
    quote: str
    quirks: Quirks
    lead: int
    header_bytes: int
    header_lines: int
    names: tuple[str, ...]
    nameless: int
    block_bytes: int = BLOCK_BYTES


Records = list[tuple[list[str], int]]
"""The fields of records, and the number of lines up to the end of each."""


def find_form(content: Content, options: TableOptions) -> Form:
    """How a member is written, by its first `SAMPLE_BYTES`, or as many as hold two records.

    Raises MemberError when it holds none, is no text, or has more columns or longer fields than the limits allow.
    """
    extension = PurePosixPath(content.member.path.lower()).suffix
    expected = _BY_EXTENSION.get(extension, ",")
    wanted = False if options.header is None and extension in _NAMELESS else options.header
    codec, text, complete = _sample(content, options, expected)
    lead, told = _lead(text, options, expected)
    text = text[len(lead) :]
    delimiter = told or _delimiter(text, complete, options.quote, expected)
    quirks = find_quirks(text, delimiter, options.quote, options.comment or "")
    text = _plain(text, quirks, delimiter, options.quote)
    records = _records(text, delimiter, options.quote)
    if not records:
        raise _too_long("no end of the first record", content.limits) if text.strip("\r\n") else MemberError("empty: found no records")
    check_record(records[0][0], content.limits)
    # The last record of a sample may be cut.
    whole = [fields for fields, _ in (records if complete or len(records) < 3 else records[:-1])]
    header = _has_header(whole) if wanted is None else wanted
    fields = _completed(whole) if header else _unnamed(whole[0], "" if wanted is False else lead, delimiter, options.quote)
    lines = records[0][1] if header else 0
    return Form(
        codec=codec,
        delimiter=delimiter,
        quote=options.quote,
        quirks=quirks,
        lead=len(lead.encode()),
        header_bytes=sum(len(line.encode()) for line in islice(io.StringIO(text, newline=""), lines)),
        header_lines=lines,
        names=unique_names(fields),
        nameless=next((number for number, field in enumerate(reversed(fields)) if field.strip()), len(fields)),
    )


def _sample(content: Content, options: TableOptions, expected: str) -> tuple[Codec, str, bool]:
    """The codec, the first `SAMPLE_BYTES` as text, or as much as holds one record, and whether that is all."""
    # this is the process's own: it may be higher already, and is only raised
    csv.field_size_limit(max(csv.field_size_limit(), content.limits.csv_field_bytes))
    with content.open() as stream:
        data = stream.read(SAMPLE_BYTES)
        complete = len(data) < SAMPLE_BYTES
        codec = detect(data, options.encoding, complete)
        text = to_text(data, codec, complete)
        while not complete and len(records := _behind_lead(text, options, expected)) < 2:
            _check_start(records, len(data), content.limits)
            wanted = len(data) * 7
            more = stream.read(wanted)
            complete = len(more) < wanted
            data += more
            text = to_text(data, codec, complete)
    return codec, text, complete


def _behind_lead(text: str, options: TableOptions, expected: str) -> Records:
    lead, told = _lead(text, options, expected)
    return _records(text[len(lead) :], told or expected, options.quote)


def _check_start(records: Records, size: int, limits: Limits) -> None:
    """Raises MemberError when more than the first ``size`` bytes, in which at most one record has begun, need not be looked at."""
    for fields, _ in records:
        check_record(fields, limits)
    if size > (limits.whole_bytes if records else 2 * limits.csv_field_bytes):
        raise _too_long(f"no end of the first record in {size} bytes", limits)


def check_record(fields: list[str], limits: Limits) -> None:
    """Raises MemberError when a record has more or longer fields than the limits allow."""
    if len(fields) > limits.csv_columns:
        raise MemberError(f"too many columns: found {len(fields)} or more, expected at most {limits.csv_columns} (limits.csv_columns)")
    check_field(max(map(len, fields)), limits)


def check_field(size: int, limits: Limits) -> None:
    """Raises MemberError when a field of ``size`` bytes is longer than the limits allow."""
    if size > limits.csv_field_bytes:
        raise _too_long(f"a field of {size} bytes or more", limits)


def too_long_record(size: int, limits: Limits) -> MemberError:
    """What to raise for a record of more than ``size`` bytes."""
    return _too_long(f"a record of more than {size} bytes", limits)


def _too_long(found: str, limits: Limits) -> MemberError:
    expected = f"fields of at most {limits.csv_field_bytes} bytes (limits.csv_field_bytes) and quotes that are closed"
    return MemberError(f"too large: found {found}, expected {expected}")


def _plain(text: str, quirks: Quirks, delimiter: str, quote: str) -> str:
    """A sample as RFC 4180 has it."""
    if not quirks:
        return text
    data = text.encode()
    return b"".join(Rewriter(quirks, delimiter, quote, len(data)).rewrite([data])).decode()


def _records(text: str, delimiter: str, quote: str) -> Records:
    """The records of a sample; those after an over-long field are left out."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, quotechar=quote)
    records: Records = []
    with suppress(csv.Error):  # longer than csv.field_size_limit(): no form can be told from it
        records.extend((fields, reader.line_num) for fields in reader if fields)
    return records


# What comes before the records


def _lead(text: str, options: TableOptions, expected: str) -> tuple[str, str | None]:
    """The text before the first record, and the delimiter where it is told: Excel's ``sep=`` line, or lines that start with #.

    A line that has as many fields as the next is none of those, as a header may start with #, and so may a record; with a space behind
    the # it is.
    """
    if found := _SEPARATOR.match(text):
        if options.delimiter in (None, found[1]):
            return found[0], found[1]
        return found[0], options.delimiter
    if options.comment is not None or not text.lstrip("\r\n").startswith("#"):
        return "", options.delimiter
    lines = (_REMARKS.match(text) or [""])[0].splitlines(keepends=True)
    first = text[sum(map(len, lines)) :].partition("\n")[0]
    while lines and _may_be_record(lines[-1], first, options.delimiter or expected):
        first = lines.pop()
    return "".join(lines), options.delimiter


def _may_be_record(line: str, following: str, expected: str) -> bool:
    """Whether a line that starts with # has as many fields as the next, by any delimiter or by none at all; or whether none follows."""
    if line[1:2] in ("", " ", "#", "!", "\r", "\n"):
        return False
    counts = [(line.count(mark), following.count(mark)) for mark in (expected, *_DELIMITERS)]
    return not following or not any(map(any, counts)) or any(0 < count == behind for count, behind in counts)


def _unnamed(first: list[str], lead: str, delimiter: str, quote: str) -> list[str]:
    """The fields of the header that records without one have: those of the last remark, as numpy.savetxt writes it, or empty ones."""
    remark = lead.splitlines()[-1:]
    fields = next(csv.reader([line.lstrip("#").strip(" ") for line in remark], delimiter=delimiter, quotechar=quote), [])
    return fields if len(fields) == len(first) and remark[0].startswith("#") else [""] * len(first)


# Delimiter


def _delimiter(text: str, complete: bool, quote: str, expected: str) -> str:
    """The candidate that gives the most records the same number of fields, more than one; on a tie the expected one, then in order."""
    best, score = _NONE, 0.0
    texts = {text, _ESCAPE.sub("", text)}
    for candidate in dict.fromkeys((expected, *_DELIMITERS)):
        alike = max(_alike(text, candidate, quote, complete) for text in texts) if candidate in text else 0.0
        if alike > score:
            best, score = candidate, alike
    return best if score >= _ALIKE else _NONE


def _alike(text: str, delimiter: str, quote: str, complete: bool) -> float:
    records = _records(text, delimiter, quote)
    counts = [len(fields) for fields, _ in (records if complete or len(records) < 2 else records[:-1])]
    usual, share = max(Counter(counts).items(), key=lambda found: (found[1], found[0]), default=(1, 0))
    return share / len(counts) if usual > 1 else 0.0


# Header


def _has_header(records: list[list[str]]) -> bool:
    """Whether the first record names the columns.

    Every column that holds nothing but numbers, dates or truth values below has a vote: for, when its first field is none of them;
    against, when it is one. A year there is no vote, as it may be either. When that leaves it open, the first record is a header.
    """
    names, rest = _completed(records), records[1 : 1 + _VOTERS]
    votes = 0
    for at, field in enumerate(names):
        below = [fields[at] for fields in rest if len(fields) == len(names) and fields[at]]
        if all(map(_TYPED.fullmatch, below)) and field and not _YEAR.fullmatch(field):
            votes += -1 if _TYPED.fullmatch(field) else bool(below)
    return votes >= 0


def _completed(records: list[list[str]]) -> list[str]:
    """The fields of the header; one more where all records have one more.

    That is the last one where it is always empty, as the delimiter then ends each line. Otherwise it is the first one, which holds the
    names of the rows and has none itself: R's write.table leaves it out.
    """
    first, rest = records[0], records[1:]
    if not rest or any(len(fields) != len(first) + 1 for fields in rest):
        return first
    return ["", *first] if any(fields[-1] for fields in rest) else [*first, ""]


def unique_names(fields: Sequence[str]) -> tuple[str, ...]:
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
