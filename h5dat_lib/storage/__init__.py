"""The one place that knows where bytes live: a URI goes in, ranged reads and forward streams come out.

`local.py` reads files, `aws.py` is the only import of boto3.
"""

from __future__ import annotations

import os

from h5dat_lib.errors import InputError
from h5dat_lib.storage.local import LocalSource, RangeStream, Source, sha256_of

__all__ = ["S3", "LocalSource", "RangeStream", "Source", "is_folder", "open_source", "sha256_of"]

S3 = "s3://"
"""What the URI of an object in S3 begins with."""


def open_source(uri: str) -> Source:
    """The object at ``uri``, a path on local disks. Raises InputError when it is missing, not readable or no regular file."""
    _local_only(uri)
    return LocalSource(uri)


def is_folder(uri: str) -> bool:
    """Whether ``uri`` is a folder of local disks; False when nothing is there. Raises InputError for another kind of storage."""
    _local_only(uri)
    return os.path.isdir(uri)


def _local_only(uri: str) -> None:
    if uri.startswith(S3):
        raise InputError(f"{uri}: found an S3 object, expected a local path; copy it to a local disk first")
