"""Who may log in to a broker: users, tokens and gates, made when somebody first needs them.

A broker without SASL listeners pays for none of it: it only notes what the metadata store tells
of users, unread.
"""

import logging
import os
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from kavka.broker.connection import Connection
    from kavka.broker.context import Broker
    from kavka.broker.hub import Service
    from kavka.broker.security.sasl.gates import SaslGates
    from kavka.broker.security.token_store import TokenStore
    from kavka.broker.security.tokens import Tokens
    from kavka.broker.security.users import Users
    from kavka.config.listeners import Endpoint
    from kavka.replication.controller.configs import ConfigStore

_SECRET_BYTES: Final = 32
_FAREWELL_SECONDS: Final = 1.0


class Logins:
    """The parts that let clients in. One for each broker; owned by the event loop."""

    def __init__(self, broker: "Broker", dispatcher: "Service") -> None:
        self._broker = broker
        self._dispatcher = dispatcher
        self._nodes: dict[str, Mapping[str, str]] | None = {}  # until somebody reads them
        self._users: Users | None = None
        self._gates: SaslGates | None = None
        self.store: ConfigStore  # that users are kept in, since `follow`
        self.connections: Collection[Connection] = ()
        """All of the broker; set by whoever has them."""
        self.tokens: TokenStore | None = None
        """Delegation tokens; None where no master key is set, so that there are none."""

    def follow(self, store: "ConfigStore") -> None:
        """Hear of users from now on; to be called before ``store`` starts."""
        self.store = store
        store.subscribe("users", self._user_changed)

    @property
    def users(self) -> "Users":
        """The users of the metadata store."""
        if self._users is None:
            from kavka.broker.security.users import Users

            self._users = Users(os.urandom(_SECRET_BYTES))
            nodes, self._nodes = self._nodes or {}, None
            for node, overrides in nodes.items():
                self._users.entity_changed(node, overrides)
            if self._broker.config.get_bool("sasl.sessions.end.with.password"):
                self._users.on_change = self._password_changed
        return self._users

    def gate(self, connection: "Connection") -> "Service":
        """What serves a connection of a SASL listener until it is authenticated."""
        return self._made_gates()(connection)

    def prepare(self, endpoint: "Endpoint") -> None:
        """Read the settings of a SASL listener. Raises ConfigError."""
        self._made_gates().prepare(endpoint)

    async def open_tokens(self) -> None:
        """Load delegation tokens, where there are any, and follow them. Raises StoreError."""
        broker = self._broker
        config, clock = broker.config, broker.clock
        master_key = config.get_optional_str("delegation.token.master.key")
        if not master_key:
            return
        from kavka.broker.security.token_store import TokenStore
        from kavka.broker.security.tokens import Tokens

        tokens = Tokens(
            master_key,
            config.get_int("delegation.token.max.lifetime.ms"),
            config.get_int("delegation.token.expiry.time.ms"),
            clock,
            os.urandom,
        )
        self.tokens = TokenStore(
            tokens,
            broker.store,
            clock,
            os.urandom,
            is_controller=lambda: broker.controller.active,
            check_interval=config.get_int("delegation.token.expiry.check.interval.ms") / 1000,
        )
        await self.tokens.start()

    async def close_tokens(self) -> None:
        """Follow tokens no more."""
        if self.tokens is not None:
            await self.tokens.stop()

    def close(self) -> None:
        """Let threads and timers go."""
        if self._gates is not None:
            self._gates.close()

    def _made_gates(self) -> "SaslGates":
        if self._gates is None:
            from kavka.broker.security.sasl.gates import SaslGates

            self._gates = SaslGates(self._broker, self._dispatcher, self.users, self._known_tokens)
        return self._gates

    def _password_changed(self, name: str) -> None:
        # Not at once: who changes the own password is still to be answered.
        self._broker.loop.call_later(_FAREWELL_SECONDS, self._end_sessions, f"User:{name}")

    def _end_sessions(self, principal: str) -> None:
        for connection in list(self.connections):
            if connection.principal == principal and not connection.by_token:
                connection.close("the password of its user has been changed", logging.INFO)

    def _known_tokens(self) -> "Tokens | None":
        return None if self.tokens is None else self.tokens.tokens

    def _user_changed(self, node: str, overrides: Mapping[str, str]) -> None:
        if self._users is not None:
            self._users.entity_changed(node, overrides)
        elif self._nodes is not None:
            self._nodes[node] = overrides
