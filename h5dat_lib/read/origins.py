"""Rows of lineage -> where a row came from, and what is known of its member by names that are no columns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from h5dat_lib.columns import Array
from h5dat_lib.lineage import ARCHIVES, BATCHES, MEMBERS, RUNS, sample_key

__all__ = ["KNOWN", "Origin", "keys", "origin_of"]


class Tables(Protocol):
    """The file whose lineage is read."""

    def __getitem__(self, name: str) -> Any: ...


@dataclass(frozen=True)
class Origin:
    """Where a row came from: sizes in bytes, ``crc32`` and ``sha256`` of the member, ``time`` in seconds since 1970, UTC.

    ``key`` is what members of one sample have in common: the member's path up to the first dot of its name.
    """

    archive: str
    member: str
    key: str
    size: int
    crc32: int
    sha256: str
    converter: str
    batch: int
    run: str
    time: float


def origin_of(file: Tables, number: int) -> Origin:
    """Where rows of a member came from, by its row of ``lineage/members``."""
    member = file[MEMBERS][number]
    return Origin(
        archive=file[ARCHIVES]["uri"][int(member["archive"])],
        member=member["path"],
        key=member.get("key") or sample_key(member["path"]),
        size=int(member["size"]),
        crc32=int(member["crc32"]),
        sha256=member["sha256"],
        converter=member["converter"],
        batch=int(file[BATCHES]["number"][int(member["batch"])]),
        run=file[RUNS]["run_id"][int(member["run"])],
        time=float(member["time"]),
    )


def keys(file: Tables, members: Array) -> list[str]:
    """What members share with others of their sample, of the rows ``members`` of ``lineage/members``."""
    table = file[MEMBERS]
    if "key" in table.columns:  # older files lack it, and rows of theirs that were added to
        return [key or sample_key(path) for key, path in zip(table["key"].rows(members), table["path"].rows(members), strict=True)]
    return [sample_key(path) for path in table["path"].rows(members)]


def _paths(file: Tables, members: Array) -> list[str]:
    return list(file[MEMBERS]["path"].rows(members))


def _archives_of(file: Tables, members: Array) -> list[str]:
    uris = file[ARCHIVES]["uri"][:]
    return [uris[archive] for archive in file[MEMBERS]["archive"].rows(members).tolist()]


KNOWN: dict[str, Callable[[Tables, Array], list[str]]] = {
    "member": _paths,
    "path": _paths,
    "key": keys,
    "name": lambda file, members: [key.rpartition("/")[2] for key in keys(file, members)],
    "sha256": lambda file, members: list(file[MEMBERS]["sha256"].rows(members)),
    "archive": _archives_of,
}
"""What is known of members by names that are no columns."""
