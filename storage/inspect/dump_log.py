"""The lines of a ``.log`` file, in the words of Kafka's DumpLogSegments (4.x)."""

import os
from collections.abc import Callable, Iterator
from struct import Struct
from typing import Final, NamedTuple

from kavka.protocol.errors import KafkaError
from kavka.protocol.records import legacy
from kavka.protocol.records.batch import NO_SEQUENCE, BatchHeader, Record, advance_sequence
from kavka.protocol.records.compression import NAMES
from kavka.protocol.records.control import parse_control_record
from kavka.storage.inspect.batches import Batch, LogReader
from kavka.storage.inspect.decoders import Decoded, RecordDecoder
from kavka.storage.inspect.text import printable, shown

UNBOUNDED: Final = 2**63 - 1

_TIMESTAMP_TYPES: Final = ("CreateTime", "LogAppendTime")
_CONTROL_TYPE: Final = Struct(">xxh")
_CONTROL_NAMES: Final = (
    *("ABORT", "COMMIT", "LEADER_CHANGE"),
    *("SNAPSHOT_HEADER", "SNAPSHOT_FOOTER", "KRAFT_VERSION", "KRAFT_VOTERS"),
)


class LogOptions(NamedTuple):
    """What is shown of a log."""

    deep: bool = False  # a line for each record
    data: bool = False  # with keys and values, which implies deep
    metadata: bool = True  # with everything else about the record
    decoder: RecordDecoder | None = None  # None: keys and values are texts
    max_bytes: int = UNBOUNDED  # of a file; batches that begin behind are left out


class Jump(NamedTuple):
    """An offset that does not follow the one before it."""

    offset: int
    followed_by: int


def as_text(record: Record) -> Decoded:
    """Keys and values as UTF-8."""
    return Decoded(
        None if record.key is None else shown(record.key),
        None if record.value is None else shown(record.value),
    )


class LogDump:
    """The lines of one log file. ``jumps`` and ``damaged`` say what was met on the way."""

    def __init__(
        self, reader: LogReader, options: LogOptions, complain: Callable[[str], None]
    ) -> None:
        self._reader = reader
        self._options = options
        self._complain = complain
        self._last_offset: int | None = None
        self.jumps: list[Jump] = []
        self.damaged = False

    def lines(self) -> Iterator[str]:
        """All lines, from the first batch on."""
        reader, options = self._reader, self._options
        for batch in reader.batches():
            if batch.position + batch.size > options.max_bytes:
                return
            yield _batch_line(batch, reader.checksum_ok(batch))
            if options.deep or options.data:
                yield from self._record_lines(batch)
        if reader.end < reader.size <= options.max_bytes:
            yield (
                f"Found {reader.size - reader.end} invalid bytes at the end of "
                f"{os.path.basename(reader.path)}"
            )

    def _record_lines(self, batch: Batch) -> Iterator[str]:
        try:
            if batch.header is None:
                for message in self._reader.messages(batch):
                    self._follow(message.offset)
                    yield self._record_line(batch, legacy.as_record(message), message)
            else:
                for record in self._reader.records(batch):
                    self._follow(record.offset)
                    yield self._record_line(batch, record, None)
        except KafkaError as error:
            self.damaged = True
            self._complain(
                f"The records of the batch at position {batch.position} of {self._reader.path} "
                f"cannot be read: {error}"
            )

    def _follow(self, offset: int) -> None:
        last, self._last_offset = self._last_offset, offset
        if last is not None and offset != last + 1:
            self.jumps.append(Jump(last, offset))

    def _record_line(self, batch: Batch, record: Record, message: legacy.Message | None) -> str:
        parts = ["|"]
        if self._options.metadata:
            parts.append(_metadata(batch, record, message))
        if self._options.data and not (batch.header and batch.header.is_control):
            decoded = (self._options.decoder or as_text)(record)
            if decoded.key is not None:
                parts.append(f"key: {printable(decoded.key)}")
            if decoded.payload is not None:
                parts.append(f"payload: {printable(decoded.payload)}")
        return " ".join(parts) if len(parts) > 1 else ""


def _batch_line(batch: Batch, valid: bool) -> str:
    header = batch.header
    front = f"offset: {batch.last_offset}" if header is None else _header_fields(header)
    codec = NAMES[batch.codec] if batch.codec < len(NAMES) else f"unknown({batch.codec})"
    return (
        f"{front} position: {batch.position} {_timestamp_type(batch)}: {batch.max_timestamp} "
        f"size: {batch.size} magic: {batch.magic} compresscodec: {codec} crc: {batch.crc} "
        f"isvalid: {_java(valid)}"
    )


def _header_fields(header: BatchHeader) -> str:
    horizon = optional_long(header.delete_horizon)
    return (
        f"baseOffset: {header.base_offset} lastOffset: {header.last_offset} "
        f"count: {header.records_count} baseSequence: {header.base_sequence} "
        f"lastSequence: {header.last_sequence} producerId: {header.producer_id} "
        f"producerEpoch: {header.producer_epoch} partitionLeaderEpoch: {header.leader_epoch} "
        f"isTransactional: {_java(header.is_transactional)} "
        f"isControl: {_java(header.is_control)} deleteHorizonMs: {horizon}"
    )


def _metadata(batch: Batch, record: Record, message: legacy.Message | None) -> str:
    text = (
        f"offset: {record.offset} {_timestamp_type(batch)}: {record.timestamp} "
        f"keySize: {_size(record.key)} valueSize: {_size(record.value)}"
    )
    header = batch.header
    if header is None:
        assert message is not None
        return text
    sequence = NO_SEQUENCE
    if header.base_sequence >= 0:
        sequence = advance_sequence(header.base_sequence, record.offset - header.base_offset)
    names = ",".join(printable(name) for name, _ in record.headers)
    text = f"{text} sequence: {sequence} headerKeys: [{names}]"
    return f"{text} {_control(record)}" if header.is_control else text


def _control(record: Record) -> str:
    marker = parse_control_record(record.key, record.value)
    if marker is not None:
        return f"endTxnMarker: {marker.type.name} coordinatorEpoch: {marker.coordinator_epoch}"
    assert record.key is not None
    (kind,) = _CONTROL_TYPE.unpack_from(record.key)
    name = _CONTROL_NAMES[kind] if 0 <= kind < len(_CONTROL_NAMES) else "UNKNOWN"
    return f"controlType: {name}({kind})"


def _timestamp_type(batch: Batch) -> str:
    return "NoTimestampType" if batch.magic == 0 else _TIMESTAMP_TYPES[batch.timestamp_type]


def optional_long(value: int | None) -> str:
    """As Java prints an ``OptionalLong``."""
    return "OptionalLong.empty" if value is None else f"OptionalLong[{value}]"


def _size(data: bytes | None) -> int:
    return -1 if data is None else len(data)


def _java(value: bool) -> str:
    return "true" if value else "false"
