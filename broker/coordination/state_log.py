"""The partitions of a coordinator's own topic as the coordinator sees them.

It only appends to the end, waits for replication, and reads a partition from its beginning when
it becomes the leader. :class:`ReplicaStateLog` does that with the broker's replicas; tests put
a list in its place.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from kavka.protocol.errors import ErrorCode, KafkaError

if TYPE_CHECKING:
    from kavka.replication.replica_manager import ReplicaManager
    from kavka.storage.fetch_slice import FetchSlice


class Slice(Protocol):
    """Whole batches of a partition, perhaps with the beginning of another one at the end."""

    def view(self) -> memoryview:
        """The bytes; may block on the disk, so it is called in a thread."""


class StateLog(Protocol):
    """What the coordinator needs of the log."""

    def append(self, partition: int, batch: bytearray) -> int:
        """Append one batch and give the offset of its first record. Raises KafkaError."""

    def when_replicated(
        self,
        partition: int,
        end_offset: int,
        timeout_ms: int,
        callback: Callable[[ErrorCode], None],
    ) -> None:
        """Call back once all below ``end_offset`` is replicated, or with what came between."""

    def bounds(self, partition: int) -> tuple[int, int]:
        """First offset and next offset to be written. Raises KafkaError."""

    def read(self, partition: int, offset: int, max_bytes: int) -> Slice | None:
        """Batches from the one with ``offset`` on; at least one, whatever ``max_bytes`` says.

        None when there is nothing at or after ``offset``. Raises KafkaError.
        """


class ReplicaStateLog:
    """The partitions of ``topic`` that this broker leads."""

    def __init__(self, replicas: "ReplicaManager", topic: str) -> None:
        self._replicas = replicas
        self._topic = topic

    def append(self, partition: int, batch: bytearray) -> int:
        config = self._replicas.partition(self._topic, partition).log.config
        if len(batch) > config.max_message_bytes:
            raise KafkaError(
                ErrorCode.MESSAGE_TOO_LARGE,
                f"a record batch of {len(batch)} bytes is larger than max.message.bytes "
                f"{config.max_message_bytes} of {self._topic}",
            )
        return self._replicas.append_internal(self._topic, partition, batch).first_offset

    def when_replicated(
        self,
        partition: int,
        end_offset: int,
        timeout_ms: int,
        callback: Callable[[ErrorCode], None],
    ) -> None:
        self._replicas.when_replicated(self._topic, partition, end_offset, timeout_ms, callback)

    def bounds(self, partition: int) -> tuple[int, int]:
        log = self._replicas.partition(self._topic, partition).log
        return log.log_start_offset, log.log_end_offset

    def read(self, partition: int, offset: int, max_bytes: int) -> "FetchSlice | None":
        log = self._replicas.partition(self._topic, partition).log
        found = log.read(offset, max_bytes, log.log_end_offset, min_one=True)
        return None if found.empty else found
