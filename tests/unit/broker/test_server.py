"""A whole broker, in this process and in one of its own."""

import asyncio
import errno
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from kavka.broker.dispatch import offered_versions
from kavka.broker.embed import EmbeddedBroker
from kavka.broker.server import Server, StartupError
from kavka.config.broker import BrokerConfig
from kavka.config.option import ConfigError
from kavka.protocol import codec, headers
from kavka.protocol.messages.k00_produce import (
    PartitionProduceData,
    ProduceRequest,
    ProduceResponse,
    TopicProduceData,
)
from kavka.protocol.messages.k01_fetch import (
    FetchPartition,
    FetchRequest,
    FetchResponse,
    FetchTopic,
)
from kavka.protocol.messages.k03_metadata import MetadataRequest, MetadataResponse
from kavka.protocol.messages.k18_api_versions import ApiVersionsRequest, ApiVersionsResponse
from kavka.protocol.messages.k19_create_topics import (
    CreatableTopic,
    CreateTopicsRequest,
    CreateTopicsResponse,
)
from kavka.protocol.records.batch import Record, build_batch, iter_records, read_header
from kavka.protocol.schema import Message

PATIENCE_SECONDS = 30.0
CLEAN_MARK = ".kafka_cleanshutdown"


class Client:
    """A connection that asks one thing at a time."""

    def __init__(self, bootstrap: str) -> None:
        host, _, port = bootstrap.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), timeout=PATIENCE_SECONDS)
        self.file = self.socket.makefile("rb")

    def ask(self, version: int, request: Message, response_class: type[Message]) -> Message:
        key = request.API_KEY
        self.socket.sendall(headers.encode_request(key, version, 7, "tester", request))
        size = int.from_bytes(self.file.read(4), "big")
        frame = self.file.read(size)
        assert len(frame) == size, "the broker closed the connection"
        correlation_id, at = headers.parse_response_header(key, version, frame)
        assert correlation_id == 7
        return codec.decode(response_class, frame, version, at)

    def create_topic(self, name: str) -> None:
        topic = CreatableTopic(name=name, num_partitions=1, replication_factor=1)
        request = CreateTopicsRequest(topics=[topic], timeout_ms=10_000)
        response = self.ask(2, request, CreateTopicsResponse)
        assert [result.error_code for result in response.topics] == [0]

    def produce(self, topic: str, value: bytes) -> int:
        batch = build_batch([Record(0, 1_700_000_000_000, None, value, ())], base_offset=0)
        partition = PartitionProduceData(index=0, records=batch)
        data = TopicProduceData(name=topic, partition_data=[partition])
        request = ProduceRequest(acks=-1, timeout_ms=10_000, topic_data=[data])
        [result] = self.ask(7, request, ProduceResponse).responses[0].partition_responses
        assert result.error_code == 0
        return result.base_offset

    def fetch(self, topic: str, offset: int) -> list[bytes]:
        partition = FetchPartition(partition=0, fetch_offset=offset, partition_max_bytes=1 << 20)
        request = FetchRequest(
            max_wait_ms=0,
            min_bytes=0,
            max_bytes=1 << 20,
            topics=[FetchTopic(topic=topic, partitions=[partition])],
        )
        [result] = self.ask(4, request, FetchResponse).responses[0].partitions
        assert result.error_code == 0
        values, data, at = [], bytes(result.records or b""), 0
        while at < len(data):
            header = read_header(data, at)
            values += [bytes(r.value) for r in iter_records(data, at, header, 1 << 20)]
            at += header.size
        return values

    def close(self) -> None:
        self.file.close()
        self.socket.close()


# -- embedded ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker() as running:
        yield running


@pytest.fixture
def client(broker: EmbeddedBroker) -> Iterator[Client]:
    connection = Client(broker.bootstrap)
    yield connection
    connection.close()


def test_what_is_produced_is_fetched(client: Client) -> None:
    client.create_topic("orders")
    assert [client.produce("orders", b"%d" % i) for i in range(5)] == [0, 1, 2, 3, 4]
    assert client.fetch("orders", 2) == [b"2", b"3", b"4"]


def test_the_bound_port_is_advertised(broker: EmbeddedBroker, client: Client) -> None:
    response = client.ask(1, MetadataRequest(topics=[]), MetadataResponse)
    told = [f"{node.host}:{node.port}" for node in response.brokers]
    assert told == [broker.bootstrap] == list(broker.addresses.values())
    assert not broker.bootstrap.endswith(":0")


