"""Objects in S3 by ranges and as streams, whatever happens to the connection, and the errors of a real store and of a bad day."""

from __future__ import annotations

import hashlib
import io
import random
from contextlib import closing

import pytest

from h5dat_lib.config import S3Options
from h5dat_lib.errors import InputError
from h5dat_lib.storage import Pin, aws, open_source, s3, sha256_of
from tests.conftest import Bucket
from tests.faulty_proxy import Fault, FaultyProxy

DATA = random.Random(5).randbytes(3 << 20)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits before asking again."""
    monkeypatch.setattr(s3, "_FIRST_WAIT", 0.001)
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0.001)


@pytest.mark.parametrize(
    ("offset", "size", "found"), [(0, 4, 4), (3145700, 100, 28), (3 << 20, 5, 0), (1 << 63, 5, 0), (-1, 5, 0), (9, 0, 0)]
)
def test_reads_ranges_short_only_at_the_end(bucket: Bucket, offset: int, size: int, found: int) -> None:
    with closing(open_source(bucket.put("a b+ü%20", DATA))) as source:
        assert source.size == len(DATA)
        assert source.read_at(offset, size) == (DATA[offset : offset + size] if found else b"")
        assert len(source.read_at(offset, size)) == found


def test_streams_have_positions_of_their_own_and_can_seek(bucket: Bucket) -> None:
    with closing(open_source(bucket.put("a", DATA))) as source:
        first, second = source.stream(), source.stream(256, 300)
        assert (first.read(3), second.read(3), first.read(2)) == (DATA[:3], DATA[256:259], DATA[3:5])
        assert second.seek(-4, io.SEEK_END) == 296
        assert (second.read(), second.read(), second.tell()) == (DATA[552:556], b"", 300)


def test_a_forward_stream_is_one_request(bucket: Bucket) -> None:
    with closing(open_source(bucket.put("a", DATA))) as source:
        aws.requests.clear()
        with source.forward(5) as stream:
            assert b"".join(iter(lambda: stream.read(1000), b"")) == DATA[5:]
    assert aws.requests == {"GetObject": 1, "bytes in": len(DATA) - 5}


def test_an_object_is_looked_at_by_one_request_and_with_a_pin_by_none(bucket: Bucket) -> None:
    with closing(open_source(bucket.put("a", DATA))) as source:
        assert source.read_at(100, 60_000) == DATA[100:60_100]
        assert aws.requests["GetObject"] == 1
        again = open_source(source.uri, source.pin)
    assert aws.requests["GetObject"] == 1
    assert again.fingerprint_parts == source.fingerprint_parts
    again.close()


def test_an_object_without_bytes_is_empty(bucket: Bucket) -> None:
    with closing(open_source(bucket.put("a", b""))) as source:
        assert (source.size, source.read_at(0, 10), source.forward().read()) == (0, b"", b"")


def test_what_is_replaced_after_it_was_looked_at_is_an_error_and_no_mixture(bucket: Bucket) -> None:
    with closing(open_source(bucket.put("a", DATA))) as source:
        bucket.put("a", DATA[::-1])
        for read in (lambda: source.read_at(1 << 20, 10), lambda: source.forward().read(10)):
            with pytest.raises(InputError, match=r"s3://\S+/a: found .*PreconditionFailed.*it has been replaced since, run again"):
                read()


def test_what_is_deleted_after_it_was_looked_at_is_an_error(bucket: Bucket) -> None:
    with closing(open_source(bucket.put("a", DATA))) as source:
        bucket.client.delete_object(Bucket=bucket.name, Key="a")
        with pytest.raises(InputError, match="NoSuchKey"):
            source.read_at(1 << 20, 10)


def test_one_version_of_an_object_can_be_named_and_stays_readable(bucket: Bucket) -> None:
    bucket.client.put_bucket_versioning(Bucket=bucket.name, VersioningConfiguration={"Status": "Enabled"})
    old = bucket.client.put_object(Bucket=bucket.name, Key="a?b", Body=b"old" * 50_000)["VersionId"]
    uri = bucket.put("a?b", b"new" * 50_000)
    with closing(open_source(f"{uri}?versionId={old}")) as source, closing(open_source(uri)) as new:
        assert source.pin and source.pin.version == old
        bucket.put("a?b", b"newest" * 50_000)
        assert (source.read_at(120_000, 3), new.read_at(120_000, 3)) == (b"old", b"new")
    assert s3.plain(f"{uri}?versionId={old}") == uri


@pytest.mark.parametrize(("after", "requests"), [(0, 9), (1, 9), (100_000, 9), (1_500_000, 6)])
def test_a_connection_that_drops_goes_on_where_it_was(bucket: Bucket, faulty: FaultyProxy, after: int, requests: int) -> None:
    with closing(open_source(bucket.put("a", DATA))) as source:
        faulty.will(Fault(after=after, times=3))
        with source.forward(70_000) as stream:
            assert stream.read() == DATA[70_000:]
        faulty.will(Fault(after=after, times=3))
        source.expect([(70_000, 2 << 20)])
        assert source.read_at(70_000, 2 << 20) == DATA[70_000:][: 2 << 20]
    assert len(faulty.requests) == requests


def test_a_connection_that_drops_again_and_again_is_given_up(bucket: Bucket, faulty: FaultyProxy) -> None:
    with closing(open_source(bucket.put("a", DATA))) as source:
        faulty.will(Fault(after=10, times=100))
        with pytest.raises(InputError, match=r"found a connection that dropped 8 times at byte 1048.*look at the network and run again"):
            source.read_at(1 << 20, 1000)
    assert len(faulty.requests) == 9


def test_a_body_that_stalls_is_asked_for_again(bucket: Bucket, faulty: FaultyProxy) -> None:
    aws.use(S3Options(read_seconds=0.3))
    with closing(open_source(bucket.put("a", DATA))) as source:
        faulty.will(Fault(after=200_000, seconds=1))
        assert source.forward(1).read() == DATA[1:]
    assert [method for method, _ in faulty.requests] == ["GET"] * 3


def test_a_store_that_asks_for_fewer_requests_is_asked_again_after_a_while(bucket: Bucket, faulty: FaultyProxy) -> None:
    uri = bucket.put("a", DATA)
    faulty.will(Fault(status=503, code="SlowDown", times=2))
    with closing(open_source(uri)) as source:
        assert source.read_at(0, 10) == DATA[:10]
    assert aws.requests["GetObject"] == 3


def test_a_store_that_goes_on_asking_for_fewer_requests_is_said_in_one_line(bucket: Bucket, faulty: FaultyProxy) -> None:
    aws.use(S3Options(attempts=2))
    faulty.will(Fault(status=503, code="SlowDown", times=2))
    with pytest.raises(InputError, match=r"found SlowDown .*the store asks for fewer requests, try later or with fewer workers"):
        open_source(bucket.uri("a"))


def test_a_store_that_is_away_for_a_while_is_waited_for(bucket: Bucket, faulty: FaultyProxy) -> None:
    uri = bucket.put("a", DATA)
    faulty.will(Fault(after=-1, times=2))
    with closing(open_source(uri)) as source:
        assert source.read_at(1 << 20, 10) == DATA[1 << 20 :][:10]


@pytest.mark.parametrize(
    ("status", "code", "says"),
    [
        (403, "AccessDenied", "look at the policy"),
        (400, "ExpiredToken", "refresh them"),
        (301, "PermanentRedirect", "set `s3.region` to the bucket's"),
        (400, "AuthorizationHeaderMalformed", "set `s3.region`"),
        (403, "InvalidObjectState", "restore it from Glacier first"),
        (404, "NoSuchBucket", "check its name and `s3.endpoint`"),
        (404, "NoSuchKey", "expected an object; check the key"),
        (404, "NoSuchVersion", "it has been deleted"),
        (403, "InvalidAccessKeyId", "check them and `s3.endpoint`"),
    ],
)
def test_what_a_store_refuses_is_one_line_that_says_what_to_do(
    bucket: Bucket, faulty: FaultyProxy, status: int, code: str, says: str
) -> None:
    faulty.will(Fault(method="", status=status, code=code, times=20))
    with pytest.raises(InputError) as caught:
        open_source(bucket.uri("a"))
    assert str(caught.value).startswith(f"{bucket.uri('a')}: found {code} (") and says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_real_store_says_what_is_not_there(bucket: Bucket) -> None:
    for uri, says in ((bucket.uri("nothing"), "NoSuchKey"), ("s3://no-such-bucket-of-ours/a", "NoSuchBucket")):
        with pytest.raises(InputError, match=says):
            open_source(uri)


def test_a_store_that_answers_with_other_bytes_than_asked_for_is_refused(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = bucket.put("a", DATA)
    with closing(open_source(uri)) as source:
        assert source.pin
        answer = bucket.client.get_object(Bucket=bucket.name, Key="a")
        monkeypatch.setattr(aws.client("s3"), "get_object", lambda **_: answer)
        with pytest.raises(InputError, match="found an answer with no range, expected bytes 10-19/3145728; use a store that gives ranges"):
            source.forward(10, 10).read()
    with pytest.raises(InputError, match="found another object than the one that was looked at"):
        open_source(uri, Pin(len(DATA), "another")).forward().read()


def test_the_sha256_is_what_the_store_has_recorded_and_nothing_is_downloaded_for_it(bucket: Bucket) -> None:
    bucket.client.put_object(Bucket=bucket.name, Key="a", Body=DATA, ChecksumAlgorithm="SHA256")
    bucket.put("b", DATA)
    for key, expected in (("a", hashlib.sha256(DATA).hexdigest()), ("b", "")):
        with closing(open_source(bucket.uri(key))) as source:
            before = aws.requests["bytes in"]
            assert sha256_of(source.uri, source.pin) == expected
            assert aws.requests["bytes in"] == before
