"""Layouts -> archives to ingest one after the other into one output, small, but with every way in which an output is written."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from h5dat_lib.config import Config
from tests.conftest import config, make_zip, picture

Members = dict[str, bytes]


@dataclass(frozen=True)
class Scenario:
    """Archives, by their members, and how they are ingested. ``held_pages``: so few that they are written within a transaction."""

    archives: tuple[Members, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    held_pages: int = 8192

    def config(self) -> Config:
        """Many small batches, and a commit for each few of them."""
        return config(batch_seconds=0.004, commit_seconds=0, workers=1, **self.settings)

    def make(self, folder: Path) -> list[Path]:
        """Writes the archives as zips."""
        return [make_zip(folder / f"{number}.zip", members) for number, members in enumerate(self.archives)]


def _pictures(count: int, seed: int, width: int = 8, height: int = 6, **options: Any) -> Members:
    return {f"{n:03}.png": picture(width, height, seed + n, **options) for n in range(count)}


def _of_any_shape(count: int, seed: int) -> Members:
    return {f"{n:03}.png": picture(4 + n % 7, 3 + n % 5, seed + n) for n in range(count)}


def _large(count: int, seed: int) -> Members:
    return {f"{n:03}.bmp": picture(160, 120, seed + n, format="BMP") for n in range(count)}


def _texts(count: int, seed: int) -> Members:
    return {f"{n:03}.txt": f"text {seed + n} ".encode() * (1 + n % 40) for n in range(count)}


def _documents(count: int, seed: int) -> Members:
    return {f"{n:03}.json": json.dumps({"id": seed + n, "tags": ["a", {"b": n / 2}], f"key {n}": None}).encode() for n in range(count)}


def _rejects(count: int, seed: int) -> Members:
    return {f"{n:03}.json": b"{" * (seed + n) for n in range(count)}


def _table(values: Callable[[int], object]) -> bytes:
    return b"id,value,name\n" + b"".join(b"%d,%s,name %d\n" % (n, str(values(n)).encode(), n) for n in range(60))


SCENARIOS: dict[str, Scenario] = {
    "dense": Scenario((_pictures(40, 0), _pictures(20, 100))),
    "ragged": Scenario((_of_any_shape(40, 0), _of_any_shape(20, 100)), {"image": {"layout": "ragged"}}),
    "dense becomes ragged": Scenario((_large(12, 0), {"odd.png": picture(3, 4)})),
    "dense becomes ragged, few pages held": Scenario((_large(12, 0), {"odd.png": picture(3, 4)} | _large(4, 50)), held_pages=6),
    "encoded": Scenario((_pictures(30, 0), _pictures(15, 100)), {"image": {"storage": "encoded"}}),
    "texts": Scenario((_texts(60, 1), _texts(30, 200)), held_pages=3),
    "documents": Scenario((_documents(40, 0), _documents(20, 100))),
    "tables": Scenario(
        (
            {f"{n}.csv": _table(lambda row: row) for n in range(3)},
            {"floats.csv": _table(lambda row: row / 4), "gaps.csv": _table(lambda row: "" if row % 3 else row)},
            {"words.csv": _table(lambda row: f"word {row}" * (row % 9))},
        ),
        held_pages=4,
    ),
    "rejects": Scenario((_rejects(30, 1), _rejects(10, 50))),
    "mixed": Scenario(
        (
            _pictures(10, 0) | _texts(10, 0) | _documents(10, 0) | {"t.csv": _table(lambda row: row), "bad.json": b"{"},
            _of_any_shape(9, 5) | _texts(3, 90),
        )
    ),
}
