"""An output -> one HTML page to look at: its classes, pictures, numbers and labels, and where it all came from.

The page needs nothing else: pictures and styles are in it, it runs no scripts and asks for nothing. However large the file is, it
stays below 2 MB: what is left out is said on it. Nothing that a file holds becomes markup (`markup.tag`).
"""

from __future__ import annotations

import base64
import io
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import resources
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from h5dat_lib.lineage import ARCHIVES, MEMBERS, RUNS
from h5dat_lib.read.columns import Categorical
from h5dat_lib.read.files import File, open_tables
from h5dat_lib.read.pictures import has_pictures, pictures, spread
from h5dat_lib.read.tables import Table
from h5dat_lib.reporting import charts
from h5dat_lib.reporting.contact_sheet import thumbnail
from h5dat_lib.reporting.in_words import moment, number, size
from h5dat_lib.reporting.markup import Markup, joined, tag
from h5dat_lib.reporting.statistics import Brightness, ClassFigures, ColumnFigures, Numbers, numbers, statistics

if TYPE_CHECKING:
    from pathlib import Path

    from h5dat_lib.columns import Array
    from h5dat_lib.config import S3Options

_CLASSES = 40
"""Most classes that are shown; what follows is for all of them together."""
_PICTURE_BYTES = 700_000
_PICTURES = 24
"""Most pictures of a class."""
_SIDE = 128
"""Pixels of the longer side of a picture on the page."""
_CHARTS = 160
_COLUMNS = 800
_IN_SIGHT = 12
"""Charts and columns of a class that are not folded away."""
_LINES = 20
"""Most archives, runs, converters and reasons of rejects."""
_REASONS = 1000
"""Most different reasons that are counted."""


def report(path: str | Path, most: int | None = 1000, s3: S3Options | None = None) -> str:
    """The page of an output, on a local disk or in S3, as text: HTML, to be written in UTF-8.

    Brightness is that of at most ``most`` pictures a class, evenly spread, or with None of all; all else is of all rows, a slab in memory
    at a time. Raises InputError when the file is missing, FormatError when it is damaged or not H5DAT's.
    """
    with open_tables(path, s3) as file:
        shown = file.tables[:_CLASSES]
        figures, rejects = statistics(file, most, shown), _Rejects.of(file)
        budget = _Budget.of(len(figures))
        classes = [_class(file[one.name], one, budget, f"class-{at}") for at, one in enumerate(figures)]
        body = joined(_header(file, figures, rejects.total), *classes, _lineage(file, rejects), _footer(file, len(shown), most))
        return f"<!doctype html>\n{tag('html', _head(file), tag('body', tag('main', body)), lang='en')}\n"


@dataclass(frozen=True)
class _Budget:
    """How much of the page each class may take."""

    picture_bytes: int
    charts: int
    columns: int

    @classmethod
    def of(cls, classes: int) -> _Budget:
        share = max(classes, 1)
        return cls(_PICTURE_BYTES // share, max(_CHARTS // share, 4), max(_COLUMNS // share, 8))


def _head(file: File) -> Markup:
    style = resources.files("h5dat_lib.reporting").joinpath("report.css").read_text("utf-8")
    return tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content="default-src 'none'; img-src data:; style-src 'unsafe-inline'"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", _name(file)),
        tag("style", Markup(style)),
    )


def _name(file: File) -> str:
    return PurePath(str(file.path)).name


@dataclass
class _Rejects:
    """How many members were rejected in all, how many for each stage and reason, and one of these."""

    total: int = 0
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    examples: dict[tuple[str, str], str] = field(default_factory=dict)

    @classmethod
    def of(cls, file: File) -> _Rejects:
        found = cls()
        for reject in file.rejects():
            found.total += 1
            why = (str(reject.stage), str(reject.reason))
            if why in found.examples or len(found.examples) < _REASONS:
                found.counts[why] += 1
                found.examples.setdefault(why, str(reject.member or reject.archive))
        return found


# The top


