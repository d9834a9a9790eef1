"""Columns in the file: what is appended in any pieces is what is read, and a column's type changes when it must."""

from __future__ import annotations

import gc
import zlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import h5dat_lib
from h5dat_lib.columns import Arrays, Block, Bytes, Categories, Column, Pairs, Pieces, Scalars, Strings
from h5dat_lib.commit.writer import Writer
from h5dat_lib.config import Compression, ImageOptions
from h5dat_lib.errors import MemberError, OutputError
from h5dat_lib.journal import JournaledFile
from h5dat_lib.plan.layout import PixelLayout, pixel_layout
from h5dat_lib.read.columns import open_column
from h5dat_lib.read.format import FORMAT, FORMAT_VERSION
from h5dat_lib.stage.pack import TablePacker
from h5dat_lib.stage.staged import StagedFile, StageWriter
from tests.conftest import config, make_zip

RAGGED = PixelLayout(4096)
DEFLATE = Compression()
COMPRESSIONS = [DEFLATE, Compression(level=3), Compression(filter="none")]


def written(
    folder: Path,
    batches: Sequence[Sequence[Block]],
    layout: PixelLayout = RAGGED,
    compression: Compression = DEFLATE,
    transactions: bool = True,
) -> h5py.File:
    """A file with one table ``t``: each batch staged for itself, and committed in a transaction of its own, or all in one."""
    path = folder / "t.h5"
    with h5py.File(path, "w", libver=("v110", "v110")) as file:
        file.attrs.update({"format": FORMAT, "format_version": np.uint32(FORMAT_VERSION)})
    staged = [_staged(folder / f"{number}.stage", blocks, layout, compression) for number, blocks in enumerate(batches)]
    for group in [[one] for one in staged] if transactions else [staged]:
        with h5py.File(path, "r+", libver=("v110", "v110")) as file, ThreadPoolExecutor(1) as thread:
            writer = Writer(file, compression, {"t": layout}, lambda: None, thread)
            for one in group:
                with StagedFile(one) as opened:
                    writer.append(opened, {})
            writer.flush()
    return h5py.File(path)


def _staged(path: Path, blocks: Sequence[Block], layout: PixelLayout, compression: Compression) -> Path:
    with StageWriter(path) as out:
        packer = TablePacker("t", out, compression, layout)
        for block in blocks:
            packer.add(block)
        packer.seal()
        out.finish()
    return path


def read(file: h5py.File, column: str) -> Any:
    """A whole column, as Python values where it has missing ones."""
    values = open_column(file["t"][column], file["t"])[:]
    return values.tolist() if isinstance(values, np.ndarray) else values


def strings(*values: str | None) -> Strings:
    encoded = [(value or "").encode() for value in values]
    missing = np.array([value is None for value in values])
    return Strings(b"".join(encoded), np.array([len(value) for value in encoded], "<u8"), missing if missing.any() else None)


def integers(*values: int | None) -> Scalars:
    missing = np.array([value is None for value in values])
    return Scalars([value or 0 for value in values], "<i8", missing if missing.any() else None)


def floats(*values: float) -> Scalars:
    return Scalars(list(values), "<f8")


def dates(unit: str, form: str, *values: str | None) -> Scalars:
    missing = np.array([value is None for value in values])
    return Scalars(np.array([value or "NaT" for value in values], f"M8[{unit}]"), f"<M8[{unit}]", missing if missing.any() else None, form)


def booleans(*values: bool) -> Scalars:
    return Scalars(list(values), "|b1")


def block(**columns: Column) -> Block:
    lengths = {len(column.lengths) if isinstance(column, Strings) else len(column.values) for column in columns.values()}
    [rows] = lengths
    return Block(rows, columns)


def described(column: Any, row: int) -> Any:
    """A picture as docs/format.md says how to read it, by h5py alone."""
    if column.attrs["layout"] == "dense":
        return column[row]
    start, size = column["offset"][row], column["length"][row]
    return column["values"][start : start + size].view(column["dtype"][row].decode()).reshape(column["shape"][row])


