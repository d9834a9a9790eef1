import xml.etree.ElementTree as ET
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from h5dat_lib.config import MediumOptions, TextOptions
from h5dat_lib.convert import handler_for
from h5dat_lib.errors import MemberError
from tests.convert.conftest import converted

SENTENCES = {
    "cp1252": "L'été dernier, nous avons visité la forêt près de l'étang. C'était très agréable.\n",
    "cp1251": "Привет, мир! Это обычный русский текст, довольно короткий.\n",
    "cp932": "これは日本語のテキストです。\n今日は良い天気ですね。\n",
}


def row(data: bytes, path: str, encoding: str | None = None) -> dict[str, Any]:
    (block,) = converted(data, path, MediumOptions(text=TextOptions(encoding=encoding)))
    return {name: column.values[0].decode() for name, column in block.columns.items()}


def read(data: bytes, encoding: str | None = None, path: str = "a.txt") -> tuple[str, str]:
    found = row(data, path, encoding)
    return found["text"], found["encoding"]


@pytest.mark.parametrize("codec", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_tells_the_codec_and_is_left_out(codec: str) -> None:
    text, encoding = read("größer\n日本\n".encode(codec))
    assert text == "größer\n日本\n"
    assert encoding.startswith(codec.removesuffix("-sig"))


@pytest.mark.parametrize("text", ["", "plain", "größer 日本 \U0001f600", "a\0b", "line\r\nline\r"])
def test_utf8_is_kept_as_it_is(text: str) -> None:
    assert read(text.encode()) == (text, "utf-8")


@pytest.mark.parametrize("codec", SENTENCES)
def test_other_codecs_are_guessed(codec: str) -> None:
    assert read(SENTENCES[codec].encode(codec)) == (SENTENCES[codec], codec)


@pytest.mark.parametrize("word", ["café", "Genève", "Zürich;Genève\nKöln;Málaga"])
def test_few_odd_bytes_are_western(word: str) -> None:
    assert read(word.encode("cp1252"))[0] == word


@pytest.mark.parametrize("before", [100_000, 32_768, 40_000])
def test_odd_bytes_behind_the_sample_are_guessed_from_their_surroundings(before: int) -> None:
    text = "line\n" * (before // 5) + SENTENCES["cp932"] + "line\n" * 20_000
    assert read(text.encode("cp932"))[0] == text


def test_a_given_codec_wins_over_guessing_but_not_over_a_mark() -> None:
    assert read(b"\x82\xa0", "cp437") == ("éá", "cp437")
    assert read("日".encode("utf-16-le"), "utf-16-le") == ("日", "utf-16-le")
    assert read("é".encode("utf-8-sig"), "cp437") == ("é", "utf-8")


@pytest.mark.parametrize("encoding", ["no-such-codec", "base64", "rot13"])
def test_an_unknown_codec_is_a_member_error(encoding: str) -> None:
    with pytest.raises(MemberError, match="unknown encoding"):
        read(b"abc", encoding)


@pytest.mark.parametrize("data", [bytes(range(256)) * 4, b"\xff\xd8\xfe\0\1\2\3", b"\xff\xfe\x00"])
def test_binary_data_is_a_member_error(data: bytes) -> None:
    with pytest.raises(MemberError, match="not text"):
        read(data)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_a_codec_that_needs_a_byte_order_mark_says_so(encoding: str) -> None:
    with pytest.raises(MemberError, match=f"^not text: .* does not start with BOM, expected {encoding}$"):
        read("text".encode(f"{encoding}-le"), encoding)


def test_bytes_the_given_codec_lacks_are_named() -> None:
    with pytest.raises(MemberError, match="found byte 0x81 at 3, expected cp1252"):
        read(b"abc\x81", "cp1252")


# Markup


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("a.txt", "txt"), ("README.MD", "md"), ("a.markdown", "md"), ("a.rst", "rst"), ("a.log", "log"), ("a.xml", "xml"),
        ("a.html", "html"), ("a.htm", "html"), ("a.xhtml", "html"), ("a.yaml", "yaml"), ("a.yml", "yaml"), ("a.ini", "ini"),
        ("a.cfg", "ini"), ("a.toml", "toml"), ("a.srt", "srt"), ("a.vtt", "vtt"), ("a.tex", "tex"),
    ],
)  # fmt: skip
def test_text_of_any_format_is_kept_as_it_is(path: str, kind: str) -> None:
    text = "# größer\r\nkey = 'value'\n\n1\n00:00:01,000 --> 00:00:02,000\n"
    assert row(text.encode(), path) == {"text": text, "encoding": "utf-8", "format": kind}
    assert row(text.encode("utf-16"), path)["text"] == text
    assert row(SENTENCES["cp1251"].encode("cp1251"), path) == {"text": SENTENCES["cp1251"], "encoding": "cp1251", "format": kind}


def test_a_class_of_texts_takes_what_is_text_whatever_it_is() -> None:
    names = {path: handler.name for path in ("a.svg", "a", "a.csv", "a.xml") if (handler := handler_for(b"<svg ", path, "texts"))}
    assert names == {"a.svg": "txt", "a": "txt", "a.csv": "txt", "a.xml": "xml"}


def xml(declared: str, content: str = "Größe: café") -> str:
    return f"<?xml version='1.0' encoding='{declared}'?>\n<a>{content}</a>"


