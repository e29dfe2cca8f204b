"""The SASL side of a broker's listeners: which mechanisms each offers, and a gate for everybody.

What a listener asks of its clients is made of the settings when it is first needed, and anew when
they change; who is being asked right then ends under the old ones.
"""

import logging
import secrets
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Final

from kavka.broker.security.sasl import settings
from kavka.broker.security.sasl.gate import Gate, House, Policy
from kavka.broker.security.sasl.mechanism import Mechanism
from kavka.broker.security.sasl.plain import PlainMechanism
from kavka.broker.security.sasl.scram_server import ScramServer
from kavka.broker.security.users import base_36
from kavka.config.option import ConfigError
from kavka.protocol.sasl.scram import MECHANISMS

if TYPE_CHECKING:
    from kavka.broker.connection import Connection
    from kavka.broker.context import Broker
    from kavka.broker.hub import Service
    from kavka.broker.security.sasl.jwks import KeySet
    from kavka.broker.security.tokens import Tokens
    from kavka.broker.security.users import Users
    from kavka.config.listeners import Endpoint

log = logging.getLogger("kavka.security")

_THREADS: Final = 2  # for derivations of keys; more would only take the loop's time
_NONCE_BITS: Final = 130
_DELAY: Final = "connection.failed.authentication.delay.ms"
_DYNAMIC: Final = (
    "sasl.enabled.mechanisms",
    "sasl.jaas.config",
)

_NOBODY: Final = Policy({}, lambda _: 0)


class SaslGates:
    """Makes the gate of each connection to a SASL listener. One for each broker."""

    def __init__(
        self,
        broker: "Broker",
        dispatcher: "Service",
        users: "Users",
        tokens: "Callable[[], Tokens | None]",
    ) -> None:
        """``tokens`` gives None where no delegation tokens are given out."""
        self._config = config = broker.config
        self._clock = broker.clock
        self._users = users
        self._tokens = tokens
        self._policies: dict[str, Policy] = {}
        self._key_sets: dict[str, KeySet] = {}
        self._threads: ThreadPoolExecutor | None = None
        self._house = House(
            dispatcher,
            broker.offered_versions,
            broker.clock,
            broker.loop,
            self._executor,
            config.get_int("socket.request.max.bytes"),
            lambda: config.get_int(_DELAY) / 1000,
        )

        config.on_change(_DYNAMIC, self._changed)

    def __call__(self, connection: "Connection") -> "Service":
        """The gate of a new connection."""
        endpoint = connection.endpoint
        if endpoint.name not in self._policies:
            try:
                self.prepare(endpoint)
            except ConfigError as error:
                log.error("nobody can log in: %s listener=%s", error.message, endpoint.name)
                return Gate(self._house, _NOBODY)
        return Gate(self._house, self._policies[endpoint.name])

    def prepare(self, endpoint: "Endpoint") -> None:
        """Read a listener's settings now: raises ConfigError for those that cannot be used.

        *Blocks* where a set of keys has to be read.
        """
        self._policies[endpoint.name] = self._read(endpoint.name)

    def close(self) -> None:
        """Let the threads and timers go."""
        for keys in self._key_sets.values():
            keys.stop()
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)

    # -- inside -------------------------------------------------------------------------------

    def _executor(self) -> Executor:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="kavka-login")
        return self._threads

    def _read(self, listener: str) -> Policy:
        config = self._config
        mechanisms = {
            name: self._maker(listener, name)
            for name in settings.enabled_mechanisms(config, listener)
        }
        return Policy(mechanisms, partial(settings.max_session_ms, config, listener))

    def _maker(self, listener: str, name: str) -> Callable[[], Mechanism]:
        config = self._config
        if name == settings.OAUTHBEARER:
            return self._oauth_maker(listener)
        entry = settings.jaas_entry(config, listener, name)
        if name == settings.PLAIN:
            stored = self._users if config.get_bool("sasl.plain.stored.users") else None
            return partial(PlainMechanism, {} if entry is None else entry.users, stored)
        mechanism = MECHANISMS[name]
        return partial(ScramServer, mechanism, self._users, self._tokens, new_nonce)

    def _oauth_maker(self, listener: str) -> Callable[[], Mechanism]:
        from kavka.broker.security.sasl import jwks, jwt, oauthbearer

        given = settings.token_settings(self._config, listener)
        if given.keys_url is None:
            log.warning("unsecured tokens are accepted: anybody can log in listener=%s", listener)
            unsecured = oauthbearer.UnsecuredTokens(given.rules, self._clock)
            return partial(oauthbearer.OAuthBearerMechanism, unsecured)
        keys = self._key_sets.get(given.keys_url)
        if keys is None:
            keys = jwks.KeySet(given.keys_url, given.refresh, given.least_interval, self._clock)
            try:
                keys.load()
            except jwt.KeysError as error:
                raise ConfigError("sasl.oauthbearer.jwks.endpoint.url", str(error)) from None
            keys.start(self._executor())
            self._key_sets[given.keys_url] = keys
        signed = oauthbearer.SignedTokens(keys, given.rules, self._clock)
        return partial(oauthbearer.OAuthBearerMechanism, signed)

    def _changed(self, names: frozenset[str]) -> None:
        for listener in self._policies:
            try:
                self._policies[listener] = self._read(listener)
            except ConfigError as error:
                log.error(
                    "changed SASL settings are ignored: %s listener=%s", error.message, listener
                )
        log.info("SASL settings changed names=%s", ",".join(sorted(names)))


def new_nonce() -> str:
    """A text for one SCRAM exchange, as Kafka makes them."""
    return base_36(secrets.randbits(_NONCE_BITS))
