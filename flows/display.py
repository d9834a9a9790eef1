"""Reports and progress -> what a person sees in a terminal. Nothing here decides anything."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from h5dat_lib.errors import escaped
from h5dat_lib.reporting.in_words import number, size

if TYPE_CHECKING:
    import rich.progress

    from h5dat_lib.exporting import Exported
    from h5dat_lib.pipeline import Progress, Report
    from h5dat_lib.plan.batches import PlanSummary
    from h5dat_lib.read.verification import Verified
    from h5dat_lib.reporting.statistics import ClassFigures, ColumnFigures, Numbers
    from h5dat_lib.rewriting.difference import Compared, Difference
    from h5dat_lib.rewriting.merging import Merged
    from h5dat_lib.rewriting.repacking import Repacked
    from h5dat_lib.sync import Synced

_CELL = 120
"""Most characters of a value that are shown."""
_LABELS = 20
"""Most labels of a column that are shown, the most frequent."""
_LOG_SECONDS = 30
"""How often progress is printed as a line when the output is not a terminal."""


class Display:
    """Shows how a run goes on; this one shows nothing."""

    def __call__(self, progress: Progress) -> None:
        """Shows progress; called after every commit."""

    def say(self, line: str) -> None:
        """Shows a line to somebody who is looking."""

    def announce(self, url: str) -> None:
        """Shows where the run can be watched."""
        self.say(f"watch it in the Prefect UI: {url}")


class _Lines(Display):
    """Prints progress as plain lines now and then, for logs."""

    def __init__(self) -> None:
        self._next = time.monotonic() + _LOG_SECONDS

    def __call__(self, progress: Progress) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + _LOG_SECONDS
            print(f"{_members(progress)} members, {_rate(progress)}, {progress.rejects:,} rejects", file=sys.stderr)


class _Bar(Display):
    """A live bar, with lines above it."""

    def __init__(self, bar: rich.progress.Progress) -> None:
        self._bar = bar
        self._task = bar.add_task("", total=None, state="starting")

    def __call__(self, progress: Progress) -> None:
        state = f"{_members(progress)} members  {_rate(progress)}  {progress.rejects:,} rejects"
        done = min(progress.stored, progress.stored_total)
        self._bar.update(self._task, total=progress.stored_total, completed=done, state=state)

    def say(self, line: str) -> None:
        self._bar.console.print(line, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def live_progress(quiet: bool) -> Iterator[Display]:
    """What is to be called with the progress of a run: a live bar on a terminal, a line now and then elsewhere."""
    if quiet or not sys.stderr.isatty():
        yield Display() if quiet else _Lines()
        return
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[state]}"), TextColumn("ETA"), TimeRemainingColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        yield _Bar(bar)


@contextmanager
def rows_progress(quiet: bool) -> Iterator[Callable[[int, int], None] | None]:
    """What is to be called with rows done, and all of them: a live bar on a terminal; None elsewhere."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("rows  ETA"), TimeRemainingColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _members(progress: Progress) -> str:
    return f"{progress.members:,}" + (f" of {progress.members_total:,}" if progress.members_total else "")


def _rate(progress: Progress) -> str:
    return f"{progress.bytes / max(progress.seconds, 1e-3) / 1e6:,.1f} MB/s"


def show_report(report: Report, nothing: str = "") -> None:
    """What an ingest did, as a table of its classes and a line of counts."""
    from h5dat_lib.read.files import open as open_file

    if not report.batches:
        print(f"{report.output}: {nothing or f'nothing to do, all {report.skipped:,} members are in already'}")
        _show_synced(report)
        _show_damage(report)
        return
    with open_file(report.path) as file:
        _print_classes(file.describe())
    rate = report.bytes / max(report.seconds, 1e-3) / 1e6
    print(
        f"{report.output}: {report.members:,} members -> {report.rows:,} rows, {report.rejects:,} rejects, "
        f"{size(report.bytes)} in {report.seconds:.1f} s ({report.members / max(report.seconds, 1e-3):,.0f} members/s, {rate:,.1f} MB/s)"
    )
    _show_synced(report)
    if report.duplicates:
        print(f"{report.duplicates:,} members have the same bytes as members of other archives that came in before")
    if report.skipped:
        print(f"{report.skipped:,} members were in already and were not converted again")
    if report.requests:
        print(f"{size(report.received)} read from S3 by {report.requests:,} requests")
    _show_labels(report.unlabelled)
    for archive in report.changed:
        print(f"{archive}: another version of it is in already; its members were added (`duplicates: skip` leaves out those that are in)")
    _show_damage(report)
    if report.rejects:
        print(f"`h5dat rejects {report.output}` lists what was not converted, and why")


