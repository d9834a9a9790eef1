"""Words: the rows that a loop in Python finds in the same texts, whatever the layout, slab and case."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import pytest

import h5dat_lib
from h5dat_lib.errors import FormatError, InputError
from h5dat_lib.read.words import words_of
from tests.conftest import config, make_zip

DOCUMENTS = [
    {"name": name, "size": n % 7, "note": "x" * 300 * (n % 3) + note, "parts": [{"made": made}]}
    for n, (name, note, made) in enumerate(
        (name, note, made)
        for name in ("Navy Shirt", "blue SHIRT", "Straße", "", "Ünit 5%")
        for note in ("plain", "of Cotton", "\u0130stanbul \U0001f455")
        for made in ("in Peru", "in STRASSEN", None)
    )
]
TABLE = "name,colour,n\n" + "".join(f"{word} {n},{colour},{n}\n" for n in range(30) for word, colour in (("Hat", "Red"), ("cap", "")))


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> h5dat_lib.File:
    folder = tmp_path_factory.mktemp("words")
    texts = {"a.txt": b"The quick brown fox", "b.txt": b"A lazy dog " + b"and more " * 9000 + b"QUICKLY", "c.txt": b""}
    records = {f"{n:03}.json": json.dumps(document, ensure_ascii=False).encode() for n, document in enumerate(DOCUMENTS)}
    settings = config(document={"columns": {"name": "category", "note": "auto"}})
    h5dat_lib.ingest(make_zip(folder / "a.zip", {**records, **texts, "t.csv": TABLE.encode()}), folder / "out.h5", settings)
    return h5dat_lib.open(folder / "out.h5")


@pytest.mark.parametrize("slab", [3, 4096])
@pytest.mark.parametrize("text", ["shirt", "SHIRT navy", "strasse", "straße peru", "cotton STRASSEN x", "5%", "zzz", "\U0001f455", "'n"])
def test_rows_are_those_that_have_all_words(file: h5dat_lib.File, monkeypatch: pytest.MonkeyPatch, text: str, slab: int) -> None:
    monkeypatch.setattr("h5dat_lib.read.words._SLAB", slab)
    monkeypatch.setattr("h5dat_lib.read.words._SLAB_BYTES", slab * 200)
    expected = []
    for row, document in enumerate(DOCUMENTS):
        whole = json.dumps(document, ensure_ascii=False).casefold()
        if all(word in whole for word in text.casefold().split()):
            expected.append(row)
    assert file["documents"].search(text).tolist() == expected


def test_strings_texts_and_categories_of_every_class_are_looked_through(file: h5dat_lib.File) -> None:
    assert file["tables"].search("hat 7").tolist() == [14, 34, 54] and file["tables"].search("red cap").tolist() == []
    assert file["tables"].search("HAT red 29").tolist() == [58]
    assert file["texts"].search("quick").tolist() == [0, 1] and file["texts"].search("quick dog").tolist() == [1]


def test_pairs_count_where_no_column_has_the_word(tmp_path: Path) -> None:
    values = {"SIMPLE": "T", "BITPIX": "8", "NAXIS": "2", "NAXIS1": "2", "NAXIS2": "2"}
    cards = [*(f"{key:8}= {value:>20}" for key, value in values.items()), "OBJECT  = 'Andromeda'", "END"]
    data = "".join(f"{card:80}" for card in cards).encode().ljust(2880) + bytes((1, 2, 3, 4)).ljust(2880, b"\0")
    other = data.replace(b"Andromeda", b"Pleiades!")
    h5dat_lib.ingest(make_zip(tmp_path / "a.zip", {"a.fits": other, "b.fits": data}), tmp_path / "o.h5", config())
    with h5dat_lib.open(tmp_path / "o.h5") as opened:
        assert opened["images"].search("andromeda FITS").tolist() == [1]
    with h5py.File(tmp_path / "o.h5", "r+") as plain:
        plain["images/_pairs/row"][:] = 77
    with h5dat_lib.open(tmp_path / "o.h5") as opened, pytest.raises(FormatError, match="pairs of row 77"):
        opened["images"].search("andromeda")


@pytest.mark.parametrize("text", ["", "  \n"])
def test_nothing_to_look_for_is_one_line(file: h5dat_lib.File, text: str) -> None:
    with pytest.raises(InputError, match="found no words"):
        file["documents"].search(text)
    assert words_of(" a  B\n") == ["a", "b"]
