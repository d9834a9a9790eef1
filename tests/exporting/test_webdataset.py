"""Rows as samples in tars, which the standard library reads: keys, endings, labels, shards."""

from __future__ import annotations

import json
import re
import tarfile
from pathlib import Path

import pytest

import h5dat_lib
from h5dat_lib.errors import ConfigError
from h5dat_lib.exporting import Exported, ExportOptions
from tests.conftest import config, make_zip, picture
from tests.exporting.conftest import Rename

Sample = dict[str, bytes]


def exported(
    tmp_path: Path, members: dict[str, bytes], options: ExportOptions | None = None, dest: str = "out", **settings: object
) -> Exported:
    h5dat_lib.ingest(make_zip(tmp_path / "a.zip", members), tmp_path / "a.h5", config(**settings))
    return h5dat_lib.export(tmp_path / "a.h5", tmp_path / dest, "webdataset", options)


def samples(*tars: Path) -> dict[str, Sample]:
    """The files of each sample by their endings; a sample begins where the key changes, as WebDataset has it, and keys come once."""
    found: dict[str, Sample] = {}
    last = None
    for path in tars:
        with tarfile.open(path) as tar:
            for info in tar:
                match = re.match(r"^((?:.*/|)[^.]+)[.]([^/]*)$", info.name)
                assert match is not None and info.isreg() and (info.mtime, info.uid, info.gid, info.uname) == (0, 0, 0, "")
                key, ending = match.groups()
                assert (key == last) == (key in found), "the files of a sample lie together"
                sample = found.setdefault(key, {})
                assert ending not in sample
                stream = tar.extractfile(info)
                assert stream is not None
                sample[ending], last = stream.read(), key
    return found


def test_members_of_one_key_are_a_sample_with_their_own_bytes(tmp_path: Path) -> None:
    members: dict[str, bytes] = {}
    for n in range(5):
        members |= {f"a/{n}.JPEG": picture(seed=n, format="JPEG"), f"a/{n}.json": b'{"n": %d}' % n, f"a/{n}.txt": b"word"}
    exported(tmp_path, dict(reversed(members.items())), image={"storage": "encoded"})
    found = samples(tmp_path / "out" / "out-000000.tar")
    assert list(found) == [f"a/{n}" for n in reversed(range(5))]
    for n in range(5):
        sample = found[f"a/{n}"]
        assert (sample["jpg"], sample["json"], sample["txt"]) == (members[f"a/{n}.JPEG"], members[f"a/{n}.json"], b"word")
        assert json.loads(sample["images.json"])["height"] == 6 and json.loads(sample["texts.json"])["format"] == "txt"
        assert len(sample) == 5


def test_pictures_alone_have_their_columns_as_json_and_their_label_as_a_number(tmp_path: Path) -> None:
    members = {f"{word}/{n}.tif": picture(seed=n, format="TIFF") for n in range(2) for word in ("cat", "dog")} | {"7.png": picture()}
    rule = {"name": "images", "medium": "images", "extensions": ["tif", "png"], "labels": [{"name": "label", "folder": 1}]}
    exported(tmp_path, members, schema={"classes": [rule]})
    found = samples(tmp_path / "out" / "out-000000.tar")
    names = json.loads((tmp_path / "out" / "labels.json").read_text())["images"]
    assert {key: names[int(sample["cls"])] for key, sample in found.items() if "cls" in sample} == {
        f"{word}/{n}": word for n in range(2) for word in ("cat", "dog")
    }
    assert set(found["7"]) == {"png", "json"} and json.loads(found["cat/0"]["json"])["label"] == "cat"


