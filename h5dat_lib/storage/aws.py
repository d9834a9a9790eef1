"""AWS: settings in, clients out, AWS's errors as ours. The only import of boto3, and only once something of AWS is asked for.

Credentials are found in boto3's own ways: environment, profile, container, instance. None passes through here, so none can be logged.
"""

from __future__ import annotations

import functools
import os
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from h5dat_lib.errors import ConfigError, H5datError, InputError

if TYPE_CHECKING:  # building the settings' models takes longer than a local file that is only listed
    from h5dat_lib.config import S3Options

__all__ = [
    "S3Uri", "Traffic", "cause", "client", "error_code", "explained", "is_passing", "received", "requests", "split", "traffic", "use",
]  # fmt: skip

S3Uri = tuple[str, str]
"""Bucket and key."""

requests: Counter[str] = Counter()
"""Requests of this process, by operation (``GetObject``), tries counted singly; ``bytes in`` and ``bytes out`` are those of bodies."""
_counting = threading.Lock()
_READING = ("GetObject", "HeadObject", "ListObjectsV2")

Traffic = tuple[int, int]
"""Requests that read, and bytes that came in by them."""

_options: S3Options | None = None
_building = threading.Lock()
"""boto3 must not make two clients at once in one session."""

_ADVICE = {
    "AccessDenied": "expected to be allowed; look at the policy of the bucket and of these credentials",
    "403": "expected to be allowed; look at the policy of the bucket and of these credentials",
    "NoSuchKey": "expected an object; check the key (that of a folder ends with a slash)",
    "NoSuchVersion": "expected that version of the object; it has been deleted, plan again",
    "404": "expected an object; check bucket and key",
    "NoSuchBucket": "expected a bucket; check its name and `s3.endpoint`",
    "AWS.SimpleQueueService.NonExistentQueue": "expected a queue; check its URL, and the region",
    "QueueDoesNotExist": "expected a queue; check its URL, and the region",
    "PermanentRedirect": "expected its bucket in this region; set `s3.region` to the bucket's",
    "AuthorizationHeaderMalformed": "expected its bucket in this region; set `s3.region` to the bucket's",
    "301": "expected its bucket in this region; set `s3.region` to the bucket's",
    "ExpiredToken": "expected valid credentials; refresh them",
    "ExpiredTokenException": "expected valid credentials; refresh them",
    "InvalidAccessKeyId": "expected credentials that are known there; check them and `s3.endpoint`",
    "SignatureDoesNotMatch": "expected the secret key of these credentials; check them",
    "InvalidObjectState": "expected an object that can be read at once; restore it from Glacier first",
    "PreconditionFailed": "expected the object as it was when it was looked at; it has been replaced since, run again",
    "412": "expected the object as it was when it was looked at; it has been replaced since, run again",
    "SlowDown": "expected an answer; the store asks for fewer requests, try later or with fewer workers",
}
"""What to say of an error code, behind what was found. HEAD requests have no body, so only the status is known of them."""


_PASSING = {
    "RequestTimeout", "SlowDown", "ConditionalRequestConflict", "OperationAborted",
    "Throttling", "ThrottlingException", "RequestThrottled", "ExpiredToken", "ExpiredTokenException",
}  # fmt: skip
"""Codes of answers that may be others later, whatever their status."""


def use(options: S3Options) -> None:
    """Makes these the settings of this process; what was made with others is not used again."""
    global _options
    if options != _options:
        _options = options
        client.cache_clear()


@functools.cache
def client(service: str) -> Any:
    """The client of a service (``s3``, ``sqs``...) with the settings of this process, shared by its threads. Raises ConfigError when
    boto3 cannot make one."""
    import boto3
    from botocore import UNSIGNED
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    from h5dat_lib.config import S3Options

    options = _options or S3Options()
    config = Config(
        connect_timeout=options.connect_seconds,
        read_timeout=options.read_seconds,
        retries={"mode": options.retry_mode, "total_max_attempts": options.attempts},
        max_pool_connections=32,
        s3={"addressing_style": options.addressing},
        signature_version=UNSIGNED if options.anonymous else None,
    )
    try:
        with _building:
            session = boto3.Session(profile_name=options.profile, region_name=options.region)
            found = session.client(service, endpoint_url=options.endpoint if service == "s3" else None, config=config)
    except (BotoCoreError, ValueError) as exc:
        raise ConfigError(f"s3: {exc}; look at `s3` in the configuration, the AWS_* variables and ~/.aws/config") from exc
    found.meta.events.register("before-send", _count)
    return found


