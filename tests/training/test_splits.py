"""Splits: shares hold, and a key stays where it is whatever else comes in."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import h5dat_lib
from h5dat_lib.errors import ConfigError
from h5dat_lib.training.splits import Splits, key_text
from tests.conftest import config, make_zip, picture

SHARES = {"train": 0.8, "val": 0.1, "test": 0.1}
KEYS = [f"images/{number}" for number in range(20_000)]


def test_about_the_share_of_all_keys_is_in_each_split() -> None:
    found = Counter(map(Splits(SHARES).of, KEYS))
    for name, share in SHARES.items():
        assert abs(found[name] - share * len(KEYS)) < 5 * (len(KEYS) * share * (1 - share)) ** 0.5


def test_splits_are_those_of_every_release_and_machine() -> None:
    assert [Splits(SHARES).of(key) for key in ("a", "1163", "images/ü", "images/7")] == ["train", "train", "val", "train"]
    assert "".join(Splits({"x": 0.5, "y": 0.5}, seed=3).of(str(number)) for number in range(16)) == "xyyyyxyyyxyyyxxx"


def test_another_seed_splits_otherwise() -> None:
    one, other = Splits(SHARES), Splits(SHARES, seed=1)
    both = sum(one.of(key) == other.of(key) == "test" for key in KEYS)
    assert 100 < both < 300  # a hundredth of all


def test_a_split_without_a_share_is_empty() -> None:
    assert {Splits({"train": 1.0, "test": 0.0}).of(key) for key in KEYS} == {"train"}


@pytest.mark.parametrize("shares", [{}, {"a": 0.5}, {"a": 0.9, "b": 0.2}, {"a": 1.5, "b": -0.5}])
def test_shares_that_do_not_add_up_are_refused(shares: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="add up to 1"):
        Splits(shares)


def test_a_number_is_the_same_key_whatever_its_type() -> None:
    assert key_text(5) == key_text(5.0) == key_text("5") != key_text(5.5)


# Of a table

HALVES = {"a": 0.5, "b": 0.5}


def _files(first: int, last: int) -> dict[str, bytes]:
    """Two views of each product."""
    return {f"{number}.{side}.png": picture(4, 4, seed=number) for number in range(first, last) for side in ("left", "right")}


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("splits")
    h5dat_lib.ingest(make_zip(folder / "a.zip", _files(0, 40)), folder / "out.h5", config())
    return folder / "out.h5"


def test_rows_of_one_key_are_in_one_split_and_every_row_is_in_one(output: Path) -> None:
    with h5dat_lib.open(output) as file:
        table = file["images"]
        parts = table.split(HALVES)
        assert sorted(np.concatenate(list(parts.values()))) == list(range(80))
        keys = {name: {table.origin(row).key for row in rows} for name, rows in parts.items()}
        assert not keys["a"] & keys["b"] and len(keys["a"]) > 10
        assert keys["a"] == {key for key in map(str, range(40)) if Splits(HALVES).of(key) == "a"}


def test_copies_are_in_one_split_by_their_content(output: Path) -> None:
    with h5dat_lib.open(output) as file:
        table = file["images"]
        digests = [{table.origin(row).sha256 for row in rows} for rows in table.split(HALVES, by="sha256").values()]
        assert not digests[0] & digests[1]


def test_rows_are_split_by_the_path_of_their_member(output: Path) -> None:
    with h5dat_lib.open(output) as file:
        table = file["images"]
        for name, rows in table.split(HALVES, by="path").items():
            assert len(rows) and {Splits(HALVES).of(table.origin(row).member) for row in rows} == {name}


def test_members_of_one_name_are_in_one_split_whatever_their_folder_and_class(tmp_path: Path) -> None:
    members = {f"images/{n}.png": picture(seed=n) for n in range(30)} | {f"styles/{n}.json": b'{"a": 1}' for n in range(30)}
    h5dat_lib.ingest(make_zip(tmp_path / "a.zip", members), tmp_path / "out.h5", config())
    with h5dat_lib.open(tmp_path / "out.h5") as file:
        images, styles = (file[name].split(HALVES, by="name") for name in ("images", "documents"))
        assert all(np.array_equal(images[name], styles[name]) and len(images[name]) > 5 for name in HALVES)


def test_rows_stay_in_their_split_when_others_come_in(output: Path, tmp_path: Path) -> None:
    grown = tmp_path / "grown.h5"
    grown.write_bytes(output.read_bytes())
    h5dat_lib.ingest(make_zip(tmp_path / "b.zip", _files(40, 90)), grown, config())
    with h5dat_lib.open(output) as before, h5dat_lib.open(grown) as after:
        for name, rows in before["images"].split(HALVES, seed=5).items():
            assert [row for row in after["images"].split(HALVES, seed=5)[name] if row < 80] == rows.tolist()


def test_rows_are_split_by_a_column_and_by_their_key_where_it_is_missing(tmp_path: Path) -> None:
    lines = [f'{{"id": {number}, "shop": {number % 7}}}\n' for number in range(100)] + ['{"id": 100}\n', '{"id": 101}\n']
    h5dat_lib.ingest(make_zip(tmp_path / "a.zip", {"a.jsonl": "".join(lines).encode()}), tmp_path / "out.h5", config())
    with h5dat_lib.open(tmp_path / "out.h5") as file:
        table = file["documents"]
        parts = table.split(HALVES, by="shop")
        shops = [{number % 7 for number in rows if number < 100} for rows in parts.values()]
        assert not shops[0] & shops[1]
        assert {100, 101} <= set(parts[Splits(HALVES).of("a")].tolist())


def test_a_label_that_the_schema_asks_for_holds_the_same_split(tmp_path: Path) -> None:
    label = {"name": "split", "split": [{"name": "a", "share": 0.5}, {"name": "b", "share": 0.5}], "seed": 2}
    schema = {"classes": [{"name": "images", "medium": "images", "extensions": ["png"], "labels": [label]}]}
    h5dat_lib.ingest(make_zip(tmp_path / "a.zip", _files(0, 40)), tmp_path / "out.h5", config(schema=schema))
    with h5dat_lib.open(tmp_path / "out.h5") as file:
        table = file["images"]
        stored, computed = table.split("split"), table.split(HALVES, seed=2)
        assert stored.keys() == computed.keys()
        assert all(np.array_equal(stored[name], computed[name]) for name in stored)


def test_shares_of_a_label_that_do_not_add_up_are_refused() -> None:
    label = {"name": "split", "split": [{"name": "a", "share": 0.5}]}
    with pytest.raises(ConfigError, match="add up to 1"):
        config(schema={"classes": [{"name": "images", "medium": "images", "extensions": ["png"], "labels": [label]}]})


def test_what_there_is_to_split_by_is_said(output: Path) -> None:
    with h5dat_lib.open(output) as file, pytest.raises(KeyError, match="no column 'kee'"):
        file["images"].split(HALVES, by="kee")
