"""A requirement in, the installed packages that it does not need out, one a line: what an image is better without.

`python unneeded.py 'h5dat[aws]'` follows what packages say of themselves, with the extras that are asked for. requirements.lock has what
is needed to work on h5dat, too; the image takes it whole, so that each hash is checked, and then leaves that behind.
"""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError, distributions, requires

from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name

Needed = dict[NormalizedName, set[str]]
"""Packages, with the extras of each that were followed already; "" stands for none."""


def follow(requirement: Requirement, needed: Needed) -> None:
    """Notes a requirement, and what it requires in turn on this machine; what is not installed is passed over."""
    name = canonicalize_name(requirement.name)
    new = {"", *requirement.extras} - needed.setdefault(name, set())
    needed[name] |= new
    if not new:
        return
    try:
        found = map(Requirement, requires(name) or [])
    except PackageNotFoundError:
        return
    for each in found:
        if not each.marker or any(each.marker.evaluate({"extra": extra}) for extra in new):
            follow(each, needed)


def unneeded(wanted: str) -> list[str]:
    """Names of installed packages, sorted."""
    needed: Needed = {}
    follow(Requirement(wanted), needed)
    return sorted({canonicalize_name(each.name) for each in distributions()} - set(needed))


if __name__ == "__main__":
    sys.stdout.write("".join(f"{name}\n" for name in unneeded(sys.argv[1])))
