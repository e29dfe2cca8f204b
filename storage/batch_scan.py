"""Walking over the batches of a ``.log`` file by their headers."""

from collections.abc import Iterator
from struct import Struct
from typing import Final, NamedTuple

from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.protocol.records.batch import (
    HEADER_SIZE,
    LOG_OVERHEAD,
    MIN_MESSAGE_SIZE,
    NO_TIMESTAMP,
    BatchHeader,
    read_header,
)
from kavka.storage.fs import File, FileSystem

_CHUNK: Final = 8192  # bytes read at a time
_SMALLEST: Final = LOG_OVERHEAD + MIN_MESSAGE_SIZE
_OFFSET_SIZE_MAGIC: Final = Struct(">qixxxxb")
_TIMESTAMP_V1: Final = Struct(">q")


class BatchPosition(NamedTuple):
    """A batch in a segment, as far as its header tells."""

    position: int  # bytes from the start of the file
    size: int  # bytes
    base_offset: int  # message formats 0 and 1: same as last_offset
    last_offset: int
    max_timestamp: int
    header: BatchHeader | None  # None for message formats 0 and 1

    @property
    def leader_epoch(self) -> int:
        """Epoch of the leader that wrote it; -1 for message formats 0 and 1."""
        return -1 if self.header is None else self.header.leader_epoch


def scan(fs: FileSystem, file: File, start: int, end: int) -> Iterator[BatchPosition]:
    """Walk over the batch headers in ``[start, end)`` of a log file. Checksums are not looked at.

    Stops before an incomplete batch. Raises KafkaError CORRUPT_MESSAGE for bytes that cannot be
    a batch.
    """
    position = start
    chunk = b""
    chunk_start = start
    while end - position >= _SMALLEST:
        at = position - chunk_start
        if at + HEADER_SIZE > len(chunk):
            chunk = fs.pread(file, min(_CHUNK, end - position), position)
            chunk_start = position
            at = 0
            if len(chunk) < _SMALLEST:
                return
        base_offset, length, magic = _OFFSET_SIZE_MAGIC.unpack_from(chunk, at)
        size = length + LOG_OVERHEAD
        if length < MIN_MESSAGE_SIZE or not 0 <= magic <= 2 or (magic == 2 and size < HEADER_SIZE):
            raise KafkaError(
                ErrorCode.CORRUPT_MESSAGE,
                f"no batch at position {position}: size {length}, format {magic}",
            )
        if position + size > end:
            return
        if magic == 2:
            header = read_header(chunk, at)
            last = base_offset + header.last_offset_delta
            yield BatchPosition(position, size, base_offset, last, header.max_timestamp, header)
        else:
            timestamp = NO_TIMESTAMP
            if magic == 1 and size >= 26:
                timestamp = _TIMESTAMP_V1.unpack_from(chunk, at + 18)[0]
            yield BatchPosition(position, size, base_offset, base_offset, timestamp, None)
        position += size
