"""Several listeners, opened and closed while the broker runs, and who may come through them."""

import socket
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from kavka.protocol.errors import ErrorCode
from kavka.protocol.messages.k01_fetch import FetchResponse
from kavka.protocol.messages.k03_metadata import MetadataRequest, MetadataResponse
from kavka.protocol.messages.k10_find_coordinator import (
    FindCoordinatorRequest,
    FindCoordinatorResponse,
)
from kavka.protocol.messages.k18_api_versions import ApiVersionsRequest, ApiVersionsResponse
from kavka.protocol.messages.k44_incremental_alter_configs import (
    AlterableConfig,
    AlterConfigsResource,
    IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse,
)
from kavka.protocol.messages.k60_describe_cluster import (
    DescribeClusterRequest,
    DescribeClusterResponse,
)
from kavka.protocol.records.batch import Record, build_batch
from tests.broker_process import BrokerProcess, free_port, running_broker, wait_for
from tests.forwarder import Forwarder
from tests.process.test_life import create
from tests.wire import WireClient, fetch_request

BROKER = 4
SET, DELETE = 0, 1
MAP = "PLAINTEXT:PLAINTEXT,PUBLIC_PLAIN:PLAINTEXT,CROSS_VPC:PLAINTEXT"


class Layout:
    """A broker whose own listener is PLAINTEXT, and addresses for two more."""

    def __init__(self, data: Path, settings: Mapping[str, str] | None = None) -> None:
        self.private = f"PLAINTEXT://127.0.0.1:{free_port()}"
        self.public_port, self.cross_port = free_port(), free_port()
        self.public = f"PUBLIC_PLAIN://127.0.0.1:{self.public_port}"
        self.cross = f"CROSS_VPC://127.0.0.1:{self.cross_port}"
        self.process = BrokerProcess(
            data,
            {
                "listeners": self.private,
                "listener.security.protocol.map": MAP,
                **(settings or {}),
            },
        )

    def client(self) -> WireClient:
        return WireClient(self.process.port)

    def alter(
        self, settings: Mapping[str, str | None], *, node: str = "1", dry: bool = False
    ) -> tuple[int, str | None]:
        """Set or delete (None) dynamic settings; the error."""
        configs = [
            AlterableConfig(
                name=name, config_operation=DELETE if value is None else SET, value=value
            )
            for name, value in settings.items()
        ]
        request = IncrementalAlterConfigsRequest(
            resources=[
                AlterConfigsResource(resource_type=BROKER, resource_name=node, configs=configs)
            ],
            validate_only=dry,
        )
        with self.client() as client:
            [answer] = client.ask(request, IncrementalAlterConfigsResponse, 1).responses
        return answer.error_code, answer.error_message

    def set(self, settings: Mapping[str, str | None], *, node: str = "1") -> None:
        assert self.alter(settings, node=node) == (ErrorCode.NONE, None)


@pytest.fixture
def layout(tmp_path: Path) -> Iterator[Layout]:
    made = Layout(tmp_path / "data")
    made.process.start()
    yield made
    assert made.process.stop() == 0, made.process.log()
    assert "Traceback" not in made.process.log()


def addresses(client: WireClient) -> list[tuple[str, int]]:
    """Where the brokers are, as Metadata says."""
    answer = client.ask(MetadataRequest(topics=[]), MetadataResponse, 9)
    return [(broker.host, broker.port) for broker in answer.brokers]


def alive(client: WireClient) -> bool:
    try:
        client.ask(ApiVersionsRequest(), ApiVersionsResponse, 0)
    except OSError:
        return False
    return True


def refuses(port: int, host: str = "127.0.0.1") -> bool:
    try:
        socket.create_connection((host, port), timeout=30).close()
    except ConnectionRefusedError:
        return True
    return False


