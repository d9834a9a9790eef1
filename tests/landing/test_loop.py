"""The loop: whatever a queue does (twice, late, out of order, nonsense), each archive goes in once, and every message is answered for."""

from __future__ import annotations

import gc
import json
import os
import signal
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import pytest

from h5dat_lib.config import S3Options
from h5dat_lib.errors import BudgetExceeded, InputError, Interrupted, OutputError, Unavailable
from h5dat_lib.landing import loop as landing
from h5dat_lib.landing.deliveries import Deliveries, FromListing, FromQueue, Outcome
from h5dat_lib.landing.landed import Landed
from h5dat_lib.landing.loop import Landing
from h5dat_lib.landing.rules import Goal, Rules
from h5dat_lib.landing.seen import Seen
from h5dat_lib.storage import aws
from h5dat_lib.storage.queue import Queue
from tests.conftest import Bucket
from tests.landing.test_rules import rules
from tests.servers import boto

HDF5 = b"\x89HDF\r\n\x1a\n" + bytes(100)


@dataclass
class Ledger:
    """Stands for outputs: what came in, and in how many runs; an archive that is in is known, as it is to a real output."""

    inside: list[str] = field(default_factory=list)
    runs: list[list[str]] = field(default_factory=list)
    trouble: Callable[[str], Exception | None] = lambda archive: None
    """What is wrong with an archive."""

    def __call__(self, goal: Goal, some: Sequence[Landed]) -> Outcome:
        names = [landed.archive for landed in some]
        self.runs.append(names)
        for name in names:
            if found := self.trouble(name):
                raise found
        new = [name for name in names if f"{goal.output}<{name}" not in self.inside]
        self.inside += [f"{goal.output}<{name}" for name in new]
        return Outcome("ingested" if new else "known")

    def came_in(self) -> list[str]:
        return [entry.rpartition("/")[2] for entry in self.inside]


@dataclass
class Place:
    """A bucket, a queue with a dead-letter queue, and the service that has not been started."""

    bucket: Bucket
    sqs: Any
    url: str
    grave: str
    ledger: Ledger
    landing: Landing
    said: list[str]

    def tell(self, name: str, /, **other: Any) -> None:
        """Sends the message that S3 would send of an object; ``other`` are keys of its `object`."""
        found = {"key": quote_plus(name), "size": 1, "eTag": "e", **other}
        record = {"eventVersion": "2.1", "eventName": "ObjectCreated:Put", "s3": {"bucket": {"name": self.bucket.name}, "object": found}}
        self.send(json.dumps({"Records": [record]}))

    def send(self, body: str) -> None:
        self.sqs.send_message(QueueUrl=self.url, MessageBody=body)

    def land(self, key: str, body: bytes = b"archive") -> None:
        self.bucket.put(key, body)
        self.tell(key)

    def run(self, rounds: int = 1) -> None:
        for _ in range(rounds):
            self.landing._round(self.landing.sources[0])

    def left(self) -> int:
        """Messages in the queue, seen or not."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible", "ApproximateNumberOfMessagesDelayed"]
        return sum(map(int, self.sqs.get_queue_attributes(QueueUrl=self.url, AttributeNames=names)["Attributes"].values()))

    def buried(self) -> list[tuple[str, str]]:
        """Bodies and reasons in the dead-letter queue."""
        found = []
        while more := self.sqs.receive_message(QueueUrl=self.grave, MaxNumberOfMessages=10, MessageAttributeNames=["All"]).get("Messages"):
            found += [(each["Body"], each["MessageAttributes"]["h5dat-reason"]["StringValue"]) for each in more]
        return found


def place(bucket: Bucket, moto: str, monkeypatch: pytest.MonkeyPatch, most: int = 5) -> Place:
    monkeypatch.setenv("AWS_ENDPOINT_URL_SQS", moto)
    aws.use(S3Options())
    aws.client.cache_clear()
    monkeypatch.setattr("h5dat_lib.landing.deliveries._WAIT_SECONDS", 0)
    sqs, name = boto("sqs", moto), f"landing-{uuid.uuid4().hex[:12]}"
    grave = sqs.create_queue(QueueName=f"{name}-dead")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=grave, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    policy = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": most})
    url = sqs.create_queue(QueueName=name, Attributes={"RedrivePolicy": policy})["QueueUrl"]
    ledger, said = Ledger(), list[str]()
    found = rules({"bucket": bucket.name, "pattern": "**/*.zip", "output": f"s3://{bucket.name}/out/all.h5"}, ignore=["**/_*"])
    return Place(bucket, sqs, url, grave, ledger, Landing(found, [FromQueue(Queue(url))], ledger, said.append), said)


@pytest.fixture
def here(quick_bucket: Bucket, moto: str, monkeypatch: pytest.MonkeyPatch) -> Place:
    """On the double, which is quick."""
    return place(quick_bucket, moto, monkeypatch)


@pytest.fixture
def real(bucket: Bucket, moto: str, monkeypatch: pytest.MonkeyPatch) -> Place:
    """Objects on the real server, messages in the double's queue."""
    return place(bucket, moto, monkeypatch)


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Landing, "_pause", lambda self, seconds: None)


