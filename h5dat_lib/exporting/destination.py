"""A path -> a folder or a file that is complete or not there: all is written beside it, and takes its name at the end.

Names of files come from archives of strangers: `safe_path` makes of them paths that stay within the folder, on every system.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from h5dat_lib.errors import OutputError
from h5dat_lib.storage import is_remote

__all__ = ["Destination", "folded", "numbered", "safe_path"]

_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\\\ud800-\udfff]")
_DRIVE = re.compile(r"(?<=^[A-Za-z]):")
_DEVICE = re.compile(r"(?i)(?:con|prn|aux|nul|com\d|lpt\d)(?=\.|$)")
"""Names that are devices on Windows, whatever follows their dot (learn.microsoft.com/windows/win32/fileio/naming-a-file)."""
_NAME_BYTES = 200
"""Longest name of a file or folder, in UTF-8 bytes: file systems take 255, and an ending or a number may come to it."""
_FOLDERS = 64
"""Deepest path; what lies deeper lies in the last of them."""
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)


def safe_path(path: str) -> str:
    """A relative path of plain names, for any path: without ``..``, roots, drives, control characters and names that no system takes.

    What cannot stay is percent-encoded. An ordinary path of a member is what it was.
    """
    names = [name for name in path.split("/") if name not in ("", ".")]
    *folders, last = names or ["%"]
    return "/".join(map(_safe_name, [*folders[:_FOLDERS], last]))


def _safe_name(name: str) -> str:
    if name == "..":
        return "%2E%2E"
    name = _UNSAFE.sub(_percent, _DRIVE.sub("%3A", name))
    name = _DEVICE.sub(r"%\g<0>", name) if _DEVICE.match(name) else name
    if name[-1] in " .":
        name = name[:-1] + f"%{ord(name[-1]):02X}"
    return _shortened(name) if len(name.encode()) > _NAME_BYTES else name


def _percent(found: re.Match[str]) -> str:
    return f"%{ord(found[0]):02X}"


def _shortened(name: str) -> str:
    """Its beginning and its ending."""
    stem, dot, ending = name.rpartition(".")
    if not stem or len(ending.encode()) > 16:
        stem, dot, ending = name, "", ""
    room = _NAME_BYTES - len(ending.encode()) - 1
    return stem.encode()[:room].decode("utf-8", "ignore") + dot + ending


def folded(path: str) -> str:
    """The same for paths that a file system may take for one: it may know no case, and compose accents."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())


def numbered(path: str, number: int) -> str:
    """A path of which others were there before: ``a~2.jpg``; the first of them as it is."""
    if number < 2:
        return path
    folder, slash, name = path.rpartition("/")
    stem, dot, ending = name.partition(".") if name[:1] != "." else (name, "", "")
    return f"{folder}{slash}{stem}~{number}{dot}{ending}"


@dataclass(frozen=True)
class Created:
    """A file that is being written, and its path in the destination."""

    path: str
    stream: BinaryIO


class Destination:
    """A folder, or one file when ``single``, that comes to be when the block ends without an error; a context manager.

    Raises OutputError for S3, when something is there already, other than an empty folder, and when it cannot be written.
    """

    def __init__(self, path: str | Path, single: bool = False) -> None:
        if is_remote(str(path)):
            raise OutputError(f"{path}: found a destination in S3, expected a local path; export to a folder, and copy it there")
        self.path = Path(path)
        self.single = single
        self._check_free()
        self._real = lru_cache(1024)(self._made)
        self._taken: dict[str, int] = {}
        self.files = 0
        self.bytes = 0

    def _check_free(self) -> None:
        try:
            there = os.path.lexists(self.path)
            if there and (self.single or not self.path.is_dir() or any(self.path.iterdir())):
                found = "a folder that is not empty" if self.path.is_dir() and not self.single else "it there already"
                expected = "a new name" if self.single else "a new name or an empty folder"
                raise OutputError(f"{self.path}: found {found}, expected {expected}; nothing is overwritten")
        except OSError as exc:
            raise self._failed(exc) from exc

    def _failed(self, exc: OSError) -> OutputError:
        return OutputError(f"{exc.filename or self.path}: cannot be written: {exc.strerror or exc}")

    def __enter__(self) -> Destination:
        target = Path(os.path.realpath(self.path))  # an empty folder may be known by a link
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            self.folder = Path(tempfile.mkdtemp(suffix=".part", prefix=f".{target.name[:100]}.", dir=target.parent))
        except OSError as exc:
            raise self._failed(exc) from exc
        self._target = target
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if kind is None:
                self._publish()
        except OSError as error:
            raise self._failed(error) from error
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)
        if isinstance(exc, OSError):
            raise self._failed(exc) from exc

    def _publish(self) -> None:
        if self.single:
            [written] = self.folder.iterdir()
            self._check_free()  # it would be overwritten; a folder that is not empty is not
            os.rename(written, self._target)
            return
        mask = os.umask(0)
        os.umask(mask)
        self.folder.chmod(0o777 & ~mask)  # mkdtemp's are for their owner alone
        os.rename(self.folder, self._target)

    @contextmanager
    def create(self, path: str) -> Iterator[Created]:
        """A new file of this path, as `safe_path` has it, or of one like it where another is there."""
        made = self._opened(safe_path(path))
        with made.stream:
            yield made
            self.bytes += made.stream.tell()
        self.files += 1

    def _opened(self, path: str) -> Created:
        folder, _, name = path.rpartition("/")
        folder = self._real(folder)
        for number in count(self._taken.get(path, 0) + 1):
            found = "/".join(filter(None, (folder, numbered(name, number))))
            try:
                descriptor = os.open(f"{self.folder}/{found}", _CREATE, 0o666)
            except (FileExistsError, IsADirectoryError):
                self._taken[path] = number
                continue
            return Created(found, os.fdopen(descriptor, "wb"))
        raise AssertionError("numbers do not end")

    def _made(self, folder: str) -> str:
        """A folder that is there now: of this path, or of one like it where a file has that."""
        if not folder:
            return ""
        above, _, name = folder.rpartition("/")
        above = self._real(above)
        for number in count(1):
            found = "/".join(filter(None, (above, numbered(name, number))))
            try:
                (self.folder / found).mkdir(exist_ok=True)
            except FileExistsError:
                continue
            return found
        raise AssertionError("numbers do not end")
