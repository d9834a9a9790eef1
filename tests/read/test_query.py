"""Conditions in SQL: the rows that Python finds, nothing but columns in sight, and one clear error for anything else."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import h5dat_lib
from h5dat_lib.errors import InputError, UnknownName
from tests.conftest import config, make_zip, picture

CSV = b"name,a.b,n,day,ok,label\n" + b"".join(
    b"name %d,%d,%s,2024-01-%02d,%s,%s\n"
    % (n, n % 7, b"" if n % 5 == 0 else b"%.1f" % (n / 4), n % 28 + 1, b"true" if n % 2 else b"false", b"Shirts" if n % 3 else b"Shoes")
    for n in range(500)
)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[h5dat_lib.File]:
    folder = tmp_path_factory.mktemp("query")
    members = {f"shop/{n}.png": picture(8 + n, 6, n) for n in range(5)} | {f"shop/{n}.json": b'{"id": %d, "x": "t"}' % n for n in range(5)}
    h5dat_lib.ingest(make_zip(folder / "a.zip", members | {"t.csv": CSV}), folder / "out.h5", config())
    with h5dat_lib.open(folder / "out.h5") as opened:
        yield opened


CONDITIONS = [
    "label = 'Shirts' and n > 40",
    '"a.b" in (1, 2) or n is null',
    "name like '%9' and not ok",
    "LABEL = 'Shoes'",
    "n / 2 between 3 and 4 -- a remark",
    "n <> 3",
    "1 = 1",
    "1 = 0",
]


@pytest.mark.parametrize("condition", CONDITIONS)
def test_rows_are_those_that_another_engine_finds(file: h5dat_lib.File, condition: str) -> None:
    table = file["tables"]
    oracle = sqlite3.connect(":memory:")
    oracle.execute('CREATE TABLE t (name TEXT, "a.b" INTEGER, n REAL, ok INTEGER, label TEXT)')
    columns = [table.table(["name", "a.b", "n", "ok", "label"])[name].to_pylist() for name in ("name", "a.b", "n", "ok", "label")]
    oracle.executemany("INSERT INTO t VALUES (?, ?, ?, ?, ?)", [[None if v != v else v for v in row] for row in zip(*columns, strict=True)])
    expected = [row - 1 for (row,) in oracle.execute(f"SELECT rowid FROM t WHERE ({condition}\n) ORDER BY rowid")]
    found = table.where(condition)
    assert found.dtype == np.int64 and found.tolist() == expected


def test_columns_come_slab_by_slab(file: h5dat_lib.File, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = file["tables"].where("n > 40 and ok")
    monkeypatch.setattr("h5dat_lib.read.tables._SLAB", 7)
    assert file["tables"].where("n > 40 and ok").tolist() == whole.tolist() != []


def test_dates_and_members_can_be_asked_for(file: h5dat_lib.File) -> None:
    assert file["tables"].where("day = DATE '2024-01-03' and row < 100").tolist() == [2, 30, 58, 86]
    assert file["images"].where("member like '%/3.png'").tolist() == [3]
    assert file["images"].where("key = 'shop/2' and width = 10").tolist() == [2]


REFUSED = {
    "labl = 'x'": "no column 'labl'.*did you mean 'label'",
    "label = ": "syntax error",
    "label = 3 and": "syntax error",
    "n > (select max(n) from t)": "a query within it",
    "1=1) union select (1": "more than a condition",
    "1=1); drop table t; select (1": "SELECT",
    "row_number() over () > 3": "a window",
    "t.n > 3": "double quotes",
    "n > ?": "a parameter",
    "n in (select content from read_text('/etc/passwd'))": "a query within it",
    "nosuch(n)": "nosuch",
    "day > 'no day'": "no day",
}


@pytest.mark.parametrize("condition", REFUSED)
def test_what_is_no_condition_is_refused_in_one_line(file: h5dat_lib.File, condition: str) -> None:
    with pytest.raises(InputError, match=REFUSED[condition]) as caught:
        file["tables"].where(condition)
    assert "\n" not in str(caught.value).replace(condition, "")


def test_columns_of_arrays_are_not_seen(file: h5dat_lib.File) -> None:
    with pytest.raises(InputError, match="'pixels': found arrays"):
        file["images"].where("pixels > 3")
    with pytest.raises(InputError, match="'pixels': found arrays"):
        file["images"].table(["pixels"])


def test_the_engine_reaches_neither_files_nor_network_nor_variables() -> None:
    import duckdb

    from h5dat_lib.read.query import Condition

    secret = pa.table({"a": [1]})
    assert len(secret)
    database = Condition("1 = 1")._database
    for statement in (
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM glob('/*')",
        "SELECT * FROM secret",
        "COPY (SELECT 1) TO 'x.csv'",
        "INSTALL httpfs",
        "SET enable_external_access = true",
        "ATTACH 'x.db'",
    ):
        with pytest.raises(duckdb.Error):
            database.execute(statement)


def test_a_table_has_typed_columns(file: h5dat_lib.File) -> None:
    table = file["tables"].table()
    kinds = {field.name: str(field.type) for field in table.schema}
    assert kinds["n"] == "double" and kinds["a.b"] == "int64" and kinds["ok"] == "bool" and kinds["day"].startswith("date32")
    assert table.num_rows == 500 and table["name"][3].as_py() == "name 3"
    images = file["images"].table(["member", "width", "row"], rows=[4, 1])
    assert images.to_pylist() == [{"member": "shop/4.png", "width": 12, "row": 4}, {"member": "shop/1.png", "width": 9, "row": 1}]
    assert "pixels" not in file["images"].table().column_names
    with pytest.raises(UnknownName, match=r"no column 'widht'.*did you mean 'width'"):
        file["images"].table(["widht"])


def test_members_that_share_a_key_have_it_in_pandas_too(tmp_path: Path) -> None:
    members = {f"{n}.{side}.png": picture(seed=n) for n in range(2) for side in ("left", "right")}
    h5dat_lib.ingest(make_zip(tmp_path / "a.zip", members), tmp_path / "out.h5", config())
    with h5dat_lib.open(tmp_path / "out.h5") as file:
        table = file["images"].table(["key", "member"])
    assert table.to_pandas()["key"].tolist() == ["0", "0", "1", "1"] and table["member"].to_pylist() == [*members]


def test_tables_are_joined_by_the_key_of_their_samples_or_by_columns(file: h5dat_lib.File) -> None:
    pairs = file["images"].join(file["documents"], on="key").to_pylist()
    assert [(pair["on"], pair["row"], pair["other_row"]) for pair in pairs] == [(f"shop/{n}", n, n) for n in range(5)]
    by_name = file["images"].join(file["documents"], on=("name", "id")).to_pylist()
    assert [(pair["row"], pair["other_row"]) for pair in by_name] == [(n, n) for n in range(5)]


def test_keys_of_other_folders_join_nothing_and_it_is_said(tmp_path: Path) -> None:
    members = {"images/1163.png": picture(), "styles/1163.json": b'{"a": 1}', "styles/1164.json": b'{"a": 2}'}
    h5dat_lib.ingest(make_zip(tmp_path / "a.zip", members), tmp_path / "out.h5", config())
    with h5dat_lib.open(tmp_path / "out.h5") as file:
        with pytest.warns(UserWarning, match=r"no key in both tables \(images/1163 of images and styles/1163 of documents\); on='name'"):
            assert len(file["images"].join(file["documents"], on="key")) == 0
        assert file["images"].join(file["documents"], on="name")["other_row"].to_pylist() == [0]


def test_without_the_engine_one_line_says_what_to_install(file: h5dat_lib.File, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "duckdb", None)
    with pytest.raises(InputError, match=r"pip install 'h5dat\[query\]'"):
        file["tables"].where("n > 3")
