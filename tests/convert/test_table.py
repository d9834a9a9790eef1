import csv
import io
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from h5dat_lib.columns import Block, Fault, PairType, Scalars, Strings
from h5dat_lib.config import Limits, MediumOptions, TableOptions
from h5dat_lib.convert import csv_form, handler_for, table
from h5dat_lib.errors import MemberError
from tests.convert.conftest import content_of, converted, kept


def values(column: Any) -> list[Any]:
    """The values of a column as Python's; None where missing."""
    if isinstance(column, Strings):
        ends = np.cumsum(column.lengths)
        found = [column.data[end - length : end].decode() for end, length in zip(ends, column.lengths, strict=True)]
    else:
        assert column.values.dtype.str == column.dtype
        found = [None if isinstance(value, float) and math.isnan(value) else value for value in column.values.tolist()]
    missing = column.missing if column.missing is not None else [False] * len(found)
    return [None if gone else value for value, gone in zip(found, missing, strict=True)]


def read(data: bytes | str, path: str = "a.csv", limits: Limits | None = None, **options: Any) -> tuple[dict[str, list[Any]], list[str]]:
    """All rows by column name, and the faults."""
    parts = converted(
        data.encode() if isinstance(data, str) else data, path, MediumOptions(table=TableOptions(**options)), limits, streamed=True
    )
    blocks = [part for part in parts if isinstance(part, Block)]
    rows = {name: [value for block in blocks for value in values(block.columns[name])] for name in blocks[0].columns}
    return rows, [part.reason for part in parts if isinstance(part, Fault)]


def column(*fields: str, **options: Any) -> list[Any]:
    return read("".join(f"{field}\n" for field in ("x,y", *(f"{field},end" for field in fields))), header=True, **options)[0]["x"]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (["1", "-2", "0", "9223372036854775807", "-9223372036854775808"], [1, -2, 0, 2**63 - 1, -(2**63)]),
        (["1", "", "NA"], [1, None, None]),
        (["1", "2.5", "1e3", "-.5", "+1.5", "-0"], [1.0, 2.5, 1000.0, -0.5, 1.5, -0.0]),
        (["1.5", "", "nan"], [1.5, None, None]),
        (["true", "FALSE", "True", "", "null"], [True, False, True, None, None]),
        (["", "", ""], [None, None, None]),
        (["NA", ""], ["NA", None]),
        (["a", "NA", "", '""'], ["a", "NA", None, ""]),
        (["1", '""'], ["1", ""]),
        (["true", "1"], ["true", "1"]),
        (["1", " 2"], ["1", " 2"]),
    ],
)
def test_a_column_has_the_type_that_all_its_values_have(fields: list[str], expected: list[Any]) -> None:
    found = column(*fields)
    assert found == expected
    assert [type(value) for value in found] == [type(value) for value in expected]


@pytest.mark.parametrize(
    "odd", ["007", "-0", "+5", "9223372036854775808", "0x1F", "1_0", "\u0661", "inf", "1e999", "00.5", "-01.5", "1.2.3"]
)
def test_what_would_not_come_back_as_it_was_stays_a_string(odd: str) -> None:
    expected: list[Any] = ["3", odd] if odd != "-0" else [3.0, 0.0]
    assert column("3", odd) == expected


def test_one_late_value_decides_over_all_rows() -> None:
    rows = "".join(f"{n},{n}\n" for n in range(100_000))
    found, _ = read("a,b\n" + rows + "x,0.5\n")
    assert found["a"][-2:] == ["99999", "x"]
    assert found["b"][-2:] == [99999.0, 0.5]


def test_blocks_have_a_bounded_number_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = converted(b"a\n" + b"1\n" * 150_000, "a.csv")
    assert sum(block.rows for block in blocks) == 150_000
    assert max(block.rows for block in blocks) <= table.BLOCK_ROWS


