"""What marks an HDF5 file as H5DAT's own, and which layout version it has."""

from __future__ import annotations

from pathlib import Path

import h5py

from h5dat_lib.errors import FormatError, InputError

FORMAT = "h5dat"
FORMAT_VERSION = 1
"""Rises when a reader of the version before would read wrong values; see docs/format.md."""


def open_readonly(path: Path) -> h5py.File:
    """An H5DAT file opened for reading. Raises InputError when it is missing, FormatError when it is not ours."""
    if not path.exists():
        raise InputError(f"{path}: no such file, expected an H5DAT file; `h5dat ingest ARCHIVE -o {path}` makes one")
    if path.is_dir():
        raise InputError(f"{path}: found a folder, expected an H5DAT file")
    try:
        file = h5py.File(path, "r")
    except OSError as exc:
        raise FormatError(f"{path}: found a file that cannot be opened as HDF5, expected an H5DAT file ({exc})") from exc
    try:
        check_format(file, path)
    except FormatError:
        file.close()
        raise
    return file


def check_format(file: h5py.File, path: Path) -> None:
    """Raises FormatError when the file is not H5DAT's, or of a newer layout than this library knows."""
    if file.attrs.get("format") != FORMAT:
        raise FormatError(f"{path}: found an HDF5 file without H5DAT's mark, expected an H5DAT file; it is left as it is")
    version = int(file.attrs["format_version"])
    if version > FORMAT_VERSION:
        raise FormatError(f"{path}: found layout version {version}, expected at most {FORMAT_VERSION}; update h5dat to read it")
