"""What only single requests can show: stored bytes, limits, waiting."""

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from kavka.protocol.errors import ErrorCode
from kavka.protocol.messages.k00_produce import ProduceResponse
from kavka.protocol.messages.k01_fetch import FetchResponse
from kavka.protocol.records import compression
from kavka.protocol.records.batch import (
    LOG_APPEND_TIME,
    Record,
    build_batch,
    iter_batches,
    iter_records,
    read_header,
)
from tests.broker_process import BrokerProcess, running_broker
from tests.clients.test_confluent import create
from tests.wire import WireClient, fetch_request, produce_request

MAX_MESSAGE_BYTES = 10_485_760
CODECS = {
    "none": compression.NONE,
    "gzip": compression.GZIP,
    "snappy": compression.SNAPPY,
    "lz4": compression.LZ4,
    "zstd": compression.ZSTD,
}


def batch(*values: bytes, codec: int = 0) -> bytes:
    records = [Record(i, 1_600_000_000_000 + i, None, v) for i, v in enumerate(values)]
    return bytes(build_batch(records, base_offset=0, codec=codec))


@pytest.mark.parametrize("codec", CODECS)
def test_stored_bytes_are_the_produced_ones(broker: BrokerProcess, topic: str, codec: str) -> None:
    create(broker, topic)
    sent = batch(b"first", b"second" * 100, b"third", codec=CODECS[codec])
    with WireClient(broker.port) as client:
        for base in (0, 3):
            answer = client.produce(topic, sent).responses[0].partition_responses[0]
            assert (answer.error_code, answer.base_offset) == (ErrorCode.NONE, base)
        got = client.fetch(topic, 0).responses[0].partitions[0]
        assert got.high_watermark == 6
        assert got.records is not None
        stored = bytes(got.records)
        (first, size, _), (second, _, _) = iter_batches(stored)
        for pos, base in ((first, 0), (second, 3)):
            header = read_header(stored, pos)
            assert header.base_offset == base
            # Base offset and leader epoch are the broker's; all the rest is untouched.
            assert stored[pos + 8 : pos + 12] == sent[8:12]
            assert stored[pos + 16 : pos + size] == sent[16:]


def test_the_largest_message_passes_and_one_byte_more_does_not(
    broker: BrokerProcess, topic: str
) -> None:
    create(broker, topic)
    overhead = len(batch(b"x" * 2_000_000)) - 2_000_000
    largest = batch(b"x" * (MAX_MESSAGE_BYTES - overhead))
    larger = batch(b"x" * (MAX_MESSAGE_BYTES - overhead + 1))
    assert len(larger) == len(largest) + 1 == MAX_MESSAGE_BYTES + 1
    with WireClient(broker.port) as client:
        refused = client.produce(topic, larger).responses[0].partition_responses[0]
        assert refused.error_code == ErrorCode.MESSAGE_TOO_LARGE
        taken = client.produce(topic, largest).responses[0].partition_responses[0]
        assert (taken.error_code, taken.base_offset) == (ErrorCode.NONE, 0)
        got = client.fetch(topic, 0, max_bytes=1000).responses[0].partitions[0]
        assert got.records is not None
        assert len(got.records) == MAX_MESSAGE_BYTES


def test_an_idle_fetch_returns_at_its_time_and_a_record_wakes_it_at_once(
    broker: BrokerProcess, topic: str
) -> None:
    create(broker, topic)
    with WireClient(broker.port) as reader, WireClient(broker.port) as writer:
        started = time.monotonic()
        empty = reader.fetch(topic, 0, max_wait_ms=300).responses[0].partitions[0]
        assert time.monotonic() - started >= 0.3
        assert not empty.records
        # Ten minutes of waiting, were it not for the record.
        reader.send(fetch_request(topic, 0, max_wait_ms=600_000), 11)
        woken: list[int] = []
        thread = threading.Thread(target=lambda: woken.append(len(reader.receive_frame())))
        thread.start()
        writer.produce(topic, batch(b"wake"))
        thread.join(20)
        assert woken and woken[0] > len(batch(b"wake"))


def test_min_bytes_gathers(broker: BrokerProcess, topic: str) -> None:
    create(broker, topic)
    with WireClient(broker.port) as reader, WireClient(broker.port) as writer:
        size = len(batch(b"x" * 100))
        reader.send(fetch_request(topic, 0, max_wait_ms=600_000, min_bytes=3 * size), 11)
        for _ in range(3):
            writer.produce(topic, batch(b"x" * 100))
        got = reader.receive(FetchResponse, 11).responses[0].partitions[0]
        assert got.records is not None
        assert len(got.records) == 3 * size


def test_fetch_beyond_the_end_and_before_the_start(broker: BrokerProcess, topic: str) -> None:
    create(broker, topic)
    with WireClient(broker.port) as client:
        client.produce(topic, batch(b"x"))
        for offset in (2, -1, 10**12):
            got = client.fetch(topic, offset).responses[0].partitions[0]
            assert got.error_code == ErrorCode.OFFSET_OUT_OF_RANGE
        at_end = client.fetch(topic, 1).responses[0].partitions[0]
        assert (at_end.error_code, at_end.records) == (ErrorCode.NONE, b"")


