"""H5DAT's library: archives of mixed files -> HDF5, and back to arrays. It needs no Prefect.

import h5dat_lib

h5dat_lib.ingest("fashion.zip", "fashion.h5")
with h5dat_lib.open("fashion.h5") as f:
    print(f["images"].pixels[0].shape, f["images"].origin(0).member)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from h5dat_lib.config import Config
    from h5dat_lib.errors import H5datError
    from h5dat_lib.exporting import ExportOptions, export
    from h5dat_lib.pipeline import Progress, Report, Start, ingest
    from h5dat_lib.read.files import File, Reject, open
    from h5dat_lib.read.origins import Origin
    from h5dat_lib.read.tables import Table
    from h5dat_lib.read.verification import verify
    from h5dat_lib.reporting.page import report
    from h5dat_lib.reporting.statistics import statistics
    from h5dat_lib.retrying import retry
    from h5dat_lib.rewriting.difference import diff
    from h5dat_lib.rewriting.merging import merge
    from h5dat_lib.rewriting.repacking import Packing, repack
    from h5dat_lib.training.sampling import Shard, Shuffle

__all__ = [
    "Config",
    "ExportOptions",
    "File",
    "H5datError",
    "Origin",
    "Packing",
    "Progress",
    "Reject",
    "Report",
    "Shard",
    "Shuffle",
    "Start",
    "Table",
    "diff",
    "export",
    "ingest",
    "merge",
    "open",
    "repack",
    "report",
    "retry",
    "statistics",
    "verify",
]

_HOMES = {
    "Config": "config",
    "H5datError": "errors",
    "ExportOptions": "exporting",
    "export": "exporting",
    "Progress": "pipeline",
    "Report": "pipeline",
    "Start": "pipeline",
    "ingest": "pipeline",
    "File": "read.files",
    "Origin": "read.origins",
    "Reject": "read.files",
    "Table": "read.tables",
    "open": "read.files",
    "Packing": "rewriting.repacking",
    "diff": "rewriting.difference",
    "merge": "rewriting.merging",
    "repack": "rewriting.repacking",
    "report": "reporting.page",
    "retry": "retrying",
    "Shard": "training.sampling",
    "Shuffle": "training.sampling",
    "statistics": "reporting.statistics",
    "verify": "read.verification",
}


def __getattr__(name: str) -> Any:
    # Loaded when they are asked for: listing a file must not pay for loading every decoder.
    if name not in _HOMES:
        raise AttributeError(f"module 'h5dat_lib' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"h5dat_lib.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
