"""Input that is made to exhaust whoever reads it: each is a reject that says what was found and which limit it met, at little cost.

All inputs are built here, by the standard library. One process, as a worker is one, ingests them one after the other and measures itself.
"""

from __future__ import annotations

import functools
import gzip
import io
import json
import lzma
import os
import re
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

import h5dat_lib
from tests.archive.test_tar import block, gnu_sparse, sized, tar_of
from tests.archive.test_zip import end, entry, local
from tests.conftest import Ran, config, make_zip

SECONDS = 5
"""Generous: each takes less than one."""
MEGABYTES = 200
PIECE = 100 << 20

_MEASURE = """
import ctypes, gc, json, os, sys, time
from pathlib import Path

import h5dat_lib
from tests.conftest import config


def memory(field):
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return sum(int(line.split()[1]) for line in lines if line.startswith(field)) / 1000


def ingest(path):
    gc.collect()
    if os.path.exists("/proc/self/clear_refs"):
        ctypes.CDLL(None).malloc_trim(0)  # what is left of the one before does not count
        Path("/proc/self/clear_refs").write_text("5")  # proc(5): the peak is counted anew
    output = path.with_suffix(".h5")
    started = time.process_time()  # of this process, in whose threads all is done: other work on the machine does not count
    report = h5dat_lib.ingest([folder / "good.txt", path], output, config(workers=1))
    seconds, peak = time.process_time() - started, memory("VmHWM")
    with h5dat_lib.open(output) as opened:
        rejects = list(opened.rejects())
    return {
        "seconds": seconds, "megabytes": peak - idle, "rows": report.rows, "damaged": report.damaged,
        "rejects": [(reject.member, reject.reason) for reject in rejects], "mismatches": len(h5dat_lib.verify(output).mismatches),
    }


folder = Path(sys.argv[1])
idle = 0
ingest(folder / "every.tar.gz")
idle = memory("VmRSS")
print(json.dumps({path.name: ingest(path) for path in sorted((folder / "hostile").iterdir())}))
"""


@dataclass(frozen=True)
class Outcome:
    """What came of one hostile archive; ``seconds`` are of the processor, ``megabytes`` those above an idle worker."""

    seconds: float
    megabytes: float
    rows: int
    damaged: list[str]
    rejects: list[tuple[str, str]]
    mismatches: int


# Archives


def nested_zip() -> bytes:
    """As 42.zip: zips of zips, the innermost of zeros."""
    inner = zipped({"zeros.txt": bytes(10 << 20)})
    for _ in range(3):
        inner = zipped({f"{number}.zip": inner for number in range(16)})
    return inner


