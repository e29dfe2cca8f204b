"""How a broker logs in at another one: SaslHandshake and SaslAuthenticate, before anything else.

Only mechanisms with a password; the tokens are those of :mod:`kavka.protocol.sasl.client`.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from typing import Final

from kavka.protocol.errors import ErrorCode
from kavka.protocol.messages.k17_sasl_handshake import SaslHandshakeRequest, SaslHandshakeResponse
from kavka.protocol.messages.k36_sasl_authenticate import (
    SaslAuthenticateRequest,
    SaslAuthenticateResponse,
)
from kavka.protocol.sasl.client import PlainClient, SaslClient, SaslRefused, ScramClient
from kavka.protocol.sasl.scram import MECHANISMS
from kavka.replication.client import BrokerClient, BrokerUnavailable

PLAIN: Final = "PLAIN"
_HANDSHAKE_VERSION: Final = 1
_AUTHENTICATE_VERSION: Final = 0  # without the session's lifetime: who is expired connects anew
_NONCE_BYTES: Final = 20


def handshake(
    mechanism: str, credentials: Callable[[], tuple[str, str]]
) -> Callable[[BrokerClient], Awaitable[None]]:
    """The ``ClientSecurity.handshake`` of a mechanism; ``credentials`` gives name and password.

    It raises BrokerUnavailable when the other broker does not let us in.
    """
    assert mechanism == PLAIN or mechanism in MECHANISMS, mechanism

    async def log_in(connection: BrokerClient) -> None:
        username, password = credentials()
        client: SaslClient
        if mechanism == PLAIN:
            client = PlainClient(username, password)
        else:
            nonce = secrets.token_urlsafe(_NONCE_BYTES)
            client = ScramClient(MECHANISMS[mechanism], username, password, nonce)
        try:
            await _shake_hands(connection, mechanism)
            await _exchange(connection, client)
        except SaslRefused as error:
            raise BrokerUnavailable(
                f"broker {connection.address} does not let {username!r} in by {mechanism}: {error}"
            ) from None

    return log_in


async def _shake_hands(connection: BrokerClient, mechanism: str) -> None:
    answer = await connection.send(
        SaslHandshakeRequest(mechanism=mechanism), SaslHandshakeResponse, _HANDSHAKE_VERSION
    )
    if answer.error_code != ErrorCode.NONE:
        raise SaslRefused(f"it offers {', '.join(answer.mechanisms)} only")


async def _exchange(connection: BrokerClient, client: SaslClient) -> None:
    token: bytes | None = client.first()
    while token is not None:
        answer = await connection.send(
            SaslAuthenticateRequest(auth_bytes=token),
            SaslAuthenticateResponse,
            _AUTHENTICATE_VERSION,
        )
        if answer.error_code != ErrorCode.NONE:
            raise SaslRefused(answer.error_message or f"error {answer.error_code}")
        # Keys are derived from the password, which takes a while.
        token = await asyncio.to_thread(client.next, answer.auth_bytes)
