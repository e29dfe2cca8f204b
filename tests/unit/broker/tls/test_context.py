"""Contexts made from settings: what is accepted, and what is said of what is not."""

import os
import ssl
from pathlib import Path

import pytest

from kavka.broker.security.tls import pem, suites
from kavka.broker.security.tls.context import client_context, options_of, server_context
from kavka.broker.security.tls.stores import read_store
from kavka.config.broker import BrokerConfig
from kavka.config.option import ConfigError

from .certificates import PASSWORD, Certificates

STRICT = {
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256": "ECDHE-ECDSA-AES128-SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256": "ECDHE-RSA-AES128-SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": "ECDHE-RSA-AES128-GCM-SHA256",
}


def connect(
    server: ssl.SSLContext, client: ssl.SSLContext, name: str | None = None
) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """Let both sides shake hands in memory; server and client session."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = server.wrap_bio(to_server, to_client, server_side=True)
    theirs = client.wrap_bio(to_client, to_server, server_hostname=name)
    todo = [theirs, ours]
    for _ in range(10):
        for session in [*todo]:
            try:
                session.do_handshake()
                todo.remove(session)
            except ssl.SSLWantReadError:
                pass
    assert not todo
    return ours, theirs


# -- suites and versions -----------------------------------------------------------------------


def test_iana_names_are_mapped() -> None:
    old, new = suites.openssl_names(
        [*STRICT, "TLS_AES_128_GCM_SHA256", "TLS_RSA_WITH_AES_128_CBC_SHA256"]
    )
    assert old == [*STRICT.values(), "AES128-SHA256"]
    assert new == ["TLS_AES_128_GCM_SHA256"]


def test_openssl_names_are_taken_too() -> None:
    assert suites.openssl_names(["ECDHE-RSA-AES128-GCM-SHA256"])[0] == [
        "ECDHE-RSA-AES128-GCM-SHA256"
    ]


@pytest.mark.parametrize("name", ["TLS_RSA_WITH_RC4_128_MD5", "nonsense", "ALL", "@SECLEVEL=0"])
def test_unknown_and_unsafe_suites_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"ssl.cipher.suites names {name}"):
        suites.openssl_names([name])


def test_every_suite_of_java_that_is_mapped_exists_in_openssl(certificates: Certificates) -> None:
    for name in (*STRICT, "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256"):
        context = server_context(certificates.options(suites=(name,))).context
        ours, _ = connect(context, certificates.client_context())
        cipher = ours.cipher()
        assert cipher is not None
        assert cipher[0] == STRICT.get(name, "ECDHE-ECDSA-CHACHA20-POLY1305")


@pytest.mark.parametrize(
    ("version", "suite"),
    [("TLSv1.2", "ECDHE-ECDSA-AES128-GCM-SHA256"), ("TLSv1.3", "TLS_AES_256_GCM_SHA384")],
)
def test_both_versions_by_default(certificates: Certificates, version: str, suite: str) -> None:
    context = server_context(certificates.options()).context
    ours, _ = connect(context, certificates.client_context(version))
    assert ours.version() == version
    assert ours.cipher() is not None and ours.cipher()[0] == suite  # type: ignore[index]


def test_the_rsa_key_is_there_for_who_wants_it(certificates: Certificates) -> None:
    client = certificates.client_context("TLSv1.2")
    client.set_ciphers("ECDHE-RSA-AES128-GCM-SHA256")
    ours, _ = connect(server_context(certificates.options()).context, client)
    assert ours.cipher()[0] == "ECDHE-RSA-AES128-GCM-SHA256"  # type: ignore[index]


def test_rsa_key_exchange_is_off_unless_it_is_configured(certificates: Certificates) -> None:
    client = certificates.client_context("TLSv1.2")
    client.set_ciphers("AES128-SHA256")
    with pytest.raises(ssl.SSLError):
        connect(server_context(certificates.options()).context, client)
    wanted = certificates.options(suites=("TLS_RSA_WITH_AES_128_CBC_SHA256",))
    ours, _ = connect(server_context(wanted).context, client)
    assert ours.cipher()[0] == "AES128-SHA256"  # type: ignore[index]


def test_the_strict_profile_has_three_suites_of_tls_1_2(certificates: Certificates) -> None:
    context = server_context(certificates.options(strict=True)).context
    assert context.minimum_version == context.maximum_version == ssl.TLSVersion.TLSv1_2
    negotiated = []
    everything = certificates.client_context().get_ciphers()
    for name in (suite["name"] for suite in everything if suite["protocol"] != "TLSv1.3"):
        client = certificates.client_context("TLSv1.2")
        client.set_ciphers(name)
        try:
            ours, _ = connect(context, client)
        except ssl.SSLError:
            continue
        negotiated.append(ours.cipher()[0])  # type: ignore[index]
    assert sorted(negotiated) == sorted(STRICT.values())
    # Of all three, that which Go offers unasked.
    ours, _ = connect(context, certificates.client_context())
    assert ours.cipher()[0] == "ECDHE-RSA-AES128-GCM-SHA256"  # type: ignore[index]
    with pytest.raises(ssl.SSLError):
        connect(context, certificates.client_context("TLSv1.3"))


@pytest.mark.parametrize(
    ("changed", "versions"),
    [
        ({"versions": ("TLSv1.2",)}, {"TLSv1.2"}),
        ({"versions": ("TLSv1.3",)}, {"TLSv1.3"}),
        ({"versions": ("TLSv1.2", "TLSv1.1", "TLSv1")}, {"TLSv1.2"}),
        ({"suites": ("TLS_AES_128_GCM_SHA256",)}, {"TLSv1.3"}),
        ({"suites": tuple(STRICT)}, {"TLSv1.2"}),
    ],
)
def test_versions_follow_the_settings(
    certificates: Certificates, changed: dict[str, object], versions: set[str]
) -> None:
    context = server_context(certificates.options(**changed)).context
    accepted = set()
    for version in ("TLSv1.2", "TLSv1.3"):
        try:
            connect(context, certificates.client_context(version))
        except ssl.SSLError:
            continue
        accepted.add(version)
    assert accepted == versions


def test_nobody_renegotiates(certificates: Certificates) -> None:
    context = server_context(certificates.options()).context
    assert context.options & ssl.OP_NO_RENEGOTIATION


# -- what is wrong -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"key_store": None}, "a listener with TLS needs a key and certificate"),
        ({"key_store": "/no/such.jks"}, r"ssl\.keystore\.location=/no/such\.jks does not exist"),
        ({"key_store": "/"}, "cannot be read: Is a directory"),
        ({"key_store_password": "bad secret"}, r"cannot be opened by ssl\.keystore\.password"),
        ({"key_password": "bad secret"}, r"password of the key of 'localhost' is wrong"),
        ({"versions": ("TLSv1.1",)}, r"ssl\.enabled\.protocols=TLSv1\.1 has no use here"),
        ({"versions": ("TLSv9",)}, r"ssl\.enabled\.protocols=TLSv9 has no use here"),
        ({"suites": ("X",)}, "names X"),
        (
            {"suites": ("TLS_AES_128_GCM_SHA256",), "versions": ("TLSv1.2",)},
            r"no suite for the versions of ssl\.enabled\.protocols",
        ),
        ({"client_auth": "required", "trust_store": None}, "which clients to trust"),
        ({"client_auth": "requested", "trust_store": "/no/x"}, "/no/x does not exist"),
        (
            {"client_auth": "required", "trust_store_password": "bad secret"},
            "ssl.truststore.password",
        ),
        ({"key_text": "x"}, r"set ssl\.keystore\.certificate\.chain too"),
        ({"chain_text": "x"}, r"set ssl\.keystore\.key too"),
    ],
)
def test_a_mistake_is_named(
    certificates: Certificates, changed: dict[str, object], reason: str
) -> None:
    with pytest.raises(ConfigError, match=reason) as raised:
        server_context(certificates.options(**changed))
    assert PASSWORD not in str(raised.value)
    assert "bad secret" not in str(raised.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_a_store_that_may_not_be_read_is_said_so(
    certificates: Certificates, tmp_path: Path
) -> None:
    store = tmp_path / "x.jks"
    store.write_bytes(b"")
    store.chmod(0)
    with pytest.raises(ConfigError, match="give the broker's user the right to"):
        server_context(certificates.options(key_store=str(store)))


def test_a_trust_store_is_no_key_store(certificates: Certificates) -> None:
    options = certificates.options(key_store=certificates.path("server.truststore.jks"))
    with pytest.raises(ConfigError, match="there is no private key with a certificate"):
        server_context(options)


def test_options_show_no_secret(certificates: Certificates) -> None:
    options = certificates.options(key_text="secret key")
    for shown in (repr(options), str(options), f"{options}"):
        assert "secret" not in shown and PASSWORD not in shown


def test_keys_may_be_text(certificates: Certificates) -> None:
    data = Path(certificates.path("server.keystore.p12")).read_bytes()
    [entry] = read_store(data, PASSWORD).keys
    key = pem.encode("PRIVATE KEY", entry.key).decode()
    options = certificates.options(
        key_store=None,
        key_text=" ".join(key.split("\n")),
        chain_text="".join(pem.encode("CERTIFICATE", each).decode() for each in entry.chain),
        trust_store=None,
        trust_text=Path(certificates.path("ca.crt")).read_text(),
        client_auth="required",
    )
    ours, _ = connect(server_context(options).context, certificates.client_context(known=True))
    assert ours.getpeercert(binary_form=True)


def test_the_end_of_the_certificates_is_known(certificates: Certificates) -> None:
    expires = server_context(certificates.options()).expires
    assert expires is not None
    assert expires.year - 15 > 2030


# -- brokers as clients ------------------------------------------------------------------------


def test_a_broker_trusts_other_brokers_and_checks_their_names(certificates: Certificates) -> None:
    server = server_context(certificates.options(client_auth="required")).context
    client = client_context(certificates.options()).context
    ours, theirs = connect(server, client, "localhost")
    assert theirs.getpeercert()
    assert ours.getpeercert(binary_form=True)
    connect(server, client, "127.0.0.1")
    with pytest.raises(ssl.SSLCertVerificationError):
        connect(server, client, "elsewhere")
    unchecked = client_context(certificates.options(check_host_name=False)).context
    connect(server, unchecked, "elsewhere")


# -- settings ----------------------------------------------------------------------------------


def test_a_listener_may_have_settings_of_its_own() -> None:
    config = BrokerConfig(
        {
            "ssl.keystore.location": "/all.jks",
            "ssl.keystore.password": "one",
            "listener.name.public.ssl.keystore.location": "/public.jks",
            "listener.name.public.ssl.endpoint.identification.algorithm": "",
            "listener.name.public.ssl.client.auth": "required",
            "ssl.client.auth": "requested",
        }
    )
    internal, public = options_of(config, "INTERNAL"), options_of(config, "PUBLIC")
    assert (internal.key_store, public.key_store) == ("/all.jks", "/public.jks")
    assert internal.key_store_password == public.key_store_password == "one"
    assert internal.check_host_name and not public.check_host_name
    assert (internal.client_auth, public.client_auth) == ("requested", "required")
    # A listener with logins asks for certificates only when it is told to (Kafka 2.8).
    assert options_of(config, "INTERNAL", sasl=True).client_auth == "none"
    assert options_of(config, "PUBLIC", sasl=True).client_auth == "required"
    assert not internal.strict
    assert options_of(BrokerConfig({"profile": "strict"}), "X").strict
