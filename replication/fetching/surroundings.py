"""What the fetchers of a broker need around them."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple, Protocol

from kavka.protocol.schema import Message
from kavka.replication.client import BrokerAddress
from kavka.replication.partition import Partition
from kavka.replication.throttling import ReplicationThrottle
from kavka.storage.clock import Clock


class Link(Protocol):
    """A connection to the leader; :class:`kavka.replication.client.BrokerClient` is one."""

    def exchange(
        self,
        request: Message,
        version: int,
        on_body: Callable[[memoryview], None],
        on_failure: Callable[[Exception], None],
        timeout: float | None = None,
    ) -> None:
        """Send a request; one of the two is called later."""

    def when_closed(self, callback: Callable[[], None]) -> None:
        """Have it known when the connection is over."""

    def close(self) -> None:
        """End it."""


Connect = Callable[[BrokerAddress, str], Coroutine[Any, Any, Link]]


class Replicas(Protocol):
    """What becomes of what is fetched: the replica manager."""

    def follower_progressed(self, partition: Partition, size: int) -> None:
        """``size`` bytes were appended, or the high watermark or the log start have moved."""

    def sync(self, partition: Partition, callback: Callable[[], None]) -> None:
        """Have all that is in the log brought to disk; call back when it is, or cannot be."""


class FetcherSettings(NamedTuple):
    """Kafka's ``replica.fetch.*``; times in seconds but for ``wait_max_ms``."""

    node_id: int
    wait_max_ms: int
    min_bytes: int
    max_bytes: int
    partition_max_bytes: int
    backoff: float


class Surroundings(NamedTuple):
    """What all fetchers of a broker share."""

    loop: asyncio.AbstractEventLoop
    clock: Clock
    connect: Connect
    find_address: Callable[[int], BrokerAddress | None]
    replicas: Replicas
    throttle: ReplicationThrottle | None
