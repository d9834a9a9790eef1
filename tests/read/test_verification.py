"""Verify finds every changed byte of every chunk, and names the rows it lies in."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import h5py
import pytest

import h5dat_lib
from h5dat_lib.errors import FormatError
from tests.conftest import Ran, config, make_zip, picture
from tests.fuzz.checksums import lookup3, structures


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("verify")
    members = {f"{n}.png": picture(64, 64, n) for n in range(10)} | {f"{n}.json": b'{"n": %d}' % n for n in range(10)}
    members |= {"items.csv": b"id,name\n" + b"".join(b"%d,name %d\n" % (n, n) for n in range(50)), "big.txt": b"text " * 50_000}
    h5dat_lib.ingest(make_zip(folder / "a.zip", members), folder / "out.h5", config())
    return folder / "out.h5"


@pytest.fixture
def output(original: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "out.h5"
    copy.write_bytes(original.read_bytes())
    return copy


def _chunks(path: Path) -> list[tuple[str, int, int]]:
    """Dataset, file offset and size of every chunk but those of the checksums."""
    found: list[tuple[str, int, int]] = []

    def note(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset) and not name.startswith("lineage/checksums"):
            for number in range(item.id.get_num_chunks()):
                info = item.id.get_chunk_info(number)
                found.append((name, info.byte_offset, info.size))

    with h5py.File(path) as file:
        file.visititems(note)
    return found


def test_a_file_as_it_was_written_has_no_mismatch(original: Path) -> None:
    verified = h5dat_lib.verify(original)
    assert verified.mismatches == []
    assert verified.chunks == len(_chunks(original))


def test_a_file_of_empty_texts_has_no_mismatch_and_can_be_added_to(tmp_path: Path) -> None:
    output = tmp_path / "out.h5"
    for name, data in (("a", b""), ("b", b"text"), ("c", b"")):
        h5dat_lib.ingest(make_zip(tmp_path / f"{name}.zip", {f"{name}.txt": data}), output, config())
        assert h5dat_lib.verify(output).mismatches == []
    with h5dat_lib.open(output) as file:
        assert file["texts"].text[:] == ["", "text", ""]


def test_any_flipped_byte_is_found_in_its_column(output: Path) -> None:
    raw = output.read_bytes()
    source = random.Random(4)
    for name, offset, size in _chunks(output):
        changed = bytearray(raw)
        changed[offset + source.randrange(size)] ^= 1 << source.randrange(8)
        output.write_bytes(changed)
        [mismatch] = h5dat_lib.verify(output).mismatches
        assert name.startswith(mismatch.table), name


def test_a_changed_picture_is_named_by_its_row_and_member(output: Path) -> None:
    with h5py.File(output, "r+") as file:
        file["images/pixels"][3, 5, 5, 0] ^= 255
    [mismatch] = h5dat_lib.verify(output).mismatches
    assert (mismatch.table, mismatch.column, mismatch.first, mismatch.last, mismatch.member) == ("images", "pixels", 3, 3, "3.png")


def test_a_changed_number_is_named_by_the_rows_of_its_chunk(output: Path) -> None:
    with h5py.File(output, "r+") as file:
        file["tables/id"][7] = 99
    [mismatch] = h5dat_lib.verify(output).mismatches
    assert (mismatch.table, mismatch.column, mismatch.first, mismatch.last) == ("tables", "id", 0, 49)


def test_a_changed_text_is_named_by_the_rows_whose_bytes_are_there(output: Path) -> None:
    with h5py.File(output, "r+") as file:
        file["texts/text/values"][200_000] = 0
    [mismatch] = h5dat_lib.verify(output).mismatches
    assert (mismatch.table, mismatch.column, mismatch.first, mismatch.member) == ("texts", "text", 0, "big.txt")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda file: file["images/pixels"].resize(8, axis=0), "found 8 chunks, expected 10"),
        (lambda file: file["images/pixels"].resize(100_000, axis=0), "found 100000 chunks, expected 10"),
        (lambda file: file.__delitem__("images/pixels"), "found no chunks, expected 10"),
        (lambda file: file.__delitem__("lineage/checksums/images/pixels"), "found 10 chunks, expected 0"),
    ],
)
def test_chunks_that_came_or_went_are_one_mismatch(output: Path, change: Callable[[h5py.File], object], reason: str) -> None:
    with h5py.File(output, "r+") as file:
        change(file)
    [mismatch] = h5dat_lib.verify(output).mismatches
    assert (mismatch.table, mismatch.column, mismatch.reason) == ("images", "pixels", reason)


def test_verify_ends_with_exit_code_1_and_names_the_row(output: Path, h5dat: Callable[..., Ran]) -> None:
    assert h5dat("verify", output).code == 0
    with h5py.File(output, "r+") as file:
        file["images/pixels"][3, 5, 5, 0] ^= 255
    ran = h5dat("verify", output)
    assert ran.code == 1 and "images row 3 (3.png): column pixels: found CRC" in ran.out


def test_a_group_whose_attributes_lie_is_a_format_error(output: Path) -> None:
    data = bytearray(output.read_bytes())
    name = data.index(b"columns\0")
    at, size = next((at, size) for at, size in structures(bytes(data)) if at < name < at + size)
    data[name - 7 : name - 5] = b"\xff\xff"  # the length of an attribute's name (File Format Specification 3.0, IV.A.2.m)
    data[at + size : at + size + 4] = lookup3(data[at : at + size]).to_bytes(4, "little")
    output.write_bytes(data)
    with pytest.raises(FormatError, match="found damaged groups or datasets"):
        h5dat_lib.verify(output)
