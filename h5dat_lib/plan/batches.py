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
from functools import partial
from io import BytesIO
from itertools import islice
from operator import attrgetter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO, TypeVar, cast

from h5dat_lib.archive import is_container, open_archive, open_reader
from h5dat_lib.archive.member import WHOLE, Archive, Content, Member, Part, Reader, StreamedArchive
from h5dat_lib.archive.packed import unpacked, unpacked_path
from h5dat_lib.archive.spool import SpoolWriter
from h5dat_lib.config import Config, Medium
from h5dat_lib.convert import by_extension, handler_for
from h5dat_lib.errors import InputError, MemberError
from h5dat_lib.lineage import versions
from h5dat_lib.plan.labels import Labeller, Labels
from h5dat_lib.plan.layout import Forms
from h5dat_lib.plan.probing import PROBED, PROBES, OpenMembers, decide
from h5dat_lib.plan.schema import Class, Classifier
from h5dat_lib.storage import Pin, aws, sha256_of

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
_PART_BYTES = 5 << 20
"""A long video is converted in parts of about so many bytes, 8 s of work. No setting changes that: a run that goes on counts parts."""
_MOST_PARTS = 64
"""There are no more of them than this, as each looks through all of the video for its frames."""


_MEMBER_FIELDS = attrgetter(*(entry.name for entry in fields(Member)))
_to_json = json.JSONEncoder(separators=(",", ":")).encode


@dataclass(frozen=True)
class Record:
    """One line of a plan file: a member, or a part of one, and its class; no class when the member is rejected."""

    member: Member
    class_: Class | None
    part: Part = WHOLE
    labels: Labels = ()
    """In the order of its class's."""

    def to_line(self) -> bytes:
        class_ = (self.class_.name, self.class_.medium) if self.class_ else None
        return _to_json((*_MEMBER_FIELDS(self.member), class_, None if self.part == WHOLE else self.part, self.labels)).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> Record:
        *values, class_, part, labels = json.loads(line)
        member = Member(*values)
        if member.sparse:
            member = replace(member, sparse=tuple((offset, length) for offset, length in member.sparse))
        return cls(member, Class(*class_) if class_ else None, tuple(part) if part else WHOLE, tuple(labels))


T = TypeVar("T")


