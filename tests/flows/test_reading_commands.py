"""Commands that look into a file: the same values as the library gives, as JSON and for people; pictures in colours on a terminal only."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import h5dat_lib
from flows.pictures import half_blocks
from tests.conftest import Ran, config, make_zip, picture

Run = Callable[..., Ran]
ROOT = Path(__file__).parents[2]
MEMBERS = {f"shop/{n}.png": picture(8 + n, 6, n) for n in range(4)} | {"shop/0.json": b'{"a": 1, "b": {"c": "x\\u001b"}}'}


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("commands")
    h5dat_lib.ingest(make_zip(folder / "a.zip", MEMBERS | {"t.csv": b"n,s\n1,x\n2,y\n3,z\n"}), folder / "out.h5", config())
    return folder / "out.h5"


def test_show_prints_a_row_by_its_number_or_its_member(h5dat: Run, output: Path) -> None:
    for address in ("images/2", "images/shop/2.png"):
        shown = json.loads(h5dat("show", output, address, "--json").out)
        assert (shown["row"], shown["member"], shown["width"], shown["pixels"]) == ("images/2", "shop/2.png", 10, "6 x 10 x 3 uint8")
    ran = h5dat("show", output, "documents/0")
    assert ran.code == 0 and "\x1b" not in ran.out and re.search(r"b\.c +x", ran.out)


def test_show_saves_the_picture(h5dat: Run, output: Path, tmp_path: Path) -> None:
    assert h5dat("show", output, "images/3", "--save", tmp_path / "x.png").code == 0
    with Image.open(tmp_path / "x.png") as saved, Image.open(io.BytesIO(MEMBERS["shop/3.png"])) as original:
        assert saved.format == "PNG" and np.array_equal(np.asarray(saved), np.asarray(original))
    ran = h5dat("show", output, "documents/0", "--save", tmp_path / "y.png")
    assert ran.code == 2 and "found no picture" in ran.err and not (tmp_path / "y.png").exists()


def test_half_blocks_have_the_colours_of_two_pixels_each() -> None:
    pixels = np.array([[[1, 2, 3], [4, 5, 6]], [[7, 8, 9], [10, 11, 12]], [[13, 14, 15], [16, 17, 18]]], "u1")
    text = half_blocks(pixels)
    assert text.plain == "\u2580\u2580\n\u2580\u2580\n"
    assert [str(span.style) for span in text.spans][:3] == [
        "rgb(1,2,3) on rgb(7,8,9)",
        "rgb(4,5,6) on rgb(10,11,12)",
        "rgb(13,14,15) on rgb(13,14,15)",
    ]


def test_a_terminal_sees_the_picture(output: Path) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "flows.cli", "show", str(output), "images/0"]
    environment = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor"}
    environment.pop("NO_COLOR", None)
    subprocess.run(command, cwd=ROOT, stdout=theirs, stderr=theirs, env=environment, check=True)
    os.close(theirs)
    seen = os.read(ours, 1 << 20).decode()
    os.close(ours)
    with Image.open(io.BytesIO(MEMBERS["shop/0.png"])) as original:
        red, green, blue = original.getpixel((0, 0))  # type: ignore[misc]
    assert "\u2580" in seen and f"38;2;{red};{green};{blue}" in seen


def test_head_prints_the_first_rows(h5dat: Run, output: Path) -> None:
    assert json.loads(h5dat("head", output, "tables", "-n", "2", "--json").out) == [{"n": 1, "s": "x"}, {"n": 2, "s": "y"}]
    assert re.search(r"n +s", h5dat("head", output, "tables").out)


def test_origin_prints_what_the_library_says(h5dat: Run, output: Path) -> None:
    shown = json.loads(h5dat("origin", output, "images/1", "--json").out)
    with h5dat_lib.open(output) as file:
        assert shown == file["images"].origin(1).__dict__ and shown["member"] == "shop/1.png"
    told = h5dat("origin", output, "images/1").out
    assert "sha256" in told and re.search(r"time +20\d\d-\d\d-\d\d \d\d:\d\d UTC", told)


def test_stats_prints_bytes_brightness_and_shapes(h5dat: Run, output: Path) -> None:
    classes = {entry["name"]: entry for entry in json.loads(h5dat("stats", output, "--json").out)}
    assert classes["tables"]["rows"] == 3 and classes["images"]["columns"][0]["brightness"]["pictures"] == 4
    shown = h5dat("stats", output).out
    assert "images.pixels: mean" in shown and "images.width: 8 to 11, mean 9.5, standard deviation 1.118" in shown


def test_stats_writes_a_page(h5dat: Run, output: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    ran = h5dat("stats", output, "--plot", page, "--pictures", "2")
    assert ran.code == 0 and ran.out.startswith(f"{page}: ") and "2 pictures, of 2 evenly spread over 4 rows" in page.read_text("utf-8")
    assert json.loads(h5dat("stats", output, "--plot", page, "--json").out) == {"plot": str(page), "bytes": page.stat().st_size}
    ran = h5dat("stats", output, "--plot", tmp_path)
    assert ran.code == 2 and ran.err.count("\n") == 1 and "name another file" in ran.err


WRONG = {
    ("show", "images/4"): "4 rows and no row or member '4'",
    ("show", "pictures/4"): "expected CLASS/ROW or CLASS/MEMBER",
    ("head", "imagse"): "no class 'imagse'; it has documents, images, tables; did you mean 'images'?",
}


@pytest.mark.parametrize("words", WRONG)
def test_what_is_not_there_is_one_line_and_exit_code_2(h5dat: Run, output: Path, words: tuple[str, ...]) -> None:
    ran = h5dat(words[0], output, *words[1:])
    assert ran.code == 2 and ran.err.count("\n") == 1 and WRONG[words] in ran.err
