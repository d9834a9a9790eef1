from __future__ import annotations

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError, ReadTimeoutError

from h5dat_lib.config import S3Options
from h5dat_lib.errors import ConfigError, InputError, OutputError
from h5dat_lib.storage import aws
from tests.conftest import Bucket


def test_requests_are_counted_by_operation(bucket: Bucket) -> None:
    bucket.put("a", b"data")
    with aws.explained(bucket.uri("a")):
        assert aws.client("s3").get_object(Bucket=bucket.name, Key="a")["Body"].read() == b"data"
    assert aws.requests == {"GetObject": 1}


def test_a_client_is_made_once_for_the_same_settings_and_anew_for_others(bucket: Bucket) -> None:
    first = aws.client("s3")
    aws.use(S3Options())
    assert aws.client("s3") is first
    aws.use(S3Options(region="eu-central-1"))
    assert aws.client("s3").meta.region_name == "eu-central-1"


def test_an_object_that_is_not_there_is_said_in_one_line(bucket: Bucket) -> None:
    with (
        pytest.raises(InputError, match=rf"{bucket.uri('a')}: found NoSuchKey .*, expected an object; check the key"),
        aws.explained(bucket.uri("a")),
    ):
        aws.client("s3").get_object(Bucket=bucket.name, Key="a")


def test_wrong_credentials_are_refused_and_not_shown(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another secret")
    aws.client.cache_clear()
    with pytest.raises(OutputError, match=r"SignatureDoesNotMatch|AccessDenied") as caught, aws.explained(bucket.uri("a"), OutputError):
        aws.client("s3").put_object(Bucket=bucket.name, Key="a", Body=b"")
    assert "another secret" not in str(caught.value)


def test_no_credentials_is_said_with_what_to_do(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    aws.client.cache_clear()
    with pytest.raises(InputError, match="no credentials, expected some; set a profile"), aws.explained(bucket.uri("a")):
        aws.client("s3").get_object(Bucket=bucket.name, Key="a")


def test_a_profile_that_is_not_there_is_a_fault_of_the_configuration(bucket: Bucket) -> None:
    aws.use(S3Options(profile="nobody"))
    with pytest.raises(ConfigError, match="nobody"):
        aws.client("s3")


def test_a_server_that_is_not_there_is_given_up_after_the_tries_that_are_set(monkeypatch: pytest.MonkeyPatch, bucket: Bucket) -> None:
    aws.use(S3Options(endpoint="http://127.0.0.1:9", attempts=2))
    with pytest.raises(InputError, match="Could not connect"), aws.explained(bucket.uri("a")):
        aws.client("s3").get_object(Bucket=bucket.name, Key="a")
    assert aws.requests["GetObject"] == 2


@pytest.mark.parametrize("uri", ["s3://", "s3:///key", "/a/file"])
def test_what_names_no_bucket_is_refused(uri: str) -> None:
    with pytest.raises(InputError, match="expected s3://bucket/key"):
        aws.split(uri)


def _answer(code: str, status: int) -> ClientError:
    return ClientError({"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}, "GetObject")


def _raised(error: Exception) -> None:
    try:
        with aws.explained("s3://b/k"):
            raise error
    except OSError as exc:
        raise InputError("other") from exc


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (_answer("SlowDown", 503), True),
        (_answer("InternalError", 500), True),
        (_answer("AccessDenied", 403), False),
        (_answer("NoSuchKey", 404), False),
        (EndpointConnectionError(endpoint_url="http://x"), True),
        (ReadTimeoutError(endpoint_url="http://x"), True),
        (NoCredentialsError(), False),
        (OSError("disk"), False),
    ],
    ids=str,
)
def test_whether_the_same_again_may_work_is_known_of_what_an_error_comes_from(error: Exception, passes: bool) -> None:
    with pytest.raises(InputError) as caught:
        _raised(error)
    assert aws.is_passing(caught.value) == passes
    assert aws.error_code(caught.value) == (error.response["Error"]["Code"] if isinstance(error, ClientError) else "")
