"""A URI -> the archive that is there, recognised by its content first and its name second, and the reader of its members."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import BinaryIO, cast

from h5dat_lib.archive.folder import FolderArchive, FolderReader
from h5dat_lib.archive.member import HEAD_BYTES, Archive, SourceReader
from h5dat_lib.archive.prefix import PrefixArchive, PrefixReader
from h5dat_lib.archive.single import SingleArchive, SingleReader
from h5dat_lib.archive.stream import Codec, Decompressed, packed_by, read_whole
from h5dat_lib.archive.tar import PackedTarArchive, TarArchive, TarReader, is_tar_header
from h5dat_lib.archive.zip import ZipArchive, ZipReader, has_directory, looks_like_zip
from h5dat_lib.config import Limits
from h5dat_lib.errors import InputError, MemberError
from h5dat_lib.storage import Pin, Source, is_folder, is_remote, name_of, open_source

__all__ = ["is_container", "open_archive", "open_reader"]

_READERS: dict[str, type[ZipReader] | type[TarReader] | type[FolderReader]] = {
    "zip": ZipReader,
    "tar": TarReader,
    "folder": FolderReader,
}
"""Every other kind is a single file."""
_LIMITS = Limits()
_KINDS = {"gzip": "gz", "bzip2": "bz2", "xz": "xz", "zstd": "zst"}
_FOREIGN = {"7z": b"7z\xbc\xaf\x27\x1c", "rar": b"Rar!\x1a\x07"}
# Longer suffixes first
_NAMED = {
    ".tar.gz": "tar.gz", ".tgz": "tar.gz", ".tar.bz2": "tar.bz2", ".tbz2": "tar.bz2", ".tbz": "tar.bz2", ".tar.xz": "tar.xz",
    ".txz": "tar.xz", ".tar.zst": "tar.zst", ".tzst": "tar.zst", ".tar": "tar", ".zip": "zip", ".gz": "gz", ".bz2": "bz2",
    ".xz": "xz", ".zst": "zst", ".zstd": "zst",
}  # fmt: skip
_BLOCK = 512


def open_archive(uri: str | Path, limits: Limits, left_out: frozenset[str] = frozenset()) -> Archive:
    """The archive at ``uri``: a folder, zip, tar, compressed tar, compressed file, or else a single file.

    ``left_out`` are real paths, and URIs in S3, that are no members of a folder.

    Raises InputError when nothing usable is there: missing, not readable, empty, cut short, of a container that is not
    supported, or not what its name says.
    """
    uri = str(uri)
    if is_folder(uri):
        return (PrefixArchive if is_remote(uri) else FolderArchive)(uri, limits, left_out)
    with closing(open_source(uri)) as source:
        head = source.read_at(0, HEAD_BYTES)
        if not head:
            raise InputError(f"{uri}: found an empty file, expected an archive; copy it again")
        if looks_like_zip(head):
            return ZipArchive(source, limits)
        if is_tar_header(head[:_BLOCK]):
            return TarArchive(source, limits)
        if codec := packed_by(head):
            return _packed(source, codec, limits)
        if has_directory(source):
            return ZipArchive(source, limits)
        return _by_name(source, head, limits)


def open_reader(kind: str, uri: str, limits: Limits = _LIMITS, pin: Pin | None = None) -> SourceReader:
    """What reads members of an archive of this kind that is not streamed; a spool is read as a tar. Raises InputError."""
    reader = PrefixReader if kind == "folder" and is_remote(uri) else _READERS.get(kind)
    return reader(uri, pin) if reader else SingleReader(uri, limits, pin)


def is_container(head: bytes) -> str | None:
    """Which container a member's first bytes show, or None: zip, tar, gzip, bzip2, xz, zstd, 7z or rar."""
    if looks_like_zip(head):
        return "zip"
    # The mark of POSIX and GNU tars first: computing the checksum of every member's head would cost as much as reading a small one.
    if head[257:262] == b"ustar" and is_tar_header(head[:_BLOCK]):
        return "tar"
    if codec := packed_by(head):
        return codec.name
    return next((name for name, magic in _FOREIGN.items() if head.startswith(magic)), None)


def _packed(source: Source, codec: Codec, limits: Limits) -> Archive:
    kind = _KINDS[codec.name]
    named = _kind_by_name(source.uri) or ""
    try:
        with Decompressed(source.stream(), codec) as stream:  # not forward: the first bytes are here already
            block = read_whole(cast(BinaryIO, stream), _BLOCK - 1)
    except MemberError as exc:
        if named.startswith("tar"):
            raise InputError(f"{source.uri}: {exc.reason}; copy it again") from exc
        block = b""
    if is_tar_header(block) or (named.startswith("tar") and _is_zero_block(block)):
        return PackedTarArchive(source, f"tar.{kind}", codec.name, limits)
    if named.startswith("tar"):
        raise _not_as_named(source.uri, named, block)
    return SingleArchive(source, kind, codec.name, limits)


def _by_name(source: Source, head: bytes, limits: Limits) -> Archive:
    """An archive that its content does not tell: an empty tar, or a single file that does not claim to be more."""
    uri = source.uri
    foreign = next((name for name, magic in _FOREIGN.items() if head.startswith(magic)), None)
    if foreign:
        raise InputError(f"{uri}: found a {foreign} archive, expected a zip, tar, gz, bz2, xz or zst; unpack it and give the folder")
    named = _kind_by_name(uri)
    if named == "tar" and _is_zero_block(head[:_BLOCK]):
        return TarArchive(source, limits)
    if named:
        raise _not_as_named(uri, named, head)
    return SingleArchive(source, "file", "stored", limits)


def _kind_by_name(uri: str) -> str | None:
    return next((kind for suffix, kind in _NAMED.items() if name_of(uri).lower().endswith(suffix)), None)


def _is_zero_block(block: bytes) -> bool:
    """Whether a block marks the end of a tar (POSIX pax, ustar Interchange Format)."""
    return len(block) == _BLOCK and not any(block)


def _not_as_named(uri: str, named: str, found: bytes) -> InputError:
    return InputError(f"{uri}: found {found[:16]!r} at its start, expected a {named} by its name; copy it again or give it its right name")
