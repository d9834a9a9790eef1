"""The standard library's zipfile writes, we read."""

from __future__ import annotations

import io
import itertools
import os
import struct
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from h5dat_lib.archive import open_archive, open_reader, zip
from h5dat_lib.archive.member import Member
from h5dat_lib.archive.stream import zstd
from h5dat_lib.archive.zip import ZipReader
from h5dat_lib.config import Limits
from h5dat_lib.errors import InputError, MemberError, escaped
from h5dat_lib.storage import LocalSource

LIMITS = Limits()
Members = Callable[..., list[tuple[str, bytes | str]]]
METHODS = [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
CONTENTS = {
    "zeros": lambda size: bytes(size),
    "random": os.urandom,
    "text": lambda size: (b"a line of text, again and again\n" * (size // 32 + 1))[:size],
}


class Unseekable(io.RawIOBase):
    """Makes zipfile write sizes and CRC behind the data."""

    def __init__(self, file: io.BufferedWriter) -> None:
        self._file = file

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        return self._file.write(data)


def write(path: Path, contents: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in contents.items():
            archive.writestr(name, data)
    return path


def entry(name: bytes, *, size: int = 0, stored: int = 0, offset: int = 0, extra: bytes = b"", **fields: int) -> bytes:
    """One central directory entry (APPNOTE 4.3.12)."""
    host, flags, method = fields.get("host", 3), fields.get("flags", 0), fields.get("method", 0)
    crc, attributes = fields.get("crc", 0), fields.get("attributes", 0)
    lengths = len(name), len(extra), 0, 0, 0
    head = struct.pack(
        "<4sBBHHHHHIIIHHHHHII", b"PK\1\2", 20, host, 20, flags, method, 0, 33, crc, stored, size, *lengths, attributes, offset
    )
    return head + name + extra


def local(name: bytes, data: bytes, extra: bytes = b"") -> bytes:
    return struct.pack("<4sHHHHHIIIHH", b"PK\3\4", 20, 0, 0, 0, 33, 0, len(data), len(data), len(name), len(extra)) + name + extra + data


def end(count: int, size: int, offset: int, comment: bytes = b"", disk: int = 0) -> bytes:
    return struct.pack("<4sHHHHIIH", b"PK\5\6", disk, disk, count & 0xFFFF, count & 0xFFFF, size, offset, len(comment)) + comment


def one_entry(path: Path, directory: bytes, body: bytes = b"", count: int = 1) -> Path:
    path.write_bytes(body + directory + end(count, len(directory), len(body)))
    return path


def listed(path: Path) -> list[Member]:
    return list(open_archive(path, LIMITS).members())


@pytest.mark.parametrize("size", [0, 1, 3000, 65_536, 1 << 20, (1 << 20) + 1])
@pytest.mark.parametrize("content", CONTENTS)
@pytest.mark.parametrize("method", METHODS)
def test_reads_what_zipfile_wrote(tmp_path: Path, members: Members, method: int, content: str, size: int) -> None:
    data = CONTENTS[content](size)
    assert members(write(tmp_path / "a.zip", {"x/a.bin": data, "b": b"second"}, method)) == [("x/a.bin", data), ("b", b"second")]


@pytest.mark.parametrize("method", METHODS)
def test_streams_a_member_too_large_to_read_at_once(tmp_path: Path, members: Members, monkeypatch: pytest.MonkeyPatch, method: int) -> None:
    monkeypatch.setattr(zip, "_AT_ONCE", 1000)
    data = os.urandom(700_000) + bytes(700_000)
    assert members(write(tmp_path / "a.zip", {"a": data}, method)) == [("a", data)]


@pytest.mark.parametrize("method", METHODS)
def test_reads_sizes_from_the_directory_when_data_descriptors_hold_them(tmp_path: Path, members: Members, method: int) -> None:
    with (tmp_path / "a.zip").open("wb") as file:
        write(Unseekable(file), {"a": b"one" * 999, "b": b""}, method)  # type: ignore[arg-type]
    assert members(tmp_path / "a.zip") == [("a", b"one" * 999), ("b", b"")]


@pytest.mark.parametrize("pieces", [1, 3])
def test_reads_zstandard_in_one_frame_or_several(tmp_path: Path, members: Members, pieces: int) -> None:
    part = os.urandom(1000) + bytes(5000)
    packed = zstd.compress(part) * pieces
    directory = entry(b"a", size=len(part) * pieces, stored=len(packed), method=93, crc=zlib.crc32(part * pieces))
    assert members(one_entry(tmp_path / "a.zip", directory, local(b"a", packed))) == [("a", part * pieces)]


def test_reads_lzma_whose_header_asks_for_a_dictionary_of_4_gib(tmp_path: Path, members: Members) -> None:
    path = write(tmp_path / "a.zip", {"a": b"text " * 1000}, zipfile.ZIP_LZMA)
    raw = bytearray(path.read_bytes())
    raw[31 + 5 : 31 + 9] = b"\xff\xff\xff\xff"
    path.write_bytes(raw)
    assert members(path) == [("a", b"text " * 1000)]


def test_reads_zip64_members(tmp_path: Path, members: Members) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a", "w", force_zip64=True) as file:
        file.write(b"data" * 100)
    assert members(tmp_path / "a.zip") == [("a", b"data" * 100)]


@pytest.mark.parametrize("prefix", [b"", b"#!/bin/sh\nexit\n"])
def test_reads_a_zip64_directory_with_sizes_and_offsets_in_extra_fields(tmp_path: Path, members: Members, prefix: bytes) -> None:
    full, body = 0xFFFFFFFF, local(b"a", b"xyz")
    extra = struct.pack("<HHQQQ", 1, 24, 3, 3, 0)
    directory = entry(b"a", size=full, stored=full, offset=full, extra=extra, crc=zlib.crc32(b"xyz"))
    wide = struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, 1, 1, len(directory), len(body))
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, len(body) + len(directory), 1)
    (tmp_path / "a.zip").write_bytes(prefix + body + directory + wide + locator + end(0xFFFF, full, full))
    assert members(tmp_path / "a.zip") == [("a", b"xyz")]


def test_rejects_a_zip64_field_that_is_too_short(tmp_path: Path) -> None:
    directory = entry(b"a", size=0xFFFFFFFF, extra=struct.pack("<HHI", 1, 4, 3))
    assert [member.reject for member in listed(one_entry(tmp_path / "a.zip", directory, local(b"a", b"")))] == [
        "damaged: found a zip64 field without the sizes it should hold"
    ]


@pytest.mark.parametrize("junk", [b"MZ" + bytes(70_000), b"\x7fELF a program", b"#!/bin/sh\n"])
def test_reads_a_self_extracting_zip(tmp_path: Path, members: Members, junk: bytes) -> None:
    path = write(tmp_path / "a.exe", {"a": b"x" * 5000, "b": b"y"})
    path.write_bytes(junk + path.read_bytes())
    assert open_archive(path, LIMITS).kind == "zip"
    assert members(path) == [("a", b"x" * 5000), ("b", b"y")]


@pytest.mark.parametrize("comment", [b"", b"a comment", b"PK\5\6" * 100, bytes(65_535)])
def test_finds_the_directory_before_any_comment(tmp_path: Path, members: Members, comment: bytes) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a", b"x")
        archive.comment = comment
    assert members(tmp_path / "a.zip") == [("a", b"x")]


def test_finds_the_directory_before_bytes_appended_to_the_file(tmp_path: Path, members: Members) -> None:
    path = write(tmp_path / "a.zip", {"a": b"x"})
    path.write_bytes(path.read_bytes() + b"\0" * 500 + b"garbage")
    assert members(path) == [("a", b"x")]


@pytest.mark.parametrize(
    ("name", "fields", "path"),
    [
        ("bär.txt".encode(), {"flags": 0x800}, "bär.txt"),
        (b"b\x84r.txt", {}, "bär.txt"),
        (b"b\xe4r.txt", {"flags": 0x800}, "b\\xe4r.txt"),
        (b"\xe4r.txt", {"flags": 0x800}, "\\xe4r.txt"),
        (b"a\\b.txt", {"host": 0}, "a/b.txt"),
        (b"a\\b.txt", {"host": 10}, "a/b.txt"),
        (b"a\\b.txt", {"host": 3}, "a\\b.txt"),
        (b"a\\b/c.txt", {"host": 0}, "a\\b/c.txt"),
        (b"./a.txt", {}, "a.txt"),
    ],
)
def test_decodes_names_as_the_entry_says(tmp_path: Path, name: bytes, fields: dict[str, int], path: str) -> None:
    (member,) = listed(one_entry(tmp_path / "a.zip", entry(name, **fields), local(name, b"")))
    assert (member.path, member.reject) == (path, None)


@pytest.mark.parametrize(("of", "path"), [(b"b?r", "bär"), (b"other", "b?r")])
def test_takes_the_unicode_path_while_its_crc_is_that_of_the_name(tmp_path: Path, of: bytes, path: str) -> None:
    content = b"\1" + struct.pack("<I", zlib.crc32(of)) + "bär".encode()
    extra = struct.pack("<HH", 0x7075, len(content)) + content
    assert listed(one_entry(tmp_path / "a.zip", entry(b"b?r", extra=extra), local(b"b?r", b"")))[0].path == path


@pytest.mark.parametrize("name", ["../a", "a/../../b", "/etc/passwd", "C:\\x", "a\0b", ".//etc/passwd", "x" * 5000, "./.."])
def test_rejects_unsafe_names(tmp_path: Path, name: str) -> None:
    (member,) = listed(one_entry(tmp_path / "a.zip", entry(name.encode()), local(name.encode(), b"")))
    assert member.reject is not None
    assert member.reject.startswith("unsafe name")
    assert "\0" not in member.path
    assert len(member.path) < 300


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"flags": 0x1}, "encrypted"),
        ({"flags": 0x41}, "encrypted"),
        ({"method": 99, "flags": 1}, "encrypted"),
        ({"method": 99}, "encrypted"),
        ({"flags": 0x20}, "compressed patch data is not supported"),
        ({"method": 9}, "compression method 9 (deflate64) is not supported"),
        ({"method": 98}, "compression method 98 (PPMd) is not supported"),
        ({"method": 77}, "compression method 77 (unknown) is not supported"),
        ({"attributes": 0o120777 << 16}, "link"),
        ({"attributes": 0o010644 << 16}, "fifo"),
    ],
)
def test_rejects_what_it_cannot_read_and_says_why(tmp_path: Path, fields: dict[str, int], reason: str) -> None:
    path = one_entry(tmp_path / "a.zip", entry(b"a", size=4, stored=4, **fields), local(b"a", b"data"))
    assert [member.reject for member in listed(path)] == [reason]


