"""The TLS settings of one listener, replaced while it runs."""

import socket
import ssl
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from kavka.broker.security.tls.connection import TlsConnection
from kavka.broker.security.tls.context import (
    Loaded,
    Options,
    client_context,
    options_of,
    server_context,
)
from kavka.broker.security.tls.handshakes import Handshakes
from kavka.broker.security.tls.principal import NoPrincipal, PrincipalRules, distinguished_name
from kavka.config.option import ConfigError

if TYPE_CHECKING:
    from kavka.broker.connection import Connection
    from kavka.broker.hub import Hub
    from kavka.config.broker import BrokerConfig
    from kavka.config.listeners import Endpoint

_RULES: Final = "ssl.principal.mapping.rules"

_Stamp: TypeAlias = tuple[tuple[int, int, int], ...]


class Fresh(NamedTuple):
    """What was loaded, of which options, from files of which stamps."""

    options: Options
    stamp: _Stamp
    loaded: Loaded


class LiveContext:
    """A context that follows its settings and the files behind them, when it is told to look."""

    def __init__(self, config: "BrokerConfig", listener: str) -> None:
        """*Blocks*: reads the stores. Raises ConfigError."""
        self.listener = listener
        self._options, self._stamp, self._loaded = self.load(self.options(config))

    @property
    def context(self) -> ssl.SSLContext:
        """The context for the next connection."""
        return self._loaded.context

    @property
    def expires(self) -> datetime | None:
        """When the first of the certificates in use ends to be valid."""
        return self._loaded.expires

    def options(self, config: "BrokerConfig") -> Options:
        """What these settings say."""
        return options_of(config, self.listener)

    def changed(self, options: Options) -> bool:
        """Whether other settings hold, or the files are not those that were read. *Blocks*."""
        return options != self._options or _stamp(options) != self._stamp

    def load(self, options: Options) -> Fresh:
        """*Blocks*. What :meth:`use` takes. Raises ConfigError."""
        stamp = _stamp(options)
        try:
            return Fresh(options, stamp, self._build(options))
        except ConfigError as error:
            message = f"Listener {self.listener}: {error.message}"
            raise ConfigError(error.name, message) from None

    def use(self, fresh: Fresh) -> None:
        """New connections are made with these from now on."""
        self._options, self._stamp, self._loaded = fresh

    def _build(self, options: Options) -> Loaded:
        raise NotImplementedError


class ClientContext(LiveContext):
    """For connections to a listener of other brokers."""

    def _build(self, options: Options) -> Loaded:
        return client_context(options)


class TlsSettings(LiveContext):
    """What one listener needs to know of TLS; the same object for as long as it listens."""

    def __init__(self, config: "BrokerConfig", endpoint: "Endpoint") -> None:
        """*Blocks*: reads the stores. Raises ConfigError."""
        self.endpoint = endpoint
        rules = config.listener_value(endpoint.name, _RULES)
        assert isinstance(rules, tuple)
        self._rules = PrincipalRules(",".join(rules))  # a list only to 2.3's table of settings
        super().__init__(config, endpoint.name)

    def options(self, config: "BrokerConfig") -> Options:
        """What these settings say."""
        sasl = self.endpoint.protocol.startswith("SASL_")
        return options_of(config, self.listener, sasl=sasl)

    def _build(self, options: Options) -> Loaded:
        return server_context(options)

    def connect(
        self,
        hub: "Hub",
        sock: socket.socket,
        address: tuple[str, int],
        endpoint: "Endpoint",
        on_close: "Callable[[Connection], None]",
    ) -> TlsConnection:
        """A connection that begins with a handshake."""
        handshakes = hub.handshakes
        if handshakes is None:
            handshakes = hub.handshakes = Handshakes(hub)
        # Who logs in by SASL is who SASL says, whatever certificate is shown.
        principal_of = self.principal if endpoint.protocol == "SSL" else None
        return TlsConnection(
            hub, sock, address, endpoint, on_close, handshakes, self.context, principal_of
        )

    def principal(self, certificate: bytes) -> str:
        """``User:name`` of a client certificate. Raises NoPrincipal."""
        try:
            name = distinguished_name(certificate)
        except ValueError as error:
            raise NoPrincipal(
                f"the subject of the client's certificate is malformed: {error}"
            ) from None
        user = self._rules.user(name)
        if user is None:
            raise NoPrincipal(
                "no rule of ssl.principal.mapping.rules matches the client's certificate "
                f"{name[:200]!r}"
            )
        return f"User:{user}"


def _stamp(options: Options) -> _Stamp:
    """What tells that a file is another one than before."""
    stamps = []
    for path in options.files:
        try:
            status = Path(path).stat()
        except OSError:
            stamps.append((0, 0, 0))
        else:
            stamps.append((status.st_mtime_ns, status.st_size, status.st_ino))
    return tuple(stamps)
