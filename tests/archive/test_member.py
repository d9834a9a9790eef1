"""What is recorded of a member's path, and which are refused."""

from __future__ import annotations

import pytest

from h5dat_lib.archive.member import checked_path
from h5dat_lib.config import Limits

LIMITS = Limits()


@pytest.mark.parametrize(
    ("path", "recorded"),
    [("a/b.txt", "a/b.txt"), ("./a", "a"), ("b\udce4r", "b\\xe4r"), ("\udce4\udcf6", "\\xe4\\xf6"), ("a..b", "a..b"), ("ä", "ä")],
)
def test_safe_paths_are_recorded(path: str, recorded: str) -> None:
    assert checked_path(path, LIMITS) == (recorded, None)


@pytest.mark.parametrize(
    "path", ["/a", "\\a", "c:/a", "C:\\a", "..", "a/../b", "a\\..\\b", ".//a", "./../a", "a\0b", "", "./", "x" * 4097, "\udce4" * 2000]
)
def test_unsafe_paths_are_refused_and_still_recorded_as_text(path: str) -> None:
    recorded, reason = checked_path(path, LIMITS)
    assert reason is not None
    assert reason.startswith("unsafe name: found ")
    assert "\0" not in recorded
    recorded.encode()