def test_a_public_listener_comes_and_goes_while_others_are_served(layout: Layout) -> None:
    assert refuses(layout.public_port)
    with layout.client() as client, layout.client() as waiting:
        create(client, "t")
        # A consumer in the middle of a long poll, while the listener comes and goes.
        waiting.send(fetch_request("t", 0, max_wait_ms=60_000), 11)
        layout.set({"listeners": f"{layout.private},{layout.public}"})
        with WireClient(layout.public_port) as public:
            told = wait_for("metadata", lambda: addresses(public))
            assert told == [("127.0.0.1", layout.public_port)]
            assert addresses(client) == [("127.0.0.1", layout.process.port)]
            cluster = public.ask(DescribeClusterRequest(), DescribeClusterResponse, 0)
            assert [broker.port for broker in cluster.brokers] == [layout.public_port]
            find = FindCoordinatorRequest(key="g")
            coordinator = wait_for(
                "the coordinator", lambda: public.ask(find, FindCoordinatorResponse, 1)
            )
            assert coordinator.port == layout.public_port
            layout.set({"listeners": layout.private})
            assert not alive(public)
        assert refuses(layout.public_port)
        client.produce("t", build_batch([Record(0, 1, None, b"v")], base_offset=0))
        fetched = waiting.receive(FetchResponse, 11)
        assert fetched.responses[0].partitions[0].high_watermark == 1
    log = layout.process.log()
    assert f"listening address={layout.public}" in log
    assert f"not listening any more address={layout.public} connections=1" in log


def test_cross_network_addresses_change_alone(layout: Layout) -> None:
    both = f"{layout.private},{layout.cross}"
    layout.set({"listeners": both, "advertised.listeners": both})
    with WireClient(layout.cross_port) as cross, layout.client() as client:
        wait_for("metadata", lambda: addresses(cross) == [("127.0.0.1", layout.cross_port)])
        moved = f"{layout.private},CROSS_VPC://198.51.100.7:9011"
        layout.set({"advertised.listeners": moved})
        wait_for("metadata", lambda: addresses(cross) == [("198.51.100.7", 9011)])
        assert addresses(client) == [("127.0.0.1", layout.process.port)]
        assert alive(cross)


def test_what_cannot_be_listened_on_is_refused_and_changes_nothing(layout: Layout) -> None:
    with socket.create_server(("127.0.0.1", 0)) as foreign, layout.client() as client:
        taken = foreign.getsockname()[1]
        wanted = {"listeners": f"{layout.private},PUBLIC_PLAIN://127.0.0.1:{taken}"}
        for dry in (True, False):
            code, message = layout.alter(wanted, dry=dry)
            assert code == ErrorCode.INVALID_CONFIG
            assert message is not None
            assert f"Port {taken} of PUBLIC_PLAIN://127.0.0.1:{taken} is taken" in message
        code, message = layout.alter({"listeners": f"{layout.private},NEW://127.0.0.1:1"})
        assert code == ErrorCode.INVALID_CONFIG
        assert message is not None and "No security protocol defined for listener NEW" in message
        assert addresses(client) == [("127.0.0.1", layout.process.port)]
        assert alive(client)
    code, _ = layout.alter({"listeners": f"{layout.private},{layout.public}"}, dry=True)
    assert code == ErrorCode.NONE
    assert refuses(layout.public_port)
    layout.set({"listeners": f"{layout.private},{layout.public}"})
    assert not refuses(layout.public_port)


def test_listeners_are_the_same_after_a_restart(layout: Layout) -> None:
    layout.set({"listeners": f"{layout.private},{layout.public}"})
    layout.process.kill()
    layout.process.start()
    with WireClient(layout.public_port) as public:
        assert addresses(public) == [("127.0.0.1", layout.public_port)]
    layout.set({"listeners": None})
    assert refuses(layout.public_port)
    with layout.client() as client:
        assert addresses(client) == [("127.0.0.1", layout.process.port)]


def test_a_rule_lets_in_one_source_and_drops_another(layout: Layout) -> None:
    layout.set({"listeners": f"{layout.private},{layout.public}"})
    layout.set({"listener.name.public_plain.source.allow": "127.0.0.2/32"})
    with WireClient(layout.public_port, source="127.0.0.2") as inside:
        assert alive(inside)
        with WireClient(layout.public_port) as outside:
            assert not alive(outside)
        wait_for(
            "a line in the log",
            lambda: "not let in by source.allow peer=127.0.0.1:" in layout.process.log(),
        )
        with layout.client() as client:
            assert alive(client)
        layout.set({"source.rule.sets": "office=127.0.0.3"}, node="")
        layout.set({"listener.name.public_plain.source.allow": "@office"})
        with WireClient(layout.public_port, source="127.0.0.2") as outside:
            assert not alive(outside)
        layout.set({"source.rule.sets": "office=127.0.0.3 127.0.0.2"}, node="")
        with WireClient(layout.public_port, source="127.0.0.2") as again:
            assert alive(again)
        code, message = layout.alter({"source.rule.sets": "other=10.0.0.1"}, node="")
        assert code == ErrorCode.INVALID_CONFIG
        assert message is not None and "@office" in message
        assert alive(inside)