def test_missing_words_are_the_users() -> None:
    assert column("1", "-999", missing=("-999",)) == [1, None]
    assert column("1", "NA", missing=()) == ["1", "NA"]
    assert column("1", '""', missing=("",)) == [1, None]


fields = (
    st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
    | st.integers().map(str)
    | st.sampled_from(["NA", "true", "", "1.5", "007"])
)


@given(
    st.integers(1, 4).flatmap(lambda width: st.lists(st.lists(fields, min_size=width, max_size=width), min_size=1, max_size=8)),
    st.sampled_from(",\t;|"),
    st.sampled_from(["\n", "\r\n"]),
)
def test_what_the_csv_module_writes_is_read_back(records: list[list[str]], delimiter: str, end: str) -> None:
    file = io.StringIO(newline="")
    writer = csv.writer(file, delimiter=delimiter, lineterminator=end, quoting=csv.QUOTE_ALL)
    writer.writerows([[f"c{number}" for number in range(len(records[0]))], *records])
    found, faults = read(file.getvalue(), header=True, delimiter=delimiter, missing=())
    assert faults == []
    for number, written in enumerate(zip(*records, strict=True)):
        for text, value in zip(written, found[f"c{number}"], strict=True):
            assert value == (
                float(text)
                if isinstance(value, float)
                else text == "true"
                if isinstance(value, bool)
                else text
                if isinstance(value, str)
                else int(text)
            )
            assert not isinstance(value, int) or isinstance(value, bool) or str(value) == text


_CELLS: dict[str, st.SearchStrategy[Any]] = {
    "integer": st.integers(-(2**63), 2**63 - 1),
    "float": st.floats(allow_nan=False, allow_infinity=False),
    "boolean": st.booleans(),
    # Without \r, which the csv module before Python 3.13 leaves unquoted when it does not end its lines.
    "string": st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r"), min_size=1, max_size=8)
    | st.sampled_from(['"', "\n", "a,b", " x ", "\0"]),
}


@st.composite
def tables(draw: st.DrawFn) -> list[list[Any]]:
    """Columns of one type each, with values missing behind the first; the first string is none that could be a number."""
    rows = draw(st.integers(0, 12))
    kinds = draw(st.lists(st.sampled_from(list(_CELLS)), min_size=2, max_size=5))
    firsts = [draw(st.just("text") if kind == "string" else _CELLS[kind]) for kind in kinds]
    return [
        [first, *draw(st.lists(st.none() | _CELLS[kind], min_size=rows, max_size=rows))] for kind, first in zip(kinds, firsts, strict=True)
    ]


@settings(max_examples=150, deadline=None)
@given(tables(), st.sampled_from(",\t;|"), st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_NONNUMERIC]), st.sampled_from(["\n", "\r\n"]))
def test_a_table_of_any_values_comes_back_with_its_types(columns: list[list[Any]], delimiter: str, quoting: Any, end: str) -> None:
    file = io.StringIO(newline="")
    csv.writer(file, delimiter=delimiter, lineterminator=end).writerow([f"c{number}" for number in range(len(columns))])
    writer = csv.writer(file, delimiter=delimiter, lineterminator=end, quoting=quoting)
    # None is an empty field, unquoted, only among numbers or with the least quotes.
    empty = float("nan") if quoting == csv.QUOTE_NONNUMERIC else None
    for record in zip(*columns, strict=True):
        writer.writerow([empty if value is None else str(value) if isinstance(value, bool) else value for value in record])
    found, faults = read(file.getvalue(), header=True, delimiter=delimiter, missing=("nan",))
    assert faults == []
    for number, column in enumerate(columns):
        is_text = any(isinstance(value, str) for value in column)
        missing = "nan" if is_text and quoting == csv.QUOTE_NONNUMERIC else None
        assert found[f"c{number}"] == [missing if value is None else value for value in column]
        assert {type(value) for value in found[f"c{number}"]} - {type(None)} == {type(value) for value in column if value is not None}


