"""Stores of keys and certificates in every format that Java's tools write, and PEM.

The format is told by the first bytes, whatever ``ssl.keystore.type`` says: a store that was
converted keeps working, and so does a PKCS12 file named ``.jks``, as newer keytools write them.
"""

from typing import Final, NamedTuple


class KeyEntry(NamedTuple):
    """A private key with its certificates."""

    alias: str
    key: bytes  # PKCS #8, DER
    chain: tuple[bytes, ...]  # DER, the key's own certificate first


class TrustedEntry(NamedTuple):
    """A certificate that is trusted."""

    alias: str
    certificate: bytes  # DER


class Store(NamedTuple):
    """What a file of keys and certificates holds."""

    keys: tuple[KeyEntry, ...] = ()
    trusted: tuple[TrustedEntry, ...] = ()


class KeyStoreError(Exception):
    """A store cannot be had; the message says what is wrong with it, without the file's name."""


class WrongPassword(KeyStoreError):
    """The password of a store, or of a key in it, is not the right one."""


_JKS: Final = bytes.fromhex("feedfeed")
_JCEKS: Final = bytes.fromhex("cececece")  # the same but for how keys are hidden
_PEM: Final = b"-----BEGIN "


def format_of(data: bytes) -> str:
    """``JKS``, ``JCEKS``, ``PKCS12``, ``PEM`` or ``DER`` (one certificate).

    Raises KeyStoreError.
    """
    from kavka.broker.security.tls import der

    if data.startswith(_JKS):
        return "JKS"
    if data.startswith(_JCEKS):
        return "JCEKS"
    if _PEM in data:
        return "PEM"
    try:
        first = next(der.elements(der.content(data, der.SEQUENCE)), None)
    except der.DerError:
        first = None
    if first is not None and first[0] == der.INTEGER:
        return "PKCS12"
    if first is not None and first[0] == der.SEQUENCE:
        return "DER"
    raise KeyStoreError("it is no JKS, PKCS12 or PEM store" if data else "it is empty")


def read_store(data: bytes, password: str | None, key_password: str | None = None) -> Store:
    """All entries of a store, whatever its format. Raises KeyStoreError.

    ``key_password`` is that of the keys in it, where it differs from the store's. Without a
    password the certificates of a JKS store are read, and its integrity is not checked.
    """
    match format_of(data):
        case "JKS" | "JCEKS":
            from kavka.broker.security.tls import jks

            return jks.read(data, password, key_password)
        case "PKCS12":
            from kavka.broker.security.tls import pkcs12

            return pkcs12.read(data, password)
        case "PEM":
            from kavka.broker.security.tls import pem

            return pem.read(data, key_password if key_password is not None else password)
        case _:
            return Store(trusted=(TrustedEntry("certificate", data),))
