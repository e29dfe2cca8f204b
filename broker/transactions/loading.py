"""Rebuilding the transactional ids of one partition of ``__transaction_state``.

The last record of an id says all of it; a tombstone says that it has expired. Runs in a thread,
so a :class:`Replay` belongs to nobody else until it is handed over.

A sound batch may hold nonsense: an administrator's client may write to the topic. Such records
are passed over, for one of them must not take all ids of the partition out of service.
"""

from typing import Final

from kavka.broker.transactions import records
from kavka.broker.transactions.messages import TransactionImage
from kavka.config import limits
from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.protocol.records.batch import crc_ok, iter_batches, iter_records, read_header

_MAGIC_V2: Final = 2  # the topic is younger than the older formats


class Replay:
    """The transactional ids of a partition, as far as its records have been fed in."""

    def __init__(self) -> None:
        self.images: dict[str, TransactionImage] = {}
        self.unknown_records = 0  # of a kind a later Kafka writes, or nonsense

    def feed(self, data: memoryview) -> int:
        """Take in whole batches; gives the offset after the last one, -1 if there is none.

        Raises KafkaError for what is damaged.
        """
        next_offset = -1
        for position, size, magic in iter_batches(data):
            if magic != _MAGIC_V2 or not crc_ok(data, position, size):
                raise KafkaError(
                    ErrorCode.CORRUPT_MESSAGE, f"a batch is damaged, after offset {next_offset}"
                )
            header = read_header(data, position)
            if not header.is_control:
                limit = limits.DECOMPRESSED_BATCH_BYTES_MAX
                try:
                    for record in iter_records(data, position, header, limit):
                        self._apply(record.key, record.value)
                except KafkaError:
                    self.unknown_records += 1
            next_offset = header.next_offset
        return next_offset

    def _apply(self, key: bytes | None, value: bytes | None) -> None:
        try:
            self._apply_known(key, value)
        except KafkaError:
            self.unknown_records += 1

    def _apply_known(self, key: bytes | None, value: bytes | None) -> None:
        transactional_id = None if key is None else records.read_key(key)
        if transactional_id is None:
            self.unknown_records += 1
        elif value is None:
            self.images.pop(transactional_id, None)
        else:
            self.images[transactional_id] = records.read_value(value)
