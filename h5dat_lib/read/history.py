"""What an output holds already, as far as the next run needs to know: its archives, how far each came in, and with which configuration."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from h5dat_lib.columns import Array
from h5dat_lib.config import RUN_ONLY, Config, parse
from h5dat_lib.errors import FormatError
from h5dat_lib.lineage import ARCHIVES, BATCHES, MEMBERS, REJECTS, RUNS
from h5dat_lib.plan.layout import Forms, Keys, PixelLayout
from h5dat_lib.read.chunked import Rows, fault
from h5dat_lib.read.files import File
from h5dat_lib.read.files import open_tables as open_file
from h5dat_lib.read.format import attribute
from h5dat_lib.read.tables import Table

__all__ = [
    "History",
    "KnownArchive",
    "LastBatch",
    "Rejected",
    "first_rows",
    "history",
    "history_of",
    "keys_of",
    "member_hashes",
    "recorded_config",
    "rejected",
]

_STEP = 1 << 16
"""Members that are read at a time."""
_NONE = np.iinfo("u8").max
_KEPT_BYTES = 2 << 20
"""Inflated chunks that are kept: lineage is read once, in order."""
_SHOWN = 100
"""Most characters of a setting that a message tells: a schema with its labels may be pages."""


@dataclass(frozen=True)
class KnownArchive:
    """An archive that has come in: ``members`` of it, counted from its first, are in or rejected; all when it is ``complete``. Each part
    of a member that was converted in parts counts there; ``further`` are those but the first. ``batches`` is one more than the number of
    the last batch.

    ``fingerprint`` and ``config_digest`` together are its identity. ``sha256`` is "" for a folder and for one that is not complete.
    """

    uri: str
    size: int
    sha256: str
    fingerprint: str
    config_digest: str
    members: int
    further: int
    batches: int
    complete: bool


@dataclass(frozen=True)
class LastBatch:
    """The batch that came in last: its archive and its number there, and whether its last member goes on in the next."""

    fingerprint: str
    number: int
    continued: bool


@dataclass(frozen=True)
class History:
    """Everything of an output that decides what the next run does.

    ``digests`` are those of all configurations that it was made with, ``configuration`` is the JSON of the last one, "" without a
    run. ``killed`` are the rows of runs that have not recorded their end.
    """

    archives: tuple[KnownArchive, ...] = ()
    digests: frozenset[str] = frozenset()
    configuration: str = ""
    keys: frozenset[str] = frozenset()
    forms: Forms = field(default_factory=Forms)
    killed: tuple[int, ...] = ()
    last: LastBatch | None = None

    def find(self, fingerprint: str, config_digest: str) -> KnownArchive | None:
        """The archive of this identity; what several runs brought in of it counts together."""
        found = [known for known in self.archives if (known.fingerprint, known.config_digest) == (fingerprint, config_digest)]
        if not found:
            return None
        members, further = sum(known.members for known in found), sum(known.further for known in found)
        batches = max(known.batches for known in found)
        return replace(found[-1], members=members, further=further, batches=batches, complete=any(known.complete for known in found))

    def differences(self, config: Config) -> list[str]:
        """Settings that decide the content and are not as in any run before, a line each; none when one was the same."""
        if not self.digests or config.digest() in self.digests:
            return []
        last = json.loads(self.configuration)
        now = json.loads(config.to_json())
        return list(_differences("", {key: last.get(key) for key in now if key not in RUN_ONLY}, now))


def history(path: str | Path) -> History:
    """The history of an output. Raises FormatError when the file is not H5DAT's, or damaged where its lineage lies."""
    with open_file(path, cache_bytes=_KEPT_BYTES) as file:
        return history_of(file)


def history_of(file: File) -> History:
    """The history of a file that is open."""
    if BATCHES not in file.hdf5:
        return History()
    runs = file[RUNS]
    return History(
        tuple(_archives(file)),
        frozenset(runs["config_digest"][:]),
        runs["configuration"][len(runs) - 1],
        frozenset(file[BATCHES]["key"][:]),
        _forms(file),
        tuple(row for row, status in enumerate(runs["status"][:]) if status == "running"),
        _last(file),
    )


def recorded_config(path: object, configuration: str) -> Config:
    """A configuration as a run has recorded it. Raises FormatError when it is none, ConfigError when this version cannot read it."""
    try:
        data = json.loads(configuration)
    except ValueError as exc:
        raise FormatError(f"{path}: found a run without a configuration ({exc}), expected JSON; make the file anew") from exc
    return parse(data, f"{path}: configuration of a run")


def _last(file: File) -> LastBatch | None:
    table = file[BATCHES]
    if not len(table):
        return None
    archive, number = (int(table[name][len(table) - 1]) for name in ("archive", "number"))
    return LastBatch(file[ARCHIVES]["fingerprint"][archive], number, bool(_continued(table)[-1]))


def _continued(batches: Table) -> Array:
    """Whether the last member of each batch goes on in the next one; no batch of an older version says so."""
    if "continued" not in batches.columns:
        return np.zeros(len(batches), bool)
    return np.ma.filled(batches["continued"][:], False)


@dataclass(frozen=True)
class Rejected:
    """What of an archive was rejected as a whole and has not come in since: rows of rejects, by member path.

    ``row`` is that of the archive in its table.
    """

    row: int
    archive: KnownArchive
    members: Mapping[str, Sequence[int]]


