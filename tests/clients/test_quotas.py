"""Quotas as clients meet them: how fast they get on, what they are told, who else notices."""

import itertools
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from kavka.protocol.errors import ErrorCode
from kavka.protocol.messages.k01_fetch import FetchRequest, FetchResponse
from kavka.protocol.messages.k18_api_versions import ApiVersionsRequest, ApiVersionsResponse
from kavka.protocol.messages.k48_describe_client_quotas import (
    DescribeClientQuotasRequest,
    DescribeClientQuotasResponse,
)
from kavka.protocol.messages.k49_alter_client_quotas import (
    AlterClientQuotasRequest,
    AlterClientQuotasResponse,
    EntityData,
    EntryData,
    OpData,
)
from kavka.protocol.records.batch import Record, build_batch
from tests.broker_process import BrokerProcess, running_broker
from tests.clients.test_confluent import create
from tests.clients.test_java_tools import CONFIGS, NEW, server
from tests.java import lines, run_tool
from tests.secured import ADMIN, log_in, sasl_address, settings
from tests.wire import WireClient, fetch_request

BURST = 0.5  # seconds, quota.burst.seconds
_NUMBERS = itertools.count(1)


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    """A broker whose clients are limited by the tests, each by a client id of its own."""
    with running_broker(tmp_path_factory.mktemp("quotas") / "data") as process:
        yield process


@pytest.fixture
def client_id() -> str:
    return f"client-{next(_NUMBERS)}"


def limit(broker: BrokerProcess, client_id: str, **values: float | None) -> None:
    """Set or remove quotas of a client id."""
    entry = EntryData(
        entity=[EntityData(entity_type="client-id", entity_name=client_id)],
        ops=[
            OpData(key=key, value=value or 0.0, remove=value is None)
            for key, value in values.items()
        ],
    )
    with WireClient(broker.port) as client:
        answer = client.ask(AlterClientQuotasRequest(entries=[entry]), AlterClientQuotasResponse, 1)
    assert [each.error_code for each in answer.entries] == [0], answer


def batch(size: int) -> bytes:
    return build_batch([Record(0, 1, None, b"x" * size, ())], base_offset=0)


def test_a_producer_gets_on_at_its_rate_and_another_is_unaffected(
    limited: BrokerProcess, topic: str, client_id: str
) -> None:
    rate, count, size = 200_000, 900, 1_000
    create(limited, topic)
    limit(limited, client_id, producer_byte_rate=rate)

    def produce(client: str) -> tuple[float, list[float]]:
        throttles: list[float] = []
        failed: list[object] = []
        producer = Producer(
            {
                "bootstrap.servers": limited.bootstrap,
                "client.id": client,
                "batch.size": 20_000,
                "linger.ms": 5,
                "throttle_cb": lambda event: throttles.append(event.throttle_time),
            }
        )
        began = time.monotonic()
        for _ in range(count):
            producer.produce(
                topic,
                b"x" * size,
                on_delivery=lambda error, _: failed.append(error) if error else None,
            )
        assert producer.flush(60) == 0
        assert not failed
        return time.monotonic() - began, throttles

    seconds, throttles = produce(client_id)
    # No faster than that; how much slower the machine decides as well. The last request waits
    # after its answer.
    assert seconds >= (count * size / rate - BURST) * 0.9
    assert throttles and max(throttles) < 2
    _, throttles = produce(f"beside-{client_id}")
    assert not throttles


