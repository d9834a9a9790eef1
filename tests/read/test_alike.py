"""Rows that are alike: those that plain Python finds by counting bits, exact copies by their bytes, and what files without hashes say."""

from __future__ import annotations

import io
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

import h5dat_lib
from h5dat_lib.errors import InputError
from h5dat_lib.pipeline import Start
from h5dat_lib.read.alike import Group, grouped, near_pairs, nearest
from tests.conftest import config, make_zip, picture

PICTURES = Path(__file__).parents[2] / "samples" / "pictures"
PHOTOS = ("astronaut.jpg", "rocket.jpg", "chelsea.png", "coffee.webp", "camera.jpg")

HASH = st.integers(0, (1 << 64) - 1)


@st.composite
def crowded(draw: st.DrawFn) -> list[int]:
    """Hashes of which many are near each other: some at random, and those with a few other bits."""
    centres = draw(st.lists(HASH, min_size=1, max_size=4))
    flips = st.lists(st.integers(0, 63), max_size=9)
    around = draw(st.lists(st.tuples(st.sampled_from(centres), flips), max_size=25))
    return [*centres, *(centre ^ sum(1 << bit for bit in set(bits)) for centre, bits in around)]


@given(crowded(), HASH, st.integers(0, 64), st.none() | st.integers(1, 9), st.integers(1, 7))
def test_the_nearest_have_the_fewest_other_bits(values: list[int], wanted: int, distance: int, limit: int | None, slab: int) -> None:
    for query in (wanted, values[-1]):
        apart = sorted(((value ^ query).bit_count(), row) for row, value in enumerate(values))
        expected = [(row, bits) for bits, row in apart if bits <= distance][:limit]
        slabs = ((np.arange(at, min(at + slab, len(values))), np.array(values[at : at + slab], "u8")) for at in range(0, len(values), slab))
        assert list(zip(*nearest(slabs, query, distance, limit), strict=True)) == expected


@given(crowded(), st.integers(0, 64))
def test_no_pair_of_near_hashes_is_missed(values: list[int], distance: int) -> None:
    distinct = sorted(set(values))
    parts = near_pairs(np.array(distinct, "u8"), distance)
    found = {tuple(sorted(pair)) for left, right in parts for pair in zip(left.tolist(), right.tolist(), strict=True)}
    assert found == {
        (left, right) for left, right in combinations(range(len(distinct)), 2) if (distinct[left] ^ distinct[right]).bit_count() <= distance
    }


@given(crowded(), st.integers(0, 20), st.data())
def test_groups_are_what_hangs_together(values: list[int], distance: int, data: st.DataObject) -> None:
    count = len(values)
    contents = data.draw(st.lists(st.integers(0, 4), min_size=count, max_size=count))  # 0: not known
    places = data.draw(st.lists(st.integers(0, 1), min_size=count, max_size=count))
    hashed = data.draw(st.lists(st.booleans(), min_size=count, max_size=count))
    rows = np.flatnonzero(hashed)
    digests = np.zeros((count, 4), "u8")
    digests[:, 2] = contents
    found = grouped(digests, np.array(places), (rows, np.array(values, "u8")[rows]), distance)
    assert found == _groups_by_hand(values, distance, list(zip(contents, places, strict=True)), hashed)


def _groups_by_hand(values: list[int], distance: int, contents: list[tuple[int, int]], hashed: list[bool]) -> list[Group]:
    def alike(left: int, right: int) -> bool:
        near = hashed[left] and hashed[right] and (values[left] ^ values[right]).bit_count() <= distance
        return near or (contents[left][0] > 0 and contents[left] == contents[right])

    groups: list[set[int]] = []
    for row in range(len(values)):
        touching = [group for group in groups if any(alike(row, other) for other in group)]
        groups = [group for group in groups if group not in touching] + [{row}.union(*touching)]
    listed = sorted(sorted(group) for group in groups if len(group) > 1)
    return [
        Group(tuple(group), tuple(row for row in group if contents[row][0] and contents.index(contents[row]) < row)) for group in listed
    ]


# Files


def versions() -> dict[str, bytes]:
    """Each photograph as it is, twice, and in several qualities and sizes."""
    members = {}
    for name in PHOTOS:
        data = (PICTURES / name).read_bytes()
        members |= {f"{name}/0.{name[-3:]}": data, f"{name}/copy.{name[-3:]}": data}
        image = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
        for quality, scale in ((90, 1.0), (60, 1.0), (40, 0.7), (80, 0.5), (85, 1.6)):
            out = io.BytesIO()
            image.resize((round(image.width * scale), round(image.height * scale))).save(out, "JPEG", quality=quality)
            members[f"{name}/{quality}.jpg"] = out.getvalue()
    return members


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_zip(tmp_path_factory.mktemp("alike") / "a.zip", versions() | {"red.png": one_colour()})


def one_colour() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (20, 20), "red").save(out, "PNG")
    return out.getvalue()


