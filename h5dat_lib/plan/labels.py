"""Members of an archive -> their labels: names of their folders, and what files of labels say of them, joined by a key.

Files of labels are read once, before the members are planned, into an SQLite file in the run's folder: memory does not grow with them.
"""

from __future__ import annotations

import csv
import io
import json
import re
import sqlite3
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO, cast

from h5dat_lib.archive import open_archive, open_reader
from h5dat_lib.archive.member import Archive, Content, Member, Reader, StreamedArchive
from h5dat_lib.archive.packed import unpacked
from h5dat_lib.archive.spool import SpoolWriter
from h5dat_lib.config import Label, Limits, Schema
from h5dat_lib.convert.encoding import Utf8, detect, to_text
from h5dat_lib.errors import InputError, MemberError, OutputError
from h5dat_lib.lineage import sample_key
from h5dat_lib.plan.schema import glob_regex
from h5dat_lib.storage import sha256_of

_DELIMITERS = ",\t;|"
_KEY = "{key}"
_BESIDE = ("/", "./", "../")
"""What the name of a file of labels starts with that is no member of the archive."""

Labels = tuple[str | None, ...]
"""Labels of a member, in the order of its class's; None where nothing was found."""
_Row = tuple[str, Labels]
"""What a file of labels says of a key."""


def _name(path: str) -> str:
    return path.rpartition("/")[2]


_MEMBER_KEYS: dict[str, Callable[[str], str]] = {
    "stem": lambda path: _name(path).rpartition(".")[0] or _name(path),
    "name": _name,
    "path": str,
    "key": sample_key,
    "folder": lambda path: _name(path.rpartition("/")[0]),
}


@dataclass
class _Count:
    """How many members were looked up for a label, for how many nothing was found, and one of these."""

    members: int = 0
    missing: int = 0
    example: str = ""

    def share(self) -> str:
        """How many of how many members nothing was found for."""
        return f"{self.missing:,} of {self.members:,} members ({100 * self.missing / self.members:.1f} %)"


class Labeller:
    """Gives the members of one archive their labels.

    A streamed archive is read once more, before anything else, when its labels lie in it. Raises InputError when a file of labels
    cannot be read or lacks what is asked of it; when there is none, as soon as a member needs it.
    """

    def __init__(self, schema: Schema, archive: Archive, limits: Limits, folder: Path, number: int = 0) -> None:
        self._uri = archive.uri
        self._labels = {rule.name: schema.labels(rule.name) for rule in schema.classes}
        self._splits = {label: label.splits() for labels in self._labels.values() for label in labels if label.split}
        self._counts: dict[tuple[str, Label], _Count] = {}
        self._files: dict[tuple[str, str | None], _LabelFile] = {}
        self.beside = ""
        """SHA-256s of the files of labels that are no members of the archive."""
        if wanted := [label for labels in self._labels.values() for label in labels if label.file is not None]:
            self._add_files(wanted, folder / f"archive-{number:05}.labels")
            self._read(archive, limits, folder / f"archive-{number:05}.labels.spool")

    def _add_files(self, labels: Iterable[Label], path: Path) -> None:
        database = _database(path)
        weakref.finalize(self, database.close)
        values: dict[tuple[str, str | None], list[Label]] = {}
        for label in labels:
            values.setdefault((str(label.file), label.key), []).append(label)
        for number, (place, alike) in enumerate(values.items()):
            self._files[place] = _LabelFile(database, number, tuple(alike))

    def _read(self, archive: Archive, limits: Limits, spool: Path) -> None:
        inside = [file for file in self._files.values() if not file.beside]
        for file in self._files.values():
            if file.beside:
                file.add_all(open_archive(file.name, limits), limits)
                self.beside += sha256_of(file.name)
        for member, reader in _passing(archive, lambda member: any(file.match(member.path) for file in inside), limits, spool):
            for file in inside:
                if found := file.match(member.path):
                    file.add(Content(reader, member, limits), found.groupdict().get("key"), archive.uri)
        for file in self._files.values():
            file.check(archive.uri)
            if archive.streamed:  # nobody could say so later, before the first members are converted
                file.require(archive.uri)

    def of(self, class_name: str, path: str) -> Labels:
        """The labels of a member. Raises InputError when there is no file to look them up in."""
        return tuple(self._counted(class_name, label, path) for label in self._labels.get(class_name, ()))

    def _counted(self, class_name: str, label: Label, path: str) -> str | None:
        found = self._found(label, path)
        counted = self._counts.setdefault((class_name, label), _Count())
        counted.members += 1
        if found is None:
            counted.missing += 1
            counted.example = counted.example or path
        return found

    def _found(self, label: Label, path: str) -> str | None:
        if label.split:
            return self._splits[label].of(_MEMBER_KEYS[label.split_by](path))
        return _folder(path, label.folder) if label.folder else self._looked_up(label, path)

    def _looked_up(self, label: Label, path: str) -> str | None:
        file = self._files[str(label.file), label.key]
        file.require(self._uri)
        return file.value(label, path)

    def remarks(self) -> list[str]:
        """What a user should know: a line for each label that was not found for all members, and for each file with double keys."""
        remarks = [
            f"{self._uri}, {class_name}.{label.name}: found nothing for {counted.share()}, e.g. {counted.example}; look at "
            f"{'folder' if label.folder else 'key/member_key'}"
            for (class_name, label), counted in self._counts.items()
            if counted.missing
        ]
        return [*remarks, *(remark for file in self._files.values() for remark in file.remarks(self._uri))]


