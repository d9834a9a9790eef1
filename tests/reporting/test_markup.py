"""Nothing but elements is markup, and no text is longer than it may be."""

from __future__ import annotations

from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from h5dat_lib.reporting.markup import Markup, joined, tag


class _Parsed(HTMLParser):
    """What a parser sees."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.seen: list[object] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, attrs))

    def handle_data(self, data: str) -> None:
        self.seen.append(data)


@given(
    st.text(st.characters(exclude_categories=("Cc", "Cs", "Cf")), min_size=1, max_size=60),
    st.text(st.characters(exclude_categories=("Cc", "Cs", "Cf"))),
)
def test_a_parser_sees_texts_and_attributes_as_they_are_and_nothing_else(text: str, value: str) -> None:
    assert _Parsed(tag("b", text, title=value[:60])).seen == [("b", [("title", value[:60])]), text]


def test_markup_is_left_as_it_is_and_long_texts_are_cut() -> None:
    assert joined(tag("i", Markup("<b>"), "<b>"), "&") == "<i><b>&lt;b&gt;</i>&amp;"
    assert tag("i", "x" * 1000) == f"<i>{'x' * 199}…</i>"
    assert tag("img", alt="\x1b[31m\x00\u202e") == '<img alt="\\x1b[31m\\x00\\u202e">'
    assert tag("td", "1", class_="a", data_name="b") == '<td class="a" data-name="b">1</td>'
