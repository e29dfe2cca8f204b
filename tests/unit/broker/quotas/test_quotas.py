"""The way of requests under quotas: answers at once, with the time to wait; then silence."""

import struct
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from kavka.broker import dispatch
from kavka.broker.context import Broker
from kavka.broker.dispatch import Dispatcher, offered_versions
from kavka.broker.fetch.reader import FetchOptions
from kavka.broker.quotas.entities import ClientEntity
from kavka.broker.quotas.instance import InstanceBandwidth
from kavka.broker.quotas.memory import Window
from kavka.broker.quotas.quotas import Quotas
from kavka.broker.request import Pending, Raw, Request
from kavka.config.broker import BrokerConfig
from kavka.config.profiles import PUBLIC
from kavka.protocol import codec, headers
from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.protocol.messages.k00_produce import ProduceRequest, ProduceResponse
from kavka.protocol.messages.k03_metadata import MetadataRequest, MetadataResponse
from kavka.protocol.messages.k12_heartbeat import HeartbeatRequest, HeartbeatResponse
from kavka.protocol.messages.k27_write_txn_markers import (
    WriteTxnMarkersRequest,
    WriteTxnMarkersResponse,
)
from kavka.storage.clock import ManualClock

WINDOW = Window(11, 1.0)
EVERYBODY = ClientEntity(client_id="<default>")
SLOW = ClientEntity(client_id="slow")


class Connection:
    """As much of a connection as dispatch and quotas touch."""

    def __init__(self, listener: str = "PLAINTEXT", principal: str = "User:ANONYMOUS") -> None:
        self.client_id = ""
        self.client_id_bytes = b""
        self.principal = principal
        self.endpoint = SimpleNamespace(name=listener)
        self.mutes: list[float] = []

    def set_client_id(self, raw: bytes) -> None:
        self.client_id_bytes = raw
        self.client_id = raw.decode()

    def mute(self, seconds: float) -> None:
        self.mutes.append(seconds)


