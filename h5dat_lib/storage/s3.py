"""Objects in S3: ranged reads in few requests, and streams that go on after a dropped connection, all of the version seen first."""

from __future__ import annotations

import base64
import io
import re
import time
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO, cast

from h5dat_lib.errors import InputError
from h5dat_lib.storage import aws
from h5dat_lib.storage.source import Pin, Range, RangeStream
from h5dat_lib.storage.windows import Windows

__all__ = ["S3Source", "listed", "of_one_object", "plain", "sha256_in_store"]

_HEAD_BYTES = 64 << 10
"""Bytes that are fetched to see that an object is there, and what it is."""
_STEP = 1 << 20
_LEAST_PROGRESS = 1 << 20
"""A connection that has given as much before it dropped counts as a new try."""
_MOST_TRIES = 8
_FIRST_WAIT, _LONGEST_WAIT = 0.1, 5.0
"""Seconds before an object is asked for again, doubled each time."""
_VERSIONED = re.compile(r"(?s)(.+)\?versionId=([^?&/]+)")
_NO_RANGE = ("InvalidRange", "416")


def plain(uri: str) -> str:
    """The URI without the version that it may name."""
    return found[1] if (found := _VERSIONED.fullmatch(uri)) else uri


def _asked(uri: str, pin: Pin | None) -> dict[str, str]:
    """What names an object, and its version, in a request."""
    found = _VERSIONED.fullmatch(uri)
    bucket, key = aws.split(found[1] if found else uri)
    if not key:
        raise InputError(f"{uri}: found a bucket, expected an object in it; check the key")
    asked = {"Bucket": bucket, "Key": key}
    if version := (pin.version if pin else "") or (found[2] if found else ""):
        asked["VersionId"] = version
    return asked | ({"IfMatch": pin.etag} if pin else {})


class S3Source:
    """An object in S3. ``pin`` names its bytes when they have been seen before; without one, a request looks at the object, and
    fetches its first ``head_bytes``.

    Raises InputError when there is none, or it may not be read; also later on, when it has been replaced.
    """

    def __init__(self, uri: str, pin: Pin | None = None, head_bytes: int = _HEAD_BYTES) -> None:
        self.uri = uri
        self._pin, head = (pin, b"") if pin else _looked_at(uri, head_bytes)
        self.pin: Pin | None = self._pin
        self.size = self._pin.size
        self.fingerprint_parts: tuple[str, ...] = (str(self.size), self._pin.etag)
        self._windows = Windows(self.fetch, self.size)
        if head:
            self._windows.keep(0, memoryview(head))

    def expect(self, ranges: Iterable[Range]) -> None:
        self._windows.expect(ranges)

    def read_at(self, offset: int, size: int) -> bytes:
        return self._windows.read_at(offset, size)

    def stream(self, offset: int = 0, size: int | None = None) -> BinaryIO:
        return RangeStream(self, offset, self.size - offset if size is None else size)  # type: ignore[return-value]

    def forward(self, offset: int = 0, size: int | None = None) -> BinaryIO:
        end = self.size if size is None else min(offset + size, self.size)
        return cast(BinaryIO, _Forward(self.uri, self._pin, offset, end))

    def close(self) -> None:
        self._windows.close()

    def fetch(self, offset: int, size: int) -> memoryview:
        """``size`` bytes from ``offset`` on, which must be there, by one request; nothing is kept."""
        data = memoryview(bytearray(size))
        with _Forward(self.uri, self._pin, offset, offset + size) as stream:
            at = 0
            while at < size:
                at += stream.readinto(data[at : at + _STEP])
        return data


def _looked_at(uri: str, head_bytes: int) -> tuple[Pin, bytes]:
    """What an object is, and its first bytes, by one request: a HEAD would say less of what is wrong."""
    try:
        with aws.explained(uri):
            answer = aws.client("s3").get_object(**_asked(uri, None), Range=f"bytes=0-{head_bytes - 1}")
    except InputError as exc:
        if exc.__cause__ and aws.error_code(cast(Exception, exc.__cause__)) in _NO_RANGE:
            return Pin(0, ""), b""
        raise
    size = int(answer.get("ContentRange", "").rpartition("/")[2] or answer["ContentLength"])
    version = answer.get("VersionId", "")
    pin = Pin(size, answer["ETag"].strip('"'), "" if version == "null" else version)
    with _Forward(uri, pin, 0, min(size, head_bytes), answer) as stream:
        return pin, cast(BinaryIO, stream).read()


