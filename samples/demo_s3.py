"""Archives land in a bucket and become an HDF5 object in another, on this machine alone: python samples/demo_s3.py FOLDER [--short]

Starts an S3 server, and the service that watches a bucket, with a Prefect server. Nothing leaves the machine, and all of it is stopped at
the end. --short ends after the first archive.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from h5dat_lib.storage import aws
from samples.local_s3 import SeaweedFS, credentials
from samples.make_archive import build

ROOT = Path(__file__).resolve().parents[1]
OUTPUT = "pictures.h5"
RULES = {"rules": [{"name": "pictures", "bucket": "landing", "pattern": "**/*.zip", "output": f"s3://archive/{OUTPUT}"}]}
NOISE = 4
"""Pictures that do not compress."""


def main(folder: Path, short: bool = False) -> None:
    folder.mkdir(parents=True)
    with s3_server(folder / "s3") as endpoint:
        for bucket in ("landing", "archive"):
            aws.client("s3").create_bucket(Bucket=bucket)
        print(f"S3 is at {endpoint}: the buckets landing and archive are empty")
        with watcher(folder) as lines:
            first = folder / "pictures.zip"
            members = build(first) + add_noise(first)
            print(f"put s3://landing/{first.name}, {members} members, {first.stat().st_size / 1e6:.1f} MB")
            land(first, lines)
            h5dat("ls", f"s3://archive/{OUTPUT}")
            if short:
                return
            second = folder / "more.zip"
            with zipfile.ZipFile(second, "w") as archive:
                archive.writestr("more/note.txt", "one text more")
            print(f"put s3://landing/{second.name}, one member: only what it changes in the object is sent")
            land(second, lines)
            h5dat("ls", f"s3://archive/{OUTPUT}")


def add_noise(archive: Path) -> int:
    """Adds pictures that do not compress to an archive, so that the output has parts that stay as they are; returns how many."""
    random = np.random.default_rng(0)
    with zipfile.ZipFile(archive, "a") as opened:
        for number in range(NOISE):
            with opened.open(f"noise/{number}.bmp", "w") as member:
                Image.fromarray(random.integers(0, 256, (1000, 2000, 3), dtype="u1")).save(member, "bmp")
    return NOISE


@contextmanager
def s3_server(folder: Path) -> Iterator[str]:
    server = SeaweedFS.prepared(folder)
    os.environ.update(credentials(server.endpoint))
    server.start()
    try:
        yield server.endpoint
    finally:
        server.kill()


@contextmanager
def watcher(folder: Path) -> Iterator[Iterator[str]]:
    """`h5dat watch`, and the lines in which it says what it does."""
    (folder / "rules.json").write_text(json.dumps(RULES, indent=2))
    os.environ.setdefault("H5DAT_HOME", str(folder / "home"))  # what it has seen and made is of this S3 server only
    words = ["watch", "--rules", folder / "rules.json", "--prefix", "s3://landing/", "--every", "2", "--via", "direct"]
    process = subprocess.Popen([sys.executable, "-m", "flows.cli", *map(str, words)], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    assert process.stderr
    lines = iter(process.stderr.readline, "")
    try:
        yield lines
    finally:
        process.send_signal(signal.SIGTERM)
        for line in lines:
            print(f"  {line}", end="")
        process.stderr.close()
        process.wait()


def land(archive: Path, lines: Iterator[str]) -> None:
    """Puts an archive into the bucket, and waits until the watcher has answered for it."""
    began = time.monotonic()
    with archive.open("rb") as body:
        aws.client("s3").put_object(Bucket="landing", Key=archive.name, Body=body)
    for line in lines:
        print(f"  {line}", end="", flush=True)
        if line.startswith(f"s3://landing/{archive.name}: "):
            break
    size = aws.client("s3").head_object(Bucket="archive", Key=OUTPUT)["ContentLength"]
    print(f"s3://archive/{OUTPUT} is there after {time.monotonic() - began:.1f} s, {size / 1e6:.1f} MB")


def h5dat(*words: str) -> None:
    print(f"$ h5dat {' '.join(words)}", flush=True)
    subprocess.run([sys.executable, "-m", "flows.cli", *words], cwd=ROOT, check=True)


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3) or sys.argv[2:] not in ([], ["--short"]):
        sys.exit(__doc__)
    main(Path(sys.argv[1]).resolve(), bool(sys.argv[2:]))
