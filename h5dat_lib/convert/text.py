"""Plain text and markup: a member's bytes in, one row of UTF-8 text out.

What markup says of its own encoding is believed as far as it decodes: XML 1.0, appendix F; HTML, 13.2.3.2, and the Encoding Standard's
names of codecs. The text itself is kept as it is, with what it said.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from html.parser import HTMLParser

from h5dat_lib.archive.member import Content
from h5dat_lib.columns import Block, Bytes, Column, Scalars
from h5dat_lib.config import MediumOptions
from h5dat_lib.convert.encoding import Codec, detect, to_text
from h5dat_lib.errors import MemberError

__all__ = ["EXTENSIONS", "convert"]

EXTENSIONS: dict[str, tuple[str, ...]] = {
    "txt": (".txt",),
    "md": (".md", ".markdown"),
    "rst": (".rst",),
    "log": (".log",),
    "xml": (".xml",),
    "html": (".html", ".htm", ".xhtml"),
    "yaml": (".yaml", ".yml"),
    "ini": (".ini", ".cfg"),
    "toml": (".toml",),
    "srt": (".srt",),
    "vtt": (".vtt",),
    "tex": (".tex",),
}
"""Formats, and how their members are named."""

_XML_STARTS = (
    (b"\0\0\0<", "utf-32-be", True),
    (b"<\0\0\0", "utf-32-le", True),
    (b"\0<\0?", "utf-16-be", True),
    (b"<\0?\0", "utf-16-le", True),
    (b"Lo\xa7\x94", "cp037", False),
    (b"<?xml", "latin-1", False),
)
"""How a declaration starts without a byte order mark, what reads it, and whether that is the codec of the whole text."""
_XML_ENCODING = re.compile(r"""<\?xml\s[^>]*?encoding\s*=\s*["']([A-Za-z][A-Za-z0-9._-]*)["']""")
_XML_BYTES = 1024
_META_BYTES = 1024
"""Bytes of an HTML document in which its meta elements are looked for."""
_META_CHARSET = re.compile(r"""charset\s*=\s*["']?\s*([^\s;"']+)""", re.IGNORECASE)
_HTML_CODECS = {
    **dict.fromkeys(("ascii", "us-ascii", "latin1", "latin-1", "iso-8859-1", "iso8859-1", "l1", "x-user-defined"), "cp1252"),
    **dict.fromkeys(("utf-16", "utf-16le", "utf-16be"), "utf-8"),  # otherwise the meta element could not be read
    **dict.fromkeys(("gb2312", "gbk", "x-gbk"), "gb18030"),
    **dict.fromkeys(("shift_jis", "shift-jis", "sjis", "x-sjis", "windows-31j"), "cp932"),
    **dict.fromkeys(("euc-kr", "ks_c_5601-1987", "ksc5601"), "cp949"),
    **dict.fromkeys(("iso-8859-9", "latin5"), "cp1254"),
    **dict.fromkeys(("iso-8859-11", "tis-620"), "cp874"),
    "big5": "big5hkscs",
}
"""Names that mean another codec on the web than in Python."""
_NEVER = ("utf-7", "idna", "punycode", "undefined", "unicode-escape", "raw-unicode-escape")
"""Codecs of Python that make other text of what is plain ASCII, and that no markup may ask for."""


def convert(kind: str, content: Content, options: MediumOptions) -> Iterator[Block]:
    """One block of one row: ``text``, UTF-8 without byte order mark, ``encoding`` S16, the codec the member was read with, and ``format``
    S8, the kind, a key of `EXTENSIONS`.

    Raises MemberError when the bytes are no text.
    """
    text, codec = _decoded(content.read(), kind, options.text.encoding)
    columns: dict[str, Column] = {
        "text": Bytes([text.encode()], "text"),
        "encoding": Scalars([codec.name.encode()[:16]], "|S16"),
        "format": Scalars([kind.encode()], "|S8"),
    }
    yield Block(1, columns)


def _decoded(data: bytes, kind: str, given: str | None) -> tuple[str, Codec]:
    """The text by its byte order mark, the given codec, the one that it declares, or the one that is likely."""
    declared = next((name for look in _DECLARED.get(kind, ()) if (name := look(data))), None)
    if given is None and declared is not None:
        with suppress(MemberError):  # such a declaration is wrong, as many are that were copied from elsewhere
            codec = detect(data, declared)
            return to_text(data, codec), codec
    codec = detect(data, given)
    return to_text(data, codec), codec


def _of_xml(data: bytes) -> str | None:
    """The encoding of an XML declaration, or of the way in which it is written."""
    for start, name, whole in _XML_STARTS:
        if data.startswith(start):
            declaration = _XML_ENCODING.match(data[:_XML_BYTES].decode(name, "replace"))
            return name if whole else _allowed(declaration[1]) if declaration else None
    return None


def _of_meta(data: bytes) -> str | None:
    """The encoding of the first meta element that names one."""
    parser = _Meta()
    parser.feed(data[:_META_BYTES].decode("latin-1"))
    name = parser.charset.strip().lower()
    return _allowed(_HTML_CODECS.get(name, name))


def _allowed(name: str) -> str | None:
    """The codec, when there is one of that name and the bytes that named it, which were ASCII or EBCDIC, can be of it."""
    try:
        codec = codecs.lookup(name).name
    except (LookupError, ValueError):
        return None
    return None if codec in _NEVER or codec.startswith(("utf-16", "utf-32")) else codec


class _Meta(HTMLParser):
    """Reads HTML up to the first ``<meta charset>`` or ``<meta http-equiv=content-type>``."""

    def __init__(self) -> None:
        super().__init__()
        self.charset = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "meta" and not self.charset:
            said = dict(attrs)
            of_type = (said.get("http-equiv") or "").lower() == "content-type" and _META_CHARSET.search(said.get("content") or "")
            self.charset = said.get("charset") or (of_type[1] if of_type else "")


_DECLARED: dict[str, tuple[Callable[[bytes], str | None], ...]] = {"xml": (_of_xml,), "html": (_of_xml, _of_meta)}
"""Where markup says what its encoding is."""
