"""Directories for tests that sync to disk at every step: in memory where that is possible."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

_IN_MEMORY = Path("/dev/shm")


@pytest.fixture
def tmp_path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    if not _IN_MEMORY.is_dir():
        yield tmp_path_factory.mktemp("store")
        return
    directory = tempfile.mkdtemp(prefix="kavka-test-", dir=_IN_MEMORY)
    yield Path(directory)
    shutil.rmtree(directory)
