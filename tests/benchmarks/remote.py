"""Archives in S3: what reading them costs in requests and bytes, on a real server, with some latency put before it.

Requests and bytes depend on the archive alone; seconds also on this machine, where the server has a part of it.
"""

from __future__ import annotations

import contextlib
import os
import random
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import h5dat_lib
from h5dat_lib.archive import open_archive
from h5dat_lib.config import Limits, S3Options, parse
from h5dat_lib.storage import aws, windows
from tests.benchmarks.figures import Figure, Goal, Setup
from tests.faulty_proxy import FaultyProxy
from tests.servers import SeaweedFS, boto, credentials

_MEMBERS = 177_000
_BUCKET = "benchmarks"
_LATENCY = 0.02
"""Seconds before every answer, as a store in the same region takes."""


def remote(setup: Setup) -> Iterator[Figure]:
    """A zip of 177 thousand members, ingested; the headers of tars of small and of large members, listed."""
    with _server() as endpoint:
        yield from _zip(setup, endpoint)
        with FaultyProxy(endpoint, latency=_LATENCY) as proxy:
            aws.use(S3Options(endpoint=proxy.endpoint))
            yield from _tars(setup, endpoint)
            aws.use(S3Options())


@contextlib.contextmanager
def _server() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        server = SeaweedFS.prepared(Path(folder) / "data")
        server.start()
        os.environ.update(credentials(server.endpoint))
        aws.client.cache_clear()
        try:
            boto("s3", server.endpoint).create_bucket(Bucket=_BUCKET)
            yield server.endpoint
        finally:
            server.kill()


def _put(setup: Setup, endpoint: str, name: str, make: Callable[[Path], None]) -> tuple[str, int]:
    """An archive, made once, as an object: its URI and bytes."""
    path = setup.folder / name
    if not path.exists():
        make(path)
    boto("s3", endpoint).upload_file(str(path), _BUCKET, name)
    return f"s3://{_BUCKET}/{name}", path.stat().st_size


def _zip(setup: Setup, endpoint: str) -> Iterator[Figure]:
    members = int(_MEMBERS * setup.scale)
    uri, size = _put(setup, endpoint, f"remote-{members}.zip", lambda path: _write_zip(path, members))
    output = setup.output("remote")
    report = h5dat_lib.ingest(uri, output, parse({"workers": 2}))
    output.unlink()
    detail = f"{members:,} members, {size / 1e6:,.0f} MB, {report.batches} batches, {report.seconds:.0f} s"
    yield Figure("remote, zip, requests", report.requests, "requests", Goal(most=2000), detail)
    yield Figure("remote, zip, bytes", report.received / size, "x its size", Goal(most=1.05), detail)


def _write_zip(path: Path, members: int) -> None:
    noise = random.Random(1)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for number in range(members):
            archive.writestr(f"{number // 1000:03}/{number:06}.txt", noise.randbytes(noise.randrange(400, 1600)).hex())


def _tars(setup: Setup, endpoint: str) -> Iterator[Figure]:
    """Listing by several ways of reading ahead: how far a header may lie behind the last read to be read up to."""
    for body, count in ((3_000, 10_000), (170_000, 600), (6_000_000, 20)):
        uri, size = _put(setup, endpoint, f"remote-{body}.tar", lambda path, body=body, count=count: _write_tar(path, body, count))  # type: ignore[misc]
        for near in (0, 256 << 10, 1 << 20, 4 << 20):
            yield _listed(uri, size, body, near)


def _listed(uri: str, size: int, body: int, near: int) -> Figure:
    before, chosen, windows._NEAR_BYTES = aws.traffic(), windows._NEAR_BYTES, near
    started = time.monotonic()
    count = sum(1 for _ in open_archive(uri, Limits()).members())
    seconds = time.monotonic() - started
    windows._NEAR_BYTES = chosen
    requests, received = aws.traffic(before)
    detail = f"{count} members, {requests} requests, {received / size:.2f} of {size / 1e6:.0f} MB"
    return Figure(f"remote, tar of {body:,} B, near {near >> 10} KiB", seconds, "s", None, detail)


def _write_tar(path: Path, body: int, count: int) -> None:
    data = random.Random(2).randbytes(body)
    with tarfile.open(path, "w") as archive:
        for number in range(count):
            info = tarfile.TarInfo(f"{number:05}.bin")
            info.size = body
            archive.addfile(info, BytesIO(data))
