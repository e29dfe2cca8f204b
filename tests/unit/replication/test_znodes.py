"""Bodies of nodes: byte for byte as Kafka 2.3 writes them, readable in all its versions."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kavka.config.listeners import Endpoint
from kavka.protocol.schema import ZERO_UUID
from kavka.protocol.topics import TopicPartition
from kavka.replication import znodes
from kavka.replication.znodes import BadNode, Registration, StateNode, TopicNode


def test_bodies_are_kafkas() -> None:
    assert znodes.encode_state(StateNode(1, 4, (1, 2), 9)) == (
        b'{"controller_epoch":9,"leader":1,"version":1,"leader_epoch":4,"isr":[1,2]}'
    )
    assert znodes.encode_controller(3, 1500000000000) == (
        b'{"version":1,"brokerid":3,"timestamp":"1500000000000"}'
    )
    assert znodes.encode_cluster_id("abc") == b'{"version":"1","id":"abc"}'
    assert znodes.encode_config({"k": "v"}) == b'{"version":1,"config":{"k":"v"}}'
    assert znodes.encode_config_change("topics", "t") == (b'{"version":2,"entity_path":"topics/t"}')
    assert znodes.encode_producer_id_block(1, 0, 999) == (
        b'{"version":1,"broker":1,"block_start":"0","block_end":"999"}'
    )
    assert znodes.encode_partitions([TopicPartition("t", 0)]) == (
        b'{"version":1,"partitions":[{"topic":"t","partition":0}]}'
    )


def test_registration() -> None:
    registration = Registration(
        (
            Endpoint("PLAINTEXT", "PLAINTEXT", "a.example", 9092),
            Endpoint("SECURE", "SASL_SSL", "::1", 9093),
        ),
        "rack1",
    )
    data = znodes.encode_registration(registration, 77)
    assert json.loads(data) == {
        "listener_security_protocol_map": {"PLAINTEXT": "PLAINTEXT", "SECURE": "SASL_SSL"},
        "endpoints": ["PLAINTEXT://a.example:9092", "SECURE://[::1]:9093"],
        "jmx_port": -1,
        "host": "a.example",
        "timestamp": "77",
        "port": 9092,
        "version": 4,
        "rack": "rack1",
    }
    assert znodes.decode_registration("/brokers/ids/1", data) == registration


def test_registration_without_plaintext() -> None:
    body = json.loads(znodes.encode_registration(Registration((Endpoint("S", "SSL", "h", 1),)), 0))
    assert (body["host"], body["port"]) == (None, -1)
    assert "rack" not in body


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b'{"version":1,"host":"h","port":9092}', Endpoint("PLAINTEXT", "PLAINTEXT", "h", 9092)),
        (b'{"version":2,"endpoints":["SSL://h:9093"]}', Endpoint("SSL", "SSL", "h", 9093)),
        (
            b'{"version":5,"endpoints":["X://h:1"],"features":{},'
            b'"listener_security_protocol_map":{"X":"SSL"}}',
            Endpoint("X", "SSL", "h", 1),
        ),
    ],
)
def test_registrations_of_other_versions(data: bytes, expected: Endpoint) -> None:
    assert znodes.decode_registration("/brokers/ids/1", data).endpoints == (expected,)


def test_topics_of_other_versions() -> None:
    old = b'{"version":1,"partitions":{"1":[2,1],"0":[1]}}'
    assert znodes.decode_topic("/t", old) == TopicNode(ZERO_UUID, {0: (1,), 1: (2, 1)})
    middle = (
        b'{"version":2,"partitions":{"0":[1,2]},"adding_replicas":{"0":[2]},"removing_replicas":{}}'
    )
    assert znodes.decode_topic("/t", middle) == TopicNode(ZERO_UUID, {0: (1, 2)}, {0: (2,)}, {})


REPLICAS = st.dictionaries(
    st.integers(0, 300), st.lists(st.integers(0, 9), unique=True).map(tuple), max_size=4
)


@given(st.binary(min_size=16, max_size=16), REPLICAS, REPLICAS, REPLICAS)
def test_topics_come_back(
    topic_id: bytes,
    partitions: dict[int, tuple[int, ...]],
    adding: dict[int, tuple[int, ...]],
    removing: dict[int, tuple[int, ...]],
) -> None:
    topic = TopicNode(topic_id, partitions, adding, removing)
    assert znodes.decode_topic("/t", znodes.encode_topic(topic)) == topic
    assert len(znodes.encode_uuid(topic_id)) == 22


def test_config_changes_of_both_versions() -> None:
    path = "/config/changes/config_change_0000000001"
    data = b'{"version":2,"entity_path":"users/alice/clients/app"}'
    assert znodes.decode_config_change(path, data) == ("users", "alice/clients/app")
    data = b'{"version":1,"entity_type":"topics","entity_name":"t"}'
    assert znodes.decode_config_change(path, data) == ("topics", "t")


def test_reassignments() -> None:
    data = b'{"version":1,"partitions":[{"topic":"t","partition":0,"replicas":[1,2]}]}'
    assert znodes.decode_reassignment("/r", data) == {TopicPartition("t", 0): (1, 2)}


def test_sequence_numbers() -> None:
    assert znodes.sequence_number("config_change_0000000017") == 17


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"{}", b'{"version":1}', b"\xff", b"7"])
def test_what_is_no_body_is_told_as_such(data: bytes) -> None:
    decoders = [
        znodes.decode_state,
        znodes.decode_registration,
        znodes.decode_partitions,
        znodes.decode_reassignment,
        znodes.decode_config_change,
    ]
    for decode in decoders:
        with pytest.raises(BadNode, match="/path"):
            decode("/path", data)


@pytest.mark.parametrize(
    "data", [b"{", b'{"partitions":7}', b'{"partitions":{"x":[1]}}', b'{"topic_id":"short"}']
)
def test_what_is_no_topic_is_told_as_such(data: bytes) -> None:
    with pytest.raises(BadNode, match="/path"):
        znodes.decode_topic("/path", data)


def test_names_of_entities_are_those_of_kafkas_sanitizer() -> None:
    """What ``Sanitizer.sanitize`` makes of them: URLEncoder, with two characters more."""
    for name, node in {
        "alice": "alice",
        "CN=a,O=b c": "CN%3Da%2CO%3Db%20c",
        "a+b*c": "a%2Bb%2Ac",
        "~-_.": "%7E-_.",
        "käse": "k%C3%A4se",
        "<default>": "%3Cdefault%3E",
        "a/b": "a%2Fb",
        None: "<default>",
    }.items():
        assert znodes.sanitize(name) == node
        assert znodes.desanitize(node) == name
    assert znodes.desanitize("100%") == "100%"
    assert znodes.desanitize("%zz%41") == "%zzA"


@given(st.text(st.characters(codec="utf-8")))
def test_names_of_entities_come_back(name: str) -> None:
    assert znodes.desanitize(znodes.sanitize(name)) == name
