"""Several documents in one member: arrays of objects, JSON Lines, documents one after the other."""

import io
import json
import tracemalloc
from typing import Any, BinaryIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from h5dat_lib.archive.member import Content, Member
from h5dat_lib.columns import Block, Bytes, Fault, Scalars
from h5dat_lib.config import DocumentOptions, Limits, MediumOptions
from h5dat_lib.convert import document, json_pairs, json_text
from h5dat_lib.errors import MemberError
from tests.convert.conftest import converted


def rows(parts: list[Block | Fault]) -> list[bytes]:
    found: list[bytes] = []
    for part in parts:
        if isinstance(part, Block) and part.rows:
            column = part.columns["document"]
            assert isinstance(column, Bytes)
            found += column.values
    return found


def places(parts: list[Block | Fault], name: str) -> list[int]:
    found: list[int] = []
    for part in parts:
        if isinstance(part, Block) and part.rows:
            column = part.columns[name]
            assert isinstance(column, Scalars)
            found += column.values
    return found


def reasons(parts: list[Block | Fault]) -> list[str]:
    return [part.reason for part in parts if isinstance(part, Fault)]


objects = st.dictionaries(st.text('ab"\\{[é', max_size=3), st.none() | st.integers() | st.text('x]},:"\\\n日', max_size=4), max_size=3)
values = objects | st.lists(objects, max_size=3) | st.text('x]},:"\\\n日', max_size=4) | st.integers() | st.booleans()


@settings(deadline=None)
@given(
    st.lists(values, min_size=1, max_size=8), st.sampled_from([None, 0, 2]), st.sampled_from(["\n", " ", "\r\n\n", ""]), st.integers(1, 40)
)
def test_documents_are_found_however_they_are_written_and_read(found: list[Any], indent: int | None, between: str, step: int) -> None:
    texts = [json.dumps(value, indent=indent, ensure_ascii=False) for value in found]
    joined = (between or " ").join(texts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_text, "STEP", step)
        parts = converted(joined.encode(), "a.jsonl")
    assert rows(parts) == [text.encode() for text in texts]
    starts = [joined[: sum(map(len, texts[:n])) + n * len(between or " ")].count("\n") + 1 for n in range(len(texts))]
    assert places(parts, "line") == starts


@settings(deadline=None)
@given(st.lists(objects, min_size=1, max_size=8), st.sampled_from([None, 0, 2]), st.integers(1, 40))
def test_an_array_of_objects_gives_its_items(found: list[Any], indent: int | None, step: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_text, "STEP", step)
        patch.setattr(document, "BLOCK_ROWS", 2)
        parts = converted(json.dumps(found, indent=indent, ensure_ascii=False).encode(), "a.json")
    assert [json.loads(row) for row in rows(parts)] == found
    assert places(parts, "item") == list(range(len(found)))


@pytest.mark.parametrize("text", ["[]", "[1, 2]", '[[{"a": 1}]]', '["x", {"a": 1}]', " [ ] ", "3", '"x"', '{"a": [{}]}', "\n{}\n\n"])
def test_any_other_document_is_one_row_byte_for_byte(text: str) -> None:
    (block,) = converted(text.encode(), "a.json")
    assert isinstance(block, Block)
    assert list(block.columns) == ["document"]
    assert rows([block]) == [text.encode()]


_PIECES = ['{"a": [{"b": NaN}], "a": 1.50}', "{}", "{", "}", "[", "]", ",", '"x"', " \n", "\ufeff", "\ud800", "\0", "[" * 300 + "]" * 300]


def outcome(data: bytes, numbers: str, streamed: bool) -> list[Block | Fault] | str:
    try:
        return converted(data, "a.json", MediumOptions.model_validate({"document": {"numbers": numbers}}), streamed=streamed)
    except MemberError as exc:
        return exc.reason


@given(
    st.lists(st.sampled_from(_PIECES), max_size=4).map("".join),
    st.sampled_from(["keep", "strict"]),
    st.sampled_from(["utf-8", "utf-16-le"]),
)
def test_a_small_member_gives_what_one_of_unknown_size_does(text: str, numbers: str, codec: str) -> None:
    data = text.encode(codec, "surrogatepass")
    assert outcome(data, numbers, streamed=False) == outcome(data, numbers, streamed=True)


def test_items_behind_the_first_may_be_anything() -> None:
    assert rows(converted(b' [ {"a": 1} , 2,\n[3], null ] ', "a.json")) == [b'{"a": 1}', b"2", b"[3]", b"null"]


@pytest.mark.parametrize(
    "text", ['[{"a": 1}', '[{"a": 1},', '[{"a": 1},]', '[{"a": 1}}', '[{"a": 1}] x', '[{"a": 1}][]', '[{"a": 1} {}]', "[{]"]
)
@pytest.mark.parametrize("step", [3, 1 << 20])
def test_an_array_that_is_no_json_gives_no_item(text: str, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_text, "STEP", step)
    monkeypatch.setattr(document, "BLOCK_ROWS", 1)
    with pytest.raises(MemberError, match=r"not JSON: .* at line 1, column"):
        converted(text.encode(), "a.json")


