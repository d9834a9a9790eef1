"""What is recorded of a member's path, and which are refused."""

from __future__ import annotations

import pytest

from h5dat_lib.archive.member import EVEN_BYTES, Member, checked_path, checked_size, within
from h5dat_lib.config import Limits
from h5dat_lib.errors import InputError

LIMITS = Limits()


@pytest.mark.parametrize(
    ("path", "recorded"),
    [
        ("a/b.txt", "a/b.txt"),
        ("./a", "a"),
        ("b\udce4r", "b\\xe4r"),
        ("\udce4\udcf6", "\\xe4\\xf6"),
        ("a..b", "a..b"),
        ("ä", "ä"),
        ("\x1b[31m", "\\x1b[31m"),
        ("a\n\t\x7f", "a\\x0a\\x09\\x7f"),
        ("\x85\x9b", "\\x85\\x9b"),
        ("\u200b\u3000", "\u200b\u3000"),
    ],
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


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (Limits(members=3), "a.zip: found more than 3 members (limits.members); raise it for an archive that you trust"),
        (
            Limits(archive_bytes=30),
            "a.zip: found members of more than 30 bytes in all (limits.archive_bytes); raise it for an archive that you trust",
        ),
    ],
)
def test_an_archive_ends_at_its_limits(limits: Limits, reason: str) -> None:
    rejected = Member("b", 1 << 60, 0, 0, reject="damaged")
    found = within(limits, "a.zip", iter([Member("a", 15, 15, 0), rejected, Member("c", 15, 15, 0), Member("d", 1, 1, 0)]))
    assert [next(found).path for _ in range(3)] == ["a", "b", "c"]
    with pytest.raises(InputError) as error:
        next(found)
    assert str(error.value) == reason


@pytest.mark.parametrize(
    ("size", "stored", "reason"),
    [
        (-1, 10, None),
        (EVEN_BYTES, 1, None),
        (EVEN_BYTES * 2, EVEN_BYTES // 4, None),
        (
            EVEN_BYTES * 2,
            EVEN_BYTES // 6,
            "decompression bomb: found a record of 134217728 bytes in 11184810 stored ones, expected at most 10",
        ),
        (1 << 40, 1 << 40, "too large: found a record of 1099511627776 bytes, expected at most 68719476736 (limits.member_bytes)"),
    ],
)
def test_recorded_sizes_that_cannot_be_allowed_are_refused(size: int, stored: int, reason: str | None) -> None:
    found = checked_size(size, stored, Limits(ratio=10))
    assert (found or "").startswith(reason or "") and (found is None) == (reason is None)
