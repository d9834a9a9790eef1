"""What the parts of the torture count, and how it is printed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Figures:
    """Counts and notes by what they are of, and the violations, each with the words that repeat it."""

    counts: Counter[str] = field(default_factory=Counter)
    notes: dict[str, str] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)

    def violate(self, what: str) -> None:
        """Notes and prints a violation."""
        self.violations.append(what)
        print(f"VIOLATION: {what}", flush=True)

    def add(self, other: Figures) -> None:
        """Takes over what another part found."""
        self.counts.update(other.counts)
        self.notes |= other.notes
        self.violations += other.violations

    def table(self) -> str:
        """A Markdown table: what was done, and at the end what was lost."""
        ends = ("rows lost", "rows doubled")
        rows = {what: f"{count:,}" for what, count in self.counts.items() if what not in ends} | self.notes
        rows |= {what: str(self.counts[what]) for what in ends} | {"violations": str(len(self.violations))}
        return "\n".join(("| | |", "|---|---|", *(f"| {what} | {count} |" for what, count in rows.items())))
