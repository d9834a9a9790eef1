"""What a user can set: pydantic models, read from JSON, published as a JSON Schema.

A key that starts with ``//`` is a comment: it is dropped before anything is checked, so that a JSON file can explain itself. So is
``$schema``, by which a file tells an editor what it is checked against. Files of the toolkit that came before are understood, too.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from h5dat_lib import predecessor
from h5dat_lib.errors import ConfigError, unknown
from h5dat_lib.training.splits import Splits

Medium = Literal["images", "videos", "audio", "documents", "tables", "texts", "files"]
MEDIA: tuple[Medium, ...] = get_args(Medium)
_SEGMENT = r"[A-Za-z0-9][A-Za-z0-9_.-]*"
"""A group's name: nothing in it has to be quoted in a shell or a path, and it is none of the format's own, which start with `_`."""


class Settings(BaseModel):
    """What all settings share: frozen, unknown keys refused, ``//`` keys and ``$schema`` ignored."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        json_schema_extra={"patternProperties": {r"^(//|\$schema$)": True}},
    )

    @model_validator(mode="before")
    @classmethod
    def _drop_comments(cls, data: Any) -> Any:
        if isinstance(data, Mapping):
            return {key: value for key, value in data.items() if not str(key).startswith("//") and key != "$schema"}
        return data


AnySettings = TypeVar("AnySettings", bound=Settings)


class Resize(Settings):
    """Bring pictures to a size, after orientation and colour."""

    width: Annotated[int, Field(ge=1, le=65535)]
    """Target width in pixels."""
    height: Annotated[int, Field(ge=1, le=65535)]
    """Target height in pixels."""
    mode: Literal["fit", "fill", "pad"] = "fit"
    """fit: as large as fits inside, shapes may differ; fill: cover and crop the centre; pad: fit, then fill up with `color`."""
    interpolation: Literal["nearest", "linear", "area", "cubic", "lanczos"] = "area"
    """The resampling filter, by OpenCV's names."""
    color: Annotated[int, Field(ge=0, le=255)] = 0
    """Value of the padding, in every channel."""


Layout = Literal["auto", "dense", "ragged"]
Damaged = Literal["strict", "tolerant"]


class ImageOptions(Settings):
    """How pictures are stored."""

    storage: Literal["decoded", "encoded"] = "decoded"
    """decoded: pixels, deflated; encoded: the member's own bytes, decoded on read."""
    layout: Layout = "auto"
    """dense: one (rows, height, width, channels) dataset, other shapes are rejected; ragged: any shape; auto: dense while all are equal."""
    color: Literal["keep", "RGB", "L"] = "keep"
    """keep: grey stays grey, alpha and 16 bit stay; palette and CMYK become RGB. RGB and L convert everything, to 8 bit."""
    profile: Literal["ignore", "srgb"] = "ignore"
    """srgb: pixels with an embedded ICC profile are converted to sRGB."""
    resize: Resize | None = None
    """Bring all pictures to a size; none by default."""
    frames: Literal["first", "all"] = "first"
    """Of animations and files of several pages: the first, or each as a row of its own."""
    damaged: Damaged = "strict"
    """strict: a damaged picture is a reject; tolerant: what decoded of it is kept, and its row says what is wrong."""
    vector_size: Annotated[int, Field(ge=1, le=65535)] | None = None
    """Pixels of the longer side that SVG and EPS are drawn with; their own size when not given."""
    phash: Literal["auto", "always", "never"] = "auto"
    """A column of perceptual hashes, which `find --like` and `--duplicates` compare. auto: where pixels are decoded anyway; always: also of
    pictures that are kept encoded, which are then decoded for it alone, and take 15 times as long as without."""