def _header(file: File, figures: Sequence[ClassFigures], rejects: int) -> Markup:
    stored = file.hdf5.id.get_filesize()
    source = sum(one.source for one in figures)
    members = sum(one.members for one in figures)
    tiles = [
        _tile("rows", number(sum(one.rows for one in figures)), f"in {_count(len(file.tables), 'class', 'classes')}"),
        _tile("members", number(members), f"{size(source)} in their archives"),
        _tile("the file", size(stored), _ratio(source, stored, "these")),
        _tile("rejects", number(rejects), "members not converted" if rejects else "everything was converted", "bad" if rejects else "good"),
    ]
    chips = [tag("a", one.name, tag("small", number(one.rows)), href=f"#class-{at}") for at, one in enumerate(figures)]
    return tag(
        "header", tag("h1", _name(file)), tag("div", *tiles, class_="tiles"), tag("nav", *chips, Markup('<a href="#lineage">lineage</a>'))
    )


def _tile(title: str, value: str, remark: str, kind: str = "") -> Markup:
    return tag("div", tag("span", title), tag("b", value), tag("small", remark), class_=f"tile {kind}".rstrip())


def _count(count: int, one: str, several: str) -> str:
    return f"{count:,} {one if count == 1 else several}"


def _ratio(before: int, after: int, what: str) -> str:
    """How much smaller or larger than ``what`` something has become; empty where there is nothing to compare."""
    if not before or not after:
        return ""
    if 0.95 < before / after < 1.05:
        return f"about as large as {what}"
    return f"{before / after:,.1f} times smaller than {what}" if before > after else f"{after / before:,.1f} times larger than {what}"


# A class


def _class(table: Table, figures: ClassFigures, budget: _Budget, place: str) -> Markup:
    parts = [tag("h2", figures.name), tag("p", *_in_short(figures), class_="short")]
    if has_pictures(table):
        parts.append(_contact_sheet(table, budget.picture_bytes))
    parts += [_brightness(column.brightness, figures.rows) for column in figures.columns if column.brightness]
    parts += [_charts(figures, budget.charts), _columns(figures, budget.columns)]
    return tag("section", *parts, id=place)


def _in_short(figures: ClassFigures) -> Iterator[str]:
    yield _count(figures.rows, "row", "rows")
    if figures.members:
        yield f" of {_count(figures.members, 'member', 'members')} · {size(figures.source)} in their archives"
    decoded = sum(column.decoded or 0 for column in figures.columns)
    yield f" · {size(decoded)} as arrays · "
    yield tag("b", f"{size(figures.stored)} in the file")
    yield f", {ratio}" if (ratio := _ratio(decoded, figures.stored, "the arrays")) else ""


def _contact_sheet(table: Table, most: int) -> Markup:
    """Pictures of rows that are spread evenly, as long as there is room."""
    rows = list(spread(len(table), _PICTURES))
    cells, used = [], 0
    for row, pixels in zip(rows, _of_rows(table, rows), strict=True):
        cell = Markup("") if pixels is None else _cell(table, row, pixels)
        if (used := used + len(cell)) > most:
            break
        cells.append(cell)
    remark = f"{len(cells)} of {len(table):,} rows, evenly spread" if len(cells) < len(table) else "of all rows"
    return joined(tag("h3", "Pictures ", tag("small", remark)), tag("div", *cells, class_="sheet"))


def _of_rows(table: Table, rows: Sequence[int]) -> Iterator[Array | None]:
    for row in rows:
        yield next(pictures(table, [row]), None)


def _cell(table: Table, row: int, pixels: Array) -> Markup:
    out = io.BytesIO()
    image = thumbnail(pixels, _SIDE)
    image.save(out, "JPEG", quality=75, optimize=True)
    data = Markup(f"data:image/jpeg;base64,{base64.b64encode(out.getvalue()).decode()}")
    labels = [label for name in table.columns if isinstance(column := table[name], Categorical) and (label := column[row])]
    about = f"row {row:,}, {' x '.join(map(str, pixels.shape))} {pixels.dtype}: {table.origin(row).member}"
    picture = tag("img", src=data, alt=about, title=about, width=str(image.width), height=str(image.height))
    return tag("figure", picture, tag("figcaption", labels[0] if labels else number(row)))


def _brightness(found: Brightness, rows: int) -> Markup:
    names = charts.channel_names(len(found.mean))
    lines = [[name, *_of_channel(mean, std, found.dtype)] for name, mean, std in zip(names, found.mean, found.std, strict=True)]
    title = ["channel", "mean", "std"] + (["mean / 255", "std / 255"] if found.dtype == "uint8" else [])
    seen = found.pictures + found.others
    remark = f"all pixels of {_count(found.pictures, 'picture', 'pictures')}"
    if seen < rows:
        remark += f", of {seen:,} evenly spread over {_count(rows, 'row', 'rows')}"
    if found.others:
        remark += f"; {_count(found.others, 'other has', 'others have')} other channels or another type"
    curves = charts.levels(found.levels, "how often each level is there") if found.levels else Markup("")
    table = _table(title, lines, "numbers")
    return joined(tag("h3", "Brightness ", tag("small", remark)), tag("div", tag("div", curves), table, class_="brightness"))