def test_skips_folders_and_keeps_both_of_two_members_with_one_name(tmp_path: Path, members: Members) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.mkdir("folder")
        archive.writestr("folder/a", b"1")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("folder/a", b"2")
    assert members(tmp_path / "a.zip") == [("folder/a", b"1"), ("folder/a", b"2")]


def test_says_what_is_wrong_with_a_member_whose_crc_differs(tmp_path: Path, members: Members) -> None:
    path = write(tmp_path / "a.zip", {"a": b"hello world", "b": b"fine"}, zipfile.ZIP_STORED)
    path.write_bytes(path.read_bytes().replace(b"hello world", b"hellO world"))
    assert members(path)[0][1] == f"damaged: found CRC {zlib.crc32(b'hellO world'):08x}, expected {zlib.crc32(b'hello world'):08x}"
    assert members(path)[1] == ("b", b"fine")


@pytest.mark.parametrize(
    ("recorded", "packed", "reason"),
    [
        (100, zlib.compress(b"x" * 5000)[2:-4], "damaged: found more than 100 bytes, expected 100"),
        (9000, zlib.compress(b"x" * 5000)[2:-4], "damaged: found 5000 bytes, expected 9000"),
        (5000, zlib.compress(b"x" * 5000)[2:-4] + b"more", "damaged: found bytes after the end of the deflate data, expected none"),
        (5000, zlib.compress(os.urandom(5000))[2:2000], "damaged: found the end of the deflate data after"),
        (5000, b"\xff" * 100, "damaged: found invalid deflate data after 0 bytes"),
    ],
)
@pytest.mark.parametrize("at_once", [1 << 20, 0])
def test_says_what_is_wrong_with_deflated_data(
    tmp_path: Path, members: Members, monkeypatch: pytest.MonkeyPatch, at_once: int, recorded: int, packed: bytes, reason: str
) -> None:
    monkeypatch.setattr(zip, "_AT_ONCE", at_once)
    directory = entry(b"a", size=recorded, stored=len(packed), method=8)
    ((_, found),) = members(one_entry(tmp_path / "a.zip", directory, local(b"a", packed)))
    assert isinstance(found, str)
    assert found.startswith(reason)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"size": 4, "stored": 4, "offset": 1}, "damaged: found b'K\\x03\\x04\\x14' at byte 1, expected a local header"),
        (
            {"size": 4, "stored": 4, "offset": 1 << 31},
            "damaged: found data up to byte 2147483682, expected them to end before the directory at byte 35",
        ),
        ({"size": 5, "stored": 4}, "damaged: found 4 stored bytes, expected 5"),
        ({"size": 4000, "stored": 4000}, "damaged: found data up to byte 4030, expected them to end before the directory at byte 35"),
    ],
)
def test_says_where_a_member_should_have_been(tmp_path: Path, members: Members, fields: dict[str, int], reason: str) -> None:
    assert members(one_entry(tmp_path / "a.zip", entry(b"a", **fields), local(b"a", b"data"))) == [("a", reason)]


