"""Ready settings for clients of a listener, in the form that each kind of client reads."""

from collections.abc import Callable
from typing import Final, NamedTuple

from kavka.config.listeners import Endpoint

_JAAS_CLASSES: Final = {
    "PLAIN": "org.apache.kafka.common.security.plain.PlainLoginModule",
    "SCRAM-SHA-256": "org.apache.kafka.common.security.scram.ScramLoginModule",
    "SCRAM-SHA-512": "org.apache.kafka.common.security.scram.ScramLoginModule",
}


class Login(NamedTuple):
    """How clients log in; the password is a placeholder unless somebody wants it in a file."""

    mechanism: str = "PLAIN"
    user: str = "access_user"
    password: str = "**********"


class Trust(NamedTuple):
    """Where clients find what they trust the broker by."""

    store: str  # path of client.truststore.jks
    password: str
    certificate: str  # path of ca.crt
    check_host_name: bool = True


class Target(NamedTuple):
    """What a client's settings are made for."""

    endpoint: Endpoint  # as advertised
    login: Login
    trust: Trust

    @property
    def encrypted(self) -> bool:
        """Whether the listener speaks TLS."""
        return self.endpoint.protocol.endswith("SSL")

    @property
    def authenticated(self) -> bool:
        """Whether the listener wants a login."""
        return self.endpoint.protocol.startswith("SASL_")

    @property
    def servers(self) -> str:
        """The bootstrap address."""
        host, port = self.endpoint.host, self.endpoint.port
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def java(target: Target) -> str:
    """``client.properties`` of Java clients and tools."""
    lines = [f"bootstrap.servers={target.servers}"]
    if target.authenticated:
        login = target.login
        lines += [
            f"sasl.jaas.config={_JAAS_CLASSES[login.mechanism]} required \\",
            f'username="{_jaas(login.user)}" \\',
            f'password="{_jaas(login.password)}";',
            f"sasl.mechanism={login.mechanism}",
        ]
    lines.append(f"security.protocol={target.endpoint.protocol}")
    if target.encrypted:
        check = "https" if target.trust.check_host_name else ""
        lines += [
            '# Paths are written with "/", also on Windows.',
            f"ssl.truststore.location={_slashes(target.trust.store)}",
            f"ssl.truststore.password={target.trust.password}",
            f"ssl.endpoint.identification.algorithm={check}",
        ]
    return "\n".join((*lines, ""))


def librdkafka(target: Target) -> str:
    """Settings of librdkafka: kcat, and clients in C, C++, .NET, Go (confluent) and Python
    (confluent)."""
    lines = [
        f"bootstrap.servers={target.servers}",
        f"security.protocol={target.endpoint.protocol.lower()}",
    ]
    if target.authenticated:
        login = target.login
        lines += [
            f"sasl.mechanism={login.mechanism}",
            f"sasl.username={login.user}",
            f"sasl.password={login.password}",
        ]
    if target.encrypted:
        check = "https" if target.trust.check_host_name else "none"
        lines += [
            f"ssl.ca.location={_slashes(target.trust.certificate)}",
            f"ssl.endpoint.identification.algorithm={check}",
        ]
    return "\n".join((*lines, ""))


def kafka_python(target: Target) -> str:
    """Keyword arguments of kafka-python's clients."""
    values: dict[str, object] = {
        "bootstrap_servers": [target.servers],
        "security_protocol": target.endpoint.protocol,
    }
    if target.authenticated:
        login = target.login
        values |= {
            "sasl_mechanism": login.mechanism,
            "sasl_plain_username": login.user,
            "sasl_plain_password": login.password,
        }
    if target.encrypted:
        values |= {
            "ssl_cafile": _slashes(target.trust.certificate),
            "ssl_check_hostname": target.trust.check_host_name,
        }
    body = "".join(f"    {name!r}: {value!r},\n" for name, value in values.items())
    return f"# KafkaProducer(**CLIENT), KafkaConsumer(**CLIENT)\nCLIENT = {{\n{body}}}\n"


def sarama(target: Target) -> str:
    """A configuration function for Go's sarama."""
    lines = [
        "package kafka",
        "",
        "import (",
        *(['\t"crypto/tls"', '\t"crypto/x509"', '\t"os"', ""] if target.encrypted else []),
        '\t"github.com/IBM/sarama"',
        ")",
        "",
        f"var Brokers = []string{{{_go(target.servers)}}}",
        "",
        "func Config() (*sarama.Config, error) {",
        "\tconfig := sarama.NewConfig()",
    ]
    if target.authenticated:
        login = target.login
        lines += [
            "\tconfig.Net.SASL.Enable = true",
            f"\tconfig.Net.SASL.Mechanism = {_go(login.mechanism)}",
            f"\tconfig.Net.SASL.User = {_go(login.user)}",
            f"\tconfig.Net.SASL.Password = {_go(login.password)}",
        ]
    if target.encrypted:
        skip = "false" if target.trust.check_host_name else "true"
        lines += [
            f"\tpem, err := os.ReadFile({_go(_slashes(target.trust.certificate))})",
            "\tif err != nil {",
            "\t\treturn nil, err",
            "\t}",
            "\troots := x509.NewCertPool()",
            "\troots.AppendCertsFromPEM(pem)",
            "\tconfig.Net.TLS.Enable = true",
            f"\tconfig.Net.TLS.Config = &tls.Config{{RootCAs: roots, InsecureSkipVerify: {skip}}}",
        ]
    return "\n".join((*lines, "\treturn config, nil", "}", ""))


FORMS: Final[tuple[tuple[str, Callable[[Target], str]], ...]] = (
    ("java-{}.properties", java),
    ("librdkafka-{}.conf", librdkafka),
    ("kafka-python-{}.py", kafka_python),
    ("sarama-{}.go", sarama),
)
"""File names, with a place for the port, and what makes their content."""


def _slashes(path: str) -> str:
    return path.replace("\\", "/")


def _jaas(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\\", "\\\\")


def _go(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
