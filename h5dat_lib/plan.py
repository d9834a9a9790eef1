"""Archive -> classified members -> batches.

The members of an archive are listed once into a plan file, a JSON line each, so that no list of them is held in memory;
a batch is a run of those lines. A streamed archive is spooled instead, a batch at a time, as batches are asked for.
Where batches are cut depends on the archive and the configuration only, never on the machine: the same input gives the same content.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from io import BytesIO
from itertools import islice
from operator import attrgetter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO, TypeVar, cast

from h5dat_lib.archive import is_container, open_archive, open_reader
from h5dat_lib.archive.member import Archive, Content, Member, Reader, StreamedArchive
from h5dat_lib.archive.spool import SpoolWriter
from h5dat_lib.config import Config, Medium
from h5dat_lib.convert import by_extension, handler_for
from h5dat_lib.convert.image import probe
from h5dat_lib.errors import InputError, MemberError
from h5dat_lib.layout import PROBED, PixelLayout, pixel_layout
from h5dat_lib.lineage import versions
from h5dat_lib.schema import Class, Classifier
from h5dat_lib.storage import sha256_of

BATCH_BYTES = 256 << 20
"""Most decompressed bytes of a batch of more than one member: bounds the space of spooled and staged batches."""
_SHARE = 8
"""A batch takes at most this part of the work that is left, so that the last batches end together."""
_LEAST = 8
"""No batch is estimated below this part of ``batch_seconds``, so that a task run stays worth its cost."""
_SPREAD = 4
"""But an archive with little work is cut into this many, so that all workers have a part in it..."""
_FLOOR = 0.25
"""...unless there is so little, in seconds, that one of them has done it before the others have started."""
_STEP = 1 << 20


_MEMBER_FIELDS = attrgetter(*(entry.name for entry in fields(Member)))
_to_json = json.JSONEncoder(separators=(",", ":")).encode


@dataclass(frozen=True)
class Record:
    """One line of a plan file: a member and its class; no class when the member is rejected."""

    member: Member
    class_: Class | None

    def to_line(self) -> bytes:
        class_ = (self.class_.name, self.class_.medium) if self.class_ else None
        return _to_json((*_MEMBER_FIELDS(self.member), class_)).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> Record:
        *values, class_ = json.loads(line)
        member = Member(*values)
        if member.sparse:
            member = replace(member, sparse=tuple((offset, length) for offset, length in member.sparse))
        return cls(member, Class(*class_) if class_ else None)


T = TypeVar("T")


@dataclass(frozen=True)
class Batch:
    """What one task converts: ``members`` lines of the file ``plan`` from byte ``start`` on, read from ``source``.

    ``key`` is the same for the same batch of the same archive with the same configuration: by it a batch is committed
    exactly once. ``stored`` counts bytes of the archive, for progress. ``stage`` is the file that the task makes.
    ``layouts`` holds the pixel layout of each class of pictures, the file ``known`` what is in of other archives. A ``retry`` converts
    members whose rejects are on record. ``spool`` says that ``source`` belongs to this batch alone.
    A piece of a batch begins behind its ``first`` members; one that is ``condemned`` is one member, rejected for that reason.
    """

    number: int
    key: str
    archive: int
    plan: str
    start: int
    members: int
    stored: int
    kind: str
    source: str
    stage: str
    config: str
    layouts: dict[str, PixelLayout]
    spool: bool = False
    known: str = ""
    retry: bool = False
    first: int = 0
    condemned: str = ""

    def records(self) -> Iterator[Record]:
        """The members of the batch, in archive order."""
        with open(self.plan, "rb") as plan:
            plan.seek(self.start)
            yield from map(Record.from_line, islice(plan, self.first, self.first + self.members))


@dataclass
class Share:
    """What a plan counts for a class: members, their decompressed bytes, and estimated seconds on one core."""

    members: int = 0
    bytes: int = 0
    seconds: float = 0.0


class Planner:
    """Classifies the members of one archive, and counts them by class (None: members that will be rejected)."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.shares: dict[str | None, Share] = {}
        self.pictures: dict[str, list[Member]] = {}
        """The first `PROBED` members of each class of decoded pictures."""
        self._classifier = Classifier(config.schema_, _medium_of)
        self._seen: set[int] = set()

    def record(self, member: Member, reader: Reader) -> tuple[Record, float]:
        """The member with its class, and its estimated seconds. Opens the member only when its name says nothing."""
        record = self._classified(member, reader)
        seconds = self._seconds(record)
        share = self.shares.setdefault(record.class_.name if record.class_ else None, Share())
        share.members += 1
        share.bytes += max(member.size, 0)
        share.seconds += seconds
        return record, seconds

    def _classified(self, member: Member, reader: Reader) -> Record:
        if member.reject is None and self._is_double(member.path):
            return _rejected(member, "duplicate name: an earlier member has this path; duplicate_names = keep takes both")
        if member.reject is not None:
            return Record(member, None)
        class_ = self._classifier.classify(member.path)
        record = Record(member, class_) if class_ else self._by_content(member, reader)
        self._note_picture(record)
        return record

    def _is_double(self, path: str) -> bool:
        if self.config.duplicate_names == "keep":
            return False
        # 64-bit hashes, not names: 60 bytes a member, and among a million of them two collide once in ten million runs.
        known = len(self._seen)
        self._seen.add(hash(path))
        return len(self._seen) == known

    def pass_over(self, member: Member) -> None:
        """Notes a member that came in before, whose name is taken."""
        if member.reject is None:
            self._is_double(member.path)

    def forget_names(self) -> None:
        """Gives back the memory by which doubles are found, once all members have been seen."""
        self._seen.clear()

    def _by_content(self, member: Member, reader: Reader) -> Record:
        if not self._classifier.by_medium:
            return _rejected(member, "no class: no rule of the schema matches this path")
        try:
            head = Content(reader, member, self.config.limits).head()
        except MemberError as exc:
            return _rejected(member, exc.reason)
        if container := is_container(head):
            return _rejected(member, f"nested archive: found {container}, which is not opened; ingest it by itself")
        handler = handler_for(head, member.path)
        if handler is None:
            return _rejected(member, f"unknown type: no known signature, extension {Path(member.path).suffix!r}")
        return Record(member, Class(handler.medium, handler.medium))

    def _note_picture(self, record: Record) -> None:
        if record.class_ is None or record.class_.medium != "images":
            return
        firsts = self.pictures.setdefault(record.class_.name, [])
        if len(firsts) < PROBED:
            firsts.append(record.member)

    def _seconds(self, record: Record) -> float:
        handler = by_extension(record.member.path)
        megabytes = max(record.member.size, 0) / 1e6
        if record.class_ is None:
            return 20e-6
        if record.class_.medium == "images" and self.config.options(record.class_.name).image.storage == "encoded":
            return 300e-6 + megabytes * 3e-3
        if handler is None:
            return 1e-3 + megabytes * 0.1
        return handler.member_seconds + megabytes * handler.megabyte_seconds

    def decide_layouts(self, layouts: dict[str, PixelLayout], reader: Reader) -> None:
        """Adds the layout of each class of pictures that has none yet, from the headers of its first pictures."""
        for name, members in self.pictures.items():
            if name not in layouts:
                probes = [found for member in members if (found := self._probe(name, member, reader))]
                layouts[name] = pixel_layout(probes, self.config.options(name).image)

    def _probe(self, name: str, member: Member, reader: Reader) -> tuple[tuple[int, ...], str] | None:
        try:
            return probe(Content(reader, member, self.config.limits).read(), self.config.options(name).image, self.config.limits)
        except MemberError:
            return None  # it becomes a reject when it is converted, with its reason