class _Forward(io.RawIOBase):
    """The bytes of an object from ``start`` to ``end``, read once by one request; it goes on where it was when the connection drops.

    Raises InputError when the object has been replaced, or the connection drops again and again.
    """

    def __init__(self, uri: str, pin: Pin, start: int, end: int, answer: Any = None) -> None:
        self._uri = uri
        self._pin = pin
        self._at = start
        self._end = end
        self._body = self._checked(answer) if answer else None
        self._drops = 0
        self._dropped_at = start

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        wanted = min(len(buffer), self._end - self._at)
        if wanted <= 0:
            return 0
        data = self._next(wanted)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._leave()
        super().close()

    def _next(self, wanted: int) -> bytes:
        while True:
            self._body = self._body or self._checked(self._answer())
            try:
                if data := aws.received(self._body, wanted):
                    return data
                raise ConnectionError("the answer ended early")
            except ConnectionError as exc:
                self._leave()
                self._wait(exc)

    def _answer(self) -> Any:
        with aws.explained(self._uri):
            return aws.client("s3").get_object(**_asked(self._uri, self._pin), Range=f"bytes={self._at}-{self._end - 1}")

    def _checked(self, answer: Any) -> Any:
        """The body of an answer. Some stores know neither ranges nor conditions, and answer all the same."""
        found, expected = answer.get("ContentRange", ""), f"bytes {self._at}-{self._end - 1}/{self._pin.size}"
        if found != expected and (self._at, self._end) != (0, self._pin.size):
            raise InputError(f"{self._uri}: found an answer with {found or 'no range'}, expected {expected}; use a store that gives ranges")
        if answer["ETag"].strip('"') != self._pin.etag:
            raise InputError(f"{self._uri}: found another object than the one that was looked at, expected it as it was; run again")
        return answer["Body"]

    def _wait(self, exc: ConnectionError) -> None:
        if self._at - self._dropped_at >= _LEAST_PROGRESS:
            self._drops = 0
        self._drops, self._dropped_at = self._drops + 1, self._at
        if self._drops >= _MOST_TRIES:
            raise InputError(
                f"{self._uri}: found a connection that dropped {self._drops} times at byte {self._at} or just before ({exc}), expected all "
                "bytes; look at the network and run again"
            ) from exc
        time.sleep(min(_FIRST_WAIT * 2 ** (self._drops - 1), _LONGEST_WAIT))

    def _leave(self) -> None:
        if self._body is not None:
            self._body.close()
            self._body = None


_OF_ONE_OBJECT = frozenset(("NoSuchKey", "404", "PreconditionFailed", "412", "InvalidObjectState", "AccessDenied", "403"))


def of_one_object(exc: InputError) -> bool:
    """Whether an error is about the object that was asked for, and others may be read all the same."""
    return isinstance(exc.__cause__, Exception) and aws.error_code(exc.__cause__) in _OF_ONE_OBJECT


def listed(uri: str) -> Iterator[tuple[str, int, str]]:
    """Name below ``uri``, size in bytes and ETag of every object below it, in the store's order; a request for each thousand."""
    bucket, prefix = aws.split(uri)
    with aws.explained(uri):
        pages = aws.client("s3").get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        for page in pages:
            for found in page.get("Contents", ()):
                yield found["Key"][len(prefix) :], found["Size"], found["ETag"].strip('"')


def sha256_in_store(uri: str, pin: Pin) -> str:
    """SHA-256 of an object, as hex, where the store holds it as the checksum of all bytes; else "". Raises InputError."""
    with aws.explained(uri):
        answer = aws.client("s3").head_object(**_asked(uri, pin), ChecksumMode="ENABLED")
    found = answer.get("ChecksumSHA256", "")
    whole = answer.get("ChecksumType", "FULL_OBJECT") == "FULL_OBJECT" and "-" not in found  # of parts: the hash of their hashes
    return base64.b64decode(found).hex() if whole else ""
