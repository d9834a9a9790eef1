"""Rows -> Parquet: plain columns typed, categories as dictionaries, missing values as null, pictures and sound as files within.

The same as a data set of Hugging Face, which knows by the schema's metadata that such files are pictures and categories are labels
(huggingface.co/docs/datasets: about_dataset_features, repository_structure).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from h5dat_lib.columns import Array
from h5dat_lib.convert.ahead import ahead
from h5dat_lib.errors import OutputError
from h5dat_lib.exporting.destination import Destination
from h5dat_lib.exporting.files import FileOf, Sources, picture_files, sound_files, with_ending
from h5dat_lib.exporting.selection import BATCH_BYTES, Chosen, ExportOptions, Split
from h5dat_lib.read.arrow import arrow_array
from h5dat_lib.read.columns import Categorical, Ragged

__all__ = ["write", "write_huggingface"]

_GROUP_ROWS = 1 << 16
_FILE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
"""How Hugging Face and others hold a file in a column."""
_PICTURES, _SOUNDS = ("pixels", "summary"), ("samples", "audio_samples")
_CARD = "README.md"


@dataclass(frozen=True)
class _Column:
    """A column of the Parquet file: its type, what makes its values of rows, and what it is to Hugging Face."""

    type: pa.DataType
    values: Callable[[Array], pa.Array]
    feature: dict[str, Any]


def write(splits: Sequence[Split], out: Destination, sources: Sources, options: ExportOptions) -> None:
    """Writes a folder for each class, ``images/part-00000.parquet`` and so on, each file about ``shard_bytes``; of splits by their names.

    A destination that is one file takes the rows of one class. Holds a few batches of rows.
    """
    if out.single and (len(splits) > 1 or len(splits[0].tables) > 1):
        found = ", ".join(dict.fromkeys(each.name for split in splits for each in split.tables))
        raise OutputError(
            f"{out.path}: found {found} in {len(splits)} split(s), expected one class for one file; choose it, or give a folder"
        )
    for split in splits:
        for each in split.tables:
            columns = _columns(each, sources)
            schema = pa.schema([(name, column.type) for name, column in columns.items()])
            tables = _tables(each, columns, schema, sources)
            _write_files(tables, schema, out, f"{_folder(each)}/{split.name or 'part'}", options.shard_bytes)


def write_huggingface(splits: Sequence[Split], out: Destination, sources: Sources, options: ExportOptions) -> None:
    """The same, of splits or all as ``train``, with a README.md that tells `datasets.load_dataset` which files each class has."""
    for split in splits:
        for each in split.tables:
            columns = {name: _for_huggingface(each, name, column) for name, column in _columns(each, sources).items()}
            features = {name: column.feature for name, column in columns.items()}
            metadata = {"huggingface": json.dumps({"info": {"features": features}})}
            schema = pa.schema([(name, column.type) for name, column in columns.items()], metadata)
            tables = _tables(each, columns, schema, sources)
            _write_files(tables, schema, out, f"{_folder(each)}/{_split_name(split)}", options.shard_bytes)
    with out.create(_CARD) as made:
        made.stream.write(_card(splits).encode())


def _folder(each: Chosen) -> str:
    return re.sub(r"[^\w-]", "-", each.name)


def _split_name(split: Split) -> str:
    """A name that Hugging Face takes for one of a split: letters, digits, underscores."""
    return re.sub(r"\W", "_", split.name) or "train"


def _card(splits: Sequence[Split]) -> str:
    """YAML that JSON's strings are part of: which files are of which class and split."""
    files: dict[str, list[str]] = {}
    for split in splits:
        for each in split.tables:
            name = _split_name(split)
            path = f"{_folder(each)}/{name}-*.parquet"
            files.setdefault(_folder(each), []).append(f"  - split: {json.dumps(name)}\n    path: {json.dumps(path)}\n")
    lines = [f"- config_name: {json.dumps(name)}\n  data_files:\n{''.join(paths)}" for name, paths in files.items()]
    return f"---\nconfigs:\n{''.join(lines)}---\n"


# Files


