"""The page: what a parser sees on it, on files that mean well and on others."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

import h5dat_lib
from h5dat_lib.errors import FormatError
from h5dat_lib.reporting import page as reporting
from tests.conftest import config, make_zip, picture

ELEMENTS = """
    html head meta title style body main header h1 h2 h3 h4 div span b small nav a section p figure img figcaption
    table thead tbody tr th td svg path ul li i details summary footer
"""
ATTRIBUTES = """
    lang charset http-equiv content name class id href src alt title width height style data-name viewbox preserveaspectratio role
    aria-label d
"""


class Page(HTMLParser):
    """A page's elements, with their attributes and the text directly in them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in ("img", "meta"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.texts.append(data)

    def of(self, name: str, attribute: str) -> list[str]:
        return [str(attributes[attribute]) for element, attributes in self.elements if element == name and attribute in attributes]

    @property
    def text(self) -> str:
        return "".join(self.texts)


def paged(path: Path, most: int | None = 1000) -> Page:
    """The page, which is as small, self-contained and harmless as any has to be."""
    text = h5dat_lib.report(path, most)
    page = Page(text)
    assert len(text) < 2_000_000
    assert {name for name, _ in page.elements} <= {*ELEMENTS.split()}
    assert {name for _, attributes in page.elements for name in attributes} <= {*ATTRIBUTES.split()}
    assert all(source.startswith("data:image/jpeg;base64,") for source in page.of("img", "src"))
    assert all(re.fullmatch(r"#(class-\d+|lineage)", link) for link in page.of("a", "href"))
    assert all(re.fullmatch(r"width:[\d.]+%", style) for name in ("i", "div", "svg") for style in page.of(name, "style"))
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in page.of("meta", "content")
    assert not re.search(r"https?:|url\(|@import", text[text.index("<style>") : text.index("</style>")])
    return page


def test_a_page_shows_classes_pictures_labels_numbers_and_lineage(tmp_path: Path) -> None:
    members = {f"{'dog' if n % 3 else 'cat'}/{n}.png": picture(8 + n, 6, n) for n in range(40)}
    members |= {"sizes.csv": b"x,day\n1.5,2026-01-01\n2.5,2026-01-05\n,\n", "broken.png": b"no picture"}
    labels = {
        "classes": [{"name": "pets", "medium": "images", "extensions": ["png"], "labels": [{"name": "animal", "folder": 1}]}],
        "unmatched": "medium",
    }
    h5dat_lib.ingest(make_zip(tmp_path / "pets.zip", members), tmp_path / "pets.h5", config(schema=labels))
    page = paged(tmp_path / "pets.h5", 10)
    seen = page.text
    assert "pets.h5" in seen and "40 rows of 40 members" in seen and "24 of 40 rows, evenly spread" in seen
    assert "10 pictures, of 10 evenly spread over 40 rows" in seen and "at most 10 pictures of a class" in seen
    assert "dog26 65.0 %" in seen and "cat14 35.0 %" in seen
    assert "mean 2 \u00b1 0.5 · 1 row without" in seen and "2026-01-01" in seen and "8 to 47" in page.texts
    with h5dat_lib.open(tmp_path / "pets.h5") as file:
        assert file["pets"].origin(0).converter in page.texts and file["pets"].origin(0).archive in page.texts
    assert "everything was converted" not in seen and "broken.png" in page.texts and "convert" in page.texts
    sources = page.of("img", "src")
    with h5dat_lib.open(tmp_path / "pets.h5") as file:
        rows = [round(row) for row in np.linspace(0, 39, 24)]
        means = [file["pets"].pixels[row].mean() for row in rows]
        assert [text.rpartition(": ")[2] for text in page.of("img", "alt")] == [file["pets"].origin(row).member for row in rows]
        mean = np.concatenate([one.reshape(-1, 3) for one in file["pets"].pixels.rows(np.linspace(0, 39, 10).round().astype(int))]).mean(0)
    assert [text for text in page.texts if re.fullmatch(r"\d+\.\d\d", text)][:6:2] == [f"{value:,.2f}" for value in mean]
    for source, wanted in zip(sources, means, strict=True):
        with Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))) as image:
            assert image.format == "JPEG" and abs(np.asarray(image).mean() - wanted) < 8


HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</style></title><svg onload=alert(1)>",
    "' onmouseover='alert(1)",
    "&lt;b&gt;&#x3c;",
    "\u202egnp.exe",
)