def _show_labels(remarks: Sequence[str]) -> None:
    for remark in remarks:
        print(f"labels: {escaped(remark)}", file=sys.stderr)


def _show_synced(report: Report) -> None:
    if report.synced:
        print(f"{report.output}: {synced_in_words(report.synced)}; working copy {report.path}")


def _show_damage(report: Report) -> None:
    for damage in report.damaged:
        print(f"damaged: {escaped(damage)}", file=sys.stderr)


def show_exported(exported: Exported) -> None:
    """What an export has made, and what it has left out."""
    same = f", {exported.identical:,} of them their members byte for byte" if exported.identical else ""
    print(
        f"{escaped(exported.path)}: {exported.rows:,} rows as {exported.form} in {exported.files:,} files{same}, "
        f"{size(exported.bytes)} in {exported.seconds:.1f} s"
    )
    if exported.renamed:
        print(f"{exported.renamed:,} files have another name than their members")
    for left in exported.left_out:
        print(f"left out: {left.rows:,} rows of {escaped(left.name)}: {escaped(left.reason)}")


def synced_in_words(took: Synced) -> str:
    """What syncing has taken, and what the store cannot do."""
    moved = [
        f"{size(count)} {how}"
        for count, how in ((took.sent, "sent"), (took.copied, "copied in the store"), (took.received, "received"))
        if count
    ]
    line = f"{', '.join(moved) or 'nothing to do'} ({took.requests:,} requests, {took.seconds:.1f} s)"
    return "; ".join((line, *(f"the store does without {what}" for what in took.without)))


def show_plan(summary: PlanSummary) -> None:
    """The classes of a plan."""
    rows = [(entry.name or "(rejected)", f"{entry.members:,}", size(entry.bytes), f"{entry.batches:,}") for entry in summary.classes]
    _print_table(("class", "members", "bytes", "in batches"), rows)
    print(f"{summary.archive} ({summary.kind}): {summary.members:,} members in {summary.batches:,} batches")
    _show_labels(summary.unlabelled)


def show_contents(contents: dict[str, Any]) -> None:
    """What a file holds: classes and columns, sources, counts."""
    _print_classes(contents)
    rows = [(source["uri"], source["kind"], size(source["size"]), source["sha256"][:12]) for source in contents["sources"]]
    _print_table(("source", "kind", "bytes", "sha256"), rows)
    print(f"{contents['path']}: {size(contents['bytes'])}, {contents['members']:,} members, {contents['rejects']:,} rejects")


def _print_classes(contents: dict[str, Any]) -> None:
    rows = []
    for entry in contents["classes"]:
        rows.append((entry["name"], f"{entry['rows']:,}", "", "", "", "", size(entry["bytes"])))
        rows += [("", "", *_column_cells(column), size(column["bytes"])) for column in entry["columns"]]
        if entry["pairs"]:
            rows.append(("", "", f"and {entry['pairs']:,} key/value pairs", "", "", "", ""))
    _print_table(("class", "rows", "column", "layout", "shape", "type", "on disk"), rows)


def _column_cells(column: dict[str, Any]) -> tuple[str, str, str, str]:
    shape = "varies" if column["shape"] is None else " x ".join(map(str, column["shape"]))
    return column["name"], column["layout"], shape, column["dtype"]


def show_rejects(rejects: list[dict[str, str]]) -> None:
    """Rejects as a table."""
    if not rejects:
        print("no rejects")
        return
    rows = [(entry["archive"], entry["member"] or "(the archive)", entry["stage"], entry["reason"]) for entry in rejects]
    _print_table(("archive", "member", "stage", "reason"), rows)
    print(f"{len(rejects):,} rejects")


def show_verified(path: str, verified: Verified) -> None:
    """Mismatches, a line each, or that there are none."""
    for found in verified.mismatches:
        rows = f"row {found.first}" if found.first == found.last else f"rows {found.first} to {found.last}"
        member = f" ({found.member})" if found.member else ""
        print(f"{path}: {found.table} {rows}{member}: column {escaped(found.column)}: {found.reason}")
    state = f"{len(verified.mismatches):,} mismatches" if verified.mismatches else "all as written"
    print(f"{path}: {verified.chunks:,} chunks, {size(verified.bytes)} read: {state}")


