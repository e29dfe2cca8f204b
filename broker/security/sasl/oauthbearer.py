"""OAUTHBEARER (RFC 7628; KIP-255, KIP-768): who shows a token that is accepted is its subject."""

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from kavka.broker.security.sasl import jwt
from kavka.broker.security.sasl.mechanism import AuthenticationFailed, Identity, Reply, Work
from kavka.protocol.sasl.scram import ScramError, unescape_name

if TYPE_CHECKING:
    from kavka.broker.security.sasl.jwks import KeySet
    from kavka.storage.clock import Clock

# Words and separators as in Kafka's OAuthBearerClientInitialResponse.
_FIRST: Final = re.compile(
    r"n,(?:a=(?P<authzid>(?:[\x01-\x2b\x2d-\x3c\x3e-\x7f]|=2C|=3D)+))?,"
    r"\x01(?P<pairs>(?:[A-Za-z]+=[\x21-\x7e \t\r\n]+\x01)*)\x01"
)
_AUTH: Final = re.compile(r"(?P<scheme>\w+) +(?P<token>[-_~+/.A-Za-z0-9]+=*)")
_REFUSAL: Final = '{"status":"invalid_token"}'
_GIVE_UP: Final = b"\x01"
_TOKEN_BYTES_MAX: Final = 128 * 1024

Validator = Callable[[str], jwt.Bearer]
"""Whom a token speaks for; raises TokenError."""


class OAuthBearerMechanism:
    """One exchange: a token, or a token, its refusal and the client's giving up."""

    __slots__ = ("_reason", "_refused", "_validate")

    def __init__(self, validate: Validator) -> None:
        self._validate = validate
        self._refused = False
        self._reason = ""

    def respond(self, token: bytes) -> Reply | Work:
        if self._refused:
            if token == _GIVE_UP:
                raise AuthenticationFailed(self._reason, _REFUSAL)
            raise AuthenticationFailed(f"the client went on after its refusal: {self._reason}")
        authorization_id, bearer_token = _parse(token)
        try:
            bearer = self._validate(bearer_token)
        except jwt.TokenError as error:
            # The client learns no more than that, by the mechanism's own way of refusing.
            self._reason = str(error)
            self._refused = True
            return Reply(_REFUSAL.encode())
        if authorization_id and authorization_id != bearer.name:
            text = (
                f"Authentication failed: Client requested an authorization id ({authorization_id}) "
                f"that is different from the token's principal name ({bearer.name})"
            )
            raise AuthenticationFailed("authorization id differs from the token's subject", text)
        return Reply(b"", Identity(bearer.name, bearer.expires_ms))


def _parse(message: bytes) -> tuple[str, str]:
    """Authorization id and token of the client's message. Raises AuthenticationFailed."""
    if len(message) > _TOKEN_BYTES_MAX:
        raise AuthenticationFailed("the message is too long")
    match = _FIRST.fullmatch(message.decode("latin-1"))
    if match is None:
        raise AuthenticationFailed("the message is not one of OAUTHBEARER")
    pairs = dict(pair.partition("=")[::2] for pair in match["pairs"].split("\x01") if pair)
    auth = _AUTH.fullmatch(pairs.get("auth", ""))
    if auth is None or auth["scheme"].lower() != "bearer":
        raise AuthenticationFailed("the message holds no bearer token")
    try:
        return unescape_name(match["authzid"] or ""), auth["token"]
    except ScramError as error:
        raise AuthenticationFailed(str(error)) from None


class SignedTokens:
    """Accepts tokens signed by a key of the set."""

    def __init__(self, keys: "KeySet", rules: jwt.Rules, clock: "Clock") -> None:
        self._keys = keys
        self._rules = rules
        self._clock = clock

    def __call__(self, text: str) -> jwt.Bearer:
        token = jwt.parse(text)
        try:
            jwt.verify(token, self._keys.keys)
        except jwt.UnknownKey:
            self._keys.look_again()  # for the next try: the issuer may have a new key
            raise
        return jwt.check_claims(token.claims, self._rules, self._clock.wall_ms())


class UnsecuredTokens:
    """Accepts what anybody can write: tokens of algorithm "none". For tests alone."""

    def __init__(self, rules: jwt.Rules, clock: "Clock") -> None:
        self._rules = rules
        self._clock = clock

    def __call__(self, text: str) -> jwt.Bearer:
        token = jwt.parse(text)
        if token.algorithm != "none" or token.signature:
            raise jwt.TokenError("only unsecured tokens are accepted here")
        return jwt.check_claims(token.claims, self._rules, self._clock.wall_ms())
