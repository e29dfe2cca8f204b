"""Reading a ``.log`` file batch by batch, in pieces, with everything its headers say."""

from collections.abc import Iterator
from struct import Struct
from typing import Final, NamedTuple
from zlib import crc32

from kavka.config.limits import DECOMPRESSED_BATCH_BYTES_MAX
from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.protocol.records import legacy
from kavka.protocol.records.batch import (
    CODEC_MASK,
    CRC_START,
    HEADER_SIZE,
    LOG_OVERHEAD,
    MAGIC_OFFSET,
    MIN_MESSAGE_SIZE,
    NO_TIMESTAMP,
    TIMESTAMP_TYPE_MASK,
    BatchHeader,
    Record,
    iter_records,
    read_header,
)
from kavka.protocol.records.crc import crc32c
from kavka.storage.fs import File, FileSystem

_CHUNK: Final = 1 << 18  # bytes read at a time
_ENTRY: Final = Struct(">qiIbb")  # message formats 0 and 1: offset, size, crc, magic, attributes
_INT64: Final = Struct(">q")
_LENGTH: Final = Struct(">i")
_TIMESTAMP_V1: Final = 18  # where the timestamp of format 1 is


class Batch(NamedTuple):
    """A batch of format 2, or an entry of a message set of format 0 or 1."""

    position: int  # bytes from the start of the file
    size: int  # bytes
    magic: int
    attributes: int
    crc: int
    base_offset: int  # formats 0 and 1: same as last_offset
    last_offset: int
    max_timestamp: int
    header: BatchHeader | None  # None for formats 0 and 1

    @property
    def codec(self) -> int:
        return self.attributes & CODEC_MASK

    @property
    def timestamp_type(self) -> int:
        """``CREATE_TIME`` or ``LOG_APPEND_TIME``."""
        return (self.attributes & TIMESTAMP_TYPE_MASK) >> 3


class LogReader:
    """One ``.log`` file, read from front to back.

    After :meth:`batches` has ended, ``end`` is where it stopped, and ``reason`` says why, empty
    when that was the end of the file.
    """

    __slots__ = ("_chunk", "_chunk_start", "_file", "_fs", "end", "path", "reason", "size")

    def __init__(self, fs: FileSystem, path: str) -> None:
        """Open the file. Raises OSError."""
        self._fs = fs
        self.path = path
        self._file: File = fs.open(path)
        self.size = fs.file_size(self._file)
        self._chunk = memoryview(b"")
        self._chunk_start = 0
        self.end = 0
        self.reason = ""

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> "LogReader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def batches(self, start: int = 0) -> Iterator[Batch]:
        """Batches from the position ``start`` on, as far as one begins where the last one ends.

        Checksums are not looked at.
        """
        self.end = start
        self.reason = ""
        while self.end < self.size:
            batch = self._batch_at(self.end)
            if batch is None:
                return
            yield batch
            self.end = batch.position + batch.size

    def batch_at(self, position: int) -> Batch | None:
        """The batch that begins at ``position``; None when there cannot be one."""
        return self._batch_at(position) if 0 <= position < self.size else None

    def _batch_at(self, position: int) -> Batch | None:
        left = self.size - position
        if left <= MAGIC_OFFSET:
            self.reason = f"{left} bytes are too few for a batch"
            return None
        view = self._view(position, min(left, HEADER_SIZE))
        length: int = _LENGTH.unpack_from(view, 8)[0]
        magic = view[MAGIC_OFFSET]
        size = length + LOG_OVERHEAD
        smallest = HEADER_SIZE if magic == 2 else LOG_OVERHEAD + MIN_MESSAGE_SIZE
        if magic > 2 or size < smallest:
            self.reason = f"no batch begins there (size {length}, format {magic})"
            return None
        if size > left:
            self.reason = f"a batch of {size} bytes is cut off after {left}"
            return None
        if magic == 2:
            header = read_header(view)
            return Batch(
                position,
                size,
                magic,
                header.attributes,
                header.crc,
                header.base_offset,
                header.last_offset,
                header.max_timestamp,
                header,
            )
        offset, _, crc, _, attributes = _ENTRY.unpack_from(view)
        timestamp = NO_TIMESTAMP
        if magic == 1 and size >= _TIMESTAMP_V1 + _INT64.size:
            timestamp = _INT64.unpack_from(view, _TIMESTAMP_V1)[0]
        return Batch(position, size, magic, attributes, crc, offset, offset, timestamp, None)

    def checksum_ok(self, batch: Batch) -> bool:
        """Whether the checksum holds; a batch larger than memory is no matter."""
        start = CRC_START if batch.magic == 2 else MAGIC_OFFSET
        position = batch.position + start
        end = batch.position + batch.size
        value = 0
        while position < end:
            piece = self._view(position, min(_CHUNK, end - position))
            value = crc32c(piece, value) if batch.magic == 2 else crc32(piece, value)
            position += len(piece)
        return value == batch.crc

    def records(self, batch: Batch) -> Iterator[Record]:
        """Decode the records of a batch. Raises KafkaError when they cannot be decoded."""
        data = self._whole(batch)
        if batch.header is not None:
            yield from iter_records(data, 0, batch.header, DECOMPRESSED_BATCH_BYTES_MAX)
            return
        for message in self.messages(batch):
            yield legacy.as_record(message)

    def messages(self, batch: Batch) -> Iterator[legacy.Message]:
        """Decode an entry of format 0 or 1, which may hold a compressed set. Raises KafkaError."""
        message = legacy.read_message(self._whole(batch), 0, batch.size)
        yield from legacy.expand(message, DECOMPRESSED_BATCH_BYTES_MAX)

    def only_zeros(self, position: int) -> bool:
        """Whether nothing but zeros is in the file from ``position`` on: reserved space."""
        while position < self.size:
            piece = self._fs.pread(self._file, min(_CHUNK, self.size - position), position)
            if not piece or piece.strip(b"\0"):
                return not piece
            position += len(piece)
        return True

    def _whole(self, batch: Batch) -> memoryview:
        if batch.size > DECOMPRESSED_BATCH_BYTES_MAX:
            raise KafkaError(
                ErrorCode.CORRUPT_MESSAGE, f"a batch of {batch.size} bytes is too large to decode"
            )
        return self._view(batch.position, batch.size)

    def _view(self, position: int, size: int) -> memoryview:
        """``size`` bytes from ``position``, which the file has; shorter if it was cut meanwhile."""
        at = position - self._chunk_start
        if at < 0 or at + size > len(self._chunk):
            wanted = min(max(size, _CHUNK), self.size - position)
            data = self._fs.pread(self._file, wanted, position)
            if len(data) < size:
                raise OSError(0, f"{self.path} became shorter while it was read")
            self._chunk = memoryview(data)
            self._chunk_start = position
            at = 0
        return self._chunk[at : at + size]
