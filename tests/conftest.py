"""What the tests share: archives made on the spot, and the command line run in this process."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
import uuid
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from PIL import Image

from h5dat_lib.config import Config, S3Options, parse
from h5dat_lib.storage import aws
from tests.faulty_proxy import FaultyProxy
from tests.servers import SeaweedFS, answering, boto, credentials, free_ports

settings.register_profile("counted", deadline=None)  # time is measured in benchmarks; a busy machine takes as long as it takes
settings.load_profile("counted")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take long begin first, so that no process is left with one at the end when several share the tests, a file each."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Bytes are no names: a gzip's begin with the time, and two processes that share the tests would not know each other's."""
    return argname if isinstance(val, bytes) else None


def picture(width: int = 8, height: int = 6, seed: int = 0, mode: str = "RGB", format: str = "PNG") -> bytes:
    """A small picture of noise, encoded by Pillow."""
    channels = {"L": (), "RGB": (3,), "RGBA": (4,)}[mode]
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, *channels), dtype="u1")
    out = io.BytesIO()
    Image.fromarray(pixels, mode).save(out, format)
    return out.getvalue()


def make_zip(path: Path, members: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    """A zip of these members, written by the standard library."""
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def make_tar(path: Path, members: Mapping[str, bytes], mode: str = "w:gz") -> Path:
    """A tar, by the standard library."""
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def make_folder(path: Path, members: Mapping[str, bytes]) -> Path:
    """A folder of files, with the folders within it that the names ask for."""
    path.mkdir(exist_ok=True)
    for name, data in members.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def config(**settings: object) -> Config:
    """A configuration that runs in threads, so that a test does not wait for processes to start."""
    return parse({"task_runner": "threads", "workers": 2, **settings})


@dataclass(frozen=True)
class Ran:
    """What a command did."""

    code: int
    out: str
    err: str


@pytest.fixture
def h5dat(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """Runs a command line in this process."""
    from flows.cli import main

    def run(*words: object) -> Ran:
        monkeypatch.setattr(sys, "argv", ["h5dat", *map(str, words)])
        code = 0
        try:
            main()
        except SystemExit as exc:
            code = int(exc.code or 0)
        captured = capfd.readouterr()
        return Ran(code, captured.out, captured.err)

    return run


@pytest.fixture
def threads(tmp_path: Path) -> Path:
    """A configuration file that runs in threads."""
    path = tmp_path / "threads.json"
    path.write_text('{"task_runner": "threads"}')
    return path


# S3 and AWS


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedFS]:
    """A real S3 server, one for the session."""
    if sys.platform != "linux":
        pytest.skip("the package of SeaweedFS has programs for Linux only")
    server = SeaweedFS.prepared(tmp_path_factory.mktemp("seaweed") / "data")
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="session")
def moto() -> Iterator[str]:
    """The endpoint of AWS's double: S3 with notifications, SQS, SNS, CloudFormation. Lenient, so never the only one asked.

    A process of its own: a thread here could wait for h5py's lock, whose holder waits for an answer of that thread.
    """
    [port] = free_ports(1)
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    answering(f"http://127.0.0.1:{port}", process)
    yield f"http://127.0.0.1:{port}"
    process.kill()
    process.wait()


@dataclass(frozen=True)
class Bucket:
    """A bucket of a test's own, and a client that nothing of ours counts."""

    name: str
    client: Any
    endpoint: str

    def uri(self, key: str = "") -> str:
        return f"s3://{self.name}/{key}"

    def put(self, key: str, body: bytes) -> str:
        """Puts an object; returns its URI."""
        self.client.put_object(Bucket=self.name, Key=key, Body=body)
        return self.uri(key)

    def get(self, key: str) -> bytes:
        data: bytes = self.client.get_object(Bucket=self.name, Key=key)["Body"].read()
        return data


def _bucket(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    for name, value in credentials(endpoint).items():
        monkeypatch.setenv(name, value)
    aws.use(S3Options())
    aws.client.cache_clear()
    aws.requests.clear()
    client, name = boto("s3", endpoint), f"test-{uuid.uuid4().hex[:12]}"
    client.create_bucket(Bucket=name)
    return Bucket(name, client, endpoint)


@pytest.fixture
def bucket(seaweed: SeaweedFS, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """A bucket on the real server; this process and those it starts find it."""
    return _bucket(seaweed.endpoint, monkeypatch)


@pytest.fixture
def quick_bucket(moto: str, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """A bucket of the double, for what needs queues or many quick requests."""
    return _bucket(moto, monkeypatch)


@pytest.fixture
def faulty(bucket: Bucket) -> Iterator[FaultyProxy]:
    """A proxy before the real server, which this process, and those that it starts, reach the server by; `bucket` itself goes past it."""
    with FaultyProxy(bucket.endpoint) as proxy, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        aws.client.cache_clear()
        yield proxy
    aws.client.cache_clear()