def written(value: Any, column: Any) -> str:
    """A value as it is written again."""
    if value is None:
        return ""
    if isinstance(column, Scalars) and column.dtype.startswith("<M8"):
        text = str(np.datetime64(value, column.dtype[4:-1]))
        return text.replace("T", column.form[0]) + column.form[1:] if column.form else text
    return str(value).lower() if isinstance(value, bool) else str(value)


_TEXTS = {
    "integer": st.integers(-(2**63), 2**63 - 1).map(str),
    "float": st.floats(allow_nan=False, allow_infinity=False).map(str),
    "boolean": st.sampled_from(["true", "false"]),
    "string": st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r"), min_size=1, max_size=6),
    "code": st.sampled_from(["007", "00", "1,5", "+5", "0x1F", "1e999", "2024-02-30", "NA", "-", "9" * 25]),
    "day": st.dates().map(str),
    "second": st.datetimes().map(lambda time: time.isoformat(" ", "seconds")),
    "milli": st.datetimes().map(lambda time: time.isoformat("T", "milliseconds") + "Z"),
    "micro": st.datetimes().map(lambda time: time.isoformat(" ", "microseconds") + "+00:00"),
    "any": st.datetimes().map(lambda time: time.isoformat()),
}


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.sampled_from(list(_TEXTS)), min_size=2, max_size=5).flatmap(
        lambda kinds: st.lists(st.tuples(*(_TEXTS[kind] | st.just("") for kind in kinds)), min_size=1, max_size=8)
    ),
    st.sampled_from(",\t;|"),
    st.sampled_from(["\n", "\r\n", "\r"]),
)
def test_what_is_read_and_written_again_is_the_same_table(records: list[tuple[str, ...]], delimiter: str, end: str) -> None:
    assume(end != "\r" or not any("\n" in field for record in records for field in record))  # csv does not quote it there

    def text(rows: list[tuple[str, ...]]) -> str:
        file = io.StringIO(newline="")
        csv.writer(file, delimiter=delimiter, lineterminator=end).writerows([[f"c{n}" for n in range(len(rows[0]))], *rows])
        return file.getvalue()

    options = MediumOptions(table=TableOptions(delimiter=delimiter, header=True, decimal="."))
    [block] = converted(text(records).encode(), "a.csv", options)
    assert isinstance(block, Block)
    again = [[written(value, column) for value in values(column)] for column in block.columns.values()]
    for column, before, after in zip(block.columns.values(), zip(*records, strict=True), again, strict=True):
        # Words for "no value" and other ways to write a float do not come back.
        if isinstance(column, Strings) or column.dtype not in ("<f8", "|b1"):
            assert [field for field in after if field] == [
                field for field in before if field and (isinstance(column, Strings) or field != "NA")
            ]
    [second] = converted(text(list(zip(*again, strict=True))).encode(), "a.csv", options)
    assert isinstance(second, Block)
    assert [values(column) for column in second.columns.values()] == [values(column) for column in block.columns.values()]


@pytest.mark.parametrize(
    ("fields", "dtype", "form"),
    [
        (["2024-01-31", "0001-01-01", "9999-12-31"], "<M8[D]", ""),
        (["2024-01-31 12:30:45", "1969-12-31 23:59:59"], "<M8[s]", " "),
        (["2024-01-31T12:30:45Z"], "<M8[s]", "TZ"),
        (["2024-01-31T12:30:45.120"], "<M8[ms]", "T"),
        (["2024-01-31 12:30:45.123456+00:00"], "<M8[us]", " +00:00"),
        (["2024-01-31T12:30:45.123456789Z", "NA", ""], "<M8[ns]", "TZ"),
    ],
)
def test_dates_of_one_form_become_dates(fields: list[str], dtype: str, form: str) -> None:
    text = "x,y\n" + "".join(f"{field},z\n" for field in fields)
    [block] = converted(text.encode(), "a.csv")
    assert isinstance(block, Block)
    column = block.columns["x"]
    assert isinstance(column, Scalars) and (column.dtype, column.form) == (dtype, form)
    assert np.isnat(np.asarray(column.values)).tolist() == [field in ("NA", "") for field in fields]


