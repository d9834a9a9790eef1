"""A prefix (a folder of local disks, or of a bucket) -> the archives below it, where each is to go, and which are not there yet."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from h5dat_lib.archive import open_archive
from h5dat_lib.config import Config
from h5dat_lib.errors import ConfigError, FormatError, InputError
from h5dat_lib.history import History, history
from h5dat_lib.schema import glob_regex
from h5dat_lib.storage import S3, aws

__all__ = ["Destined", "destined", "lacking"]

_PLACEHOLDERS = {"{stem}", "{prefix}"}
_ENDINGS = re.compile(r"(?i)(?<=.)(\.tar)?\.[a-z0-9]+$")
"""What an archive's name says of how it is packed."""
_HIDDEN = re.compile(r"(?:^|/)\.")


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
    names = _objects(root) if root.startswith(S3) else _files(root)
    wanted = re.compile(glob_regex(pattern))
    found = [Destined(root + name, _filled(output, name)) for name in sorted(names) if wanted.fullmatch(name) and not _HIDDEN.search(name)]
    outputs = {each.output for each in found}
    return [each for each in found if each.archive not in outputs]


def _filled(output: str, name: str) -> str:
    folders, _, file = name.rpartition("/")
    output = output.replace("{prefix}/", f"{folders}/" if folders else "")
    return output.replace("{prefix}", folders).replace("{stem}", _ENDINGS.sub("", file))


def _files(root: str) -> Iterator[str]:
    """Paths of all files below a folder, from there on."""

    def fail(exc: OSError) -> None:
        raise InputError(f"{exc.filename}: cannot be listed: {exc.strerror}; check the prefix and its permissions") from exc

    for folder, _, names in os.walk(root, onerror=fail):
        yield from (os.path.join(folder, name).removeprefix(root) for name in names)


def _objects(root: str) -> Iterator[str]:
    """Keys of all objects below a prefix, from there on; a key that ends with a slash stands for an empty folder."""
    bucket, key = aws.split(root)
    pages = iter(aws.client("s3").get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=key))
    while True:
        with aws.explained(root):
            page = next(pages, None)
        if page is None:
            return
        names = (entry["Key"].removeprefix(key) for entry in page.get("Contents", ()))
        yield from (name for name in names if name and not name.endswith("/"))


def lacking(wanted: Sequence[Destined], config: Config) -> list[Destined]:
    """Those that are not whole in their outputs as they are today. What cannot be looked at is among them: its own run says why."""
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
        found = known.find(open_archive(archive, config.limits).fingerprint(), config.digest())
    except InputError:
        return False
    return found is not None and found.complete
