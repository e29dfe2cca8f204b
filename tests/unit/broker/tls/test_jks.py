"""JKS: what keytool wrote, what we write, and what was damaged on the way."""

import base64
import contextlib
import random
import struct

import pytest
from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.ciphers import Cipher, modes
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kavka.broker.security.tls import der, jks
from kavka.broker.security.tls.stores import (
    KeyEntry,
    KeyStoreError,
    Store,
    TrustedEntry,
    WrongPassword,
)

# keytool of Java 17: -genkeypair -alias Broker -keyalg EC -storetype JKS -storepass store-secret
# -keypass key-secret -dname "CN=localhost,OU=Ünit,O=Kavka"
KEYTOOLS = base64.b64decode(
    "/u3+7QAAAAIAAAABAAAAAQAGYnJva2VyAAABog0o6ekAAAB/MH0wDgYKKwYBBAEqAhEBAQUABGsGnNmRr4ft/wOgBKlWeOID"
    "jQH4K1/rp2UCcTfHPFjBBoaZcQYOK6SD5wNwKHgqkjw6ow+xEOl9ObenZtDGRygOP/3JnFc4BW7Hb0Iih9lrj6oUKmHH8HO5"
    "J9x2fdC2aGWCKIvFG3wcgc9d3QAAAAEABVguNTA5AAABhTCCAYEwggEnoAMCAQICCD2IXv9lvHQtMAoGCCqGSM49BAMCMDQx"
    "DjAMBgNVBAoTBUthdmthMQ4wDAYDVQQLDAXDnG5pdDESMBAGA1UEAxMJbG9jYWxob3N0MCAXDTI2MTEyNDEwNDUxNFoYDzIx"
    "MjYxMDMxMTA0NTE0WjA0MQ4wDAYDVQQKEwVLYXZrYTEOMAwGA1UECwwFw5xuaXQxEjAQBgNVBAMTCWxvY2FsaG9zdDBZMBMG"
    "ByqGSM49AgEGCCqGSM49AwEHA0IABK7tnqC59U0sryrf2wurFeA1RiTE300rRkDN5mOSEoYK2kTV9WI2uGPJ3xDop0UMKCie"
    "75o993lYNuZLTzdy3r6jITAfMB0GA1UdDgQWBBTJ5j7AkX7M0SNTsFkU2Ni6TB50dTAKBggqhkjOPQQDAgNIADBFAiBAB+N5"
    "GoIn9gcY0osifTU5g+SSnSoOjNJ4kbqZzXsihQIhAIv6r0xSQwPu6q2FBTBOdFkrkl0Q+GV+Yy/EClE/oPw8lyDAgVH7Nvt5"
    "j5TJmuvf6opLRRs="
)
# The same with -storetype JCEKS -dname CN=localhost -J-Djdk.jceks.iterationCount=10000
JCEKS = base64.b64decode(
    "zs7OzgAAAAIAAAABAAAAAQAGYnJva2VyAAABog1V4+0AAABpMGcwGwYJKwYBBAEqAhMBMA4ECI1TsQ/IHOgFAgInEARIrWBT"
    "EjS5zTnbfWqtebLaHkH08/LuLlXmUpVuDDdpX9ji4vS8kjWqmlS6ILibXRyQC9oVhir9xZ3/wlxRoPfIu9ZnIHx85NIAAAAA"
    "AQAFWC41MDkAAAFFMIIBQTCB56ADAgECAgg8nPnm9UDW6TAKBggqhkjOPQQDAjAUMRIwEAYDVQQDEwlsb2NhbGhvc3QwIBcN"
    "MjYxMTI0MTEzNDIxWhgPMjEyNjEwMzExMTM0MjFaMBQxEjAQBgNVBAMTCWxvY2FsaG9zdDBZMBMGByqGSM49AgEGCCqGSM49"
    "AwEHA0IABBjP+i8CI8B06hL333VusIhXqMid7YJIkeeoQRySmK+9EOi7/Wtp9Y0yIeGN/qZ4rVkBxSs/ruDr5UT+NnEYR5Oj"
    "ITAfMB0GA1UdDgQWBBSMJMXDOBD9KYN6C4v4hkKTB1B8JTAKBggqhkjOPQQDAgNJADBGAiEA6F8foyjLw3QASAmAmBJR7lLI"
    "nfQSIy2u2aJA5keTPuUCIQDU4rzOk7Je10qsTZs3RiMXoebLQcg5cy9MUy62JXSYPNhtSpgBMuPxfx0tqbfsZh4Gw+fN"
)
P256_KEY_HEAD = bytes.fromhex("3041020100301306072a8648ce3d020106082a8648ce3d030107")


