"""Retries: what may pass is tried again, what will not is not."""

from __future__ import annotations

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from prefect.states import Failed

from h5dat_lib.errors import InputError, OutputError
from tasks.batches import may_pass


def _caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (OSError("a disk that is slow to wake"), True),
        (_caused(InputError("a.zip: cannot be read"), OSError("input/output error")), True),
        (_caused(InputError("s3://b/a.zip: found SlowDown"), ClientError({"Error": {"Code": "SlowDown"}}, "GetObject")), True),
        (_caused(InputError("s3://b/a.zip: no answer"), EndpointConnectionError(endpoint_url="http://s3")), True),
        (_caused(InputError("s3://b/a.zip: replaced"), ClientError({"Error": {"Code": "PreconditionFailed"}}, "GetObject")), False),
        (InputError("a.zip: no such file"), False),
        (_caused(OutputError("a batch cannot be staged"), OSError("no space left on device")), False),
        (ValueError("a fault of ours"), False),
    ],
)
def test_a_batch_is_tried_again_when_reading_failed_and_not_otherwise(error: Exception, again: bool) -> None:
    assert may_pass(None, None, Failed(data=error)) is again  # type: ignore[arg-type]
