"""The flow that re-reads an output against its recorded checksums, shows the rows that are not as they were written, and fails on them."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import Any

from prefect import flow
from prefect.artifacts import create_table_artifact
from prefect.client.schemas.objects import State
from prefect.logging import get_run_logger
from prefect.states import Completed

from flows.credentials import use_credentials
from flows.unattended import final_failures, refuse_relative
from h5dat_lib.config import S3Options
from h5dat_lib.errors import FormatError, InputError
from h5dat_lib.landing.destined import below
from h5dat_lib.read.verification import Verified, verify
from h5dat_lib.storage import aws

_DEFAULTS = S3Options()
_MOST_SHOWN = 1000
"""Mismatches in the artifact."""


@flow(name="verify output", flow_run_name="{output}", persist_result=False, retries=1, retry_delay_seconds=60)
def verify_output(output: str, s3: S3Options = _DEFAULTS) -> State[Any]:
    """Reads every chunk of an output and compares its checksum; the run fails when one differs.

    Args:
        output: The HDF5 file: an absolute path, or `s3://bucket/key.h5`; several by `*` in it, `**` crosses folders.
        s3: How an output in S3 is reached.
    """
    with final_failures():
        refuse_relative(output)
        use_credentials(s3)
        aws.use(s3)
        return _told({path: _verified(path, s3) for path in _outputs(output)})


def _outputs(output: str) -> list[str]:
    fixed, star, _ = output.partition("*")
    if not star or os.path.exists(output):
        return [output]
    root = fixed.rpartition("/")[0] + "/"
    if not (found := [root + name for name in below(root, output.removeprefix(root))]):
        raise InputError(f"{output}: found no such file, expected one output or more; check the path")
    return found


def _verified(path: str, s3: S3Options) -> Verified:
    verified = verify(path, s3)
    get_run_logger().info("%s: %d chunks, %.1f MB, %d mismatches", path, verified.chunks, verified.bytes / 1e6, len(verified.mismatches))
    return verified


def _told(verified: dict[str, Verified]) -> State[Any]:
    """Publishes what is not as it was written. Raises FormatError when there is any."""
    mismatches = [(path, mismatch) for path, found in verified.items() for mismatch in found.mismatches]
    chunks = sum(found.chunks for found in verified.values())
    if not mismatches:
        return Completed(message=f"{chunks} chunks in {len(verified)} files are as they were written")
    table = [{"output": path, **asdict(mismatch)} for path, mismatch in mismatches[:_MOST_SHOWN]]
    create_table_artifact(table, key="h5dat-mismatches", description=f"Rows that are not as they were written, at most {_MOST_SHOWN}")
    path, first = mismatches[0]
    raise FormatError(f"{path}: {first.table}, {first.column}: {first.reason}; {len(mismatches)} of {chunks} chunks are not as written")
