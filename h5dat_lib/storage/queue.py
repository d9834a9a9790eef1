"""An SQS queue -> its messages, kept from others while they are worked on, and deleted, left or buried afterwards."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from h5dat_lib.errors import H5datError, InputError, escaped
from h5dat_lib.storage import aws
from h5dat_lib.storage.meanwhile import meanwhile

__all__ = ["Message", "Queue"]

_AT_ONCE = 10
"""Messages of one request, by the service's own limit."""
_LONGEST = 43_200
"""Seconds for which a message can be hidden, from its receipt on."""
_REASON = "h5dat-reason"
_REASON_CHARACTERS = 1000


@dataclass(frozen=True)
class Message:
    """A message as it was received; ``received`` times by now, this one included."""

    id: str
    receipt: str
    body: str
    received: int


class Queue:
    """A queue, by its URL. ``dead_letter`` is the URL of the queue for what cannot be used; that of the redrive policy when not given.

    What AWS refuses is raised as InputError, from the client's own.
    """

    def __init__(self, url: str, dead_letter: str | None = None) -> None:
        self.url = url
        self._given = dead_letter
        self._held: dict[str, Message] = {}
        self._lock = threading.Lock()

    @property
    def _client(self) -> Any:
        return aws.client("sqs")

    @cached_property
    def _attributes(self) -> dict[str, str]:
        with aws.explained(self.url):
            names = ["VisibilityTimeout", "RedrivePolicy"]
            return dict(self._client.get_queue_attributes(QueueUrl=self.url, AttributeNames=names).get("Attributes", {}))

    @property
    def visibility(self) -> float:
        """Seconds for which a message that was received is hidden from others."""
        return max(float(self._attributes.get("VisibilityTimeout", 30)), 1.0)

    @property
    def most_receives(self) -> int | None:
        """How often a message is received before the redrive policy takes it away; None without such a policy."""
        found = self._redrive.get("maxReceiveCount")
        return int(found) if found else None

    @property
    def _redrive(self) -> dict[str, Any]:
        return dict(json.loads(self._attributes.get("RedrivePolicy") or "{}"))

    @cached_property
    def dead_letter(self) -> str | None:
        """The URL of the dead-letter queue; None when there is none."""
        if self._given or not self._redrive:
            return self._given
        *_, account, name = self._redrive["deadLetterTargetArn"].split(":")
        with aws.explained(self.url):
            return str(self._client.get_queue_url(QueueName=name, QueueOwnerAWSAccountId=account)["QueueUrl"])

    def receive(self, seconds: int) -> list[Message]:
        """Up to ten messages; waits for the first one."""
        with aws.explained(self.url):
            answer = self._client.receive_message(
                QueueUrl=self.url, MaxNumberOfMessages=_AT_ONCE, WaitTimeSeconds=seconds,
                MessageSystemAttributeNames=["ApproximateReceiveCount"],
            )  # fmt: skip
        return [
            Message(found["MessageId"], found["ReceiptHandle"], found["Body"], int(found["Attributes"]["ApproximateReceiveCount"]))
            for found in answer.get("Messages", ())
        ]

    def delete(self, message: Message) -> None:
        """The message is done."""
        self._let_go(message)
        with aws.explained(self.url):
            self._client.delete_message(QueueUrl=self.url, ReceiptHandle=message.receipt)

    def release(self, message: Message, seconds: float = 0) -> None:
        """Gives a message back: it can be received again after so many seconds."""
        self._let_go(message)
        self._hide([message], seconds)

    def bury(self, message: Message, reason: str) -> bool:
        """Moves a message to the dead-letter queue, with the reason as an attribute; False when there is no such queue.

        Sent before it is deleted: a kill between the two leaves it in both.
        """
        if not self.dead_letter:
            return False
        text = escaped(reason)[:_REASON_CHARACTERS].encode("utf-8", "replace").decode() or "no reason"
        with aws.explained(self.dead_letter):
            self._client.send_message(
                QueueUrl=self.dead_letter,
                MessageBody=message.body,
                MessageAttributes={_REASON: {"DataType": "String", "StringValue": text}},
            )
        self.delete(message)
        return True

    @contextmanager
    def held(self, messages: Sequence[Message]) -> Iterator[None]:
        """Keeps messages hidden from others until they are deleted or given back; what is left when the block ends is given back then."""
        with self._lock:
            self._held = {message.id: message for message in messages}
        try:
            with meanwhile(partial(self._keep, self.visibility), "visibility"):
                yield
        finally:
            for message in list(self._held.values()):
                with suppress(H5datError):  # others get it when its time is over
                    self.release(message)

    def _keep(self, seconds: float, over: threading.Event) -> None:
        """Hides them anew after each third of the time; if that fails it can be that somebody else gets them too, which does no harm."""
        while not over.wait(seconds / 3):
            with self._lock:
                held = list(self._held.values())
            for first in range(0, len(held), _AT_ONCE):
                with suppress(H5datError):
                    self._hide(held[first : first + _AT_ONCE], seconds)

    def _hide(self, messages: Sequence[Message], seconds: float) -> None:
        entries = [
            {"Id": str(number), "ReceiptHandle": message.receipt, "VisibilityTimeout": min(int(seconds), _LONGEST - 1)}
            for number, message in enumerate(messages)
        ]
        with aws.explained(self.url, InputError):
            self._client.change_message_visibility_batch(QueueUrl=self.url, Entries=entries)

    def _let_go(self, message: Message) -> None:
        with self._lock:
            self._held.pop(message.id, None)
