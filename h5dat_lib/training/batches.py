"""A table, columns and an order -> samples and batches of NumPy arrays, epoch after epoch, for any framework that takes them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import tee
from typing import Any, Literal, Protocol

import numpy as np

from h5dat_lib.columns import Array
from h5dat_lib.errors import FormatError
from h5dat_lib.training.sampling import Numbers, Sampler, Shuffle

Columns = str | Sequence[str] | None
Transform = Callable[[Any], Any]
Ragged = Literal["list", "pad"]
Shuffling = Shuffle | bool | Literal["window"]

READ_AT_ONCE = 64
"""Samples that are read at once where they are not asked for in batches."""
_BLOCK_BYTES = 1 << 20
_WINDOW_BYTES = 16 << 20
"""Half of what a file keeps of its chunks: a window and what of its columns is read beside it stay there while it lasts."""


class Source(Protocol):
    """The table that samples are read from."""

    @property
    def columns(self) -> list[str]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, which: Any) -> Any: ...

    def batches(
        self, batches: Iterable[Any], columns: Sequence[str] | None = None, ahead: int = 1, stack: bool = False
    ) -> Iterator[dict[str, Any]]: ...


class Samples:
    """Rows of a table as samples: a dictionary by column, or the value itself when one column is named by a string.

    Categories are given as their numbers (int64, -1 where one is missing), whose names are in ``categories``; missing numbers as NaN,
    missing dates as NaT, all else as the column gives it. ``transform`` makes of each sample what is wanted. Raises KeyError
    for a column that is not there.
    """

    def __init__(self, table: Source, columns: Columns = None, transform: Transform | None = None) -> None:
        self.table = table
        self.transform = transform
        self._name = columns if isinstance(columns, str) else None
        self.columns = [columns] if isinstance(columns, str) else list(table.columns if columns is None else columns)
        self.categories: dict[str, list[str]] = {
            name: column.categories for name in self.columns if (column := table[name]).layout == "categorical"
        }
        self._others = [name for name in self.columns if name not in self.categories]

    def batches(self, runs: Iterable[Numbers], ragged: Ragged = "list", ahead: int = 1) -> Iterator[tuple[int, Any]]:
        """How many samples each run of row numbers has, and these as one batch; ``ahead`` further ones are read meanwhile."""
        for count, columns in self._read(runs, ahead, stack=self.transform is None):
            yield count, collate(self._samples(count, columns), ragged) if self.transform else self._batch(columns, ragged)

    def _batch(self, columns: dict[str, Any], ragged: Ragged) -> Any:
        """What collating the samples would give, without taking arrays apart."""
        is_whole = [isinstance(values, np.ndarray) and (ragged == "list" or values.ndim == 1) for values in columns.values()]
        parts = {
            name: values if whole else joined(list(values), ragged) for whole, (name, values) in zip(is_whole, columns.items(), strict=True)
        }
        return _by_name(parts) if self._name is None else parts[self._name]

    def samples(self, runs: Iterable[Numbers], ahead: int = 1, stack: bool = False) -> Iterator[list[Any]]:
        """The samples of each run of row numbers; with ``stack`` arrays of one shape are parts of one, which `joined` finds again."""
        return (self._samples(count, columns) for count, columns in self._read(runs, ahead, stack))

    def _read(self, runs: Iterable[Numbers], ahead: int, stack: bool = False) -> Iterator[tuple[int, dict[str, Any]]]:
        runs, again = tee(runs)
        for rows, found in zip(again, self.table.batches(runs, self._others, ahead, stack), strict=True):
            yield len(rows), {name: self._codes(name, rows) if name in self.categories else _filled(found[name]) for name in self.columns}

    def _codes(self, name: str, rows: Numbers) -> Array:
        codes: Array = self.table[name].codes.take(rows).astype(np.int64)
        count = len(self.categories[name])
        if np.min(codes, initial=0) < -1 or np.max(codes, initial=-1) >= count:
            found = f"{np.min(codes)} to {np.max(codes)} in {name}"
            raise FormatError(f"{self.table!r}: found codes {found}, expected -1 to {count - 1}; make the file anew")
        return codes

    def _samples(self, count: int, columns: dict[str, Any]) -> list[Any]:
        if self._name is not None:
            samples = list(columns[self._name])
        else:
            samples = [{name: values[number] for name, values in columns.items()} for number in range(count)]
        return samples if self.transform is None else [self.transform(sample) for sample in samples]


def _filled(values: Any) -> Any:
    """Values of a column without a mask."""
    if not isinstance(values, np.ma.MaskedArray):
        return values
    data = values.data if values.dtype.kind in "fM" else values.data.astype(np.float64)
    return np.where(np.ma.getmaskarray(values), data.dtype.type("NaT" if data.dtype.kind == "M" else "nan"), data)


# Samples to a batch


class Padded(tuple[Any, Any]):
    """An array (n, ...) of arrays of several shapes, zeros behind each, and their shapes (n, axes)."""


Join = Callable[[list[Any], Ragged], Any]


def collate(samples: Sequence[Any], ragged: Ragged = "list") -> Any:
    """Samples as one batch: dictionaries and tuples part by part, arrays and numbers of one shape and type as one array (n, ...).

    Arrays of several shapes stay a list. With ``ragged="pad"`` arrays become one that is as large as the largest of them, zeros behind
    them, and their shapes (n, axes) as int64: a dictionary has these as ``<name>_shape``, elsewhere a tuple of both stands. All else is
    a list.
    """
    return collated(samples, ragged, joined)


def collated(samples: Sequence[Any], ragged: Ragged, join: Join) -> Any:
    """The same with another function for what is neither a dictionary nor a tuple."""
    first = samples[0]
    if isinstance(first, Mapping):
        return _by_name({name: collated([sample[name] for sample in samples], ragged, join) for name in first})
    if isinstance(first, tuple):
        return tuple(collated(part, ragged, join) for part in zip(*samples, strict=True))
    return join(list(samples), ragged)


def joined(values: list[Any], ragged: Ragged) -> Any:
    """Values as one array; as they are when they are of several types or shapes, or neither arrays nor numbers."""
    if not all(isinstance(value, np.ndarray | np.generic | float | int) for value in values):
        return values
    arrays = [np.asarray(value) for value in values]
    if len({(array.ndim, array.dtype) for array in arrays}) > 1:
        return values
    if ragged == "pad" and arrays[0].ndim:
        return _padded(arrays)
    if len({array.shape for array in arrays}) > 1:
        return values
    return np.stack(arrays) if (whole := _whole(arrays)) is None else whole


def _whole(arrays: list[Array]) -> Array | None:
    """The array of which these are all parts along its first axis, in order; None of any others."""
    whole, first = arrays[0].base, arrays[0]
    if not isinstance(whole, np.ndarray) or (whole.shape, whole.dtype) != ((len(arrays), *first.shape), first.dtype):
        return None
    begin, step = whole.ctypes.data, whole.strides[0]
    is_part = (
        array.base is whole and array.strides == whole.strides[1:] and array.ctypes.data == begin + number * step
        for number, array in enumerate(arrays)
    )
    return whole if all(is_part) else None


def _padded(arrays: list[Array]) -> Padded:
    shapes = np.array([array.shape for array in arrays], np.int64)
    found = np.zeros((len(arrays), *shapes.max(axis=0)), arrays[0].dtype)
    for number, array in enumerate(arrays):
        found[number][tuple(map(slice, array.shape))] = array
    return Padded((found, shapes))


def _by_name(parts: dict[str, Any]) -> dict[str, Any]:
    """A batch by name, shapes of what was padded beside it."""
    shapes = {f"{name}_shape": part[1] for name, part in parts.items() if isinstance(part, Padded)}
    return {name: part[0] if isinstance(part, Padded) else part for name, part in parts.items()} | shapes


# Epochs


class Batches:
    """Epochs of a table's rows as batches of NumPy arrays: iterating gives those of the epoch that `set_epoch` named, 0 at first.

    Arrays are contiguous, writable and used for nothing else, so that JAX, TensorFlow and torch take them by DLPack without a copy.
    ``state_dict`` says how far it is, to the batch that was given last; after ``load_state_dict`` the next iteration gives the rest.
    """

    def __init__(self, samples: Samples, sampler: Sampler, ragged: Ragged = "list") -> None:
        self._samples = samples
        self._sampler = sampler
        self._ragged: Ragged = ragged
        self.set_epoch = sampler.set_epoch
        self.state_dict = sampler.state_dict
        self.load_state_dict = sampler.load_state_dict

    @property
    def categories(self) -> dict[str, list[str]]:
        """Names of the categories, by column, in the order of their numbers."""
        return self._samples.categories

    def __len__(self) -> int:
        """Batches of an epoch."""
        return -(-len(self._sampler) // self._sampler.batch)

    def __iter__(self) -> Iterator[Any]:
        return self._each(self._sampler.runs())

    def _each(self, runs: Iterator[Numbers]) -> Iterator[Any]:
        for count, batch in self._samples.batches(runs, self._ragged):
            self._sampler.take(count)
            yield batch


def shuffle_of(samples: Samples, shuffle: Shuffling) -> Shuffle | None:
    """What a user's word for a shuffle means for these columns: True all rows, "window" as many as fit in memory at a time."""
    if isinstance(shuffle, Shuffle):
        return shuffle
    if shuffle != "window":
        return Shuffle() if shuffle else None
    stored = sum(samples.table[name].describe()["bytes"] for name in samples.columns)
    row = max(1, stored // max(1, len(samples.table)))
    block = max(1, _BLOCK_BYTES // row)
    return Shuffle(window=max(block, _WINDOW_BYTES // row), block=block)
