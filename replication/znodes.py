"""Paths and bodies of the metadata store's nodes: Kafka 2.3's, so that its tools can read them.

Bodies are compact JSON. Readers take what later (and earlier) Kafkas write; topic bodies are
written in version 3 (2.8+), which 2.3 reads as well, because only there a topic has an id.
"""

import binascii
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

from kavka.config.listeners import Endpoint
from kavka.protocol.schema import ZERO_UUID
from kavka.protocol.topics import TopicPartition
from kavka.replication.store.base import StoreError

CLUSTER_ID: Final = "/cluster/id"
BROKER_IDS: Final = "/brokers/ids"
BROKER_SEQUENCE: Final = "/brokers/seqid"
TOPICS: Final = "/brokers/topics"
CONTROLLER: Final = "/controller"
CONTROLLER_EPOCH: Final = "/controller_epoch"
DELETE_TOPICS: Final = "/admin/delete_topics"
REASSIGN_PARTITIONS: Final = "/admin/reassign_partitions"
PREFERRED_ELECTION: Final = "/admin/preferred_replica_election"
ISR_CHANGES: Final = "/isr_change_notification"
LOG_DIR_EVENTS: Final = "/log_dir_event_notification"
CONFIG: Final = "/config"
CONFIG_CHANGES: Final = "/config/changes"
PRODUCER_ID_BLOCK: Final = "/latest_producer_id_block"

PERSISTENT_PATHS: Final = (
    "/consumers",
    BROKER_IDS,
    TOPICS,
    CONFIG_CHANGES,
    DELETE_TOPICS,
    BROKER_SEQUENCE,
    ISR_CHANGES,
    PRODUCER_ID_BLOCK,
    LOG_DIR_EVENTS,
    "/config/topics",
    "/config/clients",
    "/config/users",
    "/config/brokers",
    "/config/ips",
)
"""What the first broker of a cluster creates."""

EntityType = Literal["topics", "clients", "users", "brokers", "ips"]
DEFAULT_ENTITY: Final = "<default>"

_SAFE: Final = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._")
_ESCAPED: Final = re.compile(rb"%([0-9A-Fa-f]{2})")


def broker_path(broker_id: int) -> str:
    return f"{BROKER_IDS}/{broker_id}"


def topic_path(topic: str) -> str:
    return f"{TOPICS}/{topic}"


def partitions_path(topic: str) -> str:
    return f"{TOPICS}/{topic}/partitions"


def partition_path(topic: str, partition: int) -> str:
    return f"{TOPICS}/{topic}/partitions/{partition}"


def state_path(topic: str, partition: int) -> str:
    return f"{TOPICS}/{topic}/partitions/{partition}/state"


def delete_topic_path(topic: str) -> str:
    return f"{DELETE_TOPICS}/{topic}"


def config_path(entity_type: EntityType, name: str) -> str:
    """Where an entity's overrides are. ``name`` may be a path itself: ``alice/clients/app``."""
    return f"{CONFIG}/{entity_type}/{name}"


def sanitize(name: str | None) -> str:
    """The node of a user, client id or address of that name; None is the default entity."""
    if name is None:
        return DEFAULT_ENTITY
    return "".join(chr(c) if c in _SAFE else f"%{c:02X}" for c in name.encode("utf-8", "replace"))


def desanitize(node: str) -> str | None:
    """The name that :func:`sanitize` made a node's name of, or Kafka's own sanitizer."""
    if node == DEFAULT_ENTITY:
        return None
    name = _ESCAPED.sub(lambda escaped: bytes((int(escaped[1], 16),)), node.encode())
    return name.decode("utf-8", "replace")


def sequence_number(name: str) -> int:
    """The number that the store appended to a sequence node's name."""
    return int(name[-10:])


# -- bodies -------------------------------------------------------------------------------------


class BadNode(StoreError):
    """A node whose body is not what its place calls for; the message names the node."""


def dump_body(body: Mapping[str, object]) -> bytes:
    """A node's body as Kafka writes it."""
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()


def load_body(path: str, data: bytes) -> dict[str, Any]:
    """The object that is the body of the node at ``path``. Raises BadNode."""
    try:
        body = json.loads(data)
    except ValueError as error:
        raise BadNode(f"{path} is not JSON: {error}") from None
    if not isinstance(body, dict):
        raise BadNode(f"{path} is not a JSON object")
    return body


