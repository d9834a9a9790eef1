"""A listing as a source: what is new comes once, over restarts too, whatever the order; what fails comes again later."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest

from h5dat_lib.landing import deliveries
from h5dat_lib.landing.deliveries import Delivery, FromListing, Outcome
from h5dat_lib.landing.landed import Landed
from h5dat_lib.landing.rules import Rules
from h5dat_lib.landing.seen import Seen
from h5dat_lib.storage import aws
from tests.conftest import Bucket
from tests.landing.test_rules import rules

ALL = rules({"pattern": "**/*.zip"})


def of(bucket: str, **rule: Any) -> Rules:
    return rules({"bucket": bucket, "pattern": "**/*.zip", **rule})


def listing(bucket: str, home: Path, found: Rules, prefix: str = "") -> FromListing:
    return FromListing(bucket, prefix, 30, found, Seen(home / "seen.sqlite"))


def test_each_object_comes_once_over_restarts_and_again_when_it_is_replaced(bucket: Bucket, tmp_path: Path) -> None:
    keys = ["a/b.zip", "a-b.zip", "a.zip", "a/c d+é.zip", "notes.txt"]  # the server lists a/b.zip before a-b.zip, AWS after it
    for key in keys:
        bucket.put(key, key.encode())
    source = listing(bucket.name, tmp_path, of(bucket.name))
    found = source.take()
    assert sorted(delivery.objects[0].key for delivery in found) == sorted(keys)
    for delivery in found:
        source.settle(delivery, Outcome("ingested"))
    assert listing(bucket.name, tmp_path, of(bucket.name)).take() == []
    bucket.put("a.zip", b"other")
    [again] = listing(bucket.name, tmp_path, of(bucket.name)).take()
    assert again.objects[0].key == "a.zip" and again.objects[0].size == 5


def test_what_was_not_answered_for_comes_again_after_a_restart(bucket: Bucket, tmp_path: Path) -> None:
    bucket.put("a.zip", b"a")
    assert len(listing(bucket.name, tmp_path, of(bucket.name)).take()) == 1
    assert len(listing(bucket.name, tmp_path, of(bucket.name)).take()) == 1


def test_other_rules_make_objects_new_that_get_another_output(bucket: Bucket, tmp_path: Path) -> None:
    bucket.put("a.zip", b"a")
    bucket.put("b.tar", b"b")
    first = listing(bucket.name, tmp_path, of(bucket.name))
    for delivery in first.take():
        first.settle(delivery, Outcome("ingested"))
    found = listing(bucket.name, tmp_path, of(bucket.name, pattern="*")).take()
    assert [delivery.objects[0].key for delivery in found] == ["b.tar"]


def test_only_what_lies_below_the_prefix_is_listed(bucket: Bucket, tmp_path: Path) -> None:
    bucket.put("in/a.zip", b"a")
    bucket.put("inner.zip", b"b")
    [delivery] = listing(bucket.name, tmp_path, of(bucket.name), "in/").take()
    assert delivery.objects[0].key == "in/a.zip"


def test_an_upload_in_parts_is_not_seen_before_it_is_complete(bucket: Bucket, tmp_path: Path) -> None:
    upload = bucket.client.create_multipart_upload(Bucket=bucket.name, Key="a.zip")["UploadId"]
    part = bucket.client.upload_part(Bucket=bucket.name, Key="a.zip", UploadId=upload, PartNumber=1, Body=b"part")
    source = listing(bucket.name, tmp_path, of(bucket.name))
    assert source.take() == []
    parts = {"Parts": [{"ETag": part["ETag"], "PartNumber": 1}]}
    bucket.client.complete_multipart_upload(Bucket=bucket.name, Key="a.zip", UploadId=upload, MultipartUpload=parts)
    assert len(listing(bucket.name, tmp_path, of(bucket.name)).take()) == 1


def test_what_failed_comes_again_after_a_while_that_grows(bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket.put("a.zip", b"a")
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    source = FromListing(bucket.name, "", 1, of(bucket.name), Seen(tmp_path / "seen.sqlite"))
    waited, found = [], source.take()
    for _ in range(3):
        source.settle(found[0], Outcome("failed", "the disk is full"))
        begin = now[0]
        while not (found := source.take()):
            now[0] += 1
        waited.append(now[0] - begin)
    assert waited == [30, 60, 120]


class Pages:
    """A store with very many keys, a thousand a page, in an order of its own."""

    def __init__(self, count: int) -> None:
        self.count, self.asked = count, 0

    def get_paginator(self, name: str) -> Pages:
        return self

    def paginate(self, **words: str) -> Any:
        for first in range(0, self.count, 1000):
            self.asked += 1
            yield {"Contents": [{"Key": f"{n * 7919 % self.count:06}.zip", "ETag": '"1"', "Size": 1} for n in range(first, first + 1000)]}


def test_many_keys_are_taken_page_by_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Pages(5000)
    monkeypatch.setattr(aws, "client", lambda service: store)
    source = listing("landing", tmp_path, ALL)
    assert len(source.take()) == deliveries._MOST and store.asked == 1
    keys, settled = set(), 0
    source = listing("landing", tmp_path, ALL)
    while found := source.take():
        for delivery in found[::50]:
            settled += source.settle(delivery, Outcome("ingested")).kind == "ingested"
        keys |= {delivery.objects[0].key for delivery in found}
        if len(keys) == 5000:
            break
    assert len(keys) == 5000 and settled == 100
    again = listing("landing", tmp_path, ALL)
    assert sum(len(again.take()) for _ in range(49)) == 4900


def test_a_delivery_ends_as_the_gravest_of_its_objects_do() -> None:
    delivery = Delivery(None, (Landed("b", "a"), Landed("b", "c")))
    assert delivery.outcome([Outcome("ingested"), Outcome("failed", "x", True)]) == Outcome("failed", "x", True)
    assert delivery.outcome([Outcome("refused", "x"), Outcome("ingested")]).kind == "refused"
    assert delivery.outcome([Outcome("left out"), Outcome("known")]).kind == "known"
    assert Delivery(None, ()).outcome([]).kind == "left out"
    assert Delivery(None, (), "no message").outcome([]) == Outcome("refused", "no message")
    assert Delivery(None, (), last=True).outcome([Outcome("failed", "x")]) == Outcome("refused", "x")
    assert Delivery(None, (), last=True).outcome([Outcome("failed", "x", True)]) == Outcome("failed", "x", True)


def test_rows_of_the_memory_say_what_came_of_each(bucket: Bucket, tmp_path: Path) -> None:
    bucket.put("a.zip", b"a")
    source = listing(bucket.name, tmp_path, of(bucket.name))
    [delivery] = source.take()
    source.settle(delivery, Outcome("refused", "no archive"))
    [row] = sqlite3.connect(tmp_path / "seen.sqlite").execute("SELECT key, outcome, reason FROM seen").fetchall()
    assert row == ("a.zip", "refused", "no archive")
