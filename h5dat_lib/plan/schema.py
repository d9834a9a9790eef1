"""Member -> class: the rules of a schema, or the medium when there is none. The first match wins."""

from __future__ import annotations

import mimetypes
import re
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from h5dat_lib.config import ClassRule, Medium, Schema
from h5dat_lib.convert import HANDLERS, formats
from h5dat_lib.convert.handler import Handler
from h5dat_lib.errors import ConfigError

_MIME: dict[Medium, str] = {
    "images": "image",
    "videos": "video",
    "audio": "audio",
    "documents": "application",
    "tables": "text",
    "texts": "text",
}
"""What the MIME types of a medium begin with (iana.org/assignments/media-types)."""


@dataclass(frozen=True)
class Class:
    """What a member is classified as: a name, which is its HDF5 group, and the medium it is converted as."""

    name: str
    medium: Medium


@dataclass(frozen=True)
class _Rule:
    target: Class
    extensions: tuple[str, ...]
    paths: tuple[re.Pattern[str], ...]
    folders: tuple[re.Pattern[str], ...]
    types: frozenset[str]
    """Names of formats."""

    def matches(self, path: str, head: Callable[[], bytes]) -> bool:
        if self.extensions and not path.lower().endswith(self.extensions):
            return False
        if any(group and not any(pattern.fullmatch(path) for pattern in group) for group in (self.paths, self.folders)):
            return False
        return not self.types or any(handler.name in self.types for handler in formats(head(), path))


class Classifier:
    """Decides the class of a member by its path, and by its first bytes where a rule asks for types.

    ``medium_of`` tells the medium of a path by its extension, None when the extension says nothing. Raises ConfigError for a type of
    content that there is none of.
    """

    def __init__(self, schema: Schema, medium_of: Callable[[str], Medium | None]) -> None:
        self._rules = [_rule(rule) for rule in schema.classes]
        self._medium_of = medium_of
        self.by_medium = not schema.classes or schema.unmatched == "medium"
        """Whether a member that no rule matches is classified by its medium."""

    def classify(self, path: str, head: Callable[[], bytes] = bytes) -> Class | None:
        """The class of a member; None when no rule matches it and its extension says nothing.

        ``head`` gives its first bytes, and is called only for a rule with types that the path does not rule out. Raises what it raises.
        """
        for rule in self._rules:
            if rule.matches(path, head):
                return rule.target
        medium = self._medium_of(path) if self.by_medium else None
        return Class(medium, medium) if medium else None


def _rule(rule: ClassRule) -> _Rule:
    return _Rule(
        Class(rule.name, rule.medium),
        tuple("." + extension.lower().lstrip(".") for extension in rule.extensions),
        tuple(re.compile(glob_regex(pattern)) for pattern in rule.paths),
        tuple(re.compile(folder_regex(folder)) for folder in rule.folders),
        frozenset().union(*(_formats(rule.name, wanted) for wanted in rule.types)),
    )


def _formats(class_name: str, wanted: str) -> set[str]:
    """Names of the formats that a type means: one by its name, or all that a MIME type matches."""
    found = {handler.name for handler in HANDLERS if handler.name == wanted or any(fnmatchcase(mime, wanted) for mime in _mimes(handler))}
    if not found:
        names = ", ".join(sorted(handler.name for handler in HANDLERS))
        raise ConfigError(
            f"class {class_name!r}: found type {wanted!r}, expected a MIME type such as image/png or image/*, or one of {names}"
        )
    return found


def _mimes(handler: Handler) -> set[str]:
    """The MIME types of a format: those that Python knows of its extensions, and one of its medium and its name."""
    known = mimetypes.MimeTypes()  # Python's own table, whatever this machine adds to it
    return {kind for extension in handler.extensions for table in known.types_map if (kind := table.get(extension))} | {
        f"{_MIME[handler.medium]}/{handler.name}"
    }


def folder_regex(folder: str) -> str:
    """A regular expression for the paths of all that lies in a folder: at any depth, or with a leading slash at the top."""
    inner = folder.strip("/")
    return glob_regex(f"{inner}/**" if folder.startswith("/") else f"**/{inner}/**")


def glob_regex(pattern: str) -> str:
    """A regular expression for a glob: ``*`` and ``?`` stay within a folder, ``**/`` is any folders, ``[..]`` a set."""
    parts = re.split(r"(\*\*/|\*\*|\*|\?|\[!?[^]]+\])", pattern)
    return "".join(_GLOBS.get(part) or _set_or_literal(part) for part in parts)


_GLOBS = {"**/": "(?s:.*/)?", "**": "(?s:.*)", "*": "[^/]*", "?": "[^/]"}
_SET = re.compile(r"\[(!?)([^]]+)\]")
_RANGE = re.compile(r"(.)-(.)|(.)", re.DOTALL)


def _set_or_literal(part: str) -> str:
    found = _SET.fullmatch(part)
    if found is None:
        return re.escape(part)
    # All but ranges is escaped: regular expressions give a meaning to more than globs do.
    members = (re.escape(one) or "-".join(map(re.escape, sorted((first, last)))) for first, last, one in _RANGE.findall(found[2]))
    return f"[{'^' if found[1] else ''}{''.join(members)}]"
