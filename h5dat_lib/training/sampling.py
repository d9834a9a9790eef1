"""Number of rows, seed and epoch -> the order in which rows are taken, and what of it is each rank's and worker's. Numbers only.

Nothing here is as large as the number of rows: an order is computed where it is asked for, so a sampler of a billion rows starts at
once, goes on at any place, and costs the same in every worker.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np

from h5dat_lib.errors import ConfigError

Numbers = np.ndarray[Any, np.dtype[np.int64]]

_ROUNDS = 6
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # the step of SplitMix64
_MOST_IN_A_TABLE = 1 << 16
"""Up to so many numbers a permutation is made as a whole: half a MiB, a few milliseconds."""
_AHEAD = 4096
"""Places of an order that are computed at a time: NumPy takes as long for 64 as for a thousand."""
_STATE_VERSION = 1


@dataclass(frozen=True)
class Shuffle:
    """How rows are shuffled: the same seed and epoch give the same order on every machine.

    Without ``window`` every order of the rows is as likely as another. With it rows are shuffled in windows of about so many: blocks of
    ``block`` neighbouring rows are shuffled, as many of them as a window holds are taken, and their rows are shuffled among each other.
    Each block is in one window, so what is kept of a window while it lasts is read once an epoch.
    """

    seed: int = 0
    window: int | None = None
    block: int = 256

    def __post_init__(self) -> None:
        if self.block < 1 or (self.window is not None and self.window < self.block):
            raise ConfigError(
                f"shuffle: found window {self.window}, block {self.block}; expected a block of at least 1, a window of at least that"
            )


@dataclass(frozen=True)
class Shard:
    """Which of ``ranks`` equal parts of every epoch is taken: all parts together are the epoch.

    ``uneven`` says what becomes of the rest when rows cannot be divided evenly: ``pad`` takes the first rows of the order once more,
    ``drop`` leaves the last out (both as torch's DistributedSampler), ``keep`` gives some ranks one row more.
    """

    rank: int = 0
    ranks: int = 1
    uneven: Literal["pad", "drop", "keep"] = "pad"

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.ranks:
            raise ConfigError(f"shard: found rank {self.rank} of {self.ranks}, expected 0 to {self.ranks - 1}")
        if self.uneven not in _PARTS:
            raise ConfigError(f"shard: found uneven {self.uneven!r}, expected one of {', '.join(_PARTS)}")

    def part(self, count: int) -> range:
        """Places of the order that are this rank's; those from ``count`` on stand for the first ones once more."""
        return _PARTS[self.uneven](self.rank, self.ranks, count)


def _even(rank: int, size: int) -> range:
    return range(rank * size, (rank + 1) * size)


_PARTS = {
    "pad": lambda rank, ranks, count: _even(rank, -(-count // ranks)),
    "drop": lambda rank, ranks, count: _even(rank, count // ranks),
    "keep": lambda rank, ranks, count: range(count * rank // ranks, count * (rank + 1) // ranks),
}


class Order:
    """The order of an epoch: ``order[places]`` are the numbers, 0 to ``count - 1``, that stand at these places of it."""

    def __init__(self, count: int, shuffle: Shuffle | None, epoch: int) -> None:
        self._count = count
        self._shuffle = shuffle
        self._epoch = epoch
        if shuffle is not None and shuffle.window is not None:
            self._lay_windows(shuffle.block, shuffle.window // shuffle.block)

    def __getitem__(self, places: Numbers) -> Numbers:
        if self._shuffle is None:
            return places
        if self._shuffle.window is None:
            return permuted(places, self._count, self._key("rows"))
        return self._windowed(places)

    def _key(self, of: str) -> str:
        assert self._shuffle is not None
        return f"{self._shuffle.seed} {self._epoch} {of}"

    def _lay_windows(self, block: int, blocks_a_window: int) -> None:
        """Where in the row of shuffled blocks each block and each window starts."""
        blocks = -(-self._count // block)
        self._blocks = permuted(np.arange(blocks), blocks, self._key("blocks"))
        sizes = np.minimum(self._count - self._blocks * block, block)
        self._starts = np.concatenate(([0], np.cumsum(sizes)))
        self._windows = np.append(self._starts[:-1:blocks_a_window], self._count)

    def _windowed(self, places: Numbers) -> Numbers:
        assert self._shuffle is not None
        among = np.empty_like(places)
        numbers = np.searchsorted(self._windows, places, "right") - 1
        for number in np.unique(numbers).tolist():
            start, end = self._windows[number : number + 2].tolist()
            here = numbers == number
            among[here] = start + permuted(places[here] - start, end - start, self._key(f"window {number}"))
        block = np.searchsorted(self._starts, among, "right") - 1
        rows: Numbers = self._blocks[block] * self._shuffle.block + among - self._starts[block]
        return rows


def permuted(numbers: Numbers, count: int, key: str) -> Numbers:
    """What a pseudo-random permutation of 0 to ``count - 1``, another one for another key, makes of these numbers."""
    return _table(count, key)[numbers] if count <= _MOST_IN_A_TABLE else _walked(numbers, count, key)


@lru_cache(maxsize=4)
def _table(count: int, key: str) -> Numbers:
    """The whole permutation: numbers in the order of random ones."""
    (start,) = _keys(key, 1)
    return np.argsort(_mixed(np.arange(count, dtype=np.uint64) * _GOLDEN + start), kind="stable")


def _walked(numbers: Numbers, count: int, key: str) -> Numbers:
    """A Feistel network over the smallest square of a power of two that holds ``count`` numbers; what falls outside is sent through
    again until it is inside (Black and Rogaway, "Ciphers with Arbitrary Finite Domains", 2002).
    """
    half = np.uint64(((count - 1).bit_length() + 1) // 2)
    keys = _keys(key, _ROUNDS)
    values = numbers.astype(np.uint64)
    outside = np.arange(len(values))
    while len(outside):
        values[outside] = _encrypted(values[outside], half, keys)
        outside = outside[values[outside] >= count]
    return values.astype(np.int64)


def _encrypted(values: Any, half: Any, keys: Any) -> Any:
    left, right = values >> half, values & ((np.uint64(1) << half) - np.uint64(1))
    for key in keys:
        left, right = right, left ^ (_mixed(right ^ key) >> (np.uint64(64) - half))
    return left << half | right


def _mixed(values: Any) -> Any:
    """Each bit of a number spread over all 64 (the finalizer of SplitMix64; Steele, Lea, Flood, 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _keys(text: str, count: int) -> Any:
    return np.frombuffer(hashlib.blake2b(text.encode(), digest_size=8 * count).digest(), "<u8")


class Sampler:
    """Rows of an epoch in runs of ``batch``, for one rank, dealt to its workers in turn; knows how far it is.

    As torch's DataLoader takes batches from its workers in turn, the batches are the same, in the same order, for any number of workers.
    An epoch is that which was set; it does not change by itself. ``drop_last`` leaves out a last batch that would not be whole.
    """

    def __init__(
        self, rows: int | Numbers, batch: int, shuffle: Shuffle | None = None, shard: Shard | None = None, drop_last: bool = False
    ) -> None:
        if batch < 1:
            raise ConfigError(f"batches: found a size of {batch}, expected 1 or more")
        self._chosen = None if isinstance(rows, int) else np.asarray(rows, np.int64)
        self._count = rows if isinstance(rows, int) else len(rows)
        self._shuffle = shuffle
        self._shard = shard or Shard()
        self._part = self._shard.part(self._count) if self._count else range(0)
        if drop_last:
            self._part = self._part[: len(self._part) - len(self._part) % batch]
        self.batch = batch
        self.epoch = 0
        self._start = 0  # of the rank's part, where it was dealt to the workers
        self._done = 0  # rows since, of this worker
        self._worker = (0, 1)
        self._is_loaded = False

    def __len__(self) -> int:
        """Rows of an epoch, of this rank."""
        return len(self._part)

    def set_epoch(self, epoch: int) -> None:
        """The next `runs` are those of this epoch: all of them, unless a state that was loaded is in the middle of it."""
        if epoch != self.epoch:
            self.epoch, self._start, self._done, self._is_loaded = epoch, 0, 0, False

    def runs(self, worker: int = 0, workers: int = 1) -> Iterator[Numbers]:
        """Row numbers of the epoch, a batch at a time; after `load_state_dict` what is left of it.

        What was left in the middle of a batch goes on with the rest of it. ``workers`` call it in a process each. `take` says how
        far the rows have been used.
        Raises ConfigError when what was loaded is the state of another worker.
        """
        self._begin((worker, workers))
        return self._left(Order(self._count, self._shuffle, self.epoch), self._done)

    def _begin(self, worker: tuple[int, int]) -> None:
        if not self._is_loaded:
            self._start = self._done = 0
        elif self._worker == (0, 1):  # what one process has left may be dealt to any number
            self._start, self._done = (self._start, self._done) if worker == (0, 1) else (self._start + self._done, 0)
        elif self._worker != worker:
            raise ConfigError(
                f"state: found that of worker {self._worker[0]} of {self._worker[1]}, expected one of worker {worker[0]} of {worker[1]}; "
                "go on with as many workers"
            )
        self._worker, self._is_loaded = worker, False

    def _left(self, order: Order, done: int) -> Iterator[Numbers]:
        while len(places := self._next_places(done)):
            rows = order[places % self._count]
            rows = rows if self._chosen is None else self._chosen[rows]
            first = self.batch - done % self.batch
            yield from np.split(rows, range(first, len(rows), self.batch))
            done += len(rows)

    def _next_places(self, done: int) -> Numbers:
        """Places of the order of the next few runs, from row ``done`` of this worker on."""
        end = (done // self.batch + max(1, _AHEAD // self.batch)) * self.batch
        own = np.arange(done, end)
        worker, workers = self._worker
        places = self._start + (worker + own // self.batch * workers) * self.batch + own % self.batch
        return self._part.start + places[places < len(self._part)]

    def take(self, rows: int) -> None:
        """Notes that so many rows more have been used."""
        self._done += rows

    def state_dict(self) -> dict[str, Any]:
        """Where it is, to the row, as plain values."""
        place = {"epoch": self.epoch, "start": self._start, "done": self._done, "worker": list(self._worker)}
        return {"version": _STATE_VERSION, **place, "of": self._identity()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes to where another one was. Raises ConfigError when that one has other rows, another order, or another share of them."""
        expected = {"version": _STATE_VERSION, "of": self._identity()}
        found = {key: state.get(key) for key in expected}
        if found != expected:
            raise ConfigError(f"state: found {found}, expected {expected}; begin the epoch anew, or make both alike")
        self.epoch, self._start, self._done = state["epoch"], state["start"], state["done"]
        self._worker, self._is_loaded = tuple(state["worker"]), True

    def _identity(self) -> dict[str, Any]:
        """What must be alike for a state to mean the same rows."""
        chosen = "all" if self._chosen is None else hashlib.sha256(self._chosen.astype("<i8").tobytes()).hexdigest()[:16]
        shuffle = None if self._shuffle is None else asdict(self._shuffle)
        counts = {"rows": self._count, "taken": len(self._part), "batch": self.batch}
        return {**counts, "chosen": chosen, "shuffle": shuffle, "shard": asdict(self._shard)}
