"""Valid inputs, made by encoders that are not ours: the standard library's, Pillow's, and those of tests/data."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import numpy as np
from PIL import Image

import h5dat_lib
from h5dat_lib.archive import open_archive
from h5dat_lib.archive.stream import zstd
from h5dat_lib.config import load
from h5dat_lib.plan.batches import Done, Plan
from h5dat_lib.plan.layout import Forms
from h5dat_lib.stage.batch import stage
from tests.archive.test_tar import gnu_sparse
from tests.archive.test_zip import Unseekable, end, entry, local
from tests.conftest import config, make_zip, picture

Seeds = list[bytes]
Pack = Callable[[bytes], bytes]

PACK: dict[str, Pack] = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "zst": zstd.compress}

JSON: Seeds = [
    b'{"a": [1, -2.5e3, true, null, "x\\u00e9\\ud800"], "b.c\\\\": {"": {}}, "a": "twice"}',
    b'[[[]], {}, [0, 1, 2, 3], "\xc3\xa9"]',
    b"\xef\xbb\xbf" + b'{"mark": 1}',
    '{"wide": "ü"}'.encode("utf-16-le"),
    '["wider"]'.encode("utf-32"),
    json.dumps({str(n): [n] * 3 for n in range(40)}, indent=1).encode(),
]
JSON_TOKENS = (b"[", b"]", b"{", b"}", b",", b":", b'"', b"\\", b"\\u", b"\\ud800", b"null", b"NaN", b"-Infinity", b"1e999", b"-0", b"\0",
               b"\xff", b"\xed\xa0\x80", b"9" * 50, b" ", b"\n", b"\xef\xbb\xbf", b"\xff\xfe")  # fmt: skip
JSONL: Seeds = [b'{"a": 1}\n\n[2]\r\n"x"\n' * 3, b'{"a": {"b": null}}', '{"wide": 1}\n[2]\n'.encode("utf-16"), b"1\n" * 300]
CSV: Seeds = [
    b'id,name,price,when,ok\n1,a,1.5,2020,true\n2,"b, c",-2e3,,FALSE\n3,"say ""x""",NA,1999,true\n',
    b"a\tb\n1\t2\n3\t\n",
    b"x;y\r\n1;2\r\n\r\n3;4;5\r\n",
    b"alone\n1\n2\n",
    "näme,wert\nmüller,1\n".encode("latin-1"),
    "a,b\n1,ü\n".encode("utf-16"),
    b'a,b\n"line\nfeed",2\n',
    b"n,s\n" + b"".join(b"%d,name %d\n" % (n, n) for n in range(200)),
]
CSV_TOKENS = (b",", b'"', b'""', b"\n", b"\r", b"\r\n", b";", b"\t", b"|", b"\0", b"\x1f", b"NA", b"nan", b"inf", b"true", b"-0", b"007",
              b"9223372036854775808", b"1e400", b"0x1F", b"\xff", b"\xef\xbb\xbf", b"\xff\xfe", b"\xe2\x80\xa8", b" ")  # fmt: skip
SVG_TOKENS = (b"<svg>", b"</svg>", b"<use href='#a'/>", b"<g id='a'>", b"<image href='x.png'/>", b"<!DOCTYPE a [<!ENTITY b 'c'>]>", b"&b;",
              b"1e39", b"-1", b"0", b"%", b"NaN", b"'", b'"', b"<filter>", b"viewBox='0 0 0 0'", b"width='1e9'")  # fmt: skip
DATES: Seeds = [b"day,time\n2020-01-01,2020-01-01T10:00:00Z\n,1969-12-31T23:59:59Z\n", b"n;x\n1,5;# no\n2,5;3\n"]
STREAMS: Seeds = [b'[{"a": 1, "b": "x"}, {"a": 2.5, "b": null}, {"c": []}]', b'{"a": 1}{"a": 2} {"a": "3"}']
TEXT: Seeds = [
    b"plain text\n" * 20,
    "grüße, ñandú\n".encode(),
    "grüße, größer als üblich\n".encode("latin-1") * 5,
    "wide".encode("utf-16"),
    b"",
]

