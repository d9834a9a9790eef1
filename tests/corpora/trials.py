"""A file, or all files of a suite, in; what became of each, and what is wrong with that, out."""

from __future__ import annotations

import json
import re
import time
import warnings
import zipfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

import h5dat_lib
from h5dat_lib.config import Config, parse
from h5dat_lib.errors import H5datError
from h5dat_lib.lineage import ARCHIVES, MEMBERS
from h5dat_lib.read.files import File
from tests.convert.test_image import reference
from tests.corpora.suites import Suite, expected
from tests.fuzz.children import at_most, in_child

SECONDS = 20
MEGABYTES = 600
"""What a file may take above an idle process."""
_ADDRESSES = 8 << 30
_PICTURES = ("JPEG", "PNG", "BMP", "DIB", "GIF", "TIFF", "WEBP")
_UNFORESEEN = re.compile(r"\w+(Error|Exception|Warning): ")
"""How a reject begins whose error nobody had thought of."""
_DEATHS = ("crashed", "timed out", "out of memory")


@dataclass(frozen=True)
class Outcome:
    """What became of a file: ``rows`` (how many), ``reject`` or ``error`` (why), or ``none``. ``faults`` is what is wrong with that."""

    kind: str
    detail: str
    seconds: float = 0.0
    megabytes: float = 0.0
    faults: tuple[str, ...] = ()

    def line(self, name: str, way: str) -> str:
        """One line of the report."""
        faults = "".join(f"  !! {fault}" for fault in self.faults)
        return f"{self.kind:7} {way:6} {self.seconds:6.2f} s {self.megabytes:4.0f} MB  {name}: {self.detail}{faults}"


def alone(path: Path, scratch: Path, pixels: bool) -> Outcome:
    """Ingests one file as an archive, in a process of its own, reads all of it back and verifies it."""
    answer, log = scratch / "answer.json", scratch / "log"
    answer.unlink(missing_ok=True)
    started, idle = time.monotonic(), _resident()
    ended = in_child(lambda: _answer(path, scratch, answer, pixels), _ADDRESSES, log)
    seconds, megabytes = time.monotonic() - started, max(ended.peak - idle, 0) / 1e6
    if ended.code:
        return Outcome("none", ended.name, seconds=seconds, faults=(f"{ended.name}: {log.read_text(errors='replace')[-2000:]}",))
    found = Outcome(**json.loads(answer.read_text()))
    over = (f"{megabytes:.0f} MB, expected at most {MEGABYTES}",) if megabytes > MEGABYTES else ()
    return replace(found, seconds=seconds, megabytes=megabytes, faults=(*found.faults, *over, *_unexpected(path, found)))


def _resident() -> int:
    return int(re.search(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text())[1]) << 10  # type: ignore[index]


def _answer(path: Path, scratch: Path, answer: Path, pixels: bool) -> None:
    with at_most(SECONDS):
        answer.write_text(json.dumps(asdict(_ingested(path, scratch / "out.h5", pixels))))


def _ingested(path: Path, output: Path, pixels: bool) -> Outcome:
    output.unlink(missing_ok=True)
    try:
        h5dat_lib.ingest(path, output, parse({"task_runner": "threads", "workers": 1}))
    except H5datError as exc:
        return Outcome("error", str(exc), faults=() if str(exc).isprintable() else ("the error is not one line",))
    with h5dat_lib.open(output) as file:
        _read(file)
        reasons = [reject.reason for reject in file.rejects()]
        rows = sum(len(file[name]) for name in file.classes)
        [archive] = file[ARCHIVES]["kind"][:]
        faults = [*_damage(output), *(f"unforeseen: {reason}" for reason in reasons if _UNFORESEEN.match(reason))]
        if pixels and archive == "file" and "images" in file.classes:
            faults += _other_pixels(path, file)
    kind, detail = ("rows", f"{rows}") if rows else ("reject", reasons[0] if reasons else "no rows, no rejects")
    if rows and reasons:
        detail += f" rows, {len(reasons)} rejects: {reasons[0]}"
    return Outcome(kind, detail, faults=tuple(faults))


def _read(file: File) -> None:
    """Everything there is, so that an error in reading is found here."""
    for name in file.classes:
        table = file[name]
        for column in table.columns:
            _ = table[column][:]
        _ = [table.origin(row) for row in range(min(len(table), 3))]


def _damage(output: Path) -> list[str]:
    return [f"verify: {mismatch.reason}" for mismatch in h5dat_lib.verify(output).mismatches]


def _other_pixels(path: Path, file: File) -> Iterator[str]:
    """Whether Pillow gives other pixels; where it gives none, it is no judge."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if Image.open(path).format not in _PICTURES:
                return
            there = reference(path.read_bytes())
    except Exception:  # Pillow's plugins raise whatever they like
        return
    if not np.array_equal(there, file["images"]["pixels"][0], equal_nan=there.dtype.kind == "f"):
        yield "other pixels than Pillow's"


def _unexpected(path: Path, found: Outcome) -> list[str]:
    wanted = expected(path)
    gave = "rows" if found.kind == "rows" else "reject"
    return [f"expected {wanted}"] if wanted and wanted != gave else []


# All files of a suite


def together(suite: Suite, scratch: Path) -> dict[str, dict[Path, Outcome]]:
    """What becomes of the files of a suite as members of a folder and of a zip, converted by worker processes."""
    archive = scratch / "suite.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, strict_timestamps=False) as out:
        for path in suite.files:
            out.write(path, path.relative_to(suite.folder))
    found = {"folder": _members(_copied(suite, scratch), suite, scratch), "zip": _members(archive, suite, scratch)}
    for path in suite.files:
        kinds = {way: outcomes[path].kind for way, outcomes in found.items()}
        if len(set(kinds.values())) > 1:
            one = found["zip"][path]
            found["zip"][path] = replace(one, faults=(*one.faults, f"not alike: {kinds}"))
    return found


def _copied(suite: Suite, scratch: Path) -> Path:
    """A folder of the suite's files and no others; a suite may be a part of one."""
    folder = scratch / "suite"
    for path in suite.files:
        copy = folder / path.relative_to(suite.folder)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    return folder


def _members(archive: Path, suite: Suite, scratch: Path) -> dict[Path, Outcome]:
    output = scratch / "suite.h5"
    output.unlink(missing_ok=True)
    h5dat_lib.ingest(archive, output, _isolated())
    with h5dat_lib.open(output) as file:
        _read(file)
        members = file[MEMBERS].rows_as_dicts() if MEMBERS in file else []
        rows = {member["path"]: member["rows"] for member in members}
        reasons: dict[str, str] = {}
        for reject in file.rejects():
            reasons.setdefault(reject.member, reject.reason)
    damage = _damage(output)
    names = {path: str(path.relative_to(suite.folder)) for path in suite.files}
    return {path: _member(path, rows.get(name), reasons.get(name), damage) for path, name in names.items()}


def _isolated() -> Config:
    return parse({"workers": 2, "limits": {"member_memory": MEGABYTES << 20, "member_seconds": SECONDS}})


def _member(path: Path, rows: int | None, reason: str | None, damage: list[str]) -> Outcome:
    if rows is None and reason is None:
        return Outcome("none", "", faults=("neither a row nor a reject",))
    faults = list(damage)
    if reason and (reason.startswith(_DEATHS) or _UNFORESEEN.match(reason)):
        faults.append(f"unforeseen: {reason}")
    found = Outcome("rows", str(rows)) if rows else Outcome("reject", reason or "no rows")
    return replace(found, faults=(*faults, *_unexpected(path, found)))