@pytest.mark.parametrize("transactions", [True, False])
@pytest.mark.parametrize("change", ["none", "missing", "floats", "strings"])
def test_many_numbers_come_back_in_order_from_whichever_row_they_begin(tmp_path: Path, transactions: bool, change: str) -> None:
    rng = np.random.default_rng(7)
    lengths = (40_001, 70_000, 5, 100_000)
    parts = [(rng.integers(-9, 9, rows).cumsum(), rng.random(rows), rng.random(rows) < 0.5) for rows in lengths]
    blocks = [block(a=Scalars(a, "<i8"), b=Scalars(b, "<f8"), c=Scalars(c, "|b1")) for a, b, c in parts]
    late = {
        "none": Scalars(parts[2][0], "<i8"),
        "missing": Scalars(parts[2][0], "<i8", np.array([False, True, False, False, False])),
        "floats": Scalars(parts[2][0] + 0.5, "<f8"),
        "strings": Scalars(parts[2][0].astype("S20"), "|S20"),
    }[change]
    blocks[2] = block(a=late, b=Scalars(parts[2][1], "<f8"), c=Scalars(parts[2][2], "|b1"))
    a, b, c = (np.concatenate(values) for values in zip(*parts, strict=True))
    changed = slice(sum(lengths[:2]), sum(lengths[:3]))
    with written(tmp_path, [[one] for one in blocks], transactions=transactions) as file:
        assert np.array_equal(read(file, "b"), b) and np.array_equal(read(file, "c"), c)
        if change == "missing":
            mask = np.zeros(len(a), bool)
            mask[changed.start + 1] = True
            assert np.array_equal(file["t/a/mask"][:], mask)
            assert np.array_equal(file["t/a/values"][:], a)
        elif change == "floats":
            halves = np.zeros(len(a))
            halves[changed] = 0.5
            assert np.array_equal(read(file, "a"), a + halves)
        else:
            assert np.array_equal(read(file, "a"), a if change == "none" else [str(value) for value in a.tolist()])
        for name in ("b", "c"):
            dataset = file[f"t/{name}"]
            stored = [dataset.id.read_direct_chunk((at,))[1] for at in range(0, len(dataset), dataset.chunks[0])]
            assert file[f"lineage/checksums/t/{name}"][:].tolist() == [zlib.crc32(chunk) for chunk in stored]


_SHAPES = st.tuples(st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 3, 4]), st.sampled_from(["|u1", "<u2", "<f4"]))
_PICTURES = st.lists(_SHAPES, max_size=12) | st.tuples(_SHAPES, st.integers(0, 12)).map(lambda drawn: [drawn[0]] * drawn[1])


