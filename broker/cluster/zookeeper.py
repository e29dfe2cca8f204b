"""The metadata store of a cluster, as the settings describe it."""

from functools import partial
from typing import TYPE_CHECKING

from kavka.replication.store.link import ZooKeeperSettings
from kavka.replication.store.zookeeper import ZooKeeperStore, parse_connect

if TYPE_CHECKING:
    from ssl import SSLContext

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
        tls=partial(_context, config) if config.get_bool("zookeeper.ssl.client.enable") else None,
    )


def _context(config: "BrokerConfig") -> "SSLContext":
    """*Blocks*. Raises ConfigError."""
    from kavka.broker.security.tls.context import Options, client_context

    get = config.get_optional_str
    password = get("zookeeper.ssl.keystore.password")
    options = Options(
        key_store=get("zookeeper.ssl.keystore.location"),
        key_store_password=password,
        key_password=password,
        key_text=None,
        chain_text=None,
        trust_store=get("zookeeper.ssl.truststore.location"),
        trust_store_password=get("zookeeper.ssl.truststore.password"),
        trust_text=None,
        client_auth="none",
        versions=tuple(config.get_list("zookeeper.ssl.enabled.protocols")),
        suites=tuple(config.get_list("zookeeper.ssl.cipher.suites")),
        check_host_name=bool(get("zookeeper.ssl.endpoint.identification.algorithm")),
        strict=False,
    )
    return client_context(options).context


async def open_store(config: "BrokerConfig") -> ZooKeeperStore:
    """Begin a session. Raises StoreUnavailable."""
    return await ZooKeeperStore.open(settings(config))