def rejected(path: Path) -> list[Rejected]:
    """The rejected members of an output that may be tried again, by archive; records of members that are in are not among them."""
    with open_file(path) as file:
        if ARCHIVES not in file.hdf5:
            return []
        found: dict[tuple[int, str], list[int]] = {}
        firsts = first_rows(file)
        for row, (archive, member) in enumerate(_values(file, REJECTS, "archive", "path")):
            found.setdefault((firsts[archive], member), []).append(row)
        for archive, member in _values(file, MEMBERS, "archive", "path"):
            found.pop((firsts[archive], member), None)
        known = list(_archives(file))
    by_archive: dict[int, dict[str, list[int]]] = {}
    for (archive, member), rows in found.items():
        if member:  # without one it is the archive itself that was found damaged
            by_archive.setdefault(archive, {})[member] = rows
    return [Rejected(row, known[row], members) for row, members in by_archive.items()]


def first_rows(file: File) -> list[int]:
    """For each row of the archives table, the row by which the archive came in: its own, but for a retry."""
    retries = np.ma.filled(file[ARCHIVES]["retry_of"][:], _NONE)
    if ((retries >= len(retries)) & (retries != _NONE)).any():
        raise fault(file.hdf5[ARCHIVES], f"retries of archives up to {retries[retries != _NONE].max()}", f"less than {len(retries)}")
    return [row if first == _NONE else first for row, first in enumerate(retries.tolist())]


def _values(file: File, name: str, *columns: str) -> Iterator[tuple[Any, ...]]:
    """Rows of a table that may not be there."""
    if name not in file.hdf5:
        return
    table = file[name]
    for first in range(0, len(table), _STEP):
        rows = slice(first, first + _STEP)
        yield from zip(*(table[column][rows] for column in columns), strict=True)


def member_hashes(path: Path, without: Collection[str]) -> Iterator[Array]:
    """SHA-256s (n,) S64 of the members in an output, but those of the archives with the fingerprints in ``without``."""
    with open_file(path) as file:
        if MEMBERS not in file.hdf5:
            return
        left_out = [row for row, fingerprint in enumerate(file[ARCHIVES]["fingerprint"][:]) if fingerprint in without]
        hashes, archives = (Rows(file.hdf5[MEMBERS].get(name)) for name in ("sha256", "archive"))
        for first in range(0, len(hashes), _STEP):
            rows = slice(first, first + _STEP)
            yield hashes[rows].astype("S64")[~np.isin(archives[rows], left_out)]


def _archives(file: File) -> Iterator[KnownArchive]:
    table, batches = file[ARCHIVES], file[BATCHES]
    of_archive = batches["archive"][:].astype("i8")
    if ((of_archive < 0) | (of_archive >= len(table))).any():
        raise fault(file.hdf5[BATCHES], f"batches of archives {of_archive.min()} to {of_archive.max()}", f"0 to {len(table) - 1}")
    members = np.bincount(of_archive, batches["members"][:], len(table)).astype("i8")
    further = np.bincount(of_archive, _continued(batches), len(table)).astype("i8")
    numbers = np.zeros(len(table), "i8")
    np.maximum.at(numbers, of_archive, batches["number"][:].astype("i8") + 1)
    columns = {name: table[name][:] for name in ("uri", "size", "sha256", "fingerprint", "config_digest", "complete")}
    columns |= {"size": columns["size"].tolist(), "complete": columns["complete"].tolist()}
    columns |= {"members": members.tolist(), "further": further.tolist(), "batches": numbers.tolist()}
    for values in zip(*columns.values(), strict=True):
        yield KnownArchive(**dict(zip(columns, values, strict=True)))


def _forms(file: File) -> Forms:
    """What has been decided of the rows of the classes that are in the file."""
    keys = {str(name): found for name in file.classes if (found := keys_of(attribute(file.hdf5[name], "keys"), file, name))}
    return Forms({name: layout for name in file.tables if (layout := _layout(file.hdf5, name))}, keys)


def keys_of(recorded: Any, file: File, name: str) -> Keys:
    """What of the documents of a class are columns, as an attribute of its table has it; none without one."""
    try:
        keys = json.loads(recorded) if recorded is not None else {}
    except (TypeError, ValueError) as exc:
        raise fault(file.hdf5[name], f"keys {recorded!r}", "a JSON object") from exc
    if not isinstance(keys, dict):
        raise fault(file.hdf5[name], f"keys {recorded!r}", "a JSON object")
    return keys


def _layout(file: h5py.File, name: str) -> PixelLayout | None:
    """The pixel layout of a class that is in the file; None when it holds no decoded pictures."""
    if "pixels" not in file[name]:
        return None
    pixels = file[name]["pixels"]
    layout, chunked = str(attribute(pixels, "layout")), pixels if isinstance(pixels, h5py.Dataset) else pixels.get("values")
    if layout not in ("dense", "ragged") or not isinstance(chunked, h5py.Dataset) or chunked.chunks is None:
        return None
    size = int(np.prod(chunked.chunks)) * chunked.dtype.itemsize
    return PixelLayout(size, chunked.shape[1:], chunked.dtype.str) if layout == "dense" else PixelLayout(size)


def _differences(name: str, before: Any, now: Any) -> Iterator[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        for key in before:
            yield from _differences(f"{name}.{key}".lstrip("."), before.get(key), now.get(key))
    elif before != now:
        yield f"{name}: {_short(before)} in the file, {_short(now)} now"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