@pytest.mark.parametrize(
    "fields",
    [
        ["2024-02-30"],
        ["0000-01-01"],
        ["2024-1-31"],
        ["01/31/2024"],
        ["2024-01-31 24:00:00"],
        ["2024-01-31 23:59:60"],
        ["2024-01-31 12:30"],
        ["2024-01-31 12:30:45.5"],
        ["2024-01-31T12:30:45+01:00"],
        ["2024-01-31", "2024-01-31 12:30:45"],
        ["2024-01-31 12:30:45", "2024-01-31T12:30:45"],
        ["2024-01-31T12:30:45Z", "2024-01-31T12:30:45"],
        ["2024-01-31T12:30:45.123", "2024-01-31T12:30:45.123456"],
        ["1500-01-31T12:30:45.123456789"],
    ],
)
def test_dates_that_would_not_come_back_as_they_were_stay_strings(fields: list[str]) -> None:
    assert column(*fields) == fields


def test_dates_can_be_left_as_they_are() -> None:
    assert column("2024-01-31", dates=False) == ["2024-01-31"]


@pytest.mark.parametrize(
    ("delimiter", "fields", "expected"),
    [
        (";", ["1,5", "-2", "1e3"], [1.5, -2.0, 1000.0]),
        ("\t", ["1,5", "0,125"], [1.5, 0.125]),
        (";", ["1,234", "2,345"], ["1,234", "2,345"]),
        (";", ["1.234,5", "2,5"], ["1.234,5", "2,5"]),
        (";", ["1,234,567", "2,5"], ["1,234,567", "2,5"]),
        (";", ["1,5", "2.5"], ["1,5", "2.5"]),
        (";", ["1.5", "2.5"], [1.5, 2.5]),
        (";", ["1.234", "2.345"], [1.234, 2.345]),
        (",", ['"1,5"', '"2,5"'], ["1,5", "2,5"]),
    ],
)
def test_commas_are_decimal_where_they_cannot_be_anything_else(delimiter: str, fields: list[str], expected: list[Any]) -> None:
    data = "".join(f"{field}{delimiter}end\n" for field in ["x", *fields])
    assert read(data, header=True, delimiter=delimiter)[0]["x"] == expected


def test_a_table_has_one_decimal_separator() -> None:
    assert read("a;b;c\n1,5;1,234;1.234\n")[0] == {"a": [1.5], "b": [1.234], "c": ["1.234"]}
    assert read("a;b\n1,5;1.5\n")[0] == {"a": ["1,5"], "b": [1.5]}
    assert read('a,b\n"1,234",1.5\n', decimal=",")[0] == {"a": [1.234], "b": ["1.5"]}


def test_words_for_no_value_stand_in_columns_with_decimal_commas() -> None:
    assert read("a;b\n1,5;x\nNA;NA\n")[0] == {"a": [1.5, None], "b": ["x", "NA"]}


def test_zeros_in_front_are_of_numbers_only_where_each_has_a_sign() -> None:
    assert column("+00012.50", "-00001.25") == [12.5, -1.25]
    assert column("+00012.50", "1.25") == ["+00012.50", "1.25"]


def test_a_del_file_has_no_header() -> None:
    assert read('"a","b"\n"c","d"\n', "a.del")[0] == {"column_1": ["a", "c"], "column_2": ["b", "d"]}
    assert read('"a","b"\n"c","d"\n', "a.del", header=True)[0] == {"a": ["c"], "b": ["d"]}


