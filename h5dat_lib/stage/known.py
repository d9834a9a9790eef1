"""The contents that are in an output already: a file of sorted hashes, which the workers look members up in without loading it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from h5dat_lib.columns import Array

__all__ = ["Known", "binary", "save_known"]


class Known:
    """The contents saved in a file, 32 bytes each; none without a file."""

    def __init__(self, path: str) -> None:
        self._hashes: Any = np.memmap(path, "S32", "r") if path and Path(path).stat().st_size else np.empty(0, "S32")

    def __bool__(self) -> bool:
        return len(self._hashes) > 0

    def __contains__(self, sha256: str) -> bool:
        if not sha256 or not len(self._hashes):  # without one it is of a member that was not read to its end
            return False
        wanted = np.array(bytes.fromhex(sha256), "S32")
        at = int(np.searchsorted(self._hashes, wanted))
        return at < len(self._hashes) and bool(self._hashes[at] == wanted)


def save_known(path: Path, hashes: Iterable[Array]) -> None:
    """Saves SHA-256s, given as arrays (n,) of 64 hexadecimal digits, S64; holds them all, 32 bytes each."""
    found = [binary(part) for part in hashes if len(part)]
    values = np.unique(np.concatenate(found)) if found else np.empty(0, "S32")
    values.tofile(path)


def binary(digits: Array) -> Array:
    """(n,) S64 of hexadecimal digits -> (n,) S32; of an empty one, zeros."""
    codes = np.ascontiguousarray(digits).view("u1")
    values = (codes & 15) + 9 * (codes >> 6)  # "0" to "9" are 0x30 to 0x39, "a" to "f" 0x61 to 0x66
    return (values[0::2] << 4 | values[1::2]).view("S32")
