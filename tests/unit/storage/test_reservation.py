"""How much of a disk segments reserve: not so much that a small disk is full of nothing."""

from pathlib import Path

import pytest

from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.storage.fs import DiskSpace, File, FileSystem
from kavka.storage.segment_file import FIRST_RESERVE, KEPT_FREE
from tests.unit.storage.log_support import Place, append, read_values

TOTAL = 256 << 20


class Volume(FileSystem):
    """Counts what is allocated."""

    def __init__(self, free: int = TOTAL) -> None:
        self.free = free
        self.calls = 0

    def allocate(self, file: File, offset: int, length: int) -> None:
        super().allocate(file, offset, length)
        self.free -= length
        self.calls += 1

    def disk_space(self, path: str) -> DiskSpace:
        return DiskSpace(TOTAL, self.free)


def test_an_eighth_is_reserved_ahead(tmp_path: Path) -> None:
    fs = Volume()
    log = Place(str(tmp_path), fs).open()
    for _ in range(400):
        append(log, b"x" * 30_000)  # too large for a window
        assert log.allocated - log.size <= max(FIRST_RESERVE, log.size // 8) + 4096
        assert log.allocated == TOTAL - fs.free
    assert fs.calls < 40


def test_the_last_mebibyte_is_not_for_records(tmp_path: Path) -> None:
    fs = Volume(KEPT_FREE + 10_000)
    log = Place(str(tmp_path), fs).open()
    append(log, b"x" * 5000)
    with pytest.raises(KafkaError) as failed:
        append(log, b"y" * 5000)
    assert failed.value.code is ErrorCode.KAFKA_STORAGE_ERROR
    assert "No space left" in failed.value.message
    assert log.offline is None and fs.free >= KEPT_FREE
    fs.free = TOTAL
    append(log, b"z")
    assert list(read_values(log).values()) == ["x" * 5000, "z"]
