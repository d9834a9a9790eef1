"""What goes in comes out, through the whole path: by the library and by h5py alone, however it is spread over archives and batches."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import h5py
from hypothesis import given, settings
from hypothesis import strategies as st

import h5dat_lib
from tests.conftest import config, make_zip
from tests.convert.test_document import keys_of, paths, texts, written


def _by_hand(file: h5py.File, column: str, row: int) -> str:
    """A text as docs/format.md says how to read it."""
    start, size = file[column]["offset"][row], file[column]["length"][row]
    return str(file[column]["values"][start : start + size].tobytes().decode())


_documents = texts.filter(lambda value: not (isinstance(value, list) and value and isinstance(value[0], tuple)))
"""Documents of one row: an array of objects is one of several."""


@settings(max_examples=6, deadline=None)
@given(st.lists(st.lists(_documents, min_size=1, max_size=10), min_size=1, max_size=2), st.sampled_from(["deflate", "none"]))
def test_documents_and_their_pairs_come_back(archives: list[list[Any]], compression: str) -> None:
    documents = [(value, written(value, " ")) for archive in archives for value in archive]
    with TemporaryDirectory() as name:
        output = Path(name) / "out.h5"
        for number, archive in enumerate(archives):
            members = {f"{number}-{at}.json": written(value, " ").encode() for at, value in enumerate(archive)}
            h5dat_lib.ingest(make_zip(Path(name) / f"{number}.zip", members), output, config(compression={"filter": compression}))
        with h5dat_lib.open(output) as file:
            table = file["documents"]
            assert table.document[:] == [text for _, text in documents]
            for row, (value, _) in enumerate(documents):
                found = [(keys_of(key) if key else (), text, kind) for key, text, kind in table.pairs(row)]
                assert found == [((() if keys == ("",) else keys), text.decode(), kind) for keys, text, kind in paths(value)]
        with h5py.File(output) as plain:
            assert [_by_hand(plain, "documents/document", row) for row in range(len(documents))] == [text for _, text in documents]
            keys = (
                [_by_hand(plain, "documents/_keys/key", int(key)) for key in plain["documents/_pairs/key"][:]]
                if "_pairs" in plain["documents"]
                else []
            )
            assert len(keys) == sum(1 for value, _ in documents for _ in paths(value))
        assert h5dat_lib.verify(output).mismatches == []