_TEXTS = {"a.txt": b"text", "folder/b.json": b'{"b": [1, 2]}', "c.csv": b"n,s\n1,x\n2,y\n", "\xfc.txt": b"x" * 3000, "folder/": b""}


def _saved(mode: str, kind: str, **how: object) -> bytes:
    out = io.BytesIO()
    pixels = np.random.default_rng(1).integers(0, 256, (13, 17, 3), dtype="u1")
    image = Image.fromarray(pixels)
    if mode == "I;16":
        image = Image.fromarray(pixels[:, :, 0].astype("<u2") * 99)
    elif mode in ("LA", "RGBA"):
        image.putalpha(image.convert("L"))
    image = image if mode == "I;16" else image.convert(mode)
    image.save(out, kind, **how)
    return out.getvalue()


def _exif() -> bytes:
    made = Image.Exif()
    made[0x0112] = 6
    return made.tobytes()


def _frames(kind: str) -> bytes:
    others = [Image.new("RGB", (17, 13), (n, 0, 0)) for n in range(3)]
    return _saved("RGB", kind, save_all=True, append_images=others)


def pictures(kind: str) -> Seeds:
    """Small pictures of one of Pillow's formats, in its modes and variants."""
    return [_frames(kind) if how == {"frames": True} else _saved(mode, kind, **how) for mode, how in _PICTURES[kind]]


_PICTURES: dict[str, list[tuple[str, dict[str, object]]]] = {
    "JPEG": [("L", {}), ("RGB", {"exif": _exif()}), ("CMYK", {}), ("RGB", {"progressive": True, "subsampling": 0}),
             ("RGB", {"xmp": b'<x tiff:Orientation="6"/>'})],
    "PNG": [*((mode, {}) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")), ("P", {"transparency": 3}), ("RGB", {"exif": _exif()}),
            ("RGB", {"frames": True})],
    "BMP": [(mode, {}) for mode in ("1", "L", "P", "RGB")],
    "GIF": [("L", {}), ("P", {"transparency": 3}), ("RGB", {"frames": True})],
    "TIFF": [*((mode, {}) for mode in ("1", "L", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "I;16", "I", "F")),
             ("RGB", {"big_tiff": True}),
             *(("RGB", {"compression": name}) for name in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "zstd", "lzma")),
             ("1", {"compression": "group4"}), ("RGB", {"exif": _exif()}), ("RGB", {"frames": True})],
    "WEBP": [("RGB", {"lossless": True}), ("RGBA", {}), ("RGB", {"exif": _exif()}), ("RGB", {"frames": True})],
}  # fmt: skip


def files(area: str, *patterns: str) -> Seeds:
    """The files of tests/data/``area`` of these names, the smallest first."""
    found = (path for pattern in patterns for path in (_DATA / area).glob(pattern))
    return sorted((path.read_bytes() for path in found), key=len)[:_MOST_FILES]


_DATA = Path(__file__).parents[1] / "data"
_MOST_FILES = 12


def packed(data: Seeds) -> Seeds:
    """Each as a compressed member, as ``table.csv.gz`` is."""
    return [pack(each) for pack in PACK.values() for each in data]


def zips() -> Seeds:
    """Zips of every method, with data descriptors, with zip64 sizes and a zip64 directory, with a comment, and behind a program."""
    plain = [_zip(method) for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)]
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive, archive.open("a.txt", "w", force_zip64=True) as file:
        file.write(b"data")
    streamed = io.BytesIO()
    with zipfile.ZipFile(Unseekable(cast(io.BufferedWriter, streamed)), "w", zipfile.ZIP_DEFLATED) as archive:  # type: ignore[call-overload]
        archive.writestr("a.txt", b"text" * 100)
        archive.comment = b"comment"
    return [*plain, out.getvalue(), streamed.getvalue(), _zip64(), _zip_zstd(), b"#!/bin/sh\n" + plain[1], *_zips_of_pictures()]


