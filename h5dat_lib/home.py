"""The folder of what outlives a run."""

from __future__ import annotations

import os
import sys
from pathlib import Path

__all__ = ["home"]


def home() -> Path:
    """``$H5DAT_HOME``, or ``h5dat`` where the platform keeps a user's data."""
    if chosen := os.environ.get("H5DAT_HOME"):
        return Path(chosen).expanduser().absolute()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "h5dat"
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "h5dat"
