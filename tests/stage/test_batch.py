"""Staging: what is wrong with a member costs that member, what is wrong with the disk costs the batch, and a file is whole or not there."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import h5dat_lib
from h5dat_lib import convert
from h5dat_lib.archive import open_archive
from h5dat_lib.archive.member import Content
from h5dat_lib.columns import Block, Bytes, Draft, Fault, Scalars
from h5dat_lib.config import MediumOptions
from h5dat_lib.convert.handler import Handler
from h5dat_lib.errors import MemberError, OutputError
from h5dat_lib.plan.batches import Batch, Plan
from h5dat_lib.plan.layout import Forms
from h5dat_lib.stage.batch import mark, stage
from h5dat_lib.stage.marks import IDLE, Place
from h5dat_lib.stage.staged import Segment, StagedFile, StagedScalars, StageWriter
from tests.conftest import config, make_zip, picture


def _batch(folder: Path, members: dict[str, bytes]) -> object:
    settings = config()
    [batch] = Plan(open_archive(make_zip(folder / "a.zip", members), settings.limits), 0, settings, folder).batches(Forms())
    return batch


def _texts_by(monkeypatch: pytest.MonkeyPatch, convert_text: object) -> None:
    """Makes texts be converted by another function."""
    handler = convert.by_extension("a.txt")
    assert handler is not None
    other: Handler = replace(handler, convert=convert_text)  # type: ignore[arg-type]
    monkeypatch.setattr("h5dat_lib.stage.batch.handler_for", lambda head, path, medium: other)


def test_whatever_a_decoder_raises_costs_its_member(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(content: Content, options: MediumOptions) -> Iterator[Block]:
        if b"evil" in content.read():
            raise ZeroDivisionError("no such colour")
        yield Block(1, {"text": Bytes([content.read()], "text")})

    _texts_by(monkeypatch, fails)
    h5dat_lib.ingest(make_zip(tmp_path / "a.zip", {"a.txt": b"good", "b.txt": b"evil", "c.txt": b"good"}), tmp_path / "out.h5", config())
    with h5dat_lib.open(tmp_path / "out.h5") as file:
        assert [file["texts"].origin(row).member for row in range(2)] == ["a.txt", "c.txt"]
        assert [(reject.member, reject.reason) for reject in file.rejects()] == [("b.txt", "ZeroDivisionError: no such colour")]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (SystemExit(3), "crashed: the decoder called exit"),
        (KeyboardInterrupt(), "crashed: the decoder called exit"),
        (MemoryError(), "out of memory: found more than 4096 MiB needed"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "out of memory: found more than 4096 MiB needed"),
        (RuntimeError("(-4:Insufficient memory) Failed to allocate 9 bytes"), "out of memory: found more than 4096 MiB needed"),
        (RuntimeError("std::bad_alloc"), "out of memory: found more than 4096 MiB needed"),
        (BaseException("a panic"), "BaseException: a panic"),
    ],
)
def test_a_decoder_that_exits_or_finds_no_memory_costs_its_member(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, reason: str
) -> None:
    def fails(content: Content, options: MediumOptions) -> Iterator[Block]:
        if content.read() == b"evil":
            raise error
        yield Block(1, {"text": Bytes([content.read()], "text")})

    _texts_by(monkeypatch, fails)
    h5dat_lib.ingest(make_zip(tmp_path / "a.zip", {"a.txt": b"evil", "b.txt": b"good"}), tmp_path / "out.h5", config())
    with h5dat_lib.open(tmp_path / "out.h5") as file:
        assert file["texts"].text[:] == ["good"]
        assert [(reject.stage, reject.reason) for reject in file.rejects()] == [("convert", reason)]


def test_the_mark_says_at_which_member_a_worker_is_and_how_long_it_may_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = []

    def notes(content: Content, options: MediumOptions) -> Iterator[Block]:
        places.append(mark.place)
        yield Block(1, {"text": Bytes([b""], "text")})

    _texts_by(monkeypatch, notes)
    monkeypatch.setattr("h5dat_lib.stage.batch._PART_BYTES", 10)
    stage(_batch(tmp_path, {"a.txt": b"a", "b.txt": bytes(9), "c.txt": bytes(10)}))  # type: ignore[arg-type]
    assert places == [Place(0, 0, 0, 60.0), Place(0, 0, 1, 60.0), Place(0, 0, 2, 120.0)]
    assert mark.place == IDLE


def test_a_piece_of_a_batch_holds_its_own_members(tmp_path: Path) -> None:
    batch: Batch = _batch(tmp_path, dict.fromkeys(("a.txt", "b.txt", "c.txt", "d.txt"), b"x"))  # type: ignore[assignment]
    piece = stage(replace(batch, first=1, members=2, stage=str(tmp_path / "1.piece")))
    assert (piece.rows, piece.rejects, piece.members) == (2, 0, 2)
    with StagedFile(tmp_path / "1.piece") as file:
        assert [segment.rows for segment in file.segments("texts")] == [2]


def test_a_condemned_piece_is_rejected_without_being_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batch: Batch = _batch(tmp_path, {"a.txt": b"x", "b.txt": b"x"})  # type: ignore[assignment]
    monkeypatch.setattr("h5dat_lib.stage.batch.Content", None)
    piece = stage(replace(batch, first=1, members=1, condemned="crashed", stage=str(tmp_path / "1.piece")))
    assert (piece.rows, piece.rejects, piece.members) == (0, 1, 1)


def test_rows_before_a_fault_stay_and_keep_their_origin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks_off(content: Content, options: MediumOptions) -> Iterator[Block | Fault]:
        yield Block(1, {"text": Bytes([content.read()], "text")})
        yield Fault("line 2: not good")
        if content.member.path == "a.txt":
            raise MemberError("broken off")

    _texts_by(monkeypatch, breaks_off)
    h5dat_lib.ingest(make_zip(tmp_path / "a.zip", {"a.txt": b"a", "b.txt": b"b"}), tmp_path / "out.h5", config())
    with h5dat_lib.open(tmp_path / "out.h5") as file:
        assert [file["texts"].origin(row).member for row in range(2)] == ["a.txt", "b.txt"]
        assert [reject.reason for reject in file.rejects()] == ["line 2: not good", "broken off", "line 2: not good"]


@pytest.mark.parametrize("end", ["drops", "fails"])
def test_of_what_is_drafted_nothing_is_left_when_it_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str) -> None:
    long = "x" * 100_000

    def drafts(content: Content, options: MediumOptions) -> Iterator[Block | Fault | Draft]:
        member = content.member.path
        if member == "b.txt":
            yield Draft.BEGUN
            for number in range(1500):
                yield Block(1, {"text": Bytes([long.encode()], "text"), "number": Scalars([number], "<i8")})
                yield Fault("a guess")
            if end == "fails":
                raise MemberError("broken off")
            yield Draft.DROPPED
        yield Draft.BEGUN
        yield Block(2, {"text": Bytes([member.encode(), content.read()], "text")})
        yield Fault(f"of {member}")
        yield Draft.KEPT

    _texts_by(monkeypatch, drafts)
    members = {f"{name}.txt": name.encode() for name in "abc"}
    h5dat_lib.ingest(make_zip(tmp_path / "a.zip", members), tmp_path / "out.h5", config(workers=1))
    names = ["a", "c"] if end == "fails" else ["a", "b", "c"]
    with h5dat_lib.open(tmp_path / "out.h5") as file:
        assert set(file["texts"].columns) == {"text"}
        assert file["texts"].text[:] == [text for name in names for text in (f"{name}.txt", name)]
        assert [file["texts"].origin(row).member for row in range(2 * len(names))] == [f"{name}.txt" for name in names for _ in "12"]
        assert [reject.reason for reject in file.rejects()] == ["of a.txt", "broken off" if end == "fails" else "of b.txt", "of c.txt"]
    assert (tmp_path / "out.h5").stat().st_size < 1 << 23


def test_a_disk_that_is_full_is_no_reject_of_the_member_it_happened_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: StageWriter, data: bytes) -> int:
        raise OutputError("the disk is full")

    monkeypatch.setattr(StageWriter, "blob", full)
    with pytest.raises(OutputError, match="the disk is full"):
        h5dat_lib.ingest(make_zip(tmp_path / "a.zip", {"a.png": picture()}), tmp_path / "out.h5", config())
    assert not (tmp_path / "out.h5").exists()


def test_a_staged_file_appears_when_it_is_complete(tmp_path: Path) -> None:
    batch = _batch(tmp_path, {"a.txt": b"x", "b.json": b"{"})
    staged = stage(batch)  # type: ignore[arg-type]
    assert (staged.rows, staged.rejects, staged.members) == (1, 1, 2)
    assert not list(tmp_path.glob("*.partial"))
    with StageWriter(tmp_path / "left.stage") as out:
        out.blob(b"x" * 100_000)
    assert not list(tmp_path.glob("left*"))


def test_segments_read_back_as_they_were_written(tmp_path: Path) -> None:
    numbers = StagedScalars(np.arange(5), np.array([True, False] * 2 + [True]), "t")
    with StageWriter(tmp_path / "a.stage") as out:
        out.add(Segment("t", 5, {"n": numbers}, {"color": "keep"}))
        out.finish()
    with StagedFile(tmp_path / "a.stage") as file:
        [segment] = file.segments()
    found = segment.columns["n"]
    assert isinstance(found, StagedScalars)
    assert np.array_equal(found.values, numbers.values) and np.array_equal(found.missing, numbers.missing)  # type: ignore[arg-type]
    assert (segment.table, segment.rows, segment.attributes, found.reference) == ("t", 5, {"color": "keep"}, "t")


@pytest.mark.parametrize("kept", [0, 10, 0.5, -1])
def test_a_staged_file_that_is_cut_is_refused(tmp_path: Path, kept: float) -> None:
    batch = _batch(tmp_path, {"a.txt": b"x" * 1000})
    path = Path(stage(batch).paths[0])  # type: ignore[arg-type]
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * kept) if isinstance(kept, float) else kept])
    with pytest.raises(OutputError, match="not a complete staged batch"):
        StagedFile(path)
