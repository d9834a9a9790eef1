"""Typed columns of the scalars of documents."""

import json
import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from h5dat_lib.columns import Block, Categories, Column, Scalars, Strings
from h5dat_lib.config import DocumentOptions, MediumOptions
from h5dat_lib.convert.json_columns import common_keys
from tests.convert.conftest import converted

Kinds = dict[str, Literal["auto", "category", "text"]]


def columns_of(text: str, keys: Kinds, name: str = "a.jsonl", pairs: bool = True) -> Mapping[str, Column]:
    options = MediumOptions(document=DocumentOptions(columns=keys, pairs=pairs))
    (block,) = converted(text.encode("utf-8", "surrogatepass"), name, options)
    assert isinstance(block, Block)
    return block.untyped.columns(block.untyped.rows) if block.untyped else {}


def plain(column: Column) -> list[Any]:
    """A column as Python values, None where one is missing."""
    if isinstance(column, Categories):
        return list(column.values)
    assert isinstance(column, Scalars | Strings)
    if isinstance(column, Scalars):
        found = np.array(column.values, column.dtype).tolist()
    else:
        ends = np.cumsum(column.lengths).tolist()
        found = [column.data[end - size : end].decode() for end, size in zip(ends, column.lengths.tolist(), strict=True)]
    missing = [False] * len(found) if column.missing is None else column.missing.tolist()
    return [None if gone or value != value else value for value, gone in zip(found, missing, strict=True)]


def auto(*values: str) -> tuple[str, list[Any]]:
    """Type and values of the column that JSON values give, one a document; the text None is a document without one."""
    text = "\n".join("{}" if value == "None" else f'{{"a": {value}}}' for value in values)
    column = columns_of(text, {"a": "auto"})["a"]
    return column.dtype if isinstance(column, Scalars) else type(column).__name__, plain(column)


@pytest.mark.parametrize(
    ("values", "dtype", "expected"),
    [
        (["1", "-2", "9223372036854775807", "-9223372036854775808"], "<i8", [1, -2, (1 << 63) - 1, -1 << 63]),
        (["1", "null", "None", "2"], "<i8", [1, None, None, 2]),
        (["1", "2.5", "1e3", "-0.0", "5.50"], "<f8", [1.0, 2.5, 1000.0, -0.0, 5.5]),
        (["1.5", "null"], "<f8", [1.5, None]),
        (["9007199254740992", "0.5"], "<f8", [2.0**53, 0.5]),
        (["9007199254740993", "0.5"], "Strings", ["9007199254740993", "0.5"]),
        (["9223372036854775808"], "<f8", None),
        (["1", "9223372036854775808"], "Strings", ["1", "9223372036854775808"]),
        (
            ["0.10000000000000001", "0.30000000000000004", "5e-324", "1.7976931348623157e308"],
            "<f8",
            [0.1, 0.1 + 0.2, 5e-324, 1.7976931348623157e308],
        ),
        (["0.1000000000000000055511151231257827"], "Strings", ["0.1000000000000000055511151231257827"]),
        (["1e400"], "Strings", ["1e400"]),
        (["1e-400", "0e9", "0.000"], "Strings", ["1e-400", "0e9", "0.000"]),
        (["0e99999999999999999999", "0.000"], "<f8", [0.0, 0.0]),
        (["1e99999999999999999999"], "Strings", ["1e99999999999999999999"]),
        (["9" * 5000], "Strings", ["9" * 5000]),
        (["Infinity", "1.5", "-Infinity", "NaN"], "<f8", [math.inf, 1.5, -math.inf, None]),
        (["true", "null", "false"], "?", [True, None, False]),
        (['"x"', "null", '""', '"\\u00e9"'], "Strings", ["x", None, "", "é"]),
        (['"x"', "1.50", "true", "null"], "Strings", ["x", "1.50", "true", None]),
        (["true", "1"], "Strings", ["true", "1"]),
        (['"x\\u0000"', '"\\ud800"'], "Strings", ["x\0", "\\ud800"]),
        (["1", "[1]", '{"b": 2}'], "<i8", [1, None, None]),
    ],
)
def test_a_column_has_the_type_that_loses_nothing(values: list[str], dtype: str, expected: list[Any] | None) -> None:
    expected, dtype = (["9223372036854775808"], "Strings") if expected is None else (expected, dtype)
    assert auto(*values) == (dtype, expected)


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**53), 2**53), min_size=1))
def test_doubles_come_back_as_they_were(values: list[float]) -> None:
    kind, found = auto(*map(repr, values))
    assert found == values
    assert kind == ("<f8" if any(isinstance(value, float) for value in values) else "<i8")


@given(
    st.lists(
        st.from_regex(
            r"-?(0|[1-9][0-9]{0,25})(\.[0-9]{1,25})?([eE][+-]?[0-9]{1,3})?", fullmatch=True, alphabet=st.characters(codec="ascii")
        ),
        min_size=1,
    )
)
def test_no_number_is_rounded(texts: list[str]) -> None:
    kind, found = auto(*texts)
    if kind == "Strings":
        assert found == texts
    else:
        shown = [{repr(value), f"{value:.16e}"} if kind == "<f8" else {str(value)} for value in found]
        assert all(Decimal(text) in map(Decimal, ways) for text, ways in zip(texts, shown, strict=True))