@settings(max_examples=60, deadline=None)
@given(st.lists(_PICTURES, min_size=1, max_size=4), st.sampled_from(COMPRESSIONS), st.booleans(), st.booleans(), st.integers(0, 2**32))
def test_pictures_of_any_shape_and_type_come_back_as_they_were(
    tmp_path_factory: pytest.TempPathFactory, batches: list[Any], compression: Compression, transactions: bool, is_dense: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    pictures = [[(rng.integers(0, 200, (h, w, c)) * (rng.random() < 0.8)).astype(kind) for h, w, c, kind in batch] for batch in batches]
    blocks = [[block(pixels=Arrays([picture])) for picture in batch] for batch in pictures]
    expected = [picture for batch in pictures for picture in batch]
    if not expected:
        return
    kinds = [(picture.shape, picture.dtype.str) for picture in expected]
    layout = pixel_layout(kinds[:1], ImageOptions()) if is_dense else RAGGED
    folder = tmp_path_factory.mktemp("t")
    with written(folder, blocks, layout, compression, transactions) as file:
        assert file["t/pixels"].attrs["layout"] == ("dense" if is_dense and len(set(kinds)) == 1 else "ragged")
        by_hand = [described(file["t/pixels"], row) for row in range(len(expected))]
    with h5dat_lib.open(folder / "t.h5") as opened:
        column = opened["t"].pixels
        found, one_by_one = list(column[:]), [column[row] for row in range(len(column))]
    for picture, *others in zip(expected, by_hand, found, one_by_one, strict=True):
        assert all(other.dtype == picture.dtype and np.array_equal(other, picture) for other in others)
    assert h5dat_lib.verify(folder / "t.h5").mismatches == []


def test_a_picture_that_does_not_deflate_and_was_written_last_can_be_moved(tmp_path: Path) -> None:
    noise = [np.random.default_rng(1).integers(0, 256, shape, dtype="u1") for shape in ((8, 8, 3), (9, 8, 3))]
    blocks = [[block(pixels=Arrays([picture]))] for picture in noise]
    with written(tmp_path, blocks, pixel_layout([((8, 8, 3), "|u1")], ImageOptions()), Compression(), False) as file:
        assert all(np.array_equal(described(file["t/pixels"], row), picture) for row, picture in enumerate(noise))


@pytest.mark.parametrize("shape", [(6, 8, 3), (700, 300, 3), (1, 1, 1), (513, 512, 1)])
@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_pictures_of_one_shape_are_a_dense_dataset(tmp_path: Path, shape: tuple[int, ...], compression: Compression) -> None:
    rng = np.random.default_rng(1)
    pictures = [rng.integers(0, 9, shape).astype("u1") for _ in range(5)]
    layout = pixel_layout([(shape, "|u1")], ImageOptions())
    with written(tmp_path, [[block(pixels=Arrays([picture]))] for picture in pictures], layout, compression) as file:
        assert file["t/pixels"].shape == (5, *shape)
        assert np.array_equal(file["t/pixels"][:], np.stack(pictures))
        assert file["t/pixels"].attrs["CLASS"] == b"IMAGE"


@pytest.mark.parametrize("place", [0, 1, 5])
def test_a_dense_column_becomes_ragged_when_another_shape_comes(tmp_path: Path, place: int) -> None:
    rng = np.random.default_rng(1)
    pictures = [rng.integers(0, 99, (500, 300, 3)).astype("u1") for _ in range(5)]
    pictures.insert(place, rng.integers(0, 99, (20, 700, 1)).astype("u1"))
    layout = pixel_layout([((500, 300, 3), "|u1")], ImageOptions())
    with written(tmp_path, [[block(pixels=Arrays([picture]))] for picture in pictures], layout) as file:
        assert file["t/pixels"].attrs["layout"] == "ragged"
        for found, expected in zip(read(file, "pixels"), pictures, strict=True):
            assert np.array_equal(found, expected)
        assert set(file["lineage/checksums/t/pixels"]) == {"values", "offset", "length", "shape", "dtype"}


def test_a_strictly_dense_column_refuses_another_shape(tmp_path: Path) -> None:
    layout = PixelLayout(12, (2, 2, 3), "|u1", strict=True)
    with pytest.raises(MemberError, match=r"found \(1, 2, 3\) uint8, expected \(2, 2, 3\)"):
        _staged(tmp_path / "s", [block(pixels=Arrays([np.zeros((1, 2, 3), "u1")]))], layout, Compression())


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.lists(st.binary(max_size=90_000) | st.binary(max_size=20), max_size=8), min_size=1, max_size=4),
    st.sampled_from(["text", "encoded"]),
)
def test_bytes_of_any_length_come_back_as_they_were(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[bytes]], layout: Any
) -> None:
    blocks = [[Block(len(values), {"x": Bytes(values, layout)})] for values in batches]
    with written(tmp_path_factory.mktemp("t"), blocks) as file:
        column = file["t/x"]
        found = [column["values"][at : at + size].tobytes() for at, size in zip(column["offset"][:], column["length"][:], strict=True)]
    assert found == [value for values in batches for value in values]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.none() | st.text(max_size=12), max_size=40), min_size=1, max_size=5), st.booleans())
def test_strings_come_back_with_missing_ones_told_apart(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[str | None]], transactions: bool
) -> None:
    clean = [[value.encode("utf-8", "ignore").decode() if value is not None else None for value in values] for values in batches]
    with written(tmp_path_factory.mktemp("t"), [[block(x=strings(*values))] for values in clean], transactions=transactions) as file:
        assert read(file, "x") == [value for values in clean for value in values]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.none() | st.integers(-(2**63), 2**63 - 1), max_size=30), min_size=1, max_size=5), st.booleans())
def test_integers_come_back_with_missing_ones_told_apart(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[int | None]], transactions: bool
) -> None:
    with written(tmp_path_factory.mktemp("t"), [[block(x=integers(*values))] for values in batches], transactions=transactions) as file:
        assert read(file, "x") == [value for values in batches for value in values]


