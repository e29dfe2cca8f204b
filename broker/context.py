"""What a handler may reach: the broker's parts under one roof."""

import asyncio
from typing import TYPE_CHECKING

from kavka.config.limits import CONVERSIONS_AT_ONCE_MAX

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kavka.broker.cluster.peers import Peers
    from kavka.broker.configs import Configs
    from kavka.broker.connection import Connection
    from kavka.broker.coordination.on_demand import OnDemand
    from kavka.broker.fetch.sessions import FetchSessions
    from kavka.broker.groups.coordinator import GroupCoordinator
    from kavka.broker.quotas.keeper import QuotaKeeper
    from kavka.broker.quotas.quotas import Quotas
    from kavka.broker.security.acl.authorizer import Authorizer
    from kavka.broker.security.logins import Logins
    from kavka.broker.security.tls.keeper import TlsKeeper
    from kavka.broker.transactions.coordinator import TransactionCoordinator
    from kavka.broker.transactions.inclusion import Inclusion
    from kavka.config.broker import BrokerConfig
    from kavka.replication.controller.channels import BrokerChannel
    from kavka.replication.controller.controller import Controller
    from kavka.replication.controller.producer_ids import ProducerIds
    from kavka.replication.metadata import MetadataCache
    from kavka.replication.replica_manager import ReplicaManager
    from kavka.replication.store.base import MetadataStore
    from kavka.replication.waiting import Waiter, WaitingRoom
    from kavka.storage.capacity_guard import CapacityGuard
    from kavka.storage.clock import Clock
    from kavka.storage.manager import LogManager


class Broker:
    """The parts of one broker. The server fills it in its build order; handlers only read.

    A test of a handler makes one with the parts that the handler uses. Touching a part that
    was never set raises AttributeError.
    """

    __slots__ = (
        "advertised_endpoints",
        "api_versions_bodies",
        "authorizer",
        "capacity",
        "clock",
        "cluster_id",
        "config",
        "configs",
        "controller",
        "converting",
        "features",
        "fetch_sessions",
        "follower_fetches",
        "groups_on_demand",
        "inbox",
        "inclusion",
        "logins",
        "logs",
        "loop",
        "metadata",
        "node_id",
        "offered_versions",
        "peers",
        "producer_ids",
        "quota_keeper",
        "quotas",
        "replicas",
        "store",
        "tls",
        "transactions_on_demand",
        "waiting",
    )

    config: "BrokerConfig"
    clock: "Clock"
    loop: "asyncio.AbstractEventLoop"
    node_id: int
    cluster_id: str
    store: "MetadataStore"
    metadata: "MetadataCache"
    controller: "Controller"
    inbox: "BrokerChannel"  # for what controllers say
    configs: "Configs"
    logs: "LogManager"
    capacity: "CapacityGuard"
    replicas: "ReplicaManager"
    groups_on_demand: "OnDemand[GroupCoordinator]"
    transactions_on_demand: "OnDemand[TransactionCoordinator]"
    inclusion: "Inclusion"
    producer_ids: "ProducerIds"
    quota_keeper: "QuotaKeeper"
    tls: "TlsKeeper"
    logins: "Logins"
    waiting: "WaitingRoom"
    fetch_sessions: "FetchSessions"
    offered_versions: "Mapping[int, tuple[int, int]]"  # by API key: lowest, highest
    peers: "Peers | None"  # how to talk to other brokers; None for a lone one
    authorizer: "Authorizer | None"  # None: everybody may do everything

    def __init__(self, config: "BrokerConfig", clock: "Clock") -> None:
        self.config = config
        self.clock = clock
        self.authorizer = None
        self.peers = None
        self.quotas: Quotas | None = None  # None: nobody is limited
        self.converting = asyncio.Semaphore(CONVERSIONS_AT_ONCE_MAX)  # held by who unpacks batches
        self.api_versions_bodies: dict[int, bytes] = {}  # by version; see k18_api_versions
        self.features: Mapping[str, int] = {}  # by name: the level in use (KIP-584)
        self.advertised_endpoints: Mapping[str, tuple[str, int]] = {}
        self.follower_fetches: dict[Connection, Waiter] = {}  # the last one of each; see nudge()

    @property
    def groups(self) -> "GroupCoordinator":
        """The group coordinator."""
        return self.groups_on_demand.get()

    @property
    def transactions(self) -> "TransactionCoordinator":
        """The transaction coordinator."""
        return self.transactions_on_demand.get()

    def advertised(self, listener: str) -> tuple[str, int]:
        """Host and port under which clients of ``listener`` find this broker.

        Port 0 of the configuration has become the port really bound. Raises KeyError for a
        listener this broker does not have.
        """
        return self.advertised_endpoints[listener]
