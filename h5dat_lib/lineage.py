"""Where rows come from: the names of the lineage tables, and what is recorded of an archive and of a run."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import socket
import sys
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from h5dat_lib.columns import Block, Bytes, Column, References, Scalars

if TYPE_CHECKING:  # reading needs the names below, and must not pay for building the settings' models
    from h5dat_lib.config import Config

LINEAGE = "lineage"
ARCHIVES = "lineage/archives"
"""One row an archive of a run: uri, kind, size, sha256, fingerprint, config_digest."""
RUNS = "lineage/runs"
"""One row a run: run id, versions, host, configuration, start, end, status, counts."""
BATCHES = "lineage/batches"
"""One row a committed batch, by its key."""
MEMBERS = "lineage/members"
"""One row a converted member: path, key of its sample, size, checksums, converter, class, archive, batch, run, time."""
REJECTS = "lineage/rejects"
"""One row a member, or a record of one, that was not converted: path, stage, reason."""
CHECKSUMS = "lineage/checksums"
"""For each chunked dataset, one CRC-32 a chunk."""

_RECORDED = (
    "h5dat", "h5py", "numpy", "pillow", "simplejpeg", "opencv-python-headless", "isal", "pyarrow", "prefect",
    "av", "pillow-heif", "resvg_py", "astropy", "eccodes", "eccodeslib", "charset-normalizer",
)  # fmt: skip


def sample_key(path: str) -> str:
    """What members of one sample have in common: the path up to the first dot of the file name, as WebDataset has it.

    A path without such a dot, or with a name that starts with it, which WebDataset passes over, is its own key.
    """
    folder, slash, name = path.rpartition("/")
    return f"{folder}{slash}{name.partition('.')[0]}" if not name.startswith(".") else path


@cache
def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide what rows look like; one that is not installed is left out."""
    found = {"python": platform.python_version(), "platform": sys.platform}
    for name in _RECORDED:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


_COUNTS = ("members", "rows", "rejects", "duplicates", "bytes", "requests", "received")


@dataclass
class RunRecord:
    """One run: who made it, with what, when, and how it ended. Times are seconds since 1970, UTC."""

    run_id: str
    config: Config
    start: float
    end: float = 0.0
    status: str = "running"
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_COUNTS, 0))

    def block(self) -> Block:
        """The run as a row of the runs table."""
        texts = {
            "versions": json.dumps(versions()),
            "configuration": self.config.model_dump_json(by_alias=True),
            "host": socket.gethostname(),
        }
        columns: dict[str, Column] = {
            "run_id": Scalars([self.run_id.encode()], "S36"),
            "config_digest": Scalars([self.config.digest().encode()], "S64"),
            "start": Scalars([self.start], "<f8"),
            "end": Scalars([self.end], "<f8"),
            "status": Scalars([self.status.encode()], "S16"),
            **{name: Scalars([count], "<u8") for name, count in self.counts.items()},
            **{name: Bytes([text.encode()], "text") for name, text in texts.items()},
        }
        return Block(1, columns)

    def ending(self) -> dict[str, Any]:
        """What is known once the run has ended."""
        return {"end": self.end, "status": self.status.encode(), **self.counts}


@dataclass
class ArchiveRecord:
    """One archive of a run. ``sha256`` is that of all its bytes, known at the end; a folder has none.

    ``complete`` once all its members are in or rejected. ``retry_of`` is the row by which the archive came in first, for
    a run that converted its rejects again.
    """

    uri: str
    kind: str
    size: int
    fingerprint: str
    config_digest: str
    sha256: str = ""
    complete: bool = False
    retry_of: int | None = None

    def block(self) -> Block:
        """The archive as a row of the archives table."""
        columns: dict[str, Column] = {
            "uri": Bytes([self.uri.encode("utf-8", "backslashreplace")], "text"),
            "kind": Scalars([self.kind.encode()], "S8"),
            "size": Scalars([self.size], "<u8"),
            "sha256": Scalars([self.sha256.encode()], "S64"),
            "fingerprint": Scalars([self.fingerprint.encode()], "S64"),
            "config_digest": Scalars([self.config_digest.encode()], "S64"),
            "complete": Scalars([self.complete], "?"),
            "retry_of": Scalars([self.retry_of or 0], "<u8", np.array([self.retry_of is None])),
            "run": References([0], RUNS),
        }
        return Block(1, columns)

    def ending(self) -> dict[str, Any]:
        """What is known once the archive has been read."""
        return {"sha256": self.sha256.encode(), "size": self.size, "complete": self.complete}
