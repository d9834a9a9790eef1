"""A file, and what the object holds -> the object, equal to the file: one request for a small file, else an upload in parts.

What is to come is noted before it is sent, with the upload's id, so that whoever comes after a kill goes on with it or ends it.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from h5dat_lib.errors import Interrupted, OutputError
from h5dat_lib.storage import Source, aws
from h5dat_lib.sync.digests import NOTHING, Digests
from h5dat_lib.sync.parts import LEAST_BYTES, Part, parts_of
from h5dat_lib.sync.remote import Remote, code_of
from h5dat_lib.sync.state import State

__all__ = ["Upload", "end_noted"]

_SMALL_BYTES = 2 * LEAST_BYTES
"""A file up to here is sent whole: at most one part of it could be copied."""
_AT_ONCE = 4
"""Parts under way at once."""
_LOST = {"412", "PreconditionFailed", "404", "NoSuchKey", "NoSuchUpload"}
"""Answers to a condition that does not hold: another has replaced the object, or we ourselves have, and the answer went lost."""
_NO_COPIES = {"NotImplemented", "501", "MethodNotAllowed", "405"}
_NO_WHOLE_CHECKSUM = _NO_COPIES | {"BadDigest", "InvalidDigest", "InvalidRequest", "InvalidArgument"}


@dataclass
class Upload:
    """One replacing of an object, on condition that it is still the one of ``state``. ``save`` keeps a new state durably."""

    remote: Remote
    source: Source
    new: Digests
    state: State
    save: Callable[[State], None]
    stop: threading.Event
    _copies: bool = True

    def run(self) -> str:
        """Returns the object's new ETag. Raises OutputError when it has been replaced, or the store cannot be reached; Interrupted."""
        if self.new.size <= _SMALL_BYTES:
            return self._put()
        try:
            return self._in_parts(self.state.digests, whole_checksum=True)
        except OutputError as exc:
            if code_of(exc) not in _NO_WHOLE_CHECKSUM:
                raise
        self.remote.note_without("checksums of whole objects: everything was sent, each part with its own")
        return self._in_parts(NOTHING, whole_checksum=False)

    def _put(self) -> str:
        self._keep(end_noted(self.remote, self.state))
        self._note(coming=self.new, began=time.time())
        crc = self.new.crc_of(0, self.new.size)
        return self._arrived(lambda: self.remote.put(self.source.stream(), self.new.size, self.new.name, crc, self.state.etag))

    def _in_parts(self, old: Digests, whole_checksum: bool) -> str:
        parts = parts_of(self.new, old)
        plan = hashlib.sha256(f"{self.new.name} {whole_checksum} {parts}".encode()).hexdigest()
        there = self._resumed(plan)
        if there is None:
            self._begin(plan, whole_checksum)
        crc = self.new.crc_of(0, self.new.size) if whole_checksum else None
        try:
            sent = self._transfer(parts, there or {})
            return self._arrived(lambda: self.remote.complete(self.state.upload, sent, crc, self.state.etag))
        except BaseException as exc:
            if not aws.is_passing(exc.__cause__):
                with suppress(OutputError):  # it stays noted
                    self._keep(end_noted(self.remote, self.state))
            raise

    def _resumed(self, plan: str) -> dict[int, tuple[str, int]] | None:
        """The parts that have arrived of the noted upload; None when that was of others, or is no more."""
        if self.state.upload and self.state.plan == plan:
            try:
                return self.remote.parts(self.state.upload)
            except OutputError as exc:
                if code_of(exc) not in _LOST:
                    raise
        return None

    def _begin(self, plan: str, whole_checksum: bool) -> None:
        self._keep(end_noted(self.remote, self.state))
        self._note(coming=self.new, began=time.time(), plan=plan)
        self._note(upload=self.remote.begin(self.new.name, whole_checksum))

    def _transfer(self, parts: list[Part], there: Mapping[int, tuple[str, int]]) -> list[tuple[int, str, int]]:
        """Sends and copies what is not there yet; returns numbers, ETags and CRC-32s of all parts."""
        with ThreadPoolExecutor(_AT_ONCE, "sync") as pool:
            futures = [pool.submit(self._part, part, there.get(part.number, ("", 0))) for part in parts]
            try:
                wait(futures, return_when=FIRST_EXCEPTION)
            finally:
                pool.shutdown(cancel_futures=True)
        failed = [exc for future in futures if not future.cancelled() and (exc := future.exception())]
        if failed:
            raise failed[0]
        return [future.result() for future in futures]

    def _part(self, part: Part, there: tuple[str, int]) -> tuple[int, str, int]:
        if self.stop.is_set():
            raise Interrupted(f"{self.remote.uri}: stopped while it was being synced; it is as it was, and the commits stay here")
        crc = self.new.crc_of(part.start, part.size)
        etag = there[0] if there[1] == part.size else self._copy(part) or self._send(part, crc)
        return part.number, etag, crc

    def _copy(self, part: Part) -> str:
        """Copies a part within the store; "" when it is to be sent."""
        if not part.copied or not self._copies:
            return ""
        try:
            return self.remote.copy(self.state.upload, part.number, part.start, part.size, self.state.etag)
        except OutputError as exc:
            if code_of(exc) in _LOST - {"NoSuchUpload"}:
                raise self.remote.replaced() from exc
            if code_of(exc) not in _NO_COPIES:
                raise
        self._copies = False
        self.remote.note_without("copies of parts: what was there already was sent too")
        return ""

    def _send(self, part: Part, crc: int) -> str:
        return self.remote.send(self.state.upload, part.number, self.source.stream(part.start, part.size), part.size, crc)

    def _arrived(self, replace: Callable[[], str]) -> str:
        """The ETag of the object that has been replaced now, or before, when the answer to that went lost."""
        try:
            return replace()
        except OutputError as exc:
            if code_of(exc) not in _LOST:
                raise
            found = self.remote.find()
            if found and found.content == self.new.name:
                return found.etag
            if (found.etag if found else "") == self.state.etag:
                raise  # the upload is gone: to be begun anew
            raise self.remote.replaced() from exc

    def _note(self, **changes: Any) -> None:
        self._keep(self.state.model_copy(update=changes))

    def _keep(self, state: State) -> None:
        self.state = state
        self.save(state)


def end_noted(remote: Remote, state: State) -> State:
    """Ends the upload that is noted, also one of which the id could not be noted any more; returns the state without it."""
    if state.plan:
        for upload in [state.upload] if state.upload else remote.uploads_since(state.began):
            remote.abort(upload)
    return state.model_copy(update={"coming": None, "plan": "", "upload": ""})
