"""Requests with plausible values, made from our own declarations.

Pure noise ends in the first length check. To get behind the decoders, names are those of topics
and groups that exist, partitions and offsets lie where records are, and record data is mostly
well-formed; beside them come the values that programs get wrong: limits, negative numbers, null.
"""

import random
import time
from collections.abc import Callable
from typing import Any, Final

from kavka.protocol import codec
from kavka.protocol.messages.consumer_protocol import ConsumerProtocolSubscription
from kavka.protocol.records import compression
from kavka.protocol.records.batch import (
    CRC_OFFSET,
    CRC_START,
    Record,
    build_batch,
)
from kavka.protocol.records.crc import crc32c
from kavka.protocol.records.legacy import build_message_set
from kavka.protocol.schema import ZERO_UUID, Field, Message, Struct

BROKER_ID: Final = "1"

TOPICS: Final[dict[str, dict[str, str]]] = {
    "fuzz-plain": {},
    "fuzz-compacted": {"cleanup.policy": "compact"},
    "fuzz-recompressed": {"compression.type": "gzip"},
    "fuzz-append-time": {"message.timestamp.type": "LogAppendTime"},
    "fuzz-bounded-time": {"message.timestamp.difference.max.ms": "3600000"},
    "fuzz-rolling": {"segment.bytes": "2000", "index.interval.bytes": "100"},
    "fuzz-synced": {"flush.messages": "1"},
    "fuzz-demanding": {"min.insync.replicas": "2"},
    "fuzz-small": {"max.message.bytes": "300"},
}
"""The topics that are there from the start, and what makes each of them different."""

INTERNAL: Final = ("__consumer_offsets", "__transaction_state")
# Who deletes or extends these topics does break the promises made to other clients.
ADMINISTRATION: Final = (20, 33, 37, 44, 45)
STRANGERS: Final = (
    "fuzz-made-1",
    "fuzz-made-2",
    "fuzz_made_3",
    "",
    ".",
    "..",
    "fuzz/../../../escape",
    "fuzz\0nul",
    "fuzz-" + "x" * 245,
    "ümläut",
)
GROUPS: Final = ("fuzz-group-1", "fuzz-group-2", "fuzz-group-3", "", "g" * 9000)
MEMBERS: Final = ("", "fuzz-member-1", "fuzz-member-2")
INSTANCES: Final = ("fuzz-instance-1", "fuzz-instance-2", "")
TRANSACTIONAL: Final = ("fuzz-transaction-1", "fuzz-transaction-2", "")
TEXTS: Final = ("", "fuzz", "*", "a,b", "\U0001f4a3", "x" * 300)

TOPIC_SETTINGS: Final = (
    ("cleanup.policy", ("compact", "delete", "compact,delete", "none", "")),
    ("compression.type", ("gzip", "producer", "zstd", "uncompressed", "rar")),
    ("flush.messages", ("1", "9223372036854775807")),
    ("max.message.bytes", ("0", "100", "1000000", "-1")),
    ("message.downconversion.enable", ("true", "false", "maybe")),
    ("message.timestamp.type", ("CreateTime", "LogAppendTime")),
    ("message.timestamp.difference.max.ms", ("0", "1000", "9223372036854775807")),
    ("min.insync.replicas", ("1", "2", "0")),
    ("retention.bytes", ("-1", "0", "1000")),
    ("retention.ms", ("-1", "0", "60000", "one")),
    ("segment.bytes", ("14", "1000", "2147483647", "99999999999")),
    ("segment.index.bytes", ("0", "12", "1000")),
    ("segment.ms", ("1", "1000")),
    ("no.such.setting", ("x",)),
)
# What may be changed for the whole broker without breaking a promise to its other clients.
BROKER_SETTINGS: Final = (
    ("log.cleaner.threads", ("1", "2", "0")),
    ("num.io.threads", ("8", "x")),
    ("log.segment.delete.delay.ms", ("1000", "60000")),
    ("no.such.setting", ("x",)),
)
_TOPIC, _BROKER, _LOGGER = 2, 4, 8  # resource types that have settings