def encode_uuid(value: bytes) -> str:
    """An id as Kafka writes it: 22 characters of URL-safe base 64."""
    text = binascii.b2a_base64(value, newline=False).decode()
    return text.rstrip("=").replace("+", "-").replace("/", "_")


def decode_uuid(text: str) -> bytes:
    """The sixteen bytes of an id. Raises ValueError."""
    value = binascii.a2b_base64(text.replace("-", "+").replace("_", "/") + "==")
    if len(value) != 16:
        raise ValueError(f"{text!r} is not an id")
    return value


def encode_cluster_id(cluster_id: str) -> bytes:
    return dump_body({"version": "1", "id": cluster_id})


def decode_cluster_id(data: bytes) -> str:
    """Raises BadNode."""
    try:
        return str(load_body(CLUSTER_ID, data)["id"])
    except KeyError:
        raise BadNode(f"{CLUSTER_ID} holds no id") from None


def encode_controller(broker_id: int, now_ms: int) -> bytes:
    return dump_body({"version": 1, "brokerid": broker_id, "timestamp": str(now_ms)})


def decode_controller(data: bytes) -> int:
    """The id of the broker that is the controller. Raises BadNode."""
    try:
        return int(load_body(CONTROLLER, data)["brokerid"])
    except (KeyError, TypeError, ValueError) as error:
        raise BadNode(f"{CONTROLLER} names no broker: {error!r}") from None


class Registration(NamedTuple):
    """What a broker says of itself."""

    endpoints: tuple[Endpoint, ...]
    rack: str | None = None


def encode_registration(registration: Registration, now_ms: int) -> bytes:
    plaintext = next((e for e in registration.endpoints if e.protocol == "PLAINTEXT"), None)
    body: dict[str, object] = {
        "listener_security_protocol_map": {e.name: e.protocol for e in registration.endpoints},
        "endpoints": [str(endpoint) for endpoint in registration.endpoints],
        "jmx_port": -1,
        "host": plaintext.host if plaintext is not None else None,
        "timestamp": str(now_ms),
        "port": plaintext.port if plaintext is not None else -1,
        "version": 4,
    }
    if registration.rack is not None:
        body["rack"] = registration.rack
    return dump_body(body)


def decode_registration(path: str, data: bytes) -> Registration:
    """Read any version of a registration. Raises BadNode."""
    body = load_body(path, data)
    try:
        if body["version"] == 1:
            plain = Endpoint("PLAINTEXT", "PLAINTEXT", body["host"], int(body["port"]))
            return Registration((plain,))
        protocols: Mapping[str, str] = body.get("listener_security_protocol_map") or {}
        endpoints: list[Endpoint] = []
        for text in body["endpoints"]:
            name, _, address = text.partition("://")
            host, _, port = address.rpartition(":")
            host = host.removeprefix("[").removesuffix("]")
            endpoints.append(Endpoint(name, protocols.get(name, name), host, int(port)))
        return Registration(tuple(endpoints), body.get("rack"))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise BadNode(f"{path} does not describe a broker: {error!r}") from None


class TopicNode(NamedTuple):
    """A topic: its id and the replicas of its partitions.

    ``adding`` and ``removing`` are those of partitions whose reassignment is under way.
    ``topic_id`` is zero for a topic made by a tool that knows no ids.
    """

    topic_id: bytes
    partitions: Mapping[int, Sequence[int]]
    adding: Mapping[int, Sequence[int]] = {}
    removing: Mapping[int, Sequence[int]] = {}


def encode_topic(topic: TopicNode) -> bytes:
    def by_number(replicas: Mapping[int, Sequence[int]]) -> dict[str, list[int]]:
        return {str(partition): list(replicas[partition]) for partition in sorted(replicas)}

    return dump_body(
        {
            "partitions": by_number(topic.partitions),
            "topic_id": encode_uuid(topic.topic_id),
            "adding_replicas": by_number(topic.adding),
            "removing_replicas": by_number(topic.removing),
            "version": 3,
        }
    )


def decode_topic(path: str, data: bytes) -> TopicNode:
    """Read any version of a topic. Raises BadNode."""
    body = load_body(path, data)

    def by_number(key: str) -> dict[int, tuple[int, ...]]:
        return {int(p): tuple(map(int, replicas)) for p, replicas in body.get(key, {}).items()}

    try:
        topic_id = decode_uuid(body["topic_id"]) if body.get("topic_id") else ZERO_UUID
        adding, removing = by_number("adding_replicas"), by_number("removing_replicas")
        return TopicNode(topic_id, by_number("partitions"), adding, removing)
    except (AttributeError, TypeError, ValueError) as error:
        raise BadNode(f"{path} does not describe a topic: {error!r}") from None


