"""The stock Java clients and tools, with the settings that manuals print."""

import re
from collections.abc import Callable

import pytest

from tests.clients.sasl.conftest import (
    LISTED_PASSWORD,
    LISTED_USER,
    PASSWORD,
    USER,
    SaslBroker,
    quoted,
)
from tests.clients.test_java_tools import CONFIGS, CONSOLE_CONSUMER, CONSOLE_PRODUCER, TOPICS
from tests.java import lines, run_tool

pytestmark = pytest.mark.java

NEW = "4.3"
OLD = "2.3"
DELEGATION_TOKENS = "org.apache.kafka.tools.DelegationTokenCommand"
OLD_PRODUCER = "kafka.tools.ConsoleProducer"
OLD_CONSUMER = "kafka.tools.ConsoleConsumer"
SCRAM_MODULE = "org.apache.kafka.common.security.scram.ScramLoginModule"
OAUTH_MODULE = "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule"

FileOf = Callable[[str], str]


def escaped(value: str) -> str:
    """A text as it stands in a properties file."""
    return value.replace("\\", "\\\\")


def plain_file(broker: SaslBroker, verified: bool) -> str:
    """The block of the manual, with its continuation lines."""
    return f"""\
sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \\
username={escaped(quoted(LISTED_USER))} \\
password={escaped(quoted(LISTED_PASSWORD))};
sasl.mechanism=PLAIN
security.protocol=SASL_SSL
ssl.truststore.location={broker.certs}/client.truststore.jks
ssl.truststore.password=dms@kafka
ssl.endpoint.identification.algorithm={"https" if verified else ""}
"""


def scram_file(mechanism: str, user: str = USER, password: str = PASSWORD, extra: str = "") -> str:
    return f"""\
security.protocol=SASL_PLAINTEXT
sasl.mechanism={mechanism}
sasl.jaas.config={SCRAM_MODULE} required \\
  username={escaped(quoted(user))} \\
  password={escaped(quoted(password))}{extra};
"""


@pytest.mark.parametrize("verified", [True, False], ids=["verified", "not-verified"])
def test_the_manuals_file_over_tls(
    sasl_broker: SaslBroker, topic: str, file_of: FileOf, verified: bool
) -> None:
    server = ("--bootstrap-server", sasl_broker.bootstrap("TLS13"), "--topic", topic)
    path = file_of(plain_file(sasl_broker, verified))
    run_tool(NEW, CONSOLE_PRODUCER, *server, "--command-config", path, stdin="hello\n")
    got = run_tool(
        *(NEW, CONSOLE_CONSUMER, *server, "--command-config", path, "--from-beginning"),
        *("--max-messages", "1"),
    )
    assert lines(got.stdout) == ["hello"]


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_scram_of_an_old_client(
    sasl_broker: SaslBroker, topic: str, file_of: FileOf, mechanism: str
) -> None:
    bootstrap = sasl_broker.bootstrap("SASL")
    path = file_of(scram_file(mechanism))
    run_tool(
        *(OLD, OLD_PRODUCER, "--broker-list", bootstrap, "--topic", topic),
        *("--producer.config", path),
        stdin="hello\n",
    )
    got = run_tool(
        *(OLD, OLD_CONSUMER, "--bootstrap-server", bootstrap, "--topic", topic),
        *("--consumer.config", path, "--from-beginning", "--max-messages", "1"),
    )
    assert lines(got.stdout) == ["hello"]


def test_a_wrong_password(sasl_broker: SaslBroker, file_of: FileOf) -> None:
    refused = run_tool(
        *(NEW, TOPICS, "--bootstrap-server", sasl_broker.bootstrap("SASL"), "--list"),
        *("--command-config", file_of(scram_file("SCRAM-SHA-512", password="no"))),
        check=False,
    )
    assert refused.returncode != 0
    assert (
        "Authentication failed during authentication due to invalid credentials with SASL "
        "mechanism SCRAM-SHA-512"
    ) in refused.stdout + refused.stderr


def test_unsecured_tokens_of_the_default_handler(sasl_broker: SaslBroker, file_of: FileOf) -> None:
    path = file_of(
        "security.protocol=SASL_PLAINTEXT\nsasl.mechanism=OAUTHBEARER\n"
        f'sasl.jaas.config={OAUTH_MODULE} required unsecuredLoginStringClaim_sub="erin";\n'
    )
    run_tool(
        *(OLD, "kafka.admin.TopicCommand", "--list"),
        *("--bootstrap-server", sasl_broker.bootstrap("UNSECURED"), "--command-config", path),
    )


def test_configs_tool_makes_shows_and_removes_users(
    sasl_broker: SaslBroker, file_of: FileOf, topic: str
) -> None:
    server = ("--bootstrap-server", sasl_broker.process.bootstrap)
    entity = ("--entity-type", "users", "--entity-name", topic)
    run_tool(
        *(NEW, CONFIGS, *server, "--alter", *entity),
        *(
            "--add-config",
            "SCRAM-SHA-256=[iterations=8192,password=first],SCRAM-SHA-512=[password=second]",
        ),
    )
    described = run_tool(NEW, CONFIGS, *server, "--describe", *entity).stdout
    assert "SCRAM-SHA-256=iterations=8192" in described
    assert "SCRAM-SHA-512=iterations=4096" in described
    listing = (NEW, TOPICS, "--bootstrap-server", sasl_broker.bootstrap("SASL"), "--list")
    first = file_of(scram_file("SCRAM-SHA-256", topic, "first"))
    run_tool(*listing, "--command-config", first)
    run_tool(NEW, CONFIGS, *server, "--alter", *entity, "--delete-config", "SCRAM-SHA-256")
    assert run_tool(*listing, "--command-config", first, check=False).returncode != 0
    second = file_of(scram_file("SCRAM-SHA-512", topic, "second"))
    run_tool(*listing, "--command-config", second)


def test_delegation_tokens_tool(sasl_broker: SaslBroker, file_of: FileOf) -> None:
    server = ("--bootstrap-server", sasl_broker.bootstrap("SASL"))
    path = file_of(scram_file("SCRAM-SHA-512"))
    tool = (NEW, DELEGATION_TOKENS, *server, "--command-config", path)
    created = run_tool(
        *(*tool, "--create", "--max-life-time-period", "-1", "--renewer-principal", "User:carol")
    )
    row = next(line for line in lines(created.stdout) if f"User:{USER}" in line)
    token_id, secret, owner = row.split()[:3]
    assert owner == f"User:{USER}"
    described = run_tool(*tool, "--describe", "--owner-principal", f"User:{USER}").stdout
    assert token_id in described and "User:carol" in described

    by_token = file_of(scram_file("SCRAM-SHA-256", token_id, secret, ' tokenauth="true"'))
    listing = (NEW, TOPICS, *server, "--list", "--command-config", by_token)
    run_tool(*listing)
    # A token does not get another one.
    refused = run_tool(
        *(NEW, DELEGATION_TOKENS, *server, "--command-config", by_token, "--create"),
        *("--max-life-time-period", "-1"),
        check=False,
    )
    assert "Delegation Token requests are not allowed" in refused.stdout + refused.stderr

    renewed = run_tool(*tool, "--renew", "--renew-time-period", "-1", "--hmac", secret)
    assert re.search(r"Completed renew operation", renewed.stdout)
    run_tool(*tool, "--expire", "--expiry-time-period", "-1", "--hmac", secret)
    assert run_tool(*listing, check=False).returncode != 0
