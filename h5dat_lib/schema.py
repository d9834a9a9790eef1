"""Member path -> class: the rules of a schema, or the medium when there is none. The first match wins."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from h5dat_lib.config import Medium, Schema


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

    def matches(self, path: str) -> bool:
        if self.extensions and not path.lower().endswith(self.extensions):
            return False
        return not self.paths or any(pattern.fullmatch(path) for pattern in self.paths)


class Classifier:
    """Decides the class of a member by its path.

    ``medium_of`` tells the medium of a path by its extension, None when the extension says nothing.
    """

    def __init__(self, schema: Schema, medium_of: Callable[[str], Medium | None]) -> None:
        self._rules = [
            _Rule(
                Class(rule.name, rule.medium),
                tuple("." + extension.lower().lstrip(".") for extension in rule.extensions),
                tuple(re.compile(glob_regex(pattern)) for pattern in rule.paths),
            )
            for rule in schema.classes
        ]
        self._medium_of = medium_of
        self.by_medium = not schema.classes or schema.unmatched == "medium"
        """Whether a member that no rule matches is classified by its medium."""

    def classify(self, path: str) -> Class | None:
        """The class of a path; None when no rule matches it and its extension says nothing."""
        for rule in self._rules:
            if rule.matches(path):
                return rule.target
        medium = self._medium_of(path) if self.by_medium else None
        return Class(medium, medium) if medium else None


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