def test_api_versions_tells_all_that_is_handled(client: Client) -> None:
    response = client.ask(0, ApiVersionsRequest(), ApiVersionsResponse)
    told = {k.api_key: (k.min_version, k.max_version) for k in response.api_keys}
    assert told == offered_versions("latest")


def test_data_outlives_an_embedded_broker(tmp_path: Path) -> None:
    for value in (b"first", b"second"):
        with EmbeddedBroker(data_dir=str(tmp_path)) as broker:
            assert not (tmp_path / CLEAN_MARK).exists()
            client = Client(broker.bootstrap)
            if value == b"first":
                client.create_topic("kept")
            client.produce("kept", value)
            client.close()
        assert (tmp_path / CLEAN_MARK).exists()
    with EmbeddedBroker(data_dir=str(tmp_path)) as broker:
        client = Client(broker.bootstrap)
        assert client.fetch("kept", 0) == [b"first", b"second"]
        client.close()


def test_a_temporary_directory_is_removed() -> None:
    broker = EmbeddedBroker().start()
    assert broker._temporary is not None
    directory = Path(broker._temporary)
    assert directory.is_dir()
    broker.stop()
    assert not directory.exists()
    broker.stop()  # once more does no harm


def test_a_broker_can_be_started_again() -> None:
    broker = EmbeddedBroker()
    for _ in range(2):
        with broker:
            Client(broker.bootstrap).close()


def test_compatibility_caps_what_is_offered() -> None:
    with EmbeddedBroker({"compatibility": "1.1.0"}) as broker:
        client = Client(broker.bootstrap)
        response = client.ask(0, ApiVersionsRequest(), ApiVersionsResponse)
        told = {k.api_key: (k.min_version, k.max_version) for k in response.api_keys}
        assert told == offered_versions("1.1.0")
        client.close()


def test_a_stopping_broker_answers_who_waits() -> None:
    broker = EmbeddedBroker().start()
    client = Client(broker.bootstrap)
    client.create_topic("quiet")
    partition = FetchPartition(partition=0, fetch_offset=0, partition_max_bytes=1 << 20)
    request = FetchRequest(
        max_wait_ms=600_000,
        min_bytes=1,
        max_bytes=1 << 20,
        topics=[FetchTopic(topic="quiet", partitions=[partition])],
    )
    client.socket.sendall(headers.encode_request(1, 4, 7, "tester", request))
    asker = Client(broker.bootstrap)
    asker.fetch("quiet", 0)  # sent later, so the first has been parked when this is answered
    stopping = threading.Thread(target=broker.stop)
    stopping.start()
    size = int.from_bytes(client.file.read(4), "big")
    response = codec.decode(FetchResponse, client.file.read(size), 4, 4)
    assert response.responses[0].partitions[0].error_code == 0
    assert client.file.read(1) == b""  # and then the connection is closed
    stopping.join()
    client.close()
    asker.close()


def test_an_interrupted_start_leaves_nothing_behind(tmp_path: Path) -> None:
    settings = {"log.dirs": str(tmp_path), "listeners": "PLAINTEXT://127.0.0.1:0"}

    async def interrupt(turns: int) -> bool:
        server = Server(BrokerConfig(settings))
        starting = asyncio.get_running_loop().create_task(server.start())
        for _ in range(turns):
            await asyncio.sleep(0)
        if starting.done():
            await server.stop()
            return False
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        return True

    assert asyncio.run(interrupt(1))
    assert asyncio.run(interrupt(2))
    with EmbeddedBroker(data_dir=str(tmp_path)) as broker:
        Client(broker.bootstrap).close()


def test_without_a_log_directory_the_broker_gives_up() -> None:
    async def lose_the_disk() -> bool:
        with tempfile.TemporaryDirectory() as directory:
            settings = {"log.dirs": directory, "listeners": "PLAINTEXT://127.0.0.1:0"}
            server = Server(BrokerConfig(settings))
            await server.start()
            [log_dir] = server.broker.logs.describe()
            server.broker.logs.directory_failed(log_dir, OSError(errno.EIO, "I/O error"))
            await server.stop()
            return server.failed.is_set()

    assert asyncio.run(lose_the_disk())


# -- what stands in the way --------------------------------------------------------------


def test_two_brokers_never_share_a_directory(tmp_path: Path) -> None:
    with (
        EmbeddedBroker(data_dir=str(tmp_path)),
        pytest.raises(StartupError, match=re.escape(str(tmp_path))),
    ):
        EmbeddedBroker(data_dir=str(tmp_path)).start()