def test_more_numbers_than_a_chunk_are_appended_in_any_pieces(tmp_path: Path) -> None:
    values = np.arange(100_000)
    pieces = np.split(values, [1, 8191, 8192, 8193, 30_000, 30_001, 65_536])
    with written(tmp_path, [[block(x=Scalars(piece, "<i8"))] for piece in pieces]) as file:
        assert np.array_equal(file["t/x"][:], values)
        assert len(file["lineage/checksums/t/x"]) == -(-100_000 // file["t/x"].chunks[0])


LONG = "long " * 100


@pytest.mark.parametrize(
    ("batches", "expected", "kind"),
    [
        ([integers(1, 2), floats(2.5)], [1.0, 2.0, 2.5], "float64"),
        ([floats(2.5), integers(1, 2)], [2.5, 1.0, 2.0], "float64"),
        ([integers(1, None), floats(2.5)], [1.0, None, 2.5], "float64"),
        ([integers(2**53 + 1), floats(2.5)], [str(2**53 + 1), "2.5"], "string"),
        ([integers(7), strings("x")], ["7", "x"], "string"),
        ([strings("x"), integers(7, None)], ["x", "7", None], "string"),
        ([booleans(True, False), strings("x")], ["true", "false", "x"], "string"),
        ([booleans(True), integers(1)], ["true", "1"], "string"),
        ([floats(1.5, float("nan")), strings("x")], ["1.5", None, "x"], "string"),
        ([strings("a", None), strings("a longer string")], ["a", None, "a longer string"], "string"),
        ([strings("a", None), strings(LONG)], ["a", None, LONG], "text"),
        ([strings(LONG), strings("a", None), strings(LONG)], [LONG, "a", None, LONG], "text"),
        ([integers(1, None), strings(LONG, None)], ["1", None, LONG, None], "text"),
        ([strings(LONG), integers(1, None)], [LONG, "1", None], "text"),
        ([strings(LONG), floats(1.5, float("nan"))], [LONG, "1.5", None], "text"),
        ([strings("nul\0"), strings("a")], ["nul\0", "a"], "text"),
    ],
)
@pytest.mark.parametrize("transactions", [True, False])
def test_a_column_changes_to_the_type_that_holds_both(
    tmp_path: Path, batches: list[Column], expected: list[Any], kind: str, transactions: bool
) -> None:
    with written(tmp_path, [[block(x=column)] for column in batches], transactions=transactions) as file:
        found = read(file, "x")
        if kind == "float64":
            found = [None if value is None or np.isnan(value) else value for value in found]
        assert found == expected
        column = open_column(file["t/x"], file["t"])
        assert kind in (column.layout, column.describe()["dtype"])
        assert len(column) == len(expected) == file["t"].attrs["rows"]


def test_columns_that_some_rows_lack_have_missing_values_there(tmp_path: Path) -> None:
    batches = [[block(a=integers(1), b=strings("x"))], [block(b=strings("y"), c=floats(0.5))], [block(a=integers(3), d=strings(LONG))]]
    with written(tmp_path, batches) as file:
        assert read(file, "a") == [1, None, 3]
        assert read(file, "b") == ["x", "y", None]
        assert [None if np.isnan(value) else value for value in read(file, "c")] == [None, 0.5, None]
        assert read(file, "d") == [None, None, LONG]
        assert list(file["t"].attrs["columns"]) == ["a", "b", "c", "d"]


@pytest.mark.parametrize("name", ["a/b", ".", "", "_member", "values", "mask", "100%", "ü", "a\0b", "%2F", "t" * 300])
def test_any_column_name_can_be_stored(tmp_path: Path, name: str) -> None:
    from h5dat_lib.columns import column_name

    with written(tmp_path, [[Block(1, {name: integers(5)})]]) as file:
        [link] = file["t"].attrs["columns"]
        assert column_name(link) == name and file["t"][link][0] == 5


def test_pairs_point_at_their_rows_and_keys_across_batches(tmp_path: Path) -> None:
    def documents(*keys: str) -> Block:
        pairs = Pairs(list(range(len(keys))), list(keys), [key.upper().encode() for key in keys], [0] * len(keys))
        return Block(len(keys), {"document": Bytes([b"{}"] * len(keys), "text")}, pairs)

    with written(tmp_path, [[documents("a", "b"), documents("a")], [documents("b", "c")]]) as file:
        keys = open_column(file["t/_keys/key"], file["t/_keys"])
        assert file["t/_pairs/row"][:].tolist() == [0, 1, 2, 3, 4]
        assert [keys[int(key)] for key in file["t/_pairs/key"][:]] == ["a", "b", "a", "b", "c"]
        assert open_column(file["t/_pairs/value"], file["t/_pairs"])[:] == ["A", "B", "A", "B", "C"]


def test_decoded_and_encoded_pictures_do_not_mix(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="t/x: found encoded values"):
        written(tmp_path, [[block(x=Arrays([np.zeros((1, 1, 1), "u1")]))], [Block(1, {"x": Bytes([b"x"], "encoded")})]])


def test_anndata_reads_the_columns_of_a_table_as_a_dataframe(tmp_path: Path) -> None:
    anndata = pytest.importorskip("anndata")
    columns: Mapping[str, Column] = {
        "_member": Scalars([0, 0, 1], "<u8"),
        "n": integers(1, None, 3),
        "x": floats(0.5, float("nan"), 1.5),
        "name": strings("a", None, "ü"),
        "ok": booleans(True, False, True),
        "body": strings(LONG, "b", "c"),
    }
    with written(tmp_path, [[Block(3, columns)]]) as file:
        frame = anndata.io.read_elem(file["t"])
    assert frame["n"].isna().tolist() == [False, True, False] and frame["n"].dropna().tolist() == [1, 3]
    assert frame["name"].dropna().tolist() == ["a", "ü"]
    assert frame["ok"].tolist() == [True, False, True]
    assert list(frame.columns) == ["n", "x", "name", "ok"]


def test_chunks_that_do_not_shrink_are_stored_as_they_are(tmp_path: Path) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (64, 64, 1)).astype("u1")
    with written(tmp_path, [[block(pixels=Arrays([noise]))]]) as file:
        mask, data = file["t/pixels/values"].id.read_direct_chunk((0,))
        assert mask == 1 and data == noise.tobytes()
        assert np.array_equal(read(file, "pixels")[0], noise)


