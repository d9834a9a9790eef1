"""Keys and shares -> the split that each key is in. It depends on the key alone, so it stays what it is whatever else comes in later."""

from __future__ import annotations

import hashlib
import math
from bisect import bisect_right
from collections.abc import Mapping
from itertools import accumulate

from h5dat_lib.errors import ConfigError


class Splits:
    """Names of splits and their shares, which add up to 1. Raises ConfigError when they do not.

    About so many of all keys are in each: the shares are laid side by side in their order, and a key is where its hash, between 0 and
    1, falls.
    """

    def __init__(self, shares: Mapping[str, float], seed: int = 0) -> None:
        if not shares or min(shares.values()) < 0 or not math.isclose(sum(shares.values()), 1):
            raise ConfigError(f"split: found shares {dict(shares)}, expected numbers from 0 that add up to 1")
        self.names = list(shares)
        self._ends = [round(end * 2**64) for end in accumulate(shares.values())][:-1]
        self._seed = str(seed).encode()

    def of(self, key: str) -> str:
        """The split of a key."""
        digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8, key=self._seed).digest()
        return self.names[bisect_right(self._ends, int.from_bytes(digest, "big"))]


def key_text(value: object) -> str:
    """A value of a column as a key: the same for a number whatever type its column has, as that may change when later rows need it."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
