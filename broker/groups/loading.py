"""Rebuilding the groups of one partition from its records: the same steps the live broker took.

Later records win, tombstones delete, offsets committed in a transaction count from the marker
that ends it. Runs in a thread, so a :class:`Replay` belongs to nobody else until it is handed
over.

A sound batch may hold nonsense: an administrator's client may write to the topic. Such records
are passed over, for one of them must not take all groups of the partition out of service.
"""

import logging
from typing import Final

from kavka.broker.groups import records
from kavka.broker.groups.consumer.records import read_update
from kavka.broker.groups.consumer.state import GroupData
from kavka.broker.groups.image import GroupImage
from kavka.broker.groups.offsets import GroupOffsets
from kavka.config import limits
from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.protocol.records import consumer_groups
from kavka.protocol.records.batch import (
    Record,
    crc_ok,
    iter_batches,
    iter_records,
    read_header,
)
from kavka.protocol.records.control import ControlType, read_end_txn_marker

log = logging.getLogger("kavka.groups")

_MAGIC_V2: Final = 2


class LoadedGroup:
    """What a partition says of one group: its last generation and its offsets."""

    __slots__ = ("consumer", "image", "offsets")

    def __init__(self) -> None:
        self.image: GroupImage | None = None
        self.consumer: GroupData | None = None  # of the consumer protocol (KIP-848)
        self.offsets = GroupOffsets()

    @property
    def exists(self) -> bool:
        return self.image is not None or self.consumer is not None or self.offsets.in_use


class Replay:
    """The groups of a partition, as far as its records have been fed in."""

    def __init__(self) -> None:
        self.groups: dict[str, LoadedGroup] = {}
        self._in_transactions: dict[int, set[str]] = {}  # producer id → groups
        self.unknown_records = 0  # of a kind a later Kafka writes, or nonsense

    def feed(self, data: memoryview) -> int:
        """Take in whole batches; gives the offset after the last one, -1 if there is none.

        Raises KafkaError for a batch that is damaged.
        """
        next_offset = -1
        for position, size, magic in iter_batches(data):
            if magic < _MAGIC_V2:
                next_offset = self._feed_legacy(data, position, size, magic)
                continue
            if not crc_ok(data, position, size):
                raise KafkaError(
                    ErrorCode.CORRUPT_MESSAGE,
                    f"a checksum does not match, after offset {next_offset}",
                )
            header = read_header(data, position)
            if header.is_control:
                marker = read_end_txn_marker(data, position, header)
                if marker is not None:
                    committed = marker.type is ControlType.COMMIT
                    self._end_transaction(header.producer_id, committed)
            else:
                producer_id = header.producer_id if header.is_transactional else None
                limit = limits.DECOMPRESSED_BATCH_BYTES_MAX
                try:
                    for record in iter_records(data, position, header, limit):
                        self._apply(record, producer_id)
                except KafkaError:
                    self.unknown_records += 1
            next_offset = header.next_offset
        return next_offset

    def _feed_legacy(self, data: memoryview, position: int, size: int, magic: int) -> int:
        """A message of before Kafka 0.11, in a data directory that has come from there."""
        from kavka.protocol.records.legacy import read_records

        next_offset = -1
        limit = limits.DECOMPRESSED_BATCH_BYTES_MAX
        for record in read_records(data, position, size, magic, limit):
            self._apply(record, None)
            next_offset = record.offset + 1
        return next_offset

    def _apply(self, record: Record, producer_id: int | None) -> None:
        try:
            self._apply_known(record, producer_id)
        except KafkaError:
            self.unknown_records += 1

    def _apply_known(self, record: Record, producer_id: int | None) -> None:
        key = None if record.key is None else records.read_key(record.key)
        if key is None:
            self._apply_consumer(record)
            return
        group = self._group(key.group)
        if isinstance(key, records.GroupKey):
            group.image = None if record.value is None else records.read_group(record.value)
        elif record.value is None:
            group.offsets.remove(key.partition)
        else:
            value = records.read_offset(record.value)
            if producer_id is None:
                group.offsets.put(key.partition, value, record.offset)
            else:
                group.offsets.put_transactional(producer_id, key.partition, value, record.offset)
                self._in_transactions.setdefault(producer_id, set()).add(key.group)

    def _apply_consumer(self, record: Record) -> None:
        """A record of a group of the consumer protocol."""
        key = None if record.key is None else consumer_groups.decode_key(record.key)
        if key is None:
            self.unknown_records += 1
            return
        group = self._group(key.group_id)
        if record.value is None and isinstance(key, consumer_groups.ConsumerGroupMetadataKey):
            group.consumer = None
            return
        update = read_update(key, record.value)
        if update is not None:
            if group.consumer is None:
                group.consumer = GroupData()
            group.consumer.apply(update)

    def _group(self, group_id: str) -> LoadedGroup:
        group = self.groups.get(group_id)
        if group is None:
            group = self.groups[group_id] = LoadedGroup()
        return group

    def _end_transaction(self, producer_id: int, committed: bool) -> None:
        for group_id in self._in_transactions.pop(producer_id, ()):
            self.groups[group_id].offsets.end_transaction(producer_id, committed)
