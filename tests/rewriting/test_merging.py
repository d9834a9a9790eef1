"""Merging is as if all archives had been ingested into one output; what cannot be merged leaves nothing behind."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import h5dat_lib
from h5dat_lib.commit.transaction import Output
from h5dat_lib.errors import FormatError, InputError, OutputError
from h5dat_lib.journal import journal_of
from h5dat_lib.lineage import RUNS
from h5dat_lib.lock import OutputLock
from h5dat_lib.rewriting.difference import Compared
from tests.conftest import Bucket, config, make_zip, picture

DATA = Path(__file__).parents[1] / "data"


def members(seed: int, width: int = 8) -> dict[str, bytes]:
    """A few members of each medium, those of no two seeds alike, and one that is rejected."""
    rows = b"".join(b"%d,%s,n%d\n" % (k, b"" if k % 3 == seed % 3 else b"1.5", k % 7) for k in range(30))
    return {
        **{f"p{seed}-{n}.png": picture(width, 6, seed * 100 + n) for n in range(3)},
        **{f"d{seed}-{n}.json": json.dumps({"a": n, "b": f"x{seed}", "c": {"d": [seed]}}).encode() for n in range(3)},
        **{f"t{seed}-{n}.txt": f"text {seed} {n} ".encode() * (n * 50) for n in range(3)},
        f"t{seed}.csv": b"x,y,name\n" + rows,
        f"bad{seed}.png": b"\x89PNG\r\n\x1a\nbad",
    }


def made(folder: Path, name: str, *archives: Path, **settings: object) -> Path:
    """An output of archives, one run each."""
    for archive in archives:
        h5dat_lib.ingest(archive, folder / name, config(**settings))
    return folder / name


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Archives a, b (of other pictures) and c; outputs of a and c, of c and b, and of all."""
    folder = tmp_path_factory.mktemp("merging")
    a, b, c = (make_zip(folder / f"{name}.zip", members(seed, width)) for name, seed, width in (("a", 1, 8), ("b", 2, 9), ("c", 3, 8)))
    made(folder, "ac.h5", a, c)
    made(folder, "cb.h5", c, b)
    made(folder, "all.h5", a, c, b)
    return folder


def left_beside(path: Path) -> list[str]:
    """What lies in the folder of an output and has to do with it."""
    return sorted(name for name in os.listdir(path.parent) if path.name in name)


