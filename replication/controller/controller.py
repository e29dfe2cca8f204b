"""The controller: the one broker that decides who leads what."""

from collections.abc import Mapping, Sequence

from kavka.protocol.topics import TopicPartition
from kavka.replication.controller.operations import (
    CreatedTopic,
    ElectionType,
    NewPartitions,
    NewTopic,
    Outcome,
    Reassignment,
)


class Controller:
    """A candidate for the cluster's controller, and the controller once it is elected."""

    @property
    def active(self) -> bool:
        """Whether this broker is the controller."""
        raise NotImplementedError

    async def start(self) -> None:
        """Stand for election; return when this broker knows of all partitions, as the
        controller itself, or as soon as another broker turns out to be it.
        """
        raise NotImplementedError

    async def stop(self) -> None:
        """Give up the office and forget everything."""
        raise NotImplementedError

    async def create_topics(
        self, topics: Sequence[NewTopic], *, timeout_ms: int, validate_only: bool = False
    ) -> list[CreatedTopic]:
        """Create topics and wait until each partition has a leader in the metadata cache.

        Any broker may do this; the answer of CreateTopics is the active controller's to give.
        """
        raise NotImplementedError

    async def delete_topics(self, names: Sequence[str], *, timeout_ms: int) -> dict[str, Outcome]:
        """Delete topics and wait until nothing of them is left."""
        raise NotImplementedError

    async def create_partitions(
        self, topics: Sequence[NewPartitions], *, timeout_ms: int, validate_only: bool = False
    ) -> dict[str, Outcome]:
        """Add partitions and wait until each has a leader in the metadata cache."""
        raise NotImplementedError

    async def elect_leaders(
        self,
        election: ElectionType,
        partitions: Sequence[TopicPartition] | None,
        *,
        timeout_ms: int,
    ) -> dict[TopicPartition, Outcome]:
        """Elect leaders of these partitions (None: of all that need it)."""
        raise NotImplementedError

    async def alter_reassignments(
        self, targets: Mapping[TopicPartition, Sequence[int] | None]
    ) -> dict[TopicPartition, Outcome]:
        """Start moving partitions to other replicas; None cancels a move."""
        raise NotImplementedError

    async def list_reassignments(
        self, partitions: Sequence[TopicPartition] | None
    ) -> list[Reassignment]:
        """The moves under way, of these partitions or of all."""
        raise NotImplementedError

    async def controlled_shutdown(self, broker_id: int, broker_epoch: int) -> list[TopicPartition]:
        """Take leadership away from a broker that wants to stop; give what it still leads.

        Raises KafkaError: NOT_CONTROLLER, STALE_BROKER_EPOCH, BROKER_NOT_AVAILABLE (unknown id).
        """
        raise NotImplementedError
