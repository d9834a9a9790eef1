"""The standard library's tarfile writes, we read."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import tarfile
import tracemalloc
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from h5dat_lib.archive import open_archive, open_reader
from h5dat_lib.archive.stream import read_whole, zstd
from h5dat_lib.config import Limits
from h5dat_lib.errors import InputError, MemberError, escaped
from h5dat_lib.storage import LocalSource

LIMITS = Limits()
Members = Callable[..., list[tuple[str, bytes | str]]]
PACK: dict[str, Callable[[bytes], bytes]] = {
    "tar": bytes,
    "tar.gz": gzip.compress,
    "tar.bz2": bz2.compress,
    "tar.xz": lzma.compress,
    "tar.zst": zstd.compress,
}
PACKED = [kind for kind in PACK if kind != "tar"]
FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


def tar_of(contents: dict[str, bytes], layout: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=layout) as archive:
        for name, data in contents.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def special(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, kind in members.items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "target"
            archive.addfile(info)
    return buffer.getvalue()


def write(folder: Path, raw: bytes, kind: str = "tar") -> Path:
    path = folder / f"a.{kind}"
    path.write_bytes(PACK[kind](raw))
    return path


def sized(header: bytes, size: int) -> bytes:
    """A header that says another size, with its checksum made to fit."""
    info = tarfile.TarInfo.frombuf(header[:512], "utf-8", "surrogateescape")
    info.size = size
    return info.tobuf(tarfile.GNU_FORMAT)


def block(name: str, kind: bytes, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 100_000, (1 << 20) + 1])
@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("kind", PACK)
def test_reads_what_tarfile_wrote(tmp_path: Path, members: Members, kind: str, layout: str, size: int) -> None:
    contents = {"first": os.urandom(size), "folder/" + "long" * 20: bytes(size), "last": b"x"}
    path = write(tmp_path, tar_of(contents, FORMATS[layout]), kind)
    assert open_archive(path, LIMITS).kind == kind
    assert members(path) == list(contents.items())


@pytest.mark.parametrize("kind", PACK)
def test_rejects_all_that_is_no_file_and_skips_folders(tmp_path: Path, members: Members, kind: str) -> None:
    raw = special(
        a=tarfile.LNKTYPE, b=tarfile.SYMTYPE, c=tarfile.CHRTYPE, d=tarfile.BLKTYPE, e=tarfile.FIFOTYPE,
        f=tarfile.DIRTYPE, g=b"V", h=b"D", i=b"M",
    )  # fmt: skip
    reasons = ["link", "link", "device", "device", "fifo", "begins in another volume of this tar"]
    assert members(write(tmp_path, raw, kind)) == list(zip("abcdei", reasons, strict=True))


def test_reads_a_member_of_unknown_type_as_a_file(tmp_path: Path, members: Members) -> None:
    raw = block("odd", b"?", 4) + b"data" + bytes(508) + bytes(1024)
    assert members(write(tmp_path, raw)) == [("odd", b"data")]


@pytest.mark.parametrize("kind", PACK)
@pytest.mark.parametrize("name", ["../a", "/a", "a/../../b", "x" * 5000])
def test_rejects_unsafe_names(tmp_path: Path, members: Members, kind: str, name: str) -> None:
    ((path, reason),) = members(write(tmp_path, tar_of({name: b"x"}), kind))
    assert isinstance(reason, str)
    assert reason.startswith("unsafe name")
    assert len(path) < 300


@pytest.mark.parametrize("kind", PACK)
def test_shows_bytes_that_are_not_utf8_as_escapes(tmp_path: Path, members: Members, kind: str) -> None:
    raw = tar_of({"\udce4b\udcf6": b"x"}, tarfile.GNU_FORMAT)
    assert members(write(tmp_path, raw, kind)) == [("\\xe4b\\xf6", b"x")]


def gnu_sparse(size: int, extents: list[tuple[int, int]], data: bytes) -> bytes:
    """A GNU sparse member of the old format: four extents in the header."""
    header = bytearray(block("sparse", b"S", len(data)))
    for n, (start, length) in enumerate(extents):
        header[386 + 24 * n : 386 + 24 * n + 24] = b"%011o\0%011o\0" % (start, length)
    header[483:495] = b"%011o\0" % size
    header[257:265] = b"ustar  \0"
    header[148:156] = b"%06o\0 " % (256 + sum(header[:148]) + sum(header[156:]))
    return bytes(header) + data + bytes(-len(data) % 512)


@pytest.mark.parametrize("kind", PACK)
def test_expands_sparse_members(tmp_path: Path, members: Members, kind: str) -> None:
    data = os.urandom(1500)
    raw = gnu_sparse(300_000, [(1000, 500), (200_000, 1000), (300_000, 0)], data) + tar_of({"next": b"x"})
    expected = bytes(1000) + data[:500] + bytes(198_500) + data[500:] + bytes(99_000)
    assert members(write(tmp_path, raw, kind)) == [("sparse", expected), ("next", b"x")]


@pytest.mark.parametrize("kind", PACK)
def test_expands_a_member_that_is_one_hole(tmp_path: Path, members: Members, kind: str) -> None:
    raw = gnu_sparse(5000, [(5000, 0)], b"") + tar_of({"next": b"x"})
    assert members(write(tmp_path, raw, kind)) == [("sparse", bytes(5000)), ("next", b"x")]


@pytest.mark.parametrize("extents", [[(1000, 500), (1200, 10)], [(0, 9000)], [(4000, 2000)]])
def test_rejects_a_sparse_map_that_does_not_fit(tmp_path: Path, members: Members, extents: list[tuple[int, int]]) -> None:
    raw = gnu_sparse(5000, extents, bytes(510)) + bytes(20_000)
    assert members(write(tmp_path, raw)) == [("sparse", "damaged: found a sparse map that does not fit the data")]


@pytest.mark.parametrize("kind", PACK)
def test_an_archive_cut_in_a_member_gives_all_before_it_and_says_where(tmp_path: Path, until_damage: Members, kind: str) -> None:
    raw = tar_of({"a": b"1" * 600, "b": b"2" * 5000, "c": b"3"}, tarfile.USTAR_FORMAT)
    path = write(tmp_path, raw[: 512 + 1024 + 512 + 1000], kind)
    found = until_damage(path)
    assert found[:2] == [("a", b"1" * 600), ("b", "archive ends in the middle of this member: found 1000 of 5000 bytes")]
    assert len(found) == 3 and "damaged in the middle of member 'b'" in str(found[2][1])


@pytest.mark.parametrize("kind", PACKED)
def test_a_compressed_stream_cut_in_a_member_gives_all_before_it(tmp_path: Path, until_damage: Members, kind: str) -> None:
    path = write(tmp_path, tar_of({str(n): os.urandom(300_000) for n in range(20)}), kind)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 52 // 100])
    *before, (_, reason), _ = until_damage(path)
    assert 1 < len(before) < 12
    assert all(len(data) == 300_000 for _, data in before)
    assert isinstance(reason, str)
    assert reason.startswith("archive ends in the middle of this member: found ")


@pytest.mark.parametrize("kind", ["tar.gz", "tar.bz2", "tar.xz"])
def test_damage_in_a_member_ends_the_pass_there(tmp_path: Path, until_damage: Members, kind: str) -> None:
    text = b"".join(b"%d squared is %d\n" % (n, n * n) for n in range(100_000))
    path = write(tmp_path, tar_of({"a": b"1", "b": text, "c": b"3"}), kind)
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2 :] = b"\xff" * (len(raw) - len(raw) // 2)
    path.write_bytes(raw)
    first, (_, reason), _ = until_damage(path)
    assert first == ("a", b"1")
    assert isinstance(reason, str)
    assert reason.startswith("archive is damaged in the middle of this member: found ")


def test_a_gzip_whose_checksum_differs_is_reported(tmp_path: Path) -> None:
    path = write(tmp_path, tar_of({str(n): os.urandom(100_000) for n in range(20)}), "tar.gz")
    raw = bytearray(path.read_bytes())
    raw[-7] ^= 1
    path.write_bytes(raw)
    archive = open_archive(path, LIMITS)
    with pytest.raises(InputError, match=r"a\.tar\.gz: damaged after member .*hecksum"):
        sum(len(read_whole(stream, 1 << 20)) for _, stream in archive.stream())


@pytest.mark.parametrize("kind", PACK)
def test_a_damaged_header_is_no_end_of_the_archive(tmp_path: Path, members: Members, kind: str) -> None:
    raw = bytearray(tar_of({"a": b"1", "b": b"2", "c": b"3"}, tarfile.USTAR_FORMAT))
    raw[1024 + 20] ^= 0xFF
    with pytest.raises(InputError, match="damaged after member 'a': found no valid header: bad checksum"):
        members(write(tmp_path, bytes(raw), kind))


@pytest.mark.parametrize("kind", PACK)
def test_an_archive_cut_in_a_header_is_damaged(tmp_path: Path, members: Members, kind: str) -> None:
    raw = tar_of({"a": b"1", "b": b"2"}, tarfile.USTAR_FORMAT)
    with pytest.raises(InputError, match="damaged after member 'a': found no valid header: truncated"):
        members(write(tmp_path, raw[: 1024 + 100], kind))


@pytest.mark.parametrize("tail", [b"", bytes(512), bytes(100), bytes(1024), bytes(100_000), bytes(1024) + b"junk behind the end"])
@pytest.mark.parametrize("kind", PACK)
def test_any_end_on_a_member_boundary_is_fine(tmp_path: Path, members: Members, kind: str, tail: bytes) -> None:
    raw = tar_of({"a": b"1", "b": b"2"}, tarfile.USTAR_FORMAT)[:2048]
    assert members(write(tmp_path, raw + tail, kind)) == [("a", b"1"), ("b", b"2")]


@pytest.mark.parametrize("kind", PACK)
def test_a_last_member_without_its_padding_is_complete(tmp_path: Path, members: Members, kind: str) -> None:
    assert members(write(tmp_path, tar_of({"a": b"12345"}, tarfile.USTAR_FORMAT)[:517], kind)) == [("a", b"12345")]


@pytest.mark.parametrize("kind", PACK)
def test_an_archive_of_zeros_has_no_members(tmp_path: Path, members: Members, kind: str) -> None:
    assert members(write(tmp_path, bytes(10_240), kind)) == []


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (block("x", b"x", 1 << 30), "found a header of 1073741824 bytes"),
        (block("L", b"L", 5 << 20) + bytes(6 << 20), "found a header of 5242880 bytes"),
        (block("x", b"x", 512) + b"999 path=a\n" + bytes(501), "found a pax header that is invalid at byte 0"),
        (block("x", b"x", 512) + (b"9 a=bcde\n" + b"5 a=b").ljust(512, b"\0"), "found a pax header that is invalid at byte 9"),
        (block("x", b"x", 20_480) + b"20480 a=" + b"1" * 20_471 + b"\n", "found a pax header with runs of too many digits"),
        (block("g", b"g", 0) * 100, "found more than 64 extended headers in a row"),
    ],
)
@pytest.mark.parametrize("kind", ["tar", "tar.gz"])
def test_headers_cannot_cost_more_than_their_bound(tmp_path: Path, members: Members, kind: str, raw: bytes, reason: str) -> None:
    tail = tar_of({"a": b"1"})
    with pytest.raises(InputError, match=f"damaged at its start: {reason}"):
        members(write(tmp_path, raw + tail, kind))


@pytest.mark.parametrize("kind", ["tar", "tar.gz"])
def test_a_negative_size_is_damage_not_a_loop(tmp_path: Path, members: Members, kind: str) -> None:
    record = b"17 size=-1000000\n"
    raw = block("x", b"x", len(record)) + record.ljust(512, b"\0") + block("a", b"0", 0) + tar_of({"b": b"2"})
    with pytest.raises(InputError, match="damaged at its start: found a size of -1000000 bytes"):
        members(write(tmp_path, raw, kind))


def test_members_of_a_packed_tar_may_be_passed_over_unread(tmp_path: Path) -> None:
    path = write(tmp_path, tar_of({str(n): bytes(100_000) for n in range(9)}), "tar.gz")
    archive = open_archive(path, LIMITS)
    assert [member.path for member in archive.members()] == list("012345678")
    assert archive.position() == path.stat().st_size


def test_bytes_of_an_earlier_member_cannot_be_read_later(tmp_path: Path) -> None:
    archive = open_archive(write(tmp_path, tar_of({"a": b"1" * 999, "b": b"2"}), "tar.gz"), LIMITS)
    streams = [stream for _, stream in archive.stream()]
    with pytest.raises(ValueError, match="before the next member"):
        streams[0].read(10)


def test_a_cut_member_that_nobody_reads_is_reported_all_the_same(tmp_path: Path) -> None:
    raw = tar_of({"a": b"1", "b": bytes(5000)}, tarfile.USTAR_FORMAT)[:3000]
    with pytest.raises(InputError, match="damaged after member 'b': found the end of the archive at byte 3000"):
        list(open_archive(write(tmp_path, raw, "tar.gz"), LIMITS).members())


def test_one_pass_over_a_packed_tar_holds_little(tmp_path: Path) -> None:
    path = write(tmp_path, tar_of({"zeros": bytes(30 << 20), "b": b"2"}), "tar.gz")
    archive = open_archive(path, LIMITS)
    tracemalloc.start()
    sizes = []
    for _, stream in archive.stream():
        size = 0
        while data := stream.read(1 << 18):
            size += len(data)
        sizes.append(size)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sizes == [30 << 20, 1]
    assert peak < 4 << 20


def test_a_small_member_of_a_plain_tar_costs_one_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, tar_of({str(n): os.urandom(3000) for n in range(500)}))
    found = list(open_archive(path, LIMITS).members())
    reads: list[int] = []
    pread = LocalSource._pread
    monkeypatch.setattr(LocalSource, "_pread", lambda self, offset, size: reads.append(size) or pread(self, offset, size))
    with closing(open_reader("tar", str(path))) as reader:
        for member in found:
            reader.read(member, 1 << 20)
    assert reads == [3000] * 500


def test_reading_a_member_that_has_gone_says_how_much_was_found(tmp_path: Path) -> None:
    path = write(tmp_path, tar_of({"a": bytes(3000)}, tarfile.USTAR_FORMAT))
    (member,) = open_archive(path, LIMITS).members()
    os.truncate(path, 1512)
    with closing(open_reader("tar", str(path))) as reader, pytest.raises(MemberError, match="found 1000 of 3000 bytes"):
        reader.read(member, 1 << 20)


names = st.text(st.characters(exclude_characters="/\\\0:", exclude_categories=["Cs"]), min_size=1, max_size=60).filter(
    lambda name: name not in (".", "..")
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    contents=st.dictionaries(names, st.binary(max_size=3000), min_size=1),
    layout=st.sampled_from(["gnu", "pax"]),
    kind=st.sampled_from(list(PACK)),
)
def test_any_tar_reads_as_tarfile_reads_it(tmp_path: Path, members: Members, contents: dict[str, bytes], layout: str, kind: str) -> None:
    raw = tar_of(contents, FORMATS[layout])
    with tarfile.open(fileobj=io.BytesIO(raw)) as archive:
        expected = [(escaped(info.name), archive.extractfile(info).read()) for info in archive]  # type: ignore[union-attr]
    assert members(write(tmp_path, raw, kind)) == expected


@pytest.mark.parametrize("kind", PACK)
def test_ends_at_the_limits_of_an_archive(tmp_path: Path, kind: str) -> None:
    archive = open_archive(write(tmp_path, tar_of({"a": b"1", "b": b"2", "c": b"3"}), kind), Limits(members=2))
    found = archive.members()
    assert [next(found).path, next(found).path] == ["a", "b"]
    with pytest.raises(InputError, match=r"found more than 2 members \(limits.members\)"):
        next(found)


def test_a_stream_that_inflates_beyond_the_limit_ends_there(tmp_path: Path) -> None:
    archive = open_archive(write(tmp_path, tar_of({"a": b"text", "zeros": bytes(70 << 20), "c": b""}), "tar.gz"), Limits(ratio=100))
    stream = archive.stream()
    member, data = next(stream)
    assert (member.path, data.read()) == ("a", b"text")
    member, data = next(stream)
    with pytest.raises(MemberError, match="decompression bomb"):
        read_whole(data, 1 << 30)
    with pytest.raises(InputError, match=r"expected at most 100 times as many \(limits.ratio\), in member 'zeros'; raise the limit"):
        next(stream)


@pytest.mark.parametrize("kind", ["tar", "tar.gz"])
def test_refuses_a_sparse_member_of_much_more_than_its_data(tmp_path: Path, members: Members, kind: str) -> None:
    raw = gnu_sparse(5 << 30, [(0, 512)], bytes(512)) + tar_of({"next": b"x"})
    (sparse, reason), following = members(write(tmp_path, raw, kind))
    assert (sparse, following) == ("sparse", ("next", b"x"))
    assert str(reason).startswith("decompression bomb: found a record of 5368709120 bytes in 512 stored ones")
