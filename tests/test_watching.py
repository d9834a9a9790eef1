"""A watcher that is killed at any step, and started again: every archive that landed is in, once, and the queue is empty."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

import h5dat_lib
from tests.conftest import Bucket
from tests.dying_watcher import STEPS, directly
from tests.landing.test_loop import Place, place
from tests.storage.test_queue import redrive

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")


def archive(name: str, rows: int = 3) -> bytes:
    """A zip of texts that say whose they are."""
    out = BytesIO()
    with zipfile.ZipFile(out, "w") as opened:
        for row in range(rows):
            opened.writestr(f"{row}.txt", f"{name} {row}")
    return out.getvalue()


@dataclass
class Watchers:
    """The program that starts watchers which die."""

    process: subprocess.Popen[str]

    def watch(self, step: str, here: Place, via: str = "") -> int:
        environment = {name: value for name, value in os.environ.items() if name.startswith(("AWS_", "H5DAT_"))}
        rules = here.landing.rules.model_dump(mode="json", by_alias=True)
        order = {"step": step, "queue": here.url, "rules": rules, "via": via, "environment": environment}
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())


def watchers(*modules: str, **environment: str) -> Iterator[Watchers]:
    """The program, with these modules imported."""
    command = [sys.executable, "-m", "tests.dying_watcher", *modules]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=os.environ | environment)
    assert process.stdin and process.stdout
    yield Watchers(process)
    process.stdin.close()
    process.wait()
    process.stdout.close()


@pytest.fixture(scope="module")
def dying() -> Iterator[Watchers]:
    yield from watchers()


def into(here: Place, output: Path | str, **settings: Any) -> None:
    """Makes the rules lead to an output, and what was received by a watcher that died come again after a second."""
    [rule] = here.landing.rules.rules
    made = {
        "name": "all",
        "bucket": rule.bucket,
        "pattern": rule.pattern,
        "output": str(output),
        "config": {"task_runner": "threads", **settings},
    }
    here.landing.rules = type(here.landing.rules).model_validate({"rules": [made]})
    here.sqs.set_queue_attributes(QueueUrl=here.url, Attributes={"VisibilityTimeout": "1", "RedrivePolicy": ""})


def synced_texts(bucket: Bucket, key: str, folder: Path) -> list[str]:
    """The texts in an object that is an output."""
    (folder / "copy.h5").write_bytes(bucket.get(key))
    return texts(folder / "copy.h5")


def texts(output: Path | str) -> list[str]:
    with h5dat_lib.open(output) as file:
        return sorted(file["texts"]["text"][:])


def test_watchers_that_are_killed_at_each_step_lose_nothing_and_double_nothing(
    real: Place, tmp_path: Path, dying: Watchers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("H5DAT_HOME", str(tmp_path / "home"))
    into(real, real.bucket.uri("out/all.h5"))
    steps = [step for step, (module, *_) in STEPS.items() if module.startswith("h5dat_lib")]
    for step in steps:
        for copy in "ab":
            real.land(f"{step} {copy}.zip", archive(f"{step} {copy}"))
        assert dying.watch(step, real) == -9, step
    assert dying.watch("", real) == 0
    assert synced_texts(real.bucket, "out/all.h5", tmp_path) == sorted(
        f"{step} {copy} {row}" for step in steps for copy in "ab" for row in range(3)
    )
    assert real.left() == 0


def test_half_an_archive_is_refused_and_half_a_tar_gives_what_is_whole_of_it(real: Place, tmp_path: Path) -> None:
    into(real, tmp_path / "out.h5")
    real.sqs.set_queue_attributes(QueueUrl=real.url, Attributes={"RedrivePolicy": redrive(real.sqs, real.grave)})
    real.landing.ingest = directly
    whole = archive("whole")
    real.land("whole.zip", whole)
    real.land("half.zip", archive("half")[: len(whole) // 2])
    real.land("empty.zip", b"")
    real.run()
    assert sorted(reason.rpartition("/")[2].partition(":")[0] for _, reason in real.buried()) == ["empty.zip", "half.zip"]
    assert texts(tmp_path / "out.h5") == [f"whole {row}" for row in range(3)]
    assert real.left() == 0


def test_a_replaced_archive_that_is_told_of_late_comes_in_as_it_is_now(real: Place, tmp_path: Path) -> None:
    into(real, tmp_path / "out.h5")
    real.landing.ingest = directly
    real.land("a.zip", archive("old"))
    real.land("a.zip", archive("new"))
    real.run()
    real.tell("a.zip", eTag="of the old one", sequencer="0001")
    real.run()
    assert texts(tmp_path / "out.h5") == [f"new {row}" for row in range(3)]
    assert real.landing.counts == {"ingested": 2, "known": 1}


@pytest.fixture
def real(bucket: Bucket, moto: str, monkeypatch: pytest.MonkeyPatch) -> Place:
    return place(bucket, moto, monkeypatch)
