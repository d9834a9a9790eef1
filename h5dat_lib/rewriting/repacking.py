"""A finished file -> the same rows, stored in another way and without the space that lies waste."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np

from h5dat_lib.columns import CHUNK_BYTES, TEXT_CHUNK_BYTES, Array
from h5dat_lib.config import Compression, Config, ImageOptions, Layout, MediumOptions, checked
from h5dat_lib.errors import ConfigError, OutputError
from h5dat_lib.lineage import ARCHIVES, RUNS
from h5dat_lib.lock import OutputLock
from h5dat_lib.plan.layout import Forms, PixelLayout, dense_layout, pixel_layout
from h5dat_lib.read.chunked import Rows
from h5dat_lib.read.files import File, open_tables
from h5dat_lib.read.format import attribute
from h5dat_lib.read.history import history_of, recorded_config
from h5dat_lib.rewriting.new_file import append, in_place_of, local_output
from h5dat_lib.rewriting.slabs import Slabs, Spool, Target, attributes_of, other_shape, tables, undecoded
from h5dat_lib.stage.pack import ChunkPacker
from h5dat_lib.stage.staged import Segment, StagedChunks, StagedScalars

if TYPE_CHECKING:
    from h5dat_lib.config import S3Options

Options = TypeVar("Options", bound=MediumOptions)

_STEP = 1 << 16
_LEAST_CHUNK, _MOST_CHUNK = 4096, 64 << 20
_PROBED = 1000
"""Pictures whose sizes decide how ragged ones are cut."""


@dataclass(frozen=True)
class Packing:
    """How a file is to be stored; what is None stays as it is.

    ``storage`` decoded: pictures that are kept as files become pixels. ``layout`` of pictures: ``auto`` is dense where all are of one shape
    and type. ``filter`` and ``level`` of the chunks as in the configuration; with a level all are deflated anew. ``chunk_bytes``: most
    bytes of a chunk of pixels.
    """

    storage: Literal["decoded", "encoded"] | None = None
    layout: Layout | None = None
    filter: Literal["deflate", "none"] | None = None
    level: int | None = None
    chunk_bytes: int | None = None

    def __post_init__(self) -> None:
        checked(ImageOptions, {"storage": self.storage or "decoded", "layout": self.layout or "auto"}, "repack")
        checked(Compression, {"filter": self.filter or "deflate", "level": 1 if self.level is None else self.level}, "repack")
        if self.chunk_bytes is not None and not _LEAST_CHUNK <= self.chunk_bytes <= _MOST_CHUNK:
            raise ConfigError(f"repack: chunk_bytes: found {self.chunk_bytes}, expected {_LEAST_CHUNK} to {_MOST_CHUNK}")


@dataclass(frozen=True)
class Repacked:
    """What was written: ``before`` and ``after`` are bytes of the files, ``rows`` those of classes."""

    path: str
    output: str
    before: int
    after: int
    rows: int
    seconds: float


def repack(
    path: str | Path,
    output: str | Path | None = None,
    packing: Packing | None = None,
    s3: S3Options | None = None,
    announce: Callable[[int, int], None] | None = None,
) -> Repacked:
    """Writes a file anew, with all its rows and lineage: to ``output``, which must not be there, or in its own place.

    The new file is complete under its name or not there; until then a file in its own place is the old one. ``announce`` is told before
    how many bytes may be needed beside, and how many are free. What decides how later rows are stored becomes part of the recorded
    configuration, so that a later ingest with it knows the archives that are in. Memory does not grow with the file.

    Raises InputError or FormatError for a file that cannot be used or is damaged, OutputError when it cannot be stored so, or written.
    """
    started, packing = time.monotonic(), packing or Packing()
    target = local_output(path if output is None else output)
    with OutputLock(target), ExitStack() as opened:
        if output is not None and target.exists():
            raise OutputError(f"{output}: is there already, expected a new name; without -o a file is repacked in its own place")
        file = opened.enter_context(open_tables(path, s3))
        repacking = _Repacking(file, packing)
        before = file.hdf5.id.get_filesize()
        _refuse_small_disk(target, repacking.needed(), announce)
        with in_place_of(target, repacking.config) as new:
            new.forms = Forms(dict(repacking.target.layouts))
            with Spool(new.folder) as spool:
                append(new, repacking.segments(spool), spool, repacking.config.commit_bytes)
        rows = sum(len(file[name]) for name in file.tables)
    return Repacked(str(path), str(output or path), before, target.stat().st_size, rows, time.monotonic() - started)


def _refuse_small_disk(target: Path, needed: int, announce: Callable[[int, int], None] | None) -> None:
    free = shutil.disk_usage(target.parent).free
    if announce:
        announce(needed, free)
    if needed > free:
        raise OutputError(
            f"{target}: repacking may need {needed} bytes beside it, found {free} free; free some, or write elsewhere with -o"
        )


class _Repacking:
    def __init__(self, file: File, packing: Packing) -> None:
        self._file, self._packing = file, packing
        self._tables = tables(file)
        found = history_of(file)
        last = recorded_config(file.path, found.configuration) if found.configuration else Config()
        self.config = Config(compression=_changed(last, packing).compression)
        if packing.level is not None:
            self.config = Config(compression=self.config.compression.model_copy(update={"level": packing.level}))
        encoded = frozenset(name for name in file.tables if self._pixels(name) == "encoded")
        if packing.storage == "encoded":
            self._refuse_decoded()
        decoded = encoded if packing.storage == "decoded" else frozenset()
        pictured = [name for name in file.tables if self._pixels(name) in ("dense", "ragged") or name in decoded]
        layouts = {name: _layout(file, name, packing, found.forms.layouts.get(name)) for name in pictured}
        self._configurations: dict[str, str] = {}
        self._digests: dict[str, str] = {}
        if RUNS in file:
            self._note_changes()
        self.target = Target(self.config.compression, layouts, decoded, texts_anew=True, all_anew=packing.level is not None)

    def _pixels(self, name: str) -> str:
        return str(attribute(self._file.hdf5[name]["pixels"], "layout")) if "pixels" in self._file.hdf5[name] else ""

    def _refuse_decoded(self) -> None:
        for name in self._file.tables:
            if self._pixels(name) in ("dense", "ragged"):
                raise OutputError(
                    f"{self._file.path}, {name}: found pixels, which cannot become files again: the members' own bytes are not kept in "
                    "it; ingest the archives into another output with storage = encoded"
                )

    def needed(self) -> int:
        """Bytes that the new file may have, at most."""
        size: int = self._file.hdf5.id.get_filesize()
        if self.config.compression.filter == "none":
            columns = [self._file[name][column] for name in self._file.tables for column in self._file[name].columns]
            size += sum(column.nbytes or 0 for column in columns)
        return size + sum(_decoded_bytes(self._file, name) for name in self.target.decoded)

    def segments(self, spool: Spool) -> Iterator[Segment]:
        """All rows of all tables."""
        for name in self._tables:
            attributes = attributes_of(self._file, name)
            if name in self.target.decoded:
                attributes = undecoded(attributes)
            slabs, row = Slabs(self._file, name, self.target, {}, attributes), 0
            for segment in slabs.segments([(0, slabs.rows)], spool):
                yield self._recorded(segment, row, spool)
                row += segment.rows

    def _recorded(self, segment: Segment, first: int, spool: Spool) -> Segment:
        """A segment of runs or archives with what their configurations have become."""
        digests = segment.columns.get("config_digest")
        if segment.table not in (RUNS, ARCHIVES) or not self._digests or not isinstance(digests, StagedScalars):
            return segment
        new = [self._digests.get(digest.decode(), digest) for digest in digests.values.tolist()]
        columns = {**segment.columns, "config_digest": replace(digests, values=np.array(new, digests.values.dtype))}
        if segment.table == RUNS:
            texts = self._file[RUNS]["configuration"][first : first + segment.rows]
            columns["configuration"] = self._texts([self._configurations.get(text, text) for text in texts], spool)
        return replace(segment, columns=columns)

    def _texts(self, texts: Sequence[str], spool: Spool) -> StagedChunks:
        packer = ChunkPacker(spool, TEXT_CHUNK_BYTES, self.config.compression)
        data = [text.encode() for text in texts]
        packer.add(b"".join(data))
        lengths = np.array([len(part) for part in data], "<u8")
        return StagedChunks("text", TEXT_CHUNK_BYTES, packer.finish(), np.cumsum(lengths) - lengths, lengths, None, None, None)

    def _note_changes(self) -> None:
        """Finds what the recorded configurations and their digests become; nothing where they say the same as before."""
        table = self._file[RUNS]
        for first in range(0, len(table), _STEP):
            rows = slice(first, first + _STEP)
            for text, digest in dict.fromkeys(zip(table["configuration"][rows], table["config_digest"][rows], strict=True)):
                config = recorded_config(self._file.path, text)
                changed = _changed(config, self._packing)
                if changed != config:
                    self._configurations[text] = changed.model_dump_json(by_alias=True)
                    self._digests[digest] = changed.digest()


def _changed(config: Config, packing: Packing) -> Config:
    """A configuration by which later rows are stored as the file is then. The level of deflate is of no consequence to them."""
    rules = (
        rule.model_copy(update={"options": _otherwise(rule.options, packing)}) if rule.options else rule for rule in config.schema_.classes
    )
    compression = config.compression.model_copy(update={"filter": packing.filter or config.compression.filter})
    schema = config.schema_.model_copy(update={"classes": tuple(rules)})
    return _otherwise(config, packing).model_copy(update={"compression": compression, "schema_": schema})


def _otherwise(options: Options, packing: Packing) -> Options:
    """What is decided by the pictures themselves stays so, for the file tells the next run its layout."""
    image: dict[str, str] = {"storage": packing.storage or options.image.storage}
    image |= {"layout": packing.layout} if packing.layout and options.image.layout != "auto" else {}
    video = {"layout": packing.layout} if packing.layout and options.video.layout != "auto" else {}
    return options.model_copy(update={"image": options.image.model_copy(update=image), "video": options.video.model_copy(update=video)})


# How pictures are cut


def _layout(file: File, name: str, packing: Packing, found: PixelLayout | None) -> PixelLayout:
    """``found`` is the layout of pixels in the file, None of pictures that are decoded now."""
    if found and packing.layout is None and packing.chunk_bytes is None:
        return found
    wanted = packing.layout or ("auto" if found is None else "dense" if found.shape else "ragged")
    if wanted != "ragged" and (forms := _forms(file, name)):
        [(shape, dtype, _), *others] = forms
        layout = dense_layout(shape, dtype, packing.chunk_bytes or CHUNK_BYTES, strict=wanted == "dense")
        if not others:
            return found if found and found.shape and packing.chunk_bytes is None else layout
        if wanted == "dense":
            raise other_shape(file, name, others[0][2], others[0][0], others[0][1], layout)
    return PixelLayout(packing.chunk_bytes or (found.chunk_bytes if found else _ragged_chunk(file, name)))


def _forms(file: File, name: str) -> list[tuple[tuple[int, ...], str, int]]:
    """Shape, type and row of the first picture of a table, and of the first that is another."""
    pixels = file.hdf5[name]["pixels"]
    if attribute(pixels, "layout") == "dense":
        return [(pixels.shape[1:], pixels.dtype.str, 0)]
    found: dict[tuple[Any, ...], int] = {}
    rows = len(file[name])
    for first in range(0, rows, _STEP):
        for at, form in enumerate(_forms_of(file, name, slice(first, min(first + _STEP, rows))), first):
            found.setdefault(form, at)
            if len(found) > 1:
                break
    return [(tuple(form[:-1]), form[-1], row) for form, row in list(found.items())[:2]]


def _forms_of(file: File, name: str, rows: slice) -> Iterator[tuple[Any, ...]]:
    """Height, width, channels and type of pictures."""
    pixels = file.hdf5[name]["pixels"]
    if attribute(pixels, "layout") == "ragged":
        shapes, kinds = (Rows(pixels[part], file.handle)[rows] for part in ("shape", "dtype"))
        return ((*shape, kind.decode()) for shape, kind in zip(shapes.tolist(), kinds.tolist(), strict=True))
    kind = file[name]["pixels"][0].dtype.str
    return ((*shape, kind) for shape in _sizes(file, name, rows).tolist())


def _sizes(file: File, name: str, rows: slice) -> Array:
    """Height, width and channels (rows, 3) of the pixels of encoded pictures, as recorded beside them."""
    return np.stack([np.ma.getdata(file[name][column][rows]).astype("i8") for column in ("height", "width", "channels")], axis=1)


def _ragged_chunk(file: File, name: str) -> int:
    sizes = _sizes(file, name, slice(0, _PROBED))
    return pixel_layout([(tuple(size), "|u1") for size in sizes.tolist()], ImageOptions(layout="ragged")).chunk_bytes


def _decoded_bytes(file: File, name: str) -> int:
    slices = (slice(first, first + _STEP) for first in range(0, len(file[name]), _STEP))
    return sum(int(_sizes(file, name, rows).prod(axis=1).sum()) for rows in slices)