def _begin_anew() -> None:
    """In a child that was forked: its parent's connections are not its own, and a thread that is not there may hold a lock."""
    global _counting, _building
    _counting, _building = threading.Lock(), threading.Lock()
    client.cache_clear()


os.register_at_fork(after_in_child=_begin_anew)


def _count(request: Any, event_name: str, **_: Any) -> None:
    """Notes a request as it goes out; returning None lets it go."""
    _add(event_name.rpartition(".")[2], 1)


def _add(name: str, count: int) -> None:
    with _counting:  # several threads count, and adding is not one step
        requests[name] += count


def traffic(since: Traffic = (0, 0)) -> Traffic:
    """What this process has read, from a time on of which it was ``since``."""
    return sum(requests[name] for name in _READING) - since[0], requests["bytes in"] - since[1]


def received(body: Any, size: int) -> bytes:
    """Up to ``size`` bytes of the body of an answer, none at its end. Raises ConnectionError when the connection has been dropped, or
    nothing comes in time."""
    from botocore.exceptions import BotoCoreError
    from urllib3.exceptions import HTTPError

    try:
        data: bytes = body.read(size)
    except (BotoCoreError, HTTPError, OSError) as exc:
        raise ConnectionError(str(exc)) from exc
    _add("bytes in", len(data))
    return data


def split(uri: str) -> S3Uri:
    """Bucket and key of ``s3://bucket/key``. Raises InputError for what is none."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    if not uri.startswith("s3://") or not bucket:
        raise InputError(f"{uri}: found no bucket, expected s3://bucket/key")
    return bucket, key


def cause(exc: BaseException | None) -> Exception | None:
    """The error of boto3 that an error is or comes from; None when it comes from something else."""
    from botocore.exceptions import BotoCoreError, ClientError

    while exc is not None and not isinstance(exc, BotoCoreError | ClientError):
        exc = exc.__cause__
    return exc


def error_code(exc: BaseException) -> str:
    """The code of an answer of AWS (``NoSuchKey``, ``412``) that an error is or comes from, "" for what does not."""
    answer = getattr(cause(exc), "response", None) or {}
    return str(answer.get("Error", {}).get("Code", ""))


def is_passing(exc: BaseException | None) -> bool:
    """Whether what boto3 raised, or what comes from it, may be over later: no answer, or one that says that the store cannot just now."""
    from botocore.exceptions import ClientError, ConnectionError, HTTPClientError, IncompleteReadError, SSLError

    exc = cause(exc)
    if isinstance(exc, ClientError):
        status: int = exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return status in (408, 429) or (status >= 500 and status != 501) or error_code(exc) in _PASSING
    return isinstance(exc, HTTPClientError | ConnectionError | IncompleteReadError) and not isinstance(exc, SSLError)


@contextmanager
def explained(uri: str, kind: type[H5datError] = InputError) -> Iterator[None]:
    """Turns what boto3 raises inside into one line of our own: what was asked for, what was answered, what to do."""
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

    try:
        yield
    except ClientError as exc:
        code = error_code(exc)
        message = exc.response["Error"].get("Message") or "no message"
        raise kind(f"{uri}: found {code} ({message}), {_ADVICE.get(code, 'expected success; try again')}") from exc
    except NoCredentialsError as exc:
        raise kind(f"{uri}: found no credentials, expected some; set a profile or AWS_* variables, or `s3.anonymous`") from exc
    except BotoCoreError as exc:
        raise kind(f"{uri}: {exc}; look at the network and `s3.endpoint`") from exc
