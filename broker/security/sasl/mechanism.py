"""What a SASL mechanism is to the exchange that drives it (RFC 4422, Kafka's ``SaslServer``).

A mechanism takes the client's tokens one by one and gives a :class:`Reply` to each, or
:class:`Work` where the reply needs a computation that is too long for the event loop. It never
does I/O, and never tells a client more than that it failed.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol


class Identity(NamedTuple):
    """Who a client has shown to be."""

    name: str
    expires_ms: int | None = None
    """When the credential ends, on the wall's clock; None for a password, which does not."""
    by_token: bool = False
    """Whether a delegation token was shown, which does not allow to ask for others (KIP-48)."""


class Reply(NamedTuple):
    """The answer to a token; with the last one comes the identity."""

    token: bytes
    identity: Identity | None = None


class Work(NamedTuple):
    """A computation for a thread, and what to make of its result on the event loop.

    ``then`` may raise AuthenticationFailed.
    """

    compute: Callable[[], Any]
    then: Callable[[Any], Reply]


class AuthenticationFailed(Exception):
    """The client is not let in.

    The message is for the log and holds no secret; ``told`` is for the client, where the
    mechanism has words of its own for that, which do not say whether a user exists.
    """

    def __init__(self, reason: str, told: str | None = None) -> None:
        super().__init__(reason)
        self.told = told


class Mechanism(Protocol):
    """The server's side of one exchange."""

    def respond(self, token: bytes) -> Reply | Work:
        """Take the client's next token. Raises AuthenticationFailed."""