def test_names_and_labels_of_strangers_are_text(tmp_path: Path) -> None:
    members = {f"{label.replace('/', '|')}/{n}{label.replace('/', '|')}.png": picture(seed=n) for n in range(3) for label in HOSTILE}
    members |= {f"{label.replace('/', '|')}.json": b"{" for label in HOSTILE}
    members["table.csv"] = "\n".join(
        f'"{text}","{text}"' for text in ["<i>", *[label.replace('"', '""') for label in HOSTILE] * 2]
    ).encode()
    labels = {
        "classes": [{"name": "images", "medium": "images", "extensions": ["png"], "labels": [{"name": "<b>", "folder": 1}]}],
        "unmatched": "medium",
    }
    h5dat_lib.ingest(make_zip(tmp_path / "<i>.zip", members), tmp_path / "<u>.h5", config(schema=labels))
    with h5py.File(tmp_path / "<u>.h5", "r+") as file:
        file.move("images", "<script>x")
    page = paged(tmp_path / "<u>.h5")
    for label in HOSTILE:
        seen = label.replace("/", "|").replace("\u202e", "\\u202e")
        assert seen in page.texts and any(seen in text for text in page.of("img", "title"))
    assert {"<u>.h5", "<script>x", "<b>"} <= {*page.texts} and any(text.endswith("<i>.zip") for text in page.texts)


def test_a_page_stays_small_whatever_there_is_and_says_what_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reporting, "_CLASSES", 30)
    members = {f"{n}/{at}{'x' * 180}.png": picture(128, 128, at) for n in range(33) for at in range(6)}
    header = ",".join(f"{n:04}{'c' * 250}" for n in range(400))
    members["33/a.csv"] = "\n".join([header, *(",".join(f"{n + at}{'v' * 200}" for at in range(400)) for n in (0, 0, 1))]).encode()
    classes = [{"name": f"{n:02}", "folders": [f"/{n}"], "medium": "images" if n < 33 else "tables"} for n in range(34)]
    h5dat_lib.ingest(make_zip(tmp_path / "a.zip", members), tmp_path / "out.h5", config(schema={"classes": classes[::-1]}))
    page = paged(tmp_path / "out.h5")
    assert "4 more classes are not shown" in page.text and "of 6 rows, evenly spread" in page.text
    assert len(page.of("img", "src")) < 30 * 6
    monkeypatch.setattr(reporting, "_CLASSES", 40)
    page = paged(tmp_path / "out.h5")
    assert f"the first {800 // 34} of 400" in page.text and "of 400 columns the first 4" in page.text


def test_a_file_without_rows_or_pictures_has_a_page(tmp_path: Path) -> None:
    h5dat_lib.ingest(make_zip(tmp_path / "a.zip", {"a.png": b"broken"}), tmp_path / "out.h5", config())
    assert "0rejects1" not in paged(tmp_path / "out.h5").text
    assert {"a.png", "rejects", "members not converted"} <= {*paged(tmp_path / "out.h5").texts}


def test_rejects_are_counted_by_their_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reporting, "_LINES", 1)
    members = {f"{n}.png": b"broken" for n in range(5)} | {"a.json": b"{"}
    h5dat_lib.ingest(make_zip(tmp_path / "a.zip", members), tmp_path / "out.h5", config())
    texts = paged(tmp_path / "out.h5").texts
    at = texts.index("0.png")
    assert texts[at - 3 : at - 1] == ["5", "convert"] and "and 1 for other reasons" in texts


def with_other_values(folder: Path, column: str, value: object) -> Path:
    """An output with another value in all rows of a column of its lineage."""
    h5dat_lib.ingest(make_zip(folder / "a.zip", {"a.txt": b"x", "b.json": b"{"}), folder / "out.h5", config())
    with h5py.File(folder / "out.h5", "r+") as file:
        old = file[f"lineage/{column}"]
        length = len(old["length"] if isinstance(old, h5py.Group) else old)
        del file[f"lineage/{column}"]
        file.create_dataset(f"lineage/{column}", data=np.full(length, value), chunks=(1,), maxshape=(None,)).attrs["layout"] = "plain"
    return folder / "out.h5"


@pytest.mark.parametrize("column", ["archives/size", "runs/start", "members/size", "members/rows"])
def test_words_where_numbers_belong_are_damage(tmp_path: Path, column: str) -> None:
    path = with_other_values(tmp_path, column, b"x")
    table, name = column.split("/")
    with pytest.raises(FormatError, match=f"lineage/{table}, column '{name}': found strings, expected numbers"):
        h5dat_lib.report(path)


@pytest.mark.parametrize("column", ["archives/uri", "runs/versions", "members/converter", "rejects/stage", "runs/end", "members/size"])
def test_other_numbers_are_shown_as_they_are(tmp_path: Path, column: str) -> None:
    seen = paged(with_other_values(tmp_path, column, np.inf)).text
    assert "out.h5" in seen and ("inf" in seen or column == "runs/versions")
