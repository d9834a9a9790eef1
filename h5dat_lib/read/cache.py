"""Inflated chunks that are kept, of all datasets of a file together, so that their bytes are bounded."""

from __future__ import annotations

from threading import Lock
from typing import Any


class ChunkCache:
    """Inflated chunks by dataset and number, at most ``most`` bytes of them: the one that was not asked for longest goes first."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._bytes = 0
        self._chunks: dict[tuple[str, int], Any] = {}
        self._lock = Lock()

    def get(self, key: tuple[str, int]) -> Any:
        """The chunk, or None."""
        with self._lock:
            chunk = self._chunks.pop(key, None)
            if chunk is not None:
                self._chunks[key] = chunk
        return chunk

    def put(self, key: tuple[str, int], chunk: Any) -> None:
        """Keeps a chunk, unless it alone is more than what may be kept."""
        if chunk.nbytes > self._most:
            return
        with self._lock:
            before = self._chunks.pop(key, None)
            self._bytes += chunk.nbytes - (0 if before is None else before.nbytes)
            self._chunks[key] = chunk
            while self._bytes > self._most:
                self._bytes -= self._chunks.pop(next(iter(self._chunks))).nbytes

    def clear(self) -> None:
        """Forgets all chunks."""
        with self._lock:
            self._chunks.clear()
            self._bytes = 0
