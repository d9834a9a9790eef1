"""What marks an HDF5 file as H5DAT's own, and which layout version it has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np

from h5dat_lib.errors import FormatError, InputError, OutputError
from h5dat_lib.journal import recover
from h5dat_lib.read.audit import audit
from h5dat_lib.storage import BlockFile

FORMAT = "h5dat"
FORMAT_VERSION = 1
"""Rises when a reader of the version before would read wrong values; see docs/format.md."""
_WRITER_SECONDS = 30
"""How long a reader waits for an ingest that is just committing; that takes a second or so."""


def open_readonly(path: Path | BlockFile, trusted: bool = False) -> h5py.File:
    """An HDF5 file opened for reading. Raises InputError when it is missing, FormatError when it is no HDF5, or is H5DAT's and cannot
    be read safely, or by this version; see `check_format`.
    """
    if isinstance(path, Path):
        _require_whole(path)
    try:
        file = h5py.File(path, "r")
    except BlockingIOError as exc:
        raise OutputError(f"{path}: is being written by another process; try again when that has ended") from exc
    except OSError as exc:
        raise FormatError(f"{path}: found a file that cannot be opened as HDF5, expected an H5DAT file ({exc})") from exc
    try:
        if has_mark(file):
            check_format(file, path, trusted)
    except FormatError:
        file.close()
        raise
    return file


def has_mark(file: h5py.File) -> bool:
    """Whether the file says that it is H5DAT's. Raises FormatError when that cannot be read."""
    return bool(_small_attribute(file, "format") == FORMAT)


def _require_whole(path: Path) -> None:
    if path.is_dir():
        raise InputError(f"{path}: found a folder, expected an H5DAT file")
    recover(path, _WRITER_SECONDS)
    if not path.exists():
        raise InputError(f"{path}: no such file, expected an H5DAT file; `h5dat ingest ARCHIVE -o {path}` makes one")


def check_format(file: h5py.File, path: object, trusted: bool = False) -> None:
    """Raises FormatError when the file is not H5DAT's, or of a newer layout than this library knows.

    Unless it is ``trusted``, also when reading it would touch other files, load code, or take memory out of proportion; see `audit`.
    Call it before anything else is read.
    """
    if not has_mark(file):
        raise FormatError(f"{path}: found an HDF5 file without H5DAT's mark, expected an H5DAT file; it is left as it is")
    version = _small_attribute(file, "format_version")
    if not isinstance(version, np.integer) or version > FORMAT_VERSION:
        raise FormatError(f"{path}: found layout version {version}, expected at most {FORMAT_VERSION}; update h5dat to read it")
    if not trusted:
        audit(file, path)


def table_attributes(table: Any) -> tuple[int, list[str]]:
    """Rows of a table, and the link names of its columns. Raises FormatError when the group does not say them."""
    where = f"{table.file.filename}, {table.name}"
    rows, links = attribute(table, "rows"), attribute(table, "columns")
    if not isinstance(table, h5py.Group) or not isinstance(rows, np.integer) or rows < 0 or not isinstance(links, np.ndarray):
        raise FormatError(f"{where}: found no table, expected a group with its rows and columns; make the file anew")
    return int(rows), [str(link) for link in links.flat]


def attribute(item: Any, name: str, otherwise: Any = None) -> Any:
    """An attribute of a group or a dataset. Raises FormatError when it cannot be read."""
    try:
        if name not in item.attrs:  # asked for, it would be an error, and h5py stumbles over its words when garbage is collected meanwhile
            return otherwise
        return item.attrs[name]
    except (OSError, RuntimeError) as exc:  # h5py raises either, according to what is damaged
        where = f"{item.file.filename}, {item.name}"
        raise FormatError(f"{where}: found damaged attributes ({exc}), expected them whole; make the file anew") from exc


def _small_attribute(file: h5py.File, name: str) -> Any:
    """A value of the file itself; None when there is none, or an array."""
    try:
        return file.attrs[name] if name in file.attrs and file.attrs.get_id(name).shape == () else None
    except (KeyError, OSError, RuntimeError) as exc:  # h5py raises any of them, according to what is damaged
        raise FormatError(f"{file.filename}: found a damaged HDF5 file, expected an H5DAT file ({exc})") from exc