def test_gives_no_more_than_one_byte_above_the_limit(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zip", {"bomb": bytes(50 << 20)})
    (member,) = listed(path)
    with closing(open_reader("zip", str(path))) as reader:
        tracemalloc.start()
        assert len(reader.read(member, 1000)) == 1001
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 2 << 20


def test_bounds_a_bomb_that_hides_its_size(tmp_path: Path) -> None:
    packed = zlib.compress(bytes(50 << 20))[2:-4]
    path = one_entry(tmp_path / "a.zip", entry(b"a", size=10, stored=len(packed), method=8), local(b"a", packed))
    with closing(open_reader("zip", str(path))) as reader, pytest.raises(MemberError, match="more than 10 bytes"):
        reader.read(listed(path)[0], 1 << 30)


@pytest.mark.parametrize("keep", [0.3, 0.6, 0.9])
def test_refuses_a_zip_that_is_cut_short(tmp_path: Path, keep: float) -> None:
    path = write(tmp_path / "a.zip", {f"{n}": os.urandom(2000) for n in range(100)})
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])
    with pytest.raises(InputError, match=r"a\.zip: no end of central directory found.*cut short"):
        open_archive(path, LIMITS)


def test_refuses_a_zip_cut_behind_a_zip_stored_in_it(tmp_path: Path) -> None:
    inner = write(tmp_path / "inner.zip", {"secret": b"x"}).read_bytes()
    path = write(tmp_path / "a.zip", {"a": b"x", "inner.zip": inner, "b": b"y"}, zipfile.ZIP_STORED)
    raw = path.read_bytes()
    path.write_bytes(raw[: raw.index(inner) + len(inner)])
    with pytest.raises(InputError, match="zip within this one"):
        open_archive(path, LIMITS)


