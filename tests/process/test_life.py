"""Start, refusals, stop, restart: what an operator sees of a broker."""

import re
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import kavka
from kavka.protocol import codec, headers, keys
from kavka.protocol.errors import ErrorCode
from kavka.protocol.messages.k03_metadata import MetadataRequest, MetadataResponse
from kavka.protocol.messages.k08_offset_commit import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitRequestTopic,
    OffsetCommitResponse,
)
from kavka.protocol.messages.k09_offset_fetch import (
    OffsetFetchRequest,
    OffsetFetchRequestTopic,
    OffsetFetchResponse,
)
from kavka.protocol.messages.k10_find_coordinator import (
    FindCoordinatorRequest,
    FindCoordinatorResponse,
)
from kavka.protocol.messages.k18_api_versions import ApiVersionsRequest, ApiVersionsResponse
from kavka.protocol.messages.k19_create_topics import (
    CreatableTopic,
    CreatableTopicConfig,
    CreateTopicsRequest,
    CreateTopicsResponse,
)
from kavka.protocol.messages.k32_describe_configs import (
    DescribeConfigsRequest,
    DescribeConfigsResource,
    DescribeConfigsResponse,
)
from kavka.protocol.records.batch import Record, build_batch
from tests.broker_process import BrokerProcess, running_broker
from tests.wire import WireClient, fetch_request

CLEAN_MARK = ".kafka_cleanshutdown"
TOPIC_RESOURCE = 2
GROUP = "readers"


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    with running_broker(tmp_path_factory.mktemp("life") / "data") as process:
        yield process


def serve(*settings: str) -> "subprocess.CompletedProcess[str]":
    """Run ``kavka serve`` to its end, which is near when it cannot start."""
    command = [sys.executable, "-m", "kavka", "serve"]
    for setting in settings:
        command += ["--set", setting]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def create(client: WireClient, name: str, **configs: str) -> None:
    topic = CreatableTopic(
        name=name,
        num_partitions=2,
        replication_factor=1,
        configs=[
            CreatableTopicConfig(name=key.replace("_", "."), value=configs[key]) for key in configs
        ],
    )
    created = client.ask(CreateTopicsRequest(topics=[topic]), CreateTopicsResponse, 4)
    assert created.topics[0].error_code == ErrorCode.NONE


def produce(client: WireClient, topic: str, *values: bytes) -> int:
    records = [Record(i, 0, None, value) for i, value in enumerate(values)]
    answer = client.produce(topic, build_batch(records, base_offset=0))
    partition = answer.responses[0].partition_responses[0]
    assert partition.error_code == ErrorCode.NONE
    return partition.base_offset


# -- what stands in the way of a start ------------------------------------------------------


def test_what_stands_in_the_way_is_one_sentence(broker: BrokerProcess, tmp_path: Path) -> None:
    here, free = f"log.dirs={tmp_path / 'data'}", "listeners=PLAINTEXT://127.0.0.1:0"
    cases = {
        "another broker": (f"log.dirs={broker.data_dir}", free),
        "is taken by another process": (here, f"listeners=PLAINTEXT://{broker.bootstrap}"),
        "did you mean num.partitions?": (here, free, "num.partition=3"),
        "it must be a whole number": (here, free, "num.partitions=several"),
        "compatibility": (here, free, "compatibility=0.7"),
    }
    for said, settings in cases.items():
        ended = serve(*settings)
        assert ended.returncode == 1, said
        assert ended.stdout == ""
        [line] = ended.stderr.splitlines()
        assert line.startswith("kavka: ") and said in line
    with WireClient(broker.port) as client:  # the first broker noticed nothing
        client.ask(ApiVersionsRequest(), ApiVersionsResponse, 0)


def test_a_broker_that_was_killed_is_no_obstacle(tmp_path: Path) -> None:
    process = BrokerProcess(tmp_path / "data").start()
    process.kill()
    assert not (tmp_path / "data" / CLEAN_MARK).exists()
    process.start()
    assert process.stop() == 0
    assert (tmp_path / "data" / CLEAN_MARK).exists()


def test_version() -> None:
    command = [sys.executable, "-m", "kavka", "--version"]
    told = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert told.stdout == f"kavka {kavka.__version__}\n"


# -- the end --------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_busy_broker_stops_cleanly(tmp_path: Path, how: signal.Signals) -> None:
    """With a waiting reader, a request half sent, and answers that nobody reads."""
    process = BrokerProcess(tmp_path / "data").start()
    with (
        WireClient(process.port) as reader,
        WireClient(process.port) as writer,
        WireClient(process.port) as slow,
        WireClient(process.port) as deaf,
    ):
        create(writer, "t")
        produce(writer, "t", bytes(500_000))
        reader.send(fetch_request("t", 1, max_wait_ms=600_000), 11)
        slow.socket.sendall(struct.pack(">i", 1000) + bytes(10))
        for _ in range(100):
            deaf.send(fetch_request("t", 0), 11)
        assert process.process is not None
        process.process.send_signal(how)
        assert process.process.wait(timeout=60) == 0
    assert (tmp_path / "data" / CLEAN_MARK).exists()
    assert "Traceback" not in process.log()


# -- coming back ----------------------------------------------------------------------------


