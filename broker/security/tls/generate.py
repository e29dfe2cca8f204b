"""Makes an authority of one's own with the certificates and stores of brokers and clients.

The files have the names that Kafka manuals give them, so that what is written there works with
them, line by line. All that ``keytool`` and ``openssl`` would be called for is done here.
"""

import ipaddress
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import pkcs12
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from kavka.broker.security.tls import jks, pem
from kavka.broker.security.tls.stores import KeyEntry, KeyStoreError, Store, TrustedEntry

PUBLIC_TRUST_PASSWORD: Final = "dms@kafka"
"""Password of the clients' trust stores. It is known to everybody and protects no secret."""

DAYS: Final = 7305
"""Days that certificates are valid for: twenty years."""

_RSA_BITS: Final = 2048
_AUTHORITY_RSA_BITS: Final = 3072
_CLOCKS_APART: Final = timedelta(days=1)
_AUTHORITY_ALIAS: Final = "caroot"

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


class Authority(NamedTuple):
    """Who signs certificates."""

    key: PrivateKey
    certificate: x509.Certificate


class Issued(NamedTuple):
    """A key with its certificate, and the request that it was signed for."""

    key: PrivateKey
    request: x509.CertificateSigningRequest
    certificate: x509.Certificate


class Purpose(NamedTuple):
    """What a certificate is for."""

    common_name: str
    hosts: tuple[str, ...] = ()  # names and addresses; none: it is a client's


class GeneratedFile(NamedTuple):
    """A file to write; ``private`` ones are for their owner alone."""

    name: str
    data: bytes
    private: bool


class Maker:
    """Makes keys and certificates as of ``now``; ``random_bytes`` salts what is stored."""

    def __init__(self, now: datetime, days: int, random_bytes: Callable[[int], bytes]) -> None:
        self.life = timedelta(days=days)
        self._start = now - _CLOCKS_APART
        self._end = now + self.life
        self._now_ms = int(now.timestamp() * 1000)
        self._random_bytes = random_bytes

    # -- certificates --------------------------------------------------------------------------

    def authority(self, name: str) -> Authority:
        """A new authority that signs itself."""
        key = rsa.generate_private_key(public_exponent=65537, key_size=_AUTHORITY_RSA_BITS)
        subject = x509.Name(
            [
                x509.NameAttribute(NameOID.COMMON_NAME, name),
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Kavka"),
            ]
        )
        own = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        builder = (
            self._builder(subject, subject, key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .add_extension(own, critical=False)
        )
        return Authority(key, builder.sign(key, hashes.SHA256()))

    def issue(self, authority: Authority, purpose: Purpose, *, elliptic: bool) -> Issued:
        """A new key with a certificate. Raises ValueError for a host that is no name."""
        key: PrivateKey
        if elliptic:
            key = ec.generate_private_key(ec.SECP256R1())
        else:
            key = rsa.generate_private_key(public_exponent=65537, key_size=_RSA_BITS)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, purpose.common_name)])
        asked = x509.CertificateSigningRequestBuilder().subject_name(subject)
        names = x509.SubjectAlternativeName([_general_name(host) for host in purpose.hosts])
        if purpose.hosts:
            asked = asked.add_extension(names, critical=False)
        request = asked.sign(key, hashes.SHA256())
        # A broker is a client of other brokers too.
        uses = [ExtendedKeyUsageOID.CLIENT_AUTH]
        if purpose.hosts:
            uses.insert(0, ExtendedKeyUsageOID.SERVER_AUTH)
        signer = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key())
        builder = (
            self._builder(subject, authority.certificate.subject, key)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(enciphers_keys=not elliptic), critical=True)
            .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
            )
            .add_extension(signer, critical=False)
        )
        if purpose.hosts:
            builder = builder.add_extension(names, critical=False)
        return Issued(key, request, builder.sign(authority.key, hashes.SHA256()))

    def _builder(
        self, subject: x509.Name, issuer: x509.Name, key: PrivateKey
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(self._start)
            .not_valid_after(self._end)
        )

    # -- stores --------------------------------------------------------------------------------

    def trust_jks(self, authority: Authority, password: str) -> bytes:
        """A trust store in Java's old format, which every client reads."""
        entry = TrustedEntry(_AUTHORITY_ALIAS, _der(authority.certificate))
        return self._jks(Store(trusted=(entry,)), password)

    def key_jks(
        self, issued: Sequence[tuple[str, Issued]], authority: Authority, password: str
    ) -> bytes:
        """A key store in Java's old format, with the authority beside the keys."""
        keys = tuple(
            KeyEntry(alias, _pkcs8(each.key), (_der(each.certificate), _der(authority.certificate)))
            for alias, each in issued
        )
        trusted = (TrustedEntry(_AUTHORITY_ALIAS, _der(authority.certificate)),)
        return self._jks(Store(keys, trusted), password)

    def _jks(self, store: Store, password: str) -> bytes:
        return jks.write(store, password, now_ms=self._now_ms, random_bytes=self._random_bytes)