def test_refuses_a_zip_whose_beginning_is_missing(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zip", {f"{n}": os.urandom(2000) for n in range(10)}, zipfile.ZIP_STORED)
    raw = path.read_bytes()
    path.write_bytes(raw[raw.index(b"PK\3\4", 4000) :])
    with pytest.raises(InputError, match="the beginning is missing"):
        open_archive(path, LIMITS)


def test_refuses_a_split_zip(tmp_path: Path) -> None:
    directory = entry(b"a")
    (tmp_path / "a.zip").write_bytes(local(b"a", b"") + directory + end(1, len(directory), 31, disk=3))
    with pytest.raises(InputError, match="part 4 of a split zip"):
        open_archive(tmp_path / "a.zip", LIMITS)


def test_refuses_a_directory_with_other_bytes_in_it(tmp_path: Path) -> None:
    good = entry(b"a")
    path = one_entry(tmp_path / "a.zip", good + b"garbage " * 10 + good, local(b"a", b""), count=2)
    with pytest.raises(InputError, match=f"found b'garb' at byte {31 + len(good)}, expected a directory entry"):
        listed(path)


def test_refuses_a_directory_with_fewer_entries_than_recorded(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="found 1 central directory entries, expected 2"):
        listed(one_entry(tmp_path / "a.zip", entry(b"a"), local(b"a", b""), count=2))


def test_an_empty_zip_has_no_members(tmp_path: Path) -> None:
    assert listed(write(tmp_path / "a.zip", {})) == []


def many_entries(count: int) -> Iterator[bytes]:
    return (entry(b"images/class_%03d/picture_%07d.jpg" % (n % 1000, n), offset=n) for n in range(count))


def test_lists_100_000_members_in_bounded_memory(tmp_path: Path) -> None:
    directory = b"".join(many_entries(100_000))
    path = one_entry(tmp_path / "a.zip", directory, b"PK\3\4", 100_000)
    archive = open_archive(path, LIMITS)
    tracemalloc.start()
    assert sum(1 for _ in archive.members()) == 100_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20


def test_listing_reads_the_directory_in_pieces_and_a_small_member_in_one_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.zip", {f"{n:04}.txt": os.urandom(1500) * 2 for n in range(1000)})
    reads: list[int] = []
    pread = LocalSource._pread
    monkeypatch.setattr(LocalSource, "_pread", lambda self, offset, size: reads.append(size) or pread(self, offset, size))
    found = listed(path)
    assert len(reads) <= 6
    reads.clear()
    with closing(ZipReader(str(path))) as reader:
        for member in found:
            reader.read(member, 1 << 20)
    assert len(reads) == len(found)


def test_a_long_local_extra_field_costs_a_second_read(tmp_path: Path, members: Members) -> None:
    body = local(b"a", b"data", extra=struct.pack("<HH", 0x9999, 5000) + bytes(5000))
    directory = entry(b"a", size=4, stored=4, crc=zlib.crc32(b"data"))
    assert members(one_entry(tmp_path / "a.zip", directory, body)) == [("a", b"data")]


def test_the_fingerprint_changes_with_a_member_and_not_with_the_time_of_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zip", {"a": b"1"}, zipfile.ZIP_STORED)
    first = open_archive(path, LIMITS).fingerprint()
    os.utime(path, (1, 1))
    assert open_archive(path, LIMITS).fingerprint() == first
    write(path, {"a": b"2"}, zipfile.ZIP_STORED)
    assert open_archive(path, LIMITS).fingerprint() != first


names = st.text(st.characters(exclude_characters="/\\\0:", exclude_categories=["Cs"]), min_size=1, max_size=30).filter(
    lambda name: name not in (".", "..")
)
# zipfile itself does not find the directory before a comment that has the mark of one
comments = st.binary(max_size=100).filter(lambda comment: b"PK" not in comment)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(contents=st.dictionaries(names, st.binary(max_size=3000)), method=st.sampled_from(METHODS), comment=comments)
def test_any_zip_reads_as_zipfile_reads_it(
    tmp_path: Path, members: Members, contents: dict[str, bytes], method: int, comment: bytes
) -> None:
    path = write(tmp_path / "a.zip", contents, method)
    with zipfile.ZipFile(path, "a") as archive:
        archive.comment = comment
    with zipfile.ZipFile(path) as archive:
        assert members(path) == [(escaped(info.filename), archive.read(info)) for info in archive.infolist()]


# Overlaps


def overlaps(path: Path, places: list[tuple[int, int]]) -> list[bool]:
    """Which of the members with these starts and stored sizes are refused for their overlap, in a zip of 1000 bytes."""
    directory = b"".join(entry(b"%d" % n, offset=start, stored=stored, size=stored) for n, (start, stored) in enumerate(places))
    found = open_archive(one_entry(path, directory, local(b"", bytes(970)), len(places)), LIMITS).members()
    return [(member.reject or "").startswith("overlap: ") for member in found]


@pytest.mark.parametrize(
    ("places", "refused"),
    [
        ([(0, 0), (30, 10), (70, 0)], []),
        ([(70, 0), (0, 0), (30, 10)], []),
        ([(0, 1), (30, 10), (70, 0)], [1]),
        ([(70, 0), (0, 0), (30, 11)], [2]),
        ([(0, 0), (0, 0), (0, 0)], [1, 2]),
        ([(500, 0), (0, 100), (0, 100), (200, 0)], [2]),
        ([(0, 100), (200, 0), (100, 200)], [2]),
        ([(0, 9999), (0, 0), (100, 0)], []),
    ],
)
def test_of_members_that_overlap_the_first_is_kept(tmp_path: Path, places: list[tuple[int, int]], refused: list[int]) -> None:
    assert [n for n, found in enumerate(overlaps(tmp_path / "a.zip", places)) if found] == refused


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 800), st.integers(0, 300)), min_size=1, max_size=8))
def test_members_that_are_kept_never_overlap_and_none_is_refused_without_one(tmp_path: Path, places: list[tuple[int, int]]) -> None:
    refused = overlaps(tmp_path / "a.zip", places)
    spans = [(start, start + 30 + stored) for start, stored in places]
    inside = [span for span in spans if span[1] <= 1000]
    kept = [span for n, span in enumerate(spans) if not refused[n] and span in inside]
    assert all(a[1] <= b[0] for a, b in itertools.pairwise(sorted(kept)))
    alone = [span for span in inside if sum(span[0] < other[1] and other[0] < span[1] for other in inside) == 1]
    assert set(alone) <= set(kept)


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        ({"members": 2}, r"found more than 2 members \(limits.members\)"),
        ({"archive_bytes": 9}, r"more than 9 bytes in all \(limits.archive_bytes\)"),
    ],
)
def test_ends_at_the_limits_of_an_archive(tmp_path: Path, limits: dict[str, int], reason: str) -> None:
    found = open_archive(write(tmp_path / "a.zip", {"a": b"1234", "b": b"5678", "c": b"90"}), Limits(**limits)).members()
    assert [next(found).path, next(found).path] == ["a", "b"]
    with pytest.raises(InputError, match=reason):
        next(found)
