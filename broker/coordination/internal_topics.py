"""Creating the coordinators' own topics when they are first asked for.

Both coordinators keep their state in a compacted topic that nobody has to create by hand; the
first FindCoordinator does.
"""

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

from kavka.protocol.errors import ErrorCode
from kavka.protocol.topics import GROUP_METADATA_TOPIC, TRANSACTION_STATE_TOPIC

if TYPE_CHECKING:
    from kavka.broker.context import Broker
    from kavka.config.broker import BrokerConfig

log = logging.getLogger("kavka.groups")

CREATION_TIMEOUT_MS: Final = 10_000
"""How long the first FindCoordinator waits; its client asks again anyway."""


class InternalTopic(NamedTuple):
    """How an internal topic is made."""

    partitions: int
    replication_factor: int
    configs: Mapping[str, str]


def layout(topic: str, config: "BrokerConfig") -> InternalTopic:
    """Partitions, replicas and configs of an internal topic, as the settings have them."""
    if topic == GROUP_METADATA_TOPIC:
        return InternalTopic(
            config.get_int("offsets.topic.num.partitions"),
            config.get_int("offsets.topic.replication.factor"),
            {
                "cleanup.policy": "compact",
                "segment.bytes": str(config.get_int("offsets.topic.segment.bytes")),
                # Batches stay as offsets.topic.compression.codec wrote them.
                "compression.type": "producer",
            },
        )
    assert topic == TRANSACTION_STATE_TOPIC
    return InternalTopic(
        config.get_int("transaction.state.log.num.partitions"),
        config.get_int("transaction.state.log.replication.factor"),
        {
            "cleanup.policy": "compact",
            "segment.bytes": str(config.get_int("transaction.state.log.segment.bytes")),
            "compression.type": "uncompressed",
            # A transaction's fate must not be lost with a leader that was behind.
            "unclean.leader.election.enable": "false",
            "min.insync.replicas": str(config.get_int("transaction.state.log.min.isr")),
        },
    )


async def partition_count(broker: "Broker", topic: str) -> int | None:
    """The number of partitions of an internal topic, which is created if need be.

    None when it does not exist and cannot be created now; the log says why.
    """
    known = broker.metadata.topics.get(topic)
    if known is None and await _create(broker, topic):
        known = broker.metadata.topics.get(topic)
    return None if known is None else len(known.partitions)


async def _create(broker: "Broker", topic: str) -> bool:
    from kavka.replication.controller.operations import NewTopic

    wanted = layout(topic, broker.config)
    alive = len(broker.metadata.brokers)
    if alive < wanted.replication_factor:
        log.error(
            "Internal topic not created, too few brokers are alive topic=%s alive=%d needed=%d",
            *(topic, alive, wanted.replication_factor),
        )
        return False
    new = NewTopic(
        topic, wanted.partitions, wanted.replication_factor, configs=dict(wanted.configs)
    )
    (created,) = await broker.controller.create_topics([new], timeout_ms=CREATION_TIMEOUT_MS)
    if created.error is None:
        log.info("Internal topic created topic=%s partitions=%d", topic, wanted.partitions)
        return True
    if created.error.code is ErrorCode.TOPIC_ALREADY_EXISTS:
        # Somebody else was first; leaders come with the metadata.
        return await broker.metadata.wait_until(
            lambda: broker.metadata.has_leaders(topic, range(wanted.partitions)),
            CREATION_TIMEOUT_MS / 1000,
        )
    log.error("Internal topic not created topic=%s error=%s", topic, created.error)
    return False
