"""Text encodings: the first bytes of a text in, its codec out, and any text as a stream of UTF-8."""

from __future__ import annotations

import codecs
import io
from dataclasses import dataclass
from typing import BinaryIO

from h5dat_lib.errors import MemberError

SAMPLE_BYTES = 64 << 10
"""Bytes of a text that is not UTF-8 which are looked at to guess its codec."""

_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16: it starts with the same two bytes
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


@dataclass(frozen=True, slots=True)
class Codec:
    """A codec's name as Python spells it, and the bytes of the byte order mark to leave out.

    ``certain`` is False when only the start of a text has been seen, and it was UTF-8.
    """

    name: str
    bom: int = 0
    certain: bool = True


def detect(data: bytes, given: str | None = None, complete: bool = True) -> Codec:
    """The codec of a text: its byte order mark, else the given one, else UTF-16 without a mark, else UTF-8, else a guess at the first
    `SAMPLE_BYTES`.

    ``complete`` is False when ``data`` is only the start of the text, and may end within a character.
    Raises MemberError when the given codec does not exist, or when the bytes look like no text.
    """
    for mark, name in _BOMS:
        if data.startswith(mark):
            return Codec(name, len(mark))
    if given is not None:
        return Codec(_known(given))
    if wide := _wide(data[:SAMPLE_BYTES]):
        return Codec(wide)
    try:
        codecs.getincrementaldecoder("utf-8")().decode(data, complete)
    except UnicodeDecodeError as exc:
        return Codec(guess(_around(data, exc.start)))
    return Codec("utf-8", certain=complete)


def _wide(data: bytes) -> str | None:
    """UTF-16 when every second byte, but for a few, is NUL and no other one is, as in most text in Latin letters.

    As UTF-8 such bytes are valid, too, but NULs between all letters are no text.
    """
    if len(data) % 2:
        return None
    high, low = data[::2], data[1::2]
    for codec, empty, full in (("utf-16-le", low, high), ("utf-16-be", high, low)):
        if empty.count(0) > len(data) / 4 and not full.count(0):
            return codec
    return None


def guess(data: bytes) -> str:
    """The most likely codec of bytes that are not UTF-8, by charset-normalizer. Raises MemberError when they look like no text.

    Among codecs that make equally good sense it takes any; cp1252 is by far the most frequent (w3techs.com), so it wins a tie.
    """
    import charset_normalizer  # 45 ms, and most texts are UTF-8

    sample = data[:SAMPLE_BYTES]
    if len(data) > SAMPLE_BYTES:  # cut where no multi-byte codec has half a character
        sample = sample[: sample.rfind(b"\n") + 1] or sample
    best = None if b"\0" in sample else charset_normalizer.from_bytes(sample).best()
    if best is None:
        raise MemberError(f"not text: found {_first_odd(sample)}, expected UTF-8 or a known encoding")
    usual = charset_normalizer.from_bytes(sample, cp_isolation=["cp1252"]).best()
    if usual is not None and usual.chaos <= best.chaos and usual.coherence >= best.coherence:
        best = usual
    return _known(best.encoding)


def to_text(data: bytes, codec: Codec, complete: bool = True) -> str:
    """The text, less a last character that is cut when ``complete`` is False. Raises MemberError that names the first odd byte."""
    try:
        return codecs.getincrementaldecoder(codec.name)().decode(data[codec.bom :], complete)
    except UnicodeError as exc:
        raise _undecodable(exc, codec, codec.bom) from exc


class Utf8(io.RawIOBase):
    """A text of any codec as a raw stream of checked UTF-8, without its byte order mark; holds two reads at most.

    ``undecodable`` keeps bytes around the one at which reading failed with MemberError; ``ascii`` tells whether all before were ASCII.
    """

    def __init__(self, source: BinaryIO, codec: Codec) -> None:
        self.undecodable = b""
        self.ascii = True
        self._source = source
        self._codec = codec
        self._decoder = codecs.getincrementaldecoder(codec.name)()
        self._at = len(source.read(codec.bom))
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self._ready:
            data = self._source.read(len(buffer))
            self._ready = memoryview(self._utf8(data))
            self._at += len(data)
            if not data:
                break
        size = min(len(buffer), len(self._ready))
        buffer[:size] = self._ready[:size]
        self._ready = self._ready[size:]
        return size

    def _utf8(self, data: bytes) -> bytes:
        is_utf8 = self._codec.name == "utf-8"
        if is_utf8 and data and data.isascii() and not self._decoder.getstate()[0]:
            return data
        try:
            text = self._decoder.decode(data, not data)
        except UnicodeDecodeError as exc:
            self.undecodable = _around(exc.object, exc.start)
            self.ascii = self.ascii and exc.object[: exc.start].isascii()
            raise _undecodable(exc, self._codec, self._at + len(data) - len(exc.object)) from exc
        except UnicodeError as exc:
            raise _undecodable(exc, self._codec, 0) from exc
        self.ascii = self.ascii and text.isascii()
        return data if is_utf8 else text.encode()

    def close(self) -> None:
        if not self.closed:
            self._source.close()
        super().close()


def _around(data: bytes, at: int) -> bytes:
    """The bytes from at most half a sample before ``at``, from the start of a line where there is one."""
    start = at - SAMPLE_BYTES // 2
    return data if start <= 0 else data[data.find(b"\n", start, at) + 1 or start :]


def _known(name: str) -> str:
    """Python's own spelling of a codec. Raises MemberError when it has no such text codec."""
    try:
        b"?".decode(name)
    except LookupError as exc:
        raise MemberError(f"unknown encoding: found {name!r}, expected a codec name such as latin-1") from exc
    except UnicodeDecodeError:
        pass  # one byte is no character in UTF-16: the codec exists all the same
    return codecs.lookup(name).name


def _first_odd(data: bytes) -> str:
    try:
        data.decode()
    except UnicodeDecodeError as exc:
        return f"byte 0x{data[exc.start]:02x}"
    return "a NUL character"


def _undecodable(exc: UnicodeError, codec: Codec, start: int) -> MemberError:
    if not isinstance(exc, UnicodeDecodeError):  # such as of utf-16, which needs a byte order mark when it is asked for by this name
        return MemberError(f"not text: {exc}, expected {codec.name}")
    return MemberError(f"not text: found byte 0x{exc.object[exc.start]:02x} at {start + exc.start}, expected {codec.name}")
