"""A picture, or all of a table -> the rows that are alike: of the same bytes, or near by the perceptual hashes that are stored.

Hashes are 8 bytes a row; all of a table are looked at, a slab at a time, or all at once to find duplicates. No picture is decoded but
the one that is asked for.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from h5dat_lib.columns import Array
from h5dat_lib.errors import InputError, MemberError
from h5dat_lib.phash import BITS, phash
from h5dat_lib.read.columns import Encoded

DISTANCE = 8
"""Bits that two hashes of one picture may differ in by default: docs/reading.md says what that finds, and what not."""
_SLAB = 1 << 20
"""Hashes that are looked at at a time."""
_PICTURES = 32
"""Pictures that are decoded at a time where there are no hashes."""
_SORTED = 10
"""Sorting a hash takes about as long as comparing so many."""

Hashes = Iterator[tuple[Array, Array]]
"""Rows (n,) int64 and their hashes (n,) uint64, slab by slab; rows without one are left out."""


@dataclass(frozen=True)
class Alike:
    """A row that was found: ``distance`` in bits, from 0 to 64, and whether it is of the same bytes as what was asked for."""

    row: int
    distance: int
    exact: bool


@dataclass(frozen=True)
class Group:
    """Rows that are duplicates of each other, in order; ``copies`` are those of them that are of the same bytes as one before."""

    rows: tuple[int, ...]
    copies: tuple[int, ...]


@dataclass(frozen=True)
class Wanted:
    """What is looked for: a hash, None where there is none, the SHA-256 of a member, in hex, "" when it is not known, and which of its
    rows. ``name`` is for messages; ``home``, a file and a table, and ``row`` are where it stands itself, if it does."""

    name: str
    hash: int | None
    sha256: str = ""
    place: int = 0
    home: str = ""
    row: int = -1


class Pictures(Protocol):
    """The table that is searched."""

    class_name: str

    @property
    def columns(self) -> list[str]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, which: Any) -> Any: ...

    def rows_of_content(self, sha256: str, place: int) -> Array: ...

    def contents(self) -> tuple[Array, Array]: ...


def wanted_picture(query: Any) -> Wanted:
    """What a file, its bytes, or pixels (height, width, channels) or (height, width) ask for. Raises InputError for what is no picture."""
    if isinstance(query, np.ndarray):
        return Wanted("array", _hash_of_array(query))
    name, data = ("bytes", query) if isinstance(query, bytes) else (str(query), _read(query))
    return Wanted(name, _hash_of_file(data, name), hashlib.sha256(data).hexdigest())


def _read(path: Any) -> bytes:
    if not isinstance(path, str | Path):
        raise InputError(f"found {type(path).__name__} to look for, expected a picture's path, bytes or pixels, or the number of a row")
    try:
        return Path(path).read_bytes()
    except OSError as exc:
        raise InputError(f"{path}: cannot be read: {exc.strerror or exc}; expected a picture") from exc


def _hash_of_file(data: bytes, name: str) -> int | None:
    from h5dat_lib.convert.image import fingerprint  # the decoders

    try:
        return fingerprint(data)
    except MemberError as exc:
        raise InputError(f"{name}: {exc}; expected a picture to look for") from exc


def _hash_of_array(pixels: Array) -> int | None:
    whole = pixels[:, :, np.newaxis] if pixels.ndim == 2 else pixels
    if whole.ndim != 3 or whole.dtype.kind not in "biuf" or not whole.size or whole.shape[2] > 4:
        raise InputError(f"found an array of {pixels.dtype} {pixels.shape}, expected pixels (height, width, 1 to 4 channels)")
    return phash(whole.astype("u1") * 255 if whole.dtype == bool else whole)


# Hashes of a table


def checked_distance(distance: int) -> int:
    """Raises InputError when it is none."""
    if not 0 <= distance <= BITS:
        raise InputError(f"found a distance of {distance}, expected 0 to {BITS} bits")
    return distance


def check_pictures(table: Pictures) -> None:
    """Raises InputError for a table without pictures."""
    if "pixels" not in table.columns:
        raise InputError(f"{table.class_name}: found no pictures, expected a table with a column of pixels")


def has_hashes(table: Pictures) -> bool:
    """Whether the hashes of its pictures are stored."""
    return "phash" in table.columns and table["phash"].describe().items() >= {"shape": (), "dtype": "uint64"}.items()


def no_hashes(table: Pictures) -> InputError:
    """The error for a table that nothing near can be found in."""
    return InputError(
        f"{table.class_name}: found pictures without perceptual hashes, which only exact copies are found of; decode them all to look for "
        "near ones (--decode), or ingest them with `image.phash` = always"
    )


def hashes(table: Pictures, decode: bool = False) -> Hashes:
    """Those that are stored; with ``decode`` those of all other rows, too, by decoding their pictures."""
    for first in range(0, len(table), _SLAB):
        end = min(first + _SLAB, len(table))
        found = table["phash"][first:end] if has_hashes(table) else np.ma.MaskedArray(np.zeros(end - first, "<u8"), True)
        values, missing = np.ma.getdata(found).copy(), np.ma.getmaskarray(found).copy()
        if decode and missing.any():
            _decode(table, first, values, missing)
        rows = np.flatnonzero(~missing)
        yield rows + first, values[rows]


def hash_of_row(table: Pictures, row: int, decode: bool) -> int | None:
    """That which is stored, or computed with ``decode``. Raises InputError for a table without pictures."""
    check_pictures(table)
    stored = table["phash"][row] if has_hashes(table) else None
    if stored is None and decode:
        return _computed(table["pixels"], np.array([row]))[0]
    return None if stored is None else int(stored)


def _decode(table: Pictures, first: int, values: Array, missing: Array) -> None:
    """Puts in the hashes of the rows that lack one, but of those whose pictures have none."""
    lacking = np.flatnonzero(missing)
    for at in range(0, len(lacking), _PICTURES):
        places = lacking[at : at + _PICTURES]
        for place, found in zip(places.tolist(), _computed(table["pixels"], places + first), strict=True):
            if found is not None:
                values[place], missing[place] = found, False


def _computed(pixels: Any, rows: Array) -> list[int | None]:
    if isinstance(pixels, Encoded):
        return [_hash_of_kept(data) for data in pixels.files(rows)]
    return [None if picture is None else phash(picture) for picture in pixels.rows(rows)]


def _hash_of_kept(data: bytes) -> int | None:
    try:
        return _hash_of_file(data, "")
    except InputError:  # a picture that was kept though it cannot be decoded has no hash
        return None


# What is like one picture


def like(table: Pictures, wanted: Wanted, distance: int, limit: int | None, among: Array | None, decode: bool) -> list[Alike]:
    """Rows of the same bytes, then those whose hashes differ in at most ``distance`` bits, the nearest first; at most ``limit`` of them.

    Of ``among`` only, (rows,) bool, when it is given. Raises InputError when no row is of the same bytes and none can be near, for what is
    no distance, and for a table without pictures.
    """
    check_pictures(table)
    distance = checked_distance(distance)
    same = [row for row in _same(table, wanted) if among is None or among[row]]
    left_out = {*same, wanted.row}
    exact = [Alike(row, 0, True) for row in same][:limit]
    if not has_hashes(table) and not decode:
        if exact:
            return exact
        raise no_hashes(table)
    if wanted.hash is None:
        if exact:
            return exact
        raise InputError(
            f"{wanted.name}: found no perceptual hash of it, so that only exact copies are found; a picture of one colour has none, nor "
            "has one that was ingested without (--decode)"
        )
    more = None if limit is None else limit + len(left_out)
    near = zip(*nearest(_among(hashes(table, decode), among), wanted.hash, distance, more), strict=True)
    return [*exact, *(Alike(row, bits, False) for row, bits in near if row not in left_out)][:limit]


def _same(table: Pictures, wanted: Wanted) -> list[int]:
    rows: list[int] = table.rows_of_content(wanted.sha256, wanted.place).tolist() if wanted.sha256 else []
    return [row for row in rows if row != wanted.row]


def _among(found: Hashes, among: Array | None) -> Hashes:
    for rows, values in found:
        chosen = slice(None) if among is None else among[rows]
        yield rows[chosen], values[chosen]


def nearest(found: Iterable[tuple[Array, Array]], wanted: int, distance: int, limit: int | None) -> tuple[list[int], list[int]]:
    """Rows and distances of the hashes that differ from the one wanted in at most so many bits: by distance, then by row."""
    best, bits = np.empty(0, "i8"), np.empty(0, "u1")
    for rows, values in found:
        apart = np.bitwise_count(values ^ np.uint64(wanted))
        near = np.flatnonzero(apart <= distance)
        best, bits = np.concatenate((best, rows[near])), np.concatenate((bits, apart[near]))
        order = np.lexsort((best, bits))[:limit]
        best, bits = best[order], bits[order]
    return best.tolist(), bits.tolist()


# What is like something else of the table


def duplicates(table: Pictures, distance: int, among: Array | None, decode: bool) -> list[Group]:
    """Groups of the rows of a table as `grouped` has them, of ``among`` only, when it is given; where there are no hashes, of the first
    rows of members of the same bytes.

    Raises InputError for what is no distance, and for one above 0 without hashes or pictures.
    """
    if checked_distance(distance):
        check_pictures(table)
    found, hashed = [(np.empty(0, "i8"), np.empty(0, "u8"))], "pixels" in table.columns and (has_hashes(table) or decode)
    if distance and not hashed:
        raise no_hashes(table)
    contents, places = table.contents()
    if hashed:
        found += _among(hashes(table, decode), among)
    else:
        contents[places > 0] = 0
    if among is not None:
        contents[~among] = 0
    rows, values = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return grouped(contents, places, (rows, values), distance)


def grouped(contents: Array, places: Array, found: tuple[Array, Array], distance: int) -> list[Group]:
    """Groups of two rows and more, by the first of them: rows are together that are of one content, or whose hashes are within
    ``distance`` of each other, and those that are together with the same third.

    ``contents`` (rows, k) uint64 are digests of what the rows came from, all 0 where that is not known, ``places`` (rows,) which part of
    it they are; ``found`` the rows that have a hash, and the hashes. Takes about 200 bytes a row, whatever is found.
    """
    known = np.flatnonzero(contents.any(1))
    content = np.arange(len(contents))
    content[known] = known[_first_alike(*contents[known].T, places[known])]
    parents = content.copy()
    rows, values = found
    first = _first_alike(values)
    _unite(parents, rows, rows[first])
    single = np.flatnonzero(first == np.arange(len(first)))
    for left, right in near_pairs(values[single], distance):
        _unite(parents, rows[single[left]], rows[single[right]])
    return _groups(_roots(parents, np.arange(len(parents))), content)


def _first_alike(*keys: Array) -> Array:
    """For each place the first at which all keys are the same."""
    order = np.lexsort(keys)
    changes = np.zeros(len(order), bool)
    for key in keys:
        changes[1:] |= key[order[1:]] != key[order[:-1]]
    first = np.empty_like(order)
    first[order] = order[np.maximum.accumulate(np.where(changes, np.arange(len(order)), 0))] if len(order) else order
    return first


def near_pairs(values: Array, distance: int) -> Iterator[tuple[Array, Array]]:
    """Places of distinct hashes (n,) that differ in at most ``distance`` bits, as pairs of arrays; a pair may come several times.

    Only those are compared that agree in some set of bits, of which `_masks` has enough to miss none.
    """
    for mask in _masks(distance, len(values)) if distance else ():
        bits = values & np.uint64(mask)
        order = np.argsort(bits, kind="stable")
        bits, ordered = bits[order], values[order]
        at, step = np.arange(len(values)), 0
        while len(at):
            step += 1
            at = at[: np.searchsorted(at, len(values) - step)]
            at = at[bits[at] == bits[at + step]]
            near = at[np.bitwise_count(ordered[at] ^ ordered[at + step]) <= distance]
            yield order[near], order[near + step]


def _masks(distance: int, count: int) -> list[int]:
    """Sets of bits, in one of which any two hashes agree that differ in at most ``distance``: cut into distance + k bands, they agree in k.

    A larger k has more sets to sort by, but leaves fewer pairs to compare; with 0 all are compared.
    """

    def cost(agreeing: int) -> float:
        bands = distance + agreeing
        pairs = count**2 / 2 / 2 ** (BITS * agreeing / bands)
        return math.comb(bands, agreeing) * (_SORTED * count + pairs)

    agreeing = min((kept for kept in range(4) if distance + kept <= BITS), key=cost)
    edges = np.linspace(0, BITS, distance + agreeing + 1).round().astype(int).tolist()
    bands = [(1 << high) - (1 << low) for low, high in pairwise(edges)]
    return [sum(chosen) for chosen in combinations(bands, agreeing)]


def _unite(parents: Array, left: Array, right: Array) -> None:
    """Puts the trees of each pair of rows together; a parent is never behind its child, so that there is no circle."""
    while len(left):
        left, right = _roots(parents, left), _roots(parents, right)
        apart = left != right
        left, right = left[apart], right[apart]
        np.minimum.at(parents, np.maximum(left, right), np.minimum(left, right))


def _roots(parents: Array, rows: Array) -> Array:
    found = parents[rows]
    while (found != (above := parents[found])).any():
        found = above
    parents[rows] = found
    return found


def _groups(roots: Array, content: Array) -> list[Group]:
    rows = np.flatnonzero(np.bincount(roots, minlength=len(roots))[roots] > 1)
    rows = rows[np.argsort(roots[rows], kind="stable")]
    parts = np.split(rows, np.flatnonzero(np.diff(roots[rows])) + 1) if len(rows) else []
    return [Group(tuple(part.tolist()), tuple(part[content[part] != part].tolist())) for part in parts]
