"""Elements of an HTML page, or of SVG in it -> text in which nothing but these elements is markup, whatever the values hold."""

from __future__ import annotations

import re
from html import escape

from h5dat_lib.errors import escaped

_MOST = 200
"""Most characters of a text, so that no value makes a page long."""
_TURNING = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""Characters that turn the direction of what follows: a name could look like another."""
_VOID = {"img", "meta"}


class Markup(str):
    """Text that is markup already; anything else is escaped."""

    __slots__ = ()


def tag(name: str, /, *children: str, **attributes: str) -> Markup:
    """An element. Texts in it and values of attributes are cut to 200 characters and escaped, unless they are `Markup`.

    Attributes that Python has words for are written with an underscore behind: ``class_``.
    """
    head = name + "".join(f' {key.rstrip("_").replace("_", "-")}="{_safe(value)}"' for key, value in attributes.items())
    return Markup(f"<{head}>" if name in _VOID else f"<{head}>{''.join(map(_safe, children))}</{name}>")


def joined(*parts: str) -> Markup:
    """Elements and texts one after the other."""
    return Markup("".join(map(_safe, parts)))


def _safe(text: str) -> str:
    if isinstance(text, Markup):
        return text
    text = text if len(text) <= _MOST else f"{text[: _MOST - 1]}…"
    return escape(_TURNING.sub(lambda found: f"\\u{ord(found[0]):04x}", escaped(text)))