def _zip(method: int) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, data in _TEXTS.items():
            archive.writestr(name, data)
    return out.getvalue()


def _zip64() -> bytes:
    full, body = 0xFFFFFFFF, local(b"a.txt", b"xyz")
    extra = struct.pack("<HHQQQ", 1, 24, 3, 3, 0)
    directory = entry(b"a.txt", size=full, stored=full, offset=full, extra=extra, crc=zlib.crc32(b"xyz"))
    wide = struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, 1, 1, len(directory), len(body))
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, len(body) + len(directory), 1)
    return body + directory + wide + locator + end(0xFFFF, full, full)


def _zip_zstd() -> bytes:
    packed = zstd.compress(b"text" * 50)
    body = local(b"a.txt", packed)
    directory = entry(b"a.txt", size=200, stored=len(packed), method=93, crc=zlib.crc32(b"text" * 50))
    return body + directory + end(1, len(directory), len(body))


def _zips_of_pictures() -> Seeds:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for number in range(3):
            archive.writestr(f"{number}.png", picture(4, 3, number))
    return [out.getvalue()]


def tars() -> Seeds:
    """Tars of every layout, with long names, links, folders, a sparse file and records of pax."""
    long = {"x" * 150 + ".txt": b"long", "f/" * 60 + "deep.txt": b"deep"}
    sparse = gnu_sparse(5000, [(0, 512), (4488, 512)], b"s" * 1024) + bytes(1024)
    return [*(_tar(layout) for layout in _LAYOUTS), *(_tar(layout, long) for layout in _LAYOUTS[1:]), sparse, _pax_sparse()]


_LAYOUTS = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)


def _tar(layout: int, more: dict[str, bytes] | None = None) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=layout, encoding="utf-8") as archive:
        for name, data in (_TEXTS | (more or {})).items():
            info = tarfile.TarInfo(name.rstrip("/"))
            info.size, info.type = len(data), tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
            archive.addfile(info, io.BytesIO(data))
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "a.txt"
        archive.addfile(link)
    return out.getvalue()


def _pax_sparse() -> bytes:
    """A sparse file as GNU tar writes it with --sparse-version=1.0: its map stands before its data."""
    data = b"2\n0\n3\n2000\n2\n".ljust(512, b"\0") + b"abcde"
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("GNUSparseFile.0/a.txt")
        info.size = len(data)
        info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "a.txt", "GNU.sparse.realsize": "2002"}
        archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def singles(kind: str) -> Seeds:
    """A text as one compressed file, in one piece and in two."""
    pack = PACK[kind]
    return [pack(b"text of a file\n" * 30), pack(b"one ") + pack(b"two"), pack(b"")]


@cache
def _members() -> dict[str, bytes]:
    pngs = {f"{n}.png": picture(8, 6 + n % 2, n) for n in range(4)}
    rest = {"a.json": JSON[0], "b.json": JSON[1], "bad.json": b"{", "a.csv": CSV[0], "a.txt": b"text", "b.txt": "ü".encode()}
    return pngs | rest


def outputs() -> Seeds:
    """Outputs of real ingests: pictures of several shapes, of one shape, and kept as they were."""
    found = []
    with TemporaryDirectory() as name:
        folder = Path(name)
        for number, image in enumerate(_IMAGES):
            output = folder / f"{number}.h5"
            h5dat_lib.ingest(make_zip(folder / "a.zip", _members()), output, config(image=image))
            found.append(output.read_bytes())
    return found


_IMAGES: tuple[dict[str, object], ...] = ({}, {"resize": {"width": 5, "height": 5, "mode": "fill"}}, {"storage": "encoded"})


def staged() -> Seeds:
    """Staged files of real batches."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        archive = open_archive(make_zip(folder / "a.zip", _members()), load().limits)
        batches = Plan(archive, 0, load(), folder, Done(archive.fingerprint())).batches(Forms())
        return [Path(path).read_bytes() for batch in batches for path in stage(batch).paths]
