"""Plans: every member in exactly one batch, in archive order, cut the same way on every machine, in bounded memory."""

from __future__ import annotations

import struct
import tarfile
import tracemalloc
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from h5dat_lib.archive import open_archive
from h5dat_lib.archive.member import Member
from h5dat_lib.errors import InputError
from h5dat_lib.plan.batches import BATCH_BYTES, Batch, Plan, Record, summarise
from h5dat_lib.plan.layout import Forms
from h5dat_lib.plan.schema import Class
from tests.conftest import config, make_zip, picture


def _batches(path: Path, folder: Path, **settings: object) -> list[Batch]:
    return list(Plan(open_archive(path, config().limits), 0, config(**settings), folder).batches(Forms()))


def _paths(batches: list[Batch]) -> list[str]:
    return [record.member.path for batch in batches for record in batch.records()]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 3_000_000), min_size=1, max_size=200), st.floats(0.01, 5))
def test_every_member_is_in_exactly_one_batch_in_archive_order(sizes: list[int], seconds: float) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        members = {f"{number:03}.csv": b"0" * (size // 1000) for number, size in enumerate(sizes)}
        batches = _batches(make_zip(folder / "a.zip", members), folder, batch_seconds=seconds)
        assert _paths(batches) == list(members)
        assert [batch.number for batch in batches] == list(range(len(batches)))
        assert len({batch.key for batch in batches}) == len(batches)
        assert sum(batch.members for batch in batches) == len(members)


def test_the_same_archive_is_cut_the_same_way_whatever_the_workers(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", {f"{n}.json": b"{}" * 50 for n in range(3000)})
    few = _batches(path, tmp_path, workers=1, batch_seconds=0.1)
    many = _batches(path, tmp_path, workers=9, batch_seconds=0.1)
    assert len(few) > 3
    assert [(batch.key, batch.start, batch.members) for batch in few] == [(batch.key, batch.start, batch.members) for batch in many]


def test_keys_change_with_the_configuration_and_not_with_how_it_is_run(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", {"a.txt": b"x"})
    [batch], [same], [other] = (
        _batches(path, tmp_path, **s) for s in ({"workers": 1}, {"workers": 2, "max_rejects": 3}, {"image": {"color": "L"}})
    )
    assert batch.key == same.key != other.key


def test_a_listed_archive_and_its_stream_have_the_same_members(tmp_path: Path) -> None:
    members = {f"{n}.txt": b"x" * n for n in range(100)}
    listed = make_zip(tmp_path / "a.zip", members)
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, BytesIO(data))
    streamed = Plan(open_archive(tmp_path / "a.tar.gz", config().limits), 1, config(), tmp_path)
    assert streamed.members is None
    assert _paths(list(streamed.batches(Forms()))) == _paths(_batches(listed, tmp_path)) == list(members)
    assert streamed.members == 100


def test_a_member_larger_than_a_batch_is_a_batch_of_its_own(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name, size in (("a.csv", 10), ("b.csv", BATCH_BYTES), ("c.csv", 10)):
            info = tarfile.TarInfo(name)
            info.size = size
            archive.addfile(info, _Zeros(size))
    assert [batch.members for batch in _batches(tmp_path / "a.tar", tmp_path, batch_seconds=600)] == [1, 1, 1]


class _Zeros:
    def __init__(self, size: int) -> None:
        self._left = size

    def read(self, size: int) -> bytes:
        taken = min(size, self._left)
        self._left -= taken
        return bytes(taken)


def test_no_message_is_decoded_while_members_are_planned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("h5dat_lib.convert.bufr._eccodes", None)
    message = (Path(__file__).parents[1] / "data/images/picture.bufr").read_bytes()
    assert summarise(str(make_zip(tmp_path / "a.zip", {"a.bufr": message, "b.json": b"{}"})), config()).members == 2


def test_threads_open_videos_without_another_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("h5dat_lib.plan.probing._elsewhere", None)  # a script that is not guarded cannot start one
    film = (Path(__file__).parents[1] / "data/video/h264.mp4").read_bytes()
    [batch] = _batches(make_zip(tmp_path / "a.zip", {"a.mp4": film}), tmp_path)
    assert batch.forms.layouts["videos/frames"].shape


def test_spools_exist_one_at_a_time_unless_they_are_kept(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        for number in range(4000):
            info = tarfile.TarInfo(f"{number}.json")
            info.size = 2
            archive.addfile(info, BytesIO(b"{}"))
    seen = 0
    for batch in Plan(open_archive(tmp_path / "a.tar.gz", config().limits), 0, config(batch_seconds=0.1), tmp_path).batches(Forms()):
        assert len(list(tmp_path.glob("*.spool"))) == 1
        Path(batch.source).unlink()
        seen += 1
    assert seen > 3


def test_the_memory_of_a_plan_is_some_bytes_a_member(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", {f"some/folder/with/a/name/{n}.json": b"" for n in range(20_000)})
    tracemalloc.start()
    plan = Plan(open_archive(path, config().limits), 0, config(), tmp_path)
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert plan.members == 20_000
    assert used < 20_000 * 200


def test_content_decides_where_the_name_says_nothing(tmp_path: Path) -> None:
    [batch] = _batches(make_zip(tmp_path / "a.zip", {"picture": picture(), "noise.xyz": b"?"}), tmp_path)
    [image, noise] = batch.records()
    assert image.class_ == Class("images", "images")
    assert noise.class_ is None and "unknown type" in (noise.member.reject or "")


def test_a_record_survives_its_line() -> None:
    member = Member("a/\udcff.jpg", 5, 4, 3, "deflate", 7, ((0, 2), (4, 1)), None)
    for record in (Record(member, Class("x", "images")), Record(member, None)):
        assert Record.from_line(record.to_line()) == record


def test_summarise_counts_members_bytes_and_batches_of_each_class(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", {"a.png": picture(), "b.png": picture(), "c.json": b"{}", "d.exe": b"x"})
    summary = summarise(str(path), config())
    assert (summary.kind, summary.members, summary.batches) == ("zip", 4, 1)
    assert {entry.name: (entry.members, entry.batches) for entry in summary.classes} == {"images": (2, 1), "documents": (1, 1), "": (1, 1)}


def test_a_single_file_of_no_known_type_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"\x01\x02\x03")
    with pytest.raises(InputError, match="no archive"):
        _batches(tmp_path / "a.bin", tmp_path)


_SIZES = st.lists(st.integers(0, 300) | st.integers(0, 3000), min_size=1, max_size=60)


def _archive(folder: Path, sizes: list[int], streamed: bool) -> Path:
    members = {f"{number:03}.csv": b"0" * size for number, size in enumerate(sizes)}
    if not streamed:
        return make_zip(folder / "a.zip", members)
    with tarfile.open(folder / "a.tar.gz", "w:gz", compresslevel=1) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, BytesIO(data))
    return folder / "a.tar.gz"


@settings(max_examples=40, deadline=None)
@given(_SIZES, st.integers(1, 5000), st.booleans())
def test_a_batch_of_more_than_one_member_is_never_larger_than_a_batch_may_be(sizes: list[int], most: int, streamed: bool) -> None:
    with TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr("h5dat_lib.plan.batches.BATCH_BYTES", most)
        batches = _batches(_archive(Path(name), sizes, streamed), Path(name), batch_seconds=600)
        found = [[record.member.size for record in batch.records()] for batch in batches]
    assert [size for batch in found for size in batch] == sizes
    assert [batch for batch in found if len(batch) > 1 and sum(batch) > most] == []


@settings(max_examples=20, deadline=None)
@given(_SIZES, st.floats(0.01, 5), st.booleans(), st.lists(st.integers(1, 64), min_size=2, max_size=3))
def test_the_cuts_are_the_same_however_many_workers_there_are(sizes: list[int], seconds: float, streamed: bool, workers: list[int]) -> None:
    with TemporaryDirectory() as name:
        path = _archive(Path(name), sizes * 5, streamed)
        cuts = [_batches(path, Path(name), workers=count, batch_seconds=seconds) for count in workers]
    assert len({tuple((batch.key, batch.members) for batch in batches) for batches in cuts}) == 1


def test_a_zip_that_claims_more_bytes_than_64_bits_with_a_sign_hold_is_planned_with_a_reject(tmp_path: Path) -> None:
    data = make_zip(tmp_path / "a.zip", {"a.txt": b"x", "good.txt": b"y"}).read_bytes()
    at = data.index(b"PK\x01\x02")
    size = len(data) - data.index(b"PK\x05\x06")
    extra = struct.pack("<HHQQ", 1, 16, (1 << 64) - 1, (1 << 64) - 1)  # APPNOTE 4.5.3
    entry = bytearray(data[at : at + 46 + 5])
    entry[20:28] = b"\xff" * 8  # compressed and uncompressed size are in the zip64 extra field
    entry[30:32] = struct.pack("<H", len(extra))
    directory = bytes(entry) + extra + data[at + 46 + 5 : -size]
    end = bytearray(data[-size:])
    end[12:16] = struct.pack("<I", len(directory))
    (tmp_path / "a.zip").write_bytes(data[:at] + directory + bytes(end))
    summary = summarise(str(tmp_path / "a.zip"), config())
    assert {entry.name: entry.members for entry in summary.classes} == {"": 1, "texts": 1}