_NAMES = st.lists(st.none() | st.sampled_from(["cat", "dog", "", "Zürich", "x" * 256]) | st.text(max_size=3), min_size=1, max_size=9)


@settings(max_examples=40, deadline=None)
@given(st.lists(_NAMES, min_size=1, max_size=4), st.booleans())
def test_categories_come_back_as_the_strings_they_were(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[str | None]], transactions: bool
) -> None:
    expected = [value for batch in batches for value in batch]
    with written(tmp_path_factory.mktemp("t"), [[block(s=Categories(batch))] for batch in batches], transactions=transactions) as file:
        assert read(file, "s") == expected
        if file["t/s"].attrs.get("layout") == "categorical":  # a NUL makes them strings
            codes, names = file["t/s/codes"][:], [name.decode() for name in file["t/s/categories"][:]]
            assert [names[code] if code >= 0 else None for code in codes] == expected
            assert len(set(names)) == len(names)


def test_pandas_sees_categories_as_such(tmp_path: Path) -> None:
    from anndata.io import read_elem

    blocks = [[block(s=Categories(["b", None, "a"]), n=integers(1, 2, 3))], [block(s=Categories(["a longer name", "a"]), n=integers(4, 5))]]
    with written(tmp_path, blocks) as file:
        found = read_elem(file["t/s"])
    assert found.categories.tolist() == ["b", "a", "a longer name"]
    assert found.tolist()[0] == "b" and found.isna().tolist() == [False, True, False, False, False]


def test_strings_that_are_no_names_make_a_column_of_strings(tmp_path: Path) -> None:
    blocks = [[block(s=Categories(["a", None]))], [block(s=Categories(["x" * 257, "a"]))], [block(s=Categories(["b"]))]]
    with written(tmp_path, blocks) as file:
        assert read(file, "s") == ["a", None, "x" * 257, "a", "b"]
        assert file["t/s"].attrs["layout"] == "text"