@dataclass(frozen=True)
class Batch:
    """What one task converts: ``members`` lines of the file ``plan`` from byte ``start`` on, read from ``source``.

    ``key`` is the same for the same batch of the same archive with the same configuration: by it a batch is committed
    exactly once. ``stored`` counts bytes of the archive, for progress. ``stage`` is the file that the task makes.
    ``forms`` is what has been decided of the classes' rows, the file ``known`` what is in of other archives. A ``retry`` converts
    members whose rejects are on record. ``spool`` says that ``source`` belongs to this batch alone.
    A piece of a batch begins behind its ``first`` members; one that is ``condemned`` is one member, rejected for that reason.
    ``continues`` names the class of its first record when that is a further part of the member before.
    ``pin`` holds the source to the bytes that were planned.
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
    forms: Forms
    spool: bool = False
    known: str = ""
    retry: bool = False
    first: int = 0
    condemned: str = ""
    continues: str = ""
    pin: Pin | None = None

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

    def __init__(self, config: Config, labeller: Labeller) -> None:
        self.config = config
        self.labeller = labeller
        self.shares: dict[str | None, Share] = {}
        self.firsts: dict[Class, list[Member]] = {}
        """The first `PROBED` members of each class whose rows depend on them."""
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
        try:
            class_ = self._class(member, reader)
        except MemberError as exc:
            return _rejected(member, exc.reason)
        record = Record(member, class_) if class_ else self._by_content(member, reader)
        self._note_first(record)
        labels = self.labeller.of(record.class_.name, member.path) if record.class_ else ()
        return replace(record, labels=labels) if labels else record

    def _class(self, member: Member, reader: Reader) -> Class | None:
        """The class of a member by its own path, or else by that of the file in it that it compresses; both with their first bytes."""
        content, inner = Content(reader, member, self.config.limits), unpacked_path(member.path)
        found = self._classifier.classify(member.path, content.head)
        if found is None and inner != member.path:
            return self._classifier.classify(inner, lambda: (unpacked(content) or content).head())
        return found

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
            content = Content(reader, member, self.config.limits)
            content = unpacked(content) or content
            head, path = content.head(), content.member.path
        except MemberError as exc:
            return _rejected(member, exc.reason)
        container = is_container(head)
        handler = None if container else handler_for(head, path)
        if handler is None and self.config.unknown == "bytes":
            return Record(member, Class("files", "files"))
        if container:
            return _rejected(member, f"nested archive: found {container}, which is not opened; ingest it by itself")
        if handler is None:
            return _rejected(member, f"unknown type: no known signature, extension {Path(path).suffix!r}")
        return Record(member, Class(handler.medium, handler.medium))

    def _note_first(self, record: Record) -> None:
        if record.class_ is None or record.class_.medium not in PROBES:
            return
        firsts = self.firsts.setdefault(record.class_, [])
        if len(firsts) < PROBED:
            firsts.append(record.member)

    def _seconds(self, record: Record) -> float:
        handler = by_extension(unpacked_path(record.member.path))
        megabytes = max(record.member.size, 0) / 1e6
        if record.class_ is None:
            return 20e-6
        if record.class_.medium == "images" and self.config.options(record.class_.name).image.storage == "encoded":
            return 300e-6 + megabytes * 3e-3
        if handler is None:
            return 1e-3 + megabytes * 0.1
        return handler.member_seconds + megabytes * handler.megabyte_seconds

    @staticmethod
    def parts(record: Record) -> int:
        """How many parts a member is converted in: a long video in several, so that more than one worker has a part in it."""
        if record.class_ is None or record.class_.medium != "videos":
            return 1
        return min(max(record.member.size // _PART_BYTES, 1), _MOST_PARTS)

    def decide(self, forms: Forms, open_members: OpenMembers) -> None:
        """Adds what the first members of each class decide about its rows, where nothing is decided yet."""
        decide(forms, self.firsts, open_members, self.config)


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

    ``members`` counts records, and is None for a streamed archive until its end has been read. ``damage`` says what is wrong with an
    archive that ends early: what lies before that is converted. ``done`` says where to go on; ``only`` names the members that are
    wanted, when that is not all. Raises InputError when the archive cannot be used or is empty.
    """

    def __init__(
        self, archive: Archive, number: int, config: Config, folder: Path, done: Done | None = None, only: Collection[str] | None = None
    ) -> None:
        self.archive = archive
        self.number = number
        self.done = done or Done(archive.fingerprint())
        self._only = only
        self.planner = Planner(config, Labeller(config.schema_, archive, config.limits, folder, number))
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
        self._further = array("b")
        """Whether a record is a further part of the member before."""
        if not self.archive.streamed:
            self._list()

    def members_of(self, records: int) -> int:
        """How many members the first so many records are of: further parts of a member do not count."""
        return records - sum(self._further[:records])

    @property
    def stored(self) -> int:
        """Bytes of the archive that its batches are made of, for progress: of its members, or of a stream as a whole."""
        return self.archive.size if self.archive.streamed else sum(self._stored[self.done.members :])

    def _list(self) -> None:
        """Writes the plan file of an archive whose members can be listed; 28 bytes a member stay in memory."""
        reader = self._open_members()
        with self._path.open("wb") as plan:
            for member in self._until_damage(self.archive.members(), lambda damaged: damaged):
                if self._is_left_out(member):
                    self.planner.pass_over(member)
                    continue
                record, seconds = self.planner.record(member, reader)
                self._refuse_unknown_file(record)
                parts = self.planner.parts(record)
                for part in range(parts):
                    self._start.append(plan.tell())
                    self._cost.append(seconds / parts)
                    self._size.append(_counted(member.size) // parts)
                    self._stored.append(_counted(member.stored) // parts)
                    self._further.append(part > 0)
                    plan.write((replace(record, part=(part, parts)) if parts > 1 else record).to_line())
        reader.close()
        self.archive.close()
        self.planner.forget_names()
        self.members = len(self._start)
        self._refuse_empty(self.members)

    @property
    def _open_members(self) -> OpenMembers:
        return partial(open_reader, self.archive.kind, self.archive.uri, self._config.limits, self.archive.pin)

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

    def batches(self, forms: Forms, known: Path | None = None) -> Iterator[Batch]:
        """Batches in archive order, from where ``done`` says. ``forms`` holds what is decided of the output's classes and is added
        to; ``known`` is the file of contents that are in."""
        identity = f"{self.done.fingerprint} {self._config.digest()}"
        # What a staged file holds depends on these, on the forms, and on nothing else.
        left_out = sha256_of(str(known)) if known and self._config.duplicates == "skip" else ""
        made_with = (self._config.limits.model_dump_json(), json.dumps(versions()), left_out, self.planner.labeller.beside)
        first = self.done.members
        for batch in self._spooled(forms) if self.archive.streamed else self._listed(forms):
            key = _hash(identity, str(first))
            stage = self._folder / f"{_hash(key, str(batch.members), *made_with, forms.text())}.stage"
            yield replace(batch, key=key, forms=forms.copy(), known=str(known or ""), retry=self._only is not None, stage=str(stage))
            first += batch.members

    def _batch(self, number: int, plan: Path, start: int, members: int, stored: int) -> Batch:
        return Batch(
            number, "", self.number, str(plan), start, members, stored,
            self.archive.kind, self.archive.uri, "", str(self._config_path), Forms(), pin=self.archive.pin,
        )  # fmt: skip

    def _listed(self, forms: Forms) -> Iterator[Batch]:
        self.planner.decide(forms, self._open_members)
        total = sum(self._cost)
        first, number, left = self.done.members, self.done.batches, total - sum(self._cost[: self.done.members])
        while first < len(self._start):
            end, seconds = self._end_of_batch(first, self._target(left, total))
            batch = self._batch(number, self._path, self._start[first], end - first, sum(self._stored[first:end]))
            yield replace(batch, continues=self._continues(batch)) if self._further[first] else batch
            first, number, left = end, number + 1, left - seconds

    def _continues(self, batch: Batch) -> str:
        first = next(batch.records())
        return first.class_.name if first.class_ else ""

    def _target(self, left: float, total: float) -> float:
        """Seconds of work for the next batch: large ones first, small ones last, all of them worth a task run."""
        most = self._config.batch_seconds
        return max(min(most / _LEAST, max(total / _SPREAD, _FLOOR)), min(most, left / _SHARE))

    def _end_of_batch(self, first: int, target: float) -> tuple[int, float]:
        """A further part is a batch by itself: its rows go on with those of the batch before."""
        end, seconds, size = first + 1, self._cost[first], self._size[first]
        last = end if self._further[first] else len(self._cost)
        while end < last and not self._further[end] and seconds + self._cost[end] <= target and size + self._size[end] <= BATCH_BYTES:
            seconds += self._cost[end]
            size += self._size[end]
            end += 1
        return end, seconds

    def _spooled(self, forms: Forms) -> Iterator[Batch]:
        """Reads the stream as far as the next batch; each batch has a spool and a plan file of its own."""
        archive = cast(StreamedArchive, self.archive)
        stream = _Stream(self._until_damage(archive.stream(), lambda damaged: (damaged, cast(BinaryIO, BytesIO()))))
        total = self._pass_over(stream)
        position = 0
        for number in range(self.done.batches, 1 << 62):
            spool = self._folder / f"{self.number:05}-{number:06}.spool"
            # Small batches first: the workers start early, and a short archive is still spread over all of them.
            seconds = self._config.batch_seconds * min(1, 1.5 ** min(number, _LEAST) / _LEAST)
            members = self._spool(stream, spool, seconds, forms)
            total += members
            if not members:
                break
            read, position = archive.position() - position, archive.position()
            batch = self._batch(number, spool.with_suffix(".plan"), 0, members, read)
            yield replace(batch, kind="tar", source=str(spool), spool=True, pin=None)
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

    def _spool(self, stream: _Stream, path: Path, target: float, forms: Forms) -> int:
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
            reader.close()
            self.planner.decide(forms, partial(open_reader, "tar", str(path), self._config.limits))
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
    unlabelled: list[str]
    """What is to be known of labels, a line each: those that were not found for all members."""


def summarise(archive: str, config: Config) -> PlanSummary:
    """Plans an archive without converting anything. Raises InputError when it cannot be used."""
    aws.use(config.s3)
    with TemporaryDirectory(prefix="h5dat-", dir=config.work_dir) as folder:
        plan = Plan(open_archive(archive, config.limits), 0, config, Path(folder))
        appearances: Counter[str | None] = Counter()
        batches = 0
        for batch in plan.batches(Forms()):
            batches += 1
            appearances.update({record.class_.name if record.class_ else None for record in batch.records()})
            if batch.spool:
                Path(batch.source).unlink()
        classes = [ClassSummary(name or "", share.members, share.bytes, appearances[name]) for name, share in plan.planner.shares.items()]
        members, remarks = plan.members_of(plan.members or 0), plan.planner.labeller.remarks()
        return PlanSummary(plan.archive.uri, plan.archive.kind, members, batches, classes, remarks)


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
