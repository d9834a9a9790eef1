"""A queue of SQS: what is held stays hidden, what is buried says why, what is given back comes again."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from h5dat_lib.config import S3Options
from h5dat_lib.errors import InputError
from h5dat_lib.storage import aws
from h5dat_lib.storage.queue import Queue
from tests.conftest import Bucket
from tests.servers import boto

Made = Callable[..., str]


@pytest.fixture
def sqs(quick_bucket: Bucket) -> Any:
    return boto("sqs", quick_bucket.endpoint)


@pytest.fixture
def made(sqs: Any) -> Made:
    """Makes a queue, and returns its URL."""

    def make(visibility: int = 30, **attributes: str) -> str:
        values = {"VisibilityTimeout": str(visibility), **attributes}
        return str(sqs.create_queue(QueueName=f"queue-{uuid.uuid4().hex[:12]}", Attributes=values)["QueueUrl"])

    return make


def redrive(sqs: Any, url: str, most: int = 3) -> str:
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    return json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": most})


def test_messages_come_with_what_is_needed_to_answer_for_them(sqs: Any, made: Made) -> None:
    url = made(visibility=0)
    sqs.send_message(QueueUrl=url, MessageBody="body")
    queue = Queue(url)
    [first] = queue.receive(0)
    [second] = queue.receive(0)
    assert (first.body, first.received, second.received) == ("body", 1, 2)
    assert (queue.dead_letter, queue.most_receives) == (None, None)
    queue.delete(second)
    assert queue.receive(0) == []


def test_what_is_held_is_hidden_for_longer_than_the_queue_says_and_what_is_left_is_given_back(sqs: Any, made: Made) -> None:
    url = made(visibility=3)  # a busy machine may take a second for a request
    for body in "ab":
        sqs.send_message(QueueUrl=url, MessageBody=body)
    queue, other = Queue(url), Queue(url)
    messages = queue.receive(0) + queue.receive(0)
    with queue.held(messages):
        end = time.monotonic() + 3.5
        while time.monotonic() < end:
            assert other.receive(0) == []
            time.sleep(0.1)
        queue.delete(messages[0])
    assert [message.body for message in other.receive(0)] == [messages[1].body]


def test_a_message_that_is_given_back_comes_after_the_time_that_is_said(sqs: Any, made: Made) -> None:
    queue = Queue(made())
    sqs.send_message(QueueUrl=queue.url, MessageBody="body")
    [message] = queue.receive(0)
    queue.release(message, 1)
    assert queue.receive(0) == []
    time.sleep(1.1)
    assert len(queue.receive(0)) == 1


@pytest.mark.parametrize("given", [False, True])
def test_a_message_is_buried_with_its_reason_where_the_policy_or_the_user_says(sqs: Any, made: Made, given: bool) -> None:
    grave = made()
    url = made() if given else made(RedrivePolicy=redrive(sqs, grave))
    sqs.send_message(QueueUrl=url, MessageBody="body")
    queue = Queue(url, grave if given else None)
    assert queue.most_receives == (None if given else 3)
    [message] = queue.receive(0)
    assert queue.bury(message, "found \x1b, expected é\n" + "x" * 5000)
    [buried] = sqs.receive_message(QueueUrl=grave, MessageAttributeNames=["All"])["Messages"]
    reason = buried["MessageAttributes"]["h5dat-reason"]["StringValue"]
    assert buried["Body"] == "body" and reason.startswith("found \\x1b, expected é\\x0ax") and len(reason) == 1000
    assert Queue(url).receive(0) == []


def test_without_a_dead_letter_queue_nothing_is_buried(sqs: Any, made: Made) -> None:
    queue = Queue(made())
    sqs.send_message(QueueUrl=queue.url, MessageBody="body")
    [message] = queue.receive(0)
    assert not queue.bury(message, "reason")
    queue.release(message)
    assert len(queue.receive(0)) == 1


def test_a_queue_that_is_not_there_is_told_in_one_line_and_will_not_pass(sqs: Any, made: Made) -> None:
    url = made() + "-none"
    with pytest.raises(InputError, match=r"found .*NonExistentQueue.* expected a queue") as caught:
        Queue(url).receive(0)
    assert "\n" not in str(caught.value) and not aws.is_passing(caught.value)


def test_a_queue_that_cannot_be_reached_is_passing(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    aws.use(S3Options(attempts=1))
    with pytest.raises(InputError) as caught:
        Queue("http://127.0.0.1:9/123456789012/queue").receive(0)
    assert aws.is_passing(caught.value)
