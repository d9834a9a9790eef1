"""Packing: short strings become fixed-length ones, whatever bytes they are of."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from h5dat_lib.stage.pack import _padded, _padded_by_arrow


@pytest.mark.parametrize("pad", [_padded, _padded_by_arrow])
@settings(deadline=None)
@given(strings=st.lists(st.binary(max_size=20).map(lambda value: value.replace(b"\0", b"\xff")), min_size=1), more=st.integers(0, 3))
def test_strings_laid_end_to_end_become_strings_of_one_length(pad: object, strings: list[bytes], more: int) -> None:
    lengths = np.array(list(map(len, strings)), "<u8")
    width = max(int(lengths.max()), 1) + more
    padded = pad(b"".join(strings), lengths, width)  # type: ignore[operator]
    assert padded.dtype == np.dtype(f"S{width}")
    assert padded.tolist() == strings