class VideoOptions(Settings):
    """Which frames of a video become rows, and how. Frames are numbered and timed as in the whole video, whatever is left out."""

    start: Annotated[float, Field(ge=0)] = 0.0
    """Frames from this time on, in seconds."""
    end: Annotated[float, Field(gt=0)] | None = None
    """Frames before this time, in seconds."""
    keyframes: bool = False
    """Only frames that are coded by themselves."""
    every: Annotated[int, Field(ge=1)] = 1
    """Every so many-th of those frames."""
    fps: Annotated[float, Field(gt=0)] | None = None
    """At most so many frames a second: the first at or behind each tick."""
    max_frames: Annotated[int, Field(ge=1)] | None = None
    """The first so many of the frames that are left."""
    layout: Layout = "auto"
    """As of images."""
    color: Literal["RGB", "L"] = "RGB"
    """Channels of the frames, 8 bit."""
    resize: Resize | None = None
    """Bring all frames to a size; none by default."""
    summary: Literal["none", "barcode", "contact_sheet"] = "none"
    """One picture a video. barcode: a column for each of evenly spaced frames, their average colours; contact_sheet: those frames."""
    summary_frames: Annotated[int, Field(ge=1, le=4096)] = 16
    """Frames that a summary is made of."""
    audio: bool = False
    """Also store the first audio track, as the options of audio say."""
    damaged: Damaged = "strict"
    """strict: frames end where damage begins, which is recorded as a reject; tolerant: what can be decoded behind it is kept, too."""


class AudioOptions(Settings):
    """How sound is stored: (samples, channels)."""

    dtype: Literal["int16", "float32"] = "int16"
    """Type of the samples; full scale is 32768 or 1.0."""
    sample_rate: Annotated[int, Field(ge=1, le=768_000)] | None = None
    """Resample to so many samples a second; as it is when not given."""
    mono: bool = False
    """Mix all channels into one."""
    damaged: Damaged = "strict"
    """strict: damaged sound is a reject; tolerant: what decoded of it is kept, and its row says what is wrong."""


class DocumentOptions(Settings):
    """How JSON is stored; the document itself is always kept."""

    pairs: bool = True
    """Also store every scalar as a key/value pair with its row, dotted key path and type."""
    columns: Literal["common", "none"] | dict[str, Literal["auto", "category", "text"]] = "common"
    """Scalars that become typed columns: those that most of the first documents of a class have, none, or dotted key paths, each
    with what becomes of it: a column of the type that its values have, categories, or text."""
    numbers: Literal["keep", "strict"] = "keep"
    """keep: NaN and Infinity, which are no JSON, are kept as text and marked; strict: a document with one is a reject."""


class TableOptions(Settings):
    """How CSV and TSV are read and stored."""

    delimiter: Annotated[str, Field(pattern=r"^[\x01-\x09\x0b\x0c\x0e-\x7f]$")] | None = None
    """One ASCII character; detected when not given."""
    quote: Annotated[str, Field(pattern=r"^[\x01-\x09\x0b\x0c\x0e-\x7f]$")] = '"'
    """The quoting character, ASCII."""
    header: bool | None = None
    """Whether the first record names the columns; detected when not given."""
    encoding: str | None = None
    """A codec name such as latin-1, tried before UTF-8 but after a byte order mark; detected when not given."""
    missing: tuple[str, ...] = ("NA", "N/A", "NaN", "nan", "null", "NULL")
    """Words that mean "no value" in a number, boolean or date column; in every column an empty unquoted field does."""
    decimal: Literal[".", ","] | None = None
    """What separates the fraction of a number; detected when not given."""
    comment: Annotated[str, Field(pattern=r"^[\x21-\x7e]$")] | None = None
    """Lines that start with this character are passed over; detected at the start of a table when not given."""
    dates: bool = True
    """Columns of ISO 8601 dates and times become dates where that loses nothing; otherwise they stay strings."""
    ragged: Literal["reject", "fill"] = "reject"
    """A record with another number of fields than the header: a reject; or filled up, with its further fields in `_rest`."""
    pairs: bool = False
    """Also store every field as a key/value pair."""


class TextOptions(Settings):
    """How text is read."""

    encoding: str | None = None
    """A codec name such as latin-1, tried before UTF-8 but after a byte order mark; detected when not given."""


