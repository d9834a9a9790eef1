"""The command that finds: the same rows as the library gives, as JSON and for people, by path, condition, words and pictures."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import h5dat_lib
from tests.conftest import Ran, config, make_zip, picture
from tests.read.test_alike import PHOTOS, versions

Run = Callable[..., Ran]
PICTURES = Path(__file__).parents[2] / "samples" / "pictures"
SHOP = {f"shop/{n}.png": picture(8 + n, 6, n) for n in range(4)} | {"shop/0.json": b'{"a": 1, "b": {"c": "Blue Shirt"}}'}
OTHERS = {"t.csv": b"n,s\n1,blue hat\n2,y\n3,shirt of Blue\n", "copy.json": SHOP["shop/0.json"], "copy.csv": b"x,y\n1,2\n"}


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finding")
    h5dat_lib.ingest(make_zip(folder / "a.zip", SHOP | OTHERS | versions()), folder / "out.h5", config())
    return folder / "out.h5"


@pytest.fixture(scope="module")
def without(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("without")
    h5dat_lib.ingest(make_zip(folder / "a.zip", SHOP), folder / "out.h5", config(image={"storage": "encoded"}))
    return folder / "out.h5"


def found(h5dat: Run, *words: object) -> list[dict[str, Any]]:
    ran = h5dat("find", *words, "--json")
    assert (ran.code, ran.err) == (0, "")
    rows: list[dict[str, Any]] = json.loads(ran.out)
    return rows


def test_members_are_listed_by_path_and_by_columns(h5dat: Run, output: Path) -> None:
    listed = found(h5dat, output, "shop/*")
    assert {(entry["table"], entry["member"]) for entry in listed} == {("documents" if "json" in name else "images", name) for name in SHOP}
    wide = found(h5dat, output, "shop/*", "--where", "width > 9")
    assert [entry["member"] for entry in wide] == ["shop/2.png", "shop/3.png"] and wide[0].keys() == listed[0].keys()
    assert len(found(h5dat, output, "shop/*", "-n", "2")) == 2 == len(found(h5dat, output, "--limit", "2"))
    assert h5dat("find", output, "nothing").out == "no rows\n"


def test_rows_are_found_by_words_and_by_what_else_is_asked(h5dat: Run, output: Path) -> None:
    blue = found(h5dat, output, "--text", "SHIRT blue")
    assert [(entry["table"], entry["row"], entry["member"]) for entry in blue] == [
        ("documents", 0, "shop/0.json"),
        ("documents", 1, "copy.json"),
        ("tables", 2, "t.csv"),
    ]
    assert found(h5dat, output, "shop/", "--text", "SHIRT blue") == blue[:1]
    assert found(h5dat, output, "--text", "blue", "--where", "n < 3") == [{"table": "tables", "row": 0, "rows": 1, "member": "t.csv"}]
    assert found(h5dat, output, "--text", "blue", "-n", "1") == blue[:1]


def test_pictures_like_a_file_or_a_row_are_shown_with_their_distance(h5dat: Run, output: Path) -> None:
    with h5dat_lib.open(output) as file:
        table = file["images"]
        expected = table.like(PICTURES / "rocket.jpg")
        row = expected[0].row
    near = found(h5dat, output, "--like", PICTURES / "rocket.jpg")
    assert [(one["row"], one["distance"], one["match"] == "exact") for one in near] == [(a.row, a.distance, a.exact) for a in expected]
    assert {one["member"].split("/")[0] for one in near} == {"rocket.jpg"} and near[0]["member"] == "rocket.jpg/0.jpg"
    assert found(h5dat, output, "--like", f"images/{row}") == found(h5dat, output, "--like", "images/rocket.jpg/0.jpg")
    assert {one["row"] for one in found(h5dat, output, "--like", f"images/{row}")} == {one["row"] for one in near} - {row}
    assert found(h5dat, output, "*/60.jpg", "--like", f"images/{row}", "--where", "height > 1")[0]["member"] == "rocket.jpg/60.jpg"
    assert len(found(h5dat, output, "--like", f"images/{row}", "-n", "2")) == 2
    assert len(found(h5dat, output, "--like", f"images/{row}", "--distance", "64")) == 4 + 7 * len(PHOTOS) - 1
    shown = h5dat("find", output, "--like", PICTURES / "rocket.jpg").out.splitlines()
    assert shown[0].split() == ["table", "row", "member", "distance", "match"] and shown[1].split()[-2:] == ["0", "exact"]


def test_what_looks_alike_is_one_picture_in_a_file(h5dat: Run, output: Path, tmp_path: Path) -> None:
    rows = found(h5dat, output, "--like", PICTURES / "rocket.jpg", "--distance", "64", "--save", tmp_path / "alike.png")
    with Image.open(tmp_path / "alike.png") as whole:
        assert whole.format == "PNG" and whole.size == (96 * 8, 96 * -(-len(rows) // 8)) and 8 < len(rows) < 64
    for words, told in (
        (("--save", tmp_path / "a.png"), "found --save without --like"),
        (("--like", PICTURES / "rocket.jpg", "--save", tmp_path), "cannot be written"),
    ):
        ran = h5dat("find", output, *words)
        assert ran.code == 2 and told in ran.err and ran.err.count("\n") == 1


def test_nothing_within_reach_says_so(h5dat: Run, output: Path) -> None:
    query = PICTURES / "hubble.png"
    assert h5dat("find", output, "--like", query, "--distance", "3").out == f"nothing within 3 bits of {query}\n"
    assert found(h5dat, output, "--like", query) == []


def test_duplicates_are_groups(h5dat: Run, output: Path) -> None:
    groups = found(h5dat, output, "--duplicates", "--distance", "8")
    assert [group["members"] for group in groups if group["table"] == "documents"] == [["shop/0.json", "copy.json"]]
    pictures = [group for group in groups if group["table"] == "images"]
    assert [{name.split("/")[0] for name in group["members"]} for group in pictures] == [{name} for name in PHOTOS]
    assert all(group["copies"] == group["rows"][1:2] and len(group["rows"]) == 7 for group in pictures)
    assert found(h5dat, output, "*copy*", "--duplicates") == []
    assert len(found(h5dat, output, "--duplicates", "-n", "1")) == 1
    lines = h5dat("find", output, "rocket.jpg/*", "--duplicates", "--distance", "8").out.splitlines()
    assert [line.split()[4:] for line in lines[1:3]] == [[], ["exact", "copy"]] and all(line.split()[4:] == ["near"] for line in lines[3:])


def test_a_file_without_hashes_says_how_to_get_them_and_finds_copies(h5dat: Run, without: Path, tmp_path: Path) -> None:
    (tmp_path / "copy.png").write_bytes(SHOP["shop/2.png"])
    ran = h5dat("find", without, "--like", tmp_path / "copy.png")
    assert ran.code == 0 and "shop/2.png" in ran.out and "images: 4 of 4 rows have no perceptual hash" in ran.err
    (tmp_path / "other.png").write_bytes(picture(30, 30, 9))
    refused = h5dat("find", without, "--like", tmp_path / "other.png")
    assert refused.code == 2 and "image.phash" in refused.err and "--decode" in refused.err
    assert found(h5dat, without, "--like", tmp_path / "other.png", "--decode", "--distance", "1") == []
    assert [one["match"] for one in found(h5dat, without, "--like", tmp_path / "copy.png", "--decode", "--distance", "1")] == ["exact"]
    assert h5dat("find", without, "--duplicates").out == "no rows\n"


WRONG: dict[tuple[str, ...], str] = {
    ("--like", __file__): "not a picture",
    ("--like", "nowhere.jpg"): "nowhere.jpg: found no such file, expected a picture, or a row of",
    ("--like", "images/999"): "no row or member '999'",
    ("--like", "documents/0"): "documents: found no pictures",
    ("--like", "images/0", "--distance", "-1"): "found a distance of -1, expected 0 to 64 bits",
    ("--duplicates", "--distance", "65"): "found a distance of 65",
    ("--distance", "3"): "expected one of both",
    ("--like", "images/0", "--duplicates"): "expected one of both",
    ("--text", " "): "found no words",
    ("*", "--where", "widht > 3"): "did you mean 'width'?",
    ("*", "--where", "width >"): "syntax error",
    ("--like", "images/0", "--where", "n > 1"): "found no pictures",
}


@pytest.mark.parametrize("words", WRONG)
def test_what_cannot_be_found_is_one_line_and_exit_code_2(h5dat: Run, output: Path, words: tuple[str, ...]) -> None:
    ran = h5dat("find", output, *words)
    assert ran.code == 2 and ran.err.count("\n") == 1 and WRONG[words] in ran.err
