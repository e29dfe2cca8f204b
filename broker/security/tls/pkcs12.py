"""PKCS #12 stores (RFC 7292), by the ``cryptography`` library."""

from typing import TYPE_CHECKING

from kavka.broker.security.tls.stores import (
    KeyEntry,
    KeyStoreError,
    Store,
    TrustedEntry,
    WrongPassword,
)

if TYPE_CHECKING:
    from cryptography.x509 import Certificate


def read(data: bytes, password: str | None) -> Store:
    """The key with its chain, and the certificates that are trusted.

    Of several keys the library shows one; a JKS store may have many.

    Raises WrongPassword, KeyStoreError.
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.serialization import pkcs12

    secret = None if password is None else password.encode()
    try:
        loaded = pkcs12.load_pkcs12(data, secret)
    except ValueError as error:
        raise WrongPassword(
            f"its password is wrong, or the PKCS12 store is damaged ({error})"
        ) from None
    except Exception as error:  # UnsupportedAlgorithm and its like
        raise KeyStoreError(f"the PKCS12 store cannot be read: {error}") from None

    def der(certificate: "Certificate") -> bytes:
        return certificate.public_bytes(serialization.Encoding.DER)

    others = [
        ((entry.friendly_name or b"certificate").decode("utf-8", "replace"), der(entry.certificate))
        for entry in loaded.additional_certs
    ]
    if loaded.key is None or loaded.cert is None:
        if loaded.cert is not None:
            name = (loaded.cert.friendly_name or b"certificate").decode("utf-8", "replace")
            others.insert(0, (name, der(loaded.cert.certificate)))
        return Store(trusted=tuple(TrustedEntry(*entry) for entry in others))
    key = loaded.key.private_bytes(
        serialization.Encoding.DER,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    own = loaded.cert
    alias = (own.friendly_name or b"key").decode("utf-8", "replace")
    chain = _chain(own.certificate, [entry.certificate for entry in loaded.additional_certs])
    in_chain = {der(certificate) for certificate in chain}
    return Store(
        keys=(KeyEntry(alias, key, tuple(map(der, chain))),),
        trusted=tuple(TrustedEntry(*entry) for entry in others if entry[1] not in in_chain),
    )


def _chain(own: "Certificate", others: "list[Certificate]") -> "list[Certificate]":
    """The certificate and those that issued it, as far as they are there."""
    chain = [own]
    by_subject = {other.subject.public_bytes(): other for other in others}
    while chain[-1].issuer != chain[-1].subject:
        issuer = by_subject.pop(chain[-1].issuer.public_bytes(), None)
        if issuer is None:
            break
        chain.append(issuer)
    return chain
