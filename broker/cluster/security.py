"""How this broker secures its connections to others: by TLS, by a login, by both or not at all."""

from typing import TYPE_CHECKING

from kavka.replication.client import PLAINTEXT, ClientSecurity

if TYPE_CHECKING:
    from kavka.broker.security.tls.keeper import TlsKeeper
    from kavka.config.broker import BrokerConfig


def client_security(config: "BrokerConfig", tls: "TlsKeeper") -> ClientSecurity:
    """As the protocol of the listener for brokers wants it.

    *Blocks* where certificates have to be read. Raises ConfigError for settings that cannot be
    used.
    """
    listener = config.inter_broker_listener
    protocol = config.security_protocols[listener]
    security = PLAINTEXT
    if protocol.endswith("SSL"):
        live = tls.client(listener)
        security = security._replace(
            tls=lambda: live.context, check_hostname=live.context.check_hostname
        )
    if protocol.startswith("SASL_"):
        from kavka.broker.security.sasl.settings import inter_broker_handshake

        security = security._replace(handshake=inter_broker_handshake(config))
    return security