def test_a_consumer_gets_on_at_its_rate_and_another_is_unaffected(
    limited: BrokerProcess, topic: str, client_id: str
) -> None:
    rate, count = 200_000, 60
    create(limited, topic)
    with WireClient(limited.port) as client:
        for _ in range(count):
            client.produce(topic, batch(15_000))
    limit(limited, client_id, consumer_byte_rate=rate)

    def consume(client: str) -> tuple[float, list[float]]:
        throttles: list[float] = []
        consumer = Consumer(
            {
                "bootstrap.servers": limited.bootstrap,
                "client.id": client,
                "group.id": client,
                "throttle_cb": lambda event: throttles.append(event.throttle_time),
            }
        )
        consumer.assign([TopicPartition(topic, 0, 0)])
        began, got = time.monotonic(), 0
        while got < count:
            message = consumer.poll(60)
            assert message is not None and message.error() is None
            got += 1
        seconds = time.monotonic() - began
        consumer.close()
        return seconds, throttles

    seconds, throttles = consume(client_id)
    # What is answered last is waited for after it.
    assert seconds >= (count * 15_000 / rate - 1 - BURST) * 0.9
    assert throttles and max(throttles) < 2
    _, throttles = consume(f"beside-{client_id}")
    assert not throttles


def test_a_producer_is_told_how_long_it_is_not_read(
    limited: BrokerProcess, topic: str, client_id: str
) -> None:
    rate = 10_000
    create(limited, topic)
    limit(limited, client_id, producer_byte_rate=rate)
    with WireClient(limited.port, client_id=client_id) as client:
        records = batch(11_000)
        began = time.monotonic()
        told = client.produce(topic, records).throttle_time_ms
        assert 1_000 * (len(records) / rate - BURST) < told < 1_000 * (len(records) / rate)
        answer = client.ask(ApiVersionsRequest(), ApiVersionsResponse, 0)
        assert time.monotonic() - began >= told / 1000
        assert answer.error_code == 0
    limit(limited, client_id, producer_byte_rate=None)
    with WireClient(limited.port, client_id=client_id) as client:
        assert client.produce(topic, batch(11_000)).throttle_time_ms == 0


def test_a_fetch_over_the_quota_changes_nothing(
    limited: BrokerProcess, topic: str, client_id: str
) -> None:
    """An answer without records, at once, and a session that has missed nothing."""
    create(limited, topic)
    with WireClient(limited.port, client_id=client_id) as client:
        for _ in range(4):
            client.produce(topic, batch(700))
        wanted = fetch_request(topic, 0, max_bytes=900)
        wanted.session_epoch = 0
        first = client.ask(wanted, FetchResponse, 11)
        assert first.session_id and first.responses and not first.throttle_time_ms
        limit(limited, client_id, consumer_byte_rate=2_400)
        epochs = itertools.count(1)

        def go_on(offset: int) -> FetchResponse:
            again = fetch_request(topic, offset, max_bytes=900)
            again.session_id, again.session_epoch = first.session_id, next(epochs)
            return client.ask(again, FetchResponse, 11)

        passed = go_on(1)
        assert passed.responses and not passed.throttle_time_ms
        empty = go_on(2)
        assert empty.throttle_time_ms > 0
        assert (empty.error_code, empty.session_id, empty.responses) == (0, first.session_id, [])
        later = go_on(2)
        assert later.responses[0].partitions[0].records
        # One that asks for a session gets none.
        limit(limited, client_id, consumer_byte_rate=100)
        refused = client.ask(wanted, FetchResponse, 11)
        assert refused.throttle_time_ms > 0
        assert (refused.session_id, refused.responses) == (0, [])


def test_records_larger_than_the_quota_are_read_all_the_same(
    limited: BrokerProcess, topic: str, client_id: str
) -> None:
    create(limited, topic)
    limit(limited, client_id, consumer_byte_rate=20_000)
    with WireClient(limited.port, client_id=client_id) as client:
        for _ in range(2):
            client.produce(topic, batch(30_000))
        got = 0
        while got < 2:
            answer = client.ask(fetch_request(topic, got), FetchResponse, 11)
            got += bool(answer.responses and answer.responses[0].partitions[0].records)


def test_a_client_without_sessions_or_throttle_times_is_limited_too(
    limited: BrokerProcess, topic: str, client_id: str
) -> None:
    create(limited, topic)
    limit(limited, client_id, producer_byte_rate=10_000)
    with WireClient(limited.port, client_id=client_id) as client:
        began = time.monotonic()
        client.produce(topic, batch(10_000), acks=1, version=3)
        client.ask(FetchRequest(), FetchResponse, 4)
        assert time.monotonic() - began >= 0.4


