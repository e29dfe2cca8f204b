"""What an append says about itself."""

from typing import Final

from kavka.storage.producer_entry import AppendOrigin, Duplicate

__all__ = ["NO_TIMESTAMP", "AppendInfo", "AppendOrigin"]

NO_TIMESTAMP: Final = -1


class AppendInfo:
    """Where an append landed, for the Produce response."""

    __slots__ = (
        "duplicate",
        "first_offset",
        "last_offset",
        "log_append_time",
        "log_start_offset",
        "size",
    )

    def __init__(
        self,
        first_offset: int,
        last_offset: int,
        log_append_time: int,
        log_start_offset: int,
        size: int,
        duplicate: bool = False,
    ) -> None:
        self.first_offset = first_offset
        self.last_offset = last_offset
        self.log_append_time = log_append_time  # ms since 1970; -1 with CreateTime
        self.log_start_offset = log_start_offset
        self.size = size  # bytes written, 0 for a duplicate
        self.duplicate = duplicate  # nothing was written: it has been before

    @classmethod
    def of_duplicate(cls, duplicate: Duplicate, log_start_offset: int) -> "AppendInfo":
        """The answer to a batch that came again: that of its first append."""
        return cls(
            duplicate.first_offset,
            duplicate.last_offset,
            duplicate.timestamp,
            log_start_offset,
            0,
            True,
        )

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__slots__)
        return f"AppendInfo({fields})"
