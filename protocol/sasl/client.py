"""The client's side of PLAIN and SCRAM: what brokers (and tools) log in with.

A client gives its first token, is fed the server's answers, and says when it is convinced. It
does no I/O: the tokens travel as the caller likes.
"""

import hmac
from typing import Final, Protocol

from kavka.protocol.sasl import scram
from kavka.protocol.sasl.scram import ScramError, ScramMechanism

_ITERATIONS_MAX: Final = 1_000_000  # of a server that may want to keep us busy


class SaslRefused(Exception):
    """The server did not let us in, or did not prove that it knows us."""


class SaslClient(Protocol):
    """One exchange."""

    def first(self) -> bytes:
        """The token to begin with."""

    def next(self, challenge: bytes) -> bytes | None:
        """The token that answers the server's; None when the exchange is over.

        Raises SaslRefused.
        """


class PlainClient:
    """PLAIN (RFC 4616)."""

    def __init__(self, username: str, password: str) -> None:
        self._token = f"\0{username}\0{password}".encode()

    def first(self) -> bytes:
        return self._token

    def next(self, challenge: bytes) -> bytes | None:
        return None


class ScramClient:
    """SCRAM-SHA-256 or -512. ``nonce`` is printable, without commas, and used once."""

    def __init__(
        self,
        mechanism: ScramMechanism,
        username: str,
        password: str,
        nonce: str,
        *,
        token: bool = False,
    ) -> None:
        """``token``: name and password are id and HMAC of a delegation token (KIP-48)."""
        self._mechanism = mechanism
        self._password = password
        self._nonce = nonce
        self._bare = f"n={scram.escape_name(username)},r={nonce}"
        if token:
            self._bare += ",tokenauth=true"
        self._signature: bytes | None = None
        self._done = False

    def first(self) -> bytes:
        return f"n,,{self._bare}".encode()

    def next(self, challenge: bytes) -> bytes | None:
        """*Blocks* for some ms, once."""
        try:
            if self._signature is None:
                return self._final(challenge)
            assert not self._done, "the exchange is over"
            self._done = True
            self._verify(challenge)
        except ScramError as error:
            raise SaslRefused(f"SCRAM failed: {error}") from None
        return None

    def _final(self, challenge: bytes) -> bytes:
        offer = scram.parse_server_first(challenge)
        if not offer.nonce.startswith(self._nonce) or offer.nonce == self._nonce:
            raise ScramError("the server's nonce does not continue ours")
        if not scram.ITERATIONS_MIN <= offer.iterations <= _ITERATIONS_MAX:
            raise ScramError(f"the server asks for {offer.iterations} iterations")
        mechanism = self._mechanism
        salted = scram.salted_password(mechanism, self._password, offer.salt, offer.iterations)
        without_proof = f"c={scram.encode(b'n,,')},r={offer.nonce}"
        message = f"{self._bare},{challenge.decode()},{without_proof}".encode()
        keys = scram.keys_of(mechanism, salted)
        self._signature = scram.server_signature(mechanism, keys.server_key, message)
        proof = scram.client_proof(mechanism, salted, message)
        return f"{without_proof},p={scram.encode(proof)}".encode()

    def _verify(self, challenge: bytes) -> None:
        assert self._signature is not None
        kind, _, value = challenge.decode("utf-8", "replace").partition("=")
        if kind == "e":
            raise ScramError(f"the server says {value[:100]!r}")
        if kind != "v" or not hmac.compare_digest(
            scram.decode(value.partition(",")[0]), self._signature
        ):
            raise ScramError("the server does not know the password")