IMAGES: dict[str, dict[str, Any]] = {
    "decoded": {},
    "cut to a square": {"resize": {"width": 32, "height": 32, "mode": "fill"}, "color": "L"},
    "encoded": {"storage": "encoded", "phash": "always"},
    "encoded, tolerant": {"storage": "encoded", "damaged": "tolerant"},
    "encoded, without": {"storage": "encoded"},
    "never": {"phash": "never"},
}
WITHOUT = ("encoded, without", "never")


@pytest.fixture(scope="module")
def output(archive: Path) -> Callable[[str], h5dat_lib.File]:
    """The same pictures, stored in each way; made when it is asked for."""

    def made(name: str) -> h5dat_lib.File:
        path = archive.parent / f"{name}.h5"
        if not path.exists():
            h5dat_lib.ingest(archive, path, config(image=IMAGES[name]))
        return h5dat_lib.open(path)

    return made


Output = Callable[[str], h5dat_lib.File]


def members(table: h5dat_lib.Table) -> list[str]:
    found: list[str] = table.table(["member"])["member"].to_pylist()
    return found


@pytest.mark.parametrize("name", IMAGES)
def test_photographs_in_other_qualities_and_sizes_are_duplicates(output: Output, name: str) -> None:
    with output(name) as file:
        table = file["images"]
        assert ("phash" in table.columns) == (name not in WITHOUT)
        names = members(table)
        assert [names[row] for group in table.duplicates() for row in group.copies] == [name for name in names if "/copy." in name]
        groups = table.duplicates(8, decode=name in WITHOUT)
        assert [{names[row].split("/")[0] for row in group.rows} for group in groups] == [{name} for name in PHOTOS]
        assert [(len(group.rows), group.copies) for group in groups] == [(7, (group.rows[1],)) for group in groups]


@pytest.mark.parametrize("name", IMAGES)
def test_a_picture_is_found_in_all_its_versions_its_own_bytes_first(output: Output, name: str) -> None:
    path = PICTURES / "rocket.jpg"  # turned by its EXIF
    with output(name) as file:
        table, decode = file["images"], name in WITHOUT
        names, found = members(table), table.like(path, decode=decode)
        assert [(names[one.row], one.distance) for one in found[:2]] == [("rocket.jpg/0.jpg", 0), ("rocket.jpg/copy.jpg", 0)]
        assert [one.exact for one in found] == [True] * 2 + [False] * 5
        assert {names[one.row].split("/")[0] for one in found} == {"rocket.jpg"}
        assert found[2:] == sorted(found[2:], key=lambda one: (one.distance, one.row))
        row = names.index("rocket.jpg/0.jpg")
        others = table.like(row, decode=decode)
        assert {one.row for one in others} == {one.row for one in found} - {row} and others[0].exact
        assert table.like(str(path), limit=3, decode=decode) == found[:3] == table.like(path.read_bytes(), limit=3, decode=decode)


def test_pixels_and_chosen_rows_are_looked_for(output: Output) -> None:
    with output("decoded") as file:
        table = file["images"]
        row = members(table).index("camera.jpg/0.jpg")
        pixels = table.pixels[row]
        assert {one.row for one in table.like(pixels)} == set(range(row, row + 7)) == {one.row for one in table.like(pixels[:, :, 0])}
        assert [one.row for one in table.like(row, rows=[0, row + 1, row + 3])] == [row + 1, row + 3]
        assert table.like(pixels, rows=range(row)) == []
        assert [group.rows for group in table.duplicates(8, rows=[0, row, row + 3, row + 4])] == [(row, row + 3, row + 4)]
        assert [group.rows for group in table.duplicates(rows=[0, row, row + 1])] == [(row, row + 1)]
        other = output("encoded")["images"]
        assert {one.row for one in other.like(table.wanted(row))} == set(range(row, row + 7))  # of another table it is found itself


