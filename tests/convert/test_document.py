import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from h5dat_lib.columns import Block, Fault, PairType
from h5dat_lib.config import DocumentOptions, Limits, MediumOptions
from h5dat_lib.convert import json_pairs, json_text
from h5dat_lib.errors import MemberError
from tests.convert.conftest import converted


def pairs(block: Block) -> list[tuple[int, str, bytes, str]]:
    found = block.pairs
    assert found is not None
    return list(zip(found.rows, found.keys, found.values, [PairType.NAMES[kind] for kind in found.types], strict=True))


def pairs_of(text: str | bytes) -> list[tuple[str, bytes, str]]:
    data = text if isinstance(text, bytes) else text.encode()
    (block,) = converted(data, "a.jsonl")  # where an array of objects is one document, too
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


class Written(str):
    """A scalar as it is written in JSON."""


def written(value: Any, space: str) -> str:
    """JSON text of nested lists and, for objects, tuples of (key, value), in which a key may come twice."""
    if isinstance(value, Written):
        return space + value + space
    if isinstance(value, list):
        return "[" + ",".join(written(one, space) for one in value) + space + "]"
    return "{" + ",".join(f"{space}{key}{space}:{written(one, space)}" for key, one in value) + space + "}"


def as_text(string: str) -> str:
    """A JSON string without half surrogate pairs, which are no UTF-8: each as the escape that it has to be written as."""
    return str(json.loads(string)).encode("utf-8", "backslashreplace").decode()


def paths(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], bytes, str]]:
    """Every scalar with the keys that lead to it; numbers as written."""
    if isinstance(value, Written):
        kinds = {'"': "string", "t": "boolean", "f": "boolean", "n": "null"}
        kind = kinds.get(value[0]) or ("number" if set(value) & set(".eE") else "integer")
        yield path, (as_text(value) if kind == "string" else "" if kind == "null" else value).encode(), kind
    else:
        children = enumerate(value) if isinstance(value, list) else [(as_text(key), child) for key, child in value]
        for key, child in children:
            yield from paths(child, (*path, str(key)))


def keys_of(dotted: str) -> tuple[str, ...]:
    """The keys of a dotted path, by the rule of docs/format.md: a backslash before a dot or a backslash says that it is the key's own."""
    return tuple(re.sub(r"\\([.\\])", r"\1", key) for key in re.findall(r"(?:^|\.)((?:[^.\\]|\\.)*)", dotted, re.DOTALL))


strings = st.tuples(st.text(max_size=6) | st.text('u0.\\"\n\xe9\ud800\udc00\U0001f600', max_size=6), st.booleans()).map(
    lambda drawn: Written(json.dumps(drawn[0], ensure_ascii=drawn[1] or any("\ud800" <= one <= "\udfff" for one in drawn[0])))
)
numbers = st.from_regex(
    r"-?(0|[1-9][0-9]{0,40})(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,4})?", fullmatch=True, alphabet=st.characters(codec="ascii")
)
texts = st.recursive(
    strings | numbers.map(Written) | st.sampled_from(["true", "false", "null"]).map(Written),
    lambda inner: st.lists(inner, max_size=4) | st.lists(st.tuples(strings | st.just(Written('"a.b"')), inner), max_size=4).map(tuple),
    max_leaves=20,
)


@settings(max_examples=300, deadline=None)
@given(texts, st.sampled_from(["", " ", "\n\t", " \r\n"]))
def test_pairs_rebuild_every_scalar_of_any_document_and_the_document_stays_as_it_is(value: Any, space: str) -> None:
    text = written(value, space)
    (block,) = converted(text.encode(), "a.jsonl")
    assert block.columns["document"].values == [text.strip().encode()]
    found = [(keys_of(key) if key or not isinstance(value, Written) else (), text, kind) for _, key, text, kind in pairs(block)]
    assert found == list(paths(value))


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
        (b'["x",\n"\xff"]', "found byte 0xff at line 2, column 2, expected UTF-8"),
        (b'{"a": 1} x', "line 1, column 10"),
        (b"[1,]", "line 1"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b"[" * 100_000 + b"]" * 100_000, "nested too deeply"),
        (b"\xff\xfe\x00", "utf-16-le"),
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


def test_a_document_longer_than_the_limit_is_a_fault() -> None:
    fault, block = converted(b"1\n" + b"2" * 101 + b"\n3\n", "a.jsonl", limits=Limits(whole_bytes=100), streamed=True)
    assert fault.reason == "line 2: too large: found a document of more than 100 bytes (limits.whole_bytes)"
    assert block.columns["document"].values == [b"1", b"3"]


@pytest.mark.parametrize("data", [b"", b"\n \n"])
def test_no_line_at_all_is_a_member_error(data: bytes) -> None:
    with pytest.raises(MemberError, match="empty"):
        converted(data, "a.jsonl")


def test_long_keys_over_many_values_are_refused_and_leave_no_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_pairs, "KEY_CHARACTERS", 1000)
    monkeypatch.setattr(json_pairs, "KEY_RATIO", 1)
    wide = json.dumps({"a": 1, "k" * 500: [1, 2, 3]})
    with pytest.raises(MemberError, match="too large: found keys"):
        converted(wide.encode(), "a.json")
    fault, block = converted(f'{wide}\n{{"b": 2}}\n'.encode(), "a.jsonl")
    assert fault.reason.startswith("line 1: too large")
    assert pairs(block) == [(0, "b", b"2", "integer")]


def depth(value: Any) -> int:
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if children is None else 1 + max(map(depth, children), default=0)


def size(value: Any) -> int:
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + sum(map(size, children))


awkward = st.recursive(
    st.none() | st.text('[]{},"\\a', max_size=6), lambda inner: st.lists(inner) | st.dictionaries(st.text('[{"\\', max_size=3), inner)
)


def limited(value: Any, limits: Limits) -> list[Block | Fault]:
    return converted(json.dumps(value).encode(), "a.jsonl", limits=limits)


@given(awkward, st.integers(1, 6))
def test_levels_are_counted_outside_of_strings(value: Any, limit: int) -> None:
    (found,) = limited(value, Limits(json_depth=limit))
    assert isinstance(found, Block if depth(value) <= limit else Fault)
    assert isinstance(found, Block) or f"found more levels than {limit} (limits.json_depth)" in found.reason


@given(awkward)
def test_values_are_counted_outside_of_strings(value: Any) -> None:
    (found,) = limited(value, Limits(json_values=2 * size(value)))
    assert isinstance(found, Block)
    if size(value) > 1:
        (found,) = limited(value, Limits(json_values=size(value) - 1))
        assert isinstance(found, Fault)
        assert found.reason.endswith("values (limits.json_values)")


def test_limits_hold_across_the_pieces_in_which_a_document_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_text, "STEP", 3)
    data = b'[["[[[[[", "\\"[[[["], [[[1, 2, 3]]]]'
    assert len(converted(data, "a.json", limits=Limits(json_depth=4))) == 1
    for limits in (Limits(json_depth=3), Limits(json_values=8)):
        with pytest.raises(MemberError, match=r"limits\.json"):
            converted(data, "a.json", limits=limits)


def test_a_line_beyond_the_limits_of_a_document_is_a_fault() -> None:
    faults = [part for part in converted(b"[[1]]\n[[[1]]]\n", "a.jsonl", limits=Limits(json_depth=2)) if isinstance(part, Fault)]
    assert [fault.reason for fault in faults] == ["line 2: nested too deeply: found more levels than 2 (limits.json_depth)"]
