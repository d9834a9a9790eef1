"""A message about a bucket -> the objects that landed in it: S3's own format, the same wrapped by SNS, and EventBridge's.

Formats: docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html and .../ev-events.html.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_plus

from h5dat_lib.errors import InputError, escaped

__all__ = ["EVENT", "Landed", "in_order", "objects_of"]

EVENT = "h5dat.archive.landed"
"""What Prefect is told of an archive that has come in; its payload says what to ingest, into which output, with which configuration. Its
label `h5dat.via` says who sees to that: the watcher does so itself, for who says `automation` the automation does."""

_SHOWN = 120
"""Characters of a message that is not understood."""


@dataclass(frozen=True)
class Landed:
    """An object of a bucket as a message or a listing tells of it.

    ``raw_key`` is the key as it stood in the message, if that is another. ``version`` is "" where the bucket keeps none.
    ``sequencer`` orders what happened to one key, and nothing else.
    """

    bucket: str
    key: str
    version: str = ""
    etag: str = ""
    size: int = 0
    sequencer: str = ""
    raw_key: str = ""

    @property
    def uri(self) -> str:
        """The object, whichever version of it."""
        return f"s3://{self.bucket}/{self.key}"

    @property
    def archive(self) -> str:
        """What is to be ingested: this very version, where there are versions."""
        return f"{self.uri}?versionId={self.version}" if self.version else self.uri

    @property
    def identity(self) -> tuple[str, str, str]:
        """What two messages about the same bytes have in common."""
        return self.bucket, self.key, self.version or self.etag


def objects_of(body: str) -> tuple[Landed, ...]:
    """The objects that a message says have landed; none for S3's test message, and for what else happens to objects.

    Raises InputError for what is no message of S3.
    """
    try:
        return tuple(_objects(_unwrapped(body)))
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as exc:
        found = escaped(body[:_SHOWN])
        raise InputError(f"message: found {found!r}, expected an event notification of S3; look at what sends to the queue") from exc


def in_order(landed: Iterable[Landed]) -> list[Landed]:
    """Objects as they came, but those of one key in the order in which they landed."""
    found = list(landed)
    first: dict[tuple[str, str], int] = {}
    for number, each in enumerate(found):
        first.setdefault((each.bucket, each.key), number)
    return sorted(found, key=lambda each: (first[each.bucket, each.key], _comparable(each.sequencer)))


def _comparable(sequencer: str) -> str:
    """Sequencers are hexadecimal numbers of any length, to be filled up with zeros on the right."""
    return sequencer.lower().ljust(64, "0")


def _unwrapped(body: str) -> Mapping[str, Any]:
    """What SNS was given to send, if the message comes by way of it."""
    message = json.loads(body)
    while message.get("Type") == "Notification":
        message = json.loads(message["Message"])
    return dict(message)


def _objects(message: Mapping[str, Any]) -> Iterator[Landed]:
    if message.get("Event") == "s3:TestEvent":
        return
    if "detail-type" in message:
        if message["source"] == "aws.s3" and message["detail-type"] in ("Object Created", "Object Restore Completed"):
            yield _of_eventbridge(message["detail"])
        return
    for record in message["Records"]:
        if record["eventName"].removeprefix("s3:").startswith(("ObjectCreated:", "ObjectRestore:Completed")):
            yield _of_s3(record)


def _of_s3(record: Mapping[str, Any]) -> Landed:
    """A record of S3's own format. Its key is encoded as in a form."""
    if not record["eventVersion"].startswith("2."):  # the minor number only ever brings more keys
        raise ValueError(record["eventVersion"])
    return _landed(record["s3"]["bucket"]["name"], record["s3"]["object"], unquote_plus)


def _of_eventbridge(detail: Mapping[str, Any]) -> Landed:
    """The detail of an event of EventBridge. Its key is as it is."""
    return _landed(detail["bucket"]["name"], detail["object"], str)


def _landed(bucket: str, found: Mapping[str, Any], decoded: Callable[[str], str]) -> Landed:
    raw, key = found["key"], decoded(found["key"])
    values = {name.lower().replace("-", ""): value or "" for name, value in found.items()}  # eTag and etag, versionId and version-id
    version = values.get("versionid", "")
    return Landed(
        str(bucket), key, "" if version == "null" else str(version), str(values.get("etag", "")).strip('"'), int(values.get("size") or 0),
        str(values.get("sequencer", "")), raw if raw != key else "",
    )  # fmt: skip
