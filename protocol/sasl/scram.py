"""SCRAM (RFC 5802, RFC 7677; KIP-84): keys from a password, and the four messages' formats.

Pure functions over ``hashlib``; who keeps the credentials and drives the exchange is somebody
else's business. A server keeps salt, iterations, stored key and server key, never the password.
No SASLprep, as in Kafka: names and passwords are taken as they are, in UTF-8.
"""

import binascii
import hashlib
import hmac
from enum import Enum
from typing import Final, NamedTuple

ITERATIONS_MIN: Final = 4096
"""Fewer are refused, stored or offered (both mechanisms)."""

ITERATIONS_MAX: Final = 16384
"""More are refused where credentials are altered (KIP-554)."""

_MESSAGE_BYTES_MAX: Final = 65536


class ScramMechanism(Enum):
    """The two mechanisms Kafka knows, with the name of their hash function."""

    SHA_256 = "sha256"
    SHA_512 = "sha512"

    @property
    def sasl_name(self) -> str:
        """The mechanism's registered name, which is also its key in a user's znode."""
        return f"SCRAM-SHA-{self.value[3:]}"

    @property
    def code(self) -> int:
        """Its number in the requests of KIP-554."""
        return 1 if self is ScramMechanism.SHA_256 else 2

    @property
    def key_size(self) -> int:
        """Bytes of its keys."""
        return int(self.value[3:]) // 8


MECHANISMS: Final = {mechanism.sasl_name: mechanism for mechanism in ScramMechanism}


class ScramKeys(NamedTuple):
    """What a server keeps of a password."""

    stored_key: bytes
    server_key: bytes


class ScramCredential(NamedTuple):
    """A user's entry for one mechanism, as the metadata store holds it."""

    salt: bytes
    stored_key: bytes
    server_key: bytes
    iterations: int

    def __repr__(self) -> str:  # never in a log line by accident
        return f"<ScramCredential iterations={self.iterations}>"


class ScramError(Exception):
    """A message or a stored credential that breaks the format; says nothing of secrets."""


# -- arithmetic -----------------------------------------------------------------------------------


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


def credential_of(
    mechanism: ScramMechanism, password: str, salt: bytes, iterations: int
) -> ScramCredential:
    """The entry of a user with this password. *Blocks*, see :func:`salted_password`."""
    keys = keys_of(mechanism, salted_password(mechanism, password, salt, iterations))
    return ScramCredential(salt, keys.stored_key, keys.server_key, iterations)


def password_fits(mechanism: ScramMechanism, credential: ScramCredential, password: str) -> bool:
    """Whether the password is the one the credential was made of; in constant time. *Blocks*."""
    salted = salted_password(mechanism, password, credential.salt, credential.iterations)
    return hmac.compare_digest(keys_of(mechanism, salted).stored_key, credential.stored_key)


def proof_holds(
    mechanism: ScramMechanism, stored_key: bytes, auth_message: bytes, proof: bytes
) -> bool:
    """Whether a client that sends ``proof`` knows the password; compared in constant time."""
    signature = hmac.digest(stored_key, auth_message, mechanism.value)
    if len(proof) != len(signature):
        return False
    client_key = bytes(a ^ b for a, b in zip(proof, signature, strict=True))
    return hmac.compare_digest(hashlib.new(mechanism.value, client_key).digest(), stored_key)


def client_proof(mechanism: ScramMechanism, salted: bytes, auth_message: bytes) -> bytes:
    """What proves to the server that the client knows the password."""
    client_key = hmac.digest(salted, b"Client Key", mechanism.value)
    stored_key = hashlib.new(mechanism.value, client_key).digest()
    signature = hmac.digest(stored_key, auth_message, mechanism.value)
    return bytes(a ^ b for a, b in zip(client_key, signature, strict=True))


def server_signature(mechanism: ScramMechanism, server_key: bytes, auth_message: bytes) -> bytes:
    """What proves to the client that the server knows the keys."""
    return hmac.digest(server_key, auth_message, mechanism.value)


# -- stored form (Kafka's ScramCredentialUtils) ---------------------------------------------------


def render_credential(credential: ScramCredential) -> str:
    """The text of a credential in a user's znode."""
    return (
        f"salt={encode(credential.salt)},stored_key={encode(credential.stored_key)},"
        f"server_key={encode(credential.server_key)},iterations={credential.iterations}"
    )


def parse_credential(mechanism: ScramMechanism, text: str) -> ScramCredential:
    """A credential from its text. Raises ScramError, which does not quote it."""
    values: dict[str, str] = {}
    for part in text.split(","):
        name, equals, value = part.partition("=")
        if not equals or name in values:
            raise ScramError("a stored credential is not a list of name=value")
        values[name] = value
    if values.keys() != {"salt", "stored_key", "server_key", "iterations"}:
        raise ScramError("a stored credential has not salt, stored_key, server_key and iterations")
    iterations = values["iterations"]
    if not (iterations.isascii() and iterations.isdigit() and len(iterations) < 10):
        raise ScramError("the iterations of a stored credential are no number")
    credential = ScramCredential(
        decode(values["salt"]),
        decode(values["stored_key"]),
        decode(values["server_key"]),
        int(iterations),
    )
    sizes = {len(credential.stored_key), len(credential.server_key)}
    if sizes != {mechanism.key_size}:
        raise ScramError("the keys of a stored credential have not the size of their hash")
    return credential


