"""Labels: what folders and files of labels say of a member is in its rows, and what was not found is said."""

from __future__ import annotations

import csv
import gzip
import io
import json
import runpy
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

import h5py
import pytest
from anndata.io import read_elem  # type: ignore[import-untyped]

import h5dat_lib
from h5dat_lib.archive import open_archive
from h5dat_lib.config import _COLUMNS, Limits, load, parse
from h5dat_lib.errors import InputError
from h5dat_lib.lineage import sample_key
from h5dat_lib.plan.batches import Record, summarise
from h5dat_lib.plan.labels import Labeller
from tests.conftest import Ran, config, make_folder, make_tar, make_zip, picture

SAMPLES = Path(__file__).parents[2] / "samples"
CSV = b"id,kind,colour\n1,shirt,red\n2,shoe,\n3,hat,blue\n"


def _schema(*labels: Mapping[str, object], extension: str = "txt") -> dict[str, object]:
    media = {"txt": "texts", "png": "images", "csv": "tables", "json": "documents"}
    return {"classes": [{"name": "things", "medium": media[extension], "extensions": [extension], "labels": list(labels)}]}


def _labels(folder: Path, members: Mapping[str, bytes], *labels: Mapping[str, object], make: Callable[..., Path] = make_zip) -> Labeller:
    archive = make(folder / ("a.tar.gz" if make is make_tar else "a"), members)
    schema = parse({"schema": _schema(*labels)}).schema_
    return Labeller(schema, open_archive(archive, Limits()), Limits(), folder)


def _label(value: str | None = "kind", key: str | None = "id", file: str = "labels.csv", **more: str) -> dict[str, object]:
    return {"name": "label", "file": file, **({"key": key} if key else {}), **({"value": value} if value else {}), **more}


@pytest.mark.parametrize(
    ("above", "path", "label"),
    [(1, "train/cats/1.txt", "cats"), (2, "train/cats/1.txt", "train"), (1, "1.txt", None), (3, "train/cats/1.txt", None)],
)
def test_a_label_may_be_the_name_of_a_folder(tmp_path: Path, above: int, path: str, label: str | None) -> None:
    labels = _labels(tmp_path, {path: b""}, {"name": "label", "folder": above})
    assert labels.of("things", path) == (label,)


JSON_LINES = b'{"id": 1, "kind": "shirt"}\n\n{"id": 2, "kind": "shoe"}\n'


@pytest.mark.parametrize(
    ("name", "data", "label"),
    [
        ("labels.csv", CSV, _label()),
        ("deep/labels.csv", CSV, _label(file="**/labels.csv")),
        ("labels.csv", b"\xef\xbb\xbf" + CSV, _label()),
        ("labels.csv", CSV.decode().encode("utf-16"), _label()),
        ("labels.csv", CSV.replace(b",", b";"), _label()),
        ("labels.tsv", CSV.replace(b",", b"\t").replace(b"\n", b"\r\n"), _label(file="labels.tsv")),
        ("labels.csv.gz", gzip.compress(CSV), _label(file="*.gz")),
        ("labels.csv", b'id,kind\n1,"shirt"\n2,"shoe"\n', _label()),
        ("l.json", b'{"1": "shirt", "2": "shoe"}', _label(value=None, key=None, file="l.json")),
        ("l.json", b'{"1": {"a": ["", "shirt"]}, "2": {"a": [0, "shoe"]}}', _label(value="a.1", key=None, file="l.json")),
        ("l.json", b'[{"id": 1, "k": {"a.b": "shirt"}}, {"id": 2, "k": {"a.b": "shoe"}}]', _label(value="k.a\\.b", file="l.json")),
        ("l.jsonl", JSON_LINES, _label(file="l.jsonl")),
        ("l.ndjson", b'{"1": "shirt"}\n{"2": "shoe"}\n', _label(value=None, key=None, file="l.ndjson")),
    ],
)
@pytest.mark.parametrize("make", [make_zip, make_tar, make_folder])
def test_a_label_may_stand_in_a_file_of_the_archive(
    tmp_path: Path, name: str, data: bytes, label: dict[str, object], make: Callable[..., Path]
) -> None:
    labels = _labels(tmp_path, {"1.txt": b"", "x/2.txt": b"", name: data}, label, make=make)
    assert [labels.of("things", path) for path in ("1.txt", "x/2.txt", "4.txt")] == [("shirt",), ("shoe",), (None,)]