@pytest.mark.parametrize("data", ['a,b\n1,2\n3,"x\n4,5\n', 'a,b\n1,2\n"3,x\n4,5\n', 'a\nx\n"y', 'a,b\n1,"'])
@pytest.mark.parametrize("ragged", ["reject", "fill"])
def test_a_quote_that_is_never_closed_is_a_member_error(data: str, ragged: str) -> None:
    with pytest.raises(MemberError, match="quotes that are opened and never closed"):
        read(data, ragged=ragged)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 4),
    st.lists(st.lists(st.text('ab",;\n ', max_size=8).map("x".__add__), min_size=1, max_size=6), min_size=1, max_size=60),
)
def test_ragged_records_are_filled_up_in_their_places(width: int, records: list[list[str]]) -> None:
    file = io.StringIO(newline="")
    csv.writer(file, lineterminator="\n").writerows([[f"c{number}" for number in range(width)], ["x"] * width, *records])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csv_form.Form.__init__, "__defaults__", (256,))
        found, faults = read(file.getvalue(), header=True, delimiter=",", ragged="fill")
    assert faults == []
    rows = [["x"] * width, *records]
    for number in range(width):
        assert found[f"c{number}"] == [record[number] if number < len(record) else None for record in rows]
    if any(len(record) > width for record in records):
        rests = [None if rest is None else next(csv.reader([*io.StringIO(rest, newline="")])) for rest in found["_rest"]]
        assert rests == [record[width:] or None for record in rows]
    else:
        assert "_rest" not in found


def test_filled_records_have_types_and_a_column_for_the_rest_that_is_free() -> None:
    found, faults = read("a,_rest\n1,2.5\n3\n4,5,6\n", ragged="fill")
    assert found == {"a": [1, 3, 4], "_rest": [2.5, None, 5.0], "_rest_2": [None, None, "6"]}
    assert faults == []


def test_columns_at_the_end_without_name_and_value_are_left_out() -> None:
    assert read("a,b,,\n1,,,\n2,,,\n")[0] == {"a": [1, 2], "b": [None, None]}
    assert read("a,b,,\n1,,,\n2,,NA,\n")[0] == {"a": [1, 2], "b": [None, None], "column_3": [None, "NA"]}
    assert read(",,\n,,\n", header=False)[0] == {"column_1": [None, None]}


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ("# made by hand, 2024\n\n# more\na,b\n1,2\n", {"a": [1], "b": [2]}),
        ("# a,b\n1,2\n3,4\n", {"a": [1, 3], "b": [2, 4]}),
        ("#a,b\n1,2\n", {"#a": [1], "b": [2]}),
        ("##x\n#a,b\n1,2\n", {"#a": [1], "b": [2]}),
        ("#love,12\n#cat,3\nword,4\n", {"column_1": ["#love", "#cat", "word"], "column_2": [12, 3, 4]}),
        ("#a\n#b\nc\n", {"#a": ["#b", "c"]}),
        ("#a,b\n", {"#a": [], "b": []}),
        ("a,b\n#c,1\n", {"a": ["#c"], "b": [1]}),
        ('"sep=;"\na,b;c\n1;2\n', {"a,b": [1], "c": [2]}),
        ("SEP=\t\na;b\tc\n1\t2\n", {"a;b": [1], "c": [2]}),
    ],
)
def test_lines_before_the_table_are_no_records(data: str, expected: dict[str, Any]) -> None:
    assert read(data) == (expected, [])


def test_remarks_longer_than_a_sample_are_passed_over() -> None:
    assert read("# remark\n" * 20_000 + "a,b\n1,é\n") == ({"a": [1], "b": ["é"]}, [])


@pytest.mark.parametrize("codec", ["utf-16-le", "utf-16-be"])
def test_utf16_needs_no_byte_order_mark(codec: str) -> None:
    assert read("# Größe\na,b\n1,Zürich\n2,東京\n".encode(codec))[0] == {"a": [1, 2], "b": ["Zürich", "東京"]}


