"""What the tests with bad decoders share: members that kill, an environment in which they do, and what must become of them."""

from __future__ import annotations

import os
from pathlib import Path

import h5dat_lib

ROOT = Path(__file__).parents[2]
REASONS = {
    "segv": "crashed: the decoder died of SIGSEGV",
    "abort": "crashed: the decoder died of SIGABRT",
    "exit": "crashed: the decoder called exit(3)",
    "exit0": "crashed: the decoder called exit(0)",
    "sysexit": "crashed: the decoder called exit",
    "kill": "out of memory: the worker was killed (signal 9)",
    "term": "crashed: the decoder died of SIGTERM",
    "bloat": "out of memory: found more than 256 MiB needed",
    "hang": "timed out: found more than 3 s in the decoder",
}
"""What a member of `sitecustomize` is rejected for."""


def poisoned() -> dict[str, str]:
    """What makes decoders kill, in the environment of a command."""
    return {"PYTHONPATH": os.pathsep.join((str(Path(__file__).parent), str(ROOT)))}


def texts(*names: str) -> dict[str, bytes]:
    """Members by their names, of which those of `REASONS` kill."""
    return {f"{name}.txt": f"text of {name}".encode() for name in names}


def assert_only_killers_are_rejected(output: Path, names: list[str]) -> None:
    """Every member is one row or, if it kills, one reject with its reason, in archive order."""
    killers = [name for name in names if name.partition("-")[0] in REASONS]
    with h5dat_lib.open(output) as file:
        assert [(reject.member, reject.reason) for reject in file.rejects()] == [
            (f"{name}.txt", REASONS[name.partition("-")[0]]) for name in killers
        ]
        found = [text.removeprefix("text of ") for text in file["texts"].text[:]] if "texts" in file.classes else []
        assert found == [name for name in names if name not in killers]
    assert not h5dat_lib.verify(output).mismatches
