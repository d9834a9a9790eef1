"""An object in S3 -> a file object for HDF5, which reads here and there: blocks of 1 MiB are fetched once and kept, on disk if asked."""

from __future__ import annotations

import io
import json
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import astuple
from pathlib import Path

from h5dat_lib.errors import ConfigError
from h5dat_lib.storage import aws
from h5dat_lib.storage.block_cache import BlockCache
from h5dat_lib.storage.s3 import S3Source

__all__ = ["BlockFile"]

_BLOCK_BYTES = 1 << 20
"""As large as a page of the files that are written here, in which small things lie together."""
_KEPT = 64
"""Blocks that are kept, those used last."""


class BlockFile(io.RawIOBase):
    """The object at ``uri``, to be read at any place; holds 64 MiB. Raises InputError, which passes through h5py as it is.

    All is of the version that was there at first. ``size`` is in bytes. Blocks are also kept below ``folder``, if one is given, which
    takes up to ``most_bytes`` of the disk.
    """

    def __init__(self, uri: str, folder: Path | None = None, most_bytes: int = 0) -> None:
        before = aws.traffic()
        self._source = S3Source(uri, head_bytes=_BLOCK_BYTES)
        self.size = self._source.size
        self._blocks: OrderedDict[int, bytes | memoryview] = OrderedDict()
        if self.size:
            self._blocks[0] = self._source.read_at(0, _BLOCK_BYTES)
        self._disk = _on_disk(self._source, folder, most_bytes) if folder else None
        self.requests = aws.traffic(before)[0]
        """Sent for this file so far."""
        # A garbage collection between HDF5's seek and its read may close a dataset, for which HDF5 seeks and reads elsewhere.
        self._wanted = [0]
        self._told = 0
        self._next = -1
        self._growing = 1

    def __repr__(self) -> str:
        return self._source.uri  # what h5py takes for the name of the file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._told

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Says where the next read begins; from the end, it is for `tell` only, as HDF5 asks for the size so."""
        self._told = offset + (self.size if whence == io.SEEK_END else 0)
        if whence == io.SEEK_SET:
            self._wanted.append(offset)
        return self._told

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        start = self._wanted.pop() if len(self._wanted) > 1 else self._wanted[0]  # without a seek, where the last one ended
        end = min(start + len(buffer), self.size)
        if end <= start:
            return 0
        at = 0
        for piece in self._pieces(start, end):
            buffer[at : at + len(piece)] = piece
            at += len(piece)
        self._wanted[0] = end
        return at

    def close(self) -> None:
        if not self.closed:
            self._source.close()
            self._blocks.clear()
            if self._disk:
                self._disk.close()
        super().close()

    def _pieces(self, start: int, end: int) -> Iterator[bytes | memoryview]:
        numbers = range(start // _BLOCK_BYTES, -(-end // _BLOCK_BYTES))
        number = numbers.start
        while number < numbers.stop:
            if number not in self._blocks and not self._is_from_disk(number):
                wanted = numbers[number - numbers.start :]
                self._fetch(range(number, next((later for later in wanted[1:] if self._is_here(later)), numbers.stop)))
            self._blocks.move_to_end(number)
            base = number * _BLOCK_BYTES
            yield self._blocks[number][max(start - base, 0) : end - base]
            number += 1

    def _is_here(self, number: int) -> bool:
        return number in self._blocks or (self._disk is not None and number in self._disk)

    def _is_from_disk(self, number: int) -> bool:
        """Takes a block from the disk, if it is there."""
        data = self._disk.get(number) if self._disk else None
        if data is not None:
            self._keep(number, data)
        return data is not None

    def _keep(self, number: int, data: bytes) -> None:
        self._blocks[number] = data
        while len(self._blocks) > _KEPT:
            self._blocks.popitem(last=False)

    def _fetch(self, numbers: range) -> None:
        """Neighbouring blocks by one request, no more than a quarter of what is kept; more and more while they are read in order."""
        self._growing = min(2 * self._growing, _KEPT // 4) if numbers.start == self._next else 1
        first, last = numbers.start, min(max(numbers.stop, numbers.start + self._growing), numbers.start + max(_KEPT // 4, 1))
        last = min(last, -(-self.size // _BLOCK_BYTES))
        last = self._next = next((later for later in range(numbers.stop, last) if self._is_here(later)), last)
        start = first * _BLOCK_BYTES
        before = aws.traffic()
        data = self._source.fetch(start, min(last * _BLOCK_BYTES, self.size) - start)
        self.requests += aws.traffic(before)[0]
        for number in range(first, last):
            at = (number - first) * _BLOCK_BYTES
            block = bytes(data[at : at + _BLOCK_BYTES])  # a view would keep its neighbours, too
            self._keep(number, block)
            if self._disk:
                self._disk.put(number, block)


def _on_disk(source: S3Source, folder: Path, most_bytes: int) -> BlockCache:
    assert source.pin
    try:
        return BlockCache(folder, json.dumps([source.uri, *astuple(source.pin)]), _BLOCK_BYTES, most_bytes)
    except OSError as exc:
        raise ConfigError(f"{folder}: cannot hold blocks of {source.uri} ({exc.strerror}); give `s3.blocks_dir` another folder") from exc
