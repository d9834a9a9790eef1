from __future__ import annotations

import struct
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from numpy.typing import NDArray

from h5dat_lib.columns import Block, PairType
from h5dat_lib.config import ImageOptions, Limits, MediumOptions
from h5dat_lib.convert import handler_for
from h5dat_lib.convert.fits import open_fits
from h5dat_lib.convert.picture import Picture
from h5dat_lib.errors import MemberError
from tests.convert.conftest import Convert

NUMBERS = (Path(__file__).parents[1] / "data" / "images" / "numbers.fits").read_bytes()
"""A header without data, then two planes of unsigned 16-bit numbers; tests/data/images/by_hand.py says which."""


def card(key: str, value: str) -> str:
    return f"{key:8}= {value:>20}".ljust(80)


def padded(data: bytes, filler: bytes) -> bytes:
    return data + filler * (-len(data) % 2880)


def written(bitpix: int, shape: tuple[int, ...], data: bytes, *cards: str) -> bytes:
    """A file of one image, by the standard alone."""
    axes = [card(f"NAXIS{number}", str(size)) for number, size in enumerate(reversed(shape), 1)]
    header = [card("SIMPLE", "T"), card("BITPIX", str(bitpix)), card("NAXIS", str(len(shape))), *axes, *cards, "END".ljust(80)]
    return padded("".join(header).encode(), b" ") + padded(data, b"\0")


def opened(data: bytes, limits: Limits | None = None, **options: Any) -> Picture:
    return open_fits(data, ImageOptions(**options), limits or Limits())


def planes(picture: Picture) -> list[NDArray[Any]]:
    return [frame.decode().pixels for frame in (picture, *map(picture.frame, range(1, picture.frames)))]


@pytest.mark.parametrize("dtype", ["|u1", "<i2", "<i4", "<i8", "<f4", "<f8"])
def test_numbers_keep_their_type_in_little_endian_order(dtype: str) -> None:
    numbers = np.array([[1, 2, 3], [100, 200, 7]]).astype(dtype)
    bitpix = numbers.itemsize * (-8 if numbers.dtype.kind == "f" else 8)
    picture = opened(written(bitpix, (2, 3), numbers.astype(numbers.dtype.newbyteorder(">")).tobytes()))
    assert (picture.dtype, picture.mode, picture.height, picture.width, picture.channels) == (dtype, str(bitpix), 2, 3, 1)
    pixels = picture.decode().pixels
    assert pixels.dtype == np.dtype(dtype)
    assert np.array_equal(pixels[:, :, 0], numbers)


@pytest.mark.parametrize(("bits", "dtype"), [(16, "<u2"), (32, "<u4"), (64, "<u8")])
def test_the_offset_of_unsigned_numbers_is_undone(bits: int, dtype: str) -> None:
    numbers = np.array([[0, 1, (1 << bits) - 1]], f"u{bits // 8}")
    stored = (numbers ^ (1 << (bits - 1))).astype(f">u{bits // 8}").tobytes()
    picture = opened(written(bits, (1, 3), stored, card("BZERO", str(1 << (bits - 1))), card("BSCALE", "1")))
    assert picture.dtype == dtype
    assert np.array_equal(picture.decode().pixels[:, :, 0], numbers)


def test_scaled_numbers_are_floats_and_blank_ones_nan() -> None:
    stored = struct.pack(">4h", 0, 1, 2, 3)
    picture = opened(written(16, (2, 2), stored, card("BSCALE", "0.5"), card("BZERO", "10.0"), card("BLANK", "3")))
    np.testing.assert_array_equal(picture.decode().pixels[:, :, 0], np.array([[10, 10.5], [11, np.nan]], "<f4"))


def test_leading_axes_are_frames(convert: Convert) -> None:
    expected = np.arange(2)[:, None, None] * 1000 + np.arange(192).reshape(12, 16) + 32768
    for options, count in ((ImageOptions(), 1), (ImageOptions(frames="all"), 2)):
        rows = convert(NUMBERS, "x.fits", MediumOptions(image=options))
        assert len(rows) == count
        for row, plane in zip(rows, expected, strict=False):
            assert isinstance(row, Block)
            assert list(row.columns["frames"].values) == [2]  # type: ignore[union-attr]
            pixels = row.columns["pixels"].values[0]  # type: ignore[union-attr]
            assert pixels.dtype == np.dtype("<u2") and np.array_equal(pixels[:, :, 0], plane)  # type: ignore[union-attr]


def test_all_images_of_a_file_are_frames_one_after_the_other() -> None:
    first, second = np.arange(24, dtype=">i2").reshape(2, 3, 4), np.ones((5, 6), ">f4")
    data = written(16, first.shape, first.tobytes(), card("EXTEND", "T"))
    cards = [card("XTENSION", "'IMAGE   '"), card("BITPIX", "-32"), card("NAXIS", "2"), card("NAXIS1", "6"), card("NAXIS2", "5")]
    extension = "".join([*cards, card("PCOUNT", "0"), card("GCOUNT", "1"), "END".ljust(80)]).encode()
    found = planes(opened(data + padded(extension, b" ") + padded(second.tobytes(), b"\0")))
    assert [plane.shape for plane in found] == [(3, 4, 1), (3, 4, 1), (5, 6, 1)]
    assert np.array_equal(found[1][:, :, 0], first[1]) and np.array_equal(found[2][:, :, 0], second)