class MediumOptions(Settings):
    """Options of all converters; a class takes those of its medium."""

    image: ImageOptions = ImageOptions()
    """Pictures."""
    video: VideoOptions = VideoOptions()
    """Videos."""
    audio: AudioOptions = AudioOptions()
    """Sound, also that of videos."""
    document: DocumentOptions = DocumentOptions()
    """JSON and JSONL."""
    table: TableOptions = TableOptions()
    """CSV and TSV."""
    text: TextOptions = TextOptions()
    """Plain text, and markup as text."""


class SplitShare(Settings):
    """A split, and how much of all is in it."""

    name: Annotated[str, Field(min_length=1)]
    """What the rows of the split are labelled with."""
    share: Annotated[float, Field(ge=0, le=1)]
    """Between 0 and 1; all together are 1."""


class Label(Settings):
    """A value for each member of a class: the name of a folder, what a file of labels says of the member, or its split.

    It becomes a column of categories in the class's table, missing in the rows of members for which nothing is found.
    """

    name: Annotated[str, Field(min_length=1, max_length=255)]
    """Name of the column."""
    folder: Annotated[int, Field(ge=1)] | None = None
    """The label is the name of a folder of the member: 1 the one that it lies in, 2 the one above."""
    file: Annotated[str, Field(min_length=1)] | None = None
    """The file of labels: a glob on the paths of the archive's members, or, when it starts with `/`, `./` or `../`, a file beside it.
    CSV, TSV, JSON or JSONL, by its extension. With `{key}` in it there is one JSON file a member, and `{key}` stands for its key."""
    key: str | None = None
    """The column of a table, or the dotted path in JSON objects, that holds the keys. Not given: one JSON object, by its own keys."""
    value: str | None = None
    """The column, or the dotted path, that holds the labels. Not given: the value of the key itself, `{"1.jpg": "cat"}`."""
    split: tuple[SplitShare, ...] = ()
    """The label is one of these names, by a hash of what ``split_by`` says of the member: what is alike in it is in one split."""
    split_by: Literal["key", "stem", "name", "path", "folder"] = "key"
    """What of a member decides its split, as in ``member_key``."""
    seed: int = 0
    """Another one gives other splits."""
    member_key: Literal["stem", "name", "path", "key", "folder"] = "stem"
    """What of a member is looked up. stem: its file name without the extension; name: with it; path: its path in the archive, or from
    the folder that the file of labels lies in; key: its path up to the first dot of the file name; folder: name of its folder."""

    @model_validator(mode="after")
    def _has_one_source(self) -> Label:
        if (self.folder is not None) + (self.file is not None) + bool(self.split) != 1:
            raise ValueError(f"label {self.name!r} needs either folder, file or split")
        if self.file is None and (self.key, self.value) != (None, None):
            raise ValueError(f"label {self.name!r} is not from a file, and takes no key or value")
        if self.split:
            self.splits()
        if self.file is not None and "{key}" in self.file and (self.key is not None or self.value is None):
            raise ValueError(f"label {self.name!r} is in one file a member, and needs a value, but no key")
        if self.key is not None and self.value is None:
            raise ValueError(f"label {self.name!r} has a key, and needs a value")
        return self

    def splits(self) -> Splits:
        """What tells the split of a key. Raises ValueError when the shares do not add up to 1."""
        try:
            return Splits({one.name: one.share for one in self.split}, self.seed)
        except ConfigError as exc:
            raise ValueError(f"label {self.name!r}, {exc}") from exc


