"""Datasets of torch: every byte is h5py's with any kind of worker, and a run goes on at the next sample."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import h5dat_lib
from h5dat_lib.errors import ConfigError
from h5dat_lib.training.sampling import Shard, Shuffle
from tests.training.test_batches import IMAGES, ROWS, by_h5py, hashed, make_output

torch = pytest.importorskip("torch", reason="torch is not installed: make torch")

from torch.utils.data import DataLoader  # noqa: E402

from h5dat_lib.training.torch_datasets import RowDataset, StreamDataset, collate, own_shard  # noqa: E402

WORKERS = [(0, None, False), (2, "fork", False), (2, "fork", True)]
"""Number, how they are started, and whether they stay for the next epoch."""


@pytest.fixture(scope="module", params=IMAGES)
def output(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_output(tmp_path_factory.mktemp("torch"), request.param)


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_output(tmp_path_factory.mktemp("torch"), "dense")


@pytest.fixture
def table(dense: Path) -> Iterator[Any]:
    with h5dat_lib.open(dense) as file:
        yield file["images"]


def pairs(batches: Any) -> list[tuple[Any, int]]:
    """What identifies each sample of an epoch."""
    return [(hashed(pixels), int(label)) for batch in batches for pixels, label in zip(batch["pixels"], batch["label"], strict=True)]


def expected(path: Path) -> list[tuple[Any, int]]:
    return [(hashed(pixels), int(row % 3 > 0)) for row, pixels in enumerate(by_h5py(path))]


def loader(dataset: Any, workers: tuple[int, str | None, bool], **more: Any) -> Any:
    number, context, stay = workers
    return DataLoader(dataset, num_workers=number, multiprocessing_context=context, persistent_workers=stay, **more)


# Workers


@pytest.mark.parametrize("workers", WORKERS)
def test_every_byte_is_h5pys_with_any_workers(output: Path, workers: Any) -> None:
    with h5dat_lib.open(output) as file:
        file["images"].pixels[0]  # open in this process before it is forked
        rows = loader(file["images"].torch(["pixels", "label"]), workers, batch_size=16, shuffle=True, collate_fn=collate)
        stream = loader(file["images"].torch(["pixels", "label"], shuffle=True, batch_size=16), workers, batch_size=None)
        for _ in range(2):  # epochs
            assert Counter(pairs(rows)) == Counter(pairs(stream)) == Counter(expected(output))


@pytest.mark.parametrize("how", ["forkserver", "spawn"])
def test_every_byte_is_h5pys_in_workers_that_begin_anew(table: Any, dense: Path, how: str) -> None:
    dataset = table.torch(["pixels", "label"], shuffle=True, batch_size=16)
    alone = pairs(loader(dataset, WORKERS[0], batch_size=None))
    assert pairs(loader(dataset, (2, how, False), batch_size=None)) == alone  # the same order, too
    assert Counter(alone) == Counter(expected(dense))


def test_an_epoch_that_is_set_reaches_workers_that_stay(table: Any) -> None:
    dataset = table.torch(["pixels", "label"], shuffle=True, batch_size=16)
    staying = loader(dataset, (2, "fork", True), batch_size=None)
    epochs = []
    for epoch in range(3):
        dataset.set_epoch(epoch)
        epochs.append(pairs(staying))
    other = table.torch(["pixels", "label"], shuffle=True, batch_size=16)
    for epoch in range(3):
        other.set_epoch(epoch)
        assert pairs(DataLoader(other, batch_size=None)) == epochs[epoch]
    assert epochs[0] != epochs[1] != epochs[2]


@pytest.mark.parametrize("size", [1, 7, 64, 200])
def test_samples_are_neither_lost_nor_doubled_whatever_batches_the_loader_makes(table: Any, dense: Path, size: int) -> None:
    dataset = table.torch(["pixels", "label"], shuffle="window")
    with_workers = loader(dataset, (2, "fork", False), batch_size=size)
    assert Counter(pairs(with_workers)) == Counter(expected(dense))
    assert len(dataset) == ROWS


# By row number


def test_a_batch_is_read_as_one(table: Any) -> None:
    dataset = table.torch("pixels", rows=np.arange(10, 30))
    several = dataset.__getitems__([19, 0, -1])
    assert np.array_equal(several, table.pixels.rows([29, 10, 29]))
    assert len(dataset) == 20 and np.array_equal(dataset[3], table.pixels[13])
    with pytest.raises(IndexError, match="from 0 to 19"):
        dataset[20]


def test_a_transform_may_give_tensors_and_tuples(table: Any) -> None:
    dataset = table.torch(["pixels", "label"], _as_tensors)
    pixels, label = next(iter(DataLoader(dataset, batch_size=5)))
    assert pixels.dtype == torch.float32 and pixels.shape == (5, 3, 6, 8) and label.shape == (5,)


def _as_tensors(sample: dict[str, Any]) -> tuple[Any, int]:
    return torch.from_numpy(sample["pixels"]).permute(2, 0, 1) / 255, int(sample["label"])


def test_both_kinds_can_be_pickled(table: Any) -> None:
    for dataset in (table.torch("label"), table.torch("label", shuffle=True, batch_size=9)):
        again = pickle.loads(pickle.dumps(dataset))
        assert [part.tolist() for part in DataLoader(again, None)] == [part.tolist() for part in DataLoader(dataset, None)]


# States

OF_TORCHDATA = pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")  # which torchdata 0.11 calls


def _stateful(dataset: Any, workers: int, batch_size: int | None, stay: bool = False) -> Any:
    stateful = pytest.importorskip("torchdata.stateful_dataloader")
    return stateful.StatefulDataLoader(
        dataset, num_workers=workers, batch_size=batch_size, persistent_workers=stay, prefetch_factor=2 if workers else None
    )


@OF_TORCHDATA
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("used", [1, 4, 6])
def test_torchdatas_loader_goes_on_at_the_next_sample(table: Any, workers: int, batched: bool, used: int) -> None:
    def make() -> tuple[Any, Any]:
        dataset = table.torch(["pixels", "label"], shuffle=True, batch_size=13 if batched else None)
        return dataset, _stateful(dataset, workers, None if batched else 13)

    dataset, loader = make()
    dataset.set_epoch(3)
    batches = iter(loader)
    before = pairs(next(batches) for _ in range(used))
    state = pickle.loads(pickle.dumps(loader.state_dict()))
    after = pairs(batches)
    _, again = make()
    again.load_state_dict(state)
    assert pairs(again) == after
    assert len(before) + len(after) == len(set(before) | set(after)) == ROWS


@OF_TORCHDATA
@pytest.mark.parametrize("workers", [0, 2])
def test_after_a_run_that_was_resumed_comes_a_whole_epoch(table: Any, workers: int) -> None:
    dataset = table.torch(["pixels", "label"], shuffle=True, batch_size=10)
    loader = _stateful(dataset, workers, None, stay=workers > 0)
    next(batches := iter(loader))
    state = loader.state_dict()
    del batches
    other = table.torch(["pixels", "label"], shuffle=True, batch_size=10)
    again = _stateful(other, workers, None, stay=workers > 0)
    again.load_state_dict(state)
    assert len(pairs(again)) == ROWS - 10
    other.set_epoch(1)
    assert len(pairs(again)) == ROWS


@OF_TORCHDATA
@pytest.mark.parametrize("workers", [0, 2])
def test_a_state_after_the_last_batch_leaves_nothing_of_that_epoch(table: Any, workers: int) -> None:
    dataset = table.torch(["pixels", "label"], shuffle=True, batch_size=10)
    batches = iter(loader := _stateful(dataset, workers, None))
    assert len([next(batches) for _ in range(len(dataset))]) == 9
    other = table.torch(["pixels", "label"], shuffle=True, batch_size=10)
    again = _stateful(other, workers, None)
    again.load_state_dict(loader.state_dict())
    assert pairs(again) == []
    other.set_epoch(1)
    assert len(pairs(again)) == ROWS


def test_a_state_of_one_process_is_dealt_to_workers_of_a_plain_loader(table: Any) -> None:
    dataset = table.torch(["pixels", "label"], shuffle=True, batch_size=10)
    batches = iter(dataset)
    before = pairs(next(batches) for _ in range(3))
    other = table.torch(["pixels", "label"], shuffle=True, batch_size=10)
    other.load_state_dict(dataset.state_dict())
    after = pairs(loader(other, (2, "fork", False), batch_size=None))
    assert after == pairs(batches) and len(before) + len(after) == ROWS


# Ranks


def test_ranks_have_the_same_number_of_batches(table: Any) -> None:
    shards = [table.torch("label", shuffle=True, batch_size=8, shard=Shard(rank, 4)) for rank in range(4)]
    assert [len(list(DataLoader(shard, None))) for shard in shards] == [len(shard) for shard in shards] == [3] * 4


def _ranked(rank: int, place: str, dataset: Path, queue: Any) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{place}", rank=rank, world_size=2)
    with h5dat_lib.open(dataset) as file:
        stream = file["images"].torch(["pixels", "label"], shuffle=True, batch_size=16)
        queue.put((own_shard(), pairs(DataLoader(stream, None))))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def test_processes_of_torch_distributed_share_an_epoch(dense: Path, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    ranks = [context.Process(target=_ranked, args=(rank, str(tmp_path / "meet"), dense, queue)) for rank in range(2)]
    for rank in ranks:
        rank.start()
    found = dict(queue.get(timeout=60) for _ in ranks)
    for rank in ranks:
        rank.join()
    assert set(found) == {Shard(0, 2), Shard(1, 2)} and own_shard() == Shard()
    assert Counter(sum(found.values(), [])) == Counter(expected(dense))  # noqa: RUF017


@pytest.mark.filterwarnings("ignore")  # what Lightning says of its parts
def test_lightning_trains_from_it(table: Any, tmp_path: Path) -> None:
    lightning = pytest.importorskip("lightning.pytorch")
    seen: list[list[Any]] = []

    class Model(lightning.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self, dataset: StreamDataset) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(1, 1)
            self.dataset = dataset

        def on_train_epoch_start(self) -> None:
            seen.append([])

        def training_step(self, batch: Any, _: int) -> Any:
            seen[-1] += pairs([batch])
            return self.layer(batch["label"].float()[:, None]).mean()

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), 0.1)

        def on_train_epoch_end(self) -> None:
            self.dataset.set_epoch(self.current_epoch + 1)

        def train_dataloader(self) -> Any:
            return DataLoader(self.dataset, batch_size=None, num_workers=2, persistent_workers=True)

    trainer = lightning.Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        default_root_dir=tmp_path,
        enable_checkpointing=False,
        enable_model_summary=False,
    )
    trainer.fit(Model(table.torch(["pixels", "label"], shuffle=True, batch_size=16)))
    assert Counter(seen[0]) == Counter(seen[1]) == Counter(expected(table._file.path)) and seen[0] != seen[1]


# Collating


def test_arrays_become_tensors_on_the_same_memory() -> None:
    arrays = [{"a": np.full(3, n), "name": str(n), "when": np.datetime64("2024-01-01")} for n in range(2)]
    batch = collate(arrays)
    assert batch["a"].tolist() == [[0, 0, 0], [1, 1, 1]] and batch["name"] == ["0", "1"]
    assert batch["when"].dtype == "M8[D]"


def test_pictures_of_several_shapes_are_a_list_or_padded() -> None:
    samples = [(torch.ones(n, 2), np.ones((n, 1), "u1")) for n in (2, 3)]
    tensors, arrays = collate(samples)
    assert [part.shape for part in tensors] == [(2, 2), (3, 2)] and [part.shape for part in arrays] == [(2, 1), (3, 1)]
    for padded, shapes in partial(collate, ragged="pad")(samples):
        assert padded.shape[:2] == (2, 3) and padded[0, 2].sum() == 0 and shapes[:, 0].tolist() == [2, 3]


def test_what_is_asked_for_decides_the_kind_of_dataset(table: Any) -> None:
    assert isinstance(table.torch(), RowDataset)
    assert isinstance(table.torch(shuffle=False), StreamDataset)
    assert isinstance(table.torch(batch_size=4), StreamDataset)
    with pytest.raises(ConfigError, match="size of 0"):
        table.torch(batch_size=0)
    with pytest.raises(KeyError, match="no column or member 'pixel'"):
        table.torch("pixel")
    assert copy.copy(table.torch("label", shuffle=Shuffle(3))).categories == {"label": ["dog", "cat"]}
