"""The file of results: one section for each scenario, replaced when it is measured again."""

import datetime
import re
from pathlib import Path
from typing import Final

_HEAD: Final = """# What was measured

Made by `python -m bench --results bench/RESULTS.md`. Medians, in brackets the least and the most
of several rounds in which the brokers took turns on the same machine. CPU is the broker's process
alone. Figures of one machine: the ratios travel better than the rest.
"""


class Results:
    """A Markdown file of sections."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def replace(self, title: str, purpose: str, table: str, machine: str) -> None:
        """Put a section into its place, or at the end when it is new."""
        text = self._path.read_text() if self._path.exists() else _HEAD
        today = datetime.datetime.now(datetime.UTC).date()
        section = f"## {title}\n\n{purpose}\n\n{table}\n\n{today}; {machine}\n"
        pattern = re.compile(rf"^## {re.escape(title)}\n.*?(?=^## |\Z)", re.M | re.S)
        if pattern.search(text):
            text = pattern.sub(lambda _: section + "\n", text)
        else:
            text = f"{text.rstrip()}\n\n{section}"
        self._path.write_text(text.rstrip() + "\n")
