"""A file -> what other programs read: a folder, tar shards, Parquet, COCO's JSON. One file a form, and one table of forms.

A form is given the rows that are asked for and a destination that is complete or not there; it holds a few batches of rows.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from h5dat_lib.errors import ConfigError, InputError
from h5dat_lib.exporting import coco, folder, parquet, webdataset
from h5dat_lib.exporting.destination import Destination, safe_path
from h5dat_lib.exporting.files import Encoders, Sources
from h5dat_lib.exporting.selection import ExportOptions, Members, Split, Tally, Watch, select
from h5dat_lib.read.files import open_tables

if TYPE_CHECKING:
    from h5dat_lib.config import S3Options

__all__ = ["FORMS", "ExportOptions", "Exported", "LeftOut", "export"]


@dataclass(frozen=True)
class Form:
    """What rows can become: what writes it, and the ending of a destination that is one file of it, "" where there is none."""

    write: Callable[[Sequence[Split], Destination, Sources, ExportOptions], None]
    ending: str = ""


FORMS: dict[str, Form] = {
    "folder": Form(folder.write),
    "webdataset": Form(webdataset.write, ".tar"),
    "parquet": Form(parquet.write, ".parquet"),
    "huggingface": Form(parquet.write_huggingface),
    "coco": Form(coco.write, ".json"),
}


@dataclass(frozen=True)
class LeftOut:
    """Rows that were not exported, of a class, and why."""

    name: str
    rows: int
    reason: str


@dataclass(frozen=True)
class Exported:
    """What an export has made: ``files`` and their ``bytes`` from so many ``rows``.

    ``identical`` files are their members byte for byte; ``renamed`` have another name than their member. A folder's alone count these.
    """

    path: str
    form: str
    files: int
    bytes: int
    rows: int
    identical: int
    renamed: int
    left_out: list[LeftOut]
    seconds: float


def export(
    file: str | Path,
    dest: str | Path,
    to: str = "",
    options: ExportOptions | None = None,
    *,
    s3: S3Options | None = None,
    watch: Watch | None = None,
) -> Exported:
    """Writes rows of a file, on a local disk or in S3, into the local folder or file ``dest`` in a form of `FORMS`: docs/export.md.

    Without ``to`` the ending of ``dest`` says the form, and without one it is a folder. ``dest`` must be new or an empty folder; it is
    there once it is complete. ``watch`` is told how many rows are done, of how many.

    Raises ConfigError for a form or options that cannot be, OutputError for a destination that cannot be written, InputError for
    classes, columns and conditions that there are none of, or when no row can be of that form, FormatError for damage.
    """
    start = time.monotonic()
    name = to or _told(Path(dest))
    if name not in FORMS:
        raise ConfigError(f"--to: found {name!r}, expected one of {', '.join(FORMS)}")
    asked, tally, form = options or ExportOptions(), Tally(watch), FORMS[name]
    out = Destination(dest, single=bool(form.ending) and Path(dest).suffix.lower() == form.ending)
    with open_tables(file, s3) as opened:
        splits = [Split(safe_path(split.name) if split.name else "", split.tables) for split in select(opened, asked, tally)]
        tally.total = sum(len(each.rows) for split in splits for each in split.tables)
        with out, Encoders() as encoders:
            form.write(splits, out, Sources(Members(opened, splits), encoders, tally), asked)
            if not out.files:
                reasons = ", ".join(dict.fromkeys(reason for _, reason in tally.left_out)) or "there are no values"
                raise InputError(f"{file}: found nothing for {name} in the rows ({reasons}), expected some; choose another form")
    left_out = [LeftOut(each, rows, reason) for (each, reason), rows in tally.left_out.items() if rows]
    seconds = time.monotonic() - start
    return Exported(str(dest), name, out.files, out.bytes, tally.rows, tally.identical, tally.renamed, left_out, seconds)


def _told(dest: Path) -> str:
    """The form that the ending of a destination tells."""
    return next((name for name, form in FORMS.items() if form.ending and dest.suffix.lower() == form.ending), "folder")