def _of_channel(mean: float, std: float, dtype: str) -> list[str]:
    raw = [f"{mean:,.2f}", f"{std:,.2f}"]
    return [*raw, f"{mean / 255:.4f}", f"{std / 255:.4f}"] if dtype == "uint8" else raw


def _charts(figures: ClassFigures, most: int) -> Markup:
    telling = [column for column in figures.columns if _is_telling(column)]
    telling.sort(key=lambda column: column.layout != "categorical")  # labels first
    cards = [_card(column, figures.rows) for column in telling[:most]]
    if not cards:
        return Markup("")
    remark = f"of {len(telling):,} columns the first {most}" if len(telling) > most else "all rows"
    title = tag("h3", "Labels and numbers ", tag("small", remark))
    return joined(
        title, tag("div", *cards[:_IN_SIGHT], class_="cards"), _folded(cards[_IN_SIGHT:], f"{len(cards) - _IN_SIGHT} more charts", "cards")
    )


def _is_telling(column: ColumnFigures) -> bool:
    """Whether a chart says more than one word would: not of what is the same, or different, in all rows."""
    if column.numbers:
        return column.numbers.low != column.numbers.high
    counts = list(column.balance.values()) if column.balance else [0]
    return sum(map(bool, counts)) > 1 and counts[0] > 1


def _card(column: ColumnFigures, rows: int) -> Markup:
    about = tag("small", _kind(column))
    if column.numbers:
        found = column.numbers
        low, high = _ends(found)
        chart = charts.histogram(found.counts, low, high, f"{column.name}: how many rows, from {low} to {high}")
        content = joined(chart, tag("p", _moments(found), class_="remark"))
    else:
        content = charts.balance(column.balance or {}, rows)
    return tag("div", tag("h4", column.name, " ", about), content, class_="card")


def _ends(found: Numbers) -> tuple[str, str]:
    return _end(found.low), _end(found.high)


def _end(value: float | int | str) -> str:
    """A number in words; whole ones without commas, with which a year or an identifier would look strange."""
    return str(value) if isinstance(value, int) else number(value)


def _moments(found: Numbers) -> str:
    parts = []
    if found.mean is not None and found.std is not None:
        parts.append(f"mean {number(found.mean)} \u00b1 {number(found.std)}")
    if found.missing:
        parts.append(f"{_count(found.missing, 'row', 'rows')} without")
    return " · ".join(parts)


def _columns(figures: ClassFigures, most: int) -> Markup:
    title = ["column", "layout", "shape", "type", "values", "as arrays", "in the file", "ratio"]
    lines = [_line(column, figures.rows) for column in figures.columns[:most]]
    head = tag("h3", "Columns ", tag("small", f"the first {most} of {len(figures.columns):,}" if len(figures.columns) > most else ""))
    if len(lines) <= 2 * _IN_SIGHT:
        return joined(head, _table(title, lines, "columns"))
    shown, rest = (_table(title, part, "columns") for part in (lines[:_IN_SIGHT], lines[_IN_SIGHT:]))
    return joined(head, shown, _folded([rest], f"{len(lines) - _IN_SIGHT} more columns"))


def _line(column: ColumnFigures, rows: int) -> list[str]:
    shape = "varies" if column.shape is None else " x ".join(map(str, column.shape))
    decoded = "" if column.decoded is None else size(column.decoded)
    ratio = f"{column.decoded / column.stored:,.1f}" if column.decoded and column.stored else ""
    return [column.name, column.layout, shape, column.dtype, _values(column, rows), decoded, size(column.stored), ratio]


def _kind(column: ColumnFigures) -> str:
    return column.dtype if column.layout in ("plain", "nullable") else column.layout


def _values(column: ColumnFigures, rows: int) -> str:
    """What is in a column, in a few words."""
    if column.numbers:
        low, high = _ends(column.numbers)
        return f"always {low}" if low == high and column.numbers.count == rows else f"{low} to {high}"
    labels = [label for label, count in (column.balance or {}).items() if count]
    if len(labels) == 1 and column.balance and column.balance[labels[0]] == rows:
        return f"always {labels[0] or '(empty)'}"
    return f"{len(labels):,} different" if labels else ""


