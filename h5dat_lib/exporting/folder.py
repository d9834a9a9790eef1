"""Rows -> a folder of files under the names of their members, those that were kept as they were byte for byte."""

from __future__ import annotations

from collections.abc import Sequence

from h5dat_lib.exporting.destination import Destination
from h5dat_lib.exporting.files import Part, Sources, named
from h5dat_lib.exporting.selection import ExportOptions, Split
from h5dat_lib.exporting.wholes import wholes

__all__ = ["write", "write_file"]


def write(splits: Sequence[Split], out: Destination, sources: Sources, options: ExportOptions) -> None:
    """Writes the files of all rows; those of a split into a folder of its name."""
    for split in splits:
        for each in split.tables:
            for part in wholes(each, sources):
                write_file(out, part, split.name, sources)


def write_file(out: Destination, part: Part, folder: str, sources: Sources) -> str:
    """Writes the file of a part; returns its path in the destination."""
    path = "/".join(filter(None, (folder, named(part))))
    with out.create(path) as made:
        for data in part.data:
            made.stream.write(data)
    sources.tally.identical += part.is_member
    sources.tally.renamed += not f"/{made.path}".endswith(f"/{part.member.name}")
    return made.path
