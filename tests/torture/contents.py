"""Output -> what it holds, row by row, without times and names of runs; and what of that is lost or doubled."""

from __future__ import annotations

import hashlib
import zipfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

import h5dat_lib
from h5dat_lib.lineage import ARCHIVES, MEMBERS
from h5dat_lib.read.files import File

Rows = dict[str, list[str]]
"""For each class its rows, in their order, each as one string."""


def rows_of(path: Path) -> Rows:
    """What an output holds. The rejects are a class of their own."""
    with h5dat_lib.open(path) as file:
        rows = {name: _rows(file, name) for name in file.classes}
        rows["rejects"] = [f"{Path(reject.archive).name}, {reject.member}: {reject.reason}" for reject in file.rejects()]
    return rows


def _rows(file: File, name: str) -> list[str]:
    table = file[name]
    uris, of_archive, paths, hashes = (_all(file, ARCHIVES, "uri"), *(_all(file, MEMBERS, key) for key in ("archive", "path", "sha256")))
    columns = {key: table[key][:] for key in table.columns}
    found = []
    for row, member in enumerate(file.hdf5[f"{name}/_member"][:].tolist()):
        origin = f"{Path(uris[of_archive[member]]).name}, {paths[member]} ({hashes[member]})"
        values = [f"{key}={_plain(values[row])}" for key, values in columns.items()]
        found.append(" ".join([origin, *values, *map(str, table.pairs(row))]))
    return found


def _all(file: File, table: str, column: str) -> Any:
    return file[table][column][:] if table in file.hdf5 else []


def _plain(value: Any) -> str:
    if isinstance(value, np.ndarray) and value.ndim:
        return f"{value.shape} {value.dtype} {hashlib.sha256(value.tobytes()).hexdigest()}"
    return str(value)


def lost(found: Rows, expected: Rows) -> int:
    """Rows that ought to be there."""
    return sum((_count(expected) - _count(found)).values())


def doubled(found: Rows, expected: Rows) -> int:
    """Rows that ought not to be there."""
    return sum((_count(found) - _count(expected)).values())


def _count(rows: Rows) -> Counter[tuple[str, str]]:
    return Counter((name, row) for name, of_class in rows.items() for row in of_class)


def members_of(path: Path) -> Counter[tuple[str, str]]:
    """Archive and path of each member that is in or was rejected, by plain h5py; a member with several rejects counts once."""
    with h5py.File(path) as file:
        uris = [Path(uri).name for uri in _strings(file, f"{ARCHIVES}/uri")]
        found = Counter(_named(file, MEMBERS, uris))
        for member in set(_named(file, "lineage/rejects", uris)):
            found[member] += 1
    return found


def _named(file: h5py.File, table: str, uris: list[str]) -> Iterable[tuple[str, str]]:
    if table not in file:
        return []
    archives = file[f"{table}/archive"][:].tolist()
    return [(uris[archive], path) for archive, path in zip(archives, _strings(file, f"{table}/path"), strict=True)]


def _strings(file: h5py.File, path: str) -> list[str]:
    data = file[f"{path}/values"][:].tobytes()
    places = zip(file[f"{path}/offset"][:].tolist(), file[f"{path}/length"][:].tolist(), strict=True)
    return [data[at : at + size].decode() for at, size in places]


def members_in_zip(path: Path) -> Counter[tuple[str, str]]:
    """The same for what an archive has, by the standard library."""
    with zipfile.ZipFile(path) as archive:
        return Counter((path.name, name) for name in archive.namelist())
