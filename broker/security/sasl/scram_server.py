"""The server's side of SCRAM-SHA-256 and -512 (RFC 5802, KIP-84), for users and for tokens.

Nobody learns whether a user exists: a name without credentials gets a salt that always is the
same, and the exchange fails where a wrong password would.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from kavka.broker.security.sasl.mechanism import AuthenticationFailed, Identity, Reply, Work
from kavka.protocol.sasl import scram
from kavka.protocol.sasl.scram import ClientFirst, ScramCredential, ScramError, ScramMechanism

if TYPE_CHECKING:
    from kavka.broker.security.tokens import Tokens
    from kavka.broker.security.users import Users

_TOKEN_EXTENSION: Final = "tokenauth"
_OTHER_ID: Final = (
    "Authentication failed: Client requested an authorization id that is different from username"
)


class ScramServer:
    """One exchange: client-first, client-final. ``new_nonce`` gives printable texts, each once."""

    __slots__ = ("_credential", "_first", "_identity", "_mechanism", "_new_nonce", "_nonce",
                 "_offer", "_tokens", "_users")  # fmt: skip

    def __init__(
        self,
        mechanism: ScramMechanism,
        users: "Users",
        tokens: "Callable[[], Tokens | None]",
        new_nonce: Callable[[], str],
    ) -> None:
        self._mechanism = mechanism
        self._users = users
        self._tokens = tokens
        self._new_nonce = new_nonce
        self._first: ClientFirst | None = None
        self._credential: ScramCredential | None = None
        self._identity: Identity | None = None  # None: nobody, whatever the proof says
        self._nonce = ""
        self._offer = ""

    def respond(self, token: bytes) -> Reply | Work:
        try:
            if self._first is None:
                return self._begin(scram.parse_client_first(token))
            return self._verify(token)
        except ScramError as error:
            raise AuthenticationFailed(str(error)) from None

    def _begin(self, first: ClientFirst) -> Reply | Work:
        self._first = first
        if first.authorization_id and first.authorization_id != first.name:
            raise AuthenticationFailed("authorization id differs from the user name", _OTHER_ID)
        if first.extensions.get(_TOKEN_EXTENSION, "").lower() == "true":
            return self._begin_with_token(first.name)
        credential = self._users.credential(first.name, self._mechanism)
        if credential is not None:
            if credential.iterations < scram.ITERATIONS_MIN:
                raise AuthenticationFailed(
                    f"{credential.iterations} iterations are less than {scram.ITERATIONS_MIN} "
                    f"user={first.name[:100]!r}"
                )
            return self._offered(credential, Identity(first.name))
        return self._offered(self._users.decoy(first.name, self._mechanism), None)

    def _begin_with_token(self, token_id: str) -> Reply | Work:
        tokens = self._tokens()
        token = None if tokens is None else tokens.usable(token_id)
        if tokens is None or token is None:
            return self._offered(self._users.decoy(token_id, self._mechanism), None)
        identity = Identity(token.owner_name, token.expiry_ms, by_token=True)
        known = tokens.known_credential(token_id, self._mechanism)
        if known is not None:
            return self._offered(known, identity)

        def then(credential: ScramCredential) -> Reply:
            tokens.keep_credential(token_id, self._mechanism, credential)
            return self._offered(credential, identity)

        return Work(tokens.derivation(token_id, self._mechanism), then)

    def _offered(self, credential: ScramCredential, identity: Identity | None) -> Reply:
        assert self._first is not None
        self._credential, self._identity = credential, identity
        self._nonce = self._new_nonce()
        nonce = self._first.nonce + self._nonce
        self._offer = scram.render_server_first(nonce, credential.salt, credential.iterations)
        return Reply(self._offer.encode())

    def _verify(self, token: bytes) -> Reply:
        first, credential = self._first, self._credential
        if first is None or credential is None:
            raise AuthenticationFailed("a token after the exchange's end")
        self._credential = None  # one try
        final = scram.parse_client_final(token)
        # As Kafka does: librdkafka before 2.6.1 puts its own nonce in front twice. What counts is
        # that the proof covers ours.
        if not final.nonce.endswith(self._nonce):
            raise AuthenticationFailed("the client's final message has another nonce")
        if final.channel_binding != first.gs2_header.encode():
            raise AuthenticationFailed("the client's final message has another GS2 header")
        message = f"{first.bare},{self._offer},{final.without_proof}".encode()
        holds = scram.proof_holds(self._mechanism, credential.stored_key, message, final.proof)
        if not holds or self._identity is None:
            raise AuthenticationFailed(f"invalid credentials user={first.name[:100]!r}")
        signature = scram.server_signature(self._mechanism, credential.server_key, message)
        return Reply(f"v={scram.encode(signature)}".encode(), self._identity)
