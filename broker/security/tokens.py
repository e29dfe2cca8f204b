"""Delegation tokens (KIP-48, KIP-373): secrets that stand for a user while they are renewed.

A token's HMAC is not stored: it follows from the id and the master key, which all brokers share.
Who shows id and HMAC by SCRAM is the token's owner. :mod:`token_store` keeps them in the metadata
store, and this picture of them fresh.
"""

import binascii
import hmac
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.protocol.sasl import scram
from kavka.protocol.sasl.scram import ScramCredential, ScramMechanism

if TYPE_CHECKING:
    from kavka.storage.clock import Clock

USER: Final = "User"
_SALT_BYTES: Final = 20


class Principal(NamedTuple):
    """Kind and name, as in ``User:alice``."""

    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}"


def principal(text: str) -> Principal:
    """The principal that a text stands for; the name may hold colons."""
    kind, _, name = text.partition(":")
    return Principal(kind, name)


class Token(NamedTuple):
    """What is stored of a token. Times are on the wall's clock."""

    token_id: str
    owner: Principal
    requester: Principal
    renewers: tuple[Principal, ...]
    issue_ms: int
    expiry_ms: int
    max_ms: int

    @property
    def owner_name(self) -> str:
        """The user that it lets in as."""
        return self.owner.name

    def concerns(self, who: Principal) -> bool:
        """Whether it is ``who``'s: owner and renewers may renew, expire and describe it."""
        return who in (self.owner, self.requester) or who in self.renewers


class Tokens:
    """All tokens of the cluster, as last heard of, and the rules of their life."""

    def __init__(
        self,
        master_key: str,
        max_lifetime_ms: int,
        renew_ms: int,
        clock: "Clock",
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self._master_key = master_key.encode()
        self._max_lifetime_ms = max_lifetime_ms
        self._renew_ms = renew_ms
        self._clock = clock
        self._random_bytes = random_bytes
        self._tokens: dict[str, Token] = {}
        self._by_hmac: dict[bytes, str] = {}
        self._credentials: dict[tuple[str, ScramMechanism], ScramCredential] = {}

    def __iter__(self) -> Iterator[Token]:
        return iter(self._tokens.values())

    # -- following the store --------------------------------------------------------------------

    def replace(self, token_id: str, token: Token | None) -> None:
        """A token is now this, or gone."""
        if token is not None:
            self._tokens[token_id] = token
            self._by_hmac[self.hmac_of(token_id)] = token_id
            return
        if self._tokens.pop(token_id, None) is not None:
            del self._by_hmac[self.hmac_of(token_id)]
            for mechanism in ScramMechanism:
                self._credentials.pop((token_id, mechanism), None)

    # -- logging in -----------------------------------------------------------------------------

    def hmac_of(self, token_id: str) -> bytes:
        """The secret of a token."""
        return hmac.digest(self._master_key, token_id.encode(), "sha512")

    def usable(self, token_id: str) -> Token | None:
        """The token, if it exists and is in force."""
        token = self._tokens.get(token_id)
        return None if token is None or self._is_over(token) else token

    def known_credential(self, token_id: str, mechanism: ScramMechanism) -> ScramCredential | None:
        """What a client with the token is judged by, if that has been derived before."""
        return self._credentials.get((token_id, mechanism))

    def derivation(self, token_id: str, mechanism: ScramMechanism) -> Callable[[], ScramCredential]:
        """Derives that credential; *blocks* for some ms."""
        password = binascii.b2a_base64(self.hmac_of(token_id), newline=False).decode()
        salt = self._random_bytes(_SALT_BYTES)
        return lambda: scram.credential_of(mechanism, password, salt, scram.ITERATIONS_MIN)

    def keep_credential(
        self, token_id: str, mechanism: ScramMechanism, credential: ScramCredential
    ) -> None:
        """Remember a derived credential as long as the token lives."""
        if token_id in self._tokens:
            self._credentials[token_id, mechanism] = credential

    # -- the rules ------------------------------------------------------------------------------

    def issue(
        self,
        token_id: str,
        owner: Principal,
        requester: Principal,
        renewers: Iterable[Principal],
        max_lifetime_ms: int,
    ) -> Token:
        """A new token, which is not stored yet. A life of 0 or less is the longest there is."""
        now = self._clock.wall_ms()
        life = self._max_lifetime_ms
        if max_lifetime_ms > 0:
            life = min(life, max_lifetime_ms)
        expiry_ms = min(now + life, now + self._renew_ms)
        return Token(token_id, owner, requester, tuple(renewers), now, expiry_ms, now + life)

    def renewed(self, who: Principal, secret: bytes, period_ms: int) -> Token:
        """The token with a later expiry. A negative period is the usual one.

        Raises KafkaError DELEGATION_TOKEN_NOT_FOUND, _OWNER_MISMATCH or _EXPIRED.
        """
        token = self._living(who, secret)
        period_ms = self._renew_ms if period_ms < 0 else period_ms
        return token._replace(expiry_ms=min(token.max_ms, self._clock.wall_ms() + period_ms))

    def expired(self, who: Principal, secret: bytes, period_ms: int) -> tuple[Token, bool]:
        """The token with its new expiry, and whether it is over: a negative period means at once.

        Raises as :meth:`renewed` does.
        """
        token = self._living(who, secret)
        now = self._clock.wall_ms()
        if period_ms < 0:
            return token._replace(expiry_ms=now), True
        return token._replace(expiry_ms=min(token.max_ms, now + period_ms)), False

    def visible(
        self,
        who: Principal,
        owners: Sequence[Principal] | None,
        may_describe: Callable[[str], bool],
    ) -> list[Token]:
        """The tokens that ``who`` may see, of those that concern one of ``owners``."""
        return [
            token
            for token in self._tokens.values()
            if (owners is None or any(map(token.concerns, owners)))
            and (token.concerns(who) or may_describe(token.token_id))
        ]

    def overdue(self) -> list[Token]:
        """The tokens whose time is over."""
        return [token for token in self._tokens.values() if self._is_over(token)]

    def _living(self, who: Principal, secret: bytes) -> Token:
        token_id = self._by_hmac.get(secret)
        if token_id is None:
            raise KafkaError(ErrorCode.DELEGATION_TOKEN_NOT_FOUND)
        token = self._tokens[token_id]
        if not token.concerns(who):
            raise KafkaError(ErrorCode.DELEGATION_TOKEN_OWNER_MISMATCH)
        if self._is_over(token):
            raise KafkaError(ErrorCode.DELEGATION_TOKEN_EXPIRED)
        return token

    def _is_over(self, token: Token) -> bool:
        now = self._clock.wall_ms()
        return token.max_ms < now or token.expiry_ms < now