def test_by_name_members_of_other_folders_are_one_sample(tmp_path: Path) -> None:
    members = {f"{folder}/{n}.png": picture(seed=n) for folder in ("photos", "masks") for n in range(2)}
    rules = [{"name": name, "medium": "images", "folders": [name]} for name in ("photos", "masks")]
    exported(tmp_path, members, ExportOptions(by="name"), schema={"classes": rules}, image={"storage": "encoded"})
    found = samples(tmp_path / "out" / "out-000000.tar")
    assert set(found) == {"0", "1"} and set(found["0"]) == {"png", "json", "photos.png", "photos.json"}
    with pytest.raises(ConfigError, match="expected key or name"):
        h5dat_lib.export(tmp_path / "a.h5", tmp_path / "other", "webdataset", ExportOptions(by="size"))


def test_parts_of_a_member_are_samples_of_their_own_and_text_is_utf8(tmp_path: Path) -> None:
    members = {"a.jsonl": b'{"n": 1}\n{"n": 2}\n', "b.csv": b"x\n1\n2\n", "c.txt": "grüß".encode("utf-16"), "d": picture()}
    found = exported(tmp_path, members)
    assert set(samples(tmp_path / "out" / "out-000000.tar")) == {"a/line-000001", "a/line-000002", "c", "d"}
    assert samples(tmp_path / "out" / "out-000000.tar")["c"]["txt"].decode() == "grüß"
    assert [(left.name, left.rows) for left in found.left_out] == [("tables", 2)] and found.rows == 4


def test_shards_are_about_as_large_as_they_may_be_and_hold_whole_samples(tmp_path: Path) -> None:
    members = {f"{n:02d}.png": picture(40, 40, seed=n) for n in range(20)}
    exported(tmp_path, members, ExportOptions(shard_bytes=20_000), image={"storage": "encoded"})
    tars = sorted((tmp_path / "out").iterdir())
    assert [path.name for path in tars] == [f"out-{n:06d}.tar" for n in range(len(tars))] and len(tars) > 3
    assert all(path.stat().st_size <= 40_000 for path in tars)
    found = samples(*tars)
    assert {f"{key}.png": sample["png"] for key, sample in found.items()} == members
    h5dat_lib.export(tmp_path / "a.h5", tmp_path / "again" / "out", "webdataset", ExportOptions(shard_bytes=20_000))
    assert all(path.read_bytes() == (tmp_path / "again" / "out" / path.name).read_bytes() for path in tars)


def test_splits_are_shards_of_their_names_and_one_tar_is_one_file(tmp_path: Path) -> None:
    members = {f"{n}.png": picture(seed=n) for n in range(8)}
    exported(tmp_path, members, ExportOptions(split={"train": 0.5, "test": 0.5}))
    train, test = (samples(tmp_path / "out" / f"{name}-000000.tar") for name in ("train", "test"))
    assert set(train) | set(test) == {str(n) for n in range(8)} and not set(train) & set(test)
    assert h5dat_lib.export(tmp_path / "a.h5", tmp_path / "one.tar").form == "webdataset"
    assert len(samples(tmp_path / "one.tar")) == 8


def test_large_samples_come_in_several_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from h5dat_lib.exporting import webdataset

    monkeypatch.setattr(webdataset, "BATCH_BYTES", 500)
    members = {f"{n}.{ending}": data for n in range(9) for ending, data in (("png", picture(seed=n)), ("json", b'{"n": %d}' % n))}
    exported(tmp_path, members)
    found = samples(tmp_path / "out" / "out-000000.tar")
    assert list(found) == [str(n) for n in range(9)] and all(set(sample) == {"png", "json", "images.json"} for sample in found.values())


def test_keys_of_strangers_are_keys(tmp_path: Path, rename: Rename) -> None:
    names = ["../../x.png", "/etc/passwd.png", ".hidden.png", "__meta__/x.png", "a.b/c.d.png", "no ending"]
    h5dat_lib.ingest(make_zip(tmp_path / "a.zip", {f"{n}.png": picture(seed=n) for n in range(6)}), tmp_path / "a.h5", config())
    rename(tmp_path / "a.h5", names)
    h5dat_lib.export(tmp_path / "a.h5", tmp_path / "out.tar")
    found = samples(tmp_path / "out.tar")
    assert len(found) == 6 and not [key for key in found if ".." in key or key.startswith(("/", "__"))]
