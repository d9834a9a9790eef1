"""An output in S3, grown by a hundredth: what of it travels, and how long that takes, on SeaweedFS on this machine."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from h5dat_lib.storage import LocalSource
from h5dat_lib.sync.digests import Digests, digests_of
from h5dat_lib.sync.parts import parts_of
from tests.benchmarks import data
from tests.benchmarks.figures import Figure, Goal, Setup, number
from tests.benchmarks.programs import run
from tests.servers import PROGRAM, SeaweedFS, boto, credentials

_PHOTOS, _DOCUMENTS = 560, 5_000
"""Of 2 GB of output."""

Found = dict[str, Any]


def sync(setup: Setup) -> Iterator[Figure]:
    """The first sync of an output of 2 GB; that after a hundredth of it was added; one of which nothing has changed."""
    if not PROGRAM.exists():
        return
    folder = Path(tempfile.mkdtemp(prefix="sync-", dir=setup.folder))
    server = SeaweedFS.prepared(folder / "seaweed")
    server.start()
    try:
        os.environ.update(credentials(server.endpoint) | {"H5DAT_HOME": str(folder / "home")})
        boto("s3", server.endpoint).create_bucket(Bucket="outputs")
        yield from _measured(setup)
    finally:
        server.kill()
        shutil.rmtree(folder)


def _measured(setup: Setup) -> Iterator[Figure]:
    first = _ingested(_archives(setup, setup.scale))
    yield _rate("first", first)
    source = LocalSource(first["path"])
    seconds, before = _timed(lambda: digests_of(source))
    yield Figure("sync, digests of the whole file", seconds, "s", None, f"{number(before.size / seconds / 1e6)} MB/s")
    grown = _ingested(_archives(setup, setup.scale / 100))
    yield from _shares(grown, before)
    yield _rate("after a hundredth was added", grown)
    seconds, _ = _timed(lambda: digests_of(LocalSource(grown["path"]), before, set(range(20))))
    yield Figure("sync, digests of what may have changed", seconds, "s")
    yield _rate("nothing changed", _ingested(_archives(setup, setup.scale / 100)))


def _shares(grown: Found, before: Digests) -> Iterator[Figure]:
    """What was sent, with and without the parts for those places of the old file where columns and metadata go on."""
    after = digests_of(LocalSource(grown["path"]))
    sent = [part for part in parts_of(after, before) if not part.copied]
    edges = [part.size for part in sent if part.start < before.size]
    total, size = grown["synced"]["sent"], after.size
    detail = f"{number((size - before.size) / 1e6)} MB added to {number(before.size / 1e6)} MB"
    yield Figure("sync, a hundredth added, sent", 100 * total / size, "% of the file", None, f"{number(total / 1e6)} MB; {detail}")
    aside = f"{number(sum(edges) / 1e6)} MB in {len(edges)} parts aside; {detail}"
    yield Figure("sync, a hundredth added, sent but for edges", 100 * (total - sum(edges)) / size, "% of the file", Goal(most=2), aside)


def _timed(step: Callable[[], Digests]) -> tuple[float, Digests]:
    begun = time.perf_counter()
    found = step()
    return time.perf_counter() - begun, found


def _archives(setup: Setup, scale: float) -> list[Path]:
    return [data.photos(setup.folder, max(round(_PHOTOS * scale), 1)), data.documents(setup.folder, max(round(_DOCUMENTS * scale), 1))]


def _ingested(archives: list[Path]) -> Found:
    """The report of an ingest."""
    words = ("-m", "flows.cli", "ingest", *archives, "-o", "s3://outputs/output.h5", "--direct", "--json")
    found: Found = json.loads(run(*words).stdout)
    return found


def _rate(name: str, found: Found) -> Figure:
    took = found["synced"]
    detail = f"{number(took['sent'] / 1e6)} MB sent, {number(took['copied'] / 1e6)} MB copied in the store, {took['requests']} requests"
    return Figure(f"sync, {name}", took["seconds"], "s", None, detail)
