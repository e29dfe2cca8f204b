"""Names of clients by their certificates, as Java writes them, and what rules make of them."""

import contextlib
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import NameOID as N
from hypothesis import given, settings
from hypothesis import strategies as st

from kavka.broker.security.tls.principal import PrincipalRules, distinguished_name
from kavka.config.option import ConfigError

KEY = ec.generate_private_key(ec.SECP256R1())
A = x509.NameAttribute


def certificate(*relative: list[x509.NameAttribute[str]]) -> bytes:
    name = x509.Name([x509.RelativeDistinguishedName(each) for each in relative])
    now = datetime(2026, 1, 1, tzinfo=UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(x509.Name([A(N.COMMON_NAME, "issuer")]))
        .public_key(KEY.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .sign(KEY, hashes.SHA256())
    )
    return signed.public_bytes(serialization.Encoding.DER)


# The texts are what X500Principal.getName() of Java 17 gives.
@pytest.mark.parametrize(
    ("relative", "text"),
    [
        (
            [
                [A(N.COUNTRY_NAME, "DE")],
                [A(N.STATE_OR_PROVINCE_NAME, "e")],
                [A(N.LOCALITY_NAME, "d")],
                [A(N.ORGANIZATION_NAME, "c")],
                [A(N.ORGANIZATIONAL_UNIT_NAME, "b")],
                [A(N.COMMON_NAME, "a")],
            ],
            "CN=a,OU=b,O=c,L=d,ST=e,C=DE",
        ),
        (
            [[A(N.COMMON_NAME, " lead, trail ")], [A(N.ORGANIZATION_NAME, 'q"uo=te\\+<>;#')]],
            r"O=q\"uo\=te\\\+\<\>\;\#,CN=\ lead\, trail\ ",
        ),
        (
            [[A(N.COMMON_NAME, "#hash")], [A(N.ORGANIZATION_NAME, "Ünïcode 日本 😀")]],
            r"O=Ünïcode 日本 😀,CN=\#hash",
        ),
        (
            [[A(N.EMAIL_ADDRESS, "a@b.c", _type=_ASN1Type.IA5String)], [A(N.COMMON_NAME, "x")]],
            "CN=x,1.2.840.113549.1.9.1=#16056140622e63",
        ),
        (
            [
                [A(N.DOMAIN_COMPONENT, "org")],
                [A(N.DOMAIN_COMPONENT, "kavka")],
                [A(N.USER_ID, "u1")],
                [A(N.STREET_ADDRESS, "Main St. 1")],
            ],
            "STREET=Main St. 1,UID=u1,DC=kavka,DC=org",
        ),
        (
            [[A(N.COMMON_NAME, "multi"), A(N.USER_ID, "u"), A(N.ORGANIZATION_NAME, "o")]],
            "O=o+CN=multi+UID=u",
        ),
        (
            [[A(N.SERIAL_NUMBER, "77")], [A(N.TITLE, "t")], [A(N.COMMON_NAME, "x")]],
            "CN=x,2.5.4.12=#0c0174,2.5.4.5=#13023737",
        ),
        ([[A(N.COMMON_NAME, "nul\0x")]], r"CN=nul\00x"),
        ([], ""),
    ],
)
def test_the_name_is_javas(relative: list[list[x509.NameAttribute[str]]], text: str) -> None:
    assert distinguished_name(certificate(*relative)) == text


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=300))
def test_nonsense_is_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError):
        distinguished_name(data)


@settings(deadline=None, max_examples=200)
@given(position=st.integers(0, 250), value=st.integers(0, 255))
def test_a_damaged_certificate_breaks_nothing(position: int, value: int) -> None:
    data = bytearray(certificate([A(N.COMMON_NAME, "a")]))
    data[position % len(data)] = value
    with contextlib.suppress(ValueError):
        distinguished_name(bytes(data))


# -- rules -------------------------------------------------------------------------------------

DUKE = "CN=Duke,OU=ServiceUsers,O=Org,C=US"


# The examples of KIP-371 and of Kafka's own tests.
@pytest.mark.parametrize(
    ("rules", "name", "user"),
    [
        ("DEFAULT", DUKE, DUKE),
        ("", DUKE, DUKE),
        (r"RULE:^CN=(.*?),OU=ServiceUsers.*$/$1/", DUKE, "Duke"),
        (r"RULE:^CN=(.*?),OU=ServiceUsers.*$/$1/L", DUKE, "duke"),
        (r"RULE:^cn=(.*?),ou=(.*?),dc=(.*?),dc=(.*?)$/$1@$2/U, DEFAULT", DUKE, DUKE),
        (
            r"RULE:^cn=(.*?),ou=(.*?),dc=(.*?),dc=(.*?)$/$1@$2/U",
            "cn=JDoe,ou=ops,dc=kavka,dc=org",
            "JDOE@OPS",
        ),
        (r"RULE:^CN=(.*?),OU=Other.*$/$1/, RULE:^CN=(.*?),.*$/user-$1/", DUKE, "user-Duke"),
        (r"RULE:^.*[Cc][Nn]=([a-zA-Z0-9.]*).*$/$1/L", "O=o,CN=Test.User", "test.user"),
        (r"RULE:CN=(\w+),.*/$1\/x/", DUKE, "Duke/x"),
        (r"RULE:^CN=(?<who>\w+),.*$/${who}/", DUKE, "Duke"),
        (r"RULE:^CN=(D)(u)ke.*$/$10-$2/", DUKE, "D0-u"),
        (r"RULE:nothing/x/", DUKE, None),
        (r"RULE:Duke/x/", DUKE, None),  # the whole name must match
    ],
)
def test_rules(rules: str, name: str, user: str | None) -> None:
    assert PrincipalRules(rules).user(name) == user


@pytest.mark.parametrize(
    "rules",
    [
        "default",
        "RULE:a",
        "RULE:a/b",
        "RULE:a/b/X",
        "DEFAULT RULE:a/b/",
        "RULE:(/b/",
        "RULE:a/${x}/",
        "DEFAULT, nonsense",
    ],
)
def test_malformed_rules_are_refused(rules: str) -> None:
    with pytest.raises(ConfigError, match=r"ssl\.principal\.mapping\.rules"):
        PrincipalRules(rules)
