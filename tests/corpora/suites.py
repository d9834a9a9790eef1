"""Folders of test files: where they are looked for, and what is known of their files beforehand."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COLLECTED = ROOT.parent / "shared" / "data" / "corpora"
"""Suites, two levels deep."""
SOURCES = """Suites to give as folders:
  CPython's Lib/test (archivetestdata, testtar.tar, zipdir.zip)   in the sources of CPython
  Pillow's Tests/images                                           in the sources of Pillow
  PngSuite by Willem van Schaik                                   beside the sources of libpng
  JSONTestSuite by Nicolas Seriot (test_parsing)                  github.com/nst/JSONTestSuite
  libarchive's test files (libarchive/test, uudecoded)            in the sources of libarchive"""
_ARCHIVES = ("*.zip", "*.tar", "*.tar.*", "*.gz", "*.bz2", "*.xz", "exe_with_*", "*.json")


@dataclass(frozen=True)
class Suite:
    """Files below a folder, in order of their names."""

    name: str
    folder: Path
    files: tuple[Path, ...]


def suites(folders: list[Path]) -> list[Suite]:
    """The folders that are given, or those that have been collected beside the project, or what Python brings along."""
    if folders:
        return [_suite(folder, folder.name, folder.rglob("*")) for folder in folders]
    if COLLECTED.is_dir():
        return [_suite(folder, f"{folder.parent.name}/{folder.name}", folder.rglob("*")) for folder in sorted(COLLECTED.glob("*/*/"))]
    found = importlib.util.find_spec("test")  # some systems leave it out
    own = [Path(folder) for folder in (found.submodule_search_locations or () if found else ())]
    return [_suite(folder, "CPython's own", (path for pattern in _ARCHIVES for path in folder.rglob(pattern))) for folder in own]


def _suite(folder: Path, name: str, paths: Iterable[Path]) -> Suite:
    return Suite(name, folder, tuple(sorted({path for path in paths if path.is_file()})))


_RULES = (
    (re.compile(r"JSONTestSuite.*/test_parsing/y_"), "rows"),
    (re.compile(r"JSONTestSuite.*/test_parsing/n_number_(NaN|infinity|minus_infinity)\.json"), "rows"),  # kept as text, and marked
    (re.compile(r"JSONTestSuite.*/test_parsing/n_"), "reject"),
    (re.compile(r"(?i)pngsuite.*/x[^/]*\.png$"), "reject"),
    (re.compile(r"(?i)pngsuite.*/[^/]*\.png$"), "rows"),
)


def expected(path: Path) -> str | None:
    """What must become of a file, by the rules of its suite: "rows", "reject", or None where either will do."""
    return next((kind for pattern, kind in _RULES if pattern.search(str(path))), None)