def write(store: Store, password: str) -> bytes:
    noise = random.Random(7)
    return jks.write(store, password, now_ms=1_700_000_000_000, random_bytes=noise.randbytes)


def test_what_keytool_wrote_is_read() -> None:
    store = jks.read(KEYTOOLS, "store-secret", "key-secret")
    assert store.trusted == ()
    [entry] = store.keys
    assert entry.alias == "broker"
    assert entry.key.startswith(P256_KEY_HEAD)
    [certificate] = entry.chain
    assert certificate[:4] == bytes.fromhex("30820181") and len(certificate) == 0x185


def test_the_other_format_of_keytool_is_read() -> None:
    [entry] = jks.read(JCEKS, "store-secret", "key-secret").keys
    assert entry.alias == "broker" and len(entry.chain) == 1
    assert entry.key.startswith(P256_KEY_HEAD)
    with pytest.raises(WrongPassword, match=r"ssl\.key\.password"):
        jks.read(JCEKS, "store-secret", "another")
    with pytest.raises(WrongPassword, match="its password is wrong"):
        jks.read(JCEKS, "another", "key-secret")


@settings(deadline=None, max_examples=60)
@given(position=st.integers(0, len(JCEKS) - 1), value=st.integers(0, 255))
def test_a_damaged_key_of_the_other_format_breaks_nothing(position: int, value: int) -> None:
    data = bytearray(JCEKS)
    data[position] = value
    with contextlib.suppress(KeyStoreError):
        jks.read(bytes(data), None, "key-secret")


def test_wrong_passwords_are_told_apart() -> None:
    with pytest.raises(WrongPassword, match="its password is wrong"):
        jks.read(KEYTOOLS, "key-secret", "key-secret")
    with pytest.raises(WrongPassword, match=r"key of 'broker' is wrong \(ssl.key.password\)"):
        jks.read(KEYTOOLS, "store-secret")
    with pytest.raises(WrongPassword, match="key of 'broker' needs a password"):
        jks.read(KEYTOOLS, None)


def test_certificates_need_no_password() -> None:
    store = Store(trusted=(TrustedEntry("ca", b"certificate"),))
    assert jks.read(write(store, "dms@kafka"), None) == store


texts = st.text(min_size=0, max_size=20).filter(lambda text: len(text.encode()) < 100)
entries = st.builds(
    KeyEntry,
    alias=texts.map(str.lower),
    key=st.binary(min_size=1, max_size=300),
    chain=st.lists(st.binary(max_size=100), max_size=3).map(tuple),
)
trusted_entries = st.builds(
    TrustedEntry, alias=texts.map(str.lower), certificate=st.binary(max_size=100)
)
stores = st.builds(
    Store,
    keys=st.lists(entries, max_size=3).map(tuple),
    trusted=st.lists(trusted_entries, max_size=3).map(tuple),
)


@settings(deadline=None, max_examples=100)
@given(store=stores, password=st.text(max_size=20))
def test_what_is_written_is_read(store: Store, password: str) -> None:
    assert jks.read(write(store, password), password) == store


