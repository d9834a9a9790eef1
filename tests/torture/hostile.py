"""Hostile archives, members and outputs, by mutation: each is read or refused, and nothing else happens."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from tests.fuzz.running import Share, fuzz
from tests.torture.figures import Figures


def hostile(name: str, seed: int, seconds: float) -> Figures:
    """Reads inputs of a target of `tests.fuzz` for so long."""
    figures = Figures()
    with TemporaryDirectory() as folder:
        result = fuzz(name, Share(str(seed), 1 << 40, seconds, Path(folder)))
    figures.counts["hostile inputs tried"] += result.inputs
    figures.counts["... that were refused"] += result.refused
    if result.faults:
        figures.violate(f"{name}, seed {seed}: {dict(result.findings)}; `python -m tests.fuzz {name} --seed {seed}` keeps the inputs")
    return figures