def _folder(path: str, above: int) -> str | None:
    """The name of the folder that a member lies in, or of one above it."""
    folders = path.split("/")[:-1]
    return folders[-above] if len(folders) >= above else None


def _database(path: Path) -> sqlite3.Connection:
    path.unlink(missing_ok=True)
    database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    database.execute("PRAGMA journal_mode = OFF")
    database.execute("PRAGMA synchronous = OFF")
    return database


def _passing(archive: Archive, wanted: Callable[[Member], bool], limits: Limits, spool: Path) -> Iterator[tuple[Member, Reader]]:
    """The wanted members of an archive up to where it is damaged, with what reads them; those of a stream are spooled first."""
    with suppress(InputError):  # said when the members are planned
        if not archive.streamed:
            with closing(open_reader(archive.kind, archive.uri, limits, archive.pin)) as reader:
                yield from ((member, reader) for member in archive.members() if wanted(member))
            return
        for member, data in cast(StreamedArchive, archive).stream():
            if wanted(member):
                yield from _spooled(member, data, limits, spool)


def _spooled(member: Member, data: BinaryIO, limits: Limits, path: Path) -> Iterator[tuple[Member, Reader]]:
    try:
        with SpoolWriter(path, limits) as spool:
            spooled = spool.add(member, data)
    except MemberError as exc:
        spooled = replace(member, reject=exc.reason)
    with closing(open_reader("tar", str(path))) as reader:
        yield spooled, reader
    path.unlink()


