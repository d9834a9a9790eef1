"""An open HDF5 file of any make -> the names, shapes and attributes of what is in it; no link out of it is followed, no value read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import h5py
import numpy as np
from h5py import h5g, h5l, h5o

from h5dat_lib.errors import FormatError, unknown
from h5dat_lib.read.audit import DEPTH, OBJECTS

_KINDS = {h5o.TYPE_GROUP: "group", h5o.TYPE_DATASET: "dataset", h5o.TYPE_NAMED_DATATYPE: "type"}
_LINKS = {h5l.TYPE_SOFT: "soft link", h5l.TYPE_EXTERNAL: "external link"}


@dataclass(frozen=True)
class Item:
    """Something with a name: its path, without the first slash, and its kind: group, dataset, type, or a link that is not followed."""

    path: str
    kind: str


@dataclass(frozen=True)
class DatasetInfo:
    """A dataset: its path, shape (None without values), dtype as numpy or h5py write it, and shape of a chunk (None without)."""

    path: str
    shape: tuple[int, ...] | None
    dtype: str
    chunks: tuple[int, ...] | None


def items(file: h5py.File) -> Iterator[Item]:
    """Everything in the file, each group before what is in it, by name. Raises FormatError for more than `OBJECTS` or `DEPTH`."""
    try:
        for number, item in enumerate(_below("", file.id, {h5o.get_info(file.id).addr})):
            if number >= OBJECTS or item.path.count("/") >= DEPTH:
                raise FormatError(f"{file.filename}, {item.path}: found more than {OBJECTS} objects or {DEPTH} levels, expected fewer")
            yield item
    except (OSError, RuntimeError, KeyError, ValueError) as exc:  # h5py raises any of them, according to what is damaged
        raise FormatError(f"{file.filename}: found damaged groups ({exc}), expected them whole; make the file anew") from exc


def _below(folder: str, group: h5g.GroupID, seen: set[int]) -> Iterator[Item]:
    links: list[tuple[bytes, int, int]] = []
    group.links.iterate(lambda link, info: links.append((link, info.type, info.u)), info=True)
    for link, kind, place in sorted(links):
        path = folder + link.decode("utf-8", "backslashreplace")
        if kind != h5l.TYPE_HARD:
            yield Item(path, _LINKS.get(kind, "link"))
            continue
        found = _KINDS.get(h5o.get_info(group, link).type, "object")
        yield Item(path, found)
        if found == "group" and place not in seen:
            seen.add(place)
            yield from _below(f"{path}/", h5o.open(group, link), seen)


def dataset_info(file: h5py.File, path: str) -> DatasetInfo:
    """What the header of a dataset says."""
    dataset = located(file, path)
    try:
        return DatasetInfo(path, dataset.shape, str(dataset.dtype), dataset.chunks)
    except (OSError, RuntimeError, TypeError, ValueError) as exc:  # TypeError: a type that numpy does not have
        return DatasetInfo(path, dataset.shape, f"unknown ({exc})", dataset.chunks)


def attributes(file: h5py.File, path: str) -> dict[str, Any]:
    """Attributes of a group or dataset, as plain values. Raises KeyError when there is none of this path, FormatError for damage."""
    item = located(file, path)
    try:
        return {name: _plain(item.attrs, name) for name in item.attrs}
    except (OSError, RuntimeError, KeyError, ValueError) as exc:
        raise FormatError(f"{file.filename}, {path}: found damaged attributes ({exc}), expected them whole; make the file anew") from exc


def _plain(found: h5py.AttributeManager, name: str) -> Any:
    try:
        value = found[name]
    except TypeError as exc:
        return f"unknown ({exc})"
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    return value if isinstance(value, str | int | float | bool | bytes | list | None) else str(value)


def located(file: h5py.File, path: str) -> Any:
    """The object of a path. Raises KeyError when there is none, FormatError when a link on the way is not a plain one."""
    item: Any = file
    for name in path.strip("/").split("/") if path.strip("/") else ():
        link = item.get(name, getlink=True) if isinstance(item, h5py.Group) else None
        if link is None:
            there = list(item.keys()) if isinstance(item, h5py.Group) else []
            raise unknown(f"{file.filename}, {path}: {item.name} has no", name, there)
        if not isinstance(link, h5py.HardLink):
            raise FormatError(f"{file.filename}, {path}: found a link at {name!r}, expected an object in this file; links are not followed")
        item = item[name]
    return item


def matches(path: str, pattern: str) -> bool:
    """Whether a path matches a glob, whatever its case: its last name, or all of it when the glob has a slash."""
    return fnmatchcase((path if "/" in pattern else path.rpartition("/")[2]).lower(), pattern.lower())
