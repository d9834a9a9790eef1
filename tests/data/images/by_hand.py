"""Pictures that no encoder at hand writes, put together byte by byte with the standard library: python3 by_hand.py WHAT [IN...] OUT."""

from __future__ import annotations

import struct
import sys
import zlib
from pathlib import Path


def ycck(cmyk: bytes) -> bytes:
    """An Adobe JPEG whose APP14 says that its inks are coded as YCCK."""
    at = cmyk.index(b"Adobe\0")
    return cmyk[: at + 11] + b"\2" + cmyk[at + 12 :]


def exif(jpeg: bytes) -> bytes:
    """A JPEG with the orientation 6: turned by 90 degrees clockwise when shown."""
    entry = struct.pack(">HHLHH", 0x0112, 3, 1, 6, 0)
    tiff = b"Exif\0\0MM\0*" + struct.pack(">LH", 8, 1) + entry + bytes(4)
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(tiff) + 2) + tiff + jpeg[2:]


def cur(ico: bytes) -> bytes:
    """A cursor is an icon of type 2 with a hot spot where an icon has planes and depth."""
    return ico[:2] + b"\2\0" + ico[4:10] + struct.pack("<2H", 8, 6) + ico[14:]


def icns(png: bytes) -> bytes:
    """A container with one icon of 16 x 16, which is a PNG."""
    return b"icns" + struct.pack(">L", 16 + len(png)) + b"icp4" + struct.pack(">L", 8 + len(png)) + png


def pxr(ppm: bytes) -> bytes:
    """A header of 1024 bytes with height, width, tile height and tile width at 416, channels at 424; then the rows."""
    header = bytearray(1024)
    header[:4] = b"\x80\xe8\0\0"
    struct.pack_into("<6H", header, 416, 12, 16, 12, 16, 14, 2)
    return bytes(header) + ppm[-16 * 12 * 3 :]


def dos_eps(eps: bytes) -> bytes:
    """The binary header of Windows, a drawing, and a preview that is none."""
    return b"\xc5\xd0\xd3\xc6" + struct.pack("<6LH", 30, len(eps), 0, 0, 30 + len(eps), 8, 0xFFFF) + eps + b"II*\0\0\0\0\0"


def apng(first: bytes, second: bytes) -> bytes:
    """Two pictures as an animation, shown for 0.1 s and 0.25 s."""
    (head, pixels), (_, others) = (_chunks(png) for png in (first, second))
    shown = [struct.pack(">5L2H2B", number, 16, 12, 0, 0, hundredths, 100, 0, 0) for number, hundredths in ((0, 10), (1, 25))]
    parts = [(b"IHDR", head), (b"acTL", struct.pack(">2L", 2, 0)), (b"fcTL", shown[0]), (b"IDAT", pixels), (b"fcTL", shown[1])]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*part) for part in [*parts, (b"fdAT", struct.pack(">L", 2) + others), (b"IEND", b"")])


def _chunks(png: bytes) -> tuple[bytes, bytes]:
    """What IHDR holds, and all IDAT together."""
    found: dict[bytes, bytes] = {}
    at = 8
    while at < len(png):
        size, name = struct.unpack_from(">L4s", png, at)
        found[name] = found.get(name, b"") + png[at + 8 : at + 8 + size]
        at += 12 + size
    return found[b"IHDR"], found[b"IDAT"]


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">L", len(data)) + name + data + struct.pack(">L", zlib.crc32(name + data))


def fits() -> bytes:
    """A table of nothing to show, then 2 planes of 12 x 16 unsigned 16-bit numbers: plane * 1000 + row * 16 + column + 32768."""
    cards = [
        "SIMPLE  =                    T",
        "BITPIX  =                    8",
        "NAXIS   =                    0",
        "EXTEND  =                    T",
    ]
    axes = [
        "NAXIS   =                    3",
        "NAXIS1  =                   16",
        "NAXIS2  =                   12",
        "NAXIS3  =                    2",
    ]
    more = [
        "PCOUNT  =                    0",
        "GCOUNT  =                    1",
        "BZERO   =                32768",
        "BSCALE  =                    1",
    ]
    told = [
        "OBJECT  = 'M 13    '           / what is seen",
        "EXPTIME =                  1.5",
        "FLAG    =                    T",
        "EMPTY   =",
        "COMMENT one",
        "COMMENT two",
    ]
    image = ["XTENSION= 'IMAGE   '", "BITPIX  =                   16", *axes, *more, *told]
    numbers = [plane * 1000 + row * 16 + column for plane in range(2) for row in range(12) for column in range(16)]
    return _cards(cards) + _cards(image) + _padded(struct.pack(f">{len(numbers)}h", *numbers), b"\0")


def _cards(cards: list[str]) -> bytes:
    return _padded("".join(card.ljust(80) for card in [*cards, "END"]).encode(), b" ")


def _padded(data: bytes, filler: bytes) -> bytes:
    return data + filler * (-len(data) % 2880)


def bufr() -> bytes:
    """Two messages of edition 4: two stations with name, place and temperature, of which one is missing; then one of one station."""
    missing = (1 << 16) - 1
    stations = [("ONE", 52.5, 13.25, 28315), ("TWO", -33.75, 151.125, missing), ("THREE", 0.0, -0.5, 30000)]
    return _message(stations[:2]) + b"\r\r\nTTAA00\r\r\n" + _message(stations[2:])


def _message(stations: list[tuple[str, float, float, int]]) -> bytes:
    """Descriptors of table B, version 13: 0 01 015, 0 05 001, 0 06 001 and 0 12 101."""
    bits = "".join(
        "".join(f"{byte:08b}" for byte in name.ljust(20).encode())
        + f"{round((latitude + 90) * 100_000):025b}{round((longitude + 180) * 100_000):026b}{temperature:016b}"
        for name, latitude, longitude, temperature in stations
    )
    bits += "0" * (-len(bits) % 8)
    values = int(bits, 2).to_bytes(len(bits) // 8, "big")
    first = struct.pack(">HHB BBBB BB HBBBBB", 98, 0, 0, 0, 0, 255, 0, 13, 0, 2026, 11, 22, 12, 30, 0)
    descriptors = struct.pack(">4H", 0x010F, 0x0501, 0x0601, 0x0C65)
    sections = _section(b"\0" + first) + _section(struct.pack(">BHB", 0, len(stations), 0x80) + descriptors) + _section(b"\0" + values)
    return b"BUFR" + (12 + len(sections)).to_bytes(3, "big") + b"\4" + sections + b"7777"


def _section(data: bytes) -> bytes:
    return (3 + len(data)).to_bytes(3, "big") + data


if __name__ == "__main__":
    what, *sources, target = sys.argv[1:]
    Path(target).write_bytes(globals()[what](*(Path(source).read_bytes() for source in sources)))