@pytest.mark.parametrize(
    ("member_key", "key"),
    [
        ("stem", "0001.left"),
        ("name", "0001.left.txt"),
        ("path", "data/train/cats/0001.left.txt"),
        ("path", "train/cats/0001.left.txt"),
        ("key", "data/train/cats/0001"),
        ("folder", "cats"),
    ],
)
def test_what_is_looked_up_of_a_member_can_be_chosen(tmp_path: Path, member_key: str, key: str) -> None:
    members = {"data/train/cats/0001.left.txt": b"", "data/labels.csv": f"id,kind\n{key},shirt\n".encode()}
    labels = _labels(tmp_path, members, _label(file="data/labels.csv", member_key=member_key))
    assert labels.of("things", "data/train/cats/0001.left.txt") == ("shirt",)


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_there_may_be_a_json_file_a_member(tmp_path: Path, make: Callable[..., Path]) -> None:
    files = {"1": {"data": {"n": 1.50}}, "2": {"data": {"n": True}}, "3": {"data": {"n": None}}, "4": {"data": {"n": [1]}}, "5": {}}
    members = {f"styles/{key}.json": json.dumps(value).encode() for key, value in files.items()} | {
        "styles/6.json": b"{",
        "x/7.json": b"{}",
    }
    labels = _labels(tmp_path, members, _label(value="data.n", key=None, file="**/styles/{key}.json"), make=make)
    found = [labels.of("things", f"x/{key}.txt") for key in range(1, 8)]
    assert found == [("1.5",), ("true",), (None,), (None,), (None,), (None,), (None,)]


def test_keys_of_one_file_a_member_may_have_folders(tmp_path: Path) -> None:
    members = {"notes/a/1.json": b'{"n": "x"}', "notes/b/1.json": b'{"n": "y"}'}
    labels = _labels(tmp_path, members, _label(value="n", key=None, file="notes/{key}.json", member_key="key"))
    assert [labels.of("things", path) for path in ("a/1.txt", "b/1.left.txt")] == [("x",), ("y",)]


def test_a_file_of_labels_may_lie_beside_the_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "labels.csv").write_bytes(CSV)
    for place in ("./labels.csv", str(tmp_path / "labels.csv"), f"../{tmp_path.name}/labels.csv"):
        labels = _labels(tmp_path, {"1.txt": b""}, _label(file=place))
        assert labels.of("things", "1.txt") == ("shirt",)


def test_of_several_values_for_a_key_the_first_is_taken_and_it_is_said(tmp_path: Path) -> None:
    members = {"labels.csv": b"id,kind\n1,a\n1,b\n2,c\n2,c\n3,d\n", "x/labels.csv": b"id,kind\n3,e\n4,f\n"}
    labels = _labels(tmp_path, members, _label(file="**/labels.csv"))
    assert [labels.of("things", f"{key}.txt") for key in range(1, 5)] == [("a",), ("c",), ("d",), ("f",)]
    assert labels.remarks() == [f"{tmp_path}/a, **/labels.csv: found other values for 2 keys further on, e.g. 1; took the first"]


