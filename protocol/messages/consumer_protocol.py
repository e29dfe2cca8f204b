"""What consumers put into the opaque bytes of the group protocol; the broker only shows it.

Subscription: v1 owned partitions (KIP-429), v2 generation (KIP-792), v3 rack (KIP-881).
Assignment: v1-v3 are v0. An int16 version precedes these fields on the wire.
"""

from kavka.protocol.schema import Message, Struct, array, binary, int32, string


class TopicPartitions(Struct):
    topic: str = string()
    partitions: list[int] = array(int32)


class ConsumerProtocolSubscription(Message, versions=(0, 3)):
    topics: list[str] = array(string)
    user_data: bytes | None = binary(nullable=True, default=None)
    owned_partitions: list[TopicPartitions] = array(TopicPartitions, since=1)
    generation_id: int = int32(since=2, default=-1)
    rack_id: str | None = string(since=3, nullable=True, default=None)


class ConsumerProtocolAssignment(Message, versions=(0, 3)):
    assigned_partitions: list[TopicPartitions] = array(TopicPartitions)
    user_data: bytes | None = binary(nullable=True, default=None)
