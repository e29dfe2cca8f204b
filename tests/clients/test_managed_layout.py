"""The listeners of a managed instance, all six, with clients of each; public ones come later."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from confluent_kafka import Consumer, KafkaException, Producer
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource

from kavka.broker.cli.main import execute
from kavka.config import profiles, properties
from kavka.config.profiles import (
    CROSS_VPC,
    INTERNAL_PLAIN,
    INTERNAL_SASL_SSL,
    PUBLIC_PLAIN,
    PUBLIC_SASL_SSL,
    REPLICATION,
)
from tests.broker_process import BrokerProcess, free_port, wait_for

USER, PASSWORD = "access_user", "secret-1"
JAAS = f'org.apache.kafka.common.security.plain.PlainLoginModule required user_{USER}="{PASSWORD}";'


class Instance(NamedTuple):
    """A broker with the listeners of the manual at ports of our own."""

    process: BrokerProcess
    ports: dict[str, int]
    ca: Path

    def address(self, listener: str) -> str:
        return f"{listener}://127.0.0.1:{self.ports[listener]}"

    def client(self, listener: str, password: str = PASSWORD) -> dict[str, Any]:
        conf = {"bootstrap.servers": f"127.0.0.1:{self.ports[listener]}"}
        if listener in (INTERNAL_SASL_SSL, PUBLIC_SASL_SSL, CROSS_VPC):
            conf |= {
                "security.protocol": "SASL_SSL",
                "sasl.mechanism": "PLAIN",
                "sasl.username": USER,
                "sasl.password": password,
                "ssl.ca.location": str(self.ca),
            }
        return conf

    def listen(self, *listeners: str) -> None:
        """Have these, while the broker runs."""
        resource = ConfigResource(
            ConfigResource.Type.BROKER,
            "1",
            incremental_configs=[
                ConfigEntry(
                    "listeners",
                    ",".join(map(self.address, listeners)),
                    incremental_operation=AlterConfigOpType.SET,
                )
            ],
        )
        admin = AdminClient(self.client(INTERNAL_PLAIN))
        admin.incremental_alter_configs([resource])[resource].result(30)


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[Instance]:
    certs = tmp_path / "certs"
    assert execute(["certs", "generate", "--dir", str(certs)]) == 0
    ports = {name: free_port() for name in profiles.PORTS}
    made = Instance(BrokerProcess(tmp_path / "data"), ports, certs / "ca.crt")
    tls = (certs / "server.tls.properties").read_text()
    stores = {entry.name: entry.value for entry in properties.parse(tls)}
    internal = (REPLICATION, INTERNAL_PLAIN, INTERNAL_SASL_SSL, CROSS_VPC)
    made.process.settings |= {
        **stores,
        "profile": "managed",
        "listeners": ",".join(map(made.address, internal)),
        "sasl.enabled.mechanisms": "PLAIN",
        **{
            f"listener.name.{name.lower()}.plain.sasl.jaas.config": JAAS
            for name in (INTERNAL_SASL_SSL, PUBLIC_SASL_SSL, CROSS_VPC)
        },
    }
    made.process.launch()
    made.process.await_ready()
    yield made
    assert made.process.stop() == 0, made.process.log()


def ports_told(conf: dict[str, Any]) -> list[int]:
    brokers = AdminClient(conf).list_topics(timeout=30).brokers.values()
    return [broker.port for broker in brokers]


def round_trip(conf: dict[str, Any], topic: str, value: bytes) -> None:
    producer = Producer(conf)
    producer.produce(topic, value)
    assert producer.flush(30) == 0
    consumer = Consumer({**conf, "group.id": topic, "auto.offset.reset": "earliest"})
    consumer.subscribe([topic])
    message = wait_for("the message", lambda: consumer.poll(1.0), timeout=60)
    assert message.error() is None
    assert message.value() == value
    consumer.close()


def test_every_listener_serves_its_clients(instance: Instance) -> None:
    for listener in (INTERNAL_PLAIN, INTERNAL_SASL_SSL, CROSS_VPC):
        conf = instance.client(listener)
        assert ports_told(conf) == [instance.ports[listener]]
        round_trip(conf, f"over-{listener}", listener.encode())


def test_public_access_is_turned_on_and_off(instance: Instance) -> None:
    internal = (REPLICATION, INTERNAL_PLAIN, INTERNAL_SASL_SSL, CROSS_VPC)
    public = (PUBLIC_PLAIN, PUBLIC_SASL_SSL)
    for listener in public:
        with pytest.raises(KafkaException):
            AdminClient(instance.client(listener)).list_topics(timeout=1)
    instance.listen(*internal, *public)
    for listener in public:
        conf = instance.client(listener)
        wait_for("metadata", lambda c=conf, p=instance.ports[listener]: ports_told(c) == [p])
        round_trip(conf, f"over-{listener}", b"v")
    with pytest.raises(KafkaException):
        AdminClient(instance.client(PUBLIC_SASL_SSL, "wrong")).list_topics(timeout=3)
    instance.listen(*internal)
    for listener in public:
        with pytest.raises(KafkaException):
            AdminClient(instance.client(listener)).list_topics(timeout=1)
    assert ports_told(instance.client(INTERNAL_SASL_SSL)) == [instance.ports[INTERNAL_SASL_SSL]]
