"""Collects what was measured, and prints it as one table of a stable form."""

import statistics
from collections.abc import Iterable
from typing import Final

OURS: Final = "kavka"


class Figures:
    """The runs of every measurement, by who was measured."""

    def __init__(self) -> None:
        self._runs: dict[str, dict[str, list[float]]] = {}
        self.notes: list[str] = []

    def add(self, what: str, who: str, value: float) -> None:
        """One run's figure; the unit is part of ``what``."""
        self._runs.setdefault(what, {}).setdefault(who, []).append(value)

    def note(self, text: str) -> None:
        """A sentence to stand under the table."""
        if text not in self.notes:
            self.notes.append(text)

    def median(self, what: str, who: str = OURS) -> float:
        """The median of the runs so far."""
        return statistics.median(self._runs[what][who])

    def table(self) -> str:
        """A table in Markdown: medians, (least–most) where there are several runs, and ratios of
        medians, ours to each other one's."""
        others = list(dict.fromkeys(who for runs in self._runs.values() for who in runs))
        others = [who for who in others if who != OURS]
        rows = [["measurement", OURS, *others, *(f"{OURS} ÷ {who}" for who in others)]]
        for what, runs in self._runs.items():
            row = [what, *(_figure(runs.get(who, ())) for who in (OURS, *others))]
            for who in others:
                both = OURS in runs and who in runs and statistics.median(runs[who])
                ratio = self.median(what) / self.median(what, who) if both else 0
                row.append(f"{ratio:.2f}" if both else "")
            rows.append(row)
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [_line(row, widths) for row in rows]
        lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
        return "\n".join([*lines, *(f"\n{note}" for note in self.notes)])


def _figure(values: Iterable[float]) -> str:
    runs = [*values]
    if not runs:
        return ""
    middle = _short(statistics.median(runs))
    return middle if len(runs) < 2 else f"{middle} ({_short(min(runs))}–{_short(max(runs))})"


def _short(value: float) -> str:
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


def _line(row: list[str], widths: list[int]) -> str:
    return (
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
    )