def test_what_lands_goes_in_once_however_often_and_by_whatever_way_it_is_told(real: Place) -> None:
    keys = ["in/a.zip", "in/b c+d.zip", "in/é&?.zip", "c%2Bd.zip"]
    for key in keys:
        real.land(key)
        real.tell(key)
    etag = real.bucket.client.head_object(Bucket=real.bucket.name, Key=keys[1])["ETag"]
    detail = {"bucket": {"name": real.bucket.name}, "object": {"key": keys[1], "size": 7, "etag": etag.strip('"')}}
    bridge = json.dumps({"detail-type": "Object Created", "source": "aws.s3", "detail": detail})
    real.send(bridge)
    real.send(json.dumps({"Type": "Notification", "Message": bridge}))
    real.run(2)
    for key in keys:
        real.tell(key)
    real.run(2)
    assert sorted(real.ledger.inside) == sorted(f"s3://{real.bucket.name}/out/all.h5<s3://{real.bucket.name}/{key}" for key in keys)
    assert len(real.ledger.runs[0]) == 4, "archives of one output go into it together"
    assert real.left() == 0 and real.buried() == []


def test_a_key_that_was_not_encoded_is_tried_as_it_is(real: Place) -> None:
    real.bucket.put("a+b.zip", b"archive")
    real.tell("x", key="a+b.zip")
    real.run()
    assert real.ledger.came_in() == ["a+b.zip"] and real.left() == 0


def test_what_was_deleted_before_it_could_be_read_is_gone_and_what_was_replaced_goes_in_as_it_is(real: Place) -> None:
    real.land("gone.zip")
    real.bucket.client.delete_object(Bucket=real.bucket.name, Key="gone.zip")
    real.land("a.zip", b"old")
    real.land("a.zip", b"new")
    real.run()
    assert real.ledger.came_in() == ["a.zip"]
    assert real.left() == 0 and real.landing.counts == {"gone": 1, "ingested": 2}
    assert any("gone.zip: gone: it was deleted before it could be read" in line for line in real.said)


def test_versions_go_in_each_in_the_order_in_which_they_landed(here: Place) -> None:
    name = here.bucket.name
    here.bucket.client.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    versions = [here.bucket.client.put_object(Bucket=name, Key="a.zip", Body=body)["VersionId"] for body in (b"1", b"2", b"3")]
    for number in (2, 0, 1, 2):
        here.tell("a.zip", versionId=versions[number], sequencer=f"00{number}A")
    here.bucket.client.delete_object(Bucket=name, Key="a.zip")  # a marker: the versions are still there
    here.run()
    assert here.ledger.came_in() == [f"a.zip?versionId={version}" for version in versions]
    assert here.left() == 0