# -- messages -------------------------------------------------------------------------------------


class ClientFirst(NamedTuple):
    """``n,[a=<authzid>],n=<name>,r=<nonce>[,<extension>=<value>…]``."""

    gs2_header: str
    bare: str
    authorization_id: str
    name: str
    nonce: str
    extensions: dict[str, str]


class ClientFinal(NamedTuple):
    """``c=<base64 of the gs2 header>,r=<nonce>[,…],p=<base64 of the proof>``."""

    channel_binding: bytes
    nonce: str
    proof: bytes
    without_proof: str


class ServerFirst(NamedTuple):
    """``r=<nonce>,s=<base64 of the salt>,i=<iterations>``."""

    nonce: str
    salt: bytes
    iterations: int


def parse_client_first(message: bytes) -> ClientFirst:
    """Raises ScramError, also for channel binding, which Kafka has not."""
    text = _text(message)
    binding, comma, rest = text.partition(",")
    identity, second_comma, bare = rest.partition(",")
    if not (comma and second_comma):
        raise ScramError("the first message has no GS2 header")
    if binding != "n":
        raise ScramError("channel binding is not supported")
    if identity and not identity.startswith("a="):
        raise ScramError("the GS2 header names no authorization id")
    authorization_id = unescape_name(identity[2:]) if identity else ""
    if identity and not authorization_id:
        raise ScramError("the authorization id is empty")
    attributes = bare.split(",")
    if len(attributes) < 2 or attributes[0][:2] != "n=" or attributes[1][:2] != "r=":
        # That includes "m=…", which is an extension one must understand.
        raise ScramError("the first message does not name user and nonce")
    name, nonce = unescape_name(attributes[0][2:]), attributes[1][2:]
    if not name:
        raise ScramError("the user name is empty")
    if not nonce or not all("!" <= char <= "~" for char in nonce):
        raise ScramError("the nonce is not printable")
    extensions: dict[str, str] = {}
    for attribute in attributes[2:]:
        key, equals, value = attribute.partition("=")
        if not (equals and key.isascii() and key.isalpha() and value) or key in extensions:
            raise ScramError("an extension is malformed")
        extensions[key] = value
    return ClientFirst(f"{binding},{identity},", bare, authorization_id, name, nonce, extensions)


def parse_client_final(message: bytes) -> ClientFinal:
    """Raises ScramError."""
    text = _text(message)
    without_proof, found, proof = text.rpartition(",p=")
    attributes = without_proof.split(",")
    if not found or len(attributes) < 2 or attributes[0][:2] != "c=" or attributes[1][:2] != "r=":
        raise ScramError("the final message does not name channel, nonce and proof")
    return ClientFinal(decode(attributes[0][2:]), attributes[1][2:], decode(proof), without_proof)


def parse_server_first(message: bytes) -> ServerFirst:
    """Raises ScramError."""
    attributes = _text(message).split(",")
    if len(attributes) < 3 or [a[:2] for a in attributes[:3]] != ["r=", "s=", "i="]:
        raise ScramError("the server's first message does not name nonce, salt and iterations")
    iterations = attributes[2][2:]
    if not (iterations.isascii() and iterations.isdigit() and len(iterations) < 10):
        raise ScramError("the server's iterations are no number")
    return ServerFirst(attributes[0][2:], decode(attributes[1][2:]), int(iterations))


def render_server_first(nonce: str, salt: bytes, iterations: int) -> str:
    return f"r={nonce},s={encode(salt)},i={iterations}"


def escape_name(name: str) -> str:
    """A ``saslname``: commas and equals signs are written as codes."""
    return name.replace("=", "=3D").replace(",", "=2C")


def unescape_name(text: str) -> str:
    """The name behind a ``saslname``. Raises ScramError for another use of ``=`` or for NUL."""
    if "\0" in text or text.count("=") != text.count("=2C") + text.count("=3D"):
        raise ScramError("a name is not escaped")
    return text.replace("=2C", ",").replace("=3D", "=")


def encode(data: bytes) -> str:
    """Base 64 as Kafka writes it, with padding."""
    return binascii.b2a_base64(data, newline=False).decode()


def decode(text: str) -> bytes:
    """The bytes behind base 64. Raises ScramError."""
    try:
        return binascii.a2b_base64(text.encode("ascii"), strict_mode=True)
    except (binascii.Error, UnicodeEncodeError):
        raise ScramError("a value is not base 64") from None


def _text(message: bytes) -> str:
    if len(message) > _MESSAGE_BYTES_MAX:
        raise ScramError("the message is too long")
    try:
        return message.decode()
    except UnicodeDecodeError:
        raise ScramError("the message is not UTF-8") from None