def test_records_of_another_length_become_faults() -> None:
    found, faults = read("a,b\n1,2\n1,2,3\n4\n5,6\n" + "7," * 300 + "\n")
    assert found == {"a": [1, 5], "b": [2, 6]}
    assert faults[:2] == ["record 3: found 3 fields, expected 2: 1,2,3", "record 4: found 1 fields, expected 2: 4"]
    assert len(faults[2]) < 300


@pytest.mark.parametrize(
    ("data", "names"),
    [
        ("name,age\nx,3\n", ["name", "age"]),
        ("1,2\n3,4\n", ["column_1", "column_2"]),
        ("Alice,30\nBob,25\n", ["column_1", "column_2"]),
        ("5.1,3.5,setosa\n4.9,3.0,setosa\n", ["column_1", "column_2", "column_3"]),
        ("country,2019,2020\nDE,1,2\n", ["country", "2019", "2020"]),
        ("a,b\nc,d\n", ["a", "b"]),
        (",a,b\n0,1,2\n", ["column_1", "a", "b"]),
        ("a,a,a,a_2\n1,2,3,4\n", ["a", "a_3", "a_4", "a_2"]),
        ("column_2,\n1,2\n", ["column_2", "column_2_2"]),
        ('"two\nlines",b\n1,2\n', ["two\nlines", "b"]),
        ("\n\na,b\n1,2\n", ["a", "b"]),
        ("only\nx\n", ["only"]),
    ],
)
def test_names_come_from_the_header_or_are_numbered(data: str, names: list[str]) -> None:
    found, faults = read(data)
    assert list(found) == names
    assert faults == []


def test_the_header_can_be_told() -> None:
    assert read("1,2\n3,4\n", header=True)[0] == {"1": [3], "2": [4]}
    assert read("a,b\nc,d\n", header=False)[0] == {"column_1": ["a", "c"], "column_2": ["b", "d"]}


@pytest.mark.parametrize("delimiter", [",", "\t", ";", "|"])
@pytest.mark.parametrize("path", ["a.csv", "a.tsv"])
def test_the_delimiter_is_found(delimiter: str, path: str) -> None:
    data = "\n".join(delimiter.join(record) for record in (["name", "text", "n"], ["x", '"a,b;c|d\te"', "1"], ["y", "z", "2"]))
    assert read(data, path)[0] == {"name": ["x", "y"], "text": ["a,b;c|d\te", "z"], "n": [1, 2]}


def test_commas_within_numbers_do_not_split() -> None:
    assert read("a;b\n1,5;2,5\n3,1;4,2\n")[0] == {"a": [1.5, 3.1], "b": [2.5, 4.2]}


def test_text_with_some_commas_is_one_column() -> None:
    assert len(read("Dear all,\nthis is a text, with some, commas\nand lines\nof all kinds\n")[0]) == 1


@pytest.mark.parametrize("codec", ["utf-8-sig", "utf-16", "cp1252"])
def test_encodings_are_found(codec: str) -> None:
    data = "name;größe\nGenève;1\nMálaga;2\n".encode(codec)
    assert read(data)[0] == {"name": ["Genève", "Málaga"], "größe": [1, 2]}


def test_the_encoding_can_be_told() -> None:
    assert read("a,b\nЖ,1\n".encode("cp866"), encoding="cp866")[0]["a"] == ["Ж"]


def test_another_encoding_far_behind_is_found_while_all_before_is_ascii() -> None:
    found, _ = read(b"a,b\n" + b"1,x\n" * 60_000 + "2,Zürich\n3,Köln\n".encode("cp1252"))
    assert found["b"][-2:] == ["Zürich", "Köln"]


def test_damage_far_behind_in_utf8_is_a_member_error() -> None:
    with pytest.raises(MemberError, match="found byte 0xfc at 300006, expected utf-8"):
        read(b"a,b\n" + "1,é\n".encode() * 60_000 + b"2,\xfc\n")


@pytest.mark.parametrize("data", [b"", b"\n\n", b"\xef\xbb\xbf"])
def test_no_record_is_a_member_error(data: bytes) -> None:
    with pytest.raises(MemberError, match="empty: found no records"):
        read(data)