def test_a_taken_port_is_said_so(broker: EmbeddedBroker) -> None:
    with pytest.raises(StartupError, match=r"Port \d+ of .* is taken by another process"):
        EmbeddedBroker({"listeners": f"PLAINTEXT://{broker.bootstrap}"}).start()


def test_a_directory_of_another_broker_is_refused(tmp_path: Path) -> None:
    EmbeddedBroker(data_dir=str(tmp_path)).start().stop()
    with pytest.raises(StartupError, match=r"broker\.id=7 does not match broker\.id=1"):
        EmbeddedBroker({"broker.id": "7"}, data_dir=str(tmp_path)).start()


def test_a_bad_setting_is_said_so() -> None:
    with pytest.raises(ConfigError, match=r"num\.partitions"):
        EmbeddedBroker({"num.partitions": "none"}).start()


def test_a_zookeeper_that_does_not_answer_is_said_so(tmp_path: Path) -> None:
    with socket.socket() as silent:  # takes connections and says nothing
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        settings = {
            "zookeeper.connect": f"127.0.0.1:{silent.getsockname()[1]}/kafka",
            "zookeeper.connection.timeout.ms": "200",
        }
        with pytest.raises(StartupError, match=r"check zookeeper\.connect"):
            EmbeddedBroker(settings, data_dir=str(tmp_path)).start()


def test_a_zookeeper_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    settings = {"zookeeper.connect": "127.0.0.1:1", "zookeeper.connection.timeout.ms": "200"}
    with pytest.raises(StartupError, match=r"check zookeeper\.connect"):
        EmbeddedBroker(settings, data_dir=str(tmp_path)).start()


def test_a_place_that_is_no_directory_is_said_so(tmp_path: Path) -> None:
    place = tmp_path / "file"
    place.write_text("")
    with pytest.raises(StartupError, match=re.escape(str(place))):
        EmbeddedBroker(data_dir=str(place)).start()


def test_a_failed_start_leaves_nothing_behind(tmp_path: Path, broker: EmbeddedBroker) -> None:
    taken = f"PLAINTEXT://{broker.bootstrap}"
    with pytest.raises(StartupError):
        EmbeddedBroker({"listeners": taken}, data_dir=str(tmp_path)).start()
    EmbeddedBroker(data_dir=str(tmp_path)).start().stop()


# -- a process ---------------------------------------------------------------------------


def serve(data_dir: Path, *settings: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "kavka", "serve"]
    for setting in (f"log.dirs={data_dir}", *settings):
        command += ["--set", setting]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=data_dir.parent
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_process_says_that_it_is_ready_and_stops_cleanly(tmp_path: Path, number: int) -> None:
    data = tmp_path / "data"
    told = "advertised.listeners=PLAINTEXT://localhost:0"
    process = serve(data, "listeners=PLAINTEXT://127.0.0.1:0", told)
    assert process.stdout is not None
    ready = process.stdout.readline()
    address = re.search(r"ready at PLAINTEXT://(127\.0\.0\.1:[1-9]\d*) ", ready)
    assert address, ready
    assert f"advertised=PLAINTEXT://localhost:{address[1].rpartition(':')[2]}\n" in ready
    client = Client(address[1])
    client.create_topic("t")
    client.produce("t", b"v")
    client.close()
    process.send_signal(number)
    rest, errors = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0, errors
    assert rest == ""  # exactly one line
    assert (data / CLEAN_MARK).exists()
    assert "Traceback" not in errors


def test_a_process_that_cannot_start_says_why_in_one_line(
    tmp_path: Path, broker: EmbeddedBroker
) -> None:
    process = serve(tmp_path / "data", f"listeners=PLAINTEXT://{broker.bootstrap}")
    out, errors = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 1
    assert out == ""
    [line] = errors.splitlines()
    assert line.startswith("kavka: Port ")


# -- other people's tests ------------------------------------------------------------------


def test_the_fixture_gives_a_broker_to_other_peoples_tests(tmp_path: Path) -> None:
    test = tmp_path / "test_theirs.py"
    test.write_text(
        "import socket\n"
        "def test_connects(kavka_broker):\n"
        "    host, _, port = kavka_broker.bootstrap.rpartition(':')\n"
        "    socket.create_connection((host, int(port)), timeout=30).close()\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", str(test)]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE_SECONDS
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout
