"""One object in S3: what is there, and the requests that change it, each of them on condition that nobody else has changed it."""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, BinaryIO

from h5dat_lib.errors import OutputError
from h5dat_lib.storage import aws

__all__ = ["Found", "Remote", "Synced", "code_of", "encoded"]

_NAME = "h5dat-content"
"""Metadata of an object that we have written: the name of its digests."""
_MISSING = {"404", "NoSuchKey", "NotFound"}
_UNSUPPORTED = {"NotImplemented", "501", "MethodNotAllowed", "405"}
_SKEW_SECONDS = 15 * 60
"""By how much a clock may differ from the store's before that refuses it."""


@dataclass(frozen=True)
class Synced:
    """What syncing has taken: bytes sent, copied within the store, and received; requests; how many times the object was replaced.

    ``without`` says what the store cannot do, and what was done instead.
    """

    times: int = 0
    sent: int = 0
    copied: int = 0
    received: int = 0
    requests: int = 0
    seconds: float = 0.0
    without: tuple[str, ...] = ()

    def __add__(self, other: Synced) -> Synced:
        counts = {name: getattr(self, name) + getattr(other, name) for name in _COUNTS}
        return Synced(**counts, without=tuple(dict.fromkeys(self.without + other.without)))


_COUNTS = ("times", "sent", "copied", "received", "requests", "seconds")


@dataclass(frozen=True)
class Found:
    """An object as it is. ``content`` is the name of its digests and ``crc32`` its checksum, in base64; "" where the store has none."""

    etag: str
    size: int
    content: str
    crc32: str