@settings(deadline=None, max_examples=200)
@given(position=st.integers(0, len(KEYTOOLS) - 1), bit=st.integers(0, 7))
def test_a_changed_bit_is_always_noticed(position: int, bit: int) -> None:
    data = bytearray(KEYTOOLS)
    data[position] ^= 1 << bit
    with pytest.raises(KeyStoreError):
        jks.read(bytes(data), "store-secret", "key-secret")


@settings(deadline=None, max_examples=200)
@given(
    cut=st.integers(0, len(KEYTOOLS)),
    position=st.integers(0, len(KEYTOOLS) - 1),
    value=st.integers(0, 255),
)
@example(cut=266, position=35, value=206)  # the key's size takes in what follows it
def test_damage_that_no_digest_shows_breaks_nothing(cut: int, position: int, value: int) -> None:
    data = bytearray(KEYTOOLS)
    data[position] = value
    try:
        jks.read(bytes(data[:cut]), None, "key-secret")
    except KeyStoreError:
        return
    assert cut == len(KEYTOOLS)


def test_version_1_has_no_types_of_certificates() -> None:
    body = bytes.fromhex("feedfeed") + struct.pack(">ii", 1, 1)
    body += struct.pack(">iH2sq", 2, 2, b"ca", 0) + struct.pack(">i4s", 4, b"cert")
    store = jks.read(body + bytes(20), None)
    assert store.trusted == (TrustedEntry("ca", b"cert"),)


def test_names_are_written_in_javas_utf8() -> None:
    store = Store(trusted=(TrustedEntry("a\0ü😀", b"x"),))
    data = write(store, "secret")
    assert b"a\xc0\x80\xc3\xbc\xed\xa0\xbd\xed\xb8\x80" in data
    assert jks.read(data, "secret") == store


def test_another_reader_reads_it() -> None:
    other = pytest.importorskip("jks", reason="purejks is not installed")
    ours = jks.read(KEYTOOLS, "store-secret", "key-secret")
    store = Store(ours.keys, (TrustedEntry("ca", ours.keys[0].chain[0]),))
    theirs = other.KeyStore.loads(write(store, "secret"), "secret")
    assert theirs.private_keys["broker"].pkey_pkcs8 == ours.keys[0].key
    assert [each[1] for each in theirs.private_keys["broker"].cert_chain] == [*ours.keys[0].chain]
    assert theirs.certs["ca"].cert == ours.keys[0].chain[0]


def test_what_another_writer_wrote_is_read() -> None:
    other = pytest.importorskip("jks", reason="purejks is not installed")
    ours = jks.read(KEYTOOLS, "store-secret", "key-secret").keys[0]
    key = other.PrivateKeyEntry.new("broker", list(ours.chain), ours.key, "pkcs8")
    trusted = other.TrustedCertEntry.new("ca", ours.chain[0])
    data = other.KeyStore.new("jks", [key, trusted]).saves("secret")
    store = jks.read(data, "secret")
    assert store.keys == (ours,)
    assert store.trusted == (TrustedEntry("ca", ours.chain[0]),)


def test_a_jceks_key_whose_salt_repeats_is_read_as_java_writes_it() -> None:
    other = pytest.importorskip("jks.sun_crypto", reason="purejks is not installed")
    ours = jks.read(KEYTOOLS, "store-secret", "key-secret").keys[0]
    salt = b"saltsalt"
    key, vector = other._jce_pbe_derive_key_and_iv("secret", salt, 20)
    padding = 8 - len(ours.key) % 8
    encryptor = Cipher(TripleDES(key), modes.CBC(vector)).encryptor()
    hidden = encryptor.update(ours.key + bytes((padding,)) * padding) + encryptor.finalize()
    parameters = der.encode(
        der.SEQUENCE, der.encode(der.OCTET_STRING, salt), der.encode(der.INTEGER, b"\x14")
    )
    assert jks._reveal_jceks(parameters, hidden, "secret", "broker") == ours.key