class ClassRule(Settings):
    """Which members are of a class, and how they are converted. All given conditions must hold."""

    name: Annotated[str, Field(max_length=63, pattern=rf"^{_SEGMENT}(/{_SEGMENT})*$")]
    """Name of the class and of its HDF5 group, which may lie in others: `train/images`."""
    medium: Medium
    """What the members are converted as."""
    paths: tuple[str, ...] = ()
    """Glob patterns on the member path; `*` stays within a folder, `**` crosses folders. Any may match."""
    extensions: tuple[str, ...] = ()
    """Extensions, with or without the dot, in any case. Any may match."""
    folders: tuple[str, ...] = ()
    """Folders that the member lies in, at any depth: `cats`, `train/cats`; `/train` only at the top of the archive. Globs, too. Any may
    match."""
    types: tuple[str, ...] = ()
    """Types of content, by the member's first bytes: names of formats such as `png`, or MIME types such as `image/png`, `image/*`. What
    has no mark in its first bytes, such as JSON, goes by its extension. Any may match."""
    options: MediumOptions | None = None
    """Converter options of this class instead of the general ones."""
    labels: tuple[Label, ...] = ()
    """Further columns, with a value a member: the name of its folder, or what a file of labels says of it."""

    @model_validator(mode="after")
    def _can_be_a_class(self) -> ClassRule:
        if self.name.partition("/")[0] == "lineage":
            raise ValueError("a class cannot be named 'lineage': that group holds where rows come from")
        if not (self.paths or self.extensions or self.folders or self.types):
            raise ValueError(f"class {self.name!r} needs paths or extensions, folders or types, otherwise nothing can match it")
        names = [label.name for label in self.labels]
        for name in names:
            if name in _COLUMNS.get(self.medium, "").split() or names.count(name) > 1:
                raise ValueError(f"class {self.name!r}: label {name!r} bears the name of another column")
        return self


_COLUMNS: dict[Medium, str] = {
    "images": "pixels height width channels orientation format mode frame frames duration damage phash",
    "videos": "first count total width height rotation pixel_aspect fps duration codec format audio damage summary",
    "audio": "samples sample_rate channels layout duration codec format damage",
    "documents": "document line",
    "texts": "text encoding format",
    "files": "data",
}
"""Columns that converters give whatever the members are; those that depend on the member are looked at when it is converted."""


class Schema(Settings):
    """The class rules; the first that matches wins."""

    classes: tuple[ClassRule, ...] = ()
    """Rules in order. None: members are classified by medium (images, videos, audio, documents, tables, texts)."""
    unmatched: Literal["reject", "medium"] = "reject"
    """What becomes of a member that no rule matches: a reject, or the class of its medium."""

    @model_validator(mode="after")
    def _one_medium_a_class(self) -> Schema:
        media: dict[str, str] = {}
        for rule in self.classes:
            if media.setdefault(rule.name, rule.medium) != rule.medium:
                raise ValueError(f"class {rule.name!r} has two media: {media[rule.name]} and {rule.medium}")
            if rule.name in MEDIA and rule.name != rule.medium:
                raise ValueError(f"class {rule.name!r} bears the name of a medium and must have it, not {rule.medium!r}")
        return self

    @model_validator(mode="after")
    def _no_class_within_another(self) -> Schema:
        names = {rule.name for rule in self.classes} | ({*MEDIA} if self.unmatched == "medium" else {"files"})
        for name in sorted(names):
            if above := next((other for other in sorted(names) if name.startswith(f"{other}/")), None):
                raise ValueError(f"class {name!r} lies within class {above!r}; a group holds one class, or groups of classes")
        return self

    def labels(self, class_name: str) -> tuple[Label, ...]:
        """The labels of a class: of the first of its rules that has any."""
        return next((rule.labels for rule in self.classes if rule.name == class_name and rule.labels), ())


class Limits(Settings):
    """What an archive and a member may cost; counted while they are decompressed, so that a header that lies gains nothing.

    An archive above `members` or `archive_bytes` ends there; a member above another limit is a reject. Archives within archives
    are never opened: nesting has no limit to set.
    """

    members: Annotated[int, Field(ge=1)] = 10_000_000
    """Members of one archive."""
    archive_bytes: Annotated[int, Field(ge=1)] = 1 << 40
    """Decompressed bytes of all members of one archive."""
    member_bytes: Annotated[int, Field(ge=1)] = 64 << 30
    """Decompressed bytes of one member."""
    whole_bytes: Annotated[int, Field(ge=1)] = 1 << 30
    """Decompressed bytes of a member that has to be read whole: a picture, a JSON document, a text."""
    ratio: Annotated[float, Field(ge=1)] = 250
    """Decompressed bytes for each compressed one, of what decompresses to more than 64 MiB."""
    name_bytes: Annotated[int, Field(ge=1)] = 4096
    """UTF-8 bytes of a member's path (Linux' PATH_MAX)."""
    pixels: Annotated[int, Field(ge=1)] = 1 << 28
    """Width times height of a picture."""
    frames: Annotated[int, Field(ge=1)] = 1000
    """Frames of a picture, such as a GIF or a HEIF, directories of a TIFF; those of videos are not counted."""
    json_depth: Annotated[int, Field(ge=1)] = 200
    """Levels of arrays and objects in a JSON document."""
    json_values: Annotated[int, Field(ge=1)] = 20_000_000
    """Values of a JSON document: scalars, arrays and objects."""
    csv_field_bytes: Annotated[int, Field(ge=1)] = 1 << 20
    """UTF-8 bytes of one field of a table."""
    csv_columns: Annotated[int, Field(ge=1)] = 10_000
    """Columns of a table; each becomes an HDF5 dataset."""
    member_seconds: Annotated[float, Field(gt=0)] = 60.0
    """Time that converting a member may take, for each 64 MiB of it that is begun; what is known to take long, such as video, more."""
    member_memory: Annotated[int, Field(ge=1)] = 4 << 30
    """Bytes of address space that converting a member may take, above those of an idle worker."""


