import pytest

from h5dat_lib.config import MediumOptions, TextOptions
from h5dat_lib.errors import MemberError
from tests.convert.conftest import converted

SENTENCES = {
    "cp1252": "L'été dernier, nous avons visité la forêt près de l'étang. C'était très agréable.\n",
    "cp1251": "Привет, мир! Это обычный русский текст, довольно короткий.\n",
    "cp932": "これは日本語のテキストです。\n今日は良い天気ですね。\n",
}


def read(data: bytes, encoding: str | None = None) -> tuple[str, str]:
    (block,) = converted(data, "a.txt", MediumOptions(text=TextOptions(encoding=encoding)))
    return block.columns["text"].values[0].decode(), block.columns["encoding"].values[0].decode()


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
