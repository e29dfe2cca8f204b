"""The tables of settings written out for people: ``kavka configs``, and the README."""

import textwrap
from collections.abc import Iterable
from typing import Final

from kavka.config.option import Dynamic, Option

_WIDTH: Final = 96
_INDENT: Final = "    "


def text(options: Iterable[Option]) -> str:
    """A paragraph for each setting."""
    return "\n".join(_paragraph(option) for option in options)


def _paragraph(option: Option) -> str:
    facts = [f"Default: {_shown_default(option)}. Valid: {option.expected}."]
    if option.dynamic is not Dynamic.READ_ONLY:
        facts.append("Can be changed while the broker runs.")
    if not option.effective:
        facts.append("Has no effect here.")
    body = textwrap.wrap(
        f"{option.doc} {' '.join(facts)}",
        width=_WIDTH,
        initial_indent=_INDENT,
        subsequent_indent=_INDENT,
    )
    return "\n".join((option.name, *body)) + "\n"


def markdown(options: Iterable[Option]) -> str:
    """A table with a row for each setting."""
    rows = [
        "| name | default | valid | change | what it is for |",
        "|---|---|---|---|---|",
        *(
            f"| `{option.name}` | {_shown_default(option)} | {option.expected} "
            f"| {option.dynamic.value if option.effective else 'no effect'} | {option.doc} |"
            for option in options
        ),
    ]
    return "\n".join(rows) + "\n"


def _shown_default(option: Option) -> str:
    return option.default_text or ("not set" if option.default is None else "empty")