def zipped(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return out.getvalue()


def overlapping_zip(count: int = 100, kernel: int = 2 << 20) -> bytes:
    """David Fifield's: each member quotes the local header of the next as stored data and goes on with that one's data."""
    packed = zlib.compress(bytes(kernel), 9, -15)
    data, crc_of = packed, bytes(kernel)
    body, sizes = b"", []
    for number in reversed(range(count)):
        name = b"%03d.txt" % number
        crc = zlib.crc32(crc_of)
        header = struct.pack("<4sHHHHHIIIHH", b"PK\3\4", 20, 0, 8, 0, 33, crc, len(data), len(crc_of), len(name), 0) + name
        sizes.append((name, crc, len(data), len(crc_of)))
        body = header + data
        data = struct.pack("<BHH", 0, len(header), len(header) ^ 0xFFFF) + body
        crc_of = header + crc_of
    directory, offset = b"", 0
    for name, crc, stored, size in reversed(sizes):
        directory += entry(name, size=size, stored=stored, offset=offset, crc=crc, method=8)
        offset += 30 + len(name) + 5
    return body + directory + end(count, len(directory), len(body))


def shared_zip(count: int = 1000) -> bytes:
    """Many entries of one and the same member, in no order."""
    packed = zlib.compress(bytes(10 << 20), 9, -15)
    header = struct.pack("<4sHHHHHIIIHH", b"PK\3\4", 20, 0, 8, 0, 33, 0, len(packed), 10 << 20, 1, 0) + b"a"
    body = local(b"b", b"data") + header + packed
    fields = {"size": 10 << 20, "stored": len(packed), "offset": len(local(b"b", b"data")), "method": 8}
    directory = b"".join(entry(b"%d.txt" % number, **fields) for number in range(count)) + entry(b"b", size=4, stored=4)
    return body + directory + end(count + 1, len(directory), len(body))


@functools.cache
def deflated_zeros() -> bytes:
    """100 MB of zeros as deflate's blocks, without the last one: they may be repeated."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(bytes(PIECE)) + packer.flush(zlib.Z_FULL_FLUSH)


def zeros_zip(recorded: int) -> bytes:
    """4 GB of zeros as deflate's blocks of 100 MB, said to be ``recorded`` bytes."""
    packed = deflated_zeros() * 40 + b"\3\0"
    header = struct.pack("<4sHHHHHIIIHH", b"PK\3\4", 20, 0, 8, 0, 33, 0, len(packed), recorded, 9, 0) + b"zeros.txt"
    directory = entry(b"zeros.txt", size=recorded, stored=len(packed), method=8)
    return header + packed + directory + end(1, len(directory), len(header + packed))


def zeros_gz(start: bytes = b"") -> bytes:
    """10 GB of zeros behind ``start``, in one deflate stream; whoever reads them does not come to the checksum."""
    return gzip.compress(start) + b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + deflated_zeros() * 100


def _literal(data: bytes) -> bytes:
    """A stored block of deflate (RFC 1951, 3.2.4)."""
    return struct.pack("<BHH", 0, len(data), len(data) ^ 0xFFFF) + data


def _bits(*codes: str) -> bytes:
    """Bits in the order in which deflate packs them, the lowest of each byte first."""
    bits = "".join(codes)
    return int(bits[::-1], 2).to_bytes(len(bits) // 8, "little")


# Blocks of fixed codes (RFC 1951, 3.2.6) of five bytes, as long as the head of a stored block is.
REPEAT_20 = _bits("010", *["0001000" + "01000" + "110"] * 2, "0000000")
"""Twice ten bytes, from 20 bytes back."""
REPEAT_258 = _bits("010", "11000101" + "10000" + "1000000", "0000000", "010", "0000000")
"""258 bytes, from 258 bytes back, and a block of nothing."""


def quine_zip() -> bytes:
    """A zip whose one member is the zip itself, by the deflate program of Russ Cox, "Zip Files All The Way Down" (2010)."""
    for salt in range(256):
        # the checksum is an affine function of the one that is written into the file, over the field of two elements
        plain = zlib.crc32(_quine(salt, 0))
        rows = [(zlib.crc32(_quine(salt, 1 << bit)) ^ plain ^ 1 << bit, 1 << bit) for bit in range(32)]
        crc, left = 0, plain
        for bit in range(32):
            pivot = next((row for row in rows if row[0] >> bit & 1), None)
            if pivot is None:
                continue
            rows = [(a ^ pivot[0], b ^ pivot[1]) if a >> bit & 1 else (a, b) for a, b in rows if (a, b) != pivot]
            if left >> bit & 1:
                left, crc = left ^ pivot[0], crc ^ pivot[1]
        if left == 0:
            return _quine(salt, crc)
    raise AssertionError("no checksum fits")


def _quine(salt: int, crc: int) -> bytes:
    """The program that writes itself, of which prefix and suffix are 253 bytes each, with this checksum."""
    size, stored, name = 1162, 1162 - 253 - 248, b"quine.zip"
    extra = struct.pack("<HH", 0x4848, 210) + bytes(210)
    prefix = struct.pack("<4sHHHHHIIIHH", b"PK\3\4", 20, 0, 8, 0, 33, 0, stored, size, len(name), len(extra)) + name + extra
    directory = entry(name, size=size, stored=stored, crc=crc, method=8)
    suffix = b"\1\0\0\xff\xff" + directory + end(1, len(directory), 253 + stored, bytes([salt]) + bytes(170))
    none, one, four, head = (_literal(bytes(size))[:5] for size in (0, 5, 20, 258))
    program = head + prefix + head + REPEAT_258 + one + REPEAT_258 + one + one + four + REPEAT_258 + one + one + four
    program += (REPEAT_20 + four) * 4 + (REPEAT_20 + none + none + head) * 2 + REPEAT_258 + suffix + REPEAT_258 + suffix
    return prefix + program


def zeros_tar_gz() -> bytes:
    return zeros_gz(tar_of({"good.txt": b"text"})[:1024] + block("zeros.txt", b"0", 8 << 30))


def tar_with(raw: bytes) -> bytes:
    """A tar that begins well."""
    return tar_of({"good.txt": b"text"})[:1024] + raw + bytes(1024)


def negative_size() -> bytes:
    """A header with a size of -512, as GNU tar writes what octal digits do not hold: base 256, two's complement."""
    return sized(block("negative.txt", b"0", 0), -512)


def xz_with_dictionary() -> bytes:
    """4 GiB of dictionary: its size is one byte of the first block header, behind the filter's number and the size of its properties."""
    packed = bytearray(lzma.compress(b"text", lzma.FORMAT_XZ))
    size = (packed[12] + 1) * 4
    packed[packed.index(b"\x21\x01", 12) + 2] = 40
    packed[12 + size - 4 : 12 + size] = struct.pack("<I", zlib.crc32(packed[12 : 12 + size - 4]))
    return bytes(packed)


def zstd_with_window(exponent: int) -> bytes:
    """A frame with a window of 2 ** (10 + exponent) bytes and one raw block (RFC 8878, 3.1.1)."""
    return b"\x28\xb5\x2f\xfd" + bytes([0, exponent << 3]) + (1 | 4 << 3).to_bytes(3, "little") + b"text"


# Members


def png_chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, *chunks: bytes) -> bytes:
    """A PNG of one grey pixel's data."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + png_chunk(b"IDAT", zlib.compress(b"\0\0")) + png_chunk(b"IEND", b"")


STRIP = {273: 8, 278: 1, 279: 1}
"""TIFF's tags of a strip of one byte."""
TILE = {259: 8, 322: 40_000, 323: 40_000, 324: 8, 325: 1}
"""TIFF's tags of a deflated tile that is much larger than the picture."""


def tiff(directories: int, last: int = 0, width: int = 1, height: int = 1, pixels: dict[int, int] = STRIP) -> bytes:
    """Directories of a grey picture each; the last names ``last`` as the next."""
    values = {256: width, 257: height, 258: 8, 259: 1, 262: 1, 277: 1} | pixels
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(values.items()))
    size = 2 + len(entries) + 4
    starts = [9 + size * number for number in range(1, directories)] + [last]
    return struct.pack("<2sHIB", b"II", 42, 9, 0) + b"".join(
        struct.pack("<H", len(values)) + entries + struct.pack("<I", at) for at in starts
    )


