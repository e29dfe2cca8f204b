"""A compacted log and a cleaner that does its work at once, in the test's own thread."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from kavka.config.broker import BrokerConfig
from kavka.protocol.records.batch import BatchHeader, Record, build_batch, read_header
from kavka.protocol.records.control import ControlType, EndTxnMarker, build_end_txn_marker
from kavka.protocol.topics import TopicPartition
from kavka.storage.append import AppendInfo, AppendOrigin
from kavka.storage.cleaner import Cleaner
from kavka.storage.cleaning_job import CleanedLog
from kavka.storage.cleaning_workers import ThreadWorker
from kavka.storage.fs import FileSystem
from kavka.storage.log import Log, SegmentDeletion
from tests.unit.storage.log_support import TP, Place, records

OnLoop = Callable[[Callable[[], Any]], Any]


class OneLog:
    """What the cleaner asks of a manager, for one log."""

    def __init__(self, log: Log, fs: FileSystem) -> None:
        self.log = log
        self.fs = fs
        self.checkpoint: int | None = None

    def __iter__(self) -> Iterator[Log]:
        return iter([self.log])

    def get(self, topic_partition: TopicPartition) -> Log | None:
        return self.log if topic_partition == TP else None

    def cleaned_to(self, topic_partition: TopicPartition) -> int | None:
        return self.checkpoint

    def note_cleaned(self, topic_partition: TopicPartition, offset: int) -> None:
        self.checkpoint = offset

    def remove_segments(self, deletions: list[SegmentDeletion]) -> None:
        for deletion in deletions:
            deletion.run(self.fs)


class Cleaning:
    """A log in ``place``, and its cleaner."""

    def __init__(self, place: Place, log: Log | None = None, **settings: str) -> None:
        self.place = place
        self.log = log or place.open()
        self.logs = OneLog(self.log, place.fs)
        config = BrokerConfig({name.replace("_", "."): value for name, value in settings.items()})
        self.cleaner = Cleaner(config, self.logs, place.fs, place.clock, place.open_files)

    def clean(self, *, due: bool = False, on_loop: OnLoop = lambda step: step()) -> bool:
        """One pass, if there is anything to clean (or, with ``due``, enough)."""
        cleaner, log = self.cleaner, self.log
        found = cleaner.judge(log)
        if found is None or not found.dirty_bytes:
            return False
        config = log.config
        if due and not found.ratio > config.min_cleanable_dirty_ratio and not found.overdue_ms:
            return False
        begun = cleaner.begin(log, found, ThreadWorker(self.place.fs, self.place.clock))
        assert begun is not None
        outcome: CleanedLog | Exception
        try:
            outcome = begun.run(on_loop)
        except Exception as error:
            outcome = error
        return cleaner.end(begun, outcome)


def keyed_batch(
    *pairs: tuple[bytes | None, bytes | None],
    timestamp: int | Sequence[int] = 1_000,
    **fields: Any,
) -> tuple[BatchHeader, memoryview]:
    """A batch of (key, value) pairs, as validation hands it on."""
    times = [timestamp] * len(pairs) if isinstance(timestamp, int) else timestamp
    data = bytearray(
        build_batch(
            [Record(index, times[index], *pair) for index, pair in enumerate(pairs)],
            base_offset=0,
            **fields,
        )
    )
    return read_header(data), memoryview(data)


def put(
    log: Log, *pairs: tuple[bytes | None, bytes | None], epoch: int = 0, **fields: Any
) -> AppendInfo:
    """Append (key, value) pairs in one batch; everything is replicated at once."""
    info = log.append_as_leader([keyed_batch(*pairs, **fields)], epoch, 1_000)
    log.advance_high_watermark(log.log_end_offset)
    return info


def end_transaction(
    log: Log, producer_id: int, *, commit: bool, epoch: int = 0, timestamp: int = 1_000
) -> AppendInfo:
    """Append the marker that ends a transaction."""
    kind = ControlType.COMMIT if commit else ControlType.ABORT
    data = bytearray(
        build_end_txn_marker(
            EndTxnMarker(kind, 0),
            producer_id=producer_id,
            producer_epoch=epoch,
            timestamp=timestamp,
        )
    )
    info = log.append_as_leader(
        [(read_header(data), memoryview(data))], 0, 1_000, AppendOrigin.COORDINATOR
    )
    log.advance_high_watermark(log.log_end_offset)
    return info


def raw(log: Log) -> bytes:
    """All bytes of the log, read as a consumer reads them."""
    parts = []
    offset = log.log_start_offset
    while offset < log.log_end_offset:
        data = log.read(offset, 1 << 24, log.log_end_offset).view()
        if not data:
            break
        parts.append(bytes(data))
        offset = last_offset(data) + 1
    return b"".join(parts)


def last_offset(data: bytes | memoryview) -> int:
    """Offset of the last batch's last record."""
    return headers(data)[-1].last_offset


def headers(data: bytes | memoryview) -> list[BatchHeader]:
    """Of all batches."""
    found = []
    at = 0
    while at < len(data):
        header = read_header(data, at)
        found.append(header)
        at += header.size
    return found


def contents(log: Log) -> dict[int, tuple[bytes | None, bytes | None]]:
    """Offset → (key, value) of all data records."""
    found = {}
    data = raw(log)
    at = 0
    while at < len(data):
        header = read_header(data, at)
        if not header.is_control:
            for record in records(data[at : at + header.size]):
                assert record.offset not in found
                found[record.offset] = (record.key, record.value)
        at += header.size
    return found
