"""JSONTestSuite: y_ files are JSON, n_ files are not, of i_ files nothing is said (tests/data/json/ORIGIN.md)."""

import zipfile
from pathlib import Path
from typing import Literal

import pytest

from h5dat_lib.columns import Block
from h5dat_lib.config import DocumentOptions, MediumOptions
from h5dat_lib.errors import MemberError
from tests.convert.conftest import converted

SUITE = Path(__file__).resolve().parents[1] / "data" / "json" / "JSONTestSuite.zip"
CONSTANTS = ["n_number_NaN.json", "n_number_infinity.json", "n_number_minus_infinity.json"]
"""[NaN], [Infinity] and [-Infinity]: no JSON, but kept unless they are forbidden."""


def files(kind: str) -> dict[str, bytes]:
    with zipfile.ZipFile(SUITE) as archive:
        names = [name for name in archive.namelist() if name.startswith(f"test_parsing/{kind}_")]
        return {name.removeprefix("test_parsing/"): archive.read(name) for name in names}


def is_accepted(name: str, data: bytes, numbers: Literal["keep", "strict"]) -> bool:
    """Whether a file gives rows, and nothing else; a file that is rejected must give no row at all."""
    options = MediumOptions(document=DocumentOptions(numbers=numbers))
    try:
        return all(isinstance(part, Block) for part in converted(data, name, options))
    except MemberError:
        return False


def test_the_whole_suite_is_there() -> None:
    assert {kind: len(files(kind)) for kind in "yni"} == {"y": 95, "n": 188, "i": 35}


@pytest.mark.parametrize("numbers", ["keep", "strict"])
def test_all_that_is_json_is_accepted(numbers: Literal["keep", "strict"]) -> None:
    assert [name for name, data in files("y").items() if not is_accepted(name, data, numbers)] == []


def test_all_that_is_no_json_is_rejected_when_told_to_be_strict() -> None:
    assert [name for name, data in files("n").items() if is_accepted(name, data, "strict")] == []


def test_of_what_is_no_json_only_constants_are_kept() -> None:
    assert [name for name, data in files("n").items() if is_accepted(name, data, "keep")] == CONSTANTS


def test_what_the_specification_leaves_open_is_accepted_where_nothing_is_lost() -> None:
    """What is not UTF-8, or is nested more than 200 levels deep, is rejected; numbers of any size and half surrogate pairs are kept."""
    rejected = [name for name, data in files("i").items() if not is_accepted(name, data, "keep")]
    assert len(rejected) == 11
    assert all(name.startswith(("i_string_", "i_structure_500_nested_arrays")) for name in rejected)
