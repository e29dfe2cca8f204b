"""What clients cannot do to a broker: make it grow, make it wait, or make it fall silent.

Each rule that is broken ends in an error or a closed connection, with one line in the log that
names the peer and the reason; another client notices nothing.
"""

import re
import select
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from kavka.config.limits import REQUEST_BYTES_MAX
from kavka.protocol import headers
from kavka.protocol.errors import ErrorCode
from kavka.protocol.messages.k03_metadata import MetadataRequest, MetadataRequestTopic
from kavka.protocol.messages.k18_api_versions import ApiVersionsRequest, ApiVersionsResponse
from kavka.protocol.records import compression
from kavka.protocol.records.batch import Record, assemble_batch, build_batch
from tests.broker_process import BrokerProcess, running_broker, wait_for
from tests.memory import KIB, MIB, peak_bytes, resident_bytes
from tests.process.test_life import create, produce
from tests.wire import WireClient, fetch_request

MAX_FRAME = 104_857_600
SETTINGS = {"max.connections.per.ip": "1200", "connections.max.idle.ms": "60000"}


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    with running_broker(tmp_path_factory.mktemp("bounds") / "data", SETTINGS) as process:
        yield process
    assert "ERROR" not in process.log() and "Traceback" not in process.log()


@pytest.fixture
def growth(broker: BrokerProcess) -> Callable[[], int]:
    """By how many bytes the broker has at most grown since the test began."""
    # The peak of /proc is over the whole life, so it is forgotten first.
    Path(f"/proc/{broker.pid}/clear_refs").write_text("5")
    before = resident_bytes(broker.pid)
    return lambda: peak_bytes(broker.pid) - before


def closing_line(broker: BrokerProcess, peer: tuple[str, int]) -> str:
    """The one line that says why the connection of ``peer`` was closed."""
    mark = re.compile(rf"WARN .*closing connection: (.*) peer={peer[0]}:{peer[1]} ")
    lines = wait_for("a line in the log", lambda: mark.findall(broker.log()))
    assert len(lines) == 1
    line: str = lines[0]
    return line


def refused(broker: BrokerProcess, *data: bytes) -> str:
    """Send what is no request: the connection is closed; gives the reason from the log."""
    with socket.create_connection(("127.0.0.1", broker.port), timeout=60) as connection:
        try:
            for piece in data:
                connection.sendall(piece)
            assert connection.recv(1) == b""
        except (BrokenPipeError, ConnectionResetError):
            pass  # closed while we were sending
        return closing_line(broker, connection.getsockname())


def request_head(key: int, version: int, size: int) -> bytes:
    """The size and header of a request whose body follows."""
    return struct.pack(">ihhih", size + 10, key, version, 1, -1)


# -- frames ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (struct.pack(">i", MAX_FRAME + 1), "exceeds socket.request.max.bytes=104857600"),
        (struct.pack(">i", 2**31 - 1), "exceeds socket.request.max.bytes"),
        (struct.pack(">i", -1), "a request of -1 bytes is too small"),
        (struct.pack(">i", 7) + bytes(7), "a request of 7 bytes is too small"),
        (b"GET / HTTP/1.1\r\n\r\n", "the peer speaks HTTP"),
        (bytes.fromhex("16030100c8010000c40303"), "TLS handshake"),
        (request_head(999, 0, 0), "unknown API key 999"),
        (request_head(52, 0, 0), "unknown API key 52"),
        (request_head(3, 99, 0), "Metadata version 99 is not supported, 0 to 12 are"),
        (request_head(3, 0, 2) + b"\0\0", "MetadataRequest v0 ends too early"),
        (request_head(3, 0, 4) + b"\x7f\xff\xff\xff", "more elements than the frame can hold"),
        (request_head(3, 9, 6) + b"\0\xff\xff\xff\xff\x0f", "more elements than the frame can"),
        (request_head(0, 3, 4) + b"\xff\xff\0\1", "ProduceRequest v3 ends too early"),
    ],
)
def test_what_is_no_request_is_refused_with_a_reason(
    broker: BrokerProcess, data: bytes, reason: str
) -> None:
    assert reason in refused(broker, data)


