"""An open file -> figures of each class: bytes before and after, brightness of pictures, balance of labels, histograms of numbers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np

from h5dat_lib.columns import Array
from h5dat_lib.errors import FormatError
from h5dat_lib.lineage import MEMBERS
from h5dat_lib.read.columns import Categorical, Column
from h5dat_lib.read.files import File
from h5dat_lib.read.pictures import has_pictures, pictures, spread
from h5dat_lib.read.tables import Table

_BINS = 40
"""Most bins of a histogram."""
_LEVELS = 64
"""Bins of the levels of 8 bit."""
_DISTINCT = 1000
"""Most distinct strings that are counted; a column of more is none of labels."""
_SLAB_ROWS = 1 << 17
"""Most rows of a column in memory at a time."""
_SLAB_BYTES = 32 << 20
"""Most bytes of them; one row may have more."""
_PIXELS = 1 << 22
"""Pixels of a picture that are summed at a time."""


@dataclass(frozen=True)
class Brightness:
    """Mean and standard deviation of each channel over all pixels of so many ``pictures``, in the units of the pixels.

    They are of the number of channels and the ``dtype`` that most pictures have; ``others`` were looked at and have another. ``levels`` has
    for each channel how many pixels lie in each of 64 equal ranges from 0 to 255; None of other pixels than 8 bit.
    """

    pictures: int
    others: int
    dtype: str
    mean: list[float]
    std: list[float]
    levels: list[list[int]] | None


@dataclass(frozen=True)
class Numbers:
    """All finite values of a column of numbers or dates: ``count`` of them, and ``missing``, those without one, NaN and infinite ones.

    ``counts`` has how many lie in each of equal ranges from ``low`` to ``high``, of whole numbers each ``width`` of them. Dates have
    ``low`` and ``high`` in ISO 8601, and neither ``mean`` nor ``std``, which are None also where they are beyond float64.
    """

    count: int
    missing: int
    low: float | int | str
    high: float | int | str
    mean: float | None
    std: float | None
    counts: list[int]
    width: float | int


@dataclass(frozen=True)
class ColumnFigures:
    """A column: ``shape`` of a value, None where it varies; bytes ``stored`` on disk, and ``decoded``, None when that is not recorded."""

    name: str
    layout: str
    dtype: str
    shape: tuple[int, ...] | None
    stored: int
    decoded: int | None
    brightness: Brightness | None
    balance: dict[str, int] | None
    """How many rows each category, boolean or short string has, most first; None for other columns, and for more than 1,000 strings."""
    numbers: Numbers | None
    """None for other columns than those of numbers and dates, and where all values are missing."""


@dataclass(frozen=True)
class ClassFigures:
    """A class: its rows and columns; its members, and their bytes in the archives, decompressed; bytes on disk with those of its pairs."""

    name: str
    rows: int
    members: int
    source: int
    stored: int
    columns: list[ColumnFigures]


def statistics(file: File, most: int | None = 1000, tables: Sequence[str] | None = None) -> list[ClassFigures]:
    """Figures of all tables, or of those named: of all rows, but of pictures at most so many of each, spread evenly over its rows.

    ``most`` is None for all of them. A slab of a column is in memory at a time, or some pictures (`read.pictures.pictures`). Raises
    FormatError for damage.
    """
    sources = _sources(file)
    return [_of_table(file[name], most, *sources.get(name, (0, 0))) for name in (file.tables if tables is None else tables)]


def _sources(file: File) -> dict[str, tuple[int, int]]:
    """Members of each class that gave rows, and their bytes."""
    if MEMBERS not in file:
        return {}
    counts: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    members = file[MEMBERS]
    for rows in _slabs(members["class"]):
        given, size = (numbers(file, MEMBERS, column, rows) for column in ("rows", "size"))
        for name, count, source in zip(members["class"][rows], given.tolist(), size.tolist(), strict=True):
            if count:
                counts[name] += 1
                sizes[name] += source
    return {name: (counts[name], sizes[name]) for name in counts}


def numbers(file: File, name: str, column: str, rows: slice) -> Array:
    """Values of a column of the lineage that has to be of numbers. Raises FormatError when it is not."""
    values = file[name][column][rows]
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "iuf" or np.ma.is_masked(values):
        found = getattr(values, "dtype", "strings")
        raise FormatError(f"{file.path}, {name}, column {column!r}: found {found}, expected numbers; make the file anew")
    return values


def _of_table(table: Table, most: int | None, members: int, source: int) -> ClassFigures:
    columns = [_of_column(table, column, most) for column in table.columns]
    return ClassFigures(str(table.class_name), len(table), members, source, table.describe()["bytes"], columns)


def _of_column(table: Table, name: str, most: int | None) -> ColumnFigures:
    column: Column = table[name]
    about = column.describe()
    return ColumnFigures(
        name,
        about["layout"],
        about["dtype"],
        about["shape"],
        about["bytes"],
        _decoded(table, name, about),
        _brightness(table, most) if name == "pixels" and has_pictures(table) else None,
        _balance(column, about),
        _numbers(column) if about["shape"] == () else None,
    )


def _decoded(table: Table, name: str, about: dict[str, Any]) -> int | None:
    """Bytes of all values as arrays; of encoded pictures by the height, width and channels that are recorded."""
    column = table[name]
    if column.nbytes is not None:
        return int(column.nbytes)
    if about["layout"] == "encoded" and {"height", "width", "channels"} <= {*table.columns}:
        sizes = [np.asarray(table[side][:], "i8") for side in ("height", "width", "channels")]
        return int(np.sum(sizes[0] * sizes[1] * sizes[2]))
    return None


def _slabs(column: Column) -> Iterator[slice]:
    """All rows, as many at a time as fit in a slab."""
    row_bytes = (column.nbytes or 0) // max(len(column), 1)
    step = max(1, min(_SLAB_ROWS, _SLAB_BYTES // max(row_bytes, 1)))
    return (slice(first, first + step) for first in range(0, len(column), step))


# Pictures


@dataclass
class _Moments:
    """Count, mean and sum of squared distances from it, of values that come slab by slab."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def add(self, values: Array) -> None:
        """Merges a slab: T. F. Chan, G. H. Golub, R. J. LeVeque, 1979; sums of squares would lose what is small beside a large mean."""
        if not len(values):
            return
        with np.errstate(over="ignore", invalid="ignore"):
            mean = float(values.mean(dtype="f8"))
            squares = float(np.square(values - mean, dtype="f8").sum())
        apart, both = mean - self.mean, self.count + len(values)
        self.squares += squares + apart * apart * (self.count / both) * len(values)
        self.mean += apart * (len(values) / both)
        self.count = both

    @property
    def std(self) -> float:
        return math.sqrt(self.squares / self.count) if self.count else math.nan