@dataclass
class _LabelFile:
    """A file of labels, or one a member, as a table of SQLite: a row a key, with the values that some labels ask for."""

    database: sqlite3.Connection
    number: int
    labels: tuple[Label, ...]
    _folders: set[str] = field(default_factory=set)
    """Of the files that were found, with a slash at the end."""

    def __post_init__(self) -> None:
        self.name = str(self.labels[0].file)
        self.beside = self.name.startswith(_BESIDE)
        self._key = self.labels[0].key
        self._values = tuple(dict.fromkeys(label.value for label in self.labels))
        self._pattern = re.compile(_pattern(self.name, any(label.member_key in ("path", "key") for label in self.labels)))
        columns = [f"v{at}" for at in range(len(self._values))]
        self.database.execute(f"CREATE TABLE t{self.number} (key TEXT PRIMARY KEY, {', '.join(columns)}, doubles DEFAULT 0) WITHOUT ROWID")
        marks, others = ", ".join("?" * (len(columns) + 1)), " OR ".join(f"{name} IS NOT excluded.{name}" for name in columns)
        self._insert = (
            f"INSERT INTO t{self.number} (key, {', '.join(columns)}) VALUES ({marks}) "
            f"ON CONFLICT (key) DO UPDATE SET doubles = doubles + 1 WHERE {others}"
        )

    def match(self, path: str) -> re.Match[str] | None:
        """Whether a member is the file of labels, or one of them."""
        return self._pattern.fullmatch(path)

    def add_all(self, archive: Archive, limits: Limits) -> None:
        """Adds a file that is no member of the archive."""
        with closing(open_reader(archive.kind, archive.uri, limits, archive.pin)) as reader:
            for member in archive.members():
                self.add(Content(reader, member, limits), None, archive.uri)

    def add(self, content: Content, key: str | None, uri: str) -> None:
        """Adds what a file says; with a ``key``, what it says of that key alone. Raises InputError when it cannot be read."""
        path = content.member.path
        self._folders.add(path[: path.rfind("/") + 1])
        try:
            rows = _document(content, key, self._values) if key is not None else _rows(content, self._key, self._values)
            self.database.execute("BEGIN")
            self.database.executemany(self._insert, ((key, *values) for key, values in rows))
            self.database.execute("COMMIT")
        except MemberError as exc:
            raise InputError(f"{uri}, {path}: found no labels ({exc.reason}); look at the labels of the schema") from exc
        except sqlite3.OperationalError as exc:
            raise OutputError(f"labels of {uri}: cannot be written: {exc}; free some space or choose another work_dir") from exc

    def check(self, uri: str) -> None:
        """Raises InputError when no key at all has one of the values."""
        for at, value in enumerate(self._values):
            if self._folders and self._one(f"SELECT count(v{at}) FROM t{self.number}") == (0,):
                raise InputError(f"{uri}, {self.name}: found no value at {value!r} for any key; look at the labels of the schema")

    def require(self, uri: str) -> None:
        """Raises InputError when no file was found."""
        if not self._folders:
            raise InputError(
                f"{uri}: found no member {self.name!r}, expected the file of its labels; one beside it is given as ./{_name(self.name)}"
            )

    def value(self, label: Label, path: str) -> str | None:
        """The label of a member."""
        column = f"v{self._values.index(label.value)}"
        for key in self._candidates(path, label.member_key):
            if found := self._one(f"SELECT {column} FROM t{self.number} WHERE key = ?", key):
                return cast("str | None", found[0])
        return None

    def _candidates(self, path: str, member_key: str) -> Iterator[str]:
        yield _MEMBER_KEYS[member_key](path)
        if member_key == "path":
            yield from (path.removeprefix(folder) for folder in sorted(self._folders) if folder and path.startswith(folder))

    def remarks(self, uri: str) -> list[str]:
        """Says so when keys have several values."""
        number, key = self._one(f"SELECT count(*), min(key) FROM t{self.number} WHERE doubles")
        return [f"{uri}, {self.name}: found other values for {number:,} keys further on, e.g. {key}; took the first"] if number else []

    def _one(self, query: str, *parameters: str) -> Any:
        return self.database.execute(query, parameters).fetchone()


def _pattern(name: str, deep: bool) -> str:
    """A regular expression for the paths of files of labels; ``deep`` keys may have folders in them."""
    first, *rest = (glob_regex(part) for part in name.split(_KEY))
    keys = ("(?P<key>.+)" if deep else "(?P<key>[^/]+)", *("(?P=key)" for _ in rest[1:]))
    return first + "".join(key + part for key, part in zip(keys, rest, strict=False))


def _document(content: Content, key: str, values: Labels) -> Iterator[_Row]:
    """What the JSON file of one member says; nothing when it is damaged, which is said when it is converted itself."""
    with suppress(MemberError):
        document = _parsed(_opened(content))
        yield key, tuple(_text(_at(document, value or "")) for value in values)