def gif(frames: int, width: int = 1, height: int = 1) -> bytes:
    frame = struct.pack("<BHHHHB", 0x2C, 0, 0, width, height, 0) + b"\2\2\x44\1\0"
    return b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff" + frame * frames + b";"


def bmp(width: int, height: int) -> bytes:
    return struct.pack("<2sIII", b"BM", 54, 0, 54) + struct.pack("<IiiHHIIIIII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0) + b"pixel"


def jpeg(width: int, height: int) -> bytes:
    frame = struct.pack(">HHBHHBBBB", 0xFFC0, 11, 8, height, width, 1, 1, 0x11, 0)
    return b"\xff\xd8" + frame + struct.pack(">HHBBBBBB", 0xFFDA, 8, 1, 1, 0, 0, 63, 0) + b"\0\xff\xd9"


def webp(width: int, height: int, frames: int) -> bytes:
    """An animation of empty frames on a canvas."""
    size = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    chunks = struct.pack("<4sII", b"VP8X", 10, 2) + size + struct.pack("<4sIIH", b"ANIM", 6, 0, 0)
    chunks += (struct.pack("<4sI", b"ANMF", 16) + bytes(16)) * frames
    return struct.pack("<4sI4s", b"RIFF", 4 + len(chunks), b"WEBP") + chunks


def laughs() -> bytes:
    entities = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
    return f'<!DOCTYPE svg [<!ENTITY l0 "ha">{entities}]><svg xmlns="http://www.w3.org/2000/svg"><text>&l9;</text></svg>'.encode()


def wide_table() -> bytes:
    return b",".join(b"c%d" % n for n in range(100_000)) + b"\n"


HARMLESS = ""
"""What is hostile lies where no decoder of pixels looks: it is a row."""
CSV_FIELD = "expected fields of at most 1048576 bytes (limits.csv_field_bytes) and quotes that are closed"

MEMBERS: dict[str, tuple[Callable[[], bytes], str]] = {
    "claims.png": (lambda: png(60_000, 60_000), "found 60000 x 60000 pixels, expected at most 268435456 (limits.pixels)"),
    "claims.bmp": (lambda: bmp(60_000, 60_000), "found 60000 x 60000 pixels, expected at most 268435456 (limits.pixels)"),
    "claims.jpg": (lambda: jpeg(60_000, 60_000), "found 60000 x 60000 pixels, expected at most 268435456 (limits.pixels)"),
    "claims.tif": (lambda: tiff(1, width=60_000, height=60_000), "found 60000 x 60000 pixels, expected at most 268435456 (limits.pixels)"),
    "canvas.gif": (lambda: gif(1, 60_000, 60_000), "could be decompression bomb DOS attack. (limits.pixels)"),
    "frames.gif": (lambda: gif(5000), "found more than 1000 frames (limits.frames)"),
    "frames.png": (lambda: png(1, 1, png_chunk(b"acTL", struct.pack(">II", 1 << 31, 0))), "found more than 1000 frames (limits.frames)"),
    "frames.webp": (lambda: webp(16_384, 16_384, 5000), "cannot be decoded as WEBP"),
    "directories.tif": (lambda: tiff(10_000), "found more than 1000 frames (limits.frames)"),
    "loop.tif": (lambda: tiff(500, 9), "found TIFF directories that lead back to the one at byte 9"),
    "tile.tif": (lambda: tiff(1, pixels=TILE), "found 40000 x 40000 pixels in a tile, expected at most 268435456 (limits.pixels)"),
    "text.png": (lambda: png(1, 1, png_chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(PIECE)))), HARMLESS),
    "profile.png": (lambda: png(1, 1, png_chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(PIECE)))), HARMLESS),
    "laughs.svg": (laughs, "not SVG: limit on input amplification factor"),
    "brackets.json": (lambda: b"[" * 100_000 + b"]" * 100_000, "found more levels than 200 (limits.json_depth)"),
    "open.json": (lambda: b"[" * 100_000, "found more levels than 200 (limits.json_depth)"),
    "values.json": (lambda: b'{"a":[' + b"{}," * 10_000_000 + b"{}]}", "found more than 20000000 values (limits.json_values)"),
    "empty.json": (lambda: b"[" + b"[]," * 10_000_000 + b"[]]", "found more than 20000000 values (limits.json_values)"),
    "brackets.jsonl": (lambda: b"[" * 100_000 + b"\n", "line 1: nested too deeply: found more levels than 200 (limits.json_depth)"),
    "wide.csv": (wide_table, "or more, expected at most 10000 (limits.csv_columns)"),
    "quote.csv": (lambda: b'a,b,c\n1,2,"' + b"x" * (16 << 20), CSV_FIELD),
    "first.csv": (lambda: b'"' + b"x" * (16 << 20), CSV_FIELD),
}
"""Members, each in a zip of its own, and what the reason of its reject holds."""