@pytest.mark.parametrize("other", [strings("z", None), integers(7, None), dates("D", "", "2024-02-29", None)])
@pytest.mark.parametrize("first", [True, False])
def test_categories_and_other_values_make_a_column_of_strings(tmp_path: Path, other: Column, first: bool) -> None:
    texts = {Strings: "z", Scalars: "7" if getattr(other, "dtype", "") == "<i8" else "2024-02-29"}[type(other)]
    blocks = [[block(s=Categories(["a", None]))], [block(s=other)]]
    with written(tmp_path, blocks if first else blocks[::-1]) as file:
        assert read(file, "s") == (["a", None, texts, None] if first else [texts, None, "a", None])


def test_more_categories_than_there_may_be_make_a_column_of_strings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("h5dat_lib.commit.column_writers.MOST_CATEGORIES", 3)
    with written(tmp_path, [[block(s=Categories(["a", "b"]))], [block(s=Categories(["c", "d", None]))]]) as file:
        assert read(file, "s") == ["a", "b", "c", "d", None]
        assert isinstance(file["t/s"], h5py.Group) and file["t/s"].attrs["layout"] == "nullable"


def test_rows_without_a_category_have_none(tmp_path: Path) -> None:
    with written(tmp_path, [[block(n=integers(1))], [block(n=integers(2), s=Categories(["a"]))], [block(n=integers(3))]]) as file:
        assert read(file, "s") == [None, "a", None]


def test_dates_are_integers_with_a_unit_and_read_as_dates(tmp_path: Path) -> None:
    with written(tmp_path, [[block(d=dates("ms", "T", "2024-02-29T12:00:00.250", "1969-12-31T23:59:59.999"))]]) as file:
        assert file["t/d"].dtype == "<i8" and file["t/d"].attrs["unit"] == "ms"
        assert (
            open_column(file["t/d"], file["t"])[:].tolist()
            == np.array(["2024-02-29T12:00:00.250", "1969-12-31T23:59:59.999"], "M8[ms]").tolist()
        )


def test_dates_with_missing_ones_keep_them_missing(tmp_path: Path) -> None:
    with written(tmp_path, [[block(d=dates("D", "", "2024-02-29"))], [block(d=dates("D", "", None, "0001-01-01"))]]) as file:
        found = open_column(file["t/d"], file["t"])
        assert found[1] is None and str(found[0]) == "2024-02-29" and found[:].mask.tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("unit", "form", "text"),
    [
        ("D", "", "2024-02-29"),
        ("s", "T", "2024-02-29T01:02:03"),
        ("s", " ", "2024-02-29 01:02:03"),
        ("ms", "TZ", "2024-02-29T01:02:03.004Z"),
    ],
)
def test_dates_become_the_strings_they_were_written_as(tmp_path: Path, unit: str, form: str, text: str) -> None:
    plain = text.rstrip("Z").replace(" ", "T")
    with written(
        tmp_path, [[block(d=dates(unit, form, plain, None))], [block(d=strings("soon"))], [block(d=dates(unit, form, plain))]]
    ) as file:
        assert read(file, "d") == [text, None, "soon", text]


def test_dates_of_two_forms_become_strings(tmp_path: Path) -> None:
    with written(tmp_path, [[block(d=dates("s", "T", "2024-02-29T01:02:03"))], [block(d=dates("s", " ", "2024-02-29T01:02:03"))]]) as file:
        assert read(file, "d") == ["2024-02-29T01:02:03", "2024-02-29 01:02:03"]


_SOUND = st.tuples(st.lists(st.integers(0, 40_000), max_size=5), st.integers(1, 3), st.sampled_from(["<i2", "<f4"]))


