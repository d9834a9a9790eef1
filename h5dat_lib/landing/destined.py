"""A prefix (a folder of local disks, or of a bucket) -> the archives below it, where each is to go, and which are not there yet."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from h5dat_lib.archive import open_archive
from h5dat_lib.archive.packed import stem
from h5dat_lib.config import Config
from h5dat_lib.errors import ConfigError, FormatError, InputError
from h5dat_lib.plan.schema import glob_regex
from h5dat_lib.read.history import History, history
from h5dat_lib.storage import is_remote, listed

__all__ = ["Destined", "below", "destined", "lacking"]

_PLACEHOLDERS = {"{stem}", "{prefix}"}
_NONE = re.compile(r"(?:^|/)(?:\.|$)")
"""Hidden files, and what stands for a folder in a bucket."""


@dataclass(frozen=True)
class Destined:
    """An archive and the output that it goes to, both paths or URIs."""

    archive: str
    output: str


def destined(prefix: str, output: str, pattern: str = "**") -> list[Destined]:
    """The archives below ``prefix`` whose paths from there on match ``pattern``, sorted, each with its output.

    In ``output``, ``{stem}`` stands for an archive's file name without its endings, ``{prefix}`` for the folders that lead to it from
    ``prefix`` on. Hidden files and the outputs themselves are no archives. Raises InputError when the prefix cannot be listed, ConfigError
    for another placeholder.
    """
    if unknown := set(re.findall(r"\{\w*\}", output)) - _PLACEHOLDERS:
        raise ConfigError(f"output {output}: found {min(unknown)}, expected {{stem}} or {{prefix}}")
    root = prefix if prefix.endswith("/") else f"{prefix}/"
    found = [Destined(root + name, _filled(output, name)) for name in below(root, pattern)]
    outputs = {each.output for each in found}
    return [each for each in found if each.archive not in outputs]


def below(root: str, pattern: str) -> list[str]:
    """Paths of all files or objects below a folder, which ends with a slash, from there on: those that match and are not hidden, sorted."""
    names = (name for name, _, _ in listed(root)) if is_remote(root) else _files(root)
    wanted = re.compile(glob_regex(pattern))
    return sorted(name for name in names if wanted.fullmatch(name) and not _NONE.search(name))


def _filled(output: str, name: str) -> str:
    folders, _, file = name.rpartition("/")
    output = output.replace("{prefix}/", f"{folders}/" if folders else "")
    return output.replace("{prefix}", folders).replace("{stem}", stem(file))


def _files(root: str) -> Iterator[str]:
    """Paths of all files below a folder, from there on."""

    def fail(exc: OSError) -> None:
        raise InputError(f"{exc.filename}: cannot be listed: {exc.strerror}; check the prefix and its permissions") from exc

    for folder, _, names in os.walk(root, onerror=fail):
        yield from (os.path.join(folder, name).removeprefix(root) for name in names)


def lacking(wanted: Sequence[Destined], config: Config) -> list[Destined]:
    """Those that are not whole in their outputs as they are today. What cannot be looked at is among them: its own run says why.

    S3 is reached as this process is set to (`storage.aws.use`).
    """
    known = {output: _history(output) for output in {each.output for each in wanted}}
    return [each for each in wanted if not _is_in(each.archive, known[each.output], config)]


def _history(output: str) -> History:
    try:
        return history(output)
    except (InputError, FormatError):
        return History()


def _is_in(archive: str, known: History, config: Config) -> bool:
    if not known.archives:
        return False
    try:
        opened = open_archive(archive, config.limits)
        found = known.find(opened.fingerprint(), config.digest())
    except InputError:
        return False
    opened.close()
    return found is not None and found.complete
