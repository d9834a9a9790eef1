"""Pictures and labels as COCO's JSON, read by a reader of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import h5dat_lib
from h5dat_lib.errors import InputError, OutputError
from h5dat_lib.exporting import ExportOptions
from tests.conftest import config, make_zip, picture

RULE = {"name": "images", "medium": "images", "extensions": ["png", "tif"], "labels": [{"name": "label", "folder": 1}]}
MEMBERS = {f"{word}/{n}.tif": picture(8 + n, 6, seed=n, format="TIFF") for word in ("cat", "dög") for n in range(3)} | {"7.png": picture()}


@pytest.fixture
def output(tmp_path: Path) -> Path:
    settings = config(schema={"classes": [RULE, {"name": "texts", "medium": "texts", "extensions": ["txt"]}]})
    h5dat_lib.ingest(make_zip(tmp_path / "a.zip", MEMBERS | {"n.txt": b"words"}), tmp_path / "a.h5", settings)
    return tmp_path / "a.h5"


def read(path: Path) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Pictures by file name, and the category of those that have one; as pycocotools joins them."""
    found = json.loads(path.read_text(encoding="utf-8"))
    images = {image["id"]: image for image in found["images"]}
    categories = {category["id"]: category["name"] for category in found["categories"]}
    assert len(images) == len(found["images"]) and len(categories) == len(found["categories"]) and 0 not in {*images, *categories}
    assert len({annotation["id"] for annotation in found["annotations"]}) == len(found["annotations"])
    labels = {images[each["image_id"]]["file_name"]: categories[each["category_id"]] for each in found["annotations"]}
    assert len(labels) == len(found["annotations"]) and not [each for each in found["annotations"] if "bbox" in each]
    return {image["file_name"]: image for image in images.values()}, labels


def test_the_json_alone_names_the_members(output: Path, tmp_path: Path) -> None:
    found = h5dat_lib.export(output, tmp_path / "out.json")
    images, labels = read(tmp_path / "out.json")
    assert list(images) == list(MEMBERS) and labels == {name: name.split("/")[0] for name in MEMBERS if "/" in name}
    assert [(image["width"], image["height"]) for image in images.values()] == [(8, 6), (9, 6), (10, 6)] * 2 + [(8, 6)]
    assert (found.form, found.files, found.rows) == ("coco", 1, 7) and [left.name for left in found.left_out] == ["texts"]


def test_with_images_it_names_the_files_that_are_there(output: Path, tmp_path: Path) -> None:
    h5dat_lib.export(output, tmp_path / "out", "coco", ExportOptions(images=True))
    images, labels = read(tmp_path / "out" / "annotations.json")
    written = {str(path.relative_to(tmp_path / "out" / "images")) for path in (tmp_path / "out" / "images").rglob("*.*")}
    assert written == set(images) == {name.replace(".tif", ".png") for name in MEMBERS} and labels["dög/1.png"] == "dög"
    for name, record in images.items():
        with Image.open(tmp_path / "out" / "images" / name) as image:
            assert image.size == (record["width"], record["height"])


def test_splits_have_a_json_each(output: Path, tmp_path: Path) -> None:
    h5dat_lib.export(output, tmp_path / "out", "coco", ExportOptions(split="label"))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["annotations-cat.json", "annotations-dög.json"]
    images, _ = read(tmp_path / "out" / "annotations-cat.json")
    assert list(images) == [f"cat/{n}.tif" for n in range(3)]


def test_what_coco_cannot_be_is_said(output: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no class of pictures"):
        h5dat_lib.export(output, tmp_path / "out", "coco", ExportOptions(["texts"]))
    with pytest.raises(OutputError, match="expected a folder"):
        h5dat_lib.export(output, tmp_path / "out.json", options=ExportOptions(images=True))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.h5", "a.zip"]
