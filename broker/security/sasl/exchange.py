"""The course of one authentication, without sockets, clocks and bytes (KIP-43, KIP-152, KIP-368).

    INITIAL ── ApiVersions ──→ HANDSHAKE ── SaslHandshake ──→ RAW or FRAMED ──→ COMPLETE
       └────────────── SaslHandshake ─────────────────────────────↗

Everything that is out of place ends in FAILED, from where there is no way out.
"""

from collections.abc import Callable, Mapping
from enum import Enum
from typing import Final, NamedTuple

from kavka.broker.security.sasl.mechanism import (
    AuthenticationFailed,
    Identity,
    Mechanism,
    Reply,
    Work,
)


class State(Enum):
    """Where an exchange stands."""

    INITIAL = "nothing has been asked"
    HANDSHAKE = "versions have been told, a handshake is expected"
    RAW = "tokens come without headers"
    FRAMED = "tokens come in SaslAuthenticate requests"
    COMPLETE = "authenticated"
    FAILED = "refused"


class Session(NamedTuple):
    """What an exchange has led to."""

    mechanism: str
    identity: Identity


class UnsupportedMechanism(Exception):
    """A handshake for a mechanism that is not enabled; the client is told those that are."""


class OutOfPlace(Exception):
    """A request that does not belong where the exchange stands."""


_HEADERS_SINCE: Final = 1  # SaslHandshake v1: tokens come in SaslAuthenticate


class Exchange:
    """One authentication, or re-authentication of ``before``.

    ``mechanisms`` makes the server's side of each enabled mechanism, by its name.
    """

    __slots__ = ("_before", "_mechanism", "_mechanisms", "_server", "session", "state")

    def __init__(
        self, mechanisms: Mapping[str, Callable[[], Mechanism]], before: Session | None = None
    ) -> None:
        self.state = State.INITIAL
        self.session: Session | None = None
        self._mechanisms = mechanisms
        self._before = before
        self._mechanism = ""
        self._server: Mechanism | None = None

    @property
    def mechanism(self) -> str:
        """The mechanism shaken hands for."""
        return self._mechanism

    @property
    def enabled(self) -> list[str]:
        """The mechanisms that a client may choose from."""
        return list(self._mechanisms)

    @property
    def generic_failure(self) -> str:
        """What a client is told of a failure whose reason is none of its business."""
        kind = "authentication" if self._before is None else "re-authentication"
        return (
            f"Authentication failed during {kind} due to invalid credentials with SASL mechanism "
            f"{self._mechanism}"
        )

    def expect_versions(self) -> None:
        """An ApiVersions request may come now. Raises OutOfPlace."""
        if self.state is not State.INITIAL:
            raise self._out_of_place("ApiVersions")

    def versions_told(self) -> None:
        """An ApiVersions request has been answered, and not with an error."""
        self.expect_versions()
        self.state = State.HANDSHAKE

    def handshake(self, mechanism: str, version: int) -> None:
        """Choose a mechanism. Raises UnsupportedMechanism, OutOfPlace."""
        if self.state not in (State.INITIAL, State.HANDSHAKE):
            raise self._out_of_place("SaslHandshake")
        make = self._mechanisms.get(mechanism)
        if make is None:
            self.state = State.FAILED
            raise UnsupportedMechanism(f"Unsupported SASL mechanism {mechanism:.100}")
        self._mechanism = mechanism
        self._server = make()
        self.state = State.FRAMED if version >= _HEADERS_SINCE else State.RAW

    def token(self, token: bytes) -> Reply | Work:
        """Take a token; what it leads to comes back to :meth:`take` once it is known.

        Raises AuthenticationFailed, OutOfPlace.
        """
        if self.state not in (State.RAW, State.FRAMED):
            raise self._out_of_place("SaslAuthenticate")
        assert self._server is not None
        before = self._before
        if before is not None and before.mechanism != self._mechanism:
            self.state = State.FAILED
            text = (
                f"SASL mechanism '{self._mechanism}' requested by client is not supported for "
                f"re-authentication of mechanism '{before.mechanism}'"
            )
            raise AuthenticationFailed(text, text)
        try:
            return self._server.respond(token)
        except AuthenticationFailed:
            self.state = State.FAILED
            raise

    def work_done(self, work: Work, result: object) -> Reply:
        """The reply that follows from computed work. Raises AuthenticationFailed."""
        try:
            return work.then(result)
        except AuthenticationFailed:
            self.state = State.FAILED
            raise

    def take(self, reply: Reply) -> Session | None:
        """Note what a reply says; the session once the exchange is complete.

        Raises AuthenticationFailed when somebody else than before has re-authenticated.
        """
        identity = reply.identity
        if identity is None:
            return None
        before = self._before
        if before is not None and identity.name != before.identity.name:
            self.state = State.FAILED
            raise AuthenticationFailed(
                "the principal changed during re-authentication: "
                f"{before.identity.name} became {identity.name}",
                f"Cannot change principals during re-authentication from User."
                f"{before.identity.name}: User.{identity.name}",
            )
        self.state = State.COMPLETE
        self._server = None
        self.session = Session(self._mechanism, identity)
        return self.session

    def fail(self) -> None:
        """Something else went wrong: nothing is accepted any more."""
        self.state = State.FAILED

    def _out_of_place(self, what: str) -> OutOfPlace:
        where, self.state = self.state, State.FAILED
        return OutOfPlace(f"unexpected {what} request: {where.value}")
