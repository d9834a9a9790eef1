"""Repacking changes how rows are stored and nothing else, in the file's own place or beside it, whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import h5dat_lib
from h5dat_lib import Packing
from h5dat_lib.errors import ConfigError, FormatError, OutputError
from h5dat_lib.lock import OutputLock
from tests.conftest import config, make_zip, picture
from tests.rewriting.test_merging import left_beside, made, members


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Archives a and b (of other pictures); outputs of a, of both, and of a with its pictures kept as files."""
    folder = tmp_path_factory.mktemp("repacking")
    a, b = (make_zip(folder / f"{name}.zip", members(seed, width)) for name, seed, width in (("a", 1, 8), ("b", 2, 9)))
    made(folder, "dense.h5", a)
    shutil.copyfile(made(folder, "dense.h5"), folder / "ragged.h5")
    made(folder, "ragged.h5", b)
    made(folder, "encoded.h5", a, image={"storage": "encoded", "phash": "always"})
    return folder


@pytest.mark.parametrize(
    ("name", "packing"),
    [
        ("dense.h5", Packing(filter="none", chunk_bytes=4096)),
        ("dense.h5", Packing(layout="ragged", level=3)),
        ("ragged.h5", Packing()),
        ("ragged.h5", Packing(chunk_bytes=1 << 20)),
        ("encoded.h5", Packing(storage="decoded", layout="ragged")),
    ],
    ids=str,
)
def test_values_and_lineage_stay(home: Path, tmp_path: Path, name: str, packing: Packing) -> None:
    output = tmp_path / "out.h5"
    repacked = h5dat_lib.repack(home / name, output, packing)
    found = h5dat_lib.diff(home / name, output)
    assert found.same, found.differences
    assert h5dat_lib.verify(output).mismatches == []
    assert (repacked.before, repacked.after) == ((home / name).stat().st_size, output.stat().st_size)
    assert left_beside(output) == ["out.h5"]
    with h5dat_lib.open(home / name) as before, h5dat_lib.open(output) as after:
        assert [run["run_id"] for run in before.runs()] == [run["run_id"] for run in after.runs()]