def test_large_requests_but_produce_are_not_even_decoded(
    broker: BrokerProcess, growth: Callable[[], int]
) -> None:
    names = b"\0\1t"
    count = REQUEST_BYTES_MAX // len(names)
    body = struct.pack(">i", count) + names * count
    reason = refused(broker, request_head(3, 0, len(body)), body)
    assert reason == f"a Metadata request of {len(body) + 10} bytes exceeds {REQUEST_BYTES_MAX}"
    assert growth() < 48 * MIB


def test_a_hundred_megabytes_of_tiny_elements_are_not_built(
    broker: BrokerProcess, growth: Callable[[], int]
) -> None:
    """Twelve million partitions without records would become gigabytes of objects."""
    count = (MAX_FRAME - 40) // 8
    head = struct.pack(">hii", 1, 0, 1) + struct.pack(">h", 1) + b"t" + struct.pack(">i", count)
    pieces = [bytes(8 * 100_000)] * (count // 100_000) + [bytes(8 * (count % 100_000))]
    size = len(head) + sum(map(len, pieces))
    assert "more elements than one message may" in refused(
        broker, request_head(0, 0, size), head, *pieces
    )
    assert growth() < 160 * MIB


def test_many_elements_of_a_lawful_request_cost_little(
    broker: BrokerProcess, growth: Callable[[], int]
) -> None:
    topics = [MetadataRequestTopic(name=f"t{i}") for i in range(100_000)]
    with WireClient(broker.port) as client:
        client.send(MetadataRequest(topics=topics, allow_auto_topic_creation=False), 9)
        assert len(client.receive_frame()) > MIB
    assert growth() < 160 * MIB


# -- connections ----------------------------------------------------------------------------


def test_idle_connections_cost_less_than_10_kib_each(broker: BrokerProcess) -> None:
    count = 1000
    with ExitStack() as stack:

        def connect() -> WireClient:
            client = stack.enter_context(WireClient(broker.port))
            client.ask(ApiVersionsRequest(), ApiVersionsResponse, 3)
            return client

        connect()
        before = resident_bytes(broker.pid)
        clients = [connect() for _ in range(count)]
        assert (resident_bytes(broker.pid) - before) / count < 10 * KIB
        clients[0].ask(ApiVersionsRequest(), ApiVersionsResponse, 3)


def test_who_announces_much_and_sends_little_is_in_nobodys_way(
    broker: BrokerProcess, growth: Callable[[], int]
) -> None:
    large = build_batch([Record(0, 0, None, bytes(8 * MIB))], base_offset=0)
    with ExitStack() as stack, WireClient(broker.port) as good:
        create(good, "large-batches")
        for _ in range(200):
            liar = stack.enter_context(WireClient(broker.port))
            liar.socket.sendall(struct.pack(">i", MAX_FRAME) + bytes(1000))
        for offset in range(3):
            answer = good.produce("large-batches", large).responses[0].partition_responses[0]
            assert (answer.error_code, answer.base_offset) == (ErrorCode.NONE, offset)
    assert growth() < 100 * MIB


def test_connections_of_one_address_are_counted(tmp_path: Path) -> None:
    settings = {"max.connections.per.ip": "3"}
    with running_broker(tmp_path / "data", settings) as broker, ExitStack() as stack:
        clients = [stack.enter_context(WireClient(broker.port)) for _ in range(3)]
        for client in clients:
            client.ask(ApiVersionsRequest(), ApiVersionsResponse, 0)
        with WireClient(broker.port) as one_more:
            assert one_more.receive_frame() == b""
            port = one_more.socket.getsockname()[1]
        line = f"the address has max.connections.per.ip=3 connections peer=127.0.0.1:{port} "
        wait_for("the line in the log", lambda: line in broker.log())
        clients[0].socket.close()

        def admitted() -> bool:
            with WireClient(broker.port) as again:
                again.send(ApiVersionsRequest(), 0)
                try:
                    return again.receive_frame() != b""
                except ConnectionResetError:
                    return False

        wait_for("a place for another connection", admitted)


def test_a_half_open_connection_is_closed_when_it_has_been_idle(tmp_path: Path) -> None:
    with running_broker(tmp_path / "data", {"connections.max.idle.ms": "300"}) as broker:
        with socket.create_connection(("127.0.0.1", broker.port), timeout=30) as silent:
            silent.sendall(struct.pack(">i", 1000) + bytes(10))
            assert silent.recv(1) == b""
            port = silent.getsockname()[1]
        assert re.search(rf"idle for longer than .* peer=127\.0\.0\.1:{port} ", broker.log())


# -- answers --------------------------------------------------------------------------------


def test_who_never_reads_does_not_make_the_broker_grow(
    broker: BrokerProcess, growth: Callable[[], int]
) -> None:
    """Record data waits on the disk, other answers stop the reading of requests."""
    with WireClient(broker.port) as writer, WireClient(broker.port) as other:
        create(writer, "big")
        for _ in range(8):
            produce(writer, "big", bytes(5 * MIB))
        with WireClient(broker.port) as deaf, WireClient(broker.port) as deafer:
            for _ in range(500):
                deaf.send(fetch_request("big", 0), 11)
            frame = headers.encode_request(18, 0, 1, "deaf", ApiVersionsRequest())
            taken = flood(deafer.socket, frame * 1000)
            assert taken < 64 * MIB, "requests are not read for ever"
            fetched = other.fetch("big", 5).responses[0].partitions[0]
            assert fetched.records is not None
            assert len(fetched.records) > 5 * MIB
    assert growth() < 100 * MIB


def flood(connection: socket.socket, data: bytes) -> int:
    """Send ``data`` again and again until the other side has long taken no more; bytes taken."""
    connection.setblocking(False)
    taken = 0
    rest = memoryview(data)
    while select.select([], [connection], [], 1.0)[1]:
        sent = connection.send(rest)
        taken += sent
        rest = rest[sent:] or memoryview(data)
    return taken


# -- records --------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", [compression.GZIP, compression.LZ4, compression.ZSTD])
@pytest.mark.parametrize(
    "configs",
    [{"cleanup_policy": "compact"}, {"compression_type": "snappy"}],
    ids=["compacted", "recompressed"],
)
def test_a_decompression_bomb_is_an_error(
    broker: BrokerProcess, growth: Callable[[], int], codec: int, configs: dict[str, str]
) -> None:
    bomb = batch_of(compression.compress(codec, bytes(300 * MIB)), codec, 1)
    topic = f"bombed-{'-'.join(configs)}-{codec}"
    with WireClient(broker.port) as client:
        create(client, topic, **configs)
        answer = client.produce(topic, bomb).responses[0].partition_responses[0]
        assert (answer.error_code, answer.base_offset) == (ErrorCode.CORRUPT_MESSAGE, -1)
        if configs != {"cleanup_policy": "compact"}:
            assert produce(client, topic, b"and the connection lives") == 0
    assert growth() < 400 * MIB


def test_a_batch_of_too_many_records_to_look_at_is_an_error(broker: BrokerProcess) -> None:
    count = 1_000_001
    record = bytes([12, 0, 0, 0, 0, 1, 0])
    bomb = batch_of(compression.compress(compression.ZSTD, record * count), 4, count)
    assert len(bomb) < 10 * KIB
    with WireClient(broker.port) as client:
        create(client, "many", cleanup_policy="compact")
        answer = client.produce("many", bomb).responses[0].partition_responses[0]
        assert answer.error_code == ErrorCode.MESSAGE_TOO_LARGE


def batch_of(payload: bytes, codec: int, count: int) -> bytes:
    return assemble_batch(
        payload,
        base_offset=0,
        attributes=codec,
        last_offset_delta=count - 1,
        first_timestamp=0,
        max_timestamp=0,
        records_count=count,
    )
