import csv
import io
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from h5dat_lib.convert.csv_rewrite import Quirks, Rewriter, find_quirks
from h5dat_lib.errors import MemberError
from tests.convert.test_table import read

ALL = Quirks(escapes=True, spaces=True, comment="#")
cells = st.text('ab\\"N0nt,# \n\r\0', max_size=6)


def rewritten(chunks: list[bytes], quirks: Quirks, most: int = 1 << 20) -> bytes:
    return b"".join(Rewriter(quirks, ",", '"', most).rewrite(chunks))


def outfile(records: Sequence[Sequence[str | None]], enclosed: bool) -> str:
    """What MySQL writes with FIELDS TERMINATED BY ',', with or without ENCLOSED BY '"' (manual of LOAD DATA)."""
    special = '\\"' if enclosed else "\\,\n"

    def written(cell: str | None) -> str:
        if cell is None:
            return r"\N"
        text = "".join(rf"\{letter}" if letter in special else letter for letter in cell).replace("\0", r"\0")
        return f'"{text}"' if enclosed else text

    return "".join(",".join(map(written, record)) + "\n" for record in records)


@settings(deadline=None)
@given(st.lists(st.text('ab\\"N, #\n\r', max_size=30), max_size=4), st.integers(1, 9))
def test_it_does_not_matter_how_the_bytes_come(texts: list[str], step: int) -> None:
    data = "\n".join(texts).encode()
    pieces = [data[at : at + step] for at in range(0, len(data), step)]
    assert rewritten(pieces, ALL) == rewritten([data], ALL)


@settings(deadline=None)
@given(st.lists(st.lists(cells | st.none(), min_size=3, max_size=3), min_size=1, max_size=5))
def test_what_mysql_writes_in_quotes_is_read_back(records: list[list[str | None]]) -> None:
    proof: list[list[str | None]] = [['"x"', None, "z"]]
    found, faults = read(outfile(proof + records, enclosed=True), header=False, missing=(), dates=False)
    assert faults == []
    for number, column in enumerate(zip(*(proof + records), strict=True), 1):
        texts = found[f"column_{number}"]
        assert [None if cell is None else str(cell) for cell in texts] == list(column)


@settings(deadline=None)
@given(st.lists(st.lists(st.text("ab\\N0nt,# \n\0", min_size=1, max_size=6), min_size=3, max_size=3), min_size=1, max_size=5))
def test_what_mysql_writes_without_quotes_is_read_back(records: list[list[str]]) -> None:
    text = outfile([["x", None, "z"], *records], enclosed=False)
    plain = rewritten([text.encode()], Quirks(escapes=True)).decode()
    assert list(csv.reader(io.StringIO(plain, newline=""))) == [["x", "", "z"], *records]


@settings(deadline=None)
@given(st.lists(st.lists(st.text('ab", #\n', max_size=5), min_size=2, max_size=3), min_size=1, max_size=5), st.sampled_from([" ", "  "]))
def test_spaces_around_quotes_are_left_out_and_those_within_stay(records: list[list[str]], space: str) -> None:
    quoted = [['"' + cell.replace('"', '""') + '"' for cell in record] for record in records]
    data = "".join(f"{space},{space}".join(record) + "\n" for record in quoted).encode()
    plain = "".join(",".join(record) + "\n" for record in quoted).encode()
    assert rewritten([data], Quirks(spaces=True)) == plain
    assert rewritten([plain], Quirks(spaces=True)) == plain


def test_comments_are_lines_and_not_within_quotes() -> None:
    data = b'#one\na,#b\n"x\n#y",z\n#"\n#"\n""#,1\n#end'
    assert rewritten([data], Quirks(comment="#")) == b'a,#b\n"x\n#y",z\n""#,1\n'


@pytest.mark.parametrize(
    ("text", "escapes"),
    [
        (r"1,\N,2", True),
        (r'"a\"b",2', True),
        (r'"a\\\"b",2', True),
        (r'"C:\dir\",2', False),
        (r'"C:\\",2', False),
        (r'"C:\new","D:\table"', False),
        (r'"a\"b","C:\Users"', False),
        (r"\N,C:\Users", False),
        (r'"say \""hi\""",2', False),
        (r"a\Nb,2", False),
    ],
)
def test_backslashes_are_escapes_only_when_that_is_proven(text: str, escapes: bool) -> None:
    assert find_quirks(text + "\n", ",", '"', "").escapes is escapes


def test_a_record_that_does_not_end_is_not_held() -> None:
    with pytest.raises(MemberError, match="found no end of a record in 100 bytes"):
        rewritten([b'a,"' + b"x" * 60] * 3, Quirks(comment="#"), most=100)
