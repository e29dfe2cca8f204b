"""Brokers that log in at each other, and users that all of them know."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialDeletion,
    UserScramCredentialUpsertion,
)

from kavka.broker.cli.main import execute
from kavka.config import properties
from tests.broker_process import free_port, wait_for
from tests.cluster.kafka_cluster import Cluster, Member
from tests.cluster.test_java_tools import OLD_CONFIGS, old_tool
from tests.cluster.zookeeper import ZooKeeper, needs_zookeeper

pytestmark = [pytest.mark.cluster, needs_zookeeper]

PASSWORD = "brok3rs-Of-this"
MODULE = "org.apache.kafka.common.security.scram.ScramLoginModule"
LISTENERS = ("BROKERS", "SASL", "PLAINTEXT")


def addresses() -> dict[str, str]:
    ports: set[int] = set()
    while len(ports) < len(LISTENERS):
        ports.add(free_port())
    pairs = zip(LISTENERS, ports, strict=True)
    return {"listeners": ",".join(f"{name}://127.0.0.1:{port}" for name, port in pairs)}


def sasl_port(member: Member) -> str:
    (entry,) = (e for e in member.settings["listeners"].split(",") if e.startswith("SASL:"))
    return entry.rpartition(":")[2]


@pytest.fixture(scope="module")
def secured(zookeeper: ZooKeeper, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three brokers that speak to each other by SCRAM over TLS alone."""
    directory = tmp_path_factory.mktemp("logins")
    certs = directory / "certs"
    assert execute(["certs", "generate", "--dir", str(certs)]) == 0
    stores = properties.parse((certs / "server.tls.properties").read_text())
    cluster = Cluster(
        zookeeper,
        directory,
        0,
        {
            "listener.security.protocol.map": (
                "BROKERS:SASL_SSL,SASL:SASL_PLAINTEXT,PLAINTEXT:PLAINTEXT"
            ),
            "inter.broker.listener.name": "BROKERS",
            "sasl.mechanism.inter.broker.protocol": "SCRAM-SHA-256",
            "listener.name.brokers.scram-sha-256.sasl.jaas.config": (
                f'{MODULE} required username="broker" password="{PASSWORD}";'
            ),
            "delegation.token.master.key": "master",
            "super.users": "User:broker;User:ANONYMOUS",
            "authorizer.class.name": "kafka.security.authorizer.AclAuthorizer",
            "allow.everyone.if.no.acl.found": "true",
            **{entry.name: entry.value for entry in stores},
        },
    )
    first_user(directory, cluster.connect)
    for broker_id in (1, 2, 3):
        cluster.add(broker_id, addresses())
    try:
        yield cluster.start()
    except BaseException:
        print(cluster.logs())
        raise
    finally:
        cluster.stop()


def first_user(directory: Path, connect: str) -> None:
    """Before there is a broker, as the brokers themselves could not log in."""
    secret = directory / "password"
    secret.write_text(PASSWORD)
    store = ["--set", f"zookeeper.connect={connect}"]
    given = ["--password-file", str(secret), "--any-password"]
    assert execute(["users", "set", "broker", *given, *store]) == 0


def client(member: Member, user: str, password: str, mechanism: str) -> dict[str, Any]:
    return {
        "bootstrap.servers": f"127.0.0.1:{sasl_port(member)}",
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": mechanism,
        "sasl.username": user,
        "sasl.password": password,
        "log_level": 0,
    }


def try_login(
    member: Member, user: str, password: str, mechanism: str = "SCRAM-SHA-512"
) -> str | None:
    """``in``, ``refused``, or None when there was no time to tell."""
    failures: list[KafkaError] = []
    admin = AdminClient({**client(member, user, password, mechanism), "error_cb": failures.append})
    try:
        admin.list_topics(timeout=2)
    except KafkaException:
        admin.poll(0.2)
        codes = {failure.code() for failure in failures}
        return "refused" if KafkaError._AUTHENTICATION in codes else None
    return "in"


def test_a_cluster_whose_brokers_log_in_replicates(secured: Cluster) -> None:
    secured.create("replicated", partitions=3, replicas=3)
    producer = Producer({"bootstrap.servers": secured.bootstrap, "acks": "all"})
    for number in range(300):
        producer.produce("replicated", f"{number}".encode(), partition=number % 3)
    assert producer.flush(20) == 0
    secured.wait_for_isr("replicated", 3)
    consumer = Consumer({"bootstrap.servers": secured.bootstrap, "group.id": "g"})
    consumer.assign([TopicPartition("replicated", index, 0) for index in range(3)])
    seen: list[int] = []

    def read() -> bool:
        seen.extend(int(m.value()) for m in consumer.consume(100, 0.2) if m.error() is None)
        return len(seen) >= 300

    wait_for("300 records", read)
    consumer.close()
    assert sorted(seen) == list(range(300))


def test_all_brokers_hear_of_a_user(secured: Cluster) -> None:
    change = UserScramCredentialUpsertion(
        "carol", ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096), b"first"
    )
    admin = secured.admin()
    admin.alter_user_scram_credentials([change])["carol"].result(20)
    for member in secured.running:
        for mechanism in ("SCRAM-SHA-512", "PLAIN"):
            wait_for(
                f"carol at {member.broker_id}",
                lambda m=member, by=mechanism: try_login(m, "carol", "first", by) == "in",
            )
    deletion = UserScramCredentialDeletion("carol", ScramMechanism.SCRAM_SHA_512)
    admin.alter_user_scram_credentials([deletion])["carol"].result(20)
    for member in secured.running:
        wait_for(
            f"no carol at {member.broker_id}",
            lambda m=member: try_login(m, "carol", "first") == "refused",
        )


@pytest.mark.java
def test_users_that_old_tools_write_into_zookeeper(secured: Cluster) -> None:
    """Before KIP-554 kafka-configs derived the keys itself and told the brokers by a node."""
    entity = ("--entity-type", "users", "--entity-name", "old, user")
    tool = (OLD_CONFIGS, "--zookeeper", secured.connect, "--alter", *entity)
    old_tool(*tool, "--add-config", "SCRAM-SHA-256=[iterations=8192,password=pw]")
    for member in secured.running:
        wait_for(
            f"the user at {member.broker_id}",
            lambda m=member: try_login(m, "old, user", "pw", "SCRAM-SHA-256") == "in",
        )
    old_tool(*tool, "--delete-config", "SCRAM-SHA-256")
    for member in secured.running:
        wait_for(
            f"no user at {member.broker_id}",
            lambda m=member: try_login(m, "old, user", "pw", "SCRAM-SHA-256") == "refused",
        )


def test_a_broker_that_does_not_know_the_password_is_not_let_in(
    secured: Cluster, tmp_path: Path
) -> None:
    wrong = secured.add(
        4,
        {
            **addresses(),
            "listener.name.brokers.scram-sha-256.sasl.jaas.config": (
                f'{MODULE} required username="broker" password="guessed";'
            ),
        },
    )
    wrong.launch()
    wait_for("the refusal", lambda: "Login denied" in secured.logs())
    del secured.members[4]
    wrong.kill()
    assert PASSWORD not in secured.logs() and "guessed" not in secured.logs()