class World:
    """A dispatcher with quotas whose only handler is what the test gives."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, handle: Callable[..., Any], burst: float | None = 0.5
    ) -> None:
        module = SimpleNamespace(handle=handle)
        monkeypatch.setattr(dispatch, "import_module", lambda name: module)
        self.clock = ManualClock()
        self.clock.advance(1_000)
        self.broker = Broker(BrokerConfig(), self.clock)
        self.broker.offered_versions = offered_versions("latest")
        self.quotas = Quotas(
            self.clock, WINDOW, burst=burst, is_replica=lambda broker_id: broker_id == 2
        )
        self.broker.quotas = self.quotas
        self.dispatcher = Dispatcher(self.broker)

    def serve(
        self, connection: Connection, message: Any, version: int, client_id: str = "slow"
    ) -> Any:
        frame = headers.encode_request(message.API_KEY, version, 7, client_id, message)[4:]
        self.size = len(frame)
        return self.dispatcher.serve(connection, memoryview(bytearray(frame)))  # type: ignore[arg-type]

    def ask(
        self,
        connection: Connection,
        message: Any,
        answer: Any,
        version: int,
        client_id: str = "slow",
    ) -> Any:
        frame = self.serve(connection, message, version, client_id)
        assert isinstance(frame, bytes)
        return decoded(frame, answer, version)


def decoded(frame: bytes, answer: Any, version: int) -> Any:
    assert struct.unpack(">i", frame[:4])[0] == len(frame) - 4
    _, at = headers.parse_response_header(answer.API_KEY, version, frame, 4)
    return codec.decode(answer, frame, version, at)


def produced(broker: Broker, request: Request, body: ProduceRequest) -> ProduceResponse | None:
    return ProduceResponse() if body.acks else None


def produce(size: int, acks: int = 1) -> ProduceRequest:
    return ProduceRequest(transactional_id="x" * size, acks=acks)


def test_a_producer_within_its_quota_hears_nothing_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, produced)
    world.quotas.set(SLOW, "producer_byte_rate", 1_000.0)
    connection = Connection()
    assert world.ask(connection, produce(300), ProduceResponse, 7).throttle_time_ms == 0
    assert not connection.mutes


def test_a_producer_over_its_quota_is_answered_then_muted(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, produced)
    world.quotas.set(SLOW, "producer_byte_rate", 1_000.0)
    connection = Connection()
    response = world.ask(connection, produce(3_000), ProduceResponse, 7)
    expected = world.size / 1_000 - 0.5  # ahead of time, less the burst
    assert response.throttle_time_ms == round(expected * 1000)
    assert connection.mutes == [response.throttle_time_ms / 1000]


def test_the_throttle_time_is_kafkas_where_the_window_decides(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(monkeypatch, produced, burst=None)
    world.quotas.set(SLOW, "producer_byte_rate", 1_000.0)
    connection = Connection()
    assert world.ask(connection, produce(9_000), ProduceResponse, 7).throttle_time_ms == 0
    first = world.size
    world.clock.advance(0.25)
    response = world.ask(connection, produce(5_000), ProduceResponse, 7)
    window = 10.25
    rate = (first + world.size) / window
    assert response.throttle_time_ms == round((rate - 1_000) / 1_000 * window * 1_000)


def test_connections_under_one_key_share_and_others_are_unaffected(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(monkeypatch, produced)
    world.quotas.set(SLOW, "producer_byte_rate", 1_000.0)
    first, second, other = Connection(), Connection(), Connection()
    world.ask(first, produce(3_000), ProduceResponse, 7)
    assert world.ask(second, produce(10), ProduceResponse, 7).throttle_time_ms > 2_000
    fast = world.ask(other, produce(30_000), ProduceResponse, 7, "fast")
    assert fast.throttle_time_ms == 0 and not other.mutes


def test_without_acks_the_producer_is_muted_without_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, produced)
    world.quotas.set(SLOW, "producer_byte_rate", 1_000.0)
    connection = Connection()
    assert world.serve(connection, produce(3_000, acks=0), 7) is None
    assert len(connection.mutes) == 1 and connection.mutes[0] > 2


def test_a_parked_answer_is_counted_when_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    pending = Pending()
    world = World(monkeypatch, lambda broker, request, body: pending)
    world.quotas.set(SLOW, "producer_byte_rate", 1_000.0)
    connection = Connection()
    assert world.serve(connection, produce(3_000), 7) is pending
    assert not connection.mutes
    pending.complete(ProduceResponse())
    response = decoded(world.dispatcher.encode(pending), ProduceResponse, 7)  # type: ignore[arg-type]
    assert response.throttle_time_ms > 2_000 and connection.mutes


def test_requests_from_before_the_first_quota_are_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    pending = Pending()
    world = World(monkeypatch, lambda broker, request, body: pending)
    world.broker.quotas = None
    world.serve(Connection(), produce(3_000), 7)
    world.broker.quotas = world.quotas
    world.quotas.set(SLOW, "producer_byte_rate", 1.0)
    pending.complete(ProduceResponse())
    response = decoded(world.dispatcher.encode(pending), ProduceResponse, 7)  # type: ignore[arg-type]
    assert response.throttle_time_ms == 0


# -- request_percentage ---------------------------------------------------------------------------


def test_time_is_measured_around_the_handler(monkeypatch: pytest.MonkeyPatch) -> None:
    def beat(broker: Broker, request: Request, body: HeartbeatRequest) -> HeartbeatResponse:
        world.clock.advance(0.2)
        return HeartbeatResponse()

    world = World(monkeypatch, beat)
    world.quotas.set(SLOW, "request_percentage", 5.0)  # half a second of ten
    connection = Connection()
    times = [
        world.ask(connection, HeartbeatRequest(), HeartbeatResponse, 2).throttle_time_ms
        for _ in range(3)
    ]
    assert times[:2] == [0, 0]
    # 60 % seconds over 10 s; (6 - 5) / 5 * 10 s would be two seconds: one sample at most.
    assert times[2] == 1_000
    assert connection.mutes == [1.0]
    other = world.ask(Connection(), HeartbeatRequest(), HeartbeatResponse, 2, "fast")
    assert other.throttle_time_ms == 0


def test_time_of_a_parked_request_counts_until_it_is_parked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pendings: list[Pending] = []

    def park(broker: Broker, request: Request, body: HeartbeatRequest) -> Pending:
        world.clock.advance(0.2)
        pendings.append(Pending())
        return pendings[-1]

    world = World(monkeypatch, park)
    world.quotas.set(SLOW, "request_percentage", 5.0)
    connection = Connection()
    for _ in range(2):
        world.serve(connection, HeartbeatRequest(), 2)
    world.clock.advance(5)  # waiting takes no time of the broker's
    for pending in pendings:
        pending.complete(HeartbeatResponse())
        frame = world.dispatcher.encode(pending)
        assert decoded(frame, HeartbeatResponse, 2).throttle_time_ms == 0  # type: ignore[arg-type]


def test_what_brokers_do_is_exempt(monkeypatch: pytest.MonkeyPatch) -> None:
    def mark(broker: Broker, request: Request, body: Any) -> WriteTxnMarkersResponse:
        world.clock.advance(5)
        return WriteTxnMarkersResponse()

    world = World(monkeypatch, mark)
    world.quotas.set(SLOW, "request_percentage", 1.0)
    world.quotas.instance = InstanceBandwidth(lambda: (1.0, None), ())
    connection = Connection()
    world.ask(connection, WriteTxnMarkersRequest(), WriteTxnMarkersResponse, 1)
    assert not connection.mutes


# -- Fetch ----------------------------------------------------------------------------------------


def fetching(world: World, client_id: str = "slow") -> Request:
    connection: Any = Connection()
    connection.client_id = client_id
    request = Request(1, 11, 7, client_id, memoryview(b""), connection)
    world.quotas.arrived(request, 100)
    return request


def options(replica_id: int = -1) -> FetchOptions:
    return FetchOptions(11, replica_id, 0, 100_000, 1_000_000)


def test_a_fetch_asks_for_no_more_than_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    for burst, most in ((0.5, 2_000), (None, 20_000)):
        world = World(monkeypatch, produced, burst=burst)
        world.quotas.set(SLOW, "consumer_byte_rate", 2_000.0)
        asked = options()
        world.quotas.prepare_fetch(fetching(world), asked)
        assert (asked.max_bytes, asked.min_bytes) == (most, most)
        untouched = options()
        world.quotas.prepare_fetch(fetching(world, "fast"), untouched)
        assert untouched.max_bytes == 1_000_000


def test_a_fetch_over_the_quota_is_to_be_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, produced)
    world.quotas.set(SLOW, "consumer_byte_rate", 1_000.0)
    request, asked = fetching(world), options()
    world.quotas.prepare_fetch(request, asked)
    assert asked.charge is not None
    assert asked.charge([b"x" * 400])
    assert not asked.charge([b"x" * 1_000])
    response = world.quotas.answered(request, Raw([bytes(20)]))
    assert isinstance(response, Raw)
    (told,) = struct.unpack(">i", bytes(response.parts[0])[:4])  # type: ignore[arg-type]
    assert told == 400  # until the first answer has lasted long enough
    assert request.connection.mutes == [0.4]  # type: ignore[attr-defined]
    world.clock.advance(0.4)
    later, asked = fetching(world), options()
    world.quotas.prepare_fetch(later, asked)
    assert asked.charge is not None and asked.charge([b"x" * 1_000])


def test_a_fetch_over_the_request_quota_is_to_be_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    def beat(broker: Broker, request: Request, body: HeartbeatRequest) -> HeartbeatResponse:
        world.clock.advance(2)
        return HeartbeatResponse()

    world = World(monkeypatch, beat)
    world.quotas.set(SLOW, "request_percentage", 10.0)
    world.ask(Connection(), HeartbeatRequest(), HeartbeatResponse, 2)
    request, asked = fetching(world), options()
    world.quotas.prepare_fetch(request, asked)
    assert asked.charge is not None and not asked.charge([b"x"])
    assert request.throttle == 1.0


def test_a_replica_fetches_whatever_clients_do(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, produced)
    world.quotas.set(EVERYBODY, "consumer_byte_rate", 1.0)
    world.quotas.set(EVERYBODY, "request_percentage", 0.001)
    world.quotas.instance = InstanceBandwidth(lambda: (1.0, None), ())
    claimed = options(replica_id=3)
    world.quotas.prepare_fetch(fetching(world), claimed)
    assert claimed.charge is not None
    request, asked = fetching(world), options(replica_id=2)
    world.quotas.prepare_fetch(request, asked)
    assert asked.charge is None and asked.max_bytes == 1_000_000
    world.clock.advance(3)
    raw = Raw([bytes(20), bytes(1_000_000)])
    assert world.quotas.answered(request, raw) is raw
    assert not request.connection.mutes  # type: ignore[attr-defined]


# -- partitions -----------------------------------------------------------------------------------


def test_partitions_by_versions_that_know_of_the_quota_and_by_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(monkeypatch, produced)
    world.quotas.set(SLOW, "controller_mutation_rate", 1.0)
    request = fetching(world)
    strict = world.quotas.mutations(request, strict=True)
    assert strict is not None
    strict(30)  # eleven are there: it may be overdrawn once
    assert request.throttle == 0
    with pytest.raises(KafkaError) as caught:
        strict(1)
    assert caught.value.code is ErrorCode.THROTTLING_QUOTA_EXCEEDED
    assert request.throttle == pytest.approx(19)
    old = fetching(world)
    permissive = world.quotas.mutations(old, strict=False)
    assert permissive is not None
    permissive(5)
    assert old.throttle == pytest.approx(24)
    assert world.quotas.mutations(fetching(world, "fast"), strict=True) is None


# -- the instance ---------------------------------------------------------------------------------


def test_both_directions_have_the_bandwidth_each(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(broker: Broker, request: Request, body: Any) -> bytes:
        return codec.encode(MetadataResponse(cluster_id="c" * 10_000), request.version)

    world = World(monkeypatch, answer)
    world.quotas.instance = InstanceBandwidth(lambda: (10_000.0, None), ())
    connection = Connection()
    response = world.ask(connection, MetadataRequest(), MetadataResponse, 8)
    assert response.throttle_time_ms == pytest.approx(750, abs=10)  # less a quarter of a second
    assert connection.mutes == [response.throttle_time_ms / 1000]


def test_the_public_has_a_bandwidth_of_its_own() -> None:
    instance = InstanceBandwidth(lambda: (100_000.0, 1_000.0), PUBLIC)
    inside: Any = Connection("PLAINTEXT")
    outside: Any = Connection("PUBLIC_PLAIN")
    assert instance.take(inside, 20_000, 0, 0.0) == 0
    assert instance.take(outside, 3_250, 0, 0.0) == pytest.approx(3)
    assert instance.take(inside, 1_000, 0, 0.0) == 0
    assert instance.take(outside, 0, 250, 10.0) == 0  # the other direction


def test_the_share_follows_the_brokers() -> None:
    shares = [1_000.0, 500.0, None]
    instance = InstanceBandwidth(lambda: (shares[0], None), ())
    connection: Any = Connection()
    assert instance.take(connection, 1_250, 0, 0.0) == pytest.approx(1)
    shares.pop(0)
    assert instance.take(connection, 500, 0, 100.0) == pytest.approx(0.75)
    shares.pop(0)
    assert instance.take(connection, 10**9, 0, 200.0) == 0
