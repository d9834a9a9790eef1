"""An open HDF5 file -> nothing, or a FormatError: whether it can be read without touching other files or loading code.

HDF5 follows external links, raw files and the sources of virtual datasets wherever they point, and loads a plugin for a filter
that it does not know. None of that happens here: links are listed without being followed, and of a dataset only the header is read.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import h5py
from h5py import h5d, h5g, h5l, h5o, h5z

from h5dat_lib.errors import FormatError

OBJECTS = 1_000_000
"""Most objects of a file that are looked at."""
DEPTH = 32
"""Most groups within one another; ours have five. HDF5 itself walks them by recursion, and crashes in some thousands."""
PIPELINES = ((), (h5z.FILTER_DEFLATE,), (h5z.FILTER_SHUFFLE, h5z.FILTER_DEFLATE))
"""The filters that a dataset may have, as the writer sets them. Deflate twice is not among them: it unpacks to a million times its size."""
MOST_DEFLATED = 1032
"""Most bytes that a byte of deflate unpacks to (zlib.net/zlib_tech.html)."""
_LINKS = {h5l.TYPE_SOFT: "a soft link", h5l.TYPE_EXTERNAL: "an external link"}


def audit(file: h5py.File, path: object) -> None:
    """Raises FormatError for a link that is not a plain one, for a dataset that lies in other files, has filters other than
    `PIPELINES`, or claims more values than a file of this size can hold, and for more than `OBJECTS` or `DEPTH`."""
    most = file.id.get_filesize() * MOST_DEFLATED
    try:
        faults = (f"{name}: found {fault}" for name, dataset in _datasets(file.id) if (fault := _fault(dataset, most)))
        found = next(faults, None)
    except _Refused as exc:
        found = str(exc)
    except (OSError, RuntimeError, KeyError, ValueError) as exc:  # h5py raises any of them, according to what is damaged
        raise FormatError(f"{path}: found a damaged HDF5 file, expected an H5DAT file ({exc})") from exc
    if found:
        raise FormatError(f"{path}, {found}; if you trust the file, h5dat_lib.open(path, trusted=True) opens it")


class _Refused(Exception):
    """What was found where links are listed, and what is expected there."""


def _datasets(root: h5g.GroupID) -> Iterator[tuple[str, h5d.DatasetID]]:
    """Every dataset and its path, once: an object that several links lead to is known by its place in the file."""
    groups, seen = [("", root)], {h5o.get_info(root).addr}
    while groups:
        folder, group = groups.pop()
        for name, link, place in _links(folder, group):
            if place in seen:
                continue
            seen.add(place)
            if len(seen) > OBJECTS or name.count("/") >= DEPTH:
                raise _Refused(f"{name}: found more than {OBJECTS} objects or {DEPTH} levels, expected fewer")
            item = h5o.open(group, link)
            if isinstance(item, h5g.GroupID):
                groups.append((f"{name}/", item))
            elif isinstance(item, h5d.DatasetID):
                yield name, item


def _links(folder: str, group: h5g.GroupID) -> Iterator[tuple[str, bytes, int]]:
    """Path, name and place in the file of what a group links to."""
    found: list[tuple[bytes, int, int]] = []
    group.links.iterate(lambda link, info: found.append((link, info.type, info.u)), info=True)
    for link, kind, place in found:
        name = folder + _text(link)
        if kind != h5l.TYPE_HARD:
            raise _Refused(f"{name}: found {_described(group, link, kind)}, expected an object in this file")
        yield name, link, place


def _described(group: h5g.GroupID, link: bytes, kind: int) -> str:
    if kind not in _LINKS:
        return f"a link of type {kind}"
    value = group.links.get_val(link)
    return f"{_LINKS[kind]} to {' in '.join(map(_text, reversed(value))) if isinstance(value, tuple) else _text(value)}"


def filters(created: h5py.h5p.PropDCID) -> tuple[int, ...]:
    """Numbers of the filters of a dataset that was created so, in the order in which they were applied."""
    return tuple(created.get_filter(number)[0] for number in range(created.get_nfilters()))


def _text(name: bytes) -> str:
    return name.decode("utf-8", "backslashreplace")


def _fault(dataset: h5d.DatasetID, most: int) -> str | None:
    """What is wrong with a dataset, by its header, and what is expected instead; ``most`` is the most bytes that it can have."""
    created = dataset.get_create_plist()
    if created.get_layout() == h5d.VIRTUAL:
        return "a virtual dataset, expected values in this file"
    if created.get_external_count():
        return f"values in {_text(created.get_external(0)[0])}, expected them in this file"
    if filters(created) not in PIPELINES:
        return f"filters {filters(created)}, expected none or deflate ({h5z.FILTER_DEFLATE}), shuffled ({h5z.FILTER_SHUFFLE}) or not"
    extent = dataset.shape or ()
    if created.get_layout() == h5d.CHUNKED:  # one chunk is in memory at least, whatever is read
        extent = tuple(max(-(-size // step), 1) * step for size, step in zip(extent, created.get_chunk(), strict=True))
    size = math.prod(extent) * dataset.get_type().get_size()
    return f"values of {size} bytes, expected at most {most} in a file of this size" if size > most else None
