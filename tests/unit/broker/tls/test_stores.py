"""Stores of every format, told apart by their bytes."""

import pytest
from cryptography.hazmat.primitives import serialization

from kavka.broker.security.tls import generate, pem
from kavka.broker.security.tls.stores import (
    KeyStoreError,
    WrongPassword,
    format_of,
    read_store,
)

from .certificates import CLIENT_PASSWORD, PASSWORD, Certificates


def read(certificates: Certificates, name: str) -> bytes:
    return (certificates.directory / name).read_bytes()


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("server.keystore.jks", "JKS"),
        ("server.keystore.p12", "PKCS12"),
        ("client.truststore.p12", "PKCS12"),
        ("client.pem", "PEM"),
        ("ca.crt", "PEM"),
    ],
)
def test_formats_are_told_by_their_bytes(certificates: Certificates, name: str, form: str) -> None:
    assert format_of(read(certificates, name)) == form


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "it is empty"),
        (b"hello", "no JKS, PKCS12 or PEM store"),
        (b"\x30\x03\x02\x01", "no JKS, PKCS12 or PEM store"),
        (bytes.fromhex("cececece00000002"), "it ends too early"),
        (b"-----BEGIN NOTHING-----\n-----END NOTHING-----", "no certificate and no private key"),
        (b"-----BEGIN CERTIFICATE-----\n???\n-----END CERTIFICATE-----", "is damaged"),
        (bytes.fromhex("feedfeed00000002"), "it ends too early"),
    ],
)
def test_what_is_no_store_is_said_so(data: bytes, reason: str) -> None:
    with pytest.raises(KeyStoreError, match=reason):
        read_store(data, "secret")


@pytest.mark.parametrize("name", ["client.truststore.jks", "client.truststore.p12", "ca.crt"])
def test_every_trust_store_holds_the_authority(certificates: Certificates, name: str) -> None:
    store = read_store(read(certificates, name), generate.PUBLIC_TRUST_PASSWORD)
    [entry] = store.trusted
    assert store.keys == ()
    authority = certificates.authority.certificate
    assert entry.certificate == authority.public_bytes(serialization.Encoding.DER)


def test_every_key_store_holds_key_and_chain(certificates: Certificates) -> None:
    both = read_store(read(certificates, "server.keystore.jks"), PASSWORD)
    assert [entry.alias for entry in both.keys] == ["localhost", "localhost-ec"]
    one = read_store(read(certificates, "server.keystore.p12"), PASSWORD)
    assert one.keys == both.keys[:1]
    clients = read_store(read(certificates, "client.keystore.p12"), CLIENT_PASSWORD)
    in_text = read_store(read(certificates, "client.pem"), None)
    assert clients.keys[0]._replace(alias="key") == in_text.keys[0]
    authority = certificates.authority.certificate.public_bytes(serialization.Encoding.DER)
    assert all(entry.chain[-1] == authority for entry in (*both.keys, *clients.keys))


@pytest.mark.parametrize("name", ["server.keystore.jks", "server.keystore.p12"])
def test_a_wrong_password_is_said_so(certificates: Certificates, name: str) -> None:
    with pytest.raises(WrongPassword, match="password is wrong"):
        read_store(read(certificates, name), "wrong")


def encrypted_key(certificates: Certificates) -> bytes:
    key = certificates.authority.key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"key secret"),
    )
    return key + read(certificates, "ca.crt")


def test_an_encrypted_key_in_text_wants_its_password(certificates: Certificates) -> None:
    data = encrypted_key(certificates)
    plain = read_store(data, None, "key secret").keys[0].key
    assert read_store(data, "key secret").keys[0].key == plain
    # In a setting blanks stand for line ends.
    assert read_store(b" ".join(data.split(b"\n")), "key secret").keys[0].key == plain
    with pytest.raises(WrongPassword, match=r"needs ssl\.key\.password"):
        read_store(data, None)
    with pytest.raises(WrongPassword, match=r"is wrong \(ssl\.key\.password\)"):
        read_store(data, None, "wrong")


def test_old_forms_of_keys_in_text_are_read(certificates: Certificates) -> None:
    store = read_store(read(certificates, "client.pem"), None)
    key = serialization.load_der_private_key(store.keys[0].key, None)
    old = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    assert b"EC PRIVATE KEY" in old
    again = read_store(old + read(certificates, "ca.crt"), None)
    assert again.keys[0].key == store.keys[0].key


def test_a_key_without_certificate_and_two_keys_are_refused(certificates: Certificates) -> None:
    key = pem.encode("PRIVATE KEY", read_store(read(certificates, "client.pem"), None).keys[0].key)
    with pytest.raises(KeyStoreError, match="no certificate of it"):
        read_store(key, None)
    with pytest.raises(KeyStoreError, match="several private keys"):
        read_store(key + key + read(certificates, "ca.crt"), None)


def test_one_certificate_in_der_is_a_trust_store(certificates: Certificates) -> None:
    der = certificates.authority.certificate.public_bytes(serialization.Encoding.DER)
    assert [entry.certificate for entry in read_store(der, None).trusted] == [der]