ARCHIVES: dict[str, tuple[Callable[[], bytes], str]] = {
    "nested.zip": (nested_zip, "nested archive: found zip, which is not opened"),
    "quine.zip": (quine_zip, "nested archive: found zip, which is not opened"),
    "overlap.zip": (overlapping_zip, "to be of another member too, expected each byte in one member"),
    "shared.zip": (shared_zip, "to be of another member too, expected each byte in one member"),
    "zeros.zip": (lambda: zeros_zip(40 * PIECE), "found a record of 4194304000 bytes in"),
    "lying.zip": (lambda: zeros_zip(1000), "damaged: found more than 1000 bytes, expected 1000"),
    "zeros.txt.gz": (zeros_gz, "compressed ones, expected at most 250 times as many (limits.ratio)"),
    "zeros.json.gz": (zeros_gz, "compressed ones, expected at most 250 times as many (limits.ratio)"),
    "zeros.csv.gz": (zeros_gz, CSV_FIELD),
    "zeros.tar.gz": (zeros_tar_gz, "compressed ones, expected at most 250 times as many (limits.ratio)"),
    "sparse.tar": (lambda: tar_with(gnu_sparse(4 << 30, [(0, 0)], b"")), "in 0 stored ones, expected at most 250 times as many"),
    "sparse.tar.gz": (lambda: gzip.compress(tar_with(gnu_sparse(4 << 30, [(0, 0)], b""))), "in 0 stored ones, expected at most 250"),
    "pax.tar": (lambda: tar_with(block("pax", b"x", 4 << 30)), "found a header of 4294967296 bytes, expected at most 4194304"),
    "pax.tar.gz": (lambda: gzip.compress(tar_with(block("pax", b"x", 4 << 30))), "found a header of 4294967296 bytes"),
    "name.tar": (lambda: tar_with(block("name", b"L", 4 << 30)), "found a header of 4294967296 bytes, expected at most 4194304"),
    "negative.tar": (lambda: tar_with(negative_size()), "negative size -512"),
    "dictionary.txt.xz": (xz_with_dictionary, "found invalid xz data after 0 bytes: Memory usage limit exceeded"),
    "window.txt.zst": (lambda: zstd_with_window(31), "found invalid zstd data after 0 bytes"),
}
"""Archives, and what the reason of a reject holds."""


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    folder = tmp_path_factory.mktemp("folder")
    (folder / "good.txt").write_bytes(b"text")
    good = {"a.png": png(1, 1), "a.tif": tiff(1), "a.gif": gif(1), "a.json": b"{}", "a.csv": b"a,b\n1,2\n", "a.txt": b"text"}
    (folder / "every.tar.gz").write_bytes(gzip.compress(tar_of(good)))
    hostile = folder / "hostile"
    hostile.mkdir()
    for name, (build, _) in MEMBERS.items():
        make_zip(hostile / f"{name}.zip", {name: build()}, zipfile.ZIP_STORED)
    for name, (build, _) in ARCHIVES.items():
        (hostile / name).write_bytes(build())
    ran = subprocess.run(
        [sys.executable, "-c", _MEASURE, str(folder)],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
        cwd=Path(__file__).parents[1],
        env=os.environ | {"MALLOC_ARENA_MAX": "2"},  # glibc keeps what was freed in the arena of each thread
    )
    assert ran.returncode == 0, ran.stderr
    return {name: Outcome(**outcome) for name, outcome in json.loads(ran.stdout).items()}


