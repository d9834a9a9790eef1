import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from h5dat_lib.columns import Block, Fault, PairType
from h5dat_lib.config import DocumentOptions, Limits, MediumOptions
from h5dat_lib.convert import document
from h5dat_lib.errors import MemberError
from tests.convert.conftest import converted


def pairs(block: Block) -> list[tuple[int, str, bytes, str]]:
    found = block.pairs
    assert found is not None
    return list(zip(found.rows, found.keys, found.values, [PairType.NAMES[kind] for kind in found.types], strict=True))


def pairs_of(text: str | bytes) -> list[tuple[str, bytes, str]]:
    data = text if isinstance(text, bytes) else text.encode()
    (block,) = converted(data, "a.json")
    return [pair[1:] for pair in pairs(block)]


def expected_pairs(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, bytes, str]]:
    """The scalars of a document, found recursively; an oracle that shares nothing with the handler."""
    if isinstance(value, dict):
        for key, child in value.items():
            yield from expected_pairs(child, (*path, key.replace("\\", "\\\\").replace(".", "\\.")))
    elif isinstance(value, list):
        for index, child in enumerate(value):
            yield from expected_pairs(child, (*path, str(index)))
    else:
        kinds = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}
        text = value if isinstance(value, str) else "" if value is None else json.dumps(value)
        yield ".".join(path), text.encode(), kinds[type(value)]


words = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | words
documents = st.recursive(scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=4), max_leaves=20)


@given(documents, st.booleans(), st.sampled_from([None, 1]))
def test_every_scalar_is_found_once_with_its_text(value: Any, ascii_only: bool, indent: int | None) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
    assert pairs_of(text) == list(expected_pairs(value))


@pytest.mark.parametrize(
    "number", ["1", "-0", "1.10", "1E5", "1e+400", "0.1000000000000000055511151231257827", "123456789012345678901234567890", "9" * 5000]
)
def test_numbers_stay_exactly_as_written(number: str) -> None:
    kind = "number" if any(mark in number for mark in ".eE") else "integer"
    assert pairs_of(f'{{"n": {number}}}') == [("n", number.encode(), kind)]


def test_repeated_keys_are_all_kept() -> None:
    assert pairs_of('{"a": 1, "a": 2}') == [("a", b"1", "integer"), ("a", b"2", "integer")]


def test_half_a_surrogate_pair_stays_an_escape() -> None:
    assert pairs_of(r'{"k\udc00": "x\ud800y", "ok": "\ud83d\ude00"}') == [
        (r"k\udc00", rb"x\ud800y", "string"),
        ("ok", "\U0001f600".encode(), "string"),
    ]


def test_empty_containers_give_no_pair() -> None:
    assert pairs_of('{"a": {}, "b": [[], {}]}') == []


@pytest.mark.parametrize("codec", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"])
def test_the_document_is_kept_as_utf8_without_mark(codec: str) -> None:
    text = '{"größe": "日本", "n": 1 }'
    (block,) = converted(text.encode(codec), "a.json")
    assert block.columns["document"].values == [text.encode()]
    assert [pair[1] for pair in pairs(block)] == ["größe", "n"]


def test_no_pairs_unless_asked_for() -> None:
    (block,) = converted(b'{"a": 1}', "a.json", MediumOptions(document=DocumentOptions(pairs=False)))
    assert block.pairs is None
    assert list(block.columns) == ["document"]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "line 1, column 1"),
        (b'{"a": 1,\n "b": }', "line 2, column 7"),
        (b'{"a": "NaN",\n "b": -Infinity}', "found -Infinity at line 2, column 7"),
        (b"NaN", "found NaN at line 1, column 1"),
        (b'["x",\n"\xff"]', "found byte 0xff at line 2, column 2, expected UTF-8"),
        (b'{"a": 1} x', "line 1, column 10"),
        (b"[1,]", "line 1"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b"[" * 100_000 + b"]" * 100_000, "nested too deeply"),
        (b"\xff\xfe\x00", "not utf-16-le"),
    ],
)
@pytest.mark.parametrize("with_pairs", [True, False])
def test_what_is_no_json_is_a_member_error_that_says_where(data: bytes, reason: str, with_pairs: bool) -> None:
    with pytest.raises(MemberError, match=reason):
        converted(data, "a.json", MediumOptions(document=DocumentOptions(pairs=with_pairs)))


def test_each_line_is_a_row_and_blank_lines_are_none() -> None:
    (block,) = converted(b'{"a": 1}\r\n\n  \n ["x"]\n3', "a.jsonl")
    assert block.columns["document"].values == [b'{"a": 1}', b'["x"]', b"3"]
    assert list(block.columns["line"].values) == [1, 4, 5]
    assert pairs(block) == [(0, "a", b"1", "integer"), (1, "0", b"x", "string"), (2, "", b"3", "integer")]


def test_a_bad_line_becomes_a_fault_and_the_others_stay() -> None:
    parts = converted(b'{"a": 1}\n{"a": }\n"\xff"\n{"a": 2}\n', "a.ndjson")
    faults = [part.reason for part in parts if isinstance(part, Fault)]
    (block,) = [part for part in parts if isinstance(part, Block)]
    assert faults[0].startswith("line 2: not JSON")
    assert faults[1].startswith("line 3: not JSON: found byte 0xff at column 2")
    assert [pair[:3] for pair in pairs(block)] == [(0, "a", b"1"), (1, "a", b"2")]
    assert list(block.columns["line"].values) == [1, 4]


@pytest.mark.parametrize("streamed", [True, False])
def test_many_lines_come_in_blocks(streamed: bool) -> None:
    blocks = converted(b"".join(b'{"n": %d}\n' % n for n in range(2500)), "a.jsonl", streamed=streamed)
    assert [block.rows for block in blocks] == [1000, 1000, 500]
    assert pairs(blocks[2])[0] == (0, "n", b"2000", "integer")


def test_long_lines_end_a_block_early() -> None:
    line = json.dumps("x" * (3 << 20)).encode() + b"\n"
    assert [block.rows for block in converted(line * 4, "a.jsonl")] == [3, 1]


@pytest.mark.parametrize("codec", ["utf-8-sig", "utf-16", "utf-32"])
def test_lines_with_a_byte_order_mark_are_utf8_afterwards(codec: str) -> None:
    (block,) = converted('"é"\n"日"\n'.encode(codec), "a.jsonl")
    assert block.columns["document"].values == ['"é"'.encode(), '"日"'.encode()]


def test_a_line_longer_than_the_limit_is_a_member_error() -> None:
    with pytest.raises(MemberError, match="line of more than 100 bytes at line 2"):
        converted(b"1\n" + b"2" * 101 + b"\n", "a.jsonl", limits=Limits(whole_bytes=100), streamed=True)


@pytest.mark.parametrize("data", [b"", b"\n \n"])
def test_no_line_at_all_is_a_member_error(data: bytes) -> None:
    with pytest.raises(MemberError, match="empty"):
        converted(data, "a.jsonl")


def test_long_keys_over_many_values_are_refused_and_leave_no_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document, "KEY_CHARACTERS", 1000)
    wide = json.dumps({"a": 1, "k" * 500: [1, 2, 3]})
    with pytest.raises(MemberError, match="too large: found keys"):
        pairs_of(wide)
    fault, block = converted(f'{wide}\n{{"b": 2}}\n'.encode(), "a.jsonl")
    assert fault.reason.startswith("line 1: too large")
    assert pairs(block) == [(0, "b", b"2", "integer")]
