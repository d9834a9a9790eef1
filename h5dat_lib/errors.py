"""The error tree: everything this library raises on purpose.

    H5datError
    ├── ConfigError        a setting that cannot be used
    ├── InputError         an archive that cannot be used: missing, empty, not an archive
    │   └── UnknownName    a class, column or member that a file does not have; a KeyError, too
    ├── OutputError        an output that cannot be written, or is not ours to write
    ├── FormatError        an HDF5 file that h5dat cannot read as its own
    ├── MemberError        one member that cannot be converted; becomes a reject, never ends a run
    ├── Unavailable        a server that does not answer now; the same again may work
    ├── BudgetExceeded     more rejects than the configuration allows
    └── Interrupted        the user stopped the run; what was committed stays

A message reads: *archive, member: found X, expected Y, do Z*.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = [
    "BudgetExceeded",
    "ConfigError",
    "FormatError",
    "H5datError",
    "InputError",
    "Interrupted",
    "MemberError",
    "OutputError",
    "Unavailable",
    "UnknownName",
    "escaped",
    "unknown",
]

_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_NAMES = 50
"""Most names that a message lists."""


def escaped(text: str) -> str:
    """A message, or another text that comes from an archive, fit to be shown: backslash escapes stand for the control characters
    (C0, DEL, C1) that a terminal would obey."""
    return text if text.isprintable() else _CONTROLS.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


class H5datError(Exception):
    """The root: catch this to catch everything the library raises on purpose."""


class ConfigError(H5datError):
    """A setting that cannot be used; names the key, what was found and what is allowed."""


class InputError(H5datError):
    """An archive that cannot be used as a whole; names the archive and what was found."""


class UnknownName(InputError, KeyError):
    """A class, column or member that a file does not have; ``near`` is the name that may have been meant, or ""."""

    near = ""

    def __str__(self) -> str:
        return str(self.args[0])  # a KeyError would put it in quotes


def unknown(what: str, name: str, names: Sequence[str]) -> UnknownName:
    """The error for a name that is none of ``names``: it says some of them, and the nearest."""
    from difflib import get_close_matches

    there = ", ".join(names[:_NAMES]) + (", ..." if len(names) > _NAMES else "")
    near = next(iter(get_close_matches(name, names, 1)), "")
    error = UnknownName(f"{what} {name!r}; it has {there or 'none'}" + (f"; did you mean {near!r}?" if near else ""))
    error.near = near
    return error


def nearer(failure: InputError | None, other: InputError) -> InputError:
    """Of what several tables say of a name that they lack, what tells one that may have been meant; otherwise the last."""
    return failure if isinstance(failure, UnknownName) and failure.near else other


class OutputError(H5datError):
    """An output that cannot be written: a folder, no permission, no space, or not an H5DAT file."""


class FormatError(H5datError):
    """An HDF5 file that is not an H5DAT file, or one of a layout version this library does not know."""


class MemberError(H5datError):
    """One member that cannot be converted.

    ``stage`` says where on the path it failed: ``plan``, ``read``, ``convert`` or ``stage``.
    """

    def __init__(self, reason: str, stage: str = "convert") -> None:
        super().__init__(reason)
        self.reason = reason
        self.stage = stage


class Unavailable(H5datError):
    """A server that is needed does not answer now, or not as it should; the same again may work."""


class BudgetExceeded(H5datError):
    """More members were rejected than ``max_rejects`` allows; what was committed stays."""


class Interrupted(H5datError):
    """The user stopped the run; what was committed stays, and the same command goes on from there."""
