"""TLS of one broker: what each listener needs to know of it, kept fresh while the broker runs."""

import asyncio
import logging
from collections.abc import Collection
from typing import TYPE_CHECKING, Final

from kavka.config.option import ConfigError

if TYPE_CHECKING:
    from kavka.broker.security.tls.settings import ClientContext, LiveContext, TlsSettings
    from kavka.config.broker import BrokerConfig
    from kavka.config.listeners import Endpoint
    from kavka.storage.clock import Clock

log = logging.getLogger("kavka.tls")

_WARN_BEFORE_DAYS: Final = 30


class TlsKeeper:
    """Gives each listener its TLS settings, and takes over what changes of them.

    They are loaded anew when a dynamic setting of this broker is written, be it to the value it
    has: that is how Kafka is told that the file behind it has changed (KIP-226). New connections
    get what was loaded last; what cannot be used leaves the old one in its place.

    OpenSSL and the stores are imported by the first listener that needs them.
    """

    def __init__(
        self, config: "BrokerConfig", loop: asyncio.AbstractEventLoop, clock: "Clock"
    ) -> None:
        self._config = config
        self._loop = loop
        self._clock = clock
        self._settings: dict[str, TlsSettings] = {}
        self._clients: dict[str, ClientContext] = {}
        self._reloading: asyncio.Task[None] | None = None
        self._again = False
        self._stopped = False
        config.on_replaced(self.reload)

    async def prepare(self, config: "BrokerConfig", opened: Collection[str] = ()) -> None:
        """Load what the listeners in these settings need and do not have yet, off the loop.

        For listeners that are ``opened`` it is only tried: they get it once it is in force.
        Raises ConfigError when something cannot be used. A file that has become bad is no reason
        to refuse settings that have nothing to do with it.
        """
        wanted = {e.name: e for e in config.listeners if e.protocol.endswith("SSL")}
        for name, endpoint in wanted.items():
            settings = self._settings.get(name)
            if name not in opened or settings is None:
                self._keep(await self._loop.run_in_executor(None, _load, config, endpoint))
                continue
            options = settings.options(config)
            prefix = f"listener.name.{name.lower()}.ssl."
            concerned = any(key.startswith(prefix) for key in config.dynamic_broker)
            if not concerned and options == settings.options(self._config):
                continue
            if await self._loop.run_in_executor(None, settings.changed, options):
                await self._loop.run_in_executor(None, settings.load, options)
        for name in [*self._settings]:
            if name not in wanted and name not in opened:
                del self._settings[name]

    def settings(self, endpoint: "Endpoint") -> "TlsSettings":
        """The settings of a listener. *Blocks* unless they were prepared. Raises ConfigError."""
        found = self._settings.get(endpoint.name)
        if found is None:
            found = _load(self._config, endpoint)
            self._keep(found)
        return found

    def client(self, listener: str) -> "ClientContext":
        """The context for connections to that listener of other brokers, kept fresh too.

        *Blocks*. Raises ConfigError.
        """
        from kavka.broker.security.tls.settings import ClientContext

        found = self._clients.get(listener)
        if found is None:
            found = self._clients[listener] = ClientContext(self._config, listener)
        return found

    def reload(self) -> None:
        """Look whether settings or files have changed and take them over, in the background."""
        if self._stopped or not (self._settings or self._clients):
            return
        if self._reloading is not None:
            self._again = True
            return
        self._reloading = self._loop.create_task(self._reload())

    async def settled(self) -> None:
        """Wait until everything that has changed is taken over."""
        while self._reloading is not None:
            await asyncio.wait((self._reloading,))

    async def stop(self) -> None:
        """Take nothing over any more."""
        self._stopped = True
        await self.settled()

    async def _reload(self) -> None:
        try:
            for live in (*self._settings.values(), *self._clients.values()):
                await self._refresh(live)
        finally:
            self._reloading = None
            if self._again:
                self._again = False
                self.reload()

    async def _refresh(self, live: "LiveContext") -> None:
        options = live.options(self._config)
        try:
            if not await self._loop.run_in_executor(None, live.changed, options):
                return
            fresh = await self._loop.run_in_executor(None, live.load, options)
        except ConfigError as error:
            log.error("new certificates cannot be used, the old ones stay: %s", error.message)
            return
        live.use(fresh)
        log.info("certificates replaced for new connections listener=%s", live.listener)
        self._warn_of_expiry(live)

    def _keep(self, settings: "TlsSettings") -> None:
        self._settings[settings.endpoint.name] = settings
        self._warn_of_expiry(settings)

    def _warn_of_expiry(self, live: "LiveContext") -> None:
        expires = live.expires
        if expires is None:
            return
        days = (expires.timestamp() - self._clock.wall_ms() / 1000) / 86_400
        facts = f"listener={live.listener} expires={expires.isoformat()}"
        if days <= 0:
            log.error("the certificate has expired, clients will refuse it %s", facts)
        elif days <= _WARN_BEFORE_DAYS:
            log.warning("the certificate expires soon %s", facts)


def _load(config: "BrokerConfig", endpoint: "Endpoint") -> "TlsSettings":
    from kavka.broker.security.tls.settings import TlsSettings

    return TlsSettings(config, endpoint)