class Compression(Settings):
    """The filter of the chunks."""

    filter: Literal["deflate", "none"] = "deflate"
    """deflate is read by every HDF5 reader; none stores chunks as they are."""
    level: Annotated[int, Field(ge=0, le=3)] = 1
    """ISA-L's deflate level: 0 fastest, 3 smallest."""


class S3Options(Settings):
    """How S3 is reached. Credentials are no setting: they are found where boto3 finds them."""

    endpoint: str | None = None
    """URL of an S3-compatible store, without credentials; AWS, or AWS_ENDPOINT_URL_S3, when not given."""
    region: str | None = None
    """Region of the buckets; as boto3 finds it when not given."""
    profile: str | None = None
    """Profile of ~/.aws/config and ~/.aws/credentials."""
    addressing: Literal["auto", "path", "virtual"] = "auto"
    """Where the bucket's name stands in a URL; many stores other than AWS need `path`."""
    anonymous: bool = False
    """Send no credentials, for public buckets."""
    credentials_block: str | None = None
    """Name of a Prefect block of type AwsCredentials, which flows take credentials from (needs the extra `aws`)."""
    retry_mode: Literal["standard", "adaptive"] = "standard"
    """boto3's: `adaptive` also slows down by itself when the store asks for it."""
    attempts: Annotated[int, Field(ge=1, le=20)] = 8
    """Tries of one request."""
    connect_seconds: Annotated[float, Field(gt=0)] = 10.0
    """How long to wait for a connection."""
    read_seconds: Annotated[float, Field(gt=0)] = 30.0
    """How long to wait for the next bytes of an answer."""
    sync_seconds: Annotated[float, Field(ge=0)] = 300.0
    """An output in S3 is synced after a commit when so many seconds have passed since the last time, and at the end."""
    cache_dir: Path | None = None
    """Where working copies of outputs in S3 lie; below `$H5DAT_HOME` or the user's data folder when not given."""
    blocks_dir: Path | None = None
    """Where blocks of the outputs in S3 that are read are kept, for other processes and later runs; in memory only when not given."""
    blocks_bytes: Annotated[int, Field(ge=0)] = 20 << 30
    """How much of the disk they may take."""

    @field_validator("endpoint")
    @classmethod
    def _holds_no_credentials(cls, endpoint: str | None) -> str | None:
        if endpoint and "@" in urlsplit(endpoint).netloc:
            raise ValueError("found credentials in the URL, expected them where boto3 finds them: a configuration is put on record")
        return endpoint


