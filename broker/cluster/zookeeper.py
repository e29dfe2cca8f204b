"""The metadata store of a cluster, as the settings describe it."""

from typing import TYPE_CHECKING

from kavka.replication.store.link import ZooKeeperSettings
from kavka.replication.store.zookeeper import ZooKeeperStore, parse_connect

if TYPE_CHECKING:
    from kavka.config.broker import BrokerConfig


def settings(config: "BrokerConfig") -> ZooKeeperSettings:
    """How to reach the ZooKeeper of ``zookeeper.connect``."""
    servers, chroot = parse_connect(config.get_str("zookeeper.connect"))
    return ZooKeeperSettings(
        servers,
        chroot,
        session_timeout=config.get_int("zookeeper.session.timeout.ms") / 1000,
        connection_timeout=config.zookeeper_connection_timeout_ms / 1000,
        max_in_flight=config.get_int("zookeeper.max.in.flight.requests"),
        digest=config.get_optional_str("zookeeper.digest"),
        set_acl=config.get_bool("zookeeper.set.acl"),
    )


async def open_store(config: "BrokerConfig") -> ZooKeeperStore:
    """Begin a session. Raises StoreUnavailable."""
    return await ZooKeeperStore.open(settings(config))
