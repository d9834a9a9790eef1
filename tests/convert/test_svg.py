from __future__ import annotations

import base64
import gzip
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import resvg_py
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from h5dat_lib.config import ImageOptions, Limits
from h5dat_lib.convert import handler_for, image, svg
from h5dat_lib.convert.svg import LEVELS, open_svg
from h5dat_lib.errors import MemberError

XMLNS = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
HALF_RED = '<rect width="16" height="12" fill="#f00" fill-opacity="0.5"/>'


def drawing(content: str = HALF_RED, size: str = 'width="16" height="12"', before: str = "") -> bytes:
    return f"{before}<svg {XMLNS} {size}>{content}</svg>".encode()


def drawn(data: bytes, vector_size: int | None = None, limits: Limits | None = None) -> NDArray[Any]:
    return open_svg(data, ImageOptions(vector_size=vector_size), limits or Limits()).decode().pixels


def test_colours_are_not_multiplied_with_their_alpha() -> None:
    assert drawn(drawing()).reshape(-1, 4).tolist() == [[255, 0, 0, 128]] * 192


@pytest.mark.parametrize(
    ("size", "shape"),
    [
        ('width="16" height="12"', (12, 16)),
        ('width="16px" height="12px"', (12, 16)),
        ('width="1in" height="72pt"', (96, 96)),
        ('width="10mm" height="1cm"', (38, 38)),
        ('width="1em" height="1em" viewBox="0 0 24 24"', (16, 16)),
        ('viewBox="0 0 16 12"', (12, 16)),
        ('viewBox="-5, -5, 16.4, 12.6"', (13, 16)),
        ('width="100%" height="50%" viewBox="0 0 16 12"', (6, 16)),
        ('width="64" viewBox="0 0 16 12"', (48, 64)),
        ('height="48" viewBox="0 0 16 12"', (48, 64)),
        ('width="0.2" height="10.5"', (11, 1)),
    ],
)
def test_the_size_is_the_one_that_the_drawing_states(size: str, shape: tuple[int, int]) -> None:
    picture = open_svg(drawing(size=size), ImageOptions(), Limits())
    assert (picture.height, picture.width) == shape
    assert picture.decode().pixels.shape == (*shape, 4)


@pytest.mark.parametrize(
    "size", ["", 'width="16"', 'width="auto" height="12"', 'width="0" height="12"', 'viewBox="0 0 -1 12"', 'width="-1" height="1"']
)
def test_a_drawing_without_a_size_is_refused(size: str) -> None:
    with pytest.raises(MemberError, match="no size"):
        drawn(drawing(size=size))


@pytest.mark.parametrize(("size", "shape"), [('width="16" height="12"', (75, 100)), ('width="12" height="16"', (100, 75))])
def test_vector_size_is_the_longer_side(size: str, shape: tuple[int, int]) -> None:
    assert drawn(drawing(size=size), 100).shape == (*shape, 4)


@settings(deadline=None, max_examples=60)
@given(st.floats(0.1, 300), st.floats(0.1, 300), st.none() | st.integers(1, 200))
def test_the_size_is_known_before_anything_is_drawn(width: float, height: float, longer: int | None) -> None:
    data = drawing(size=f'width="{width:.2f}" height="{height:.2f}"')
    picture = open_svg(data, ImageOptions(vector_size=longer), Limits())
    assert picture.decode().pixels.shape == (picture.height, picture.width, 4)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "iso-8859-1"])
def test_the_encoding_is_the_declared_one(encoding: str) -> None:
    text = f'<?xml version="1.0" encoding="{encoding}"?><!-- \xe9 -->' + drawing().decode()
    assert np.array_equal(drawn(text.encode(encoding)), drawn(drawing()))


def test_entities_of_the_document_are_used() -> None:
    before = '<!DOCTYPE svg [<!ENTITY colour "#f00">]>'
    assert drawn(drawing('<rect width="16" height="12" fill="&colour;"/>', before=before))[0, 0].tolist() == [255, 0, 0, 255]


def test_text_is_drawn_with_the_fonts_of_the_machine() -> None:
    assert svg._has_fonts() == bool(drawn_by_resvg('<text y="12">H</text>').any())


def drawn_by_resvg(content: str) -> NDArray[Any]:
    return np.asarray(Image.open(io.BytesIO(resvg_py.svg_to_bytes(svg_string=drawing(content).decode()))))


def test_text_is_refused_where_there_are_no_fonts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(svg, "_has_fonts", lambda: False)
    with pytest.raises(MemberError, match="no font"):
        drawn(drawing("<text>H</text>"))
    assert drawn(drawing()).any()


# What a drawing must not do


@pytest.mark.parametrize(
    "content",
    [
        '<image width="16" height="12" href="{}"/>',
        '<image width="16" height="12" xlink:href="{}"/>',
        '<image width="16" height="12" href=" {} "/>',
        '<filter id="f"><feImage href="{}"/></filter>',
        '<use href="{}#part"/>',
    ],
)
@pytest.mark.parametrize("place", ["file:///etc/hostname", "{here}/red.png", "red.png", "http://127.0.0.1:9/x.png", "//127.0.0.1/x.png"])
def test_nothing_outside_of_the_drawing_is_opened(content: str, place: str, tmp_path: Path) -> None:
    Image.new("RGB", (16, 12), "red").save(tmp_path / "red.png")
    with pytest.raises(MemberError, match="nothing from outside"):
        drawn(drawing(content.format(place.replace("{here}", str(tmp_path)))))


