"""What a check finds: one line each."""

from collections.abc import Callable
from typing import NamedTuple


class Finding(NamedTuple):
    """Something that is not as it should be, or worth knowing.

    A problem is one that a broker would stumble over, lose records by, or have to repair although
    the directory was left in good order. What is only worth knowing is not counted.
    """

    file: str  # below the directory
    offset: int | None  # of a record or batch, where there is one
    what: str
    problem: bool = True

    def __str__(self) -> str:
        where = self.file if self.offset is None else f"{self.file} offset {self.offset}"
        return f"{where}: {self.what}"


class Report:
    """Hands findings on as they come, and counts."""

    __slots__ = ("_tell", "batches", "bytes", "partitions", "problems", "segments")

    def __init__(self, tell: Callable[[Finding], None]) -> None:
        self._tell = tell
        self.partitions = 0
        self.segments = 0
        self.batches = 0
        self.bytes = 0
        self.problems = 0

    def problem(self, file: str, offset: int | None, what: str) -> None:
        """Something is wrong."""
        self.problems += 1
        self._tell(Finding(file, offset, what))

    def note(self, file: str, offset: int | None, what: str) -> None:
        """Something is worth knowing."""
        self._tell(Finding(file, offset, what, problem=False))