@dataclass(frozen=True)
class Done:
    """How much of an archive is in an output already: its first members, in so many batches.

    With the configuration's digest, ``fingerprint`` tells the archive from all others and from its own other versions.
    """

    fingerprint: str
    members: int = 0
    batches: int = 0


class Plan:
    """One archive of an ingest: its members, counted, classified and cut into batches.

    ``members`` is None for a streamed archive until its end has been read. ``damage`` says what is wrong with an archive
    that ends early: what lies before that is converted. ``done`` says where to go on; ``only`` names the members that are
    wanted, when that is not all. Raises InputError when the archive cannot be used or is empty.
    """

    def __init__(
        self, archive: Archive, number: int, config: Config, folder: Path, done: Done | None = None, only: Collection[str] | None = None
    ) -> None:
        self.archive = archive
        self.number = number
        self.done = done or Done(archive.fingerprint())
        self._only = only
        self.planner = Planner(config)
        self.members: int | None = None
        self.damage: str | None = None
        self._config = config
        self._config_path = config.save(folder)
        self._folder = folder
        self._path = folder / f"archive-{number:05}.plan"
        self._cost = array("f")
        self._size = array("q")
        self._stored = array("q")
        self._start = array("q")
        if not self.archive.streamed:
            self._list()

    @property
    def stored(self) -> int:
        """Bytes of the archive that its batches are made of, for progress: of its members, or of a stream as a whole."""
        return self.archive.size if self.archive.streamed else sum(self._stored[self.done.members :])

    def _list(self) -> None:
        """Writes the plan file of an archive whose members can be listed; 28 bytes a member stay in memory."""
        reader = open_reader(self.archive.kind, self.archive.uri, self._config.limits)
        with self._path.open("wb") as plan:
            for member in self._until_damage(self.archive.members(), lambda damaged: damaged):
                if self._is_left_out(member):
                    self.planner.pass_over(member)
                    continue
                record, seconds = self.planner.record(member, reader)
                self._refuse_unknown_file(record)
                self._start.append(plan.tell())
                self._cost.append(seconds)
                self._size.append(_counted(member.size))
                self._stored.append(_counted(member.stored))
                plan.write(record.to_line())
        reader.close()
        self.planner.forget_names()
        self.members = len(self._start)
        self._refuse_empty(self.members)

    def _until_damage(self, members: Iterator[T], stand_in: Callable[[Member], T]) -> Iterator[T]:
        """The members that are there, and behind them one without a path for what the archive no longer holds: its reject
        records the damage. Raises InputError when there are none before it."""
        found = False
        try:
            for member in members:
                found = True
                yield member
        except InputError as exc:
            if not found:
                raise
            self.damage = str(exc)
            yield stand_in(Member("", -1, 0, 0, reject=self.damage))

    def _is_left_out(self, member: Member) -> bool:
        return self._only is not None and member.path not in self._only

    def _refuse_unknown_file(self, record: Record) -> None:
        """A single file that is neither an archive nor convertible is a mistaken argument, not a reject."""
        if self.archive.kind == "file" and record.class_ is None:
            raise InputError(
                f"{self.archive.uri}: found no archive ({record.member.reject}); give a zip, tar, gz, folder or a file of a known type"
            )

    def _refuse_empty(self, members: int) -> None:
        if not members and self._only is None:
            raise InputError(f"{self.archive.uri}: found no members, expected at least one; nothing to ingest")

    def batches(self, layouts: dict[str, PixelLayout], known: Path | None = None) -> Iterator[Batch]:
        """Batches in archive order, from where ``done`` says. ``layouts`` holds what is known of the output's classes and is added
        to; ``known`` is the file of contents that are in."""
        identity = f"{self.done.fingerprint} {self._config.digest()}"
        # What a staged file holds depends on these, on the layouts, and on nothing else.
        left_out = sha256_of(str(known)) if known and self._config.duplicates == "skip" else ""
        made_with = (self._config.limits.model_dump_json(), json.dumps(versions()), left_out)
        first = self.done.members
        for batch in self._spooled(layouts) if self.archive.streamed else self._listed(layouts):
            key = _hash(identity, str(first))
            stage = self._folder / f"{_hash(key, str(batch.members), *made_with, *map(repr, sorted(layouts.items())))}.stage"
            yield replace(batch, key=key, layouts=dict(layouts), known=str(known or ""), retry=self._only is not None, stage=str(stage))
            first += batch.members

    def _batch(self, number: int, plan: Path, start: int, members: int, stored: int) -> Batch:
        return Batch(
            number, "", self.number, str(plan), start, members, stored,
            self.archive.kind, self.archive.uri, "", str(self._config_path), {},
        )  # fmt: skip

    def _listed(self, layouts: dict[str, PixelLayout]) -> Iterator[Batch]:
        reader = open_reader(self.archive.kind, self.archive.uri, self._config.limits)
        self.planner.decide_layouts(layouts, reader)
        reader.close()
        total = sum(self._cost)
        first, number, left = self.done.members, self.done.batches, total - sum(self._cost[: self.done.members])
        while first < len(self._start):
            end, seconds = self._end_of_batch(first, self._target(left, total))
            yield self._batch(number, self._path, self._start[first], end - first, sum(self._stored[first:end]))
            first, number, left = end, number + 1, left - seconds

    def _target(self, left: float, total: float) -> float:
        """Seconds of work for the next batch: large ones first, small ones last, all of them worth a task run."""
        most = self._config.batch_seconds
        return max(min(most / _LEAST, max(total / _SPREAD, _FLOOR)), min(most, left / _SHARE))

    def _end_of_batch(self, first: int, target: float) -> tuple[int, float]:
        end, seconds, size = first + 1, self._cost[first], self._size[first]
        while end < len(self._cost) and seconds + self._cost[end] <= target and size + self._size[end] <= BATCH_BYTES:
            seconds += self._cost[end]
            size += self._size[end]
            end += 1
        return end, seconds

    def _spooled(self, layouts: dict[str, PixelLayout]) -> Iterator[Batch]:
        """Reads the stream as far as the next batch; each batch has a spool and a plan file of its own."""
        archive = cast(StreamedArchive, self.archive)
        stream = _Stream(self._until_damage(archive.stream(), lambda damaged: (damaged, cast(BinaryIO, BytesIO()))))
        total = self._pass_over(stream)
        position = 0
        for number in range(self.done.batches, 1 << 62):
            spool = self._folder / f"{self.number:05}-{number:06}.spool"
            # Small batches first: the workers start early, and a short archive is still spread over all of them.
            seconds = self._config.batch_seconds * min(1, 1.5 ** min(number, _LEAST) / _LEAST)
            members = self._spool(stream, spool, seconds, layouts)
            total += members
            if not members:
                break
            read, position = archive.position() - position, archive.position()
            batch = self._batch(number, spool.with_suffix(".plan"), 0, members, read)
            yield replace(batch, kind="tar", source=str(spool), spool=True)
        self.members = total
        self._refuse_empty(total)

    def _pass_over(self, stream: Iterator[tuple[Member, BinaryIO]]) -> int:
        """Reads the members that are done; returns how many there were."""
        count = 0
        for member, data in islice(stream, self.done.members):
            self.planner.pass_over(member)
            _drain(data)
            count += 1
        return count

    def _spool(self, stream: _Stream, path: Path, target: float, layouts: dict[str, PixelLayout]) -> int:
        """Copies members into the spool until their work reaches ``target`` seconds; returns how many there were."""
        count, size, seconds = 0, 0, 0.0
        with SpoolWriter(path, self._config.limits) as spool, path.with_suffix(".plan").open("wb") as plan:
            reader = open_reader("tar", str(path))
            for member, data in stream:
                if self._is_left_out(member):
                    self.planner.pass_over(member)
                    _drain(data)
                    continue
                if count and size + member.size > BATCH_BYTES:
                    stream.put_back(member, data)
                    break
                spooled = _spooled_member(spool, member, data)
                record, cost = self.planner.record(spooled, reader)
                plan.write(record.to_line())
                count, size, seconds = count + 1, size + max(spooled.size, 0), seconds + cost
                if seconds >= target:
                    break
            self.planner.decide_layouts(layouts, reader)
            reader.close()
        if not count:
            path.unlink()
            path.with_suffix(".plan").unlink()
        return count