def test_paths_lead_into_objects_and_arrays() -> None:
    text = json.dumps({"a": {"b.c": [{"d": 1}, {"d": 2}], "é\\": 3}, "": {"x": 4}})
    keys: Kinds = {r"a.b\.c.1.d": "auto", "a.é\\\\": "auto", ".x": "auto", "a": "auto", "a.nothing": "auto", "a.é\\\\.y": "auto"}
    assert {name: plain(column) for name, column in columns_of(text, keys).items()} == {r"a.b\.c.1.d": [2], "a.é\\\\": [3], ".x": [4]}


def test_half_a_surrogate_pair_in_a_key_is_found() -> None:
    assert plain(columns_of(r'{"k\udc00": 1}', {r"k\udc00": "auto"})[r"k\udc00"]) == [1]


def test_a_document_that_is_a_scalar_has_the_empty_path() -> None:
    assert plain(columns_of("3\n4\n[]", {"": "auto"})[""]) == [3, 4, None]


def test_of_a_repeated_key_the_last_value_counts() -> None:
    assert auto('1, "a": 2') == ("<i8", [2])


def test_paths_that_are_named_as_other_columns_are_kept_apart() -> None:
    keys: Kinds = {"document": "auto", "line": "auto", "item": "auto", "$.line": "auto", "member": "auto"}
    found = columns_of('{"document": 1, "line": 2, "item": 3, "$": {"line": 4}, "member": 5}', keys)
    assert {name: plain(column) for name, column in found.items()} == {
        "$.document": [1], "$.line": [2], "$.item": [3], "$.$.line": [4], "member": [5],
    }  # fmt: skip


def test_text_stays_as_written_and_categories_are_names() -> None:
    keys: Kinds = {"a": "text", "b": "category"}
    found = columns_of('{"a": 1.50, "b": "x"}\n{"a": null, "b": 1}\n{"a": "é", "b": null}', keys)
    assert {name: plain(column) for name, column in found.items()} == {"a": ["1.50", None, "é"], "b": ["x", "1", None]}
    assert isinstance(found["b"], Categories)


def test_a_column_that_would_hold_nothing_is_left_out_as_nobody_knows_its_type() -> None:
    assert list(columns_of('{"a": null}\n{"b": "x"}', {"a": "auto", "b": "auto"})) == ["b"]


@pytest.mark.parametrize("pairs", [True, False])
@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_columns_stand_beside_the_document_with_and_without_pairs(name: str, pairs: bool) -> None:
    keys: Kinds = {"a": "auto"}
    assert plain(columns_of('{"a": 1}', keys, name, pairs)["a"]) == [1]
    (block,) = converted(b'{"a": 1}', name, MediumOptions(document=DocumentOptions(columns=keys)))
    assert isinstance(block, Block)
    assert block.attributes == {"keys": '{"a": "auto"}'}


@pytest.mark.parametrize("columns", ["none", "common", {}])
def test_no_columns_unless_they_are_known(columns: Any) -> None:
    (block,) = converted(b'{"a": 1}', "a.json", MediumOptions(document=DocumentOptions(columns=columns)))
    assert isinstance(block, Block)
    assert list(block.columns) == ["document"]
    assert block.attributes == {}


def keys_of(*documents: Any) -> Kinds:
    return common_keys(json.dumps(document).encode() for document in documents)


def test_common_keys_are_those_of_at_least_half_of_the_documents() -> None:
    assert keys_of({"a": 1, "b": 2, "c": 3}, {"a": 1, "b": 2}, {"a": 1, "c": None}, {"a": {"d": 1}}) == {"a": "auto", "b": "auto"}
    assert keys_of() == {}


def test_strings_that_repeat_are_categories_from_eight_documents_on() -> None:
    documents = [{"few": "xy"[n % 2], "many": str(n), "number": 1, "four": str(n % 4)} for n in range(8)]
    assert keys_of(*documents) == {"few": "category", "many": "auto", "number": "auto", "four": "category"}
    assert keys_of(*documents[:7])["few"] == "auto"


def test_common_keys_leave_out_arrays_and_long_texts() -> None:
    documents = [{"a": [1], "b": {"c.d": "x", "e": [{"f": 1}]}, "long": "é" * 129}, {"a": [1], "b": {"c.d": "x"}, "long": ""}]
    assert keys_of(*documents) == {r"b.c\.d": "auto"}


def test_no_more_than_256_keys_are_common() -> None:
    assert list(keys_of({str(n): n for n in range(300)})) == [str(n) for n in range(256)]


def test_common_keys_count_each_document_once() -> None:
    assert common_keys([b'{"a": 1, "a": 2}', b"{}", b"{}"]) == {}


@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=3),
        lambda inner: st.dictionaries(st.text('a.\\"é\udc00$', max_size=3), inner, max_size=3),
        max_leaves=8,
    )
)
def test_every_common_key_leads_to_its_value(value: Any) -> None:
    text = json.dumps(value)
    keys = common_keys([text.encode()])
    assert len(columns_of(text, keys)) == len(keys)
