"""docs/formats.md says what is: all formats, and tests that are there."""

from __future__ import annotations

import re
from pathlib import Path

from h5dat_lib.convert import HANDLERS

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs" / "formats.md").read_text(encoding="utf-8")
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in TEXT.splitlines() if line.startswith("| .")]


def test_every_extension_has_one_row() -> None:
    rows = [extension for row in ROWS for extension in row[0].split()]
    assert sorted(rows) == sorted({extension for handler in HANDLERS for extension in handler.extensions})


def test_every_row_says_what_decodes_what_it_was_checked_against_its_limits_and_its_speed() -> None:
    for row in ROWS:
        assert len(row) == 5 and all(row), row


def test_every_test_that_is_named_is_there() -> None:
    tests = {
        name for path in (ROOT / "tests").rglob("test_*.py") for name in re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE)
    }
    assert set(re.findall(r"`(test_\w+)`", TEXT)) <= tests
    for extensions, _, checked, *_ in ROWS:
        assert "`test_" in checked or "the same" in checked, extensions
