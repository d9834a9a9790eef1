"""The contact sheet shows the first pictures of any kind, and is nothing where there are none."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

import h5dat_lib
from h5dat_lib.reporting.contact_sheet import contact_sheet
from tests.conftest import config, make_zip, picture


def _png(pixels: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def test_a_sheet_holds_pictures_of_every_kind_in_rows_of_eight(tmp_path: Path) -> None:
    members = {f"{n}.png": picture(300, 200, n, mode) for n, mode in enumerate(("RGB", "L", "RGBA"))}
    members["deep.png"] = _png(np.arange(4096, dtype="<u2").reshape(64, 64) * 16)
    members |= {f"more{n}.png": picture(seed=n) for n in range(6)}
    h5dat_lib.ingest(make_zip(tmp_path / "a.zip", members), tmp_path / "out.h5", config())
    sheet = contact_sheet(tmp_path / "out.h5")
    assert sheet is not None
    with Image.open(io.BytesIO(sheet)) as image:
        assert image.size == (8 * 96, 2 * 96)
        cells = np.asarray(image.convert("L"))
    assert cells[48, 48] != 255 and cells[96 + 48, 48] != 255, "the first cell of both rows is a picture"
    assert (cells[96:, 3 * 96 :] > 250).all(), "behind the tenth there is none"


def test_a_file_without_pictures_has_no_sheet(tmp_path: Path) -> None:
    h5dat_lib.ingest(make_zip(tmp_path / "a.zip", {"a.txt": b"x"}), tmp_path / "out.h5", config())
    assert contact_sheet(tmp_path / "out.h5") is None