def test_a_single_axis_is_one_row() -> None:
    assert opened(written(8, (5,), bytes(range(5)))).decode().pixels.tolist() == [[[0], [1], [2], [3], [4]]]


def test_many_axes_are_counted_through() -> None:
    numbers = np.arange(2 * 3 * 4 * 5, dtype=np.uint8).reshape(2, 3, 4, 5)
    found = planes(opened(written(8, numbers.shape, numbers.tobytes())))
    assert np.array_equal(np.stack(found)[..., 0], numbers.reshape(6, 4, 5))


def test_rows_are_not_flipped() -> None:
    assert opened(written(8, (2, 1), b"\1\2")).decode().pixels.ravel().tolist() == [1, 2]


@pytest.mark.parametrize("compression", ["RICE_1", "GZIP_1", "GZIP_2", "PLIO_1", "HCOMPRESS_1"])
def test_tile_compressed_images_are_images(compression: str, tmp_path: Path) -> None:
    numbers = np.arange(192, dtype="i4").reshape(12, 16)
    fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(numbers, compression_type=compression)]).writeto(tmp_path / "x.fits")
    assert np.array_equal(opened((tmp_path / "x.fits").read_bytes()).decode().pixels[:, :, 0], numbers)


def test_cards_are_pairs_in_their_order() -> None:
    pairs = opened(NUMBERS).pairs
    assert pairs is not None
    found = list(zip(pairs.keys, pairs.values, pairs.types, strict=True))
    assert found[0] == ("XTENSION", b"IMAGE", PairType.STRING)
    assert found[-6:] == [
        ("BSCALE", b"1", PairType.INTEGER),
        ("OBJECT", b"M 13", PairType.STRING),
        ("EXPTIME", b"1.5", PairType.NUMBER),
        ("FLAG", b"true", PairType.BOOLEAN),
        ("EMPTY", b"", PairType.NULL),
        ("COMMENT", b"one\ntwo", PairType.STRING),
    ]
    assert set(pairs.rows) == {0}


@pytest.mark.parametrize("size", [*range(0, len(NUMBERS), 97), 5760, len(NUMBERS) - 1])
def test_a_cut_file_is_refused_or_lacks_only_what_fills_it_up(size: int) -> None:
    data_ends = 5760 + 2 * 12 * 16 * 2
    if size >= data_ends:
        assert np.array_equal(opened(NUMBERS[:size]).decode().pixels, opened(NUMBERS).decode().pixels)
    else:
        with pytest.raises(MemberError):
            opened(NUMBERS[:size])


@pytest.fixture
def summed(tmp_path: Path) -> bytes:
    fits.PrimaryHDU(np.arange(192, dtype="i2").reshape(12, 16)).writeto(tmp_path / "x.fits", checksum=True)
    return (tmp_path / "x.fits").read_bytes()


@pytest.mark.parametrize(("at", "word"), [(2880 + 5, "DATASUM"), (400, "CHECKSUM")])
def test_a_wrong_checksum_is_damage(summed: bytes, at: int, word: str) -> None:
    damaged = summed[:at] + bytes([summed[at] ^ 1]) + summed[at + 1 :]
    with pytest.raises(MemberError, match=word):
        opened(damaged)
    decoded = opened(damaged, damaged="tolerant").decode()
    assert word in decoded.damage and decoded.pixels.shape == (12, 16, 1)
    assert opened(summed).decode().damage == ""


def test_bytes_behind_the_last_image_are_damage() -> None:
    with pytest.raises(MemberError, match="5 bytes behind the last HDU"):
        opened(NUMBERS + b"bytes")
    assert opened(NUMBERS + b"bytes", damaged="tolerant").decode().damage == "5 bytes behind the last HDU"


def test_a_file_of_tables_is_refused(tmp_path: Path) -> None:
    fits.BinTableHDU.from_columns([fits.Column("a", "J", array=[1, 2])]).writeto(tmp_path / "x.fits")
    with pytest.raises(MemberError, match="found headers or tables only"):
        opened((tmp_path / "x.fits").read_bytes())


@pytest.mark.parametrize(
    ("shape", "limits", "reason"),
    [
        ((100_000, 100_000), Limits(), "limits.pixels"),
        ((2000, 1, 1), Limits(), "limits.frames"),
        ((3, 4, 4), Limits(frames=2), "limits.frames"),
    ],
)
def test_what_a_header_asks_for_is_checked_before_anything_is_read(shape: tuple[int, ...], limits: Limits, reason: str) -> None:
    with pytest.raises(MemberError, match=reason):
        opened(written(8, shape, bytes(2000)), limits)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"SIMPLE  =                    T",
        bytes(5000),
        NUMBERS.replace(b"BITPIX  =                   16", b"BITPIX  =                   17"),
    ],
)
def test_what_is_no_fits_is_refused(data: bytes) -> None:
    with pytest.raises(MemberError):
        opened(data)


def test_odd_cards_cause_no_warnings() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        opened(written(8, (2, 2), bytes(4), "lower   =                    1".ljust(80), "DATE-OBS= '01/02/99'".ljust(80))).decode()


@pytest.mark.parametrize("path", ["x", "x.fits", "x.jpg"])
def test_it_is_recognised_by_its_first_card(path: str) -> None:
    handler = handler_for(NUMBERS, path)
    assert handler is not None and handler.name == "fits"