@settings(max_examples=30, deadline=None)
@given(st.lists(_SOUND, min_size=1, max_size=5))
def test_arrays_in_pieces_come_back_whole(tmp_path_factory: pytest.TempPathFactory, drawn: list[Any]) -> None:
    arrays = [
        [np.arange(length * channels).reshape(length, channels).astype(kind) for length in lengths] for lengths, channels, kind in drawn
    ]
    pieces = [Pieces(kind, (channels,), iter(parts)) for parts, (_, channels, kind) in zip(arrays, drawn, strict=True)]
    expected = [np.concatenate([np.empty((0, channels), kind), *parts]) for parts, (_, channels, kind) in zip(arrays, drawn, strict=True)]
    with written(tmp_path_factory.mktemp("t"), [[block(x=Arrays([piece], pictures=False)) for piece in pieces]]) as file:
        found = [open_column(file["t/x"], file["t"])[row] for row in range(len(expected))]
        by_hand = [described(file["t/x"], row) for row in range(len(expected))]
    for array, *others in zip(expected, found, by_hand, strict=True):
        assert all(other.dtype == array.dtype and np.array_equal(other, array) for other in others)


def test_pieces_that_fail_leave_no_row_behind(tmp_path: Path) -> None:
    def fails() -> Any:
        yield np.ones((50_000, 1), "<i2")
        raise MemberError("damaged: found the end")

    out = StageWriter(tmp_path / "0.stage")
    with out:
        packer = TablePacker("t", out, DEFLATE)
        good = Arrays([np.full((70_000, 1), 7, "<i2")], pictures=False)
        packer.add(Block(1, {"_member": integers(1), "x": good}))
        with pytest.raises(MemberError, match="found the end"):
            packer.add(Block(1, {"_member": integers(2), "x": Arrays([Pieces("<i2", (1,), fails())], pictures=False)}))
        packer.add(Block(1, {"_member": integers(3), "x": good}))
        packer.seal()
        out.finish()
    with StagedFile(tmp_path / "0.stage") as staged:
        [segment] = staged.segments()
        assert segment.columns["_member"].values.tolist() == [1, 3]
        assert segment.columns["x"].shape.tolist() == [[70_000, 1]] * 2


@pytest.mark.parametrize("first", ["x", "y"])
def test_pieces_that_fail_in_a_first_row_leave_nothing_behind(tmp_path: Path, first: str) -> None:
    def fails() -> Any:
        yield np.ones(3, "<i2")
        raise MemberError("damaged: found the end")

    columns: dict[str, Column] = {
        "x": Arrays([Pieces("<i2", (), fails())], pictures=False),
        "y": Arrays([np.ones(2, "<i2")], pictures=False),
        "z": Strings(b"one", np.array([3])),
    }
    columns = {first: columns[first], **columns}
    with StageWriter(tmp_path / "0.stage") as out:
        packer = TablePacker("t", out, DEFLATE)
        with pytest.raises(MemberError, match="found the end"):
            packer.add(Block(1, columns))
        packer.seal()
        with pytest.raises(MemberError, match="found the end"):
            packer.add(Block(1, {**columns, "x": Arrays([Pieces("<i2", (), fails())], pictures=False)}))
        packer.add(Block(1, {**columns, "x": columns["y"]}))
        packer.seal()
        out.finish()
    with StagedFile(tmp_path / "0.stage") as staged:
        [segment] = staged.segments()
        assert {name: len(column.length if name != "z" else column.values) for name, column in segment.columns.items()} == {
            "x": 1,
            "y": 1,
            "z": 1,
        }


def test_bytes_come_back_as_they_were(tmp_path: Path) -> None:
    values = [b"", bytes(range(256)) * 2000, b"\0"]
    with written(tmp_path, [[block(data=Bytes(values, "bytes"))]]) as file:
        assert read(file, "data") == values


def test_no_collection_closes_datasets_in_the_middle_of_a_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By closing one, HDF5 reads elsewhere, between the seek and the read or write that it was just at."""
    seek = JournaledFile.seek

    def seek_and_collect(self: JournaledFile, *place: int) -> int:
        at = seek(self, *place)
        if gc.isenabled():
            seek(self, 0)
            self.readinto(bytearray(8))
        return at

    monkeypatch.setattr(JournaledFile, "seek", seek_and_collect)
    h5dat_lib.ingest(make_zip(tmp_path / "a.zip", {"a.json": b'{"n": 7}'}), tmp_path / "a.h5", config())
    assert gc.isenabled()
    assert h5dat_lib.verify(tmp_path / "a.h5").mismatches == []
    with h5dat_lib.open(tmp_path / "a.h5") as file:
        assert file["documents"]["n"][0] == 7