@pytest.mark.parametrize("data", ["a,b", "a,b\n", "a,b\r\n\r\n"])
def test_a_header_alone_gives_no_rows(data: str) -> None:
    assert read(data) == ({"a": [], "b": []}, [])


@pytest.mark.parametrize("data", [bytes(range(256)) * 20, b"\0\1\xff" * 9])
def test_binary_data_is_a_member_error(data: bytes) -> None:
    with pytest.raises(MemberError, match="not text"):
        read(data)


def test_nul_and_newlines_stay_in_strings() -> None:
    assert read('a,b\n\0,"x\ny"\n"\0z",2\n')[0] == {"a": ["\0", "\0z"], "b": ["x\ny", "2"]}


def test_a_record_longer_than_a_block_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_form.Form.__init__, "__defaults__", (1000,))
    found, faults = read('a,b\n1,"' + "x" * 20_000 + '"\n2,y\n')
    assert found == {"a": [1, 2], "b": ["x" * 20_000, "y"]}
    assert faults == []


def test_a_record_longer_than_the_limit_is_a_member_error() -> None:
    with pytest.raises(MemberError, match="too large"):
        read("a,b\n1,2\n" + '3,"' + "x" * (13 << 20), limits=Limits(whole_bytes=1 << 20))


def test_more_columns_than_hdf5_should_have_are_a_member_error() -> None:
    with pytest.raises(MemberError, match="too many columns: found 65537 or more, expected at most 10000"):
        read("," * 70_000 + "\n")


def test_a_codec_that_needs_a_byte_order_mark_says_so() -> None:
    with pytest.raises(MemberError, match=r"does not start with BOM, expected utf-16$"):
        read("a,b\n1,2\n".encode("utf-16-le"), encoding="utf-16")


def test_an_encoding_that_does_not_exist_is_a_member_error() -> None:
    with pytest.raises(MemberError):
        read("a,b\n1,2\n", encoding="none-such")


def test_pairs_hold_every_field_as_written() -> None:
    (block,) = converted(b"a,b\n1.50,x\nNA,\n", "a.csv", MediumOptions(table=TableOptions(pairs=True)))
    assert block.pairs is not None
    assert (list(block.pairs.rows), list(block.pairs.keys)) == ([0, 0, 1, 1], ["a", "b", "a", "b"])
    assert list(block.pairs.values) == [b"1.50", b"x", b"", b""]
    assert list(block.pairs.types) == [PairType.NUMBER, PairType.STRING, PairType.NULL, PairType.NULL]


@pytest.mark.parametrize(("held", "last", "opened"), [(1, "1,2", 2), (1, "1,2.5", 3), (1 << 30, "1,2.5", 2)])
def test_a_member_is_opened_once_to_look_and_read_again_only_when_it_does_not_go_on_as_it_begins(
    held: int, last: str, opened: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_form.Form.__init__, "__defaults__", (256,))
    monkeypatch.setattr(table, "_HELD_BYTES", held)
    content = content_of(b"a,b\n" + b"1,2\n" * 1000 + last.encode(), "a.csv", streamed=True)
    handler = handler_for(b"", "a.csv")
    assert handler is not None
    blocks = [part for part in kept(handler.convert(content, MediumOptions())) if isinstance(part, Block)]
    assert content._reader.opened == opened  # type: ignore[attr-defined]
    assert [value for block in blocks for value in values(block.columns["b"])] == [2] * 1000 + [float(last.partition(",")[2])]


_FIELDS = st.sampled_from(
    [
        "",
        "1",
        "-2",
        "007",
        "+03.5",
        "2.5",
        "2,5",
        "1.000",
        "1e3",
        "NA",
        "-999",
        "x",
        "true",
        "False",
        '""',
        "2026-01-02",
        "2026-01-02 03:04:05",
    ]
)


