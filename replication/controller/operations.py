"""What administrators ask of the controller, and what they are told."""

from collections.abc import Callable, Mapping, Sequence
from enum import IntEnum
from typing import NamedTuple, TypeAlias

from kavka.protocol.errors import KafkaError
from kavka.protocol.schema import ZERO_UUID
from kavka.protocol.topics import TopicPartition

DEFAULT_COUNT = -1  # partitions or replication factor as the broker's defaults have it

Permit: TypeAlias = Callable[[int], None]
"""Called with the number of partitions that are about to be made; raises KafkaError if they must
not be (KIP-599)."""


class NewTopic(NamedTuple):
    """A topic to be created: by counts, or by ``assignment`` (partition → brokers).

    ``ignore_racks``: where only some brokers have a rack, place replicas as if none had; for
    topics that nobody has asked for by hand.
    """

    name: str
    partitions: int = DEFAULT_COUNT
    replication_factor: int = DEFAULT_COUNT
    assignment: Mapping[int, Sequence[int]] | None = None
    configs: Mapping[str, str | None] = {}
    ignore_racks: bool = False


class CreatedTopic(NamedTuple):
    """How a creation went. With REQUEST_TIMED_OUT as error the topic exists, or soon will."""

    name: str
    error: KafkaError | None
    topic_id: bytes = ZERO_UUID
    partitions: int = -1
    replication_factor: int = -1
    configs: Mapping[str, str] = {}


class NewPartitions(NamedTuple):
    """The number of partitions a topic is to have in all; brokers of each added one, if wanted."""

    topic: str
    total: int
    assignments: Sequence[Sequence[int]] | None = None


class ElectionType(IntEnum):
    """How ElectLeaders may choose."""

    PREFERRED = 0
    UNCLEAN = 1


class Reassignment(NamedTuple):
    """A partition whose replicas are being moved."""

    partition: TopicPartition
    replicas: tuple[int, ...]
    adding: tuple[int, ...]
    removing: tuple[int, ...]


Outcome = KafkaError | None
"""What became of one thing asked for: None is success."""