@pytest.mark.parametrize(
    ("name", "data", "label", "words"),
    [
        ("labels.csv", CSV, _label(value="size"), "labels.csv: found no labels (found the columns id, kind, colour, expected 'size'"),
        ("labels.csv", CSV, _label(key="ID"), "expected 'ID' among them"),
        ("labels.csv", CSV, _label(key=None), "expected `key` and `value` to name two of its columns"),
        ("labels.csv", b"id,kind\n\x00\x01\x02\xff\xfe", _label(), "not text"),
        ("l.json", b"[1", _label(file="l.json"), "no JSON"),
        ("l.json", b"[" * 100_000, _label(file="l.json"), "no JSON"),
        ("l.json", b"{}", _label(file="l.json"), "found a JSON dict, expected a list of objects with 'id'"),
        ("l.json", b"[]", _label(key=None, file="l.json"), "found a JSON list, expected an object"),
        ("l.jsonl", b'{"id": 1, "kind": "a"}\n{', _label(file="l.jsonl"), "line 2"),
        ("l.json", b'[{"id": 1, "kinds": "a"}]', _label(file="l.json"), "found no value at 'kind' for any key"),
    ],
)
def test_a_file_of_labels_that_cannot_be_used_is_an_error_in_one_line(
    tmp_path: Path, name: str, data: bytes, label: dict[str, object], words: str
) -> None:
    with pytest.raises(InputError) as error:
        _labels(tmp_path, {name: data}, label)
    assert words in str(error.value) and "\n" not in str(error.value) and str(tmp_path) in str(error.value)


@pytest.mark.parametrize(("name", "start"), [("labels.csv", b"id,kind\n1,"), ("labels.jsonl", b'{"id": 1, "kind": "')])
def test_a_line_of_labels_that_is_too_long_is_not_read(tmp_path: Path, name: str, start: bytes) -> None:
    archive = make_zip(tmp_path / "a.zip", {name: start + b"a" * (2 << 20)})
    settings = config(schema=_schema(_label(file=name)), limits={"whole_bytes": 1 << 20})
    with pytest.raises(InputError, match="too large: found a line of more than 1048576 characters"):
        h5dat_lib.ingest(archive, tmp_path / "out.h5", settings)


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_a_missing_file_of_labels_is_an_error_before_anything_is_converted(tmp_path: Path, make: Callable[..., Path]) -> None:
    archive = make(tmp_path / ("a.zip" if make is make_zip else "a.tar.gz"), {"1.txt": b"one"})
    with pytest.raises(
        InputError, match=r"found no member 'labels.csv', expected the file of its labels; one beside it is given as ./labels.csv"
    ):
        h5dat_lib.ingest(archive, tmp_path / "out.h5", config(schema=_schema(_label())))
    assert not (tmp_path / "out.h5").exists()
    with pytest.raises(InputError, match=r"nowhere\.csv"):
        h5dat_lib.ingest(archive, tmp_path / "out.h5", config(schema=_schema(_label(file=f"{tmp_path}/nowhere.csv"))))


def test_an_archive_without_members_of_the_class_needs_no_file_of_labels(tmp_path: Path) -> None:
    rules = [*_schema(_label())["classes"], {"name": "others", "medium": "documents", "extensions": ["json"]}]  # type: ignore[misc]
    report = h5dat_lib.ingest(make_zip(tmp_path / "a.zip", {"1.json": b"{}"}), tmp_path / "out.h5", config(schema={"classes": rules}))
    assert report.rows == 1