@pytest.mark.parametrize("codec", ["iso-8859-1", "iso-8859-15", "windows-1252", "utf-8", "koi8-r", "cp437"])
def test_xml_is_read_as_it_declares(codec: str) -> None:
    data = xml(codec, "Дом" if codec == "koi8-r" else "Größe").encode(codec)
    text, _ = read(data, path="a.xml")
    assert text == data.decode(codec)
    assert ET.fromstring(text.partition("?>")[2]).text == ET.fromstring(data).text  # expat reads the bytes by itself


@pytest.mark.parametrize("codec", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_xml_of_wide_characters_needs_no_byte_order_mark(codec: str) -> None:
    assert read(xml("utf-16").encode(codec), path="a.xml") == (xml("utf-16"), codec)


@pytest.mark.parametrize("codec", ["utf-16-le", "utf-16-be"])
def test_wide_xml_is_read_as_expat_reads_it(codec: str) -> None:
    data = xml("utf-16").encode(codec)
    assert ET.fromstring(read(data, path="a.xml")[0].partition("?>")[2]).text == ET.fromstring(data).text


@pytest.mark.parametrize("codec", ["cp037", "cp500"])
def test_xml_in_ebcdic_is_read_as_it_declares(codec: str) -> None:
    assert read(xml(codec, "abc").encode(codec), path="a.xml") == (xml(codec, "abc"), codec)


@pytest.mark.parametrize(
    "declared", ["utf-16", "UTF-16LE", "utf32", "no-such-codec", "hex", "base64", "utf-7", "unicode_escape", "punycode", "ascii", "idna"]
)
def test_a_declaration_that_cannot_be_true_is_passed_over(declared: str) -> None:
    text = xml(declared, "+AGE- \\u0041 größer")
    assert read(text.encode(), path="a.xml") == (text, "utf-8")


def test_a_byte_order_mark_and_a_given_codec_outweigh_a_declaration() -> None:
    text = xml("iso-8859-1")
    assert read(text.encode("utf-8-sig"), path="a.xml") == (text, "utf-8")
    assert read(text.encode("utf-16"), path="a.xml")[0] == text
    assert read(text.encode("cp437"), "cp437", "a.xml") == (text, "cp437")


def test_only_markup_declares() -> None:
    text = xml("iso-8859-1")
    assert read(text.encode(), path="a.txt") == (text, "utf-8")


@pytest.mark.parametrize(
    ("head", "codec"),
    [
        ('<meta charset="iso-8859-2">', "iso8859-2"),
        ("<META CHARSET=ISO-8859-2>", "iso8859-2"),
        ("<meta charset=' iso-8859-2 '/>", "iso8859-2"),
        ('<meta name="a" charset="iso-8859-2">', "iso8859-2"),
        ('<meta http-equiv="Content-Type" content="text/html; charset=iso-8859-2">', "iso8859-2"),
        ("<meta content='text/html;charset = \"iso-8859-2\"' http-equiv=content-type>", "iso8859-2"),
        ('<!-- <meta charset="koi8-r"> --><meta charset="iso-8859-2">', "iso8859-2"),
        ('<meta charset="iso-8859-2"><meta charset="koi8-r">', "iso8859-2"),
        ('<meta charset="latin1">', "cp1252"),
        ('<meta charset="us-ascii">', "cp1252"),
        ('<meta charset="iso-8859-9">', "cp1254"),
        ('<meta charset="big5">', "big5hkscs"),
        ('<meta charset="utf-16">', "utf-8"),
        ('<meta charset="utf-7">', "utf-8"),
        ('<meta charset="">', "utf-8"),
        ('<meta name="description" content="charset=koi8-r">', "utf-8"),
        (" " * 1024 + '<meta charset="koi8-r">', "utf-8"),
    ],
)
def test_html_is_read_as_browsers_read_it(head: str, codec: str) -> None:
    text = f"<!DOCTYPE html><html>{head}<title>{'日本' if codec == 'big5hkscs' else 'Ö'}</title>"
    assert read(text.encode(codec), path="a.html") == (text, codec)


@pytest.mark.parametrize(
    ("charset", "codec", "title"),
    [("gb2312", "gb18030", "镕"), ("Shift_JIS", "cp932", "①"), ("ks_c_5601-1987", "cp949", "똠"), ("iso-8859-1", "cp1252", "€")],
)
def test_what_the_web_means_by_a_name_is_more_than_the_name_says(charset: str, codec: str, title: str) -> None:
    text = f"<meta charset={charset}><title>{title}</title>"
    assert read(text.encode(codec), path="a.htm") == (text, codec)


def test_xhtml_may_declare_as_xml_does() -> None:
    text = xml("iso-8859-2", "<meta charset='koi8-r'/>Ő")
    assert read(text.encode("iso-8859-2"), path="a.xhtml") == (text, "iso8859-2")


def test_html_that_is_not_what_it_declares_is_detected() -> None:
    text = "<meta charset=utf-8><title>L'été dernier, nous avons visité la forêt près de l'étang. C'était très agréable.</title>"
    assert read(text.encode("cp1252"), path="a.html") == (text, "cp1252")


@given(
    st.binary(max_size=200),
    st.sampled_from(["a.xml", "a.html"]),
    st.sampled_from([b"", b"<?xml encoding='", b"<meta charset=", b"Lo\xa7\x94"]),
)
def test_any_bytes_are_text_or_a_member_error(data: bytes, path: str, start: bytes) -> None:
    try:
        text, encoding = read(start + data, path=path)
    except MemberError:
        return
    assert text == (start + data).decode(encoding) or text == (start + data).decode(encoding).removeprefix("\ufeff")
