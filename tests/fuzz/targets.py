"""What is fuzzed: where valid inputs come from, how they are damaged, what reads them, and how it may refuse them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random

import numpy as np

import h5dat_lib
from h5dat_lib.archive import open_archive, open_reader
from h5dat_lib.archive.member import Content, Member, Reader
from h5dat_lib.archive.packed import unpacked, unpacked_path
from h5dat_lib.archive.stream import read_whole
from h5dat_lib.columns import Block
from h5dat_lib.config import Config, Limits, MediumOptions, parse
from h5dat_lib.convert import handler_for
from h5dat_lib.errors import FormatError, InputError, MemberError, OutputError
from h5dat_lib.lineage import ARCHIVES, BATCHES, MEMBERS, REJECTS, RUNS
from h5dat_lib.plan.batches import Batch, Plan
from h5dat_lib.plan.layout import Forms
from h5dat_lib.read.files import File
from h5dat_lib.stage.batch import stage
from h5dat_lib.stage.pack import TablePacker
from h5dat_lib.stage.staged import StagedChunks, StagedFile, StageWriter
from tests.convert.conftest import content_of
from tests.fuzz import checksums, seeds
from tests.fuzz.mutations import mutated

LIMITS = Limits(
    member_bytes=16 << 20, whole_bytes=8 << 20, pixels=1 << 20, frames=20, archive_bytes=64 << 20, members=2000, json_values=50_000
)
"""Small, so that a size that was tampered with costs milliseconds."""
CONFIG: Config = parse({"limits": LIMITS.model_dump()})

Damage = Callable[[list[bytes], Random], bytes]
Read = Callable[[bytes, Path, Random], int]
"""Damaged bytes, a folder to write in, and more randomness in; how much could be read out."""


@dataclass(frozen=True)
class Target:
    """``foreign``: native libraries do most of it, whose deaths are counted, but are no fault of ours. Those of decoders cost one
    member, as they run in workers."""

    seeds: Callable[[], list[bytes]]
    damage: Damage
    read: Read
    refusals: tuple[type[Exception], ...]
    foreign: bool = False


# Damage


def _mutated(tokens: tuple[bytes, ...], found: list[bytes], rng: Random) -> bytes:
    return mutated(rng.choice(found), found, rng, tokens)


_plain = partial(_mutated, ())


def _with_checksums(repaired: Callable[[bytes], bytes], found: list[bytes], rng: Random) -> bytes:
    data = _plain(found, rng)
    return repaired(data) if rng.random() < 0.7 else data


def _packed(kind: str, found: list[bytes], rng: Random) -> bytes:
    """Damage within what is compressed, or to what it has become."""
    pack = seeds.PACK[kind]
    if rng.random() < 0.6:
        return pack(_with_checksums(checksums.tar, found, rng))
    packed = pack(rng.choice(found))
    return mutated(packed, [packed], rng)


def _staged(found: list[bytes], rng: Random) -> bytes:
    return checksums.staged(rng.choice(found), rng) if rng.random() < 0.8 else _plain(found, rng)


class _Hdf5:
    """Damage where an HDF5 file of mostly zeros holds something: bytes as they fall, or whole structures with checksums that fit."""

    def __init__(self, crafted: bool) -> None:
        self._crafted = crafted
        self._places: dict[int, list[tuple[int, int]]] = {}

    def __call__(self, found: list[bytes], rng: Random) -> bytes:
        number = rng.randrange(len(found))
        if number not in self._places:
            self._places[number] = checksums.structures(found[number]) if self._crafted else _pieces(found[number])
        places = self._places[number]
        if self._crafted:
            return checksums.hdf5(found[number], places, rng)
        data = bytearray(found[number])
        for at, size in rng.sample(places, rng.randint(1, 4)):
            data[at : at + size] = (mutated(data[at : at + size], [], rng) + data[at : at + size])[:size]
        return bytes(data if rng.random() < 0.9 else data[: rng.randrange(len(data))])


def _pieces(data: bytes, size: int = 64) -> list[tuple[int, int]]:
    whole = np.frombuffer(data[: len(data) // size * size], np.uint8).reshape(-1, size)
    return [(int(row) * size, size) for row in np.flatnonzero(whole.any(axis=1))]


# Archives


def _archive(name: str, data: bytes, folder: Path, rng: Random) -> int:
    """Lists and reads every member as readers do, then plans and stages all as a run does."""
    path = folder / name
    path.write_bytes(data)
    archive = open_archive(path, LIMITS)
    archive.fingerprint()
    if not archive.streamed:
        with suppress(InputError), closing(open_reader(archive.kind, str(path), LIMITS)) as reader:
            for member in archive.members():
                _read_twice(reader, member)
    plan = Plan(archive, 0, CONFIG, folder)
    return sum(_stage(batch) for batch in plan.batches(Forms()))


def _read_twice(reader: Reader, member: Member) -> None:
    """Whole and as a stream, which must agree."""
    with suppress(MemberError):
        data = Content(reader, member, LIMITS).read() if member.reject is None else b""
        if member.reject is None:
            with reader.open(member) as stream:
                assert read_whole(stream, LIMITS.member_bytes) == data, "read and open differ"


def _stage(batch: Batch) -> int:
    staged = stage(batch)
    _staged_rows(Path(batch.stage))
    Path(batch.stage).unlink()
    if batch.spool:
        Path(batch.source).unlink()
    return staged.rows


def _read_staged(data: bytes, folder: Path, rng: Random) -> int:
    (folder / "a.stage").write_bytes(data)
    return _staged_rows(folder / "a.stage")


def _staged_rows(path: Path) -> int:
    rows = 0
    with StagedFile(path) as file:
        for segment in file.segments():
            rows += segment.rows
            for column in segment.columns.values():
                for at, size, _, _ in column.chunks.tolist() if isinstance(column, StagedChunks) else ():
                    file.chunk(at, size)
    return rows


# Converters


def _converted(path: str, options: list[MediumOptions], data: bytes, folder: Path, rng: Random) -> int:
    """Converts and packs a member as a worker does."""
    member = content_of(data, path, LIMITS, streamed=rng.random() < 0.3)
    content = unpacked(member) or member
    handler = handler_for(content.head(), unpacked_path(path))
    assert handler
    tables: dict[str, TablePacker] = {}
    with StageWriter(folder / "a.stage") as out:
        for block in handler.convert(content, rng.choice(options)):
            if isinstance(block, Block):
                tables.setdefault(block.table, TablePacker(f"t/{block.table}", out, CONFIG.compression)).add(block)
        for table in tables.values():
            table.seal()
    return sum(table.rows for table in tables.values())


def _options(**ways: object) -> list[MediumOptions]:
    return [MediumOptions(), MediumOptions.model_validate(ways)]


_PICTURE_OPTIONS = [
    *_options(image={"storage": "encoded"}),
    *(MediumOptions.model_validate({"image": {"color": color, "resize": {"width": 9, "height": 7, "mode": mode}}})
      for color, mode in (("RGB", "fit"), ("L", "fill"), ("keep", "pad"))),
]  # fmt: skip


def _picture(kind: str, path: str, damage: Damage = _plain) -> Target:
    return Target(partial(seeds.pictures, kind), damage, partial(_converted, path, _PICTURE_OPTIONS), (MemberError,), foreign=True)


def _text(path: str, found: list[bytes], tokens: tuple[bytes, ...] = (), **ways: object) -> Target:
    return Target(lambda: found, partial(_mutated, tokens), partial(_converted, path, _options(**ways)), (MemberError,), foreign=True)


def _file(area: str, path: str, *patterns: str, tokens: tuple[bytes, ...] = (), **ways: object) -> Target:
    """Files of tests/data, by patterns; options as given, and with what is damaged kept."""
    options = [*_options(**ways), *_options(image={"damaged": "tolerant"}, video={"damaged": "tolerant"}, audio={"damaged": "tolerant"})]
    read = partial(_converted, path, options)
    return Target(partial(seeds.files, area, *patterns), partial(_mutated, tokens), read, (MemberError,), foreign=True)


_FILM = {"audio": True, "every": 2, "resize": {"width": 8, "height": 8, "mode": "fill"}}


# Outputs


def _output(data: bytes, folder: Path, rng: Random) -> int:
    """Opens a file, reads all that can be read, verifies it, and makes its page; one part that is refused does not keep from the next."""
    path = folder / "a.h5"
    path.write_bytes(data)
    read = 0
    with h5dat_lib.open(path) as file:
        for part in _parts(file, rng):
            with suppress(*_HDF5_REFUSALS):
                part()
                read += 1
    with suppress(*_HDF5_REFUSALS):
        h5dat_lib.verify(path)
    with suppress(*_HDF5_REFUSALS):
        h5dat_lib.report(path)
        read += 1
    return read


def _appended(data: bytes, folder: Path, rng: Random) -> int:
    """Goes on with a damaged output: what is added is there, or nothing is."""
    path, archive = folder / "a.h5", folder / "more.txt"
    path.write_bytes(data)
    archive.write_bytes(b"more")
    return h5dat_lib.ingest(archive, path, parse({"task_runner": "threads", "workers": 1}), start=h5dat_lib.Start(new_run=True)).rows


def _parts(file: File, rng: Random) -> Iterator[Callable[[], object]]:
    yield file.describe
    yield lambda: list(file.rejects())
    yield file.runs
    yield file.archives
    with suppress(*_HDF5_REFUSALS):
        names = [name for name in (*file.classes, ARCHIVES, BATCHES, MEMBERS, REJECTS, RUNS) if name in file]
        for name in names:
            yield from _table_parts(file, name, rng)


def _table_parts(file: File, name: str, rng: Random) -> Iterator[Callable[[], object]]:
    with suppress(KeyError, *_HDF5_REFUSALS):  # KeyError: no table
        table = file[name]
        for column in table.columns:
            rows = rng.choice((slice(None), slice(None, None, -2), [0, -1]) if len(table) else (slice(None),))
            yield lambda column=column, rows=rows: table[column][rows]
        if len(table) and not name.startswith("lineage"):
            row = rng.choice((0, -1))
            yield lambda: table.origin(row)
            yield lambda: table.pairs(row)


_HDF5_REFUSALS = (FormatError, OutputError, InputError, MemberError, IndexError)
"""IndexError: a row that another table refers to and that is not there."""


TARGETS: dict[str, Target] = {
    "zip": Target(seeds.zips, _plain, partial(_archive, "a.zip"), (InputError,)),
    "tar": Target(seeds.tars, partial(_with_checksums, checksums.tar), partial(_archive, "a.tar"), (InputError,)),
    **{
        f"tar.{kind}": Target(seeds.tars, partial(_packed, kind), partial(_archive, f"a.tar.{kind}"), (InputError,))
        for kind in ("gz", "xz", "zst")
    },
    **{kind: Target(partial(seeds.singles, kind), _plain, partial(_archive, f"a.txt.{kind}"), (InputError,)) for kind in seeds.PACK},
    "staged": Target(seeds.staged, _staged, _read_staged, (OutputError,)),
    "jpeg": _picture("JPEG", "a.jpg"),
    "png": _picture("PNG", "a.png", partial(_with_checksums, checksums.png)),
    "bmp": _picture("BMP", "a.bmp"),
    "gif": _picture("GIF", "a.gif"),
    "tiff": _picture("TIFF", "a.tif"),
    "webp": _picture("WEBP", "a.webp"),
    "svg": _file("images", "a.svg", "*.svg", "*.svgz", tokens=seeds.SVG_TOKENS, image={"vector_size": 20}),
    "fits": _file("images", "a.fits", "*.fits", image={"frames": "all"}),
    "heif": _file("images", "a.heic", "*.hei?", "*.avif", image={"frames": "all", "color": "L"}),
    "bufr": _file("images", "a.bufr", "*.bufr", document={"pairs": False}),
    "mp4": _file("video", "a.mp4", "[ahfotr]*.mp4", "*.mov", video=_FILM),
    "mkv": _file("video", "a.mkv", "*.mkv", "*.webm", video=_FILM),
    "film": _file("video", "a.avi", "*.avi", "*.mpg", "*.ts", "*.wmv", "*.m2v", video={"summary": "barcode"}),
    "wav": _file("audio", "a.wav", "*.wav", "*.aif*", "*.flac", audio={"dtype": "float32", "mono": True}),
    "mp3": _file("audio", "a.mp3", "*.mp3", "*.aac", "*.wma", audio={"sample_rate": 11025}),
    "ogg": _file("audio", "a.ogg", "*.og?", "*.opus", audio={"dtype": "float32"}),
    "m4a": _file("audio", "a.m4a", "*.m4a", audio={"sample_rate": 48000, "mono": True}),
    "table": _file("csv", "a.csv", "*.csv", "*.tsv", tokens=seeds.CSV_TOKENS, table={"ragged": "fill", "comment": "#"}),
    "packed": Target(
        partial(seeds.packed, seeds.CSV[:3]), _plain, partial(_converted, "a.csv.gz", _options(table={"dates": False})), (MemberError,)
    ),
    "dates": _text("a.csv", seeds.DATES, (*seeds.CSV_TOKENS, b"-", b":", b"T", b"Z", b"+02:00", b".5", b"#"), table={"decimal": ","}),
    "streams": _text("a.json", seeds.STREAMS, seeds.JSON_TOKENS, document={"numbers": "strict"}),
    "json": _text("a.json", seeds.JSON, seeds.JSON_TOKENS, document={"pairs": False}),
    "jsonl": _text("a.jsonl", seeds.JSONL, seeds.JSON_TOKENS, document={"pairs": False}),
    "csv": _text("a.csv", seeds.CSV, seeds.CSV_TOKENS, table={"pairs": True, "header": False, "delimiter": ","}),
    "txt": _text("a.txt", seeds.TEXT, (), text={"encoding": "utf-16"}),
    "hdf5": Target(seeds.outputs, _Hdf5(crafted=False), _output, _HDF5_REFUSALS, foreign=True),
    "hdf5-append": Target(seeds.outputs, _Hdf5(crafted=False), _appended, (FormatError, OutputError), foreign=True),
    "hdf5-crafted": Target(seeds.outputs, _Hdf5(crafted=True), _output, _HDF5_REFUSALS, foreign=True),
}
"""Every target by its name. "hdf5" is damage as disks and transports do it, "hdf5-crafted" a file that a stranger has made."""