@pytest.mark.parametrize("make", [make_zip, make_tar, make_folder])
def test_labels_are_categories_of_their_class(tmp_path: Path, make: Callable[..., Path]) -> None:
    label = {"name": "colour", "file": "labels.csv", "key": "id", "value": "colour"}
    rules = _schema({"name": "split", "folder": 1}, _label(), label, extension="png")
    members = {f"train/{key}.png": picture(seed=key) for key in (1, 2, 3, 4)} | {"labels.csv": CSV}
    archive = make(tmp_path / ("a.tar.gz" if make is make_tar else "a"), members)
    report = h5dat_lib.ingest(archive, tmp_path / "out.h5", config(schema=rules))
    assert report.unlabelled == (
        f"{archive}, things.label: found nothing for 1 of 4 members (25.0 %), e.g. train/4.png; look at key/member_key",
        f"{archive}, things.colour: found nothing for 2 of 4 members (50.0 %), e.g. train/2.png; look at key/member_key",
    )
    with h5dat_lib.open(tmp_path / "out.h5") as file:
        things = file["things"]
        assert [things[name][:] for name in ("split", "label", "colour")] == [
            ["train"] * 4,
            ["shirt", "shoe", "hat", None],
            ["red", None, "blue", None],
        ]
    with h5py.File(tmp_path / "out.h5") as plain:
        codes, names = plain["things/label/codes"][:], plain["things/label/categories"][:]
        assert [names[code].decode() if code >= 0 else None for code in codes] == ["shirt", "shoe", "hat", None]
        frame = read_elem(plain["things"])
    assert str(frame["label"].dtype) == "category" and frame["label"].astype(object).tolist()[:3] == ["shirt", "shoe", "hat"]
    assert not h5dat_lib.verify(tmp_path / "out.h5").mismatches


def test_every_row_of_a_member_has_its_label(tmp_path: Path) -> None:
    rules = _schema({"name": "split", "folder": 1}, extension="csv")
    h5dat_lib.ingest(
        make_zip(tmp_path / "a.zip", {"x/1.csv": b"a\n1\n2\n", "y/1.csv": b"a\n3\n"}), tmp_path / "out.h5", config(schema=rules)
    )
    with h5dat_lib.open(tmp_path / "out.h5") as file:
        assert file["things"]["split"][:] == ["x", "x", "y"]


def test_the_columns_that_no_label_can_bear_the_name_of_are_those_of_the_converters(tmp_path: Path) -> None:
    members = {"1.png": picture(), "1.txt": b"text", "1.jsonl": b"{}\n", "1.odd": b"odd"}
    settings = config(unknown="bytes", image={"damaged": "tolerant", "frames": "all"})
    h5dat_lib.ingest(make_zip(tmp_path / "a.zip", members), tmp_path / "out.h5", settings)
    with h5dat_lib.open(tmp_path / "out.h5") as file:
        assert file.classes == ("documents", "files", "images", "texts")
        taken = {name: set(text.split()) for name, text in _COLUMNS.items()}
        assert {name: set(file[name].columns) - taken[name] for name in file.classes} == {name: set() for name in file.classes}  # type: ignore[index]


def test_a_label_of_the_name_of_a_column_rejects_the_member(tmp_path: Path) -> None:
    rules = _schema({"name": "a", "folder": 1}, extension="csv")
    h5dat_lib.ingest(make_zip(tmp_path / "a.zip", {"x/1.csv": b"a\n1\n", "x/2.csv": b"b\n1\n"}), tmp_path / "out.h5", config(schema=rules))
    with h5dat_lib.open(tmp_path / "out.h5") as file:
        [reject] = file.rejects()
        assert reject.member == "x/1.csv" and reject.reason.startswith("two columns 'a'")
        assert file["things"]["a"][:] == ["x"]


def test_a_label_that_is_added_later_is_missing_in_the_rows_before(tmp_path: Path) -> None:
    archives = [make_zip(tmp_path / f"{name}.zip", {f"{name}/1.txt": name.encode()}) for name in ("a", "b")]
    h5dat_lib.ingest(archives[0], tmp_path / "out.h5", config(schema=_schema()))
    start = h5dat_lib.Start(new_run=True)
    h5dat_lib.ingest(archives[1], tmp_path / "out.h5", config(schema=_schema({"name": "label", "folder": 1})), start=start)
    with h5dat_lib.open(tmp_path / "out.h5") as file:
        assert file["things"]["label"][:] == [None, "b"]