def test_a_restart_keeps_everything(tmp_path: Path) -> None:
    process = BrokerProcess(tmp_path / "data", {"offsets.topic.num.partitions": "2"}).start()
    configs = {"retention_ms": "123456", "cleanup_policy": "compact,delete"}
    with WireClient(process.port) as client:
        create(client, "plain")
        create(client, "special", **configs)
        before = topics(client)
        assert produce(client, "plain", b"a", b"b", b"c") == 0
        client.ask(FindCoordinatorRequest(key=GROUP), FindCoordinatorResponse, 0)
        commit(client, "plain", 2)
    assert process.stop() == 0
    process.start()
    with WireClient(process.port) as client:
        assert topics(client) == before
        assert overrides(client, "special") == {
            "retention.ms": "123456",
            "cleanup.policy": "compact,delete",
        }
        assert overrides(client, "plain") == {}
        assert committed(client, "plain") == 2
        assert produce(client, "plain", b"d") == 3
        fetched = client.fetch("plain", 0).responses[0].partitions[0]
        assert fetched.high_watermark == 4
        assert fetched.records is not None and b"a" in bytes(fetched.records)
    assert process.stop() == 0
    recovered = re.findall(r"segments_recovered=(\d+)", process.log())
    assert recovered and set(recovered) == {"0"}, "after a clean stop there is nothing to recover"


def topics(client: WireClient) -> dict[str, tuple[bytes, list[tuple[int, int]]]]:
    """Ids and partitions with their leaders, of all topics but the coordinator's own."""
    answer = client.ask(MetadataRequest(topics=None), MetadataResponse, 12)
    return {
        topic.name or "": (
            topic.topic_id,
            sorted((p.partition_index, p.leader_id) for p in topic.partitions),
        )
        for topic in answer.topics
        if not topic.is_internal
    }


def overrides(client: WireClient, topic: str) -> dict[str, str | None]:
    resource = DescribeConfigsResource(
        resource_type=TOPIC_RESOURCE, resource_name=topic, configuration_keys=None
    )
    request = DescribeConfigsRequest(resources=[resource])
    answer = client.ask(request, DescribeConfigsResponse, 0)
    return {entry.name: entry.value for entry in answer.results[0].configs if not entry.is_default}


def commit(client: WireClient, topic: str, offset: int) -> None:
    partition = OffsetCommitRequestPartition(partition_index=0, committed_offset=offset)
    request = OffsetCommitRequest(
        group_id=GROUP, topics=[OffsetCommitRequestTopic(name=topic, partitions=[partition])]
    )
    answer = client.ask(request, OffsetCommitResponse, 2)
    assert answer.topics[0].partitions[0].error_code == ErrorCode.NONE


def committed(client: WireClient, topic: str) -> int:
    asked = OffsetFetchRequestTopic(name=topic, partition_indexes=[0])
    request = OffsetFetchRequest(group_id=GROUP, topics=[asked])
    answer = client.ask(request, OffsetFetchResponse, 1)
    return answer.topics[0].partitions[0].committed_offset


# -- which versions it speaks ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("compatibility", "column", "newest"),
    [("1.1.0", keys.RANGES_1_1, 1), ("2.3.0", keys.RANGES_2_3, 2)],
)
def test_compatibility_is_the_table_of_that_release(
    tmp_path: Path, compatibility: str, column: dict[int, tuple[int, int]], newest: int
) -> None:
    with running_broker(tmp_path / "data", {"compatibility": compatibility}) as process:
        with WireClient(process.port) as client:
            for version in range(newest + 1):
                answer = client.ask(ApiVersionsRequest(), ApiVersionsResponse, version)
                assert {k.api_key: (k.min_version, k.max_version) for k in answer.api_keys} == (
                    column
                )
        with WireClient(process.port) as client:  # one version more than the table has
            client.send(MetadataRequest(), column[3][1] + 1)
            assert client.receive_frame() == b""
        assert re.search(
            rf"Metadata version {column[3][1] + 1} is not supported, 0 to {column[3][1]} are "
            r"peer=127\.0\.0\.1:\d+",
            process.log(),
        )


def test_a_client_of_tomorrow_is_told_what_there_is(broker: BrokerProcess) -> None:
    """KIP-511: an unknown version of ApiVersions is answered in version 0."""
    frame = bytearray(headers.encode_request(18, 4, 7, "cli", ApiVersionsRequest()))
    frame[6:8] = struct.pack(">h", 99)
    with WireClient(broker.port) as client:
        client.socket.sendall(frame)
        answer = client.receive_frame()
        assert answer == bytes.fromhex("00000007 0023 00000001 0012 0000 0004")
        # And then asks again, on the same connection.
        client.ask(ApiVersionsRequest(), ApiVersionsResponse, 3)


def test_the_answer_to_a_java_client(broker: BrokerProcess) -> None:
    """The request of the test vectors; the response header stays at version 0."""
    sent = "0000001700120003000000070003636c6900046c696204312e3000"
    with socket.create_connection(("127.0.0.1", broker.port), timeout=30) as connection:
        connection.sendall(bytes.fromhex(sent))
        (size,) = struct.unpack(">i", connection.recv(4, socket.MSG_WAITALL))
        frame = connection.recv(size, socket.MSG_WAITALL)
    assert frame[:4] == bytes.fromhex("00000007")
    answer = codec.decode(ApiVersionsResponse, frame, 3, 4)
    assert (answer.error_code, len(answer.api_keys)) == (0, frame[6] - 1)
