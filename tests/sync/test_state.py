from __future__ import annotations

from pathlib import Path

import pytest

from h5dat_lib.sync.digests import Digests
from h5dat_lib.sync.state import State, load, save, state_of


def test_a_state_is_read_as_it_was_saved(tmp_path: Path) -> None:
    path = state_of(tmp_path / "a.h5", "s3://bucket/a.h5")
    state = State(etag="e", digests=Digests(size=1, sha256=b"\xff" * 32, crc32=b"\0" * 4), status=(1, 2), upload="id", plan="p", began=1.5)
    save(path, state)
    assert load(path) == state
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("damage", [b"", b"{", b"\xff\xfe", b'{"etag": 3}', b"[]"])
def test_a_state_that_cannot_be_read_is_none(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "state").write_bytes(damage)
    assert load(tmp_path / "state") is None
    assert load(tmp_path / "nothing") is None


def test_each_object_that_a_file_is_synced_to_has_a_state_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "link.h5").symlink_to(tmp_path / "a.h5")
    first = state_of(tmp_path / "a.h5", "s3://bucket/a.h5")
    assert first != state_of(tmp_path / "a.h5", "s3://bucket/b.h5")
    assert first == state_of(tmp_path / "link.h5", "s3://bucket/a.h5")
