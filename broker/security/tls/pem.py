"""Keys and certificates as text (RFC 7468)."""

import base64
import binascii
import re
from typing import Final

from kavka.broker.security.tls.stores import (
    KeyEntry,
    KeyStoreError,
    Store,
    TrustedEntry,
    WrongPassword,
)

_BLOCK: Final = re.compile(
    rb"-----BEGIN (?P<label>[A-Z0-9 ]+)-----(?P<body>.*?)-----END (?P=label)-----", re.DOTALL
)
_CERTIFICATES: Final = ("CERTIFICATE", "X509 CERTIFICATE", "TRUSTED CERTIFICATE")
_LINE: Final = 64


def read(data: bytes, key_password: str | None) -> Store:
    """A store of the keys and certificates in a text.

    With a key, the certificates are its chain; without one, they are trusted. Raises
    KeyStoreError, and WrongPassword for an encrypted key.
    """
    certificates: list[bytes] = []
    keys: list[bytes] = []
    for block in _BLOCK.finditer(data):
        label = block["label"].decode()
        if label in _CERTIFICATES:
            certificates.append(_body(block["body"]))
        elif label.endswith("PRIVATE KEY"):
            keys.append(_key(block[0], label, block["body"], key_password))
    if not certificates and not keys:
        raise KeyStoreError("there is no certificate and no private key in the PEM text")
    if not keys:
        return Store(
            trusted=tuple(
                TrustedEntry(f"certificate-{number}", certificate)
                for number, certificate in enumerate(certificates, 1)
            )
        )
    if len(keys) > 1:
        raise KeyStoreError("there are several private keys in the PEM text")
    if not certificates:
        raise KeyStoreError("there is a private key in the PEM text, but no certificate of it")
    return Store(keys=(KeyEntry("key", keys[0], tuple(certificates)),))


def encode(label: str, body: bytes) -> bytes:
    """A block of PEM text."""
    text = base64.b64encode(body)
    lines = [text[start : start + _LINE] for start in range(0, len(text), _LINE)]
    name = label.encode()
    return b"\n".join((b"-----BEGIN %b-----" % name, *lines, b"-----END %b-----" % name, b""))


def _body(text: bytes) -> bytes:
    try:
        # Kafka's settings hold PEM in one line too, where blanks stand for line ends.
        return base64.b64decode(b"".join(text.split()), validate=True)
    except binascii.Error:
        raise KeyStoreError("a block of the PEM text is damaged") from None


def _key(block: bytes, label: str, body: bytes, password: str | None) -> bytes:
    if label == "PRIVATE KEY":
        return _body(body)
    # Other forms are rare: only they need the library.
    from cryptography.hazmat.primitives import serialization

    secret = None
    if label == "ENCRYPTED PRIVATE KEY" or b"ENCRYPTED" in body:
        if password is None:
            raise WrongPassword("the private key is encrypted and needs ssl.key.password")
        secret = password.encode()
    if label == "ENCRYPTED PRIVATE KEY":
        block = encode(label, _body(body))
    try:
        key = serialization.load_pem_private_key(block, secret)
    except ValueError as error:
        if secret is not None:
            raise WrongPassword(
                "the password of the private key is wrong (ssl.key.password)"
            ) from None
        raise KeyStoreError(f"the private key cannot be read: {error}") from None
    except Exception as error:  # UnsupportedAlgorithm and its like
        raise KeyStoreError(f"the private key cannot be read: {error}") from None
    return key.private_bytes(
        serialization.Encoding.DER,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
