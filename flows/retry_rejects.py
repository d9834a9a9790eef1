"""The flow that converts the rejects of an output again: after an upgrade, or with higher limits, some may come in."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from flows.credentials import use_credentials
from flows.ingest_archives import carry_out
from flows.unattended import final_failures, refuse_relative
from h5dat_lib.config import Config
from h5dat_lib.pipeline import Report
from h5dat_lib.retrying import Retry, last_config


@flow(name="retry rejects", flow_run_name="{output}", persist_result=False, retries=1, retry_delay_seconds=60)
def retry_rejects(output: str, config: Config | None = None) -> Report | State[Any]:
    """Converts the rejects of an output again; what now works becomes rows. A run that was stopped ends as Cancelled.

    Args:
        output: The HDF5 file: an absolute path, or `s3://bucket/key.h5`.
        config: The configuration, meant to have other limits; that of the output's last run when not given.
    """
    with final_failures():
        refuse_relative(output)
        config = config or last_config(output)
        use_credentials(config.s3)
        with Retry(output, config) as run:
            return carry_out(run)
