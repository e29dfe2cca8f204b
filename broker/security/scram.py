"""The arithmetic of SCRAM (RFC 5802, RFC 7677; KIP-84): keys from a password, proofs from keys.

Pure functions over ``hashlib``; the exchange itself and the storage of users come with the SASL
listeners. A server keeps salt, iterations, stored key and server key, never the password.
"""

import hashlib
import hmac
from enum import Enum
from typing import NamedTuple


class ScramMechanism(Enum):
    """The two mechanisms Kafka knows, with the name of their hash function."""

    SHA_256 = "sha256"
    SHA_512 = "sha512"


class ScramKeys(NamedTuple):
    """What a server keeps of a password."""

    stored_key: bytes
    server_key: bytes


def salted_password(
    mechanism: ScramMechanism, password: str, salt: bytes, iterations: int
) -> bytes:
    """Hi(password, salt, iterations). *Blocks* for some ms at usual iterations: for a thread."""
    return hashlib.pbkdf2_hmac(mechanism.value, password.encode(), salt, iterations)


def keys_of(mechanism: ScramMechanism, salted: bytes) -> ScramKeys:
    """The keys that follow from a salted password."""
    client_key = hmac.digest(salted, b"Client Key", mechanism.value)
    return ScramKeys(
        hashlib.new(mechanism.value, client_key).digest(),
        hmac.digest(salted, b"Server Key", mechanism.value),
    )


def proof_holds(
    mechanism: ScramMechanism, stored_key: bytes, auth_message: bytes, proof: bytes
) -> bool:
    """Whether a client that sends ``proof`` knows the password; compared in constant time."""
    signature = hmac.digest(stored_key, auth_message, mechanism.value)
    if len(proof) != len(signature):
        return False
    client_key = bytes(a ^ b for a, b in zip(proof, signature, strict=True))
    return hmac.compare_digest(hashlib.new(mechanism.value, client_key).digest(), stored_key)


def server_signature(mechanism: ScramMechanism, server_key: bytes, auth_message: bytes) -> bytes:
    """What proves to the client that the server knows the keys."""
    return hmac.digest(server_key, auth_message, mechanism.value)
