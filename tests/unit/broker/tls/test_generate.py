"""The files that ``kavka certs generate`` writes, and the settings for clients."""

import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.verification import PolicyBuilder, Store

from kavka.broker.cli.main import execute
from kavka.broker.security.tls.client_files import (
    Login,
    Target,
    Trust,
    java,
    kafka_python,
    librdkafka,
    sarama,
)
from kavka.broker.security.tls.stores import read_store
from kavka.config import properties
from kavka.config.listeners import Endpoint

FILES = {
    "ca-cert",
    "ca-key",
    "ca.crt",
    "client.keystore.jks",
    "client.keystore.p12",
    "client.keystore.properties",
    "client.pem",
    "client.truststore.jks",
    "client.truststore.p12",
    "client.truststore.pem",
    "server.cert-file",
    "server.cert-signed",
    "server.keystore.jks",
    "server.keystore.p12",
    "server.tls.properties",
    "server.truststore.jks",
}
PRIVATE = {
    "ca-key",
    "client.keystore.jks",
    "client.keystore.p12",
    "client.keystore.properties",
    "client.pem",
    "server.keystore.jks",
    "server.keystore.p12",
    "server.tls.properties",
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("made") / "certs"
    assert execute(["certs", "generate", "--dir", str(directory), "--host", "kafka.example"]) == 0
    return directory


def values(path: Path) -> dict[str, str]:
    return {entry.name: entry.value for entry in properties.parse(path.read_text())}


def server_certificates(directory: Path) -> list[x509.Certificate]:
    secret = values(directory / "server.tls.properties")["ssl.keystore.password"]
    store = read_store((directory / "server.keystore.jks").read_bytes(), secret)
    return [x509.load_der_x509_certificate(entry.chain[0]) for entry in store.keys]


def test_the_files_have_the_manuals_names(made: Path) -> None:
    assert {path.name for path in made.iterdir()} == FILES | {"clients"}
    clients = {path.name for path in (made / "clients").iterdir()}
    forms = ("java-{}.properties", "librdkafka-{}.conf", "kafka-python-{}.py", "sarama-{}.go")
    assert clients == {form.format(port) for form in forms for port in (9092, 9093)}


def test_private_files_are_for_their_owner_alone(made: Path) -> None:
    private = {path.name for path in made.iterdir() if not path.stat().st_mode & 0o077}
    assert private == PRIVATE
    assert all(stat.S_IMODE((made / name).stat().st_mode) == 0o600 for name in PRIVATE)


def test_certificates_are_valid_for_twenty_years_and_for_their_names(made: Path) -> None:
    authority = x509.load_pem_x509_certificate((made / "ca-cert").read_bytes())
    issued = server_certificates(made)
    for certificate in (authority, *issued):
        life = certificate.not_valid_after_utc - certificate.not_valid_before_utc
        assert life.days > 15 * 366
    plain, elliptic = issued
    assert isinstance(plain.public_key(), rsa.RSAPublicKey)
    assert isinstance(elliptic.public_key(), ec.EllipticCurvePublicKey)
    for certificate in issued:
        certificate.verify_directly_issued_by(authority)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert {"kafka.example", "localhost"} <= set(names.get_values_for_type(x509.DNSName))
        assert [str(ip) for ip in names.get_values_for_type(x509.IPAddress)] == [
            "127.0.0.1",
            "::1",
        ]


def test_the_chain_passes_a_strict_verifier(made: Path) -> None:
    authority = x509.load_pem_x509_certificate((made / "ca-cert").read_bytes())
    verifier = (
        PolicyBuilder()
        .store(Store([authority]))
        .build_server_verifier(x509.DNSName("kafka.example"))
    )
    for certificate in server_certificates(made):
        assert len(verifier.verify(certificate, [])) == 2


def test_request_and_signed_certificate_go_together(made: Path) -> None:
    request = x509.load_pem_x509_csr((made / "server.cert-file").read_bytes())
    signed = x509.load_pem_x509_certificate((made / "server.cert-signed").read_bytes())
    assert request.is_signature_valid
    assert request.public_key() == signed.public_key()
    assert signed == server_certificates(made)[0]


def test_all_trust_stores_hold_the_same_authority(made: Path) -> None:
    found = {
        read_store((made / name).read_bytes(), "dms@kafka").trusted[0].certificate
        for name in (
            "client.truststore.jks",
            "client.truststore.p12",
            "client.truststore.pem",
            "ca.crt",
        )
    }
    assert len(found) == 1


def test_what_exists_is_not_overwritten(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (made / "ca-cert").read_bytes()
    assert execute(["certs", "generate", "--dir", str(made)]) == 1
    assert (
        "would be overwritten: choose another --dir, or say --overwrite" in capsys.readouterr().err
    )
    assert (made / "ca-cert").read_bytes() == before


def test_an_authority_may_sign_again(made: Path, tmp_path: Path) -> None:
    directory = tmp_path / "again"
    directory.mkdir()
    for name in ("ca-cert", "ca-key"):
        (directory / name).write_bytes((made / name).read_bytes())
    arguments = ["certs", "generate", "--dir", str(directory), "--keep-ca", "--days", "30"]
    assert execute(arguments) == 0
    assert (directory / "ca-cert").read_bytes() == (made / "ca-cert").read_bytes()
    authority = x509.load_pem_x509_certificate((made / "ca-cert").read_bytes())
    (first, _) = server_certificates(directory)
    first.verify_directly_issued_by(authority)
    assert execute([*arguments, "--overwrite"]) == 0
    assert server_certificates(directory)[0] != first


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--keep-ca"], "--keep-ca needs ca-cert and ca-key"),
        (["--host", "a b"], "--host takes one name or address"),
        (["--host", "münchen.example"], "A certificate cannot have such a name"),
        (["--password-file", "/no/such/file"], "cannot be read"),
        (["--config", "/no/such/file"], "/no/such/file"),
    ],
)
def test_mistakes_are_one_sentence_and_leave_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], reason: str
) -> None:
    directory = tmp_path / "certs"
    assert execute(["certs", "generate", "--dir", str(directory), *arguments]) == 1
    error = capsys.readouterr().err
    assert reason in error and error.count("\n") == 1
    assert not directory.exists()