@dataclass
class _Channels:
    """What has been seen of pictures of so many channels: how many pixels of 8 bit have each level, exactly; of others the moments."""

    channels: int
    pictures: int = 0
    levels: Array = field(init=False)
    moments: list[_Moments] = field(init=False)

    def __post_init__(self) -> None:
        self.levels = np.zeros((self.channels, 256), "i8")
        self.moments = [_Moments() for _ in range(self.channels)]

    def add(self, picture: Array) -> None:
        self.pictures += 1
        step = max(1, _PIXELS // picture.shape[1])
        for first in range(0, len(picture), step):
            part = np.ascontiguousarray(picture[first : first + step])
            for channel in range(self.channels):
                self._add(part, channel)

    def _add(self, part: Array, channel: int) -> None:
        if part.dtype == np.uint8:  # counts are float32, exact as far as `_PIXELS`
            self.levels[channel] += cv2.calcHist([part], [channel], None, [256], [0, 256]).ravel().astype("i8")
        else:
            values = part[..., channel].ravel()
            self.moments[channel].add(values[np.isfinite(values)])

    def figures(self, dtype: str, others: int) -> Brightness:
        if dtype != "uint8":
            mean, std = [one.mean for one in self.moments], [one.std for one in self.moments]
            return Brightness(self.pictures, others, dtype, mean, std, None)
        values, pixels = np.arange(256.0), self.levels.sum(1)
        means = self.levels @ values / pixels
        squares = (self.levels * (values - means[:, None]) ** 2).sum(1)
        levels = self.levels.reshape(self.channels, _LEVELS, -1).sum(2)
        return Brightness(self.pictures, others, dtype, means.tolist(), np.sqrt(squares / pixels).tolist(), levels.tolist())


def _brightness(table: Table, most: int | None) -> Brightness | None:
    kinds: dict[tuple[int, str], _Channels] = {}
    for picture in pictures(table, spread(len(table), most)):
        kind = (picture.shape[2], str(picture.dtype))
        kinds.setdefault(kind, _Channels(kind[0])).add(picture)
    if not kinds:
        return None
    (_, dtype), found = max(kinds.items(), key=lambda item: item[1].pictures)
    return found.figures(dtype, sum(other.pictures for other in kinds.values()) - found.pictures)


# Labels and numbers


def _balance(column: Column, about: dict[str, Any]) -> dict[str, int] | None:
    of_categories = isinstance(column, Categorical)
    if not of_categories and (about["shape"] != () or about["dtype"] not in ("string", "bool")):
        return None
    counts: Counter[Any] = Counter(dict.fromkeys(column.categories, 0) if isinstance(column, Categorical) else ())
    for rows in _slabs(column):
        values = column[rows]
        counts.update(values.tolist() if isinstance(values, np.ndarray) else values)
        if len(counts) > _DISTINCT and not of_categories:
            return None
    counts.pop(None, None)
    return {str(value).lower() if isinstance(value, bool) else value: count for value, count in counts.most_common()}


def _numbers(column: Column) -> Numbers | None:
    """Two passes: the range and the moments, then the bins."""
    if not isinstance(values := column[:0], np.ndarray) or values.dtype.kind not in "iufM":
        return None
    moments, lows, highs = _Moments(), [], []
    for values in _present(column):
        moments.add(values.view("i8") if values.dtype.kind == "M" else values.astype("f8"))
        lows.append(values.min())
        highs.append(values.max())
    if not lows:
        return None
    low, high = min(lows), max(highs)
    bins = _IntegerBins(low, high) if low.dtype.kind != "f" else _FloatBins(float(low), float(high))
    counts = np.zeros(bins.count, "i8")
    for values in _present(column):
        counts += np.bincount(bins.of(values), minlength=bins.count)
    of_dates = low.dtype.kind == "M"
    first, last = (str(low), str(high)) if of_dates else (low.item(), high.item())
    mean, std = (None if of_dates or not math.isfinite(value) else value for value in (moments.mean, moments.std))
    return Numbers(moments.count, len(column) - moments.count, first, last, mean, std, counts.tolist(), bins.width)


def _present(column: Column) -> Iterator[Array]:
    """Values slab by slab, without what is missing or not finite."""
    for rows in _slabs(column):
        values = column[rows]
        mask = np.ma.getmaskarray(values)
        data = np.asarray(values)[~mask]
        data = data[np.isfinite(data)]
        if len(data):
            yield data


class _IntegerBins:
    """Bins of whole numbers, or dates: each of as many. Numbers of 64 bits are counted from the lowest without an overflow."""

    def __init__(self, low: Any, high: Any) -> None:
        ends = self._bits(np.array([low, high]))
        self._low = ends[:1]
        span = int((ends - self._low)[1]) + 1
        self.width = -(-span // _BINS)
        self.count = -(-span // self.width)

    @staticmethod
    def _bits(values: Array) -> Array:
        return values.astype("u8" if values.dtype.kind == "u" else "i8").view("u8")

    def of(self, values: Array) -> Array:
        bins: Array = ((self._bits(values) - self._low) // np.uint64(self.width)).astype("i8")
        return bins


class _FloatBins:
    """Bins of equal width; one where all values are the same."""

    def __init__(self, low: float, high: float) -> None:
        self._low, self._half = low, high / 2 - low / 2  # high - low may be infinite
        self.count = _BINS if self._half > 0 else 1
        self.width = self._half / self.count * 2

    def of(self, values: Array) -> Array:
        if self.count == 1:
            return np.zeros(len(values), "i8")
        share = (values.astype("f8") / 2 - self._low / 2) / self._half
        bins: Array = np.minimum((share * self.count).astype("i8"), self.count - 1)
        return bins
