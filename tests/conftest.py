"""Settings of all tests."""

import os

import pytest
from hypothesis import settings

from tests.java import close_tools

# Continuous integration plays the same examples each time, so that a change is judged by what it
# does and not by its luck; everybody else draws new ones, and finds what is still to be found.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")


def pytest_sessionfinish() -> None:
    close_tools()


def pytest_make_parametrize_id(config: pytest.Config, val: object, argname: str) -> str | None:
    """Bytes are no names: gzip puts the time into them, and two processes would not agree."""
    return argname if isinstance(val, bytes | bytearray) else None