def test_what_is_no_archive_of_ours_is_left_out_and_answered_for(real: Place) -> None:
    real.bucket.put("folder/", b"")
    real.tell("folder/")
    real.land("out/all.h5", HDF5)
    real.land("hidden.zip", HDF5)
    real.land("_part.zip")
    real.land("notes.txt")
    real.send(json.dumps({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": real.bucket.name}))
    real.run()
    assert real.ledger.runs == [] and real.left() == 0 and real.landing.counts == {"left out": 6}
    told = "\n".join(real.said)
    for why in ("a folder's own entry", "an output of these rules", "an HDF5 file, no archive", "ignored", "of no rule", "nothing landed"):
        assert f"left out: {why}" in told


def test_nonsense_ends_in_the_dead_letter_queue_with_its_reason_and_holds_nothing_up(here: Place) -> None:
    here.send("nonsense")
    here.land("a.zip")
    here.run()
    [(body, reason)] = here.buried()
    assert body == "nonsense" and reason.startswith("message: found 'nonsense', expected an event notification of S3")
    assert here.ledger.came_in() == ["a.zip"] and here.left() == 0


@pytest.mark.parametrize("error", [InputError("bad.zip: found the end of the file"), BudgetExceeded("too many"), ValueError("a fault")])
def test_of_many_archives_the_bad_one_is_found_and_all_others_go_in(here: Place, error: Exception) -> None:
    here.ledger.trouble = lambda archive: error if "bad" in archive else None
    for number in range(20):
        here.land("bad.zip" if number == 13 else f"{number:02}.zip")
    here.run()
    assert sorted(here.ledger.came_in()) == [f"{number:02}.zip" for number in range(20) if number != 13]
    assert len(here.ledger.runs) <= 11
    if isinstance(error, ValueError):
        assert here.left() == 1 and any("failed: ValueError: a fault" in line for line in here.said)
    else:
        [(_, reason)] = here.buried()
        assert reason == str(error) and here.left() == 0


def test_a_message_with_a_good_and_a_bad_archive_is_buried_whole_and_the_good_one_is_in(here: Place) -> None:
    here.ledger.trouble = lambda archive: InputError("no archive") if "bad" in archive else None
    here.bucket.put("a.zip", b"a")
    here.bucket.put("bad.zip", b"b")
    records = [
        {"eventVersion": "2.1", "eventName": "ObjectCreated:Put", "s3": {"bucket": {"name": here.bucket.name}, "object": {"key": key}}}
        for key in ("a.zip", "bad.zip")
    ]
    here.send(json.dumps({"Records": records}))
    here.run()
    assert here.ledger.came_in() == ["a.zip"] and len(here.buried()) == 1 and here.left() == 0


def test_what_is_wrong_with_the_output_is_no_archives_fault(here: Place) -> None:
    here.ledger.trouble = lambda archive: OutputError("all.h5: was made with another configuration")
    here.land("a.zip")
    here.land("b.zip")
    here.run()
    assert len(here.ledger.runs) == 1 and here.left() == 2 and here.buried() == []
    assert here.landing.counts == {"failed": 2}
    assert here.sqs.receive_message(QueueUrl=here.url).get("Messages") is None, "it comes again after a while, not at once"


def test_a_failure_at_the_last_receipt_is_buried_with_its_reason(quick_bucket: Bucket, moto: str, monkeypatch: pytest.MonkeyPatch) -> None:
    here = place(quick_bucket, moto, monkeypatch, most=1)
    here.ledger.trouble = lambda archive: OutputError("all.h5: the disk is full")
    here.land("a.zip")
    here.run()
    assert [reason for _, reason in here.buried()] == ["all.h5: the disk is full"] and here.left() == 0


def test_without_a_dead_letter_queue_a_bad_message_is_left_and_comes_back_seldom(here: Place) -> None:
    here.sqs.set_queue_attributes(QueueUrl=here.url, Attributes={"RedrivePolicy": ""})
    here.send("nonsense")
    here.run(2)
    assert here.left() == 1 and len(here.said) == 1 and here.buried() == []


@pytest.mark.usefixtures("no_pauses")
def test_while_a_server_is_away_deliveries_are_kept_and_tried_again(here: Place) -> None:
    away = [Unavailable("Prefect: found no answer"), Unavailable("Prefect: found no answer"), None]
    here.ledger.trouble = lambda archive: away.pop(0)
    here.land("a.zip")
    here.run()
    assert here.ledger.came_in() == ["a.zip"] and here.left() == 0 and here.landing.counts == {"ingested": 1}
    assert len([line for line in here.said if "found no answer" in line]) == 1, "the same trouble is told once"


def test_patience_ends_and_the_message_is_given_back(here: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(landing, "_PATIENCE", 0.5)
    here.ledger.trouble = lambda archive: Unavailable("Prefect: found no answer")
    here.land("a.zip")
    here.run()
    assert here.left() == 1 and here.landing.counts == {"failed": 1}


@pytest.mark.usefixtures("no_pauses")
def test_a_store_that_is_away_is_asked_once_a_try_and_nothing_is_lost(here: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, asked = landing._look, []

    def look(landed: Landed) -> Any:
        asked.append(landed.key)
        if len(asked) <= 3:
            aws.use(S3Options(endpoint="http://127.0.0.1:9", attempts=1))
        return plain(landed)

    monkeypatch.setattr(landing, "_look", look)
    for key in ("a.zip", "b.zip", "c.zip"):
        here.land(key)
    here.run()
    assert sorted(here.ledger.came_in()) == ["a.zip", "b.zip", "c.zip"] and here.left() == 0
    assert len(asked) == 6, "three times the first one, then all"


def test_a_source_that_goes_away_is_waited_for_and_one_that_never_was_there_ends_the_service(
    here: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(Landing, "_pause", lambda self, seconds: pauses.append(seconds))
    missing = replace(here.landing, sources=[FromQueue(Queue(f"{here.url}-none"))])
    with pytest.raises(InputError, match="expected a queue"):
        missing.run()
    here.run()
    here.sqs.delete_queue(QueueUrl=here.url)
    here.run(4)
    assert pauses == [1, 2, 4, 8] and len(here.said) == 1


def test_when_it_is_asked_to_stop_while_it_waits_it_stops_at_once(here: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("h5dat_lib.landing.deliveries._WAIT_SECONDS", 20)
    handler = signal.signal(signal.SIGALRM, lambda number, frame: os.kill(os.getpid(), signal.SIGTERM))
    before = signal.getsignal(signal.SIGTERM)
    signal.setitimer(signal.ITIMER_REAL, 1.0)
    started = time.monotonic()
    gc.disable()  # a callback of a collection, such as hypothesis has, would swallow what the signal raises in it
    here.landing.run()
    gc.enable()
    signal.signal(signal.SIGALRM, handler)
    assert time.monotonic() - started < 10 and signal.getsignal(signal.SIGTERM) is before
    assert here.said == ["stopped; what was not done yet stays where it came from"]


@pytest.mark.parametrize("by", ["the run", "the loop"])
def test_when_it_is_asked_to_stop_in_the_middle_what_is_done_is_answered_for_and_the_rest_given_back(here: Place, by: str) -> None:
    def stopping(archive: str) -> Exception | None:
        if by == "the loop":
            here.landing.stop.ask()
        return Interrupted("stopped") if by == "the run" else None

    here.ledger.trouble = stopping
    here.landing.rules = Rules.model_validate({"rules": [
        {"name": key, "bucket": here.bucket.name, "pattern": f"{key}.zip", "output": f"{key}.h5"} for key in "ab"]})  # fmt: skip
    here.land("a.zip")
    here.land("b.zip")
    here.landing.run()
    assert here.left() == (1 if by == "the loop" else 2)
    assert len(here.sqs.receive_message(QueueUrl=here.url, MaxNumberOfMessages=10)["Messages"]) == here.left(), "others get it at once"


def test_the_heartbeat_is_touched_each_round_and_while_a_run_goes_on(here: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(landing, "_BEAT_SECONDS", 0.05)
    here.landing.heartbeat = tmp_path / "alive"
    here.run()
    first = here.landing.heartbeat.stat().st_mtime_ns
    touched: list[int] = []

    def slow(archive: str) -> None:
        time.sleep(0.3)
        touched.append((tmp_path / "alive").stat().st_mtime_ns)

    here.ledger.trouble = slow
    here.land("a.zip")
    here.run()
    assert touched[0] > first


def test_a_prefix_is_watched_without_a_queue_and_a_restart_does_nothing_new(real: Place, tmp_path: Path) -> None:
    for key in ("in/a.zip", "in/b.zip", "in/notes.txt"):
        real.bucket.put(key, b"archive")

    def listing() -> Deliveries:
        return FromListing(real.bucket.name, "in/", 30, real.landing.rules, Seen(tmp_path / "seen.sqlite"))

    real.landing.sources = [listing()]
    real.run()
    assert sorted(real.ledger.came_in()) == ["a.zip", "b.zip"]
    real.bucket.put("in/a.zip", b"another archive")
    real.bucket.put("in/bad.zip", b"half an arch")
    real.ledger.trouble = lambda archive: InputError("half") if "bad" in archive else None
    real.landing.sources = [listing()]
    aws.requests.clear()
    real.run()
    assert real.ledger.runs[-1] == [f"s3://{real.bucket.name}/in/bad.zip"] and real.landing.counts["refused"] == 1
    assert (aws.requests["ListObjectsV2"], aws.requests["GetObject"]) == (1, 2), "what was seen is not looked at again"
    runs = len(real.ledger.runs)
    real.landing.sources = [listing()]
    real.run()
    assert len(real.ledger.runs) == runs, "a bad archive is not tried again until it is replaced"