@pytest.mark.parametrize(
    ("name", "reason"), [(f"{name}.zip", r) for name, (_, r) in MEMBERS.items()] + [(n, r) for n, (_, r) in ARCHIVES.items()]
)
def test_hostile_input_is_a_reject_that_costs_little(outcomes: dict[str, Outcome], name: str, reason: str) -> None:
    outcome = outcomes[name]
    assert any(reason in found for _, found in outcome.rejects) or reason == HARMLESS, outcome
    assert outcome.rows >= (2 if reason == HARMLESS else 1) and outcome.mismatches == 0
    assert outcome.seconds < SECONDS
    assert outcome.megabytes < MEGABYTES


def test_the_quine_holds_itself() -> None:
    with zipfile.ZipFile(io.BytesIO(quine_zip())) as archive:
        assert archive.read("quine.zip") == quine_zip()


@pytest.mark.parametrize("limits", [{"members": 3}, {"archive_bytes": 14}])
@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_an_archive_above_its_limits_gives_what_lies_before_and_exit_code_1(
    h5dat: Callable[..., Ran], tmp_path: Path, limits: dict[str, int], kind: str
) -> None:
    members = {f"{number}.txt": b"text" for number in range(9)}
    path, settings = tmp_path / f"a.{kind}", tmp_path / "settings.json"
    path.write_bytes({"zip": zipped, "tar": tar_of, "tar.gz": lambda all: gzip.compress(tar_of(all))}[kind](members))
    settings.write_text(json.dumps({"task_runner": "threads", "limits": limits}))
    ran = h5dat("ingest", path, "-o", tmp_path / "out.h5", "--direct", "-c", settings)
    [name] = limits
    assert ran.code == 1 and f"(limits.{name})" in ran.err
    with h5dat_lib.open(tmp_path / "out.h5") as file:
        assert len(file["texts"]) == 3
        [reject] = file.rejects()
    assert reject.member == "" and str(path) in reject.reason and f"(limits.{name})" in reject.reason


# Names

