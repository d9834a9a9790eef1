"""The Prefect block that a configuration names for AWS -> the environment of this process, which its workers inherit."""

from __future__ import annotations

import os
from typing import Any

from h5dat_lib.config import S3Options
from h5dat_lib.errors import ConfigError
from h5dat_lib.storage import aws

__all__ = ["use_credentials"]


def use_credentials(options: S3Options) -> None:
    """Sets the AWS_* variables of this process from the block ``s3.credentials_block``; does nothing without one.

    To be called before anything asks for S3, where a Prefect API is configured. The values are nowhere but in the environment. Those of
    a role that the block assumes end with it, an hour by default. Raises ConfigError when there is no such block, or no package for it.
    """
    if options.credentials_block is None:
        return
    if options.profile is not None:
        raise ConfigError("s3: found both profile and credentials_block, expected one; leave one out")
    block = _loaded(options.credentials_block)
    os.environ.update(_environment(block, options.credentials_block))
    aws.client.cache_clear()  # what was made before has other credentials


def _loaded(name: str) -> Any:
    try:
        from prefect_aws import AwsCredentials
    except ImportError as exc:
        raise ConfigError(f"s3.credentials_block {name}: needs the package prefect-aws; install h5dat with its extra `aws`") from exc
    try:
        return AwsCredentials.load(name)
    except ValueError as exc:
        raise ConfigError(
            f"s3.credentials_block {name}: found no block `aws-credentials/{name}` on the Prefect server, expected one; make it in the UI"
        ) from exc


def _environment(block: Any, name: str) -> dict[str, str]:
    session = block.get_boto3_session()
    found = session.get_credentials()
    if found is None:
        raise ConfigError(f"s3.credentials_block {name}: found a block without credentials, expected a key or a role in it")
    keys = found.get_frozen_credentials()
    values = {
        "AWS_ACCESS_KEY_ID": keys.access_key,
        "AWS_SECRET_ACCESS_KEY": keys.secret_key,
        "AWS_SESSION_TOKEN": keys.token or "",
        "AWS_DEFAULT_REGION": session.region_name,
        "AWS_ENDPOINT_URL_S3": block.aws_client_parameters.endpoint_url,
    }
    return {variable: value for variable, value in values.items() if value is not None}