class Config(MediumOptions):
    """Everything a user can set. Every key has a default."""

    schema_: Annotated[Schema, Field(alias="schema")] = Schema()
    """Which members are of which class."""
    compression: Compression = Compression()
    """How chunks are compressed."""
    limits: Limits = Limits()
    """What an archive and a member may cost."""
    unknown: Literal["reject", "bytes"] = "reject"
    """A member of a type that has no converter: a reject, or kept as it is in the class `files`."""
    duplicate_names: Literal["reject", "keep"] = "reject"
    """Two members of one path in an archive: reject the later ones, or keep each as a row."""
    duplicates: Literal["keep", "skip"] = "keep"
    """Members whose bytes came in with another archive before, or with another version of this one: keep or skip. Both are counted."""
    batch_seconds: Annotated[float, Field(gt=0, le=600)] = 8.0
    """Estimated work of one batch; a task run costs about 0.1 s."""
    commit_bytes: Annotated[int, Field(ge=1)] = 256 << 20
    """A commit is made when so many bytes are staged..."""
    commit_seconds: Annotated[float, Field(ge=0)] = 5.0
    """...or when so many seconds have passed since the last one. What is staged but not committed is reused after a kill."""
    reader_seconds: Annotated[float, Field(ge=0)] = 60.0
    """How long a commit waits for programs that have the output open."""
    max_rejects: Annotated[int, Field(ge=0)] | Annotated[float, Field(ge=0, le=1)] | None = None
    """Error budget: a count (integer) or a share of the members (0.0 to 1.0); the run fails when it is exceeded."""
    workers: Annotated[int, Field(ge=1)] | None = None
    """Processes that convert; one a core when not given."""
    task_runner: Literal["processes", "threads"] = "processes"
    """What runs the batches: a pool of processes, or threads in the flow's own process."""
    work_dir: Path | None = None
    """Where staged batches live while a run is going on; beside the output when not given."""
    s3: S3Options = S3Options()
    """How archives and outputs in S3 are reached."""

    @property
    def worker_count(self) -> int:
        """Processes to use: ``workers``, or the cores this process may run on."""
        return self.workers or (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)

    def options(self, class_name: str) -> MediumOptions:
        """The converter options of a class: its rule's own, or the general ones."""
        for rule in self.schema_.classes:
            if rule.name == class_name and rule.options is not None:
                return rule.options
        return self

    def to_json(self) -> str:
        """The effective configuration as indented JSON, as ``load`` reads it."""
        return self.model_dump_json(by_alias=True, indent=2)

    def save(self, folder: Path) -> Path:
        """Writes the configuration for `load`, under a name of its own for each content."""
        text = self.to_json()
        path = folder / f"config-{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"
        path.write_text(text, encoding="utf-8")
        return path

    def digest(self) -> str:
        """sha256, as hex, of what decides the content of an output; how a run is carried out is left out."""
        return hashlib.sha256(json.dumps(self.content(), sort_keys=True).encode()).hexdigest()

    def content(self) -> dict[str, Any]:
        """What decides the content of an output, as plain values; keys with their default are left out, so that a new key with
        a default does not make an old configuration another one."""
        return self.model_dump(mode="json", by_alias=True, exclude=set(RUN_ONLY), exclude_defaults=True)


RUN_ONLY = (
    "workers", "task_runner", "max_rejects", "work_dir", "limits", "duplicates",
    "batch_seconds", "commit_bytes", "commit_seconds", "reader_seconds", "s3",
)  # fmt: skip
"""Keys that decide how a run is carried out, not what comes of it."""


def parse(data: Mapping[str, Any], source: str = "configuration") -> Config:
    """A checked configuration.

    Raises ConfigError: one line that names the source, the first wrong key, what was found and what is allowed.
    """
    return checked(Config, data, source)


def checked(model: type[AnySettings], data: Mapping[str, Any], source: str, folder: Path | None = None) -> AnySettings:
    """Settings of a kind; names of files in them are looked up from ``folder``. Raises ConfigError as `parse` does."""
    try:
        return model.model_validate(data, context={"folder": folder or Path()})
    except ValidationError as exc:
        raise ConfigError(f"{source}: {_first_fault(exc, model)}") from exc


def load(config_file: Path | None = None, schema_file: Path | None = None, **overrides: Any) -> Config:
    """The configuration of the files, with ``overrides`` on top: None, also in a dictionary of a part of it, means not given.

    Either may be one of the predecessor's; what it has that means nothing any more is ignored, and logged as a warning.
    Raises ConfigError when a file is missing, is not JSON or holds a wrong key.
    """
    source = str(config_file or schema_file or "command line")
    data = read_json(config_file) if config_file else {}
    schema = read_json(schema_file) if schema_file else None
    if predecessor.is_config(data) or predecessor.is_schema(schema or {}):
        data, ignored = predecessor.translated(data, schema, _keys(Config), source)
        if ignored:
            logging.getLogger(__name__).warning("%s", ignored)
    elif schema is not None:
        data["schema"] = schema
    return parse(_overridden(data, overrides), source)


