"""Bytes of records as text for a terminal."""

import re
from typing import Final

# What would break the line, or tell the terminal something. Tabs stay: they do neither.
_CONTROL: Final = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\ud800-\udfff]")


def shown(data: bytes) -> str:
    """UTF-8 as text, other bytes as U+FFFD like Java, control characters as escapes (\\n)."""
    return printable(data.decode("utf-8", "replace"))


def printable(text: str) -> str:
    """``text`` with its control characters as escapes."""
    return _CONTROL.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()
