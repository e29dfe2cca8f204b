"""Tens of thousands of random and mutated frames, and a good client that notices nothing.

A longer run, or one again::

    KAVKA_FUZZ_FRAMES=1000000 pytest tests/fuzz
    KAVKA_FUZZ_SEED=12345 pytest tests/fuzz
"""

import os
import random
import re
import secrets
from collections.abc import Iterator

import pytest
from confluent_kafka import Consumer, TopicPartition

from kavka.config.limits import STRING_BYTES_MAX
from kavka.protocol import codec, headers, keys
from kavka.protocol.errors import ErrorCode
from kavka.protocol.messages.k00_produce import ProduceRequest
from kavka.protocol.messages.k11_join_group import JoinGroupRequest
from kavka.protocol.messages.k19_create_topics import (
    CreatableTopic,
    CreatableTopicConfig,
    CreateTopicsRequest,
    CreateTopicsResponse,
)
from kavka.protocol.records.batch import CRC_START, Record, build_batch
from tests.broker_process import BrokerProcess
from tests.fuzz.bystander import Bystander, content
from tests.fuzz.frames import OFFERED, describe
from tests.fuzz.sessions import Attack
from tests.fuzz.talks import Talks
from tests.fuzz.values import TOPICS, Values
from tests.memory import KIB, MIB, peak_bytes
from tests.wire import WireClient

pytestmark = pytest.mark.fuzz

FRAMES = int(os.environ.get("KAVKA_FUZZ_FRAMES", "20000"))
# Continuous integration plays the same frames each time, see tests/conftest.py.
_ANY_SEED = 1 if os.environ.get("CI") else secrets.randbelow(10**9)
SEED = int(os.environ.get("KAVKA_FUZZ_SEED", _ANY_SEED))
MEMORY_BYTES_MAX = 200 * MIB

BYSTANDER = "bystander"
SETTINGS = {
    "offsets.topic.num.partitions": "4",
    "num.partitions": "1",
    "transaction.state.log.num.partitions": "4",
    "group.min.session.timeout.ms": "100",
}
TEXT_FIELDS = (
    *("name", "topic", "topic_name", "topic_names", "group_id", "groups", "groups_names", "key"),
    *("coordinator_keys", "member_id", "group_instance_id", "transactional_id", "reason"),
    *("transactional_ids", "v3_and_below_transactional_id", "protocol_type", "protocol_name"),
    *("mechanism", "client_software_name", "client_software_version", "path", "resource_name"),
    *("committed_metadata", "value", "rack_id", "cluster_id", "states_filter", "types_filter"),
    *("configuration_keys", "principal", "host", "principal_filter", "resource_name_filter"),
    *("transactional_id_pattern", "state_filters", "principal_name", "principal_type"),
)
_FAILURE = re.compile(
    r"Traceback|^[-\d]+ [.:\d]+ (ERROR|FATAL)|never (awaited|retrieved)|ignored in"
)
_PEER = re.compile(r"peer=127\.0\.0\.1:(\d+)")
_REPORTED = 5


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    process = BrokerProcess(tmp_path_factory.mktemp("fuzz") / "data", SETTINGS).start()
    try:
        yield process
    finally:
        if process.process is not None:
            process.stop()


@pytest.fixture(scope="module")
def topic_ids(broker: BrokerProcess) -> dict[str, bytes]:
    """Creates the topics that the frames speak of."""
    topics = [
        CreatableTopic(
            name=name,
            num_partitions=3,
            replication_factor=1,
            configs=[CreatableTopicConfig(name=key, value=config[key]) for key in config],
        )
        for name, config in {**TOPICS, BYSTANDER: {}}.items()
    ]
    with WireClient(broker.port) as client:
        created = client.ask(CreateTopicsRequest(topics=topics), CreateTopicsResponse, 7)
    assert {topic.error_code for topic in created.topics} == {ErrorCode.NONE}
    return {topic.name: topic.topic_id for topic in created.topics if topic.name in TOPICS}


def test_every_request_of_every_version_is_answered(
    broker: BrokerProcess, topic_ids: dict[str, bytes]
) -> None:
    """The requests that frames are made of are real ones: each gets a response that decodes."""
    values = Values(random.Random(SEED), topic_ids)
    for key, version in OFFERED:
        request_class, response_class = keys.message_classes(key)
        request = values.request(request_class, version)
        if isinstance(request, ProduceRequest):
            request.acks = 1  # 0 has no response
        elif isinstance(request, JoinGroupRequest):
            request.group_id = f"fuzz-group-of-{version}"  # nobody there to be waited for
        with WireClient(broker.port) as client:
            client.ask(request, response_class, version)