class _Stream:
    """Members with their bytes, of which the last may be put back before its bytes are read."""

    def __init__(self, members: Iterator[tuple[Member, BinaryIO]]) -> None:
        self._members = members
        self._back: tuple[Member, BinaryIO] | None = None

    def __iter__(self) -> _Stream:
        return self

    def __next__(self) -> tuple[Member, BinaryIO]:
        back, self._back = self._back, None
        return back or next(self._members)

    def put_back(self, member: Member, data: BinaryIO) -> None:
        self._back = member, data


@dataclass(frozen=True)
class ClassSummary:
    """What a plan holds of one class; ``name`` is "" for members that will be rejected. ``bytes`` are decompressed."""

    name: str
    members: int
    bytes: int
    batches: int


@dataclass(frozen=True)
class PlanSummary:
    """What an ingest of one archive would do."""

    archive: str
    kind: str
    members: int
    batches: int
    classes: list[ClassSummary]


def summarise(archive: str, config: Config) -> PlanSummary:
    """Plans an archive without converting anything. Raises InputError when it cannot be used."""
    with TemporaryDirectory(prefix="h5dat-", dir=config.work_dir) as folder:
        plan = Plan(open_archive(archive, config.limits), 0, config, Path(folder))
        appearances: Counter[str | None] = Counter()
        batches = 0
        for batch in plan.batches({}):
            batches += 1
            appearances.update({record.class_.name if record.class_ else None for record in batch.records()})
            if batch.spool:
                Path(batch.source).unlink()
        classes = [ClassSummary(name or "", share.members, share.bytes, appearances[name]) for name, share in plan.planner.shares.items()]
        return PlanSummary(plan.archive.uri, plan.archive.kind, plan.members or 0, batches, classes)


def _spooled_member(spool: SpoolWriter, member: Member, data: BinaryIO) -> Member:
    if member.reject is not None:
        return member
    try:
        return spool.add(member, data)
    except MemberError as exc:
        return replace(member, reject=exc.reason)


def _counted(size: int) -> int:
    """A size for sums: nothing when it is not known, and no more than 64 bits hold of what a zip may claim for a member."""
    return min(max(size, 0), (1 << 63) - 1)


def _drain(data: BinaryIO) -> None:
    with suppress(MemberError):  # a member whose reject is on record
        while data.read(_STEP):
            pass


def _hash(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _rejected(member: Member, reason: str) -> Record:
    return Record(replace(member, reject=reason), None)


def _medium_of(path: str) -> Medium | None:
    handler = by_extension(path)
    return handler.medium if handler else None
