"""Reading from a replica in the consumer's rack (KIP-392), where the broker is set up for it."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.replication.partition import CONSUMER_REPLICA_ID, Partition

if TYPE_CHECKING:
    from kavka.broker.context import Broker
    from kavka.broker.fetch.reader import PartitionRead

FIRST_VERSION: Final = 11  # of Fetch: it has the rack
NO_PREFERRED_REPLICA: Final = -1


class NearReplicas:
    """What one Fetch has to do with it."""

    __slots__ = ("_node_id", "_rack", "_racks", "may_follow")

    def __init__(self, node_id: int, replica_id: int, rack: str, racks: Mapping[int, str | None]):
        self.may_follow = replica_id == CONSUMER_REPLICA_ID
        """Whether a follower may serve it."""
        self._node_id = node_id
        self._rack = rack
        self._racks = racks

    @classmethod
    def of(
        cls, broker: "Broker", version: int, replica_id: int, rack: str
    ) -> "NearReplicas | None":
        """None for a request of a version that can only be served by leaders."""
        if version < FIRST_VERSION:
            return None
        brokers = broker.metadata.brokers.values() if rack else ()
        return cls(broker.node_id, replica_id, rack, {each.id: each.rack for each in brokers})

    def require_known(self, partition: Partition, offset: int) -> None:
        """Raise OFFSET_NOT_AVAILABLE where a follower does not know so much yet."""
        if not partition.is_leader and offset > partition.high_watermark:
            raise KafkaError(ErrorCode.OFFSET_NOT_AVAILABLE)

    def look(self, read: "PartitionRead", partition: Partition, offset: int) -> None:
        """Send a consumer to a replica near it; let a follower know at once what it may show."""
        if not self.may_follow:
            read.urgent = partition.high_watermark > read.entry.sent_high_watermark
        elif self._rack and partition.is_leader:
            chosen = partition.read_replica(self._rack, self._racks, offset)
            if chosen != self._node_id:
                read.preferred_replica = chosen
                read.urgent = True
