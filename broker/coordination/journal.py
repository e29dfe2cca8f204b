"""Writing to a coordinator's own topic: one batch an operation."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

from kavka.broker.coordination.state_log import StateLog
from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.protocol.records.batch import (
    NO_PRODUCER_EPOCH,
    NO_PRODUCER_ID,
    NO_SEQUENCE,
    Record,
    build_batch,
)
from kavka.storage.clock import Clock

KeyValue: TypeAlias = tuple[bytes, bytes | None]
"""A record's key and value; a null value deletes the key (compaction)."""


class TransactionalProducer(NamedTuple):
    """In whose transaction a batch stands."""

    producer_id: int
    epoch: int


class Journal:
    """Appends records to the partitions of a coordinator's own topic."""

    def __init__(self, log: StateLog, clock: Clock, codec: int) -> None:
        self._log = log
        self._clock = clock
        self._codec = codec

    def append(
        self,
        partition: int,
        records: Sequence[KeyValue],
        producer: TransactionalProducer | None = None,
    ) -> int:
        """Append ``records`` as one batch; gives the offset of the first. Raises KafkaError.

        With a ``producer`` they are part of its transaction and count from its marker.
        """
        now_ms = self._clock.wall_ms()
        batch = build_batch(
            [Record(index, now_ms, key, value) for index, (key, value) in enumerate(records)],
            base_offset=0,
            codec=self._codec,
            producer_id=NO_PRODUCER_ID if producer is None else producer.producer_id,
            producer_epoch=NO_PRODUCER_EPOCH if producer is None else producer.epoch,
            # As Kafka has it; sequences are not checked where coordinators write.
            base_sequence=NO_SEQUENCE if producer is None else 0,
            transactional=producer is not None,
        )
        return self._log.append(partition, bytearray(batch))

    def when_replicated(
        self,
        partition: int,
        end_offset: int,
        timeout_ms: int,
        done: Callable[[ErrorCode], None],
    ) -> None:
        """Call ``done`` once, with NONE when all below ``end_offset`` is replicated."""
        try:
            self._log.when_replicated(partition, end_offset, timeout_ms, done)
        except KafkaError as error:
            done(error.code)  # the partition went away since the append
