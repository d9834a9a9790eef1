"""Columns as Parquet, read back by pyarrow: types, missing values, files within, row groups, and what Hugging Face is told."""

from __future__ import annotations

import io
import json
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import h5dat_lib
from h5dat_lib.errors import OutputError
from h5dat_lib.exporting import ExportOptions, parquet
from tests.conftest import config, make_zip, picture

DATA = Path(__file__).parents[1] / "data"
RULE = {"name": "images", "medium": "images", "extensions": ["png", "jpg"], "labels": [{"name": "label", "folder": 1}]}
RECORDS = b'number,share,word,long,when,yes\n1,0.5,"a, b",%s,2024-01-02,true\n,,,,,\n3,2.5,"",x,2024-01-03,false\n' % (b"x" * 400)


@pytest.fixture
def output(tmp_path: Path) -> Path:
    members = {"r.csv": RECORDS, "b.wav": (DATA / "audio" / "s16_stereo_44k.wav").read_bytes(), "n.txt": b"words"}
    members |= {f"{word}/{n}.png": picture(8 + n, seed=n) for word in ("cat", "dog") for n in range(3)} | {"7.png": picture()}
    rules = [
        RULE,
        *(
            {"name": name, "medium": name, "extensions": [ending]}
            for name, ending in (("tables", "csv"), ("audio", "wav"), ("texts", "txt"))
        ),
    ]
    h5dat_lib.ingest(make_zip(tmp_path / "a.zip", members), tmp_path / "a.h5", config(schema={"classes": rules}))
    return tmp_path / "a.h5"


def test_plain_columns_have_their_types_and_missing_values_are_null(output: Path, tmp_path: Path) -> None:
    h5dat_lib.export(output, tmp_path / "out", "parquet")
    found = pq.read_table(tmp_path / "out" / "tables")
    assert found.drop_columns(["member", "key"]).to_pydict() == {
        "number": [1, None, 3],
        "share": [0.5, None, 2.5],
        "word": ["a, b", None, ""],
        "long": ["x" * 400, None, "x"],
        "when": [date(2024, 1, 2), None, date(2024, 1, 3)],
        "yes": [True, None, False],
    }
    assert found["member"].to_pylist() == ["r.csv"] * 3 and found.schema.field("number").type == pa.int64()


def test_pictures_are_files_and_labels_dictionaries(output: Path, tmp_path: Path) -> None:
    h5dat_lib.export(output, tmp_path / "out", "parquet")
    found = pq.read_table(tmp_path / "out" / "images")
    assert found.schema.field("pixels").type == pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    assert pa.types.is_dictionary(found.schema.field("label").type) and found["label"].to_pylist()[-1] is None
    with h5dat_lib.open(output) as file:
        for row, value in enumerate(found["pixels"].to_pylist()):
            assert value["path"] == file["images"].origin(row).member
            assert np.array_equal(np.asarray(Image.open(io.BytesIO(value["bytes"]))), file["images"].pixels[row])
    [sound] = pq.read_table(tmp_path / "out" / "audio")["samples"].to_pylist()
    assert (sound["bytes"][:4], sound["path"]) == (b"RIFF", "b.wav")


def test_pictures_that_were_kept_are_the_members_bytes(tmp_path: Path) -> None:
    members = {f"{n}.jpg": picture(seed=n, format="JPEG") for n in range(3)}
    h5dat_lib.ingest(make_zip(tmp_path / "a.zip", members), tmp_path / "a.h5", config(image={"storage": "encoded"}))
    h5dat_lib.export(tmp_path / "a.h5", tmp_path / "out.parquet")
    assert [value["bytes"] for value in pq.read_table(tmp_path / "out.parquet")["pixels"].to_pylist()] == list(members.values())


def test_row_groups_and_files_end_where_they_are_large_enough(output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "_GROUP_ROWS", 1)
    monkeypatch.setattr("h5dat_lib.exporting.selection.BATCH_BYTES", 200)
    h5dat_lib.export(output, tmp_path / "out", "parquet", ExportOptions(["images"], shard_bytes=2000))
    paths = sorted((tmp_path / "out" / "images").iterdir())
    assert [path.name for path in paths] == [f"part-{n:05d}.parquet" for n in range(len(paths))] and len(paths) > 1
    assert sum(pq.ParquetFile(path).num_row_groups for path in paths) == 7
    assert pq.read_table(tmp_path / "out" / "images")["width"].to_pylist() == [8, 9, 10, 8, 9, 10, 8]


def test_one_file_takes_one_class(output: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="expected one class for one file"):
        h5dat_lib.export(output, tmp_path / "out.parquet")
    found = h5dat_lib.export(output, tmp_path / "out.parquet", options=ExportOptions(["tables"]))
    assert (found.form, found.files, found.rows) == ("parquet", 1, 3) and pq.read_table(tmp_path / "out.parquet").num_rows == 3


def test_arrays_that_are_no_pictures_are_lists(tmp_path: Path) -> None:
    pytest.importorskip("eccodes")
    h5dat_lib.ingest(DATA / "images" / "picture.bufr", tmp_path / "a.h5", config())
    h5dat_lib.export(tmp_path / "a.h5", tmp_path / "out.parquet")
    found = pq.read_table(tmp_path / "out.parquet")["values"]
    with h5dat_lib.open(tmp_path / "a.h5") as file:
        for value, expected in zip(found.to_pylist(), file["documents"]["values"][:], strict=True):
            np.testing.assert_array_equal(np.array(value, "f8"), expected)


def test_hugging_face_is_told_what_is_a_picture_and_what_a_label(output: Path, tmp_path: Path) -> None:
    h5dat_lib.export(output, tmp_path / "out", "huggingface", ExportOptions(split={"train": 0.5, "test": 0.5}, classes=["images", "audio"]))
    paths = sorted((tmp_path / "out" / "images").iterdir())
    assert [path.name for path in paths] == ["test-00000.parquet", "train-00000.parquet"]
    for path in paths:
        schema = pq.read_schema(path)
        features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
        assert list(features) == schema.names
        assert features["pixels"] == {"_type": "Image"} and features["height"] == {"dtype": "uint32", "_type": "Value"}
        assert features["label"] == {"names": ["cat", "dog"], "_type": "ClassLabel"} and schema.field("label").type == pa.int64()
    labels = {row["member"]: row["label"] for path in paths for row in pq.read_table(path).to_pylist()}
    assert labels == {f"{word}/{n}.png": code for code, word in enumerate(("cat", "dog")) for n in range(3)} | {"7.png": None}
    card = (tmp_path / "out" / "README.md").read_text()
    assert '- config_name: "images"' in card and 'path: "images/train-*.parquet"' in card and '- config_name: "audio"' in card