GOOD = {
    "good.txt": "good.txt",
    "red\x1b[31m.txt": "red\\x1b[31m.txt",
    "c1\x9b.txt": "c1\\x9b.txt",
    "line\nfeed.txt": "line\\x0afeed.txt",
    "Twin.txt": "Twin.txt",
    "twin.txt": "twin.txt",
    "caf\udce9\udce9.txt": "caf\\xe9\\xe9.txt",
}
"""Names that are taken, and what is recorded of them."""
BAD = {
    "up/../../up.txt": "found '..'",
    "/tmp/absolute.txt": "found an absolute path",
    "C:\\absolute.txt": "found an absolute path",
    "x" * 10_000 + ".txt": "found 10004 bytes, expected at most 4096 (limits.name_bytes)",
    "nul\0.txt": "found a NUL character",
}
"""Names that are not, and why."""
SPECIAL = {"symlink": (tarfile.SYMTYPE, 0o120000), "device": (tarfile.CHRTYPE, 0o020000), "fifo": (tarfile.FIFOTYPE, 0o010000)}
"""A tar's type and a zip's mode of what is no file."""


def named_zip(path: Path) -> int:
    with zipfile.ZipFile(path, "w") as archive:
        for name in (*GOOD, *BAD):
            # zipfile writes neither of these
            archive.writestr(name.replace("\udce9\udce9", "\xe9").replace("\0", "X"), b"text")
        for name, (_, mode) in SPECIAL.items():
            info = zipfile.ZipInfo(name)
            info.create_system, info.external_attr = 3, (mode | 0o777) << 16
            archive.writestr(info, b"/etc/passwd")
    path.write_bytes(path.read_bytes().replace(b"nulX", b"nul\0").replace(b"caf\xc3\xa9", b"caf\xe9\xe9"))
    return len(SPECIAL)


def named_tar(path: Path) -> int:
    special = {name: kind for name, (kind, _) in SPECIAL.items()} | {"hardlink": tarfile.LNKTYPE}
    with tarfile.open(path, "w", errors="surrogateescape") as archive:
        for name in (*GOOD, *BAD):
            info = tarfile.TarInfo(name)
            info.size, info.pax_headers = 4, {"path": name} if "\0" in name else {}
            archive.addfile(info, io.BytesIO(b"text"))
        for name, kind in special.items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    return len(special)


def _files(folder: Path) -> set[str]:
    return {os.path.join(root, name) for root, folders, files in os.walk(folder) for name in (*folders, *files)}


@pytest.mark.parametrize("write", [named_zip, named_tar])
def test_every_kind_of_bad_name_is_a_row_or_a_reject_and_nothing_is_written_under_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path], int]
) -> None:
    folder = tmp_path / "one" / "two"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    special = write(folder / "names")
    before, absolute = _files(tmp_path), os.path.exists("/tmp/absolute.txt")
    h5dat_lib.ingest("names", "out.h5", config())
    assert _files(tmp_path) - before == {str(folder / "out.h5")}
    assert os.path.exists("/tmp/absolute.txt") == absolute
    with h5dat_lib.open("out.h5") as file:
        assert [file["texts"].origin(row).member for row in range(len(file["texts"]))] == list(GOOD.values())
        rejects = list(file.rejects())
    assert len(rejects) == len(BAD) + special
    assert all(reason in reject.reason for reason, reject in zip(BAD.values(), rejects, strict=False))
    assert {reject.reason for reject in rejects[len(BAD) :]} == {"link", "device", "fifo"}


def test_no_control_character_of_an_archive_reaches_the_terminal(h5dat: Callable[..., Ran], tmp_path: Path, threads: Path) -> None:
    members = {"a\x1b[31m.txt": b"text", "b\x07.csv": b"c\x1bd,e\x9b\n1,2\n\x1b,\x1b,\x1b\n", "f\x08.json": b"\x1b"}
    make_zip(tmp_path / "a.zip", members)
    (tmp_path / "b.tar").write_bytes(tar_of({"g\x1b.txt": b"text"})[:1024] + b"\x1b" * 512)
    output = tmp_path / "out.h5"
    ran = [h5dat("ingest", tmp_path / "a.zip", tmp_path / "b.tar", "-o", output, "--direct", "-c", threads)]
    ran += [h5dat(command, output) for command in ("ls", "rejects", "verify")]
    printed = "".join(one.out + one.err for one in ran)
    assert "\\x1b" in printed and "damaged" in printed
    assert re.findall(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", printed) == []
