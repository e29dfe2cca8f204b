"""PLAIN (RFC 4616) for users of the JAAS line and of the metadata store.

A user of the store is known by SCRAM keys only; a password given in plain is put through their
derivation and compared, in a thread. A name that nobody has costs the same work.
"""

import hmac
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from kavka.broker.security.sasl.mechanism import AuthenticationFailed, Identity, Reply, Work
from kavka.protocol.sasl import scram

if TYPE_CHECKING:
    from kavka.broker.security.users import Users

_REFUSED: Final = "Authentication failed: Invalid username or password"
_OTHER_ID: Final = (
    "Authentication failed: Client requested an authorization id that is different from username"
)


class PlainMechanism:
    """One exchange, of one token. ``stored`` is None where users of the store may not use it."""

    __slots__ = ("_listed", "_stored")

    def __init__(self, listed: Mapping[str, str], stored: "Users | None") -> None:
        self._listed = listed
        self._stored = stored

    def respond(self, token: bytes) -> Reply | Work:
        authorization_id, name, password = _parse(token)
        if authorization_id and authorization_id != name:
            raise AuthenticationFailed("authorization id differs from the user name", _OTHER_ID)
        listed = self._listed.get(name)
        if listed is not None:
            return _settle(name, hmac.compare_digest(listed.encode(), password.encode()))
        if self._stored is None:
            hmac.compare_digest(password.encode(), password.encode())
            return _settle(name, False)
        return self._ask_store(self._stored, name, password)

    def _ask_store(self, stored: "Users", name: str, password: str) -> Reply | Work:
        if stored.remembers(name, password):
            return _settle(name, True)
        # Without credentials there is a decoy to compare with, which nothing fits.
        credentials = stored.for_password(name)

        def compute() -> list[bool]:
            return [
                scram.password_fits(mechanism, credential, password)
                for mechanism, credential in credentials
            ]

        def then(fitting: list[bool]) -> Reply:
            for (_, credential), fits in zip(credentials, fitting, strict=True):
                if fits:
                    stored.remember(name, password, credential)
            return _settle(name, any(fitting))

        return Work(compute, then)


def _parse(token: bytes) -> tuple[str, str, str]:
    try:
        fields = token.decode().split("\0")
    except UnicodeDecodeError:
        raise AuthenticationFailed("the token is not UTF-8") from None
    if len(fields) != 3:
        raise AuthenticationFailed(
            f"Invalid SASL/PLAIN response: expected 3 tokens, got {len(fields)}"
        )
    authorization_id, name, password = fields
    if not name:
        raise AuthenticationFailed("Authentication failed: username not specified")
    if not password:
        raise AuthenticationFailed("Authentication failed: password not specified")
    return authorization_id, name, password


def _settle(name: str, fits: bool) -> Reply:
    if not fits:
        raise AuthenticationFailed(f"invalid user name or password user={name[:100]!r}", _REFUSED)
    return Reply(b"", Identity(name))
