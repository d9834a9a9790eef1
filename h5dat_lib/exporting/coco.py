"""Rows of pictures -> JSON as COCO has it: images, categories from a column of labels, and an annotation for each picture that has one.

cocodataset.org/#format-data. A label holds for a whole picture: annotations have no boxes, since none are known.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

from h5dat_lib.errors import InputError, OutputError
from h5dat_lib.exporting.destination import Destination
from h5dat_lib.exporting.files import Part, Sources, parts
from h5dat_lib.exporting.folder import write_file
from h5dat_lib.exporting.selection import Chosen, ExportOptions, Split, label_of

__all__ = ["write"]

_IMAGES = "images"


def write(splits: Sequence[Split], out: Destination, sources: Sources, options: ExportOptions) -> None:
    """Writes ``annotations.json``, of splits ``annotations-NAME.json``, and with ``options.images`` the pictures into ``images/``.

    A destination that is one file is the JSON alone. Sizes are those of the pixels as they are read. Holds a few batches of rows.
    """
    if out.single and (options.images or len(splits) > 1):
        raise OutputError(f"{out.path}: found pictures or splits to write beside the JSON, expected a folder")
    chosen = [(split, [each for each in split.tables if _is_of_pictures(each, sources)]) for split in splits]
    if not any(tables for _, tables in chosen):
        raise InputError(f"{out.path}: found no class of pictures, expected one for COCO")
    for split, tables in chosen:
        name = out.path.name if out.single else f"annotations-{split.name}.json" if split.name else "annotations.json"
        with out.create(name) as made, tempfile.TemporaryFile(dir=out.folder) as annotations:
            _write_json(made.stream, annotations, _Pictures(tables, out, sources, options))


def _is_of_pictures(each: Chosen, sources: Sources) -> bool:
    sizes = [each.table[name].describe()["dtype"] for name in ("height", "width") if name in each.table.columns]
    if each.medium == "images" and sizes == ["uint32", "uint32"]:
        return True
    sources.tally.left_out[each.name, "they are no pictures with a height and a width"] += len(each.rows)
    return False


class _Pictures:
    """The pictures of several tables, their labels, and the categories of all of them by number from 1."""

    def __init__(self, tables: Sequence[Chosen], out: Destination, sources: Sources, options: ExportOptions) -> None:
        self._tables = tables
        self._out = out
        self._sources = sources
        self._images = options.images
        self._labels = {each.name: label_of(each.table, options) for each in tables}
        self.categories: dict[tuple[str, str], int] = {}
        for each in tables:
            if label := self._labels[each.name]:
                for name in each.table[label].categories:
                    self.categories.setdefault((label, name), len(self.categories) + 1)

    def each(self) -> Iterator[tuple[dict[str, Any], int | None]]:
        """COCO's record of each picture, without its number, and the number of its category."""
        for table in self._tables:
            for record, name in self._of_table(table):
                yield record, self.categories.get((self._labels[table.name] or "", name))

    def _of_table(self, each: Chosen) -> Iterator[tuple[dict[str, Any], str]]:
        label = self._labels[each.name]
        for rows in each.runs(["pixels"] if self._images else ["height"]):
            paths = self._paths(each, rows)
            columns = each.table.rows(rows, ["height", "width", *([label] if label else [])])
            names = columns[label] if label else [None] * len(rows)
            for row, height, width, name in zip(rows.tolist(), columns["height"], columns["width"], names, strict=True):
                if row in paths:
                    yield {"file_name": paths[row], "height": int(height), "width": int(width)}, name
            self._sources.tally.add(len(rows))

    def _paths(self, each: Chosen, rows: Any) -> dict[int, str]:
        """The path of the file of each row that has a picture, below ``images`` when they are written."""
        if not self._images:
            return {row: member.path for row, member in zip(rows.tolist(), self._sources.members.of(each, rows), strict=True)}
        return {part.row: self._written(part) for part in parts(each, rows, self._sources)}

    def _written(self, part: Part) -> str:
        return write_file(self._out, part, _IMAGES, self._sources).removeprefix(f"{_IMAGES}/")


def _write_json(stream: BinaryIO, annotations: BinaryIO, pictures: _Pictures) -> None:
    stream.write(b'{"images": [')
    number = labelled = 0
    for number, (record, category) in enumerate(pictures.each(), 1):
        stream.write(_item(number, {"id": number, **record}))
        if category is not None:
            labelled += 1
            annotations.write(_item(labelled, {"id": labelled, "image_id": number, "category_id": category}))
    stream.write(b'],\n"annotations": [')
    annotations.seek(0)
    shutil.copyfileobj(annotations, stream)
    categories = [{"id": number, "name": name, "supercategory": label} for (label, name), number in pictures.categories.items()]
    stream.write(b'],\n"categories": ' + json.dumps(categories, ensure_ascii=False).encode() + b"}\n")


def _item(number: int, record: dict[str, Any]) -> bytes:
    return (b",\n" if number > 1 else b"\n") + json.dumps(record, ensure_ascii=False).encode()