def test_rules_hold_on_the_only_listener_too(layout: Layout) -> None:
    layout.set({"listener.name.plaintext.source.allow": "127.0.0.2/32"})
    with layout.client() as outside:
        assert not alive(outside)
    with WireClient(layout.process.port, source="127.0.0.2") as inside:
        assert alive(inside)


def test_clients_reach_the_broker_behind_a_forwarder(tmp_path: Path) -> None:
    from kafka import KafkaConsumer, KafkaProducer

    with Forwarder() as forwarder:
        bound = f"CROSS_VPC://127.0.0.1:{free_port()}"
        private = f"PLAINTEXT://127.0.0.1:{free_port()}"
        settings = {
            "listeners": f"{private},{bound}",
            "advertised.listeners": f"{private},CROSS_VPC://127.0.0.1:{forwarder.port}",
            "listener.security.protocol.map": MAP,
        }
        with running_broker(tmp_path / "data", settings):
            forwarder.forward_to(int(bound.rpartition(":")[2]))
            bootstrap = f"127.0.0.1:{forwarder.port}"
            producer = KafkaProducer(bootstrap_servers=bootstrap)
            for number in range(100):
                producer.send("t", str(number).encode())
            producer.flush(60)
            producer.close()
            consumer = KafkaConsumer(
                "t",
                bootstrap_servers=bootstrap,
                auto_offset_reset="earliest",
                group_id="g",
                consumer_timeout_ms=60_000,
            )
            got = [record.value for _, record in zip(range(100), consumer, strict=False)]
            consumer.close()
            assert sorted(map(int, got)) == list(range(100))
            assert forwarder.accepted >= 4  # bootstrap and broker, of both clients


def test_ipv6_clients_are_served(tmp_path: Path) -> None:
    from confluent_kafka import Consumer, Producer

    port = free_port()
    settings = {
        "listeners": f"PLAINTEXT://127.0.0.1:{free_port()},SIX://[::1]:{port}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,SIX:PLAINTEXT",
    }
    with running_broker(tmp_path / "data", settings):
        with WireClient(port, host="::1") as client:
            assert addresses(client) == [("::1", port)]
        conf = {"bootstrap.servers": f"[::1]:{port}"}
        producer = Producer(conf)
        producer.produce("t", b"v")
        assert producer.flush(60) == 0
        consumer = Consumer({**conf, "group.id": "g", "auto.offset.reset": "earliest"})
        consumer.subscribe(["t"])
        message = wait_for("the message", lambda: consumer.poll(1.0), timeout=60)
        assert message.value() == b"v"
        consumer.close()


def test_a_consumer_of_another_library_never_notices(layout: Layout) -> None:
    from confluent_kafka import Consumer, Producer

    conf = {"bootstrap.servers": layout.process.bootstrap}
    total, lost = 300, []
    consumer = Consumer(
        {
            **conf,
            "group.id": "g",
            "auto.offset.reset": "earliest",
            "error_cb": lost.append,
        }
    )
    consumer.subscribe(["t"])
    producer = Producer(conf)

    def produce() -> None:
        for number in range(total):
            producer.produce("t", str(number).encode())
            if number % 10 == 0:
                producer.flush(60)
        producer.flush(60)

    writing = threading.Thread(target=produce)
    writing.start()
    got = []
    while len(got) < total:
        message = wait_for("a message", lambda: consumer.poll(1.0), timeout=60)
        if message.error() is None:
            got.append(int(message.value()))
            if len(got) % 50 == 0:
                public = (len(got) // 50) % 2
                wanted = f"{layout.private},{layout.public}" if public else layout.private
                layout.set({"listeners": wanted})
    writing.join()
    consumer.close()
    assert sorted(got) == list(range(total))
    assert lost == []
