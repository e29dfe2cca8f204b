"""Secrets in the metadata store: encrypted as Kafka's ``PasswordEncoder`` does (KIP-226).

The text is a list of ``name:value``, by which a secret can be read whatever the settings are now;
only ``password.encoder.secret`` must be the same. Imports ``cryptography`` when it is used.
"""

import binascii
import hashlib
import hmac
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers import Cipher
    from cryptography.hazmat.primitives.ciphers.modes import CBC

    from kavka.config.broker import BrokerConfig

CBC_CIPHER: Final = "AES/CBC/PKCS5Padding"
GCM_CIPHER: Final = "AES/GCM/NoPadding"
_KEY_FACTORIES: Final = {
    "PBKDF2WithHmacSHA512": "sha512",
    "PBKDF2WithHmacSHA384": "sha384",
    "PBKDF2WithHmacSHA256": "sha256",
    "PBKDF2WithHmacSHA1": "sha1",
}
_SALT_BYTES: Final = 256
_BLOCK_BYTES: Final = 16
_GCM_VECTOR_BYTES: Final = 12
_TAG_BYTES: Final = 16
_ITERATIONS_MAX: Final = 10_000_000


class PasswordError(Exception):
    """A secret that cannot be encrypted or read; the message does not quote it."""


class PasswordEncoder:
    """Encrypts and decrypts with one secret. *Blocks* for some ms each time."""

    def __init__(
        self,
        secret: str,
        *,
        cipher: str = CBC_CIPHER,
        key_factory: str = "PBKDF2WithHmacSHA512",
        key_bits: int = 128,
        iterations: int = 4096,
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self._secret = secret.encode()
        self._cipher = cipher
        self._key_factory = key_factory
        self._key_bits = key_bits
        self._iterations = iterations
        self._random_bytes = random_bytes

    def encode(self, password: str) -> str:
        """The text to be stored. Raises PasswordError for settings that no cipher has."""
        salt = self._random_bytes(_SALT_BYTES)
        key = self._key(self._key_factory, salt, self._iterations, self._key_bits)
        size = _GCM_VECTOR_BYTES if self._cipher == GCM_CIPHER else _BLOCK_BYTES
        vector = self._random_bytes(size)
        fields = {
            "keyFactoryAlgorithm": self._key_factory,
            "cipherAlgorithm": self._cipher,
            "keyLength": str(self._key_bits),
            "salt": _b64(salt),
            "iterations": str(self._iterations),
            "encryptedPassword": _b64(_encrypt(self._cipher, key, vector, password.encode())),
            "passwordLength": str(_java_length(password)),
            "initializationVector": _b64(vector),
        }
        if self._cipher == GCM_CIPHER:
            fields["authenticationTagLength"] = str(_TAG_BYTES * 8)
        return ",".join(f"{name}:{value}" for name, value in fields.items())

    def decode(self, text: str) -> str:
        """The secret. Raises PasswordError, also when it was encrypted with another one."""
        fields = dict(part.strip().partition(":")[::2] for part in text.split(","))
        try:
            iterations, key_bits = int(fields["iterations"]), int(fields["keyLength"])
            key = self._key(
                fields["keyFactoryAlgorithm"], _bytes(fields["salt"]), iterations, key_bits
            )
            plain = _decrypt(
                fields["cipherAlgorithm"],
                key,
                _bytes(fields["initializationVector"]),
                _bytes(fields["encryptedPassword"]),
            )
            password = plain.decode()
            length = int(fields["passwordLength"])
        except (KeyError, ValueError):
            raise PasswordError("it was encrypted with another secret, or not at all") from None
        if not hmac.compare_digest(str(length), str(_java_length(password))):
            raise PasswordError("it was encrypted with another secret")
        return password

    def _key(self, factory: str, salt: bytes, iterations: int, bits: int) -> bytes:
        if factory not in _KEY_FACTORIES:
            raise PasswordError(f"{factory!r} is no way to make keys that is known here")
        if bits not in (128, 192, 256):
            raise PasswordError(f"AES has no keys of {bits} bits")
        if not 0 < iterations <= _ITERATIONS_MAX:
            raise PasswordError(f"{iterations} iterations are out of bounds")
        name = _KEY_FACTORIES[factory]
        return hashlib.pbkdf2_hmac(name, self._secret, salt, iterations, bits // 8)


def encoder_of(
    config: "BrokerConfig", random_bytes: Callable[[int], bytes]
) -> PasswordEncoder | None:
    """The encoder that the settings ask for; None where there is no secret."""
    secret = config.get_optional_str("password.encoder.secret")
    return _encoder(config, secret, random_bytes) if secret else None


def old_encoder_of(
    config: "BrokerConfig", random_bytes: Callable[[int], bytes]
) -> PasswordEncoder | None:
    """The encoder of ``password.encoder.old.secret``, while the secret is being changed."""
    secret = config.get_optional_str("password.encoder.old.secret")
    return _encoder(config, secret, random_bytes) if secret else None


def _encoder(
    config: "BrokerConfig", secret: str, random_bytes: Callable[[int], bytes]
) -> PasswordEncoder:
    return PasswordEncoder(
        secret,
        cipher=config.get_str("password.encoder.cipher.algorithm"),
        key_factory=config.get_optional_str("password.encoder.keyfactory.algorithm")
        or "PBKDF2WithHmacSHA512",
        key_bits=config.get_int("password.encoder.key.length"),
        iterations=config.get_int("password.encoder.iterations"),
        random_bytes=random_bytes,
    )


def _encrypt(cipher: str, key: bytes, vector: bytes, plain: bytes) -> bytes:
    if cipher == GCM_CIPHER:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        return AESGCM(key).encrypt(vector, plain, None)
    encryptor = _cbc(cipher, key, vector).encryptor()
    return encryptor.update(_padded(plain)) + encryptor.finalize()


def _decrypt(cipher: str, key: bytes, vector: bytes, sealed: bytes) -> bytes:
    """Raises ValueError when the key is wrong, as far as that can be told."""
    if cipher == GCM_CIPHER:
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        try:
            return AESGCM(key).decrypt(vector, sealed, None)
        except InvalidTag:
            raise ValueError("wrong key") from None
    decryptor = _cbc(cipher, key, vector).decryptor()
    return _unpadded(decryptor.update(sealed) + decryptor.finalize())


def _cbc(cipher: str, key: bytes, vector: bytes) -> "Cipher[CBC]":
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    if cipher != CBC_CIPHER:
        raise PasswordError(f"{cipher!r} is no cipher that is known here")
    return Cipher(algorithms.AES(key), modes.CBC(vector))


def _padded(plain: bytes) -> bytes:
    missing = _BLOCK_BYTES - len(plain) % _BLOCK_BYTES
    return plain + bytes([missing]) * missing


def _unpadded(padded: bytes) -> bytes:
    missing = padded[-1] if padded else 0
    if not 1 <= missing <= _BLOCK_BYTES or padded[-missing:] != bytes([missing]) * missing:
        raise ValueError("wrong key")
    return padded[:-missing]


def _java_length(text: str) -> int:
    """Characters as Java counts them."""
    return len(text.encode("utf-16-le")) // 2


def _b64(data: bytes) -> str:
    return binascii.b2a_base64(data, newline=False).decode()


def _bytes(text: str) -> bytes:
    return binascii.a2b_base64(text, strict_mode=True)
