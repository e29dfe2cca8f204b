"""Reading a segment after a crash: what of it holds, and where it stops making sense."""

from struct import Struct
from typing import Final, NamedTuple
from zlib import crc32

from kavka.protocol.errors import KafkaError
from kavka.protocol.records.batch import (
    HEADER_SIZE,
    LOG_OVERHEAD,
    MAGIC_OFFSET,
    MIN_MESSAGE_SIZE,
    crc_ok,
    read_header,
)
from kavka.storage.batch_scan import BatchPosition
from kavka.storage.epochs import LeaderEpochCache
from kavka.storage.fs import File, FileSystem
from kavka.storage.producers import ProducerStateManager
from kavka.storage.replay import replay_batch
from kavka.storage.segment import MAX_RELATIVE_OFFSET, Segment

_CHUNK: Final = 1 << 20  # bytes read at a time past the recovery point
_HOP: Final = 1 << 13  # and below it
_LENGTH: Final = Struct(">i")
_CRC: Final = Struct(">I")


class Cut(NamedTuple):
    """Where a segment stopped making sense."""

    position: int
    offset: int  # the next one that was expected
    bytes: int  # that are lost
    reason: str


class SegmentRecovery:
    """Recovers segments one after the other, and with them producers and leader epochs."""

    def __init__(
        self, fs: FileSystem, producers: ProducerStateManager, epochs: LeaderEpochCache
    ) -> None:
        self._fs = fs
        self._producers = producers
        self._epochs = epochs
        self.recovered: set[int] = set()  # base offsets
        self.bytes = 0  # of batches past the recovery point
        self.cut_bytes = 0  # but for reserved space
        self.is_dense = True  # no offset was missing in what has been read

    def recover(self, segment: Segment, recovery_point: int) -> Cut | None:
        """Read a segment, rebuild its indexes, and cut it where it stops making sense.

        The producers' state is that of the segment's start before, and of its end after.
        Checksums are looked at from ``recovery_point`` (an offset) on.
        """
        end = segment.size
        segment.reset_indexes()
        segment.txn_index.reset()
        expected = segment.base_offset
        reader = BatchReader(self._fs, segment.file(), end)
        reason = ""
        while segment.size < end:
            position = segment.size
            try:
                batch, reason = reader.batch_at(position)
            except KafkaError as error:
                batch, reason = None, str(error)
            if batch is None:
                break
            if batch.last_offset >= recovery_point:
                if not reader.checksum_ok(batch):
                    reason = "the checksum of a batch does not match"
                    break
                self.bytes += batch.size
            if not expected <= batch.base_offset <= batch.last_offset:
                reason = f"offset {batch.base_offset} is not one that can follow"
                break
            if batch.last_offset - segment.base_offset > MAX_RELATIVE_OFFSET:
                reason = f"offset {batch.last_offset} is too large for the segment"
                break
            if batch.base_offset > expected or (
                batch.header is not None
                and batch.header.records_count <= batch.header.last_offset_delta
            ):
                self.is_dense = False
            completed = None
            try:
                completed = replay_batch(self._producers, segment, batch)
            except KafkaError as error:
                reason = f"a control batch cannot be read: {error}"
                break
            if completed is not None and completed.aborted:
                segment.txn_index.append(completed)
            header = batch.header
            if header is not None and header.leader_epoch > self._epochs.latest_epoch:
                self._epochs.assign(header.leader_epoch, batch.base_offset)
            segment.account(
                position,
                batch.size,
                batch.base_offset,
                batch.last_offset,
                batch.max_timestamp,
                batch.last_offset,
            )
            expected = self._producers.end_offset = batch.last_offset + 1
        self.recovered.add(segment.base_offset)
        cut = None
        if segment.size < end:
            lost = reader.data_end(segment.size) - segment.size
            if lost:
                cut = Cut(segment.size, expected, lost, reason)
                self.cut_bytes += lost
            segment.cut_file()
        return cut

    def note_lost(self, segment: Segment) -> None:
        """Count a segment in that is deleted because one before it was cut."""
        self.cut_bytes += BatchReader(self._fs, segment.file(), segment.size).data_end(0)


class BatchReader:
    """Reads batches one behind the other, in large pieces."""

    __slots__ = ("_chunk", "_end", "_file", "_fs", "_start")

    def __init__(self, fs: FileSystem, file: File, end: int) -> None:
        self._fs = fs
        self._file = file
        self._end = end
        self._chunk = memoryview(b"")
        self._start = 0  # position of the chunk

    def _need(self, position: int, size: int, at_least: int) -> int:
        """Have ``size`` bytes from ``position`` in the chunk; return where in it they begin."""
        if position < self._start or position + size > self._start + len(self._chunk):
            wanted = min(max(size, at_least), self._end - position)
            self._chunk = memoryview(self._fs.pread(self._file, wanted, position))
            self._start = position
        return position - self._start

    def batch_at(self, position: int) -> tuple[BatchPosition | None, str]:
        """The batch there, or None and why there is none."""
        left = self._end - position
        if left <= MAGIC_OFFSET:
            return None, f"{left} bytes are left, too few for a batch"
        at = self._need(position, min(left, HEADER_SIZE), _HOP)
        length: int = _LENGTH.unpack_from(self._chunk, at + 8)[0]
        magic = self._chunk[at + MAGIC_OFFSET]
        size = length + LOG_OVERHEAD
        if magic > 2 or length < MIN_MESSAGE_SIZE or (magic == 2 and size < HEADER_SIZE):
            return None, f"no batch begins there (size {length}, format {magic})"
        if size > left:
            return None, f"a batch of {size} bytes is not complete"
        if magic == 2:
            header = read_header(self._chunk, at)
            if header.last_offset_delta < 0:
                return None, f"a batch ends {-header.last_offset_delta} offsets before it begins"
            return BatchPosition(
                position,
                size,
                header.base_offset,
                header.last_offset,
                header.max_timestamp,
                header,
            ), ""
        offset = int.from_bytes(self._chunk[at : at + 8], "big", signed=True)
        timestamp = -1
        if magic == 1 and size >= 26:
            timestamp = int.from_bytes(self._chunk[at + 18 : at + 26], "big", signed=True)
        return BatchPosition(position, size, offset, offset, timestamp, None), ""

    def checksum_ok(self, batch: BatchPosition) -> bool:
        """Whether the CRC of a batch holds.

        Of the old formats', too: a v2 batch of which only the first bytes were written looks like
        one of format 0.
        """
        at = self._need(batch.position, batch.size, _CHUNK)
        if batch.header is not None:
            return crc_ok(self._chunk, at, batch.size)
        crc: int = _CRC.unpack_from(self._chunk, at + LOG_OVERHEAD)[0]
        return crc32(self._chunk[at + MAGIC_OFFSET : at + batch.size]) == crc

    def data_end(self, position: int) -> int:
        """Where the last byte from ``position`` on is that is not zero; ``position`` for none."""
        end = self._end
        while end > position:
            start = max(position, end - _CHUNK)
            data = self._fs.pread(self._file, end - start, start).rstrip(b"\0")
            if data:
                return start + len(data)
            end = start
        return position