def test_a_merge_is_what_ingesting_all_archives_into_one_output_gives(home: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.h5"
    merged = h5dat_lib.merge([home / "ac.h5", home / "cb.h5"], output)
    assert h5dat_lib.diff(output, home / "all.h5") == Compared(
        str(output), str(home / "all.h5"), same=True, differences=(), counts={}, more=0, storage=()
    )
    assert h5dat_lib.verify(output).mismatches == []
    assert merged.duplicates == (str(home / "c.zip"),)
    assert (merged.archives, merged.members, merged.rejects, merged.bytes) == (3, 30, 3, output.stat().st_size)
    assert left_beside(output) == ["out.h5"]


def test_plain_h5py_finds_the_same_rows_and_lineage_without_collisions(home: Path, tmp_path: Path) -> None:
    h5dat_lib.merge([home / "ac.h5", home / "cb.h5"], tmp_path / "out.h5")
    with h5py.File(tmp_path / "out.h5") as found, h5py.File(home / "all.h5") as expected:
        pixels, others = (file["images/pixels"] for file in (found, expected))
        for part in ("values", "offset", "length", "shape", "dtype"):
            assert np.array_equal(pixels[part][:], others[part][:]), part
        for name in ("_member", "height", "width"):
            assert np.array_equal(found["images"][name][:], expected["images"][name][:])
        keys = found["lineage/batches/key"][:].tolist()
        assert len(keys) == len(set(keys)) == 3
        assert found["lineage/members/archive"][:].tolist() == expected["lineage/members/archive"][:].tolist()
        ids = found["lineage/runs/run_id"][:].tolist()
        assert len(ids) == len(set(ids)) == 3  # c came in with the second run of the first file, not that of the other
        runs = found["lineage/archives/run"][:].tolist()
        assert runs == [0, 1, 2]


def test_the_order_of_the_inputs_is_that_of_the_rows(home: Path, tmp_path: Path) -> None:
    h5dat_lib.merge([home / "cb.h5", home / "ac.h5"], tmp_path / "out.h5")
    compared = h5dat_lib.diff(tmp_path / "out.h5", home / "all.h5")
    assert set(compared.counts) == {"order"}
    with h5dat_lib.open(tmp_path / "out.h5") as file:
        assert [Path(archive["uri"]).stem for archive in file.archives()] == ["c", "b", "a"]


def test_a_merged_file_goes_on_as_any_other(home: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.h5"
    h5dat_lib.merge([home / "ac.h5", home / "cb.h5"], output)
    before = output.read_bytes()
    report = h5dat_lib.ingest([home / "a.zip", home / "b.zip", home / "c.zip"], output, config())
    assert (report.members, report.skipped) == (0, 33)
    assert output.read_bytes() == before
    h5dat_lib.ingest(make_zip(tmp_path / "d.zip", members(4)), output, config())
    assert h5dat_lib.verify(output).mismatches == []
    with h5dat_lib.open(output) as file:
        assert len(file["images"]) == 12


def test_an_archive_that_one_has_only_in_part_comes_from_the_one_that_has_all(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "a.zip", {"a.txt": b"a"})
    whole = made(tmp_path, "whole.h5", archive)
    part = tmp_path / "part.h5"
    shutil.copyfile(whole, part)
    with h5py.File(part, "r+") as file:
        file["lineage/archives/complete"][0] = False
    assert len(h5dat_lib.merge([part, whole], tmp_path / "out.h5").duplicates) == 1
    assert h5dat_lib.ingest(archive, tmp_path / "out.h5", config()).batches == 0


def test_a_copy_of_an_archive_under_another_name_is_the_same_archive(tmp_path: Path) -> None:
    first = make_zip(tmp_path / "a.zip", {"a.txt": b"a"})
    copy = shutil.copyfile(first, tmp_path / "copy.zip")
    os.utime(copy, (1, 1))
    merged = h5dat_lib.merge([made(tmp_path, "1.h5", first), made(tmp_path, "2.h5", copy)], tmp_path / "out.h5")
    assert merged.duplicates == (str(copy),)
    assert h5dat_lib.diff(tmp_path / "out.h5", tmp_path / "1.h5").same


def test_what_a_retry_brought_in_comes_with_its_archive(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "a.zip", {"s.png": picture(4, 4), "l.png": picture(30, 30, 1), "t.txt": b"text"})
    other = made(tmp_path, "b.h5", make_zip(tmp_path / "b.zip", {"b.png": picture(4, 5), "bad.png": b"\x89PNG\r\n\x1a\nbad"}))
    limited = made(tmp_path, "limited.h5", archive, limits={"pixels": 100})
    tried = shutil.copyfile(limited, tmp_path / "tried.h5")
    h5dat_lib.retry(tried, config())
    merged = h5dat_lib.merge([other, limited, tried], tmp_path / "out.h5")
    assert merged.duplicates == (str(archive),)
    with h5dat_lib.open(tmp_path / "out.h5") as file:
        assert [reject.member for reject in file.rejects()] == ["bad.png"]
        assert [file["images"].origin(row).member for row in range(1, 3)] == ["s.png", "l.png"]
        [first, second] = [row for row, archive in enumerate(file.archives()) if archive["uri"].endswith("a.zip")]
        assert file.archives()[second]["retry_of"] == first
    assert h5dat_lib.verify(tmp_path / "out.h5").mismatches == []


def test_videos_keep_their_frames(tmp_path: Path) -> None:
    films = sorted(path for path in (DATA / "video").iterdir() if path.suffix in (".mp4", ".webm"))[:2]
    archives = [make_zip(tmp_path / f"{film.stem}.zip", {film.name: film.read_bytes()}) for film in films]
    one, two = made(tmp_path, "1.h5", *archives), made(tmp_path, "2.h5", archives[1], make_zip(tmp_path / "c.zip", {"c.txt": b"c"}))
    h5dat_lib.merge([two, one], tmp_path / "out.h5")
    h5dat_lib.ingest([archives[1], tmp_path / "c.zip", archives[0]], tmp_path / "both.h5", config())
    assert h5dat_lib.diff(tmp_path / "out.h5", tmp_path / "both.h5").same
    with h5py.File(tmp_path / "out.h5") as file:
        for video, (first, count) in enumerate(zip(file["videos/first"][:], file["videos/count"][:], strict=True)):
            assert file["videos/frames/video"][first : first + count].tolist() == [video] * int(count)


def test_other_configurations_are_refused_with_the_difference_unless_asked_for(home: Path, tmp_path: Path) -> None:
    other = made(tmp_path, "grey.h5", home / "b.zip", image={"color": "L"})
    with pytest.raises(OutputError, match=r'image.color: "keep" in the file, "L" now.*--new-run'):
        h5dat_lib.merge([home / "ac.h5", other], tmp_path / "out.h5")
    assert left_beside(tmp_path / "out.h5") == []
    h5dat_lib.merge([home / "ac.h5", other], tmp_path / "out.h5", new_run=True)
    with h5dat_lib.open(tmp_path / "out.h5") as file:
        assert [file["images"].pixels[row].shape[2] for row in range(9)] == [3] * 6 + [1] * 3


@pytest.mark.parametrize(
    ("settings", "expected"),
    [({"image": {"storage": "encoded"}}, "--storage decoded"), ({"compression": {"filter": "none"}}, "--filter deflate")],
)
def test_what_does_not_go_together_is_refused_with_what_to_do(home: Path, tmp_path: Path, settings: dict[str, Any], expected: str) -> None:
    other = made(tmp_path, "other.h5", home / "b.zip", **settings)
    with pytest.raises(OutputError, match=expected):
        h5dat_lib.merge([home / "ac.h5", other], tmp_path / "out.h5", new_run=True)


def test_classes_and_columns_that_one_lacks_are_united(tmp_path: Path) -> None:
    a = made(tmp_path, "a.h5", make_zip(tmp_path / "a.zip", {"a.csv": b"x,y\n1,2\n3,4\n"}))
    b = made(tmp_path, "b.h5", make_zip(tmp_path / "b.zip", {"b.csv": b"x,z\n1.5,q\n", "b.txt": b"only here"}))
    h5dat_lib.merge([a, b], tmp_path / "out.h5")
    with h5dat_lib.open(tmp_path / "out.h5") as file:
        assert set(file.classes) == {"tables", "texts"}
        rows = [list(file["tables"][row].values()) for row in range(3)]
        assert (file["tables"].columns, rows) == (["x", "y", "z"], [[1.0, 2, None], [3.0, 4, None], [1.5, None, "q"]])
    assert h5dat_lib.diff(tmp_path / "out.h5", made(tmp_path, "both.h5", tmp_path / "a.zip", tmp_path / "b.zip")).same


def test_the_keys_of_documents_that_are_columns_are_those_of_all(tmp_path: Path) -> None:
    a = made(tmp_path, "a.h5", make_zip(tmp_path / "a.zip", {"a.json": b'{"a": 1, "x": 2}'}))
    b = made(tmp_path, "b.h5", make_zip(tmp_path / "b.zip", {"b.json": b'{"y": 3, "a": 4}'}))
    h5dat_lib.merge([a, b], tmp_path / "out.h5")
    with h5dat_lib.open(tmp_path / "out.h5") as file:
        table = file["documents"]
        assert json.loads(file.attrs("documents")["keys"]) == {"a": "auto", "x": "auto", "y": "auto"}
        assert [[table[row][name] for name in ("a", "x", "y")] for row in range(2)] == [[1, 2, None], [4, None, 3]]
        assert table.pairs(1) == [("y", "3", "integer"), ("a", "4", "integer")]


def test_categories_are_united(tmp_path: Path) -> None:
    schema = {"classes": [{"name": "p", "medium": "images", "types": ["png"], "labels": [{"name": "kind", "folder": 1}]}]}
    archives = [
        make_zip(tmp_path / f"{n}.zip", {f"{kind}/{n}.png": picture(seed=n) for kind in kinds}) for n, kinds in enumerate(("xy", "zx"))
    ]
    first, second = (made(tmp_path, f"{n}.h5", archive, schema=schema) for n, archive in enumerate(archives))
    h5dat_lib.merge([first, second], tmp_path / "out.h5")
    with h5dat_lib.open(tmp_path / "out.h5") as file:
        assert file["p"].kind.categories == ["x", "y", "z"]
        assert file["p"].kind[:] == ["x", "y", "z", "x"]


# What cannot be used


def _not_ours(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["x"] = 1


def _newer(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file.attrs["format_version"] = np.uint32(99)


def _foreign(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file["notes"] = np.arange(3)


def _unreadable(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        column = file["lineage/runs/configuration"]
        column["values"][column["offset"][1]] = ord("x")


def _of_no_archive(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file["lineage/batches/archive"][0] = 1 << 63


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (_not_ours, "without H5DAT's mark"),
        (_newer, "layout version 99"),
        (lambda path: path.write_bytes(b"no HDF5"), "cannot be opened as HDF5"),
        (lambda path: path.unlink(), "no such file"),
        (_foreign, "found the dataset .*notes"),
        (_unreadable, "a run without a configuration"),
        (_of_no_archive, "batches of archives"),
    ],
)
def test_an_input_that_cannot_be_used_is_named_and_nothing_is_written(
    home: Path, tmp_path: Path, spoil: Callable[[Path], None], expected: str
) -> None:
    bad = tmp_path / "bad.h5"
    shutil.copyfile(home / "cb.h5", bad)
    spoil(bad)
    with pytest.raises((FormatError, InputError), match=expected):
        h5dat_lib.merge([home / "ac.h5", bad], tmp_path / "out.h5")
    assert left_beside(tmp_path / "out.h5") == []


@pytest.mark.parametrize("dataset", ["images/pixels/values", "tables/x"])
def test_a_damaged_chunk_is_named_with_its_row_and_member_and_nothing_is_written(home: Path, tmp_path: Path, dataset: str) -> None:
    bad = tmp_path / "bad.h5"
    shutil.copyfile(home / "cb.h5", bad)
    with h5py.File(bad) as file:
        info = file[dataset].id.get_chunk_info(file[dataset].id.get_num_chunks() - 1)
    with bad.open("r+b") as raw:
        raw.seek(info.byte_offset + info.size // 2)
        byte = raw.read(1)
        raw.seek(-1, os.SEEK_CUR)
        raw.write(bytes([byte[0] ^ 1]))
    table = dataset.partition("/")[0]
    with pytest.raises(FormatError, match=rf"{table}, column.*rows? \d.*found CRC.*nothing is written") as raised:
        h5dat_lib.merge([bad, home / "ac.h5"], tmp_path / "out.h5")
    assert re.search(r"\([pt][23]\S*\)", str(raised.value))  # the member
    assert left_beside(tmp_path / "out.h5") == []


def test_an_output_that_is_there_or_among_the_inputs_is_refused(home: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.h5"
    shutil.copyfile(home / "ac.h5", output)
    before = output.read_bytes()
    with pytest.raises(OutputError, match="is there already"):
        h5dat_lib.merge([home / "ac.h5", home / "cb.h5"], output)
    with pytest.raises(OutputError, match="found the output among the inputs"):
        h5dat_lib.merge([home / "ac.h5", output], output)
    with pytest.raises(OutputError, match="found a folder"):
        h5dat_lib.merge([home / "ac.h5", home / "cb.h5"], tmp_path)
    with pytest.raises(OutputError, match="h5dat sync FILE s3://b/k"):
        h5dat_lib.merge([home / "ac.h5", home / "cb.h5"], "s3://b/k")
    with pytest.raises(InputError, match="at least two"):
        h5dat_lib.merge([home / "ac.h5"], tmp_path / "new.h5")
    assert output.read_bytes() == before


def test_an_output_that_is_being_written_is_left_alone(home: Path, tmp_path: Path) -> None:
    with OutputLock(tmp_path / "out.h5"), pytest.raises(OutputError, match="is writing it"):
        h5dat_lib.merge([home / "ac.h5", home / "cb.h5"], tmp_path / "out.h5")


def test_an_input_whose_commit_was_interrupted_is_taken_back_first(home: Path, tmp_path: Path) -> None:
    living, dead = tmp_path / "living.h5", tmp_path / "dead.h5"
    shutil.copyfile(home / "cb.h5", living)
    with Output(living, config()) as output, output.transaction() as writer:
        writer.table(RUNS).set(0, {"status": b"half"})
        writer.flush()
        shutil.copyfile(living, dead)
        shutil.copyfile(journal_of(living), journal_of(dead))
    h5dat_lib.merge([home / "ac.h5", dead], tmp_path / "out.h5")
    assert h5dat_lib.diff(tmp_path / "out.h5", home / "all.h5").same


def test_inputs_may_be_in_s3(home: Path, tmp_path: Path, bucket: Bucket) -> None:
    uri = bucket.put("cb.h5", (home / "cb.h5").read_bytes())
    h5dat_lib.merge([home / "ac.h5", uri], tmp_path / "out.h5")
    assert h5dat_lib.diff(tmp_path / "out.h5", home / "all.h5").same
    assert h5dat_lib.diff(home / "cb.h5", uri).same


# Kills

_KILLED = """
import os, signal, sys
import h5dat_lib, h5dat_lib.journal

h5dat_lib.journal.JournaledFile.commit = lambda file: os.kill(os.getpid(), signal.SIGKILL)
h5dat_lib.merge(sys.argv[1:3], sys.argv[3])
"""


def test_a_kill_leaves_no_output_and_the_same_call_goes_through(home: Path, tmp_path: Path) -> None:
    output, inputs = tmp_path / "out.h5", [str(home / "ac.h5"), str(home / "cb.h5")]
    done = subprocess.run([sys.executable, "-c", _KILLED, *inputs, str(output)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert not output.exists() and left_beside(output)
    h5dat_lib.merge(inputs, output)
    assert h5dat_lib.diff(output, home / "all.h5").same
    assert left_beside(output) == ["out.h5"]


# Any files

_pictures = st.tuples(st.integers(1, 20), st.integers(1, 20), st.sampled_from(["L", "RGB", "RGBA"]))
_texts = st.text(st.characters(codec="utf-8"), max_size=300)
_tables = st.lists(st.tuples(st.integers(-9, 9), st.sampled_from(["", "a", "long" * 80])), min_size=1, max_size=20)


@st.composite
def _archives(draw: st.DrawFn) -> list[dict[str, bytes]]:
    """Members of one to four archives."""
    found: list[dict[str, bytes]] = []
    for number in range(draw(st.integers(2, 4))):
        pictures = {
            f"{n}.png": picture(w, h, number * 50 + n, mode) for n, (w, h, mode) in enumerate(draw(st.lists(_pictures, max_size=4)))
        }
        texts = {f"{n}.txt": text.encode() for n, text in enumerate(draw(st.lists(_texts, max_size=4)))}
        rows = draw(st.none() | _tables)
        table = {"t.csv": b"x,s\n" + b"".join(b"%d,%s\n" % (x, s.encode()) for x, s in rows)} if rows else {}
        found.append({**pictures, **texts, **table, f"only-{number}.txt": b"%d" % number})
    return found


@settings(max_examples=3)
@given(_archives(), st.data())
def test_any_merge_equals_the_ingest_of_all(archives: list[dict[str, bytes]], data: st.DataObject) -> None:
    storage = data.draw(st.sampled_from(["decoded", "encoded"]))
    how = {"image": {"storage": storage}, "compression": {"filter": data.draw(st.sampled_from(["deflate", "none"]))}}
    cut = data.draw(st.integers(1, len(archives) - 1))
    again = data.draw(st.booleans())
    with TemporaryDirectory() as name:
        folder = Path(name)
        zips = [make_zip(folder / f"{n}.zip", archive) for n, archive in enumerate(archives)]
        for output, inputs in (("a", zips[:cut]), ("b", [*(zips[:1] if again else []), *zips[cut:]]), ("all", zips)):
            h5dat_lib.ingest(inputs, folder / f"{output}.h5", config(**how))
        merged = h5dat_lib.merge([folder / "a.h5", folder / "b.h5"], folder / "out.h5")
        assert len(merged.duplicates) == again
        compared = h5dat_lib.diff(folder / "out.h5", folder / "all.h5")
        assert compared.same, compared.differences
        assert h5dat_lib.verify(folder / "out.h5").mismatches == []
