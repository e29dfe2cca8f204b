"""Transactional ids as records of ``__transaction_state``, and back."""

from collections.abc import Collection

from kavka.broker.transactions.messages import TransactionImage
from kavka.broker.transactions.state import TransactionState
from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.protocol.records import internal_topics as stored
from kavka.protocol.topics import TopicPartition

_NEVER_STORED = (TransactionState.DEAD, TransactionState.PREPARE_EPOCH_FENCE)


def transaction_key(transactional_id: str) -> bytes:
    return stored.encode_transaction_key(transactional_id)


def read_key(data: bytes) -> str | None:
    """The transactional id that a record is about; None for what only later versions of Kafka
    know. Raises KafkaError CORRUPT_MESSAGE."""
    key = stored.decode_transaction_key(data)
    return None if key is None else key.transactional_id


def transaction_value(image: TransactionImage) -> bytes:
    partitions: list[stored.TransactionPartitions] | None = None
    if image.state is not TransactionState.EMPTY:
        partitions = [
            stored.TransactionPartitions(topic=topic, partition_ids=indexes)
            for topic, indexes in by_topic(image.partitions).items()
        ]
    return stored.encode_transaction_value(
        stored.TransactionLogValue(
            producer_id=image.producer_id,
            producer_epoch=image.producer_epoch,
            transaction_timeout_ms=image.timeout_ms,
            transaction_status=image.state,
            transaction_partitions=partitions,
            transaction_last_update_timestamp_ms=image.updated_ms,
            transaction_start_timestamp_ms=image.start_ms,
            previous_producer_id=image.previous_id,
            next_producer_id=image.next_id,
            client_transaction_version=image.client_version,
        )
    )


def read_value(data: bytes) -> TransactionImage:
    """Raises KafkaError CORRUPT_MESSAGE for bytes that are no such value."""
    value = stored.decode_transaction_value(data)
    try:
        state = TransactionState(value.transaction_status)
    except ValueError:
        state = TransactionState.DEAD
    if state in _NEVER_STORED:
        raise KafkaError(
            ErrorCode.CORRUPT_MESSAGE,
            f"a transaction was stored in state {value.transaction_status}",
        )
    return TransactionImage(
        value.producer_id,
        value.producer_epoch,
        value.transaction_timeout_ms,
        state,
        frozenset(
            TopicPartition(topic.topic, index)
            for topic in value.transaction_partitions or ()
            for index in topic.partition_ids
        ),
        value.transaction_last_update_timestamp_ms,
        value.transaction_start_timestamp_ms,
        value.previous_producer_id,
        value.next_producer_id,
        value.client_transaction_version,
    )


def by_topic(partitions: Collection[TopicPartition]) -> dict[str, list[int]]:
    """Partition indexes by topic, both in ascending order."""
    topics: dict[str, list[int]] = {}
    for topic, index in sorted(partitions):
        topics.setdefault(topic, []).append(index)
    return topics