def test_the_instance_has_a_bandwidth(tmp_path: Path) -> None:
    with running_broker(tmp_path / "data", {"instance.bandwidth.bytes": "100000"}) as broker:
        create(broker, "t")
        with WireClient(broker.port) as one, WireClient(broker.port) as other:
            assert one.produce("t", batch(20_000)).throttle_time_ms == 0
            told = one.produce("t", batch(50_000)).throttle_time_ms
            assert 300 < told < 700
            # Small ones are let through beside it, or nearly so.
            assert other.produce("t", batch(100)).throttle_time_ms < 100
            other.ask(fetch_request("t", 0, max_bytes=10_000), FetchResponse, 11)


@pytest.mark.java
@pytest.mark.parametrize(
    ("entity", "named", "shown"),
    [
        (
            ("--entity-type", "users", "--entity-name", "alice"),
            "producer_byte_rate=1024,request_percentage=50.5",
            "Quota configs for user-principal 'alice' are",
        ),
        (
            ("--entity-type", "clients", "--entity-default"),
            "consumer_byte_rate=2048",
            "Quota configs for the default client-id are",
        ),
        (
            (
                *("--entity-type", "users", "--entity-name", "bob"),
                *("--entity-type", "clients", "--entity-name", "app"),
            ),
            "controller_mutation_rate=5.0",
            "Quota configs for user-principal 'bob', client-id 'app' are",
        ),
        (
            ("--entity-type", "ips", "--entity-name", "10.1.2.3"),
            "connection_creation_rate=7",
            "Quota configs for ip '10.1.2.3' are",
        ),
    ],
)
def test_configs_tool_sets_shows_and_removes_quotas(
    limited: BrokerProcess, entity: tuple[str, ...], named: str, shown: str
) -> None:
    done = run_tool(NEW, CONFIGS, *server(limited), "--alter", *entity, "--add-config", named)
    assert "Completed updating" in done.stdout
    described = run_tool(NEW, CONFIGS, *server(limited), "--describe", *entity).stdout
    assert shown in described
    for quota in named.split(","):
        key, _, value = quota.partition("=")
        assert f"{key}={float(value)}" in described
    keys = ",".join(quota.partition("=")[0] for quota in named.split(","))
    run_tool(NEW, CONFIGS, *server(limited), "--alter", *entity, "--delete-config", keys)
    described = run_tool(NEW, CONFIGS, *server(limited), "--describe", *entity).stdout
    assert shown not in described


def test_an_address_makes_so_many_connections_a_second(tmp_path: Path) -> None:
    """Those above it are closed after a while, without an answer; others stay as they are."""
    with running_broker(tmp_path / "data", {"quota.window.num": "2"}) as broker:
        with WireClient(broker.port) as client:
            entry = EntryData(
                entity=[EntityData(entity_type="ip", entity_name="127.0.0.1")],
                ops=[OpData(key="connection_creation_rate", value=5.0)],
            )
            request = AlterClientQuotasRequest(entries=[entry])
            answer = client.ask(request, AlterClientQuotasResponse, 1)
            assert answer.entries[0].error_code == 0
            accepted = refused = 0
            began = time.monotonic()
            for _ in range(30):
                with WireClient(broker.port) as other:
                    try:
                        other.ask(ApiVersionsRequest(), ApiVersionsResponse, 0)
                        accepted += 1
                    except ConnectionError:
                        refused += 1
            seconds = time.monotonic() - began
            assert refused and accepted <= 5 * (seconds + 2)
            assert client.ask(ApiVersionsRequest(), ApiVersionsResponse, 0).api_keys
        assert "the address makes connections too fast" in broker.log()


def test_a_user_is_limited_by_the_name_of_the_login(tmp_path: Path) -> None:
    with running_broker(tmp_path / "data", settings(["alice", "bob"])) as broker:
        port = int(sasl_address(broker).rpartition(":")[2])
        with log_in(WireClient(port), ADMIN) as admin:
            entry = EntryData(
                entity=[EntityData(entity_type="user", entity_name="alice")],
                ops=[OpData(key="producer_byte_rate", value=1_000.0)],
            )
            request = AlterClientQuotasRequest(entries=[entry])
            assert not admin.ask(request, AlterClientQuotasResponse, 1).entries[0].error_code
        told = {}
        for user in ("alice", "bob"):
            with log_in(WireClient(port, client_id="same"), user) as client:
                told[user] = client.produce("nowhere", batch(1_500), acks=1).throttle_time_ms
                refused = client.ask(request, AlterClientQuotasResponse, 1).entries[0]
                assert refused.error_code == ErrorCode.CLUSTER_AUTHORIZATION_FAILED
                asked = client.ask(DescribeClientQuotasRequest(), DescribeClientQuotasResponse, 1)
                assert asked.error_code == ErrorCode.CLUSTER_AUTHORIZATION_FAILED
        assert told["alice"] > 1_000 and told["bob"] == 0
        audit = [line for line in broker.log().splitlines() if "AlterClientQuotas" in line]
        assert "AlterClientQuotas done resource=ClientQuota:user=alice" in audit[0]
        assert all("denied" in line for line in audit[1:]) and len(audit) == 3


def test_who_keeps_the_broker_busy_has_to_wait(
    limited: BrokerProcess, topic: str, client_id: str
) -> None:
    create(limited, topic)
    with WireClient(limited.port, client_id=client_id) as client:
        assert client.ask(ApiVersionsRequest(), ApiVersionsResponse, 2).throttle_time_ms == 0
        limit(limited, client_id, request_percentage=0.00001)
        # A microsecond in ten seconds: the first is too much already.
        told = [
            client.ask(ApiVersionsRequest(), ApiVersionsResponse, 2).throttle_time_ms
            for _ in range(3)
        ]
        assert 0 < max(told) <= 1_000
    with WireClient(limited.port, client_id=f"beside-{client_id}") as client:
        assert client.ask(ApiVersionsRequest(), ApiVersionsResponse, 2).throttle_time_ms == 0


@pytest.mark.java
@pytest.mark.parametrize("release", ["4.3", "2.3"])
def test_java_clients_get_on_at_their_rates(
    limited: BrokerProcess, topic: str, client_id: str, release: str
) -> None:
    """By their own measure; only that they are not faster does not depend on the machine."""
    count, rate = 4_000, 500
    create(limited, topic)
    limit(limited, client_id, producer_byte_rate=rate * 1_000)
    # The consumers' own names: one tool's cannot be changed.
    for name in ("perf-consumer-client", "consumer-1"):
        limit(limited, name, consumer_byte_rate=rate * 1_000)
    sent = run_tool(
        *(release, "org.apache.kafka.tools.ProducerPerformance", "--topic", topic),
        *("--num-records", str(count), "--record-size", "1000", "--throughput", "-1"),
        *("--producer-props", f"bootstrap.servers={limited.bootstrap}", f"client.id={client_id}"),
    )
    measured = re.search(rf"{count} records sent, ([\d.]+) records/sec", sent.stdout)
    assert measured and float(measured[1]) <= 1.15 * rate
    new = release == NEW
    got = run_tool(
        *(release, f"{'org.apache.kafka.tools' if new else 'kafka.tools'}.ConsumerPerformance"),
        *("--bootstrap-server" if new else "--broker-list", limited.bootstrap),
        *("--topic", topic, "--messages", str(count), "--group", client_id),
        alone=True,  # consumers get numbers
    )
    names, values = (line.split(", ") for line in lines(got.stdout)[-2:])
    consumed = dict(zip(names, values, strict=True))
    assert int(consumed["data.consumed.in.nMsg"]) >= count
    assert float(consumed["fetch.nMsg.sec"]) <= 1.15 * rate
