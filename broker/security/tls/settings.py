"""The TLS settings of a broker's listeners, replaced while it runs."""

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

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
    from kavka.storage.clock import Clock

log = logging.getLogger("kavka.tls")

_WARN_BEFORE: Final = timedelta(days=30)

_RULES: Final = "ssl.principal.mapping.rules"

_Stamp: TypeAlias = tuple[tuple[int, int, int], ...]


class TlsSettings:
    """What one listener needs to know of TLS; the same object for as long as it listens."""

    def __init__(self, endpoint: "Endpoint", options: Options, rules: PrincipalRules) -> None:
        """*Blocks*: reads the stores. Raises ConfigError."""
        self.endpoint = endpoint
        self._stamp = _stamp(options)
        self._options = options
        self._rules = rules
        self._loaded = server_context(options)

    @property
    def context(self) -> ssl.SSLContext:
        """The context for the next connection."""
        return self._loaded.context

    @property
    def expires(self) -> datetime | None:
        """When the first of the certificates in use ends to be valid."""
        return self._loaded.expires

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

    def changed(self, options: Options) -> bool:
        """Whether other settings hold, or the files are not those that were read."""
        return options != self._options or _stamp(options) != self._stamp

    def load(self, options: Options) -> tuple[Options, _Stamp, Loaded]:
        """*Blocks*. What :meth:`use` takes. Raises ConfigError."""
        stamp = _stamp(options)
        return options, stamp, server_context(options)

    def use(self, fresh: tuple[Options, _Stamp, Loaded]) -> None:
        """New connections are served with these from now on."""
        self._options, self._stamp, self._loaded = fresh


class Tls:
    """TLS of one broker: gives each listener its settings, and keeps them fresh.

    Settings are loaded anew when a dynamic setting of the listener is altered, be it to the value
    it has: that is how Kafka is told that the file behind it has changed (KIP-226).
    """

    def __init__(
        self, config: "BrokerConfig", loop: asyncio.AbstractEventLoop, clock: "Clock"
    ) -> None:
        self._config = config
        self._loop = loop
        self._clock = clock
        self._settings: dict[str, TlsSettings] = {}
        self._reloading: asyncio.Task[None] | None = None
        self._again = False
        config.on_replaced(self.reload)

    async def prepare(self, *endpoints: "Endpoint") -> None:
        """Load the settings of endpoints that speak TLS, off the event loop. Raises ConfigError."""
        for endpoint in endpoints:
            if endpoint.protocol.endswith("SSL") and endpoint.name not in self._settings:
                make = self._loop.run_in_executor(None, self._make, endpoint)
                self._keep(await make)

    def settings(self, endpoint: "Endpoint") -> TlsSettings:
        """The settings of a listener. *Blocks* unless they were prepared. Raises ConfigError."""
        found = self._settings.get(endpoint.name)
        if found is None:
            found = self._make(endpoint)
            self._keep(found)
        return found

    def forget(self, endpoint: "Endpoint") -> None:
        """The listener is closed."""
        self._settings.pop(endpoint.name, None)

    def client(self, listener: str) -> Loaded:
        """A context for connections to that listener of other brokers. *Blocks*."""
        return client_context(options_of(self._config, listener))

    def reload(self) -> None:
        """Look whether settings or files have changed, and take them over; in the background."""
        if self._reloading is not None:
            self._again = True
            return
        self._reloading = self._loop.create_task(self._reload())

    async def stop(self) -> None:
        """Wait for a reload under way."""
        while self._reloading is not None:
            await asyncio.wait((self._reloading,))

    async def check(self, changed: "BrokerConfig") -> None:
        """Raise ConfigError when open listeners could not use these settings."""
        for settings in list(self._settings.values()):
            options = self._options(settings.endpoint, changed)
            if await self._loop.run_in_executor(None, settings.changed, options):
                await self._loop.run_in_executor(None, settings.load, options)

    async def _reload(self) -> None:
        try:
            for settings in list(self._settings.values()):
                await self._refresh(settings)
        finally:
            self._reloading = None
            if self._again:
                self._again = False
                self.reload()

    async def _refresh(self, settings: TlsSettings) -> None:
        name = settings.endpoint.name
        options = self._options(settings.endpoint)
        try:
            if not await self._loop.run_in_executor(None, settings.changed, options):
                return
            fresh = await self._loop.run_in_executor(None, settings.load, options)
        except ConfigError as error:
            log.error(
                "the new certificates are not usable, the old ones stay: %s listener=%s",
                error.message,
                name,
            )
            return
        settings.use(fresh)
        log.info("certificates replaced for new connections listener=%s", name)
        self._warn_of_expiry(settings)

    def _make(self, endpoint: "Endpoint") -> TlsSettings:
        parts = self._config.listener_value(endpoint.name, _RULES)
        assert isinstance(parts, tuple)
        rules = PrincipalRules(",".join(parts))  # a list only to 2.3's table of settings
        try:
            return TlsSettings(endpoint, self._options(endpoint), rules)
        except ConfigError as error:
            raise ConfigError(error.name, f"Listener {endpoint.name}: {error.message}") from None

    def _keep(self, settings: TlsSettings) -> None:
        self._settings[settings.endpoint.name] = settings
        self._warn_of_expiry(settings)

    def _options(self, endpoint: "Endpoint", config: "BrokerConfig | None" = None) -> Options:
        sasl = endpoint.protocol.startswith("SASL_")
        return options_of(config or self._config, endpoint.name, sasl=sasl)

    def _warn_of_expiry(self, settings: TlsSettings) -> None:
        expires = settings.expires
        if expires is None:
            return
        left = expires - datetime.fromtimestamp(self._clock.wall_ms() / 1000, UTC)
        if left <= timedelta():
            log.error(
                "the certificate has expired, clients will refuse it listener=%s expired=%s",
                settings.endpoint.name,
                expires.isoformat(),
            )
        elif left <= _WARN_BEFORE:
            log.warning(
                "the certificate expires soon listener=%s expires=%s",
                settings.endpoint.name,
                expires.isoformat(),
            )


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