def _stored(path: Path) -> dict[str, np.ndarray]:
    """All values of all datasets, by h5py alone."""
    found: dict[str, np.ndarray] = {}
    with h5py.File(path) as file:
        file.visititems(lambda name, item: found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
    return found


def _assert_alike(one: Path, other: Path) -> None:
    first, second = _stored(one), _stored(other)
    assert first.keys() == second.keys()
    assert [name for name in first if not np.array_equal(first[name], second[name], equal_nan=first[name].dtype.kind == "f")] == []


def test_there_and_back_is_equal_byte_for_byte(home: Path, tmp_path: Path) -> None:
    h5dat_lib.repack(home / "dense.h5", tmp_path / "1.h5", Packing(layout="ragged", filter="none"))
    h5dat_lib.repack(tmp_path / "1.h5", tmp_path / "2.h5", Packing(layout="dense", filter="deflate"))
    _assert_alike(tmp_path / "2.h5", home / "dense.h5")


def test_twice_is_as_once(home: Path, tmp_path: Path) -> None:
    packing = Packing(layout="ragged", chunk_bytes=8192, level=2)
    h5dat_lib.repack(home / "ragged.h5", tmp_path / "1.h5", packing)
    h5dat_lib.repack(tmp_path / "1.h5", tmp_path / "2.h5", packing)
    _assert_alike(tmp_path / "2.h5", tmp_path / "1.h5")


def test_encoded_pictures_become_the_pixels_that_decoding_them_would_have_stored(home: Path, tmp_path: Path) -> None:
    h5dat_lib.repack(home / "encoded.h5", tmp_path / "out.h5", Packing(storage="decoded"))
    with h5py.File(tmp_path / "out.h5") as found, h5py.File(home / "dense.h5") as expected:
        assert np.array_equal(found["images/pixels"][:], expected["images/pixels"][:])
        assert found["images/pixels"].chunks == expected["images/pixels"].chunks
        assert sorted(found["images"].attrs) == sorted(expected["images"].attrs)


def test_the_next_ingest_knows_the_archives_and_stores_as_the_file_does(home: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.h5"
    h5dat_lib.repack(home / "encoded.h5", output, Packing(storage="decoded", filter="none", level=3))
    with pytest.raises(OutputError, match=r'compression.filter: "none" in the file, "deflate" now'):
        h5dat_lib.ingest(home / "a.zip", output, config(image={"storage": "encoded"}))
    now = config(compression={"filter": "none"}, image={"phash": "always"})
    assert h5dat_lib.ingest(home / "a.zip", output, now).batches == 0
    assert h5dat_lib.ingest(home / "b.zip", output, now).rows == 39
    assert h5dat_lib.verify(output).mismatches == []
    assert h5dat_lib.diff(output, home / "ragged.h5").same
    with h5dat_lib.open(output) as file:
        assert {run["config_digest"] for run in file.runs()} == {now.digest()}
        assert {json.loads(run["configuration"])["image"]["storage"] for run in file.runs()} == {"decoded"}


def test_a_level_and_a_layout_leave_the_configuration_as_it_is(home: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.h5"
    h5dat_lib.repack(home / "dense.h5", output, Packing(level=0, layout="ragged"))
    assert h5dat_lib.ingest([home / "a.zip", home / "b.zip"], output, config()).skipped == 11
    assert h5dat_lib.diff(output, home / "ragged.h5").same


def test_a_layout_that_was_configured_is_recorded_as_another(home: Path, tmp_path: Path) -> None:
    output = made(tmp_path, "out.h5", home / "a.zip", image={"layout": "dense"})
    h5dat_lib.repack(output, packing=Packing(layout="ragged"))
    assert h5dat_lib.ingest(home / "a.zip", output, config(image={"layout": "ragged"})).batches == 0


def test_waste_is_given_back(tmp_path: Path) -> None:
    output = tmp_path / "out.h5"
    for n in range(4):  # the text is another column each time, and what was before lies waste
        rows = b"".join(b"%d,%s\n" % (row, os.urandom(30).hex().encode() * (n + 1)) for row in range(2000))
        h5dat_lib.ingest(make_zip(tmp_path / f"{n}.zip", {f"{n}.csv": b"x,s\n" + rows}), output, config(compression={"filter": "none"}))
    copy = shutil.copyfile(output, tmp_path / "copy.h5")
    repacked = h5dat_lib.repack(output)
    assert repacked.after == output.stat().st_size < repacked.before
    assert h5dat_lib.diff(output, copy).same


# What cannot be


def test_pixels_do_not_become_files(home: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"found pixels.*own bytes are not kept.*storage = encoded"):
        h5dat_lib.repack(home / "dense.h5", tmp_path / "out.h5", Packing(storage="encoded"))
    assert left_beside(tmp_path / "out.h5") == []


def test_pictures_of_several_shapes_are_not_dense(home: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"images\[3\] \(p2-0.png\): found \(6, 9, 3\) uint8, expected \(6, 8, 3\)"):
        h5dat_lib.repack(home / "ragged.h5", tmp_path / "out.h5", Packing(layout="dense"))
    assert not h5dat_lib.diff(home / "ragged.h5", home / "ragged.h5").storage


def test_settings_that_cannot_be_are_refused() -> None:
    for wrong in ({"level": 9}, {"filter": "zip"}, {"layout": "x"}, {"storage": "x"}, {"chunk_bytes": 1}):
        with pytest.raises(ConfigError, match="repack"):
            Packing(**wrong)  # type: ignore[arg-type]


def test_a_damaged_file_stays_and_is_named_with_row_and_member(home: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.h5"
    shutil.copyfile(home / "dense.h5", bad)
    with h5py.File(bad) as file:
        info = file["images/pixels"].id.get_chunk_info(1)
    with bad.open("r+b") as raw:
        raw.seek(info.byte_offset + 20)
        raw.write(b"\0\1\2\3")
    before = bad.read_bytes()
    for packing in (Packing(), Packing(level=1), Packing(layout="ragged")):
        with pytest.raises(FormatError, match=r"images, column 'pixels', row 1 \(p1-1.png\): found CRC.*nothing is written"):
            h5dat_lib.repack(bad, packing=packing)
    assert bad.read_bytes() == before
    assert left_beside(bad) == ["bad.h5"]


def test_a_place_that_is_taken_or_being_written_is_refused(home: Path, tmp_path: Path) -> None:
    output = shutil.copyfile(home / "dense.h5", tmp_path / "out.h5")
    with pytest.raises(OutputError, match="is there already"):
        h5dat_lib.repack(home / "dense.h5", output)
    with pytest.raises(OutputError, match=r"h5dat sync FILE s3://b/k"):
        h5dat_lib.repack("s3://b/k")
    with OutputLock(output), pytest.raises(OutputError, match="is writing it"):
        h5dat_lib.repack(output)


def test_space_is_told_before_and_a_disk_without_it_left_alone(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = shutil.copyfile(home / "dense.h5", tmp_path / "out.h5")
    told: list[tuple[int, int]] = []
    monkeypatch.setattr(shutil, "disk_usage", lambda path: namedtuple("usage", "free")(1000))
    with pytest.raises(OutputError, match="found 1000 free"):
        h5dat_lib.repack(output, announce=lambda *space: told.append(space))
    assert told == [(output.stat().st_size, 1000)]
    assert output.read_bytes() == (home / "dense.h5").read_bytes()


# Kills

_KILLED = """
import os, signal, sys
import h5dat_lib, h5dat_lib.rewriting.new_file

def die(*_): os.kill(os.getpid(), signal.SIGKILL)
original = h5dat_lib.rewriting.new_file._put_in_place
def after(*paths):
    original(*paths)
    die()
h5dat_lib.rewriting.new_file._put_in_place = die if sys.argv[1] == "rename" else after
h5dat_lib.repack(sys.argv[2], packing=h5dat_lib.Packing(layout="ragged"))
"""


@pytest.mark.parametrize("place", ["rename", "renamed"])
def test_a_kill_leaves_the_old_file_or_the_new_one_whole(home: Path, tmp_path: Path, place: str) -> None:
    output = shutil.copyfile(home / "dense.h5", tmp_path / "out.h5")
    done = subprocess.run([sys.executable, "-c", _KILLED, place, str(output)], check=False)
    assert done.returncode == -signal.SIGKILL
    if place == "rename":
        assert output.read_bytes() == (home / "dense.h5").read_bytes()
    h5dat_lib.repack(output, packing=Packing(layout="ragged"))
    assert h5dat_lib.diff(home / "dense.h5", output).storage == ("images/pixels: layout dense and ragged, chunks (1, 6, 8, 3) and (144,)",)
    assert left_beside(output) == ["out.h5"]


# Any file

_pictures = st.lists(st.tuples(st.integers(1, 90), st.integers(1, 90), st.sampled_from(["L", "RGB"])), min_size=1, max_size=5)
_packings = st.builds(
    Packing,
    layout=st.sampled_from([None, "auto", "ragged"]),
    filter=st.sampled_from([None, "deflate", "none"]),
    level=st.sampled_from([None, 0, 3]),
    chunk_bytes=st.sampled_from([None, 4096, 1 << 20]),
)


@settings(max_examples=2)
@given(_pictures, st.lists(st.text(st.characters(codec="utf-8"), max_size=40_000), max_size=5), _packings, _packings)
def test_any_file_repacked_in_any_ways_has_the_same_values(
    tmp_path_factory: pytest.TempPathFactory, pictures: list[tuple[int, int, str]], texts: list[str], first: Packing, second: Packing
) -> None:
    folder = tmp_path_factory.mktemp("any")
    members = {f"{n}.png": picture(width, height, n, mode) for n, (width, height, mode) in enumerate(pictures)}
    members |= {f"{n}.txt": text.encode() for n, text in enumerate(texts)}
    made(folder, "0.h5", make_zip(folder / "a.zip", members))
    for n, packing in enumerate((first, second)):
        h5dat_lib.repack(folder / f"{n}.h5", folder / f"{n + 1}.h5", packing)
        compared = h5dat_lib.diff(folder / "0.h5", folder / f"{n + 1}.h5")
        assert compared.same, compared.differences
        assert h5dat_lib.verify(folder / f"{n + 1}.h5").mismatches == []
