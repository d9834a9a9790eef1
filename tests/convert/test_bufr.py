from __future__ import annotations

import builtins
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from h5dat_lib.columns import Block, Fault
from h5dat_lib.config import DocumentOptions, Limits, MediumOptions
from h5dat_lib.convert import bufr, handler_for
from h5dat_lib.errors import MemberError
from tests.convert.conftest import Convert

FILE = (Path(__file__).parents[1] / "data" / "images" / "picture.bufr").read_bytes()
"""Two messages with a heading between them; tests/data/images/by_hand.py says what is in them."""
FIRST = int.from_bytes(FILE[4:7], "big")


def documents(blocks: list[Block | Fault]) -> list[dict[str, Any]]:
    return [json.loads(block.columns["document"].values[0]) for block in blocks if isinstance(block, Block)]  # type: ignore[union-attr, arg-type]


def numbers(block: Block | Fault) -> np.ndarray[Any, np.dtype[np.float64]]:
    assert isinstance(block, Block)
    return block.columns["values"].values[0]  # type: ignore[union-attr, return-value]


def test_each_message_is_a_document_of_its_keys(convert: Convert) -> None:
    first, second = documents(convert(FILE, "x.bufr"))
    assert (first["edition"], first["masterTablesVersionNumber"], first["numberOfSubsets"]) == (4, 13, 2)
    assert first["unexpandedDescriptors"] == [1015, 5001, 6001, 12101]
    assert first["#1#stationOrSiteName"] == "ONE".ljust(20)
    assert first["#1#latitude"] == pytest.approx(52.5) and first["#2#longitude"] == 151.125
    assert first["#1#airTemperature"] == pytest.approx(283.15)
    assert first["#2#airTemperature"] is None
    assert second["#1#stationOrSiteName"] == "THREE".ljust(20)


def test_numbers_are_an_array_with_nan_where_one_is_missing(convert: Convert) -> None:
    first, second = convert(FILE, "x.bufr")
    np.testing.assert_allclose(numbers(first), [52.5, 13.25, 283.15, -33.75, 151.125, np.nan])
    np.testing.assert_allclose(numbers(second), [0, -0.5, 300])


def test_messages_are_counted(convert: Convert) -> None:
    assert [block.columns["message"].values for block in convert(FILE, "x.bufr")] == [[0], [1]]  # type: ignore[union-attr]


def test_scalars_are_pairs_when_asked_for(convert: Convert) -> None:
    (first, _), (without, _) = convert(FILE, "x.bufr"), convert(FILE, "x.bufr", MediumOptions(document=DocumentOptions(pairs=False)))
    assert isinstance(first, Block) and isinstance(without, Block)
    assert first.pairs is not None and without.pairs is None
    pairs = dict(zip(first.pairs.keys, first.pairs.values, strict=True))
    assert (pairs["edition"], pairs["unexpandedDescriptors.1"], pairs["#2#airTemperature"]) == (b"4", b"5001", b"")
    assert set(first.pairs.rows) == {0}


def test_it_is_recognised_by_its_first_bytes() -> None:
    handler = handler_for(FILE, "x.dat")
    assert handler is not None and (handler.name, handler.medium) == ("bufr", "documents")


def test_a_message_that_cannot_be_decoded_is_a_fault_and_the_others_are_rows(convert: Convert) -> None:
    damaged = bytearray(FILE)
    damaged[37] = 0xFF  # a descriptor that no table has
    fault, block = convert(bytes(damaged), "x.bufr")
    assert isinstance(fault, Fault) and fault.reason.startswith("message 0: cannot be decoded as BUFR")
    assert isinstance(block, Block)
    assert documents([block])[0]["#1#airTemperature"] == 300


@pytest.mark.parametrize("size", range(FIRST, len(FILE), 7))
def test_what_a_cut_leaves_whole_is_rows(convert: Convert, size: int) -> None:
    blocks = convert(FILE[:size], "x.bufr")
    assert documents(blocks) == documents(convert(FILE, "x.bufr"))[:1]
    assert len(blocks) == (2 if FILE[FIRST:size].find(b"BUFR") >= 0 else 1)


@pytest.mark.parametrize("size", range(0, FIRST, 7))
def test_a_cut_first_message_is_refused(convert: Convert, size: int) -> None:
    with pytest.raises(MemberError):
        convert(FILE[:size], "x.bufr")


def test_more_values_than_allowed_are_refused(convert: Convert) -> None:
    with pytest.raises(MemberError, match=r"found 35 values, expected at most 34 \(limits.json_values\)"):
        convert(FILE[:FIRST], "x.bufr", limits=Limits(json_values=34))


def test_a_grib_file_is_refused(convert: Convert) -> None:
    with pytest.raises(MemberError, match="GRIB"):
        convert(b"GRIB" + bytes(100), "x.bufr")


def test_without_the_library_the_reject_says_how_to_get_it(convert: Convert, monkeypatch: pytest.MonkeyPatch) -> None:
    load = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name == "eccodes":
            raise ModuleNotFoundError(name)
        return load(name, *rest)

    bufr._eccodes.cache_clear()
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MemberError, match=r"pip install h5dat\[bufr\]"):
        convert(FILE, "x.bufr")


def test_the_library_prints_nothing(convert: Convert, capfd: pytest.CaptureFixture[str]) -> None:
    damaged = bytearray(FILE)
    damaged[37] = 0xFF
    convert(bytes(damaged), "x.bufr")
    assert capfd.readouterr() == ("", "")