def test_unknown_topics_are_told(broker: BrokerProcess) -> None:
    with WireClient(broker.port) as client:
        got = client.fetch("nobody-made-this", 0).responses[0].partitions[0]
        assert got.error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
        refused = client.produce("nobody-made-this", batch(b"x"))
        code = refused.responses[0].partition_responses[0].error_code
        assert code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


BAD_RECORDS: dict[str, tuple[Callable[[bytearray], object], ErrorCode]] = {
    "bad checksum": (lambda b: b.__setitem__(17, b[17] ^ 1), ErrorCode.CORRUPT_MESSAGE),
    "bad magic": (lambda b: b.__setitem__(16, 9), ErrorCode.CORRUPT_MESSAGE),
    "absurd size": (lambda b: b.__setitem__(8, 0x7F), ErrorCode.CORRUPT_MESSAGE),
    "truncated": (lambda b: b.__delitem__(slice(40, None)), ErrorCode.CORRUPT_MESSAGE),
}


@pytest.mark.parametrize("what", BAD_RECORDS)
def test_bad_records_get_an_error_and_the_connection_lives(
    broker: BrokerProcess, topic: str, what: str
) -> None:
    create(broker, topic)
    spoil, code = BAD_RECORDS[what]
    spoiled = bytearray(batch(b"good"))
    spoil(spoiled)
    with WireClient(broker.port) as client:
        refused = client.produce(topic, bytes(spoiled)).responses[0].partition_responses[0]
        assert refused.error_code == code
        taken = client.produce(topic, batch(b"good")).responses[0].partition_responses[0]
        assert (taken.error_code, taken.base_offset) == (ErrorCode.NONE, 0)


def test_pipelined_requests_are_answered_in_order(broker: BrokerProcess, topic: str) -> None:
    create(broker, topic)
    with WireClient(broker.port) as client:
        ids = [client.send(produce_request(topic, batch(b"x")), 7) for _ in range(200)]
        answered = [int.from_bytes(client.receive_frame()[:4]) for _ in ids]
    assert answered == ids


def test_a_forced_codec_and_the_brokers_time_in_one_request(
    broker: BrokerProcess, topic_name: Callable[[], str]
) -> None:
    stamped, packed = topic_name(), topic_name()
    create(broker, stamped, **{"message.timestamp.type": "LogAppendTime"})
    create(broker, packed, **{"compression.type": "gzip"})
    request = produce_request(stamped, batch(b"time"))
    request.topic_data += produce_request(packed, batch(b"same " * 100)).topic_data
    with WireClient(broker.port) as client:
        first, second = client.ask(request, ProduceResponse, 7).responses
        assert first.partition_responses[0].error_code == ErrorCode.NONE
        assert first.partition_responses[0].log_append_time_ms > 1_700_000_000_000
        assert second.partition_responses[0].error_code == ErrorCode.NONE
        (got,) = client.fetch(stamped, 0).responses[0].partitions
        assert got.records is not None
        header = read_header(got.records)
        assert header.timestamp_type == LOG_APPEND_TIME
        assert header.max_timestamp == first.partition_responses[0].log_append_time_ms
        (got,) = client.fetch(packed, 0).responses[0].partitions
        assert got.records is not None
        header = read_header(got.records)
        assert header.codec == compression.GZIP
        (record,) = iter_records(got.records, 0, header, 1000)
        assert record.value == b"same " * 100


def test_records_that_only_the_disk_has_are_served(tmp_path: Path) -> None:
    sent = [batch(bytes([i]) * 100_000) for i in range(30)]
    with running_broker(tmp_path / "data") as broker:
        create(broker, "cold")
        with WireClient(broker.port) as client:
            for one in sent:
                client.produce("cold", one)
        assert broker.stop() == 0
        (log,) = (tmp_path / "data" / "cold-0").glob("*.log")
        with log.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        broker.start()
        with WireClient(broker.port) as client:
            (got,) = client.fetch("cold", 0).responses[0].partitions
        assert got.records is not None
        assert [size for _, size, _ in iter_batches(got.records)] == [len(one) for one in sent]
        assert bytes(got.records[61:1000]) == sent[0][61:1000]


@pytest.mark.parametrize("kind", ["CreateTime", "LogAppendTime"])
def test_a_transactional_batch_needs_a_transactional_id(
    broker: BrokerProcess, topic: str, kind: str
) -> None:
    create(broker, topic, **{"message.timestamp.type": kind})
    sent = build_batch(
        [Record(0, 1_600_000_000_000, None, b"x")],
        base_offset=0,
        producer_id=1,
        producer_epoch=0,
        base_sequence=0,
        transactional=True,
    )
    with WireClient(broker.port) as client:
        (refused,) = client.produce(topic, bytes(sent)).responses[0].partition_responses
    assert refused.error_code == ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED
