"""What an instance may hold: the partitions and connections of its flavour, those of an address."""

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from kavka.protocol.errors import ErrorCode
from kavka.protocol.messages.k03_metadata import (
    MetadataRequest,
    MetadataRequestTopic,
    MetadataResponse,
)
from kavka.protocol.messages.k10_find_coordinator import (
    FindCoordinatorRequest,
    FindCoordinatorResponse,
)
from kavka.protocol.messages.k18_api_versions import ApiVersionsRequest, ApiVersionsResponse
from kavka.protocol.messages.k19_create_topics import (
    CreatableTopic,
    CreateTopicsRequest,
    CreateTopicsResponse,
)
from kavka.protocol.messages.k20_delete_topics import DeleteTopicsRequest, DeleteTopicsResponse
from kavka.protocol.messages.k37_create_partitions import (
    CreatePartitionsRequest,
    CreatePartitionsResponse,
    CreatePartitionsTopic,
)
from tests.broker_process import BrokerProcess, running_broker, wait_for
from tests.process.test_life import produce
from tests.wire import WireClient

PER_IP = 200
CAP = 300
CONNECTIONS = 3_000


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[BrokerProcess]:
    with running_broker(tmp_path / "data", {"instance.flavour": "100"}) as process:
        yield process
    assert "Traceback" not in process.log()


def alive(client: WireClient) -> bool:
    try:
        client.ask(ApiVersionsRequest(), ApiVersionsResponse, 0)
    except OSError:
        return False
    return True


def new_topics(count: int, partitions: int, prefix: str = "t") -> list[CreatableTopic]:
    return [
        CreatableTopic(name=f"{prefix}{number}", num_partitions=partitions, replication_factor=1)
        for number in range(count)
    ]


def create(
    client: WireClient, topics: list[CreatableTopic], *, dry: bool = False
) -> list[tuple[int, str | None]]:
    request = CreateTopicsRequest(topics=topics, timeout_ms=60_000, validate_only=dry)
    answer = client.ask(request, CreateTopicsResponse, 4)
    return [(topic.error_code, topic.error_message) for topic in answer.topics]


def numbers_are_told(message: str | None, *, used: int, requested: int) -> bool:
    return message is not None and all(
        part in message
        for part in (
            f"{used} of the {CAP} partitions of flavour 100",
            f"{requested} more requested",
            "Insufficient partition balance",
        )
    )


def test_the_301st_partition_is_refused_on_every_path(broker: BrokerProcess) -> None:
    with WireClient(broker.port, timeout=120) as client:
        assert create(client, new_topics(100, 3)) == [(ErrorCode.NONE, None)] * 100
        for dry in (False, True):
            [(code, message)] = create(client, new_topics(1, 1, "more"), dry=dry)
            assert code == ErrorCode.POLICY_VIOLATION
            assert numbers_are_told(message, used=CAP, requested=1)
        grow = CreatePartitionsRequest(
            topics=[CreatePartitionsTopic(name="t0", count=5, assignments=None)], timeout_ms=60_000
        )
        [result] = client.ask(grow, CreatePartitionsResponse, 1).results
        assert result.error_code == ErrorCode.POLICY_VIOLATION
        assert numbers_are_told(result.error_message, used=CAP, requested=2)
        ask = MetadataRequest(topics=[MetadataRequestTopic(name="auto")])
        [topic] = client.ask(ask, MetadataResponse, 7).topics
        assert topic.error_code == ErrorCode.POLICY_VIOLATION
        # Topics that exist serve as before, and so do groups, whose topic does not count.
        assert produce(client, "t0", b"v") == 0
        find = FindCoordinatorRequest(key="g")
        assert client.ask(find, FindCoordinatorResponse, 1).error_code == ErrorCode.NONE
        # A deleted topic makes room at once.
        delete = DeleteTopicsRequest(topic_names=["t99"], timeout_ms=60_000)
        [gone] = client.ask(delete, DeleteTopicsResponse, 3).responses
        assert gone.error_code == ErrorCode.NONE
        [result] = client.ask(grow, CreatePartitionsResponse, 1).results
        assert result.error_code == ErrorCode.NONE
        assert create(client, new_topics(1, 1, "more")) == [(ErrorCode.NONE, None)]
        [topic] = client.ask(ask, MetadataResponse, 7).topics
        assert topic.error_code == ErrorCode.POLICY_VIOLATION
    assert "used=300 cap=300 requested=1" in broker.log()


def test_what_client_libraries_are_told(broker: BrokerProcess) -> None:
    from confluent_kafka import KafkaError, KafkaException
    from confluent_kafka.admin import AdminClient, NewTopic

    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    admin.create_topics([NewTopic("t", CAP, 1)])["t"].result(60)
    with pytest.raises(KafkaException) as refused:
        admin.create_topics([NewTopic("more", 3, 1)])["more"].result(60)
    error: KafkaError = refused.value.args[0]
    assert error.code() == KafkaError.POLICY_VIOLATION
    assert numbers_are_told(error.str(), used=CAP, requested=3)


def test_the_201st_connection_of_an_address_is_closed(broker: BrokerProcess) -> None:
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(WireClient(broker.port)) for _ in range(PER_IP)]
        assert all(map(alive, clients))
        for _ in range(50):
            with WireClient(broker.port) as one_more:
                assert not alive(one_more)
        with WireClient(broker.port, source="127.0.0.2") as other:
            assert alive(other)
        assert all(map(alive, clients))
        clients[0].socket.close()
        wait_for("room", lambda: alive(stack.enter_context(WireClient(broker.port))))
        wait_for("a sum", lambda: "refused further connections within a second" in broker.log())
    lines = [line for line in broker.log().splitlines() if "refus" in line]
    assert "the address has max.connections.per.ip=200 connections peer=127.0.0.1:" in lines[0]
    assert len(lines) < 20


def test_the_3001st_connection_is_closed(broker: BrokerProcess) -> None:
    addresses = [f"127.0.1.{number}" for number in range(1, CONNECTIONS // PER_IP + 1)]
    with contextlib.ExitStack() as stack:
        sockets = []
        for address in addresses:
            for _ in range(PER_IP):
                sock = socket.create_connection(
                    ("127.0.0.1", broker.port), timeout=60, source_address=(address, 0)
                )
                sockets.append(stack.enter_context(sock))
        first = WireClient.over(sockets[0])
        assert alive(first)
        assert alive(WireClient.over(sockets[-1]))
        with WireClient(broker.port) as one_more:
            assert not alive(one_more)
        assert alive(first)
        sockets[7].close()
        wait_for("room", lambda: alive(stack.enter_context(WireClient(broker.port))))
    assert "3000 connections of flavour 100, 3000, is used peer=127.0.0.1:" in broker.log()


def test_above_max_connections_a_client_waits(tmp_path: Path) -> None:
    settings = {"max.connections": "3"}
    with running_broker(tmp_path / "data", settings) as broker, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(WireClient(broker.port)) for _ in range(3)]
        assert all(map(alive, clients))
        waiting = stack.enter_context(WireClient(broker.port))
        correlation_id = waiting.send(ApiVersionsRequest(), 0)
        wait_for("a line in the log", lambda: "clients wait to be accepted" in broker.log())
        waiting.socket.setblocking(False)
        with pytest.raises(BlockingIOError):
            waiting.socket.recv(1)
        waiting.socket.settimeout(60)
        assert all(map(alive, clients))
        clients[0].socket.close()
        assert waiting.receive(ApiVersionsResponse, 0).error_code == ErrorCode.NONE
        assert correlation_id == 1