# Where it came from


def _lineage(file: File, rejects: _Rejects) -> Markup:
    parts = [_archives(file), _runs(file), _converters(file), _rejects(rejects)]
    return tag("section", tag("h2", "Lineage"), *parts, id="lineage")


def _archives(file: File) -> Markup:
    found, count = _last(file, ARCHIVES, ("uri", "kind", "sha256"), ("size",))
    lines = [[one["uri"], one["kind"], size(one["size"]), one["sha256"][:16]] for one in found]
    return _listed("Archives", ["archive", "kind", "bytes", "sha256"], lines, count)


def _runs(file: File) -> Markup:
    found, count = _last(file, RUNS, ("status", "versions", "run_id"), ("start", "end", "members", "rows", "rejects"))
    lines = [
        [
            moment(one["start"]),
            f"{max(one['end'] - one['start'], 0):,.1f} s" if one["end"] else "",
            one["status"],
            *(number(one[name]) for name in ("members", "rows", "rejects")),
            _versions(one["versions"]),
            one["run_id"],
        ]
        for one in found
    ]
    return _listed("Runs", ["start, UTC", "took", "status", "members", "rows", "rejects", "by", "run"], lines, count)


def _versions(text: str) -> str:
    with suppress(ValueError):
        found = json.loads(text)
        if isinstance(found, dict):
            return ", ".join(f"{name} {found[name]}" for name in ("h5dat", "python", "h5py", "numpy") if name in found)
    return ""


def _converters(file: File) -> Markup:
    if MEMBERS not in file:
        return Markup("")
    column, counts = file[MEMBERS]["converter"], Counter[str]()
    for first in range(0, len(column), _REASONS):
        counts.update(map(str, column[first : first + _REASONS]))
    lines = [[name, number(count)] for name, count in counts.most_common(_LINES)]
    return _listed("Converters", ["converter/version", "members"], lines, len(counts))


def _rejects(rejects: _Rejects) -> Markup:
    lines = [[number(count), *why, rejects.examples[why]] for why, count in rejects.counts.most_common(_LINES)]
    others = rejects.total - sum(count for _, count in rejects.counts.most_common(_LINES))
    rest = tag("p", f"and {others:,} for other reasons", class_="remark") if others else Markup("")
    return joined(_listed("Rejects", ["members", "stage", "reason", "such as"], lines, len(lines)), rest)


def _last(file: File, name: str, texts: Sequence[str], counts: Sequence[str]) -> tuple[list[dict[str, Any]], int]:
    """The last rows of a table of the lineage, columns of texts and of numbers, the newest first; and how many rows it has."""
    if name not in file:
        return [], 0
    table = file[name]
    rows = slice(max(len(table) - _LINES, 0), len(table))
    columns = [*(map(str, table[column][rows]) for column in texts), *(numbers(file, name, column, rows).tolist() for column in counts)]
    return [dict(zip((*texts, *counts), row, strict=True)) for row in zip(*columns, strict=True)][::-1], len(table)


def _listed(title: str, names: Sequence[str], lines: Sequence[Sequence[str]], count: int) -> Markup:
    if not lines:
        return Markup("")
    remark = f"{len(lines)} of {count:,}" if count > len(lines) else ""
    return joined(tag("h3", f"{title} ", tag("small", remark)), _table(names, lines, "lineage"))


# Parts


def _table(names: Sequence[str], lines: Sequence[Sequence[str]], kind: str) -> Markup:
    head = tag("tr", *(tag("th", name) for name in names))
    rows = [tag("tr", *(tag("td", cell, data_name=name) for name, cell in zip(names, line, strict=True))) for line in lines]
    return tag("div", tag("table", tag("thead", head), tag("tbody", *rows)), class_=f"table {kind}")


def _folded(parts: Sequence[Markup], title: str, kind: str = "") -> Markup:
    return tag("details", tag("summary", title), tag("div", *parts, class_=kind)) if parts else Markup("")


def _footer(file: File, shown: int, most: int | None) -> Markup:
    sampled = "all pictures" if most is None else f"at most {most:,} pictures of a class, evenly spread over its rows"
    parts = [f"Brightness is of {sampled}. Numbers and labels are counted over all rows."]
    if len(file.tables) > shown:
        parts.append(f" {len(file.tables) - shown:,} more classes are not shown.")
    return tag("footer", *parts)
