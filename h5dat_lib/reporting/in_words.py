"""Counts, bytes, numbers and times -> short text that a person reads."""

from __future__ import annotations

from datetime import UTC, datetime


def size(count: float) -> str:
    """Bytes in the unit that leaves at most three digits before the point."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:,.0f} {unit}" if unit == "B" else f"{count:,.1f} {unit}"
        count /= 1000
    return f"{count:,.1f} TB"


def number(value: float | int | str) -> str:
    """A whole number with all its digits, any other with at least four; what is a word already as it is."""
    if isinstance(value, str):
        return value
    return f"{value:,.0f}" if isinstance(value, int) or 1000 <= abs(value) < 1e15 else f"{value:.4g}"


def moment(seconds: float) -> str:
    """Seconds since 1970 as date and time, UTC; empty for what no calendar has."""
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")
    except (OverflowError, OSError, ValueError):
        return ""
