"""Real servers for the tests: SeaweedFS for S3, moto for queues, topics and templates. Each on 127.0.0.1, stopped by its own process."""

from __future__ import annotations

import functools
import signal
from typing import Any

from samples.local_s3 import ACCESS, PROGRAM, REGION, SECRET, SeaweedFS, answering, credentials, free_ports

__all__ = ["ACCESS", "PROGRAM", "REGION", "SECRET", "SeaweedFS", "answering", "boto", "credentials", "free_ports", "heed_interrupts"]


@functools.cache
def boto(service: str, endpoint: str) -> Any:
    """A client of a test's own, which nothing of ours counts or configures."""
    import boto3

    return boto3.client(service, endpoint_url=endpoint, aws_access_key_id=ACCESS, aws_secret_access_key=SECRET, region_name=REGION)


def heed_interrupts() -> None:
    """For ``preexec_fn`` of a Prefect worker, which sends itself SIGINT when it gets SIGTERM: jobs in a shell's background ignore that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
