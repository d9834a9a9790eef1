"""An output read with plain h5py and compared with the archive it came from: pixels with Pillow's, documents byte for byte."""

from __future__ import annotations

import io
import random
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
from PIL import Image

from h5dat_lib.read.verification import verify
from tests.benchmarks.figures import Figure, Goal, number

_ROWS = 1_000
_NONE = Goal(most=0)


def read_back(output: Path, archive: Path) -> list[Figure]:
    """Mismatches of all checksums, and of random pictures and documents."""
    started = time.perf_counter()
    verified = verify(output)
    seconds = time.perf_counter() - started
    detail = f"{verified.chunks} chunks, {number(verified.bytes / 1e6)} MB in {number(seconds)} s"
    with h5py.File(output) as file, zipfile.ZipFile(archive) as members:
        pictures = _chosen(len(file["images/_member"]), 5)
        documents = _chosen(len(file["styles/_member"] if "styles" in file else file["documents/_member"]), 6)
        wrong_pictures = sum(not _same_pixels(file, members, row) for row in pictures)
        wrong_documents = sum(not _same_document(file, members, row) for row in documents)
    return [
        Figure("verify, mismatches", len(verified.mismatches), "chunks", _NONE, detail),
        Figure("read back, pictures that differ", wrong_pictures, f"of {len(pictures)}", _NONE),
        Figure("read back, documents that differ", wrong_documents, f"of {len(documents)}", _NONE),
    ]


def _chosen(rows: int, seed: int) -> Sequence[int]:
    return random.Random(seed).sample(range(rows), min(_ROWS, rows))


def _same_pixels(file: h5py.File, members: zipfile.ZipFile, row: int) -> bool:
    """Whether the row holds what Pillow makes of the member that its lineage names, and that is the member in this place."""
    path = _path(file, "images", row)
    pixels = np.asarray(Image.open(io.BytesIO(members.read(path))))
    return path == f"images/{row:06}.jpg" and np.array_equal(file["images/pixels"][row], pixels)


def _same_document(file: h5py.File, members: zipfile.ZipFile, row: int) -> bool:
    name = "styles" if "styles" in file else "documents"
    path = _path(file, name, row)
    return path == f"styles/{row:06}.json" and _text(file[f"{name}/document"], row) == members.read(path)


def _path(file: h5py.File, name: str, row: int) -> str:
    return _text(file["lineage/members/path"], int(file[f"{name}/_member"][row])).decode()


def _text(column: h5py.Group, row: int) -> bytes:
    start, size = int(column["offset"][row]), int(column["length"][row])
    return bytes(column["values"][start : start + size])