def _overridden(data: Any, overrides: dict[str, Any]) -> Any:
    """Settings with others on top, part by part; what is no part, as it may be in a file, is left for `parse` to refuse."""
    if not isinstance(data, dict):
        return data
    given = {key: _overridden(data.get(key, {}), value) if isinstance(value, dict) else value for key, value in overrides.items()}
    return data | {key: value for key, value in given.items() if value not in (None, {})}


def _keys(model: type[Settings]) -> set[str]:
    return {info.alias or name for name, info in model.model_fields.items()}


def json_schema(model: type[Settings]) -> dict[str, Any]:
    """The JSON Schema of a configuration file (`Config`) or of a schema file (`Schema`), for editors; in docs/ for both."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **model.model_json_schema(by_alias=True)}


def commented() -> str:
    """The default configuration as JSON, each key behind a ``//`` key that says what it does."""
    return json.dumps(_commented(Config()), indent=2)


def _commented(settings: Settings) -> dict[str, Any]:
    plain = settings.model_dump(mode="json", by_alias=True)
    lines: dict[str, Any] = {}
    for name, info in type(settings).model_fields.items():
        key, value = info.alias or name, getattr(settings, name)
        lines[f"//{key}"] = info.description
        lines[key] = _commented(value) if isinstance(value, Settings) else plain[key]
    return lines


def read_json(path: Path) -> dict[str, Any]:
    """The object that a JSON file holds. Raises ConfigError."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise ConfigError(f"{path}: cannot be read: {exc.strerror}") from exc
    except ValueError as exc:
        raise ConfigError(f"{path}: not JSON: {exc}; `h5dat config init` prints one to start from") from exc
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: found a JSON {type(data).__name__}, expected an object")
    return data


def _first_fault(exc: ValidationError, model: type[Settings]) -> str:
    faults = exc.errors(include_url=False)
    fault = next((fault for fault in faults if fault["type"] == "extra_forbidden"), faults[0])  # a slip is why another one is missing
    where = ".".join(str(part) for part in fault["loc"]) or "top level"
    more = f" (and {exc.error_count() - 1} more)" if exc.error_count() > 1 else ""
    if fault["type"] == "extra_forbidden":
        return f"{unknown(f'{where}: no setting', str(fault['loc'][-1]), _settings_at(model, fault['loc'][:-1]))}{more}"
    found = "" if isinstance(fault["input"], dict) or where == "s3.endpoint" else f", found {fault['input']!r}"
    return f"{where}: {fault['msg']}{found}{more}"


def _settings_at(model: type[Settings], path: tuple[int | str, ...]) -> list[str]:
    """Names that may stand at a place in the settings, as the published schema has them."""
    schema = json_schema(model)
    parts = _alternatives([schema], schema)
    for step in path:
        inner = [part["items"] if isinstance(step, int) else part["properties"][step] for part in parts if _leads_to(part, step)]
        parts = _alternatives(inner, schema) or parts  # a step may name one of several kinds of settings
    return [name for part in parts for name in part.get("properties", {})]


def _leads_to(part: dict[str, Any], step: int | str) -> bool:
    return "items" in part if isinstance(step, int) else step in part.get("properties", {})


def _alternatives(parts: list[dict[str, Any]], schema: dict[str, Any]) -> list[dict[str, Any]]:
    """Parts of a JSON Schema with what they refer to in their place, each of several choices by itself."""
    found = []
    for part in parts:
        if "$ref" in part:
            found += _alternatives([schema["$defs"][part["$ref"].rpartition("/")[2]]], schema)
        else:
            found += _alternatives([*part.get("anyOf", ()), *part.get("oneOf", ()), *part.get("allOf", ())], schema) or [part]
    return found
