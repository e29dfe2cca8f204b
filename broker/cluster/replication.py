"""What a member of a cluster replicates with: fetchers, and the writer of in-sync sets."""

from functools import partial
from typing import TYPE_CHECKING

from kavka.replication.client import BrokerAddress, BrokerClient
from kavka.replication.fetching.manager import FetcherManager
from kavka.replication.isr_changes import StoreIsrWriter
from kavka.replication.replica_manager import ReplicaManager
from kavka.replication.throttling import ReplicationThrottle

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AsyncExitStack

    from kavka.broker.cluster.peers import Peers
    from kavka.broker.context import Broker
    from kavka.config.topic import TopicConfig


def replicas_of_member(
    broker: "Broker",
    peers: "Peers",
    topic_config: "Callable[[str], TopicConfig]",
    teardown: "AsyncExitStack",
) -> ReplicaManager:
    """A replica manager whose partitions have followers and leaders elsewhere."""
    config, clock, loop, node_id = broker.config, broker.clock, broker.loop, broker.node_id
    timeout = config.get_int("replica.socket.timeout.ms") / 1000

    async def connect(address: BrokerAddress, client_id: str) -> BrokerClient:
        return await BrokerClient.connect(
            address,
            client_id,
            request_timeout=timeout,
            connect_timeout=timeout,
            security=peers.security,
        )

    fetchers = FetcherManager(
        node_id,
        config,
        clock,
        loop,
        connect,
        partial(peers.address, broker.metadata),
        ReplicationThrottle("follower", config, node_id, clock),
    )
    writer = StoreIsrWriter(broker.store, clock, loop)
    teardown.push_async_callback(writer.stop)
    replicas = ReplicaManager(
        node_id,
        broker.logs,
        broker.metadata,
        topic_config,
        broker.waiting,
        clock,
        fetchers=fetchers,
        isr_writer=writer,
        lag_max=config.get_int("replica.lag.time.max.ms") / 1000,
    )
    replicas.leader_throttle = ReplicationThrottle("leader", config, node_id, clock)
    selector = config.get_str("replica.selector.class")
    replicas.rack_aware = selector.endswith(".RackAwareReplicaSelector")
    replicas.start(loop)
    teardown.callback(replicas.stop)
    return replicas
