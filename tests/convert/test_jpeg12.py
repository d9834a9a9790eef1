"""JPEGs of 12 bit beside libjpeg-turbo's own decoder of them."""

from pathlib import Path

import imagecodecs
import numpy as np
import pytest

from h5dat_lib.columns import Arrays, Block, Scalars
from h5dat_lib.config import ImageOptions, MediumOptions
from h5dat_lib.convert.image import decode
from h5dat_lib.errors import MemberError
from tests.convert.conftest import converted


def picture(channels: int) -> np.ndarray:
    """Smooth, of 12 bit."""
    y, x = np.mgrid[:64, :96]
    planes = [2000 + 1500 * np.sin((x + at * y) / (17 + at)) for at in range(channels)]
    return np.stack(planes, 2).astype("<u2").squeeze()


def encoded(channels: int, **how: object) -> bytes:
    return bytes(imagecodecs.jpeg8_encode(picture(channels), bitspersample=12, level=95, **how))


def pixels(data: bytes, damaged: str = "strict") -> tuple[np.ndarray, Block]:
    (block,) = converted(data, "a.jpg", MediumOptions.model_validate({"image": {"damaged": damaged}}))
    assert isinstance(block, Block) and isinstance(block.columns["pixels"], Arrays)
    return block.columns["pixels"].values[0], block  # type: ignore[return-value]


@pytest.mark.parametrize(("data", "most"), [(encoded(1), 1), (encoded(3, subsampling="444"), 4), (encoded(3, subsampling="420"), 64)])
def test_12_bit_are_the_upper_ones_of_16(data: bytes, most: int) -> None:
    found, block = pixels(data)
    expected = imagecodecs.jpeg8_decode(data).reshape(found.shape)
    assert found.dtype == "<u2"
    assert np.abs(found / 16 - expected).max() <= most
    assert list(block.columns["channels"].values) == [found.shape[2]]


def test_a_cut_scan_is_a_reject_or_marked() -> None:
    data = encoded(1)
    cut = data[: len(data) // 2] + b"\xff\xd9"
    with pytest.raises(MemberError, match="12 bit"):
        pixels(cut)
    _, block = pixels(cut, "tolerant")
    damage = block.columns["damage"]
    assert isinstance(damage, Scalars) and damage.values[0]


def test_a_file_without_its_end_is_a_reject() -> None:
    with pytest.raises(MemberError, match="found no end"):
        pixels(encoded(3)[:-20])


def test_a_file_of_another_encoder_is_read() -> None:
    data = (Path(__file__).parents[1] / "data" / "images" / "twelve_bits.jpg").read_bytes()
    expected = imagecodecs.jpeg8_decode(data)
    found = decode(data, ImageOptions())
    assert np.abs(found.squeeze() / 16 - expected).max() <= 1
