"""Samples and batches of NumPy arrays: values are those that plain h5py gives, every row is in an epoch once, chunks are read seldom."""

from __future__ import annotations

import io
import json
import multiprocessing
import pickle
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image

import h5dat_lib
from h5dat_lib.read.chunked import Rows
from h5dat_lib.storage import blocks
from h5dat_lib.training.batches import collate
from h5dat_lib.training.sampling import Shard, Shuffle
from tests.conftest import Bucket, config, make_zip, picture

ROWS = 90
SIZES = [(8, 6), (8, 6), (20, 3), (1, 5)]
IMAGES: dict[str, dict[str, str]] = {"dense": {}, "ragged": {}, "encoded": {"storage": "encoded"}}
SCHEMA = {"classes": [{"name": "images", "medium": "images", "extensions": ["png"], "labels": [{"name": "label", "folder": 1}]}]}


def _members(layout: str) -> dict[str, bytes]:
    sizes = SIZES[:1] if layout == "dense" else SIZES
    return {f"{'cat' if n % 3 else 'dog'}/{n:03}.png": picture(*sizes[n % len(sizes)], seed=n) for n in range(ROWS)}


@pytest.fixture(scope="module", params=IMAGES)
def output(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_output(tmp_path_factory.mktemp("training"), request.param)


def make_output(folder: Path, layout: str) -> Path:
    """A file of pictures and labels."""
    settings = config(image=IMAGES[layout], schema=SCHEMA)
    h5dat_lib.ingest(make_zip(folder / "a.zip", _members(layout)), folder / f"{layout}.h5", settings)
    return folder / f"{layout}.h5"


def by_h5py(path: Path) -> list[np.ndarray]:
    """Pictures of all rows, by h5py and Pillow alone."""
    with h5py.File(path) as file:
        column = file["images/pixels"]
        if isinstance(column, h5py.Dataset):
            return list(column[:])
        parts = [column["values"][at : at + size] for at, size in zip(column["offset"][:], column["length"][:], strict=True)]
        if column.attrs["layout"] == "encoded":
            return [np.asarray(Image.open(io.BytesIO(part.tobytes()))) for part in parts]
        kinds = zip(parts, column["dtype"][:], column["shape"][:], strict=True)
        return [part.view(kind.decode()).reshape(shape) for part, kind, shape in kinds]


def hashed(pixels: Any) -> tuple[tuple[int, ...], bytes]:
    return tuple(pixels.shape), np.asarray(pixels).tobytes()


def test_every_picture_of_an_epoch_is_what_h5py_gives(output: Path) -> None:
    with h5dat_lib.open(output) as file:
        batches = file["images"].numpy(["pixels", "label"], batch_size=16, shuffle=True)
        assert batches.categories == {"label": ["dog", "cat"]}
        seen = [(hashed(pixels), int(label)) for batch in batches for pixels, label in zip(batch["pixels"], batch["label"], strict=True)]
    expected = [(hashed(pixels), int(row % 3 > 0)) for row, pixels in enumerate(by_h5py(output))]
    assert Counter(seen) == Counter(expected) and seen != expected


def test_batches_are_whole_but_the_last(output: Path) -> None:
    with h5dat_lib.open(output) as file:
        table = file["images"]
        sizes = [len(batch) for batch in table.numpy("label", batch_size=40)]
        assert sizes == [40, 40, 10] and len(table.numpy("label", batch_size=40)) == 3
        assert [len(batch) for batch in table.numpy("label", batch_size=40, drop_last=True)] == [40, 40]


def test_epochs_differ_and_are_the_same_again(output: Path) -> None:
    with h5dat_lib.open(output) as file:
        batches = file["images"].numpy("label", batch_size=ROWS, shuffle=Shuffle(seed=4))
        first = next(iter(batches))
        batches.set_epoch(1)
        second = next(iter(batches))
        batches.set_epoch(0)
        assert np.array_equal(first, next(iter(batches))) and not np.array_equal(first, second)


@pytest.mark.parametrize("shuffle", [False, True, "window", Shuffle(window=30, block=10)])
def test_iterating_goes_on_where_a_state_was_taken(output: Path, shuffle: Any) -> None:
    with h5dat_lib.open(output) as file:
        make = lambda: file["images"].numpy("pixels", batch_size=7, shuffle=shuffle)  # noqa: E731
        batches = make()
        batches.set_epoch(2)
        whole = [list(map(hashed, batch)) for batch in batches]
        going = iter(batches)
        assert [list(map(hashed, next(going))) for _ in range(5)] == whole[:5]
        again = make()
        again.load_state_dict(json.loads(json.dumps(batches.state_dict())))
        assert [list(map(hashed, batch)) for batch in again] == whole[5:]
        assert [list(map(hashed, batch)) for batch in again] == whole


def test_ranks_and_splits_share_rows_without_a_double(output: Path) -> None:
    with h5dat_lib.open(output) as file:
        table = file["images"]
        parts = table.split({"train": 0.5, "test": 0.5})
        expected = by_h5py(output)
        for rows in parts.values():
            shards = [table.numpy("pixels", batch_size=8, rows=rows, shuffle=True, shard=Shard(rank, 3, "keep")) for rank in range(3)]
            seen = Counter(hashed(pixels) for shard in shards for batch in shard for pixels in batch)
            assert seen == Counter(hashed(expected[row]) for row in rows)


def test_a_transform_gets_each_sample(output: Path) -> None:
    with h5dat_lib.open(output) as file:
        batches = file["images"].numpy(["pixels", "label"], lambda one: (one["pixels"].mean(), one["label"] * 2), batch_size=9)
        means, labels = next(iter(batches))
        assert np.array_equal(means, [pixels.mean() for pixels in by_h5py(output)[:9]])
        assert labels.tolist() == [0, 2, 2, 0, 2, 2, 0, 2, 2]


def test_arrays_are_taken_by_dlpack_without_a_copy(tmp_path: Path) -> None:
    with h5dat_lib.open(make_output(tmp_path, "dense")) as file:
        for batch in file["images"].numpy(["pixels", "label"], batch_size=32, shuffle=True):
            for array in batch.values():
                assert array.flags.c_contiguous and array.flags.writeable
                assert np.shares_memory(np.from_dlpack(array), array)


def test_batches_can_be_pickled(output: Path) -> None:
    with h5dat_lib.open(output) as file:
        batches = file["images"].numpy("label", batch_size=20, shuffle=True)
        other = pickle.loads(pickle.dumps(batches))
        other.set_epoch(1)
        batches.set_epoch(1)
        assert all(np.array_equal(*both) for both in zip(batches, other, strict=True))


def _read(batches: Any, queue: Any) -> None:
    queue.put([hashed(pixels) for batch in batches for pixels in batch])


@pytest.mark.parametrize("how", ["fork", "forkserver", "spawn"])
def test_every_byte_is_h5pys_in_a_process_started_in_any_way(output: Path, how: str) -> None:
    context = multiprocessing.get_context(how)
    with h5dat_lib.open(output) as file:
        batches = file["images"].numpy("pixels", batch_size=16)
        next(iter(batches))  # open in this process, too
        queue = context.Queue()
        process = context.Process(target=_read, args=(batches, queue))
        process.start()
        assert queue.get(timeout=60) == list(map(hashed, by_h5py(output)))
        process.join()


def test_missing_numbers_are_nan_missing_dates_nat_missing_categories_minus_one(tmp_path: Path) -> None:
    lines = ['{"a": 1, "b": 0.5, "c": true, "d": "x"}', '{"z": 1}', '{"a": 3, "b": 2.5, "c": false, "d": "y"}'] * 40
    h5dat_lib.ingest(make_zip(tmp_path / "a.zip", {"a.jsonl": "\n".join(lines).encode()}), tmp_path / "a.h5", config())
    with h5dat_lib.open(tmp_path / "a.h5") as file:
        table = file["documents"]
        batch = next(iter(table.numpy(["a", "b", "c", "d"], batch_size=3)))
        assert table["d"].layout == "categorical"
    assert np.array_equal(batch["a"], [1, np.nan, 3], equal_nan=True) and np.array_equal(batch["b"], [0.5, np.nan, 2.5], equal_nan=True)
    assert np.array_equal(batch["c"], [1, np.nan, 0], equal_nan=True) and batch["d"].tolist() == [0, -1, 1]


# Costs


@pytest.fixture
def chunks(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[str, int]]:
    """How often each chunk is read."""
    seen: Counter[tuple[str, int]] = Counter()
    read = Rows._read

    def counted(rows: Rows, number: int, place: tuple[int, ...]) -> Any:
        seen[rows._name, number] += 1
        return read(rows, number, place)

    monkeypatch.setattr(Rows, "_read", counted)
    return seen


def test_a_shuffle_in_windows_reads_each_chunk_once_where_all_rows_would_read_it_often(
    tmp_path: Path, chunks: Counter[tuple[str, int]]
) -> None:
    texts = {f"{n:03}.txt": f"{n} lines of text, ".encode() * 160 for n in range(400)}  # 3 KB each, 22 of them a chunk
    h5dat_lib.ingest(make_zip(tmp_path / "a.zip", texts), tmp_path / "a.h5", config())

    def reads(shuffle: Any) -> float:
        """How often a chunk is read in an epoch, on average."""
        chunks.clear()
        with h5dat_lib.open(tmp_path / "a.h5", cache_bytes=720_000) as file:
            for _ in file["texts"].numpy("text", batch_size=16, shuffle=shuffle):
                pass
        of_values = [count for (name, _), count in chunks.items() if name.endswith("values")]
        assert len(of_values) > 15
        return sum(of_values) / len(of_values)

    assert reads(False) == 1
    assert reads(Shuffle(window=100, block=50)) <= 2  # a chunk at the border of two blocks is read for both
    assert reads(True) > 5


def test_a_shuffle_in_windows_asks_s3_seldom(quick_bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "_BLOCK_BYTES", 64 << 10)
    monkeypatch.setattr(blocks, "_KEPT", 16)
    noise = {f"{n:03}.png": picture(60, 60, seed=n) for n in range(200)}  # 11 KB each
    h5dat_lib.ingest(make_zip(tmp_path / "a.zip", noise), tmp_path / "a.h5", config(image={"storage": "encoded"}))
    uri = quick_bucket.put("a.h5", (tmp_path / "a.h5").read_bytes())

    def requests_a_picture(shuffle: Any, pictures: int) -> float:
        with h5dat_lib.open(uri, cache_bytes=512 << 10) as file:
            before = file.requests
            batches = file["images"].numpy("pixels", batch_size=10, shuffle=shuffle)
            assert sum(len(batch) for batch in islice(batches, pictures // 10)) == pictures
            return (file.requests - before) / pictures

    assert requests_a_picture(Shuffle(window=40, block=20), 200) < 0.3  # 48 requests
    assert requests_a_picture(True, 30) > 0.6


# Collating


@pytest.fixture
def ragged() -> list[dict[str, Any]]:
    return [{"a": np.full((n, 2), n, "u1"), "name": str(n), "n": n} for n in (3, 1, 2)]


def test_arrays_of_several_shapes_stay_a_list(ragged: list[dict[str, Any]]) -> None:
    batch = collate(ragged)
    assert [part.shape for part in batch["a"]] == [(3, 2), (1, 2), (2, 2)]
    assert batch["name"] == ["3", "1", "2"] and batch["n"].tolist() == [3, 1, 2]


def test_arrays_of_several_shapes_are_padded_on_request(ragged: list[dict[str, Any]]) -> None:
    batch = collate(ragged, "pad")
    assert batch["a"][:, :, 0].tolist() == [[3, 3, 3], [1, 0, 0], [2, 2, 0]]
    assert batch["a_shape"].tolist() == [[3, 2], [1, 2], [2, 2]]
    assert set(batch) == {"a", "a_shape", "name", "n"}
    padded, shapes = collate([one["a"] for one in ragged], "pad")
    assert padded.shape == (3, 3, 2) and shapes.shape == (3, 2)


def test_what_is_padded_does_not_depend_on_the_shapes_of_a_batch(ragged: list[dict[str, Any]]) -> None:
    assert set(collate(ragged[:1] * 2, "pad")) == set(collate(ragged, "pad"))


def test_a_batch_is_padded_alike_with_a_transform_and_without(output: Path) -> None:
    with h5dat_lib.open(output) as file:
        both = [file["images"].numpy(["pixels", "label"], made, batch_size=8, ragged="pad") for made in (None, _as_it_is)]
        for one, other in zip(*both, strict=True):
            assert one.keys() == other.keys() == {"pixels", "pixels_shape", "label"}
            assert all(np.array_equal(one[name], other[name]) for name in one)


def _as_it_is(sample: Any) -> Any:
    return sample


def test_parts_of_one_array_in_order_are_that_array_and_others_are_copied() -> None:
    whole = np.arange(24, dtype="u1").reshape(4, 2, 3).copy()
    assert collate(list(whole)) is whole
    for parts in (
        list(whole[::-1]),
        list(whole)[:3],
        [*list(whole)[:3], whole[2]],
        [part.copy() for part in whole],
        list(whole[:, :, ::-1]),
    ):
        joined = collate(parts)
        assert joined is not whole and np.array_equal(joined, np.stack(parts)) and not np.shares_memory(joined, whole)


def test_a_missing_array_stays_missing() -> None:
    assert collate([np.zeros(2), None], "pad")[1] is None
