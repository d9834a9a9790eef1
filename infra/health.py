"""The health check of every container: says by its exit code whether what `H5DAT_HEALTH` names is well.

A URL has to answer with success, a file to have been written in the last `H5DAT_HEALTH_SECONDS` (120): the heartbeat of a watcher. Needs
the standard library alone, since it runs every few seconds.
"""

from __future__ import annotations

import os
import sys
import time
import urllib.request


def fault(name: str, seconds: float) -> str | None:
    """What is wrong with a URL or a file, None when nothing is."""
    try:
        if name.startswith(("http://", "https://")):
            urllib.request.build_opener(urllib.request.ProxyHandler({})).open(name, timeout=5).close()
            return None
        age = time.time() - os.stat(name).st_mtime
    except OSError as exc:
        return f"{name}: {exc}"
    return None if age <= seconds else f"{name}: found a heartbeat {age:.0f} s old, expected one of the last {seconds:.0f} s"


if __name__ == "__main__":
    sys.exit(fault(os.environ["H5DAT_HEALTH"], float(os.environ.get("H5DAT_HEALTH_SECONDS", "120"))))
