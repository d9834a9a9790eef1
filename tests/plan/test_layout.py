"""The pixel layout: dense while the first pictures agree, chunks of equal bytes in either layout."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from h5dat_lib.columns import CHUNK_BYTES
from h5dat_lib.config import ImageOptions
from h5dat_lib.plan.layout import pixel_layout

_SHAPES = st.tuples(st.integers(1, 3000), st.integers(1, 3000), st.integers(1, 4))


@given(_SHAPES, st.sampled_from(["|u1", "<u2", "<f4"]))
def test_a_dense_picture_is_cut_into_the_fewest_pieces_of_whole_rows_below_the_limit(shape: tuple[int, int, int], dtype: str) -> None:
    layout = pixel_layout([(shape, dtype)] * 3, ImageOptions())
    row = shape[1] * shape[2] * int(dtype[2:])
    assert layout.shape == shape and layout.chunk_bytes == layout.chunk_height * row
    assert layout.chunk_bytes <= max(CHUNK_BYTES, row)
    assert math.ceil(shape[0] / layout.chunk_height) == math.ceil(shape[0] / max(CHUNK_BYTES // row, 1))


@given(st.lists(_SHAPES, min_size=2, max_size=32))
def test_pictures_that_differ_are_ragged_with_chunks_of_a_power_of_two(shapes: list[tuple[int, int, int]]) -> None:
    layout = pixel_layout([(shape, "|u1") for shape in shapes], ImageOptions())
    assert (layout.shape == ()) is (len(set(shapes)) > 1)
    if not layout.shape:
        assert 4096 <= layout.chunk_bytes <= CHUNK_BYTES and layout.chunk_bytes.bit_count() == 1


def test_dense_on_request_takes_the_first_picture_and_is_strict() -> None:
    layout = pixel_layout([((4, 5, 3), "|u1"), ((9, 9, 3), "|u1")], ImageOptions(layout="dense"))
    assert layout.shape == (4, 5, 3) and layout.strict


def test_ragged_on_request_is_ragged_though_all_agree() -> None:
    assert pixel_layout([((4, 5, 3), "|u1")] * 5, ImageOptions(layout="ragged")).shape == ()