def test_a_password_of_ones_own_comes_from_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("tiny\n")
    arguments = ["certs", "generate", "--dir", str(tmp_path / "c"), "--password-file", str(secret)]
    assert execute(arguments) == 1
    assert "at least 6 characters" in capsys.readouterr().err
    secret.write_text("my own secret\nmore")
    assert execute(arguments) == 0
    shown = capsys.readouterr()
    assert "my own secret" not in shown.out + shown.err
    read_store((tmp_path / "c" / "server.keystore.jks").read_bytes(), "my own secret")


def test_client_settings_follow_the_listeners(tmp_path: Path) -> None:
    config = tmp_path / "server.properties"
    config.write_text(
        "listeners=INTERNAL://:19092,PUBLIC://:19095\n"
        "advertised.listeners=INTERNAL://in.example:19092,PUBLIC://out.example:443\n"
        "listener.security.protocol.map=INTERNAL:SSL,PUBLIC:SASL_SSL\n"
        "inter.broker.listener.name=INTERNAL\n"
    )
    directory = tmp_path / "c"
    arguments = ["--dir", str(directory), "--config", str(config), "--mechanism", "SCRAM-SHA-512"]
    assert execute(["certs", "generate", *arguments]) == 0
    public = values(directory / "clients" / "java-443.properties")
    assert public["bootstrap.servers"] == "out.example:443"
    assert "ScramLoginModule" in public["sasl.jaas.config"]
    internal = values(directory / "clients" / "java-19092.properties")
    assert internal["security.protocol"] == "SSL"
    assert "sasl.mechanism" not in internal


# -- client settings ---------------------------------------------------------------------------

SASL = Endpoint("PUBLIC", "SASL_SSL", "broker.example", 9095)
TRUST = Trust(r"C:\kafka\client.truststore.jks", "dms@kafka", r"C:\kafka\ca.crt")


def test_javas_settings_are_the_manuals() -> None:
    text = java(
        Target(SASL, Login("PLAIN", "access_user", "pass"), TRUST._replace(check_host_name=False))
    )
    assert text == (
        "bootstrap.servers=broker.example:9095\n"
        "sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \\\n"
        'username="access_user" \\\n'
        'password="pass";\n'
        "sasl.mechanism=PLAIN\n"
        "security.protocol=SASL_SSL\n"
        '# Paths are written with "/", also on Windows.\n'
        "ssl.truststore.location=C:/kafka/client.truststore.jks\n"
        "ssl.truststore.password=dms@kafka\n"
        "ssl.endpoint.identification.algorithm=\n"
    )


def test_passwords_survive_javas_quoting() -> None:
    text = java(Target(SASL, Login("PLAIN", "u", 'a"b\\c'), TRUST))
    line = next(e.value for e in properties.parse(text) if e.name == "sasl.jaas.config")
    assert 'password="a\\"b\\\\c";' in line


def test_other_clients_get_paths_with_slashes_too() -> None:
    target = Target(SASL, Login("SCRAM-SHA-256", "u", 'p"\\'), TRUST)
    assert "ssl.ca.location=C:/kafka/ca.crt\n" in librdkafka(target)
    assert "sasl.mechanism=SCRAM-SHA-256\n" in librdkafka(target)
    scope: dict[str, dict[str, object]] = {}
    exec(kafka_python(target), scope)
    assert scope["CLIENT"]["ssl_cafile"] == "C:/kafka/ca.crt"
    assert scope["CLIENT"]["sasl_plain_password"] == 'p"\\'
    go = sarama(target)
    assert 'os.ReadFile("C:/kafka/ca.crt")' in go and 'Password = "p\\"\\\\"' in go


def test_a_plain_listener_needs_no_more_than_its_address() -> None:
    target = Target(Endpoint("P", "PLAINTEXT", "::1", 9092), Login(), TRUST)
    assert java(target) == "bootstrap.servers=[::1]:9092\nsecurity.protocol=PLAINTEXT\n"
    assert "ssl" not in librdkafka(target) + kafka_python(target) + sarama(target)
