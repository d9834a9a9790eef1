"""Messages of every kind and version -> what landed; whatever else is in a queue is told as that."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from h5dat_lib.errors import InputError
from h5dat_lib.landing.landed import Landed, in_order, objects_of
from tests.servers import boto

EVENTS = Path(__file__).parents[1] / "data" / "events"
FLOWER = Landed(
    "amzn-s3-demo-bucket", "landing/red flower & café.zip", "", "d41d8cd98f00b204e9800998ecf8427e", 1024, "0055AED6DCD90281E5",
    "landing/red+flower+%26+caf%C3%A9.zip",
)  # fmt: skip
BRIDGE = Landed(
    "amzn-s3-demo-bucket", "landing/red flower & café + 100%25.zip", "IYV3p45BT0ac8hjHg1houSdS1a.Mro8e",
    "b1946ac92492d2347c6235b4d2611184", 5, "617f08299329d189",
)  # fmt: skip


def of(landed: Landed, **other: Any) -> Landed:
    return Landed(**{**vars(landed), **other})


EXPECTED = {
    "s3-2.1-put": [FLOWER],
    "s3-2.1-put-versioned": [of(FLOWER, version="096fKKXTRTtl3on89fVO.nfljtsv6qko")],
    "s3-2.1-restored": [FLOWER],
    "s3-2.1-removed": [],
    "s3-2.2-replication": [],
    "s3-2.3-tagging": [],
    "s3-2.3-expired": [],
    "s3-2.4-multipart": [of(FLOWER, etag="4af981f98d22a0b9979da24b259e5e42-12")],
    "s3-2.5-copy": [FLOWER],
    "s3-2.6-post-two": [FLOWER, of(FLOWER, key="landing/b+c.tar.gz", raw_key="landing/b%2Bc.tar.gz")],
    "s3-test-event": [],
    "eventbridge-created": [BRIDGE],
    "eventbridge-created-1.1": [of(BRIDGE, version="")],
    "eventbridge-restored": [BRIDGE],
    "eventbridge-deleted": [],
    "sns-s3-2.1-put": [FLOWER],
    "sns-eventbridge-created": [BRIDGE],
    "sns-s3-test-event": [],
}


@pytest.mark.parametrize("name", [path.stem for path in sorted(EVENTS.iterdir())])
def test_a_message_of_the_documentation_gives_the_objects_it_tells_of(name: str) -> None:
    assert list(objects_of((EVENTS / f"{name}.json").read_text(encoding="utf-8"))) == EXPECTED[name]


@pytest.mark.parametrize("version", ["2.0", "2.1", "2.2", "2.3", "2.4", "2.5", "2.6", "2.99"])
def test_the_minor_version_does_not_matter(version: str) -> None:
    body = (EVENTS / "s3-2.1-put.json").read_text(encoding="utf-8").replace('"2.1"', f'"{version}"')
    assert objects_of(body) == (FLOWER,)


@pytest.mark.parametrize(
    "body",
    ["", "no JSON", "[]", "3", "null", "{}", '{"Records": 3}', '{"Records": [{}]}', '{"Type": "Notification"}', "[" * 100_000,
     '{"Type": "Notification", "Message": "text"}', '{"detail-type": "Object Created"}', '{"\x1b[2J": 1}',
     (EVENTS / "s3-2.1-put.json").read_text(encoding="utf-8").replace('"2.1"', '"3.0"')],
)  # fmt: skip
def test_what_is_no_message_of_s3_is_told_in_one_line(body: str) -> None:
    with pytest.raises(InputError, match=r"message: found .* expected an event notification of S3") as caught:
        objects_of(body)
    assert "\n" not in str(caught.value) and "\x1b" not in str(caught.value) and len(str(caught.value)) < 700


NAMES = st.sampled_from(
    ["Records", "s3", "object", "key", "bucket", "name", "Type", "Message", "detail", "detail-type", "source", "eventName", "eventVersion"]
)
VALUES = st.none() | st.integers() | st.sampled_from(["Notification", "Object Created", "aws.s3", "ObjectCreated:Put", "2.1", "%", "{}"])


@given(st.recursive(VALUES, lambda inner: st.lists(inner) | st.dictionaries(NAMES, inner), max_leaves=20))
def test_nothing_but_an_input_error_comes_of_any_json(message: Any) -> None:
    with suppress(InputError):
        assert all(isinstance(each, Landed) for each in objects_of(json.dumps(message)))


def test_objects_of_one_key_are_put_in_order_by_their_sequencers_and_others_stay_where_they_are() -> None:
    a, b = Landed("b", "a"), Landed("b", "b")
    late, early, middle = of(a, sequencer="0055AF"), of(a, sequencer="0055AE"), of(a, sequencer="0055AE01")
    assert in_order([late, b, middle, early]) == [early, middle, late, b]
    assert in_order([of(a, sequencer="00Ab"), of(a, sequencer="00aA")])[0].sequencer == "00aA"


def test_a_version_belongs_to_what_is_ingested_and_tells_messages_apart() -> None:
    assert of(FLOWER, version="v").archive == "s3://amzn-s3-demo-bucket/landing/red flower & café.zip?versionId=v"
    assert of(FLOWER, version="v").identity == of(FLOWER, version="v", etag="", sequencer="9").identity
    assert of(FLOWER, etag="other").identity != FLOWER.identity


@pytest.mark.parametrize("by_way_of", ["sqs", "sns", "eventbridge"])
def test_what_another_program_sends_is_understood(moto: str, by_way_of: str) -> None:
    """moto makes the messages, in the way that S3 does."""
    s3, sqs = boto("s3", moto), boto("sqs", moto)
    name = f"events-{by_way_of}"
    s3.create_bucket(Bucket=name)
    queue = sqs.create_queue(QueueName=name)["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    s3.put_bucket_notification_configuration(Bucket=name, NotificationConfiguration=_notified(moto, by_way_of, name, arn))
    key = "landing/a b+c&é.zip"
    s3.put_object(Bucket=name, Key=key, Body=b"12345")
    found = [each for message in _all(sqs, queue) for each in objects_of(message)]
    [landed] = found
    assert (landed.bucket, landed.key, landed.size, landed.version) == (name, key, 5, "")
    assert landed.etag == s3.head_object(Bucket=name, Key=key)["ETag"].strip('"')


def _notified(moto: str, by_way_of: str, name: str, arn: str) -> dict[str, Any]:
    if by_way_of == "sqs":
        return {"QueueConfigurations": [{"QueueArn": arn, "Events": ["s3:ObjectCreated:*"]}]}
    if by_way_of == "sns":
        sns = boto("sns", moto)
        topic = sns.create_topic(Name=name)["TopicArn"]
        sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)
        return {"TopicConfigurations": [{"TopicArn": topic, "Events": ["s3:ObjectCreated:*"]}]}
    events = boto("events", moto)
    events.put_rule(Name=name, EventPattern=json.dumps({"source": ["aws.s3"], "detail": {"bucket": {"name": [name]}}}))
    events.put_targets(Rule=name, Targets=[{"Id": "1", "Arn": arn}])
    return {"EventBridgeConfiguration": {}}


def _all(sqs: Any, queue: str) -> list[str]:
    found: list[str] = []
    while more := sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages"):
        found += [message["Body"] for message in more]
    return found
