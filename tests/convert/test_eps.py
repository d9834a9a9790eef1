from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from h5dat_lib.config import ImageOptions, Limits
from h5dat_lib.convert import handler_for
from h5dat_lib.convert.eps import open_eps
from h5dat_lib.errors import MemberError

IMAGES = Path(__file__).parents[1] / "data" / "images"
needs_ghostscript = pytest.mark.skipif(shutil.which("gs") is None, reason="needs Ghostscript: no `gs` on the PATH")


def drawing(program: str = "", box: str = "0 0 16 12", end: str = "showpage\n%%EOF\n") -> bytes:
    return f"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: {box}\n%%EndComments\n{program}\n{end}".encode()


def drawn(data: bytes, limits: Limits | None = None, **options: Any) -> NDArray[Any]:
    return open_eps(data, ImageOptions(**options), limits or Limits()).decode().pixels


RED = "1 0 0 setrgbcolor 0 0 8 12 rectfill"


@needs_ghostscript
def test_what_is_not_painted_is_white() -> None:
    pixels = drawn(drawing(RED))
    assert pixels.shape == (12, 16, 3)
    assert np.unique(pixels[:, :8].reshape(-1, 3), axis=0).tolist() == [[255, 0, 0]]
    assert (pixels[:, 8:] == 255).all()


@needs_ghostscript
@pytest.mark.parametrize("end", ["showpage\n", "%%Trailer\n", "%%EOF\n", "showpage\n\x04", "gsave grestore end\n"])
def test_the_page_is_drawn_however_the_drawing_ends(end: str) -> None:
    assert np.array_equal(drawn(drawing("1 dict begin " * end.startswith("gsave") + RED, end=end)), drawn(drawing(RED)))


@needs_ghostscript
def test_the_bounding_box_is_what_is_shown() -> None:
    pixels = drawn(drawing("0 0 1 setrgbcolor 100 200 4 3 rectfill", box="96 200 104 206"))
    assert pixels.shape == (6, 8, 3)
    assert (pixels[3:, 4:] == (0, 0, 255)).all() and (pixels[:3] == 255).all() and (pixels[:, :4] == 255).all()


@needs_ghostscript
def test_a_bounding_box_may_stand_in_the_trailer_and_have_fractions() -> None:
    data = drawing(RED, box="(atend)", end="showpage\n%%Trailer\r%%BoundingBox: -.5 0 15.25 12\r%%EOF")
    assert drawn(data).shape == (12, 16, 3)


def test_the_bounding_box_of_a_drawing_within_is_not_its_own() -> None:
    within = "%%BeginDocument: a\n%%BoundingBox: 0 0 5 5\n%%EOF\n%%EndDocument"
    trailer = "showpage\n%%Trailer\n%%BoundingBox: 0 0 16 12\n%%EOF"
    for data in (drawing(within), drawing(within, box="(atend)", end=trailer)):
        picture = open_eps(data, ImageOptions(), Limits())
        assert (picture.height, picture.width) == (12, 16)
    with pytest.raises(MemberError, match="no %%BoundingBox"):
        open_eps(drawing(box="(atend)"), ImageOptions(), Limits())


@needs_ghostscript
def test_vector_size_is_the_longer_side() -> None:
    pixels = drawn(drawing(RED), vector_size=160)
    assert pixels.shape == (120, 160, 3)
    assert (pixels[:, :80] == (255, 0, 0)).all() and (pixels[:, 80:] == 255).all()


@needs_ghostscript
def test_edges_are_smoothed() -> None:
    assert drawn(drawing("0 setgray 0 0 8.5 12 rectfill"))[0, 8].tolist() == pytest.approx([128] * 3, abs=16)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not EPS"),
        (b"%PDF-1.4", "not EPS"),
        (b"%!PS-Adobe-3.0\nshowpage", "no %%BoundingBox"),
        (drawing(box="0 0 0 12"), "empty"),
        (drawing(box="16 12 0 0"), "empty"),
        (drawing(box="0 0 100000 100000"), "limits.pixels"),
        (drawing(RED, end=""), "ends without"),
        (drawing("%%BeginDocument: a\n%%EOF"), "ends within"),
        (b"\xc5\xd0\xd3\xc6", "damaged"),
        ((IMAGES / "preview.eps").read_bytes()[:1000], "damaged"),
    ],
)
def test_what_is_no_whole_drawing_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(MemberError, match=reason):
        open_eps(data, ImageOptions(), Limits())


@needs_ghostscript
def test_a_drawing_without_an_end_is_drawn_and_marked_in_tolerant_mode() -> None:
    decoded = open_eps(drawing(RED, end=""), ImageOptions(damaged="tolerant"), Limits()).decode()
    assert np.array_equal(decoded.pixels, drawn(drawing(RED)))
    assert decoded.damage == "ends without %%EOF or showpage"


def test_the_limit_on_pixels_holds_for_the_size_that_is_asked_for() -> None:
    with pytest.raises(MemberError, match=r"limits\.pixels"):
        open_eps(drawing(), ImageOptions(vector_size=1000), Limits(pixels=1000))


# A drawing is a program


@needs_ghostscript
@pytest.mark.parametrize(
    "program",
    [
        "(/etc/hostname) (r) file pop",
        "({file}) (w) file closefile",
        "({file}) deletefile",
        "(%pipe%id) (r) file pop",
        "/OutputFile ({file}) def mark /OutputFile ({file}) (ppmraw) finddevice putdeviceprops setdevice",
    ],
)
def test_it_can_open_no_file(program: str, tmp_path: Path) -> None:
    file = tmp_path / "there"
    file.write_text("kept")
    with pytest.raises(MemberError, match="cannot be drawn"):
        drawn(drawing(program.replace("{file}", str(file))))
    assert [path.name for path in tmp_path.iterdir()] == ["there"] and file.read_text() == "kept"


@needs_ghostscript
@pytest.mark.parametrize("program", ["{} loop", "quit", "/x x undefined", "{(a) print} loop", "(%stdout) (w) file (P6) writestring quit"])
def test_one_that_gives_no_page_is_refused_in_time(program: str) -> None:
    with pytest.raises(MemberError, match=r"cannot be drawn as EPS: found \d+ bytes"):
        drawn(drawing(program), Limits(member_seconds=2))


@needs_ghostscript
def test_one_that_gives_pages_without_end_gives_the_first() -> None:
    assert np.array_equal(drawn(drawing(f"{RED} {{showpage}} loop")), drawn(drawing(RED)))


@needs_ghostscript
def test_it_cannot_change_the_size_of_its_page() -> None:
    assert drawn(drawing(f"<< /PageSize [5000 5000] /HWResolution [600 600] >> setpagedevice {RED}")).shape == (12, 16, 3)


def test_without_ghostscript_the_reject_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MemberError, match="EPS needs Ghostscript: found no `gs` on the PATH; install it"):
        drawn(drawing())


def test_a_ghostscript_that_does_not_run_costs_the_drawing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "gs"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(broken.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", os.pathsep.join([str(tmp_path), os.environ["PATH"]]))
    with pytest.raises(MemberError, match="found 0 bytes"):
        drawn(drawing())


@pytest.mark.parametrize(("data", "path"), [(drawing(), "x"), ((IMAGES / "preview.eps").read_bytes(), "x"), (b"%!PS", "x.eps")])
def test_it_is_recognised(data: bytes, path: str) -> None:
    handler = handler_for(data, path)
    assert handler is not None and handler.name == "eps"