def show_compared(compared: Compared) -> None:
    """What differs, a line each, how many there are of what, and what is stored otherwise."""
    for found in compared.differences:
        print(_difference_in_words(found))
    if compared.more:
        print(f"... and {compared.more:,} more")
    for line in compared.storage:
        print(f"stored otherwise: {escaped(line)}")
    counts = ", ".join(f"{count:,} {kind}" for kind, count in compared.counts.items())
    print(f"{compared.a}, {compared.b}: {'the same values' if compared.same else f'differ: {counts}'}")


def _difference_in_words(found: Difference) -> str:
    sign = {"a": "-", "b": "+", "both": "~"}[found.where]
    where = [found.kind, found.table, *([f"member {found.member}"] if found.member else []), found.archive and f"of {found.archive}"]
    rows = [f"{found.rows:,} rows"] if found.rows else [f"part {found.part}"] if found.part else []
    column = [f"column {found.column}"] if found.column else []
    return f"{sign} {escaped(', '.join(filter(None, [*where, *rows, *column, found.detail])))}"


def show_merged(merged: Merged) -> None:
    """What a merge has written."""
    for uri in merged.duplicates:
        print(f"{escaped(uri)}: is in several files, and came in once")
    print(
        f"{merged.output}: {merged.rows:,} rows of {merged.members:,} members in {merged.archives:,} archives, {merged.rejects:,} rejects, "
        f"{size(merged.bytes)} in {merged.seconds:.1f} s"
    )


def show_repacked(repacked: Repacked) -> None:
    """What repacking has made of a file."""
    print(
        f"{repacked.output}: {repacked.rows:,} rows, {size(repacked.before)} before, {size(repacked.after)} now, {repacked.seconds:.1f} s"
    )


def show_space(needed: int, free: int) -> None:
    """What repacking may need, to standard error, before it begins."""
    print(f"needs up to {size(needed)} beside the file until it is done; {size(free)} are free", file=sys.stderr)


def show_values(values: dict[str, Any]) -> None:
    """Names and values, a line each."""
    _print_table(("", ""), [(name, _in_words(value)) for name, value in values.items()])


def show_rows(rows: Sequence[dict[str, Any]]) -> None:
    """Rows of one table."""
    if not rows:
        print("no rows")
        return
    _print_table(tuple(rows[0]), [tuple(map(_in_words, row.values())) for row in rows])


def show_statistics(figures: Sequence[ClassFigures]) -> None:
    """Columns with their bytes, then the brightness of pictures, the range of numbers and the balance of labels."""
    header = ("class", "rows", "column", "layout", "shape", "type", "on disk", "decoded")
    rows, remarks = [], []
    for entry in figures:
        rows.append((entry.name, f"{entry.rows:,}", *[""] * 6))
        for column in entry.columns:
            shape = "varies" if column.shape is None else " x ".join(map(str, column.shape))
            decoded = "" if column.decoded is None else size(column.decoded)
            rows.append(("", "", column.name, column.layout, shape, column.dtype, size(column.stored), decoded))
            remarks += _column_remarks(f"{entry.name}.{column.name}", column)
    _print_table(header, rows)
    for remark in remarks:
        print(escaped(remark))


def _column_remarks(name: str, column: ColumnFigures) -> list[str]:
    found = []
    if column.brightness:
        mean, std = (", ".join(f"{value:.2f}" for value in values) for values in (column.brightness.mean, column.brightness.std))
        others = f", {column.brightness.others:,} of another kind left out" if column.brightness.others else ""
        found.append(f"{name}: mean {mean}, standard deviation {std} of {column.brightness.pictures:,} pictures{others}")
    if column.numbers:
        found.append(f"{name}: {_numbers_in_words(column.numbers)}")
    if column.balance:
        found.append(f"{name}: " + ", ".join(f"{label} {count:,}" for label, count in islice(column.balance.items(), _LABELS)))
    return found


def _numbers_in_words(numbers: Numbers) -> str:
    text = f"{number(numbers.low)} to {number(numbers.high)}"
    if numbers.mean is not None and numbers.std is not None:
        text += f", mean {number(numbers.mean)}, standard deviation {number(numbers.std)}"
    return text + (f", {numbers.missing:,} rows without" if numbers.missing else "")


def _in_words(value: Any) -> str:
    text = "" if value is None else str(value)
    return text if len(text) <= _CELL else f"{text[: _CELL - 3]}..."


def _print_table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    """A table as wide as it needs to be where the output is no terminal, so that nothing is cut in a log."""
    console = Console(width=None if sys.stdout.isatty() else 10_000, highlight=False, markup=False)
    table = Table(*header, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*map(escaped, row))
    console.print(table)
