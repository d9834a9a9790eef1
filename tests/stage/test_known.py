"""What is in is found by its hash, and nothing else is."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from h5dat_lib.stage.known import Known, save_known

_DIGESTS = st.lists(st.binary(min_size=32, max_size=32).map(bytes.hex), max_size=40)


@settings(max_examples=60, deadline=None)
@given(inside=_DIGESTS, outside=_DIGESTS, cut=st.integers(0, 40))
def test_exactly_what_was_saved_is_known(tmp_path_factory: object, inside: list[str], outside: list[str], cut: int) -> None:
    path = tmp_path_factory.mktemp("known") / "hashes"  # type: ignore[attr-defined]
    parts = [np.array([digest.encode() for digest in part], "S64") for part in (inside[:cut], inside[cut:])]
    save_known(path, parts)
    known = Known(str(path))
    assert all(digest in known for digest in inside)
    assert [digest in known for digest in outside] == [digest in inside for digest in outside]
    assert bool(known) == bool(inside)


def test_hashes_that_end_or_begin_with_zeros_are_told_apart(tmp_path: Path) -> None:
    digests = ["00" * 32, "00" * 31 + "01", "01" + "00" * 31, hashlib.sha256(b"x").hexdigest()]
    for digest in digests:
        save_known(tmp_path / "known", [np.array([digest.encode()], "S64")])
        assert [other in Known(str(tmp_path / "known")) for other in digests] == [other == digest for other in digests]


def test_without_a_file_or_for_a_member_without_a_hash_nothing_is_known(tmp_path: Path) -> None:
    save_known(tmp_path / "known", [np.array([b"00" * 32], "S64")])
    assert "00" * 32 not in Known("") and "" not in Known(str(tmp_path / "known"))
