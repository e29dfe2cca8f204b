"""How many partitions the instance may have: the cap of its flavour.

All partitions of all topics count once, whatever their replicas; the coordinators' own topics do
not count. A topic counts from the moment its creation is begun, for the metadata cache learns of
it later. Two brokers that create topics by themselves at the same moment do not see each other's:
for those the cap is not exact.
"""

import asyncio
import logging
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final

from kavka.config.flavours import flavour_of
from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.protocol.topics import INTERNAL_TOPICS

if TYPE_CHECKING:
    from kavka.config.broker import BrokerConfig
    from kavka.replication.metadata import MetadataCache, TopicMetadata

logger = logging.getLogger("kavka.controller")

_SHOWN_WITHIN_S: Final = 60.0  # a created topic that the cache does not show by then is given up


class Room:
    """Partitions that are counted although the metadata cache does not show them yet."""

    __slots__ = ("_cap", "topic", "total")

    def __init__(self, cap: "PartitionCap", topic: str, total: int) -> None:
        self._cap = cap
        self.topic = topic
        self.total = total

    def give_back(self) -> None:
        """They will not exist."""
        self._cap._coming.discard(self)

    def use(self) -> None:
        """They have been created: count them until the metadata cache shows them."""
        self._cap._count_until_shown(self)


class PartitionCap:
    """Counts partitions and refuses those above the cap."""

    def __init__(self, metadata: "MetadataCache", config: "BrokerConfig") -> None:
        self.refused = 0  # topics that were not created or extended
        self._metadata = metadata
        self._config = config
        self._coming: set[Room] = set()
        self._counted: tuple[int, int] | None = None  # metadata version, partitions it shows
        self._watching: set[asyncio.Task[None]] = set()

    @property
    def used(self) -> int:
        """Partitions that count now, those being created too."""
        version = self._metadata.version
        if self._counted is None or self._counted[0] != version:
            self._counted = version, count({t.name: len(t.partitions) for t in self._topics()})
        coming: dict[str, int] = {}
        for room in self._coming:
            more = room.total - self._shown(room.topic)
            coming[room.topic] = max(more, coming.get(room.topic, 0))
        return self._counted[1] + sum(coming.values())

    def reserve(self, topic: str, total: int) -> Room | None:
        """Count the partitions of a topic that is to have ``total`` of them; None: no need to.

        Raises KafkaError: POLICY_VIOLATION, with the numbers.
        """
        flavour = flavour_of(self._config)
        if flavour is None or topic in INTERNAL_TOPICS:
            return None
        used = self.used
        room = Room(self, topic, total)
        self._coming.add(room)
        if self.used <= flavour.partitions:
            return room
        room.give_back()
        self.refused += 1
        requested = total - self._shown(topic)
        logger.warning(
            "Too many partitions for the flavour topic=%s used=%d cap=%d requested=%d",
            *(topic, used, flavour.partitions, requested),
        )
        raise KafkaError(
            ErrorCode.POLICY_VIOLATION,
            f"Insufficient partition balance: {used} of the {flavour.partitions} partitions of "
            f"flavour {flavour.name} are used, {requested} more requested for topic '{topic}'. "
            "Delete topics, or choose a larger instance.flavour.",
        )

    def _topics(self) -> "Iterable[TopicMetadata]":
        return self._metadata.topics.values()

    def _shown(self, topic: str) -> int:
        there = self._metadata.topics.get(topic)
        return 0 if there is None else len(there.partitions)

    def _count_until_shown(self, room: Room) -> None:
        def shown() -> bool:
            return self._shown(room.topic) >= room.total

        async def watch() -> None:
            await self._metadata.wait_until(shown, _SHOWN_WITHIN_S)
            room.give_back()

        task = asyncio.get_running_loop().create_task(watch())
        self._watching.add(task)
        task.add_done_callback(self._watching.discard)


def count(partitions: Mapping[str, int]) -> int:
    """The partitions that count, given how many each topic has."""
    return sum(n for topic, n in partitions.items() if topic not in INTERNAL_TOPICS)


def report_excess(config: "BrokerConfig", partitions: Mapping[str, int]) -> None:
    """Say that there are more partitions than the cap: topics written by other tools cannot be
    refused.
    """
    flavour = flavour_of(config)
    if flavour is not None and (used := count(partitions)) > flavour.partitions:
        logger.error(
            "The instance has more partitions than its flavour allows used=%d cap=%d",
            *(used, flavour.partitions),
        )