def _rows(content: Content, key: str | None, values: Labels) -> Iterator[_Row]:
    """What a file of labels says of each key, by the file's extension. Raises MemberError when it cannot."""
    content = _opened(content)
    suffix = content.member.path.rpartition(".")[2].lower()
    if suffix == "json":
        return _json_rows(_parsed(content), key, values)
    if suffix in ("jsonl", "ndjson"):
        return _line_rows(content, key, values)
    return _table_rows(content, key, values)


def _opened(content: Content) -> Content:
    """The file itself, where it is a compressed one. Raises MemberError for one that cannot be read."""
    if content.member.reject is not None:
        raise MemberError(content.member.reject, "read")
    return unpacked(content) or content


def _table_rows(content: Content, key: str | None, values: Labels) -> Iterator[_Row]:
    if key is None or None in values:
        raise MemberError("found a table, expected `key` and `value` to name two of its columns")
    lines = _lines(content)
    start = next(lines, "")
    delimiter = max(_DELIMITERS, key=start.count)
    try:
        header = next(csv.reader([start], delimiter=delimiter), [])
        if missing := [name for name in (key, *values) if name not in header]:
            raise MemberError(f"found the columns {', '.join(header)}, expected {missing[0]!r} among them")
        at, *places = (header.index(name or "") for name in (key, *values))
        for record in csv.reader(lines, delimiter=delimiter):
            if len(record) > max(at, *places):
                yield record[at], tuple(record[place] or None for place in places)
    except csv.Error as exc:
        raise MemberError(f"no table: {exc}") from exc


def _json_rows(document: Any, key: str | None, values: Labels) -> Iterator[_Row]:
    if (key is None and not isinstance(document, dict)) or (key is not None and not isinstance(document, list)):
        expected = "an object, by its keys" if key is None else f"a list of objects with {key!r}"
        raise MemberError(f"found a JSON {type(document).__name__}, expected {expected}")
    rows = document.items() if key is None else ((_at(entry, key), entry) for entry in document)
    for found, entry in rows:
        if (name := _text(found)) is not None:
            yield name, tuple(_text(entry if value is None else _at(entry, value)) for value in values)


def _line_rows(content: Content, key: str | None, values: Labels) -> Iterator[_Row]:
    for number, line in enumerate(_lines(content), 1):
        if line.strip():
            document = _loads(line, f"line {number}: ")
            yield from _json_rows(document if key is None else [document], key, values)


def _lines(content: Content) -> Iterator[str]:
    """The lines of a text, one at a time; none is longer than what may be read whole."""
    most = content.limits.whole_bytes
    codec = detect(content.head(), complete=False)
    with io.TextIOWrapper(io.BufferedReader(Utf8(content.open(), codec)), "utf-8", newline="") as text:
        while line := text.readline(most + 1):
            if len(line) > most:
                raise MemberError(f"too large: found a line of more than {most} characters (limits.whole_bytes)")
            yield line


def _parsed(content: Content) -> Any:
    data = content.read()
    return _loads(to_text(data, detect(data)), "")


def _loads(text: str, where: str) -> Any:
    """JSON with its numbers as they are written."""
    try:
        return json.loads(text, parse_int=str, parse_float=str, parse_constant=str)
    except (ValueError, RecursionError) as exc:
        raise MemberError(f"no JSON: {where}{exc}") from exc


def _at(document: Any, path: str) -> Any:
    """What lies at a dotted path, as in the keys of pairs; None when nothing does."""
    for step in re.findall(r"(?:^|\.)((?:\\.|[^.\\])*)", path):
        step = re.sub(r"\\(.)", r"\1", step)
        if isinstance(document, list):
            document = document[int(step)] if step.isdecimal() and int(step) < len(document) else None
        else:
            document = document.get(step) if isinstance(document, dict) else None
    return document


def _text(value: Any) -> str | None:
    """A label or key as text; None for null, an empty string, and what is no scalar."""
    if isinstance(value, bool):
        return str(value).lower()
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) and value else None