@pytest.mark.parametrize("letter", ["x", "\U0001f4a3", "\xff"])
def test_the_longest_texts_have_answers(
    broker: BrokerProcess, topic_ids: dict[str, bytes], letter: str
) -> None:
    """What a request may hold fits into the response that repeats it, or quotes it in an error."""
    text = letter * (STRING_BYTES_MAX // len(letter.encode()))
    for key, version in OFFERED:
        values = Values(random.Random(SEED), topic_ids)
        values.learned = dict.fromkeys(TEXT_FIELDS, text)
        request_class, response_class = keys.message_classes(key)
        request = values.request(request_class, version)
        if isinstance(request, ProduceRequest):
            request.acks = 1
        frame = headers.encode_request(key, version, 1, "fuzz", request)
        if letter == "\xff":  # the same number of bytes, which are no text
            frame = frame.replace("\xff".encode(), b"\xff\xff")
        with WireClient(broker.port) as client:
            client.socket.sendall(frame)
            answer = client.receive_frame()
            assert answer, describe(frame)
            _, body = headers.parse_response_header(key, version, answer)
            codec.decode(response_class, answer, version, body)


def test_frames(broker: BrokerProcess, topic_ids: dict[str, bytes]) -> None:
    """The whole attack; then the broker works, stops cleanly, and starts again on its data."""
    print(f"KAVKA_FUZZ_SEED={SEED} KAVKA_FUZZ_FRAMES={FRAMES}")
    attack = Attack(broker.port, SEED, topic_ids)
    with (
        Bystander(broker.bootstrap, BYSTANDER) as bystander,
        Talks(broker.port, SEED, topic_ids) as talks,
    ):
        attack.run(FRAMES)
    peak = peak_bytes(broker.pid)
    print(
        f"frames={attack.frames} sessions={attack.sessions} unfinished={attack.unfinished} "
        f"answers={attack.received // KIB} KiB talks={talks.count} "
        f"messages_of_bystander={bystander.consumed} peak={peak // MIB} MiB"
    )
    check_works(broker)
    assert broker.stop() == 0, broker.log()[-4000:]
    check_log(broker, attack, talks)
    assert peak <= MEMORY_BYTES_MAX
    broker.start()
    check_works(broker)
    check_kept(broker, bystander.produced)
    assert broker.stop() == 0
    check_log(broker, attack, talks)


def check_works(broker: BrokerProcess) -> None:
    topic = f"afterwards-{secrets.token_hex(4)}"
    with WireClient(broker.port) as client:
        client.ask(
            CreateTopicsRequest(
                topics=[CreatableTopic(name=topic, num_partitions=-1, replication_factor=-1)]
            ),
            CreateTopicsResponse,
            4,
        )
        sent = build_batch([Record(0, 0, b"key", b"value")], base_offset=0)
        produced = client.produce(topic, sent).responses[0].partition_responses[0]
        assert (produced.error_code, produced.base_offset) == (ErrorCode.NONE, 0)
        fetched = client.fetch(topic, 0).responses[0].partitions[0].records
        assert fetched is not None
        assert bytes(fetched[CRC_START:]) == sent[CRC_START:]


def check_kept(broker: BrokerProcess, count: int) -> None:
    """All that the bystander produced is still there."""
    consumer = Consumer({"bootstrap.servers": broker.bootstrap, "group.id": "afterwards"})
    consumer.assign([TopicPartition(BYSTANDER, 0, 0)])
    number = 0
    while number < count:
        batch = consumer.consume(min(1000, count - number), timeout=30)
        assert batch, f"{number} of {count} messages came"
        for message in batch:
            assert message.error() is None, message.error()
            assert message.value() == content(number)
            number += 1
    consumer.close()


def check_log(broker: BrokerProcess, attack: Attack, talks: Talks) -> None:
    """No handler failed: an ERROR line or a traceback is a defect, and here is what caused it."""
    log = broker.log()
    failures = [line for line in log.splitlines() if _FAILURE.search(line)]
    report = []
    for line in failures[:_REPORTED]:
        at = log.index(line)
        report.append(log[at : at + 3000])
        peer = _PEER.search(line)
        if peer is None:
            continue
        port = int(peer[1])
        if port in talks.by_port:
            report.append("a talk:")
            report += map(describe, talks.by_port[port])
        if port in attack.by_port:
            plan = attack.plan(attack.by_port[port])
            report.append(f"session {plan.index}, {plan.manner.name}:")
            report += map(describe, plan.frames)
    assert not failures, "\n".join([f"{len(failures)} failures, seed {SEED}", *report])
