"""An output in S3, grown by a hundredth: what of it travels, and how long that takes, on SeaweedFS on this machine."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from h5dat_lib.storage import LocalSource
from h5dat_lib.sync.digests import digests_of
from tests.benchmarks import data
from tests.benchmarks.figures import Figure, Goal, Setup, number
from tests.benchmarks.programs import run
from tests.servers import SeaweedFS, boto, credentials

_PHOTOS, _DOCUMENTS = 560, 5_000
"""Of 2 GB of output."""

Found = dict[str, Any]


def sync(setup: Setup) -> Iterator[Figure]:
    """The first sync of an output of 2 GB; that after a hundredth of it was added; one of which nothing has changed."""
    if shutil.which("weed") is None:
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
    grown = _ingested(_archives(setup, setup.scale / 100))
    path = Path(grown["path"])
    added = path.stat().st_size - first["size"]
    share = 100 * grown["synced"]["sent"] / path.stat().st_size
    detail = f"{number(added / 1e6)} MB added to {number(first['size'] / 1e6)} MB, {number(grown['synced']['sent'] / 1e6)} MB sent"
    yield Figure("sync, after a hundredth was added", share, "% of its bytes sent", Goal(most=2), detail)
    yield _rate("after a hundredth was added", grown)
    begun = time.perf_counter()
    whole = digests_of(LocalSource(str(path)))
    yield Figure("sync, digests of the whole file", time.perf_counter() - begun, "s")
    begun = time.perf_counter()
    digests_of(LocalSource(str(path)), whole, set(range(added >> 20)))
    yield Figure("sync, digests of what was added", time.perf_counter() - begun, "s")
    again = _ingested(_archives(setup, setup.scale / 100))
    yield _rate("nothing changed", again)


def _archives(setup: Setup, scale: float) -> list[Path]:
    return [data.photos(setup.folder, max(round(_PHOTOS * scale), 1)), data.documents(setup.folder, max(round(_DOCUMENTS * scale), 1))]


def _ingested(archives: list[Path]) -> Found:
    """The report of an ingest, with the size of the output in bytes."""
    words = ("-m", "flows.cli", "ingest", *archives, "-o", "s3://outputs/output.h5", "--direct", "--json")
    found: Found = json.loads(run(*words).stdout)
    return found | {"size": Path(found["path"]).stat().st_size}


def _rate(name: str, found: Found) -> Figure:
    took = found["synced"]
    detail = f"{number(took['sent'] / 1e6)} MB sent, {number(took['copied'] / 1e6)} MB copied in the store, {took['requests']} requests"
    return Figure(f"sync, {name}", took["seconds"], "s", None, detail)