def test_what_was_not_found_is_shown_by_plan_and_ingest(tmp_path: Path, h5dat: Callable[..., Ran]) -> None:
    archive = make_zip(tmp_path / "a.zip", {"1.txt": b"", "9.txt": b"", "labels.csv": CSV})
    (tmp_path / "schema.json").write_text(json.dumps(_schema(_label())))
    line = f"labels: {archive}, things.label: found nothing for 1 of 2 members (50.0 %), e.g. 9.txt; look at key/member_key\n"
    assert line in h5dat("plan", archive, "--schema", tmp_path / "schema.json").err
    assert line in h5dat("ingest", archive, "-o", tmp_path / "out.h5", "--direct", "--schema", tmp_path / "schema.json").err
    summary = summarise(str(archive), load(schema_file=tmp_path / "schema.json"))
    assert f"labels: {asdict(summary)['unlabelled'][0]}\n" == line


def test_the_labels_of_a_record_survive_the_plan_file(tmp_path: Path) -> None:
    archive = open_archive(make_zip(tmp_path / "a.zip", {"1.txt": b""}), Limits())
    [member] = archive.members()
    record = Record(member, None, labels=("a\nb", None))
    assert Record.from_line(record.to_line()).labels == record.labels


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("a/1.jpg", "a/1"),
        ("a/1.left.png", "a/1"),
        ("a.b/1.jpg", "a.b/1"),
        ("1.jpg", "1"),
        ("a/README", "a/README"),
        ("a/.hidden", "a/.hidden"),
        ("a.b/c", "a.b/c"),
    ],
)
def test_members_of_one_sample_share_the_path_up_to_the_first_dot(path: str, key: str) -> None:
    assert sample_key(path) == key


def test_the_key_of_its_sample_is_recorded_of_every_member(tmp_path: Path) -> None:
    members = {"s/1.png": picture(), "s/1.seg.png": picture(seed=1), "s/1.json": b"{}"}
    h5dat_lib.ingest(make_zip(tmp_path / "a.zip", members), tmp_path / "out.h5", config())
    with h5dat_lib.open(tmp_path / "out.h5") as file:
        assert file["lineage/members"]["key"][:] == ["s/1"] * 3
        assert file["documents"].origin(0).key == "s/1"


def test_the_fashion_sample_labels_pictures_by_the_table_and_by_the_products(tmp_path: Path) -> None:
    rows = [("1", "Men", "Apparel", "Shirts", "Fall", "Puma"), ("2", "Women", "Footwear", "Heels", "Summer", "Nike")]
    table = io.StringIO()
    csv.writer(table).writerows([("id", "gender", "masterCategory", "articleType", "season"), *(row[:-1] for row in rows)])
    members = {f"fashion/images/{row[0]}.jpg": picture(format="JPEG") for row in rows}
    members |= {f"fashion/styles/{row[0]}.json": json.dumps({"data": {"brandName": row[-1]}}).encode() for row in rows}
    members |= {"fashion/styles.csv": table.getvalue().encode()}
    settings = load(schema_file=SAMPLES / "fashion_schema.json", task_runner="threads")
    report = h5dat_lib.ingest(make_zip(tmp_path / "a.zip", members), tmp_path / "out.h5", settings)
    assert not report.rejects and not report.unlabelled
    with h5dat_lib.open(tmp_path / "out.h5") as file:
        assert file.classes == ("images", "styles", "tables")
        names = ("gender", "masterCategory", "articleType", "season", "brand")
        assert list(zip(*(file["images"][name][:] for name in names), strict=True)) == [row[1:] for row in rows]


def test_the_example_of_samples_in_the_documents_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    h5dat_lib.ingest(make_zip(tmp_path / "a.zip", {"1.png": picture(), "1.json": b"{}"}), tmp_path / "fashion.h5", config())
    text = (SAMPLES.parent / "docs" / "schema.md").read_text(encoding="utf-8")
    (tmp_path / "example.py").write_text(text.partition("```python\n")[2].partition("```")[0])
    monkeypatch.chdir(tmp_path)
    runpy.run_path("example.py")
    assert capsys.readouterr().out == "{'1': [('documents', 0), ('images', 0)]}\n"