class StateNode(NamedTuple):
    """Who leads a partition and who is in sync."""

    leader: int
    leader_epoch: int
    isr: tuple[int, ...]
    controller_epoch: int


def encode_state(state: StateNode) -> bytes:
    return dump_body(
        {
            "controller_epoch": state.controller_epoch,
            "leader": state.leader,
            "version": 1,
            "leader_epoch": state.leader_epoch,
            "isr": list(state.isr),
        }
    )


def decode_state(path: str, data: bytes) -> StateNode:
    """Raises BadNode."""
    body = load_body(path, data)
    try:
        return StateNode(
            int(body["leader"]),
            int(body["leader_epoch"]),
            tuple(map(int, body["isr"])),
            int(body["controller_epoch"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise BadNode(f"{path} does not describe a partition: {error!r}") from None


def encode_config(overrides: Mapping[str, str]) -> bytes:
    return dump_body({"version": 1, "config": dict(overrides)})


def decode_config(path: str, data: bytes) -> dict[str, str]:
    """Raises BadNode. An empty node has no overrides."""
    if not data:
        return {}
    body = load_body(path, data)
    config = body.get("config")
    if not isinstance(config, dict):
        raise BadNode(f"{path} does not hold a configuration")
    return {str(name): str(value) for name, value in config.items()}


def encode_config_change(entity_type: EntityType, name: str) -> bytes:
    return dump_body({"version": 2, "entity_path": f"{entity_type}/{name}"})


def decode_config_change(path: str, data: bytes) -> tuple[str, str]:
    """Type and name of the entity whose overrides have changed. Raises BadNode."""
    body = load_body(path, data)
    try:
        if body["version"] == 1:
            return str(body["entity_type"]), str(body["entity_name"])
        entity_type, _, name = str(body["entity_path"]).partition("/")
    except KeyError as error:
        raise BadNode(f"{path} does not name what has changed: {error!r}") from None
    return entity_type, name


def encode_producer_id_block(broker_id: int, first: int, last: int) -> bytes:
    return dump_body(
        {"version": 1, "broker": broker_id, "block_start": str(first), "block_end": str(last)}
    )


def decode_producer_id_block(data: bytes) -> int:
    """The last producer id of the block that was reserved last. Raises BadNode."""
    body = load_body(PRODUCER_ID_BLOCK, data)
    try:
        return int(body["block_end"])
    except (KeyError, TypeError, ValueError) as error:
        raise BadNode(f"{PRODUCER_ID_BLOCK} holds no block of ids: {error!r}") from None


def decode_partitions(path: str, data: bytes) -> list[TopicPartition]:
    """The partitions of a preferred election or a notification of ISR changes. Raises BadNode."""
    body = load_body(path, data)
    try:
        return [TopicPartition(p["topic"], int(p["partition"])) for p in body["partitions"]]
    except (KeyError, TypeError, ValueError) as error:
        raise BadNode(f"{path} does not list partitions: {error!r}") from None


def encode_partitions(partitions: Iterable[TopicPartition]) -> bytes:
    return dump_body(
        {"version": 1, "partitions": [partition._asdict() for partition in partitions]}
    )


def encode_log_dir_event(broker_id: int) -> bytes:
    return dump_body({"version": 1, "broker": broker_id, "event": 1})


def decode_log_dir_event(path: str, data: bytes) -> int:
    """The broker one of whose log directories has failed. Raises BadNode."""
    body = load_body(path, data)
    try:
        return int(body["broker"])
    except (KeyError, TypeError, ValueError) as error:
        raise BadNode(f"{path} names no broker: {error!r}") from None


def encode_reassignment(targets: Mapping[TopicPartition, Sequence[int]]) -> bytes:
    partitions = [{**tp._asdict(), "replicas": list(target)} for tp, target in targets.items()]
    return dump_body({"version": 1, "partitions": partitions})


def decode_reassignment(path: str, data: bytes) -> dict[TopicPartition, tuple[int, ...]]:
    """The partitions of a reassignment and their new replicas. Raises BadNode."""
    body = load_body(path, data)
    try:
        return {
            TopicPartition(p["topic"], int(p["partition"])): tuple(map(int, p["replicas"]))
            for p in body["partitions"]
        }
    except (KeyError, TypeError, ValueError) as error:
        raise BadNode(f"{path} does not describe a reassignment: {error!r}") from None