def trust_pkcs12(authority: Authority, password: str) -> bytes:
    """A trust store as PKCS #12, with the mark that Java looks for, in algorithms of Java 8."""
    entry = pkcs12.PKCS12Certificate(authority.certificate, _AUTHORITY_ALIAS.encode())
    encryption = (
        serialization.PrivateFormat.PKCS12.encryption_builder()
        .kdf_rounds(10_000)
        .key_cert_algorithm(pkcs12.PBES.PBESv1SHA1And3KeyTripleDESCBC)
        .hmac_hash(hashes.SHA1())
        .build(password.encode())
    )
    return pkcs12.serialize_java_truststore([entry], encryption)


def key_pkcs12(alias: str, issued: Issued, authority: Authority, password: str) -> bytes:
    """A key store as PKCS #12."""
    return pkcs12.serialize_key_and_certificates(
        alias.encode(),
        issued.key,
        issued.certificate,
        [authority.certificate],
        serialization.BestAvailableEncryption(password.encode()),
    )


def certificate_pem(certificate: x509.Certificate) -> bytes:
    """A certificate as text."""
    return certificate.public_bytes(serialization.Encoding.PEM)


def key_pem(key: PrivateKey) -> bytes:
    """A private key as text, unencrypted."""
    return pem.encode("PRIVATE KEY", _pkcs8(key))


def read_authority(certificate: bytes, key: bytes) -> Authority:
    """An authority from its two files. Raises KeyStoreError when they do not fit."""
    try:
        loaded = x509.load_pem_x509_certificate(certificate)
        private = serialization.load_pem_private_key(key, None)
    except (ValueError, TypeError) as error:
        raise KeyStoreError(f"they cannot be read: {error}") from None
    if not isinstance(private, PrivateKey):
        raise KeyStoreError("the key is of an unknown kind")
    if private.public_key() != loaded.public_key():
        raise KeyStoreError("the key is not that of the certificate")
    return Authority(private, loaded)


def server_files(
    maker: Maker, authority: Authority, purpose: Purpose, password: str
) -> list[GeneratedFile]:
    """Stores of a broker: an RSA key, which every client takes, and a P-256 key, whose
    handshakes cost half; each client gets what suits it."""
    plain = maker.issue(authority, purpose, elliptic=False)
    elliptic = maker.issue(authority, purpose, elliptic=True)
    both = (("localhost", plain), ("localhost-ec", elliptic))
    request = plain.request.public_bytes(serialization.Encoding.PEM)
    signed = certificate_pem(plain.certificate)
    return [
        GeneratedFile("server.keystore.jks", maker.key_jks(both, authority, password), True),
        GeneratedFile(
            "server.keystore.p12", key_pkcs12("localhost", plain, authority, password), True
        ),
        GeneratedFile("server.truststore.jks", maker.trust_jks(authority, password), False),
        GeneratedFile("server.cert-file", request, False),
        GeneratedFile("server.cert-signed", signed, False),
    ]


def client_files(
    maker: Maker, authority: Authority, purpose: Purpose, password: str, trust_password: str
) -> list[GeneratedFile]:
    """What clients trust the broker by, and a key for listeners that ask for a certificate."""
    issued = maker.issue(authority, purpose, elliptic=True)
    root = certificate_pem(authority.certificate)
    together = key_pem(issued.key) + certificate_pem(issued.certificate) + root
    return [
        GeneratedFile("client.truststore.jks", maker.trust_jks(authority, trust_password), False),
        GeneratedFile("client.truststore.p12", trust_pkcs12(authority, trust_password), False),
        GeneratedFile("client.truststore.pem", root, False),
        GeneratedFile("ca.crt", root, False),
        GeneratedFile(
            "client.keystore.jks", maker.key_jks((("client", issued),), authority, password), True
        ),
        GeneratedFile(
            "client.keystore.p12", key_pkcs12("client", issued, authority, password), True
        ),
        GeneratedFile("client.pem", together, True),
    ]


def valid_until(certificate: x509.Certificate) -> datetime:
    """When it ends to be valid."""
    return certificate.not_valid_after_utc.astimezone(UTC)


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _usage(*, signs_certificates: bool = False, enciphers_keys: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=enciphers_keys,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.DER)


def _pkcs8(key: PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.DER,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