@settings(deadline=None)
@given(
    st.integers(1, 4).flatmap(
        lambda width: st.lists(
            st.lists(_FIELDS, min_size=width, max_size=width) | st.lists(_FIELDS, min_size=1, max_size=5), min_size=1, max_size=12
        )
    ),
    st.sampled_from(["reject", "fill"]),
    st.sampled_from([("NA", ""), ("NA", "-999")]),
    st.sampled_from([b"", b'"', b'"' + b"x" * 70 + b'"', "ä".encode("latin-1"), b"\0"]),
)
def test_a_member_that_is_guessed_at_gives_what_one_does_that_is_held(
    records: list[list[str]], ragged: str, missing: tuple[str, ...], end: bytes
) -> None:
    data = b"a;b;\n" + "".join(";".join(record) + "\n" for record in records).encode() + end
    options = {"ragged": ragged, "missing": missing}

    def found(held: int) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(csv_form.Form.__init__, "__defaults__", (64,))
            patch.setattr(table, "_HELD_BYTES", held)
            try:
                return repr(read(data, limits=Limits(csv_field_bytes=1000), **options))
            except MemberError as exc:
                return exc.reason

    assert found(1) == found(1 << 30)


def test_a_member_that_breaks_off_while_it_is_read_says_so() -> None:
    content = content_of(b"a,b\n" + b"1,2\n" * 1_000_000, "a.csv", Limits(member_bytes=3_000_000), streamed=True)
    handler = handler_for(b"", "a.csv")
    assert handler is not None
    with pytest.raises(MemberError, match="found more than 3000000 bytes"):
        list(handler.convert(content, MediumOptions()))


@pytest.mark.parametrize("row", [0, 1, 40_000])
def test_a_field_longer_than_the_limit_is_a_member_error(row: int) -> None:
    limits = Limits(csv_field_bytes=200_000)
    records = [f"{number},b\n" for number in range(50_000)]
    records[row] = '1,"' + "x" * 200_000 + '"\n'
    assert len(read("".join(records), header=False, limits=limits)[0]["column_1"]) == 50_000
    records[row] = '1,"' + "x" * 200_001 + '"\n'
    with pytest.raises(
        MemberError, match=r"found a field of 200001 bytes or more, expected fields of at most 200000 bytes \(limits.csv_field_bytes\)"
    ):
        read("".join(records), header=False, limits=limits)


@pytest.mark.parametrize("data", ['"' + "x" * 900_000, "x" * 900_000, 'a,b\n1,2\n3,"' + "x" * 9_000_000, "\n" * 3_000_000, "x" * 300_000])
def test_a_record_that_does_not_end_is_not_looked_for_further_than_fields_may_be_long(data: str) -> None:
    with pytest.raises(MemberError, match=r"too large: found .* expected fields of at most 100000 bytes"):
        read(data, limits=Limits(csv_field_bytes=100_000))


def test_columns_are_limited() -> None:
    assert len(read("a,b,c\n1,2,3\n", limits=Limits(csv_columns=3))[0]) == 3
    with pytest.raises(MemberError, match=r"too many columns: found 3 or more, expected at most 2 \(limits.csv_columns\)"):
        read("a,b,c\n1,2,3\n", limits=Limits(csv_columns=2))


@pytest.mark.parametrize("ragged", ["reject", "fill"])
def test_records_of_another_length_are_found_in_any_block(ragged: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_form.Form.__init__, "__defaults__", (256,))
    short = [17, 1000, 1001, 2999]
    records = [f"{number}\n" if number in short else f"{number},x\n" for number in range(3000)]
    found, faults = read("a,b\n" + "".join(records), ragged=ragged)
    if ragged == "reject":
        assert faults == [f"record {number + 2}: found 1 fields, expected 2: {number}" for number in short]
        assert found["a"] == [number for number in range(3000) if number not in short]
    else:
        assert (faults, found["a"]) == ([], list(range(3000)))
        assert [number for number, value in enumerate(found["b"]) if value is None] == short
