"""The one place that knows where bytes live: a URI goes in, ranged reads and forward streams come out.

`local.py` reads files, `s3.py` objects, through the windows of `windows.py` or, for HDF5, the blocks of `blocks.py`; `aws.py` is the
only import of boto3.
"""

from __future__ import annotations

import os
from pathlib import PurePath

from h5dat_lib.storage import local
from h5dat_lib.storage.blocks import BlockFile
from h5dat_lib.storage.copied import Copied
from h5dat_lib.storage.local import LocalSource
from h5dat_lib.storage.s3 import S3Source, listed, of_one_object, plain, sha256_in_store
from h5dat_lib.storage.source import Pin, Range, RangeStream, Source

__all__ = [
    "S3",
    "BlockFile",
    "Copied",
    "LocalSource",
    "Pin",
    "Range",
    "RangeStream",
    "Source",
    "is_folder",
    "is_remote",
    "listed",
    "name_of",
    "of_one_object",
    "open_source",
    "sha256_of",
]

S3 = "s3://"
"""What the URI of an object in S3 begins with."""


def is_remote(uri: str) -> bool:
    """Whether ``uri`` names something in S3, not on local disks."""
    return uri.startswith(S3)


def open_source(uri: str, pin: Pin | None = None) -> Source:
    """The object at ``uri``: a path on local disks, or ``s3://bucket/key``, with ``?versionId=`` for one version.

    ``pin`` is that of the source by which it was looked at before. Raises InputError when it is missing, not readable or no regular file.
    """
    return S3Source(uri, pin) if is_remote(uri) else LocalSource(uri)


def is_folder(uri: str) -> bool:
    """Whether ``uri`` is a folder: of local disks, or a prefix in S3, which ends with a slash, or a bucket. Looks at local disks only."""
    return uri.endswith("/") or uri.count("/") == S3.count("/") if is_remote(uri) else os.path.isdir(uri)


def name_of(uri: str) -> str:
    """The last part of a path or key."""
    return PurePath(plain(uri) if is_remote(uri) else uri).name


def sha256_of(uri: str, pin: Pin | None = None) -> str:
    """SHA-256 of all bytes, as hex. Of an object in S3 what the store has recorded, "" when it has not: none is downloaded for it."""
    return sha256_in_store(uri, pin) if pin else local.sha256_of(uri)