def test_a_flaw_far_behind_is_found_before_the_first_item_is_given() -> None:
    text = "[" + ",\n".join(['{"a": 1}'] * 5000) + ",\n{]"
    parts = document.convert(Content(_Memory(text.encode()), Member("a", -1, len(text), 0), Limits()), MediumOptions())
    with pytest.raises(MemberError, match="at line 5001, column 2"):
        next(parts)


def test_an_item_beyond_a_limit_costs_no_other() -> None:
    parts = converted(b"[{}, [[1]], [[[1]]], {}]", "a.json", limits=Limits(json_depth=2))
    assert rows(parts) == [b"{}", b"[[1]]", b"{}"]
    assert reasons(parts) == ["item 2: nested too deeply: found more levels than 2 (limits.json_depth)"]


def test_a_json_member_may_be_json_lines() -> None:
    parts = converted(b'{"a": 1}\n{"a": 2}\n\n{"a": }\n{"a": 3}', "a.json")
    assert rows(parts) == [b'{"a": 1}', b'{"a": 2}', b'{"a": 3}']
    assert places(parts, "line") == [1, 2, 5]
    assert reasons(parts) == ["line 4: not JSON: Expecting value at column 7"]


@pytest.mark.parametrize("text", ["1\n2", '{"a": 1}\n2', "[1]\n[2]", '{"a": 1} x', '{"a": 1}\nx', "{}}", '{"a": 1}{"b": }', "1 2"])
def test_a_json_member_of_several_documents_must_begin_with_two_objects(text: str) -> None:
    with pytest.raises(MemberError, match="not JSON: "):
        converted(text.encode(), "a.json")


def test_a_line_is_taken_as_a_whole_or_not_at_all() -> None:
    parts = converted(b'{"a": 1}{"a": 2}\n{"a": 3} x\n[4] 5 "6"\n', "a.jsonl")
    assert rows(parts) == [b'{"a": 1}', b'{"a": 2}', b"[4]", b"5", b'"6"']
    assert reasons(parts) == ["line 2: not JSON: Expecting value at column 10"]


@pytest.mark.parametrize("cut", ['{"a": [1, 2', '{"a": "x', '{"a": 1, ', '{"a"', '{"a": {"b":', '{"a": 1.', "[tru", '{"a": "\\u00'])
@pytest.mark.parametrize("step", [4, 1 << 20])
def test_a_line_that_was_cut_off_costs_only_itself(cut: str, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_text, "STEP", step)
    for before in ("", '{"n": 0}\n'):
        parts = converted(f'{before}{cut}\n{{"n": 1}}\n{{"n": 2}}\n'.encode(), "a.jsonl")
        assert rows(parts)[-2:] == [b'{"n": 1}', b'{"n": 2}']
        assert [reason.split(":")[0] for reason in reasons(parts)] == [f"line {before.count(chr(10)) + 1}"]


@pytest.mark.parametrize("flaw", ['{\n "a": tru\n}', '{\n "a": 1\n "b": 2\n}', "{\n 'a': 1\n}", '[\n1,\n"x"\n2\n]', "{\n"])
def test_nothing_behind_a_flaw_in_text_over_several_lines_is_trusted(flaw: str) -> None:
    good = '{\n "a": 0\n}\n'
    parts = converted(f"{good}{flaw}\n3\n{good}".encode(), "a.jsonl")
    assert rows(parts) == [good.strip().encode()]
    (reason,) = reasons(parts)
    assert reason.startswith("line 4: not JSON: ")
    assert reason.endswith("; nothing behind it was read")
    assert rows(converted(f"{flaw}\n3\n{good}".encode(), "a.jsonl")) == []


def test_bytes_that_are_no_utf8_cost_their_line() -> None:
    parts = converted(b'"\xff"\n"ok"\n\xff\n{"\xc3\xa9": "\xe2\x82"}\n"\xed\xa0\x80"\n"end"', "a.jsonl")
    assert rows(parts) == [b'"ok"', b'"end"']
    assert [reason.split(" at ")[0] for reason in reasons(parts)] == [
        "line 1: not JSON: found byte 0xff",
        "line 3: not JSON: found byte 0xff",
        "line 4: not JSON: found byte 0xe2",
        "line 5: not JSON: found byte 0xed",
    ]


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_line_and_column_are_those_of_the_whole_text(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_text, "STEP", 7)
    text = '{"a": 1,\n "bcdefghijklmnop": "qrstuvwxyz", "x": ?}'
    where = r"at line 2, column 40"
    if name == "a.json":
        with pytest.raises(MemberError, match=where):
            converted(text.encode(), name)
    else:
        assert where in reasons(converted(text.encode(), name))[0]


