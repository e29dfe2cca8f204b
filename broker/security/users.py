"""The users of the metadata store: their SCRAM credentials, as last heard of.

They live where Kafka keeps them, in ``/config/users/<name>`` under the mechanisms' names. What is
here follows the store by its change notifications, and is only ever read by the event loop.
"""

import hmac
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from kavka.protocol.sasl import scram
from kavka.protocol.sasl.scram import MECHANISMS, ScramCredential, ScramError, ScramMechanism
from kavka.replication.znodes import desanitize

log = logging.getLogger("kavka.security")

_BASE_36: Final = "0123456789abcdefghijklmnopqrstuvwxyz"
_SALT_CHARACTERS: Final = 26  # of 130 bits, as Kafka's tools write their salts


def base_36(number: int) -> str:
    """A number as Java's ``BigInteger.toString(36)``: how Kafka makes salts and nonces."""
    digits = []
    while number:
        number, digit = divmod(number, 36)
        digits.append(_BASE_36[digit])
    return "".join(reversed(digits)) or "0"


def new_salt() -> bytes:
    """A salt for one credential, as Kafka's tools make them."""
    return base_36(int.from_bytes(os.urandom(17), "big"))[:_SALT_CHARACTERS].encode()


class Users:
    """SCRAM credentials by user and mechanism. ``secret`` lives as long as the process."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._users: dict[str, dict[ScramMechanism, ScramCredential]] = {}
        self._iterations: Counter[int] = Counter()
        self._remembered: dict[str, tuple[ScramCredential, bytes]] = {}
        self.on_change: Callable[[str], None] | None = None  # told of who has changed or gone

    def __iter__(self) -> Iterator[str]:
        """Names of users with credentials."""
        return iter(self._users)

    def entity_changed(self, node: str, overrides: Mapping[str, str]) -> None:
        """What ``ConfigStore`` tells of an entity below ``users``."""
        name = desanitize(node)
        if name is None or "/" in node:
            return  # the default and the pairs with client ids have quotas only
        credentials: dict[ScramMechanism, ScramCredential] = {}
        for key, mechanism in MECHANISMS.items():
            if key not in overrides:
                continue
            try:
                credentials[mechanism] = scram.parse_credential(mechanism, overrides[key])
            except ScramError as error:
                log.error("A user's credential is ignored: %s user=%s key=%s", error, name, key)
        before = self._users.pop(name, {})
        if credentials:
            self._users[name] = credentials
        if credentials == before:
            return
        self._iterations.subtract(each.iterations for each in before.values())
        self._iterations.update(each.iterations for each in credentials.values())
        self._remembered.pop(name, None)
        if self.on_change is not None:
            self.on_change(name)

    def credentials(self, name: str) -> Mapping[ScramMechanism, ScramCredential]:
        """All credentials of a user; empty for a name without any."""
        return self._users.get(name, {})

    def credential(self, name: str, mechanism: ScramMechanism) -> ScramCredential | None:
        return self._users.get(name, {}).get(mechanism)

    def for_password(self, name: str) -> list[tuple[ScramMechanism, ScramCredential]]:
        """What to compare a user's password with; a decoy for a name that nobody has."""
        credentials = self._users.get(name)
        if credentials:
            return list(credentials.items())
        return [(ScramMechanism.SHA_256, self.decoy(name, ScramMechanism.SHA_256))]

    def decoy(self, name: str, mechanism: ScramMechanism) -> ScramCredential:
        """A credential that no password fits, always the same for a name."""
        seed = hmac.digest(self._secret, f"{mechanism.value} {name}".encode(), "sha512")
        salt = base_36(int.from_bytes(seed[:17], "big"))[:_SALT_CHARACTERS].encode()
        size = mechanism.key_size
        usual = self._iterations.most_common(1)
        iterations = usual[0][0] if usual and usual[0][1] > 0 else scram.ITERATIONS_MIN
        return ScramCredential(salt, seed[:size], seed[-size:], iterations)

    # Deriving keys from a password takes milliseconds, of which a storm of reconnecting clients
    # would need many: what was right once is compared by a digest that only this process can make.

    def remembers(self, name: str, password: str) -> bool:
        """Whether this is the password that was right for the user before."""
        known = self._remembered.get(name)
        if known is None:
            return False
        return hmac.compare_digest(known[1], self._digest(name, password))

    def remember(self, name: str, password: str, credential: ScramCredential) -> None:
        """The password fits the credential, unless that has been replaced meanwhile."""
        if any(credential is each for each in self._users.get(name, {}).values()):
            self._remembered[name] = (credential, self._digest(name, password))

    def _digest(self, name: str, password: str) -> bytes:
        return hmac.digest(self._secret, f"{name}\0{password}".encode(), "sha256")
