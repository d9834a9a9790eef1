"""Outputs whose lineage says what no archive would be let in with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import h5py
import numpy as np
import pytest

Rename = Callable[[Path, Sequence[str]], None]


@pytest.fixture
def rename() -> Rename:
    """Gives the members of an output other names, by plain h5py."""

    def rename(path: Path, names: Sequence[str]) -> None:
        texts = [name.encode() for name in names]
        lengths = np.array([len(text) for text in texts], "u8")
        with h5py.File(path, "r+") as file:
            for column in (file["lineage/members/path"], file["lineage/members/key"]):
                column["values"].resize((int(lengths.sum()),))
                column["values"][:] = np.frombuffer(b"".join(texts), "u1")
                column["length"][:] = lengths
                column["offset"][:] = np.cumsum(lengths) - lengths

    return rename