def test_nan_and_infinity_are_kept_as_text_and_marked() -> None:
    (block,) = converted(b'{"a": NaN, "b": [-Infinity, Infinity], "c": "NaN"}', "a.json")
    assert isinstance(block, Block)
    assert block.pairs is not None
    assert list(zip(block.pairs.keys, block.pairs.values, block.pairs.types, strict=True)) == [
        ("a", b"NaN", 5), ("b.0", b"-Infinity", 5), ("b.1", b"Infinity", 5), ("c", b"NaN", 0),
    ]  # fmt: skip


def test_nan_is_a_reject_when_told_to_be_strict() -> None:
    strict = MediumOptions(document=DocumentOptions(numbers="strict"))
    with pytest.raises(MemberError, match="found -Infinity at line 2, column 7, expected a number or null"):
        converted(b'{"a": "NaN",\n "b": -Infinity}', "a.json", strict)
    parts = converted(b'{"a": 1}\n{"a": NaN}\n', "a.jsonl", strict)
    assert reasons(parts) == ["line 2: not JSON: found NaN at column 7, expected a number or null"]


class _Memory:
    """A Reader of one member that is bytes, repeated."""

    def __init__(self, head: bytes, piece: bytes = b"", count: int = 0, tail: bytes = b"") -> None:
        self._parts = (head, piece, count, tail)

    def open(self, member: Member) -> BinaryIO:
        return _Repeated(*self._parts)

    def read(self, member: Member, limit: int) -> bytes:
        return self.open(member).read(limit + 1)

    def close(self) -> None: ...


class _Repeated(io.BytesIO):
    """``head``, ``count`` times ``piece``, ``tail``, of which one piece is in memory."""

    def __init__(self, head: bytes, piece: bytes, count: int, tail: bytes) -> None:
        super().__init__()
        self._pending = b""
        self._source = (part for parts in ([head], (piece for _ in range(count)), [tail]) for part in parts)

    def read(self, size: int | None = -1) -> bytes:
        pieces, length = [self._pending], len(self._pending)
        while size is None or size < 0 or length < size:
            piece = next(self._source, None)
            if piece is None:
                break
            pieces.append(piece)
            length += len(piece)
        data = b"".join(pieces)
        size = len(data) if size is None or size < 0 else size
        self._pending = data[size:]
        return data[:size]


ITEM = b'{"id": 1, "text": "' + b"x" * 2000 + b'"}'


@pytest.mark.parametrize(
    ("name", "reader"),
    [
        ("a.json", _Memory(b"[" + ITEM, b",\n" + ITEM, 12_000, b"]")),
        ("a.jsonl", _Memory(b"", ITEM + b"\n", 12_000)),
        ("a.jsonl", _Memory(b"", ITEM, 12_000)),
        ("a.json", _Memory(b"", b"{\n" + ITEM[1:] + b"\n", 12_000)),
    ],
)
def test_memory_does_not_grow_with_the_member(name: str, reader: _Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document, "BLOCK_BYTES", 1 << 20)
    convert = document.convert if name == "a.json" else document.convert_lines
    parts = convert(Content(reader, Member(name, -1, 1 << 20, 0), Limits()), MediumOptions())
    tracemalloc.start()
    try:
        found = sum(part.rows for part in parts if isinstance(part, Block))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found >= 12_000
    assert peak < 16 << 20


def test_a_long_document_is_counted_before_anything_is_built_of_it() -> None:
    bomb = Content(_Memory(b"[", b"[]," * 1000, 800, b"[]]"), Member("a.json", -1, 1 << 20, 0), Limits(json_values=500_000))
    tracemalloc.start()
    try:
        with pytest.raises(MemberError, match="more than 500000 values"):
            list(document.convert(bomb, MediumOptions()))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 128 << 20


def test_a_document_that_never_ends_is_given_up() -> None:
    endless = Content(_Memory(b'{"a": "', b"x" * 100_000, 100, b'"}'), Member("a.json", -1, 1 << 20, 0), Limits(whole_bytes=2 << 20))
    with pytest.raises(MemberError, match="found a document of more than 2097152 bytes"):
        list(document.convert(endless, MediumOptions()))


def test_pairs_of_a_large_document_come_in_several_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_pairs, "MOST_PAIRS", 100)
    numbers = [[n, n + 0.5] for n in range(120)]
    parts = converted(json.dumps({"a": numbers}).encode(), "a.json")
    assert [part.rows for part in parts if isinstance(part, Block)] == [1, 0, 0]
    pairs = [part.pairs for part in parts if isinstance(part, Block) and part.pairs]
    assert [set(part.rows) for part in pairs] == [{0}, {-1}, {-1}]
    found = [pair for part in pairs for pair in zip(part.keys, part.values, strict=True)]
    assert found == [(f"a.{n}.{m}", str(value).encode()) for n, two in enumerate(numbers) for m, value in enumerate(two)]