@dataclass
class Remote:
    """The object at ``uri``, and what was asked of it. Raises OutputError, with boto3's own error as its cause."""

    uri: str
    took: Synced = field(default_factory=Synced)
    _counting: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.bucket, self.key = aws.split(self.uri)

    def find(self) -> Found | None:
        """What is there now; None when nothing is. Raises OutputError when there is no bucket, too."""
        try:
            answer = self._ask("head_object", ChecksumMode="ENABLED")
        except OutputError as exc:
            if code_of(exc) not in _MISSING:
                raise
            self._expect_bucket()
            return None
        crc32 = answer.get("ChecksumCRC32", "")
        whole = answer.get("ChecksumType", "FULL_OBJECT") == "FULL_OBJECT"
        return Found(answer["ETag"].strip('"'), answer["ContentLength"], answer.get("Metadata", {}).get(_NAME, ""), crc32 if whole else "")

    def _expect_bucket(self) -> None:
        """Raises OutputError when there is no such bucket, which a HEAD of what would be in it does not tell."""
        self._count(requests=1)
        try:
            with aws.explained(self.uri, OutputError):
                aws.client("s3").list_objects_v2(Bucket=self.bucket, Prefix=self.key, MaxKeys=1)
        except OutputError as exc:
            if code_of(exc) != "AccessDenied":  # then writing may be allowed all the same
                raise

    def read(self, etag: str, start: int, size: int) -> bytes:
        """A range of the object, as long as it is the one with this ETag."""
        answer = self._ask("get_object", Range=f"bytes={start}-{start + size - 1}", IfMatch=f'"{etag}"')
        with aws.explained(self.uri, OutputError), closing(answer["Body"]) as body:
            data: bytes = body.read()
        self._count(received=len(data))
        return data

    def put(self, body: BinaryIO, size: int, content: str, crc: int, etag: str) -> str:
        """Replaces the object with the ETag ``etag`` ("": none is there) by a small one; returns its ETag."""
        words = {"Body": body, "ContentLength": size, "Metadata": {_NAME: content}, "ChecksumCRC32": encoded(crc)}
        answer = self._conditional("put_object", etag, words)
        self._count(sent=size)
        return str(answer["ETag"]).strip('"')

    # An upload in parts

    def begin(self, content: str, whole_checksum: bool) -> str:
        """Begins an upload; returns its id. ``whole_checksum``: the store is to check the CRC-32 of the whole object at its end."""
        words = {"Metadata": {_NAME: content}, "ChecksumAlgorithm": "CRC32"}
        kind = {"ChecksumType": "FULL_OBJECT"} if whole_checksum else {}
        return str(self._ask("create_multipart_upload", **words, **kind)["UploadId"])

    def send(self, upload: str, number: int, body: BinaryIO, size: int, crc: int) -> str:
        """Sends a part, which the store checks; returns its ETag."""
        words = {"UploadId": upload, "PartNumber": number, "Body": body, "ContentLength": size, "ChecksumCRC32": encoded(crc)}
        etag = str(self._ask("upload_part", **words)["ETag"])
        self._count(sent=size)
        return etag

    def copy(self, upload: str, number: int, start: int, size: int, etag: str) -> str:
        """Copies a part of the object with this ETag within the store; returns the part's ETag."""
        answer = self._ask(
            "upload_part_copy", UploadId=upload, PartNumber=number, CopySource={"Bucket": self.bucket, "Key": self.key},
            CopySourceRange=f"bytes={start}-{start + size - 1}", CopySourceIfMatch=f'"{etag}"',
        )  # fmt: skip
        self._count(copied=size)
        return str(answer["CopyPartResult"]["ETag"])

    def parts(self, upload: str) -> dict[int, tuple[str, int]]:
        """The parts of an upload that have arrived, by number: ETag and size."""
        found: dict[int, tuple[str, int]] = {}
        marker = 0
        while True:
            answer = self._ask("list_parts", UploadId=upload, PartNumberMarker=marker)
            found |= {part["PartNumber"]: (part["ETag"], part["Size"]) for part in answer.get("Parts", ())}
            if not answer.get("IsTruncated"):
                return found
            marker = int(answer["NextPartNumberMarker"])

    def complete(self, upload: str, parts: list[tuple[int, str, int]], crc: int | None, etag: str) -> str:
        """Makes an upload the object, in the place of the one with the ETag ``etag`` ("": none is there); returns the new ETag.

        ``parts`` are numbers, ETags and CRC-32s, ``crc`` that of the whole.
        """
        listed = [{"PartNumber": number, "ETag": tag, "ChecksumCRC32": encoded(part)} for number, tag, part in parts]
        words: dict[str, Any] = {"UploadId": upload, "MultipartUpload": {"Parts": listed}}
        if crc is not None:
            words |= {"ChecksumCRC32": encoded(crc), "ChecksumType": "FULL_OBJECT"}
        return str(self._conditional("complete_multipart_upload", etag, words)["ETag"]).strip('"')

    def abort(self, upload: str) -> None:
        """Ends an upload, if there is one: its parts are gone."""
        try:
            self._ask("abort_multipart_upload", UploadId=upload)
        except OutputError as exc:
            if code_of(exc) not in _MISSING | {"NoSuchUpload"}:
                raise

    def uploads_since(self, moment: float) -> Iterator[str]:
        """Ids of the uploads of this object that have begun since then, or some minutes before, as clocks differ."""
        with aws.explained(self.uri, OutputError):
            pages = aws.client("s3").get_paginator("list_multipart_uploads").paginate(Bucket=self.bucket, Prefix=self.key)
            found = [upload for page in pages for upload in page.get("Uploads", ())]
        since = datetime.fromtimestamp(moment - _SKEW_SECONDS, UTC)
        return (upload["UploadId"] for upload in found if upload["Key"] == self.key and upload["Initiated"] >= since)

    def note_synced(self) -> None:
        """Notes that the object has been replaced."""
        self._count(times=1)

    def note_without(self, what: str) -> None:
        """Notes what the store cannot do."""
        self._count(without=(what,))

    def _conditional(self, operation: str, etag: str, words: dict[str, Any]) -> Any:
        condition = {"IfMatch": f'"{etag}"'} if etag else {"IfNoneMatch": "*"}
        try:
            return self._ask(operation, **words, **condition)
        except OutputError as exc:
            if code_of(exc) not in _UNSUPPORTED:
                raise
        found = self.find()
        if (found.etag if found else "") != etag:
            raise self.replaced()
        self.note_without("conditional writes: what is there was looked at just before it was replaced")
        if "Body" in words:
            words["Body"].seek(0)
        return self._ask(operation, **words)

    def replaced(self) -> OutputError:
        return OutputError(
            f"{self.uri}: found another object, expected the one that the local file goes on with: it has been replaced since"
        )

    def _ask(self, operation: str, **words: Any) -> Any:
        self._count(requests=1)
        with aws.explained(self.uri, OutputError):
            return getattr(aws.client("s3"), operation)(Bucket=self.bucket, Key=self.key, **words)

    def _count(self, **more: Any) -> None:
        with self._counting:
            self.took += Synced(**more)
            aws.requests["bytes out"] += more.get("sent", 0)
            aws.requests["bytes in"] += more.get("received", 0)


def code_of(exc: OutputError) -> str:
    """The code of the answer that was refused, "" when there was none."""
    return aws.error_code(exc.__cause__) if isinstance(exc.__cause__, Exception) else ""


def encoded(crc: int) -> str:
    """A CRC-32 as S3 writes it."""
    return base64.b64encode(crc.to_bytes(4, "big")).decode()
