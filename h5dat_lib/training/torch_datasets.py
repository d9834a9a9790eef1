"""Samples of a table -> datasets of torch: one that is asked for rows, one that gives them in an order of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from h5dat_lib.errors import ConfigError
from h5dat_lib.training.batches import Padded, Ragged, Samples, collated, joined
from h5dat_lib.training.sampling import Numbers, Sampler, Shard

try:
    import torch
    from torch.utils.data import Dataset, IterableDataset, get_worker_info
except ImportError as exc:
    raise ConfigError(f"found no torch ({exc}), expected it for datasets of torch; pip install 'h5dat[torch]'") from exc


class RowDataset(Dataset[Any]):
    """Samples by row number, for a DataLoader that shuffles; a batch is read as one. Can be pickled; each process opens the file itself."""

    def __init__(self, samples: Samples, rows: Numbers | None = None) -> None:
        self._samples = samples
        self._rows = rows

    @property
    def categories(self) -> dict[str, list[str]]:
        """Names of the categories, by column, in the order of their numbers."""
        return self._samples.categories

    def __len__(self) -> int:
        return len(self._samples.table) if self._rows is None else len(self._rows)

    def __getitem__(self, number: int) -> Any:
        return self.__getitems__([number])[0]

    def __getitems__(self, numbers: Sequence[int]) -> list[Any]:
        """The samples of a batch."""
        rows = np.asarray(numbers, np.int64)
        if len(rows) and not -len(self) <= rows.min() <= rows.max() < len(self):
            raise IndexError(f"found samples {rows.min()} to {rows.max()}, expected them from 0 to {len(self) - 1}")
        rows = rows % len(self) if self._rows is None else self._rows[rows]
        return next(self._samples.samples([rows], ahead=0, stack=len(rows) > 1))


class StreamDataset(IterableDataset[Any]):
    """Samples, or batches of them, in the order of a sampler; a DataLoader's workers share them.

    ``set_epoch`` also reaches workers that are running. ``state_dict`` is of this process: in a DataLoader with workers
    torchdata's StatefulDataLoader collects those of the workers.
    """

    def __init__(self, samples: Samples, sampler: Sampler, ragged: Ragged | None) -> None:
        self._samples = samples
        self._sampler = sampler
        self._ragged = ragged  # None: samples, not batches
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    @property
    def categories(self) -> dict[str, list[str]]:
        """Names of the categories, by column, in the order of their numbers."""
        return self._samples.categories

    def __len__(self) -> int:
        """Samples, or batches, of an epoch; those of this rank."""
        return len(self._sampler) if self._ragged is None else -(-len(self._sampler) // self._sampler.batch)

    def set_epoch(self, epoch: int) -> None:
        """The next iteration is that of this epoch, in workers, too."""
        self._epoch.fill_(epoch)

    def state_dict(self) -> dict[str, Any]:
        """How far this process is, to the sample."""
        return self._sampler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The next iteration of that epoch goes on there. Raises ConfigError when the state is that of another order of rows."""
        self._sampler.load_state_dict(state)
        self._epoch.fill_(state["epoch"])

    def __iter__(self) -> Iterator[Any]:
        self._sampler.set_epoch(int(self._epoch))
        worker = get_worker_info()
        place, ahead = (0, 1), 1
        if worker is not None:  # the DataLoader itself has several batches read ahead
            place, ahead = (worker.id, worker.num_workers), 0
        runs = self._sampler.runs(*place)
        return self._each_sample(runs, ahead) if self._ragged is None else self._each_batch(runs, self._ragged, ahead)

    def _each_sample(self, runs: Iterator[Numbers], ahead: int) -> Iterator[Any]:
        for samples in self._samples.samples(runs, ahead):
            for sample in samples:
                self._sampler.take(1)
                yield sample

    def _each_batch(self, runs: Iterator[Numbers], ragged: Ragged, ahead: int) -> Iterator[Any]:
        for count, batch in self._samples.batches(runs, ragged, ahead):
            self._sampler.take(count)
            yield tensors(batch)


def own_shard() -> Shard:
    """The share of this process when torch.distributed runs, otherwise all."""
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()):
        return Shard()
    return Shard(distributed.get_rank(), distributed.get_world_size())


def collate(samples: Sequence[Any], ragged: Ragged = "list") -> Any:
    """A DataLoader's ``collate_fn``: `batches.collate` with tensors. To pad: ``functools.partial(collate, ragged="pad")``."""
    return tensors(collated(samples, ragged, _joined))


def _joined(values: list[Any], ragged: Ragged) -> Any:
    if not all(isinstance(value, torch.Tensor) for value in values):
        return joined(values, ragged)
    if ragged == "pad" and values[0].ndim and len({(value.ndim, value.dtype) for value in values}) == 1:
        return _padded(values)
    return torch.stack(values) if len({(value.shape, value.dtype) for value in values}) == 1 else values


def _padded(values: list[Any]) -> Padded:
    shapes = torch.tensor([value.shape for value in values])
    found = values[0].new_zeros((len(values), *shapes.amax(0).tolist()))
    for number, value in enumerate(values):
        found[(number, *map(slice, value.shape))] = value
    return Padded((found, shapes))


def tensors(batch: Any) -> Any:
    """A batch with its arrays as tensors that share their memory; dates, which torch has none of, stay arrays."""
    if isinstance(batch, np.ndarray | np.generic):
        return torch.from_numpy(np.require(batch, requirements="W")) if batch.dtype.kind in "biufc" else batch
    if isinstance(batch, dict):
        return {name: tensors(part) for name, part in batch.items()}
    if isinstance(batch, tuple | list):
        return type(batch)(map(tensors, batch)) if type(batch) is list else tuple(map(tensors, batch))
    return batch