def _write_files(tables: Iterator[pa.Table], schema: pa.Schema, out: Destination, name: str, most: int) -> None:
    """Files of about so many bytes, ``NAME-00000.parquet`` and so on, or the one file of the destination."""
    groups = _groups(ahead(tables))
    group, number = next(groups, None), 0
    while group is not None:
        path = out.path.name if out.single else f"{name}-{number:05d}.parquet"
        with out.create(path) as made, pq.ParquetWriter(made.stream, schema, compression="zstd") as writer:
            while group is not None:
                writer.write_table(group, row_group_size=len(group))
                group = next(groups, None)
                if not out.single and made.stream.tell() >= most:
                    break
        number += 1


def _tables(each: Chosen, columns: dict[str, _Column], schema: pa.Schema, sources: Sources) -> Iterator[pa.Table]:
    for rows in each.runs(each.table.columns):
        yield pa.table([column.values(rows) for column in columns.values()], schema)
        sources.tally.add(len(rows))


def _groups(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Row groups of about `BATCH_BYTES`, or `_GROUP_ROWS`."""
    held: list[pa.Table] = []
    for table in tables:
        held.append(table)
        if sum(part.nbytes for part in held) >= BATCH_BYTES or sum(map(len, held)) >= _GROUP_ROWS:
            yield pa.concat_tables(held)
            held = []
    if held:
        yield pa.concat_tables(held)


# Columns


def _columns(each: Chosen, sources: Sources) -> dict[str, _Column]:
    """All columns of a table, and before them those of its members that it has no column of that name for."""
    found = {name: _of_members(each, name, sources) for name in ("member", "key") if name not in each.table.columns}
    return found | {name: _column(each, name, sources) for name in each.table.columns}


def _column(each: Chosen, name: str, sources: Sources) -> _Column:
    if each.medium != "tables" and name in _PICTURES:
        return _Column(_FILE, partial(_pictures, each, name, sources), {"_type": "Image"})
    if each.medium != "tables" and name in _SOUNDS:
        return _Column(_FILE, partial(_sounds, each, name, sources), {"_type": "Audio"})
    if isinstance(each.table[name], Ragged):
        feature = {"feature": {"dtype": "float64", "_type": "Value"}, "_type": "Sequence"}
        return _Column(pa.list_(pa.float64()), partial(_lists, each, name), feature)
    values = partial(arrow_array, name, each.table[name])
    kind = values(np.empty(0, "i8")).type
    return _Column(kind, values, {"dtype": _VALUES.get(str(kind), str(kind)), "_type": "Value"})


_VALUES = {"double": "float64", "float": "float32", "halffloat": "float16", "date32[day]": "date32"}
"""Names of types that Hugging Face has others for than Arrow."""


def _for_huggingface(each: Chosen, name: str, column: _Column) -> _Column:
    """Categories as numbers of labels, which are named in the metadata."""
    found = each.table[name] if name in each.table.columns else None
    if not isinstance(found, Categorical):
        return column
    return _Column(pa.int64(), partial(_codes, found), {"names": found.categories, "_type": "ClassLabel"})


def _codes(column: Categorical, rows: Array) -> pa.Array:
    codes = column.codes[rows].astype("i8")
    return pa.array(codes, mask=codes < 0)


def _of_members(each: Chosen, name: str, sources: Sources) -> _Column:
    def values(rows: Array) -> pa.Array:
        return pa.array([getattr(member, {"member": "path"}.get(name, name)) for member in sources.members.of(each, rows)], pa.string())

    return _Column(pa.string(), values, {"dtype": "string", "_type": "Value"})


def _pictures(each: Chosen, name: str, sources: Sources, rows: Array) -> pa.Array:
    return _files(each, sources, rows, picture_files(each.table[name], rows, sources.encoders))


def _sounds(each: Chosen, name: str, sources: Sources, rows: Array) -> pa.Array:
    rate = name.replace("samples", "sample_rate")
    columns = each.table.rows(rows, [name, rate])
    return _files(each, sources, rows, sound_files(columns[name], columns[rate]))


def _files(each: Chosen, sources: Sources, rows: Array, files: Sequence[FileOf | None]) -> pa.Array:
    members = sources.members.of(each, rows)
    return pa.array(
        [
            None if file is None else {"bytes": file.data, "path": with_ending(member.path, file.ending)}
            for file, member in zip(files, members, strict=True)
        ],
        _FILE,
    )


def _lists(each: Chosen, name: str, rows: Array) -> pa.Array:
    values = each.table[name].rows(rows)
    return pa.array([None if value is None else value.ravel().astype("f8") for value in values], pa.list_(pa.float64()))
