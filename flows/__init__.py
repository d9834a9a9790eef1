"""Prefect flows, and the command line that runs them. Importing this does not import Prefect.

import flows

flows.ingest("fashion.zip", "fashion.h5")    # on the configured Prefect server, or on one started for the run
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flows.local import ingest

__all__ = ["ingest"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'flows' has no attribute {name!r}")
    return getattr(importlib.import_module("flows.local"), name)
