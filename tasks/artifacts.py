"""What a run shows in the Prefect UI: progress that moves, a table of classes, the rejects, a contact sheet."""

from __future__ import annotations

import base64
import time
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import cast
from uuid import UUID

from prefect.artifacts import create_markdown_artifact, create_progress_artifact, create_table_artifact, update_progress_artifact

from h5dat_lib.pipeline import Progress, Report
from h5dat_lib.read.files import open as open_file
from h5dat_lib.reporting.contact_sheet import contact_sheet

_LEAST_SECONDS = 1.0
"""Time between two updates of the progress: one costs a request."""
_MOST_REJECTS = 1000
"""Rejects shown; all are in the file."""


class ProgressArtifact:
    """A progress artifact of the current flow run; call it with the progress of the run."""

    def __init__(self, output: str) -> None:
        self._id = cast(UUID, create_progress_artifact(0.0, description=f"Archives read into {output}"))
        self._next = 0.0

    def __call__(self, progress: Progress) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + _LEAST_SECONDS
            self._update(min(100.0 * progress.stored / max(progress.stored_total, 1), 99.0), progress)

    def finish(self, progress: Progress) -> None:
        """Shows that everything is in."""
        self._update(100.0, progress)

    def _update(self, percent: float, progress: Progress) -> None:
        update_progress_artifact(self._id, percent, description=_state(progress))


def _state(progress: Progress) -> str:
    rate = progress.bytes / max(progress.seconds, 1e-3) / 1e6
    return f"{progress.members} members, {progress.rows} rows, {progress.rejects} rejects, {rate:.1f} MB/s"


def publish_result(report: Report) -> None:
    """Publishes what a run made, as artifacts of the current flow run."""
    with open_file(report.path) as file:
        classes = file.describe()["classes"]
        rejects = [asdict(reject) for reject in islice(file.rejects(), _MOST_REJECTS)]
    rate = report.members / max(report.seconds, 1e-3)
    table = [{"class": entry["name"], "rows": entry["rows"], "bytes": entry["bytes"]} for entry in classes]
    total = {"class": "(all)", "rows": report.rows, "bytes": Path(report.path).stat().st_size}
    total |= {"rejects": report.rejects, "rate": f"{rate:,.0f} members/s"}
    create_table_artifact([*table, total], key="h5dat-classes", description=f"What {report.output} holds")
    if rejects:
        create_table_artifact(rejects, key="h5dat-rejects", description=f"Members that were not converted, at most {_MOST_REJECTS}")
    if sheet := contact_sheet(report.path):
        # In Markdown, because an image artifact prints its address below, here some 20,000 characters.
        picture = f"![The first pictures](data:image/jpeg;base64,{base64.b64encode(sheet).decode()})"
        create_markdown_artifact(picture, key="h5dat-contact-sheet", description="The first pictures")
