"""Tables as other programs write them, against what they hold and against Python's csv module."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from h5dat_lib.columns import Block, Fault, Scalars, Strings
from h5dat_lib.config import MediumOptions, TableOptions
from tests.convert.conftest import converted
from tests.convert.test_table import values

FOLDER = Path(__file__).parents[1] / "data" / "csv"
CASES: dict[str, dict[str, Any]] = json.loads((FOLDER / "expected.json").read_text(encoding="utf-8"))
KINDS = {"i": "integer", "f": "float", "b": "boolean", "M": "date"}


def written_dates(column: Scalars) -> list[str | None]:
    """Dates as they were written, by the form of their column."""
    assert isinstance(column.values, np.ndarray)
    texts = np.datetime_as_string(column.values).tolist()
    if column.form:
        texts = [text.replace("T", column.form[0]) + column.form[1:] for text in texts]
    return [None if gone else text for gone, text in zip(np.isnat(column.values), texts, strict=True)]


def described(column: Any) -> list[Any]:
    """Type and values of a column, as `expected.json` has them."""
    if isinstance(column, Strings):
        return ["string", values(column)]
    kind = KINDS[np.dtype(column.dtype).kind]
    return [kind, written_dates(column) if kind == "date" else values(column)]


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("streamed", [False, True])
def test_a_table_of_another_program_has_its_names_types_and_values(name: str, streamed: bool) -> None:
    case = CASES[name]
    options = MediumOptions(table=TableOptions(**case.get("options", {})))
    parts = converted((FOLDER / name).read_bytes(), name, options, streamed=streamed)
    [block] = [part for part in parts if isinstance(part, Block)]
    assert {name: described(column) for name, column in block.columns.items()} == case["columns"]
    assert list(block.columns) == list(case["columns"])
    assert sum(isinstance(part, Fault) for part in parts) == case.get("faults", 0)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case["csv"].get("oracle", True)])
def test_what_is_expected_is_what_the_csv_module_reads(name: str) -> None:
    how, expected = CASES[name]["csv"], CASES[name]["columns"]
    text = (FOLDER / name).read_bytes().decode(how.get("encoding", "utf-8"))
    records = [record for record in csv.reader(io.StringIO(text, newline=""), delimiter=how.get("delimiter", ",")) if record]
    records = records[how.get("skip", 0) + how.get("header", True) :]
    for at, (kind, cells) in enumerate(expected.values()):
        found = [record[at] for record in records]
        assert [parsed(kind, field, how.get("decimal", ".")) for field in found] == cells


def parsed(kind: str, field: str, decimal: str) -> Any:
    if not field or (kind != "string" and field == "NA"):
        return None
    readers: dict[str, Callable[[str], Any]] = {
        "integer": int,
        "float": lambda text: float(text.replace(decimal, ".")),
        "boolean": lambda text: text.lower() == "true",
    }
    return readers.get(kind, str)(field)
