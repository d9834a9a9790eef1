"""The rejects of an output, converted again: after an upgrade, or with a higher limit, some may come in."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from h5dat_lib.archive import open_archive
from h5dat_lib.archive.member import Archive
from h5dat_lib.config import Config
from h5dat_lib.errors import InputError
from h5dat_lib.pipeline import Ingest, Progress, Report
from h5dat_lib.plan.batches import Done
from h5dat_lib.read.history import KnownArchive, Rejected, history, recorded_config, rejected
from h5dat_lib.stage.workers import direct_workers
from h5dat_lib.storage import is_remote, sha256_of
from h5dat_lib.sync import restored

__all__ = ["Retry", "last_config", "retry"]


def retry(output: str | Path, config: Config | None = None, observe: Callable[[Progress], None] | None = None) -> Report:
    """Converts the rejects of an output again; what works becomes rows, at the end of their tables, and is a reject no longer.

    Without a configuration, that of the output's last run is used; one with other ``limits`` is meant to be given. Members of
    which some records are in are not among them. Raises what `h5dat_lib.ingest` raises.
    """
    with Retry(output, config) as run, direct_workers(run.config, run.folder) as convert:
        return run.run(convert, run.commit, observe)


class Retry(Ingest):
    """A run on the members of an output that were rejected; what comes in is marked there in the same transaction.

    Archives that are gone or have changed are left out, and named among the damaged. Raises InputError or FormatError for a file
    that is not H5DAT's.
    """

    def __init__(self, output: str | Path, config: Config | None = None) -> None:
        super().__init__((), output, config or last_config(output))

    def _prepare(self) -> None:
        self._refuse_other_configuration()
        for number, found in enumerate(rejected(self.path)):
            self.uris.append(found.archive.uri)
            try:
                archive = open_archive(found.archive.uri, self.config.limits, self._output.own_paths)
                _refuse_changed(archive, found.archive)
            except InputError as exc:
                self._unusable.append(str(exc))
                continue
            self._plan_again(archive, number, found)
        self._count_plans()

    def _plan_again(self, archive: Archive, number: int, found: Rejected) -> None:
        # Of its own, so that it does not count among what is in of the archive from its first member on.
        fingerprint = hashlib.sha256(f"{found.archive.fingerprint} {self.record.run_id}".encode()).hexdigest()
        self._plan(archive, number, Done(fingerprint), found.members)
        self._records[number].retry_of = found.row
        self._output.rejected[number] = found.members


def last_config(output: str | Path) -> Config:
    """The configuration of an output's last run. Raises ConfigError when this version cannot read it."""
    configuration = history(restored(str(output)) if is_remote(str(output)) else Path(output)).configuration
    if not configuration:
        raise InputError(f"{output}: found no run in it, so there are no rejects to try again")
    return recorded_config(output, configuration)


def _refuse_changed(archive: Archive, known: KnownArchive) -> None:
    if archive.fingerprint() != known.fingerprint and not (known.sha256 and sha256_of(archive.uri, archive.pin) == known.sha256):
        raise InputError(f"{archive.uri}: has changed since it came in, so its rejects cannot be tried again; ingest it")