def test_slabs_give_what_the_whole_gives(output: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    with output("decoded") as file:
        whole = file["images"].like(3), file["images"].duplicates(8)
        monkeypatch.setattr("h5dat_lib.read.alike._SLAB", 4)
        monkeypatch.setattr("h5dat_lib.read.tables._SLAB", 5)
        assert (file["images"].like(3), file["images"].duplicates(8)) == whole


def test_hashes_are_plain_integers_in_hdf5_missing_for_one_colour(output: Output) -> None:
    with output("decoded") as file:
        table = file["images"]
        row = members(table).index("red.png")
        with h5py.File(file.path) as plain:
            column = plain["images/phash"]
            assert column["values"].dtype == np.dtype("<u8") and column["mask"][:].nonzero()[0].tolist() == [row]
        assert table.phash[row] is None and table.like(one_colour()) == [h5dat_lib.read.alike.Alike(row, 0, True)]
        with pytest.raises(InputError, match="found no perceptual hash of it"):
            table.like(np.zeros((9, 9, 3), "u1"))


def test_without_hashes_copies_are_found_and_one_line_says_how_to_find_more(output: Output) -> None:
    with output("encoded, without") as file:
        table = file["images"]
        assert [one.exact for one in table.like(PICTURES / "camera.jpg")] == [True, True]
        for ask in (lambda: table.like(PICTURES / "hubble.png"), lambda: table.duplicates(4)):
            with pytest.raises(InputError, match=r"images: found pictures without perceptual hashes.*--decode.*image.phash"):
                ask()


def test_rows_that_came_in_without_hashes_are_found_once_they_are_decoded(tmp_path: Path) -> None:
    first, second = (make_zip(tmp_path / f"{n}.zip", {f"{n}/{name}": (PICTURES / name).read_bytes() for name in PHOTOS}) for n in "ab")
    h5dat_lib.ingest(first, tmp_path / "o.h5", config(image={"phash": "never"}))
    h5dat_lib.ingest(second, tmp_path / "o.h5", config(), start=Start(new_run=True))
    with h5dat_lib.open(tmp_path / "o.h5") as file:
        table = file["images"]
        assert table.phash[0] is None and table.phash[5] is not None
        pixels = table.pixels[2]
        assert [one.row for one in table.like(pixels)] == [7] and [one.row for one in table.like(pixels, decode=True)] == [2, 7]


def test_frames_are_duplicates_of_those_in_the_same_place(tmp_path: Path) -> None:
    frames = [Image.open(io.BytesIO(picture(40, 30, seed))) for seed in range(3)]
    out = io.BytesIO()
    frames[0].save(out, "TIFF", save_all=True, append_images=frames[1:])
    archive = make_zip(tmp_path / "a.zip", {"a.tif": out.getvalue(), "b.tif": out.getvalue(), "c.csv": b"n\n1\n2\n", "d.csv": b"n\n1\n2\n"})
    h5dat_lib.ingest(archive, tmp_path / "o.h5", config(image={"frames": "all"}))
    with h5dat_lib.open(tmp_path / "o.h5") as file:
        assert file["images"].duplicates() == [Group((0, 3), (3,)), Group((1, 4), (4,)), Group((2, 5), (5,))]
        assert [(one.row, one.exact) for one in file["images"].like(1)] == [(4, True)]
        assert file["tables"].duplicates() == [Group((0, 2), (2,))]  # the first records of two files
        with pytest.raises(InputError, match="tables: found no pictures"):
            file["tables"].duplicates(3)


def test_a_picture_that_cannot_be_decoded_is_kept_without_a_hash(tmp_path: Path) -> None:
    whole = (PICTURES / "astronaut.jpg").read_bytes()
    middle = len(whole) // 2
    broken = whole[:middle] + b"\xff\xd0" * 3 + whole[middle:]
    settings = config(image={"storage": "encoded", "phash": "always"})
    h5dat_lib.ingest(make_zip(tmp_path / "a.zip", {"a.jpg": whole, "b.jpg": broken}), tmp_path / "o.h5", settings)
    with h5dat_lib.open(tmp_path / "o.h5") as file:
        assert file["images"].phash[0] is not None and file["images"].phash[1] is None


def test_a_column_of_another_kind_is_no_hash(tmp_path: Path) -> None:
    rows = {f"{label}/{n}.png": picture(seed=n) for n, label in enumerate("ab")}
    schema = {"classes": [{"name": "pictures", "medium": "images", "paths": ["**"], "labels": [{"name": "phash", "folder": 1}]}]}
    with pytest.raises(h5dat_lib.H5datError, match="'phash' bears the name of another column"):
        config(schema=schema)
    h5dat_lib.ingest(make_zip(tmp_path / "a.zip", rows), tmp_path / "o.h5", config())
    with h5py.File(tmp_path / "o.h5", "r+") as file:
        del file["images/phash"]
        file["images/phash"] = np.zeros(2, "<i4")
    with h5dat_lib.open(tmp_path / "o.h5") as opened, pytest.raises(InputError, match="without perceptual hashes"):
        opened["images"].like(picture(seed=9))


WRONG: dict[str, tuple[Any, dict[str, Any], str]] = {
    "no picture": (b"a text", {}, "bytes: not a picture"),
    "no file": ("nowhere.jpg", {}, "nowhere.jpg: cannot be read: No such file"),
    "a list": ([1, 2], {}, "found list to look for"),
    "no pixels": (np.zeros((3, 3, 9), "u1"), {}, r"an array of uint8 \(3, 3, 9\)"),
    "words": (np.array([["a"]]), {}, "an array of <U1"),
    "below 0": (0, {"distance": -1}, "found a distance of -1, expected 0 to 64 bits"),
    "above 64": (0, {"distance": 65}, "found a distance of 65"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_looked_for_is_one_clear_line(output: Output, name: str) -> None:
    query, how, message = WRONG[name]
    with output("decoded") as file, pytest.raises(InputError, match=message) as caught:
        file["images"].like(query, **how)
    assert "\n" not in str(caught.value)


def test_a_row_that_is_not_there_is_an_index_error(output: Output) -> None:
    with output("decoded") as file, pytest.raises(IndexError, match="row 999"):
        file["images"].like(999)