def test_links_are_not_drawn_and_may_lead_anywhere() -> None:
    assert drawn(drawing(f'<a href="https://example.org">{HALF_RED}</a>')).any()


def test_an_external_entity_is_not_read() -> None:
    with pytest.raises(MemberError):
        drawn(drawing("<text>&x;</text>", before='<!DOCTYPE svg [<!ENTITY x SYSTEM "file:///etc/hostname">]>'))


BOMB = "".join(f'<!ENTITY e{level} "{f"&e{level - 1};" * 10}">' for level in range(1, 10))
USES = "".join(f'<g id="u{level}">{f"<use href=%s#u{level - 1}%s/>" % (chr(34), chr(34)) * 10}</g>' for level in range(1, 8))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (drawing(before=f'<!DOCTYPE svg [<!ENTITY e0 "<g/>">{BOMB}]>', content="&e9;"), "amplification"),
        (drawing(f'<g id="u0">{HALF_RED}</g>{USES}<use href="#u7"/>'), "limit"),
        (drawing("<g>" * LEVELS + "</g>" * LEVELS), "nested too deeply"),
        (drawing("<g>" * 1_000_000), "nested too deeply"),
        (drawing(size='width="100000" height="100000"'), "limits.pixels"),
        (drawing(size='width="1e30" height="1e30"'), "limits.pixels"),
        (b"<html/>", "not SVG"),
        (b"<svg/>", "not SVG"),
        (b"", "not SVG"),
        (drawing()[:-3], "not SVG"),
        (drawing('<g id="a"><rect'), "not SVG"),
    ],
)  # fmt: skip
def test_hostile_and_broken_drawings_are_refused(data: bytes, reason: str) -> None:
    with pytest.raises(MemberError, match=reason):
        drawn(data)


def test_a_drawing_nested_as_deeply_as_allowed_is_drawn() -> None:
    depth = LEVELS - 2
    assert drawn(drawing('<g opacity="0.99">' * depth + HALF_RED + "</g>" * depth)).any()


def test_the_limit_on_pixels_holds_for_the_size_that_is_asked_for() -> None:
    with pytest.raises(MemberError, match=r"limits\.pixels"):
        drawn(drawing(), 1000, Limits(pixels=1000))


# Pictures in it


def embedded(data: bytes, kind: str = "image/png") -> bytes:
    return drawing(f'<image width="16" height="12" href="data:{kind};base64,{base64.b64encode(data).decode()}"/>')


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP"])
def test_pictures_in_the_drawing_are_drawn(kind: str) -> None:
    stream = io.BytesIO()
    Image.new("RGB", (16, 12), "blue").save(stream, kind)
    assert drawn(embedded(stream.getvalue(), f"image/{kind.lower()}")).reshape(-1, 4).mean(axis=0) == pytest.approx([0, 0, 255, 255], abs=2)


@pytest.mark.parametrize("kind", ["image/png", "image/jpeg", "image/svg+xml", "text/plain", ""])
def test_a_picture_in_the_drawing_that_cannot_be_drawn_costs_the_drawing(kind: str) -> None:
    with pytest.raises(MemberError):
        drawn(embedded(b"no picture", kind))


def test_pictures_in_the_drawing_are_not_decoded_for_its_size() -> None:
    assert open_svg(embedded(b"no picture"), ImageOptions(), Limits()).upright == (12, 16)


# Compressed


def test_a_compressed_drawing_is_inflated() -> None:
    assert np.array_equal(drawn(gzip.compress(drawing())), drawn(drawing()))


@pytest.mark.parametrize("size", range(2, len(gzip.compress(drawing()))))
def test_a_cut_compressed_drawing_is_refused(size: int) -> None:
    with pytest.raises(MemberError):
        drawn(gzip.compress(drawing())[:size])


def test_bytes_behind_a_compressed_drawing_are_refused() -> None:
    with pytest.raises(MemberError, match="does not end"):
        drawn(gzip.compress(drawing()) + b"more")


def test_what_inflates_to_more_than_may_be_read_whole_is_refused() -> None:
    with pytest.raises(MemberError, match=r"limits\.whole_bytes"):
        drawn(gzip.compress(drawing() + b" " * 10_000), limits=Limits(whole_bytes=5000))


# Recognition


@pytest.mark.parametrize(("data", "path"), [(drawing(), "x"), (b"<?xml", "x.svg"), (gzip.compress(drawing()), "x.svgz")])
def test_it_is_recognised(data: bytes, path: str) -> None:
    handler = handler_for(data, path)
    assert handler is not None and handler.name == "svg"


@pytest.mark.parametrize("data", [drawing(), drawing(before="<?xml version='1.0'?>\n"), gzip.compress(drawing())])
def test_a_drawing_stored_as_it_is_is_drawn_when_read(data: bytes) -> None:
    assert np.array_equal(image.decode(data, ImageOptions()), drawn(drawing()))