_LIMITS: Final = {
    "int8": (-1, 0, 1, 2, 3, 127, -128),
    "int16": (-1, 0, 1, 2, 100, 2**15 - 1, -(2**15)),
    "uint16": (0, 1, 9092, 2**16 - 1),
    "int32": (-1, 0, 1, 2, 3, 100, 2**31 - 1, -(2**31)),
    "uint32": (0, 1, 2**32 - 1),
    "int64": (-1, 0, 1, 2, 50, 10**13, 2**63 - 1, -(2**63), -2, -3, -4, -5),
    "float64": (0.0, -1.0, 1e308, float("nan"), float("inf")),
}
_CODECS: Final = (
    compression.NONE,
    compression.NONE,
    compression.NONE,
    compression.GZIP,
    compression.SNAPPY,
    compression.LZ4,
    compression.ZSTD,
)


def _fits(field: Field, value: object, version: int) -> bool:
    """Whether a value meant for fields of this name can be in this one of them."""
    if value is None:
        return field.nullable(version)
    if field.kind == "string":
        return isinstance(value, str)
    return field.kind not in _LIMITS or isinstance(value, (int, float))


class Values:
    """Draws requests. The same seed and topic ids draw the same requests."""

    def __init__(self, rng: random.Random, topic_ids: dict[str, bytes]) -> None:
        self._rng = rng
        self._may_be_internal = True
        self.learned: dict[str, Any] = {}
        """Values that the broker itself has named, by field; most such fields get them."""
        self._topics = (*TOPICS, *TOPICS, *TOPICS, *STRANGERS)
        self._ids = (*topic_ids.values(), ZERO_UUID, b"no such topic id")
        self._start_ms = int(time.time() * 1000)

        def one_of(*choices: Any) -> Callable[[], Any]:
            return lambda: rng.choice(choices)

        topic = self._topic
        group, member = one_of(*GROUPS), one_of(*MEMBERS)
        number = one_of(0, 0, 0, 1, 2, -1, 50, 2**31 - 1)
        wait_ms = one_of(0, 1, 20, 50)
        self._by_name: dict[str, Callable[[], Any]] = {
            # names
            **dict.fromkeys(("name", "topic", "topic_name", "topic_names"), topic),
            **dict.fromkeys(("group_id", "groups", "groups_names"), group),
            **dict.fromkeys(("key", "coordinator_keys"), one_of(*GROUPS, *TRANSACTIONAL)),
            "member_id": member,
            "group_instance_id": one_of(None, None, *INSTANCES),
            "transactional_id": one_of(None, None, None, *TRANSACTIONAL),
            "transactional_ids": one_of(*TRANSACTIONAL),
            "v3_and_below_transactional_id": one_of(*TRANSACTIONAL),
            "protocol_type": one_of("consumer", "consumer", "connect", ""),
            "protocol_name": one_of("range", "roundrobin", ""),
            "mechanism": one_of("PLAIN", "SCRAM-SHA-256", "GSSAPI"),
            "client_software_name": one_of("fuzz", "apache-kafka-java", "not allowed!"),
            "client_software_version": one_of("1.0", "", "-"),
            "path": one_of("/tmp", "", "/no/such/dir"),
            "states_filter": one_of("Stable", "Empty", "Nonsense"),
            "types_filter": one_of("classic", "consumer", "Nonsense"),
            # places
            **dict.fromkeys(("index", "partition", "partition_index"), number),
            **dict.fromkeys(("partition_indexes", "partitions"), number),
            **dict.fromkeys(("broker_ids", "replicas"), one_of(1, 1, 1, 2, -1)),
            "broker_id": one_of(1, 2, -1),
            "topic_id": one_of(*self._ids),
            "fetch_offset": one_of(0, 0, 1, 5, 40, 10**6, -1),
            "offset": one_of(0, 1, 5, -1, 10**6, -2),
            "committed_offset": one_of(0, 1, 5, -1, 2**63 - 1),
            **dict.fromkeys(("leader_epoch", "current_leader_epoch"), one_of(-1, -1, 0, 1, 7)),
            "last_fetched_epoch": one_of(-1, -1, 0, 5),
            "replica_id": one_of(-1, -1, -1, -2, 1, 5),
            # amounts and times that do not keep the run waiting
            "max_wait_ms": wait_ms,
            "timeout_ms": one_of(0, 100, 1000, -1),
            **dict.fromkeys(
                ("session_timeout_ms", "rebalance_timeout_ms"), one_of(300, 300, 1000, 0, -1)
            ),
            "max_bytes": one_of(0, 1, 500, 10**6, 2**31 - 1, -1),
            "partition_max_bytes": one_of(0, 1, 500, 10**6, 2**31 - 1, -1),
            "min_bytes": one_of(0, 1, 1, 1000, 2**31 - 1),
            "num_partitions": one_of(1, 2, 3, -1, 0),
            "count": one_of(1, 2, 3, 4, 0, -1),
            "replication_factor": one_of(1, 1, -1, 2, 0),
            "acks": one_of(-1, 1, 1, 0, 2),
            # numbers that name something
            "session_id": one_of(0, 0, 0, 1, 12345),
            "session_epoch": one_of(-1, -1, 0, 0, 1),
            **dict.fromkeys(
                ("generation_id", "generation_id_or_member_epoch"), one_of(-1, 0, 1, 2)
            ),
            "producer_id": one_of(-1, 0, 1, 2, 1000),
            "producer_epoch": one_of(-1, 0, 0, 1),
            "key_type": one_of(0, 0, 1, 2),
            "isolation_level": one_of(0, 1, 1, 2),
            "election_type": one_of(0, 1, 2),
            "config_operation": one_of(0, 0, 1, 2, 3, 4),
            "metadata": self._subscription,
            "records": self.record_data,
        }

    def request(self, cls: type[Message], version: int) -> Message:
        """A request that can be encoded for ``version``."""
        self._may_be_internal = cls.API_KEY not in ADMINISTRATION
        message: Message = self._struct(cls, version)
        return message

    def _struct(self, cls: type[Struct], version: int) -> Any:
        message = cls()
        for field in cls.FIELDS:
            tagged_out = field.tag is not None and self._rng.random() < 0.7
            if field.present(version) and not tagged_out:
                setattr(message, field.name, self._value(field, version))
        self._fit_settings(message)
        return message

    def _value(self, field: Field, version: int) -> Any:
        rng = self._rng
        if field.nullable(version) and rng.random() < 0.15:
            return None
        if field.kind == "array":
            return [self._element(field, version) for _ in range(rng.choice((0, 1, 1, 1, 2, 3)))]
        if field.kind == "struct":
            assert isinstance(field.element, type)
            return self._struct(field.element, version)
        return self._leaf(field, field.name, version)

    def _element(self, field: Field, version: int) -> Any:
        if isinstance(field.element, Field):
            return self._leaf(field.element, field.name, version)
        assert field.element is not None
        return self._struct(field.element, version)

    def _leaf(self, field: Field, name: str, version: int) -> Any:
        rng = self._rng
        if name in self.learned and rng.random() < 0.9:
            value = self.learned[name]
            if _fits(field, value, version):
                return value
        known = self._by_name.get(name)
        if known is not None and rng.random() < 0.95:
            value = known()
            if _fits(field, value, version):
                return value
        if field.kind == "bool":
            return rng.random() < 0.5
        if field.kind == "string":
            return rng.choice(TEXTS)
        if field.kind in ("bytes", "records"):
            return rng.randbytes(rng.choice((0, 1, 20, 200)))
        if field.kind == "uuid":
            return rng.choice(self._ids)
        return rng.choice(_LIMITS[field.kind])

    def _fit_settings(self, message: Any) -> None:
        """Let names, values and kinds of settings go together.

        The broker's own are changed for show only where a change could break what other clients
        were promised; and the log, which is the judge of the run, is not to be silenced.
        """
        name = type(message).__name__
        if name == "CreatableTopicConfig":
            message.name, message.value = self._setting(TOPIC_SETTINGS)
        elif name in ("AlterConfigsResource", "DescribeConfigsResource"):
            kind = message.resource_type = self._rng.choice(
                (_TOPIC, _TOPIC, _TOPIC, _BROKER, _LOGGER, 0, 3, 99)
            )
            if kind == _BROKER:
                message.resource_name = self._rng.choice((BROKER_ID, "", "2", "x"))
            else:
                # A broker's id would make the change of a logger's level valid.
                message.resource_name = self.learned.get("resource_name") or self._topic()
            for config in getattr(message, "configs", ()):
                table = BROKER_SETTINGS if kind == _BROKER else TOPIC_SETTINGS
                config.name, config.value = self._setting(table)
        elif name == "JoinGroupRequestProtocol":
            message.name = self._rng.choice(("range", "roundrobin", "range", ""))

    def _topic(self) -> str:
        if "topic" in self.learned and self._rng.random() < 0.7:
            name: str = self.learned["topic"]
            return name
        if self._may_be_internal and self._rng.random() < 0.1:
            return self._rng.choice(INTERNAL)
        return self._rng.choice(self._topics)

    def _setting(self, table: tuple[tuple[str, tuple[str, ...]], ...]) -> tuple[str, str | None]:
        name, values = self._rng.choice(table)
        return name, None if self._rng.random() < 0.1 else self._rng.choice(values)

    def _subscription(self) -> bytes:
        topics = [self._topic() for _ in range(2)]
        version = self._rng.randrange(4)
        body = codec.encode(ConsumerProtocolSubscription(topics=topics), version)
        return version.to_bytes(2) + body

    # -- record data ----------------------------------------------------------------------

    def record_data(self) -> bytes:
        """What one partition of a Produce carries; half of it is sound."""
        rng = self._rng
        data = bytearray()
        for _ in range(rng.choice((1, 1, 1, 1, 2))):
            data += self._message_set() if rng.random() < 0.25 else self._batch()
        if rng.random() < 0.05:
            return bytes(data[: rng.randrange(len(data) + 1)])
        return bytes(data)

    def _records(self) -> list[Record]:
        rng = self._rng
        count = rng.choice((1, 1, 2, 3, 10, 300))
        step = rng.choice((1, 1, 1, 1, 2))
        records = []
        for i in range(count):
            key = rng.choice((None, b"", b"k1", b"k2", b"k3"))
            value = rng.choice((None, b"", b"value", bytes(rng.choice((10, 500, 5000)))))
            headers = ((("h", b"x"), ("h", None)),) if rng.random() < 0.2 else ((),)
            stamp = self._start_ms + rng.choice((0, 0, 0, -1, i, -(10**10), 10**10))
            records.append(Record(i * step, stamp, key, value, *headers))
        return records

    def _next_batch(self) -> bytes:
        """What the producer that was learned of would send next, or has sent already."""
        rng, learned = self._rng, self.learned
        records = self._records()
        batch = build_batch(
            records,
            base_offset=0,
            codec=rng.choice(_CODECS),
            producer_id=learned["producer_id"],
            producer_epoch=learned["producer_epoch"],
            base_sequence=learned["next_sequence"],
            transactional=rng.random() < 0.4,
        )
        if rng.random() < 0.8:
            learned["next_sequence"] += len(records)
        return batch

    def _batch(self) -> bytes:
        """A record batch; one in two has something wrong in it under a valid checksum."""
        if "producer_id" in self.learned and self._rng.random() < 0.7:
            return self._next_batch()
        rng = self._rng
        idempotent = rng.random() < 0.3
        batch = bytearray(
            build_batch(
                self._records(),
                base_offset=0,
                codec=rng.choice(_CODECS),
                producer_id=rng.choice((0, 1, 2, 1000)) if idempotent else -1,
                producer_epoch=rng.choice((0, 0, 1)) if idempotent else -1,
                base_sequence=rng.choice((0, 0, 1, 5, 2**31 - 1)) if idempotent else -1,
                transactional=rng.random() < 0.05,
                control=rng.random() < 0.03,
                timestamp_type=int(rng.random() < 0.05),
            )
        )
        if rng.random() < 0.5:
            for _ in range(rng.choice((1, 1, 2, 5))):
                at = rng.randrange(CRC_START, len(batch))
                batch[at] = rng.choice((batch[at] ^ 1 << rng.randrange(8), 0, 0xFF, 0x80))
            if rng.random() < 0.8:
                batch[CRC_OFFSET:CRC_START] = crc32c(batch[CRC_START:]).to_bytes(4)
        return bytes(batch)

    def _message_set(self) -> bytes:
        """Records in format 0 or 1, as old producers send them."""
        rng = self._rng
        data = bytearray(
            build_message_set(self._records(), rng.randrange(2), codec=rng.choice(_CODECS[:-1]))
        )
        if rng.random() < 0.4:
            at = rng.randrange(len(data))
            data[at] = rng.choice((data[at] ^ 1 << rng.randrange(8), 0, 0xFF, 0x80))
        return bytes(data)
