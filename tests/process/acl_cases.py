"""What each API needs, as data: the table of the security reference §3.5, one case a question.

A case is asked in every version the broker offers, by three users: one who has no rights, one who
may describe everything, and one who has exactly what the case ``needs``.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from kavka.broker.authorization import CLUSTER_NAME, Operation, Resource
from kavka.protocol.records.batch import Record, build_batch

Right = tuple[Resource, str, Operation]
Fields = Mapping[str, Any]

TOPIC = "t-there"
MISSING = "t-missing"
GROUP = "g-there"
TRANSACTION = "x-there"
BROKER_ID = "1"

OK = 0
TOPIC_DENIED, GROUP_DENIED, CLUSTER_DENIED, TRANSACTION_DENIED, TOKEN_DENIED = 29, 30, 31, 53, 65
NOT_ATTEMPTED = 55
DENIALS = {TOPIC_DENIED, GROUP_DENIED, CLUSTER_DENIED, TRANSACTION_DENIED, TOKEN_DENIED}
ILLEGAL_SASL_STATE = 34

_O = Operation


def _topic(operation: Operation, name: str = TOPIC) -> Right:
    return Resource.TOPIC, name, operation


def _group(operation: Operation) -> Right:
    return Resource.GROUP, GROUP, operation


def _cluster(operation: Operation) -> Right:
    return Resource.CLUSTER, CLUSTER_NAME, operation


def _transaction(operation: Operation) -> Right:
    return Resource.TRANSACTIONAL_ID, TRANSACTION, operation


class Case(NamedTuple):
    """One question to one API.

    ``fields`` makes the request, given the name and the id of a topic. ``denied`` and
    ``describer`` are the codes that the user without rights, and the one who may describe
    everything, get (0: no code of a denial); ``partly`` the codes of users with fewer rights than
    the case needs.
    """

    key: int
    name: str
    fields: Callable[[str, bytes], Fields]
    needs: Sequence[Right]
    denied: int
    describer: int
    versions: tuple[int, int] = (0, 99)
    partly: Sequence[tuple[Sequence[Right], int]] = ()
    names_topic: bool = False  # then what is answered must not tell whether the topic exists
    silent_before: int = 0  # versions before have no place for the code, and tell nothing


def records(*, transactional: bool = False) -> bytes:
    record = Record(0, 1_700_000_000_000, b"k", b"v", ())
    if not transactional:
        return build_batch([record], base_offset=0)
    return build_batch(
        [record],
        base_offset=0,
        producer_id=7,
        producer_epoch=0,
        base_sequence=0,
        transactional=True,
    )


def _produce(topic: str, transactional_id: str | None = None) -> Fields:
    data = records(transactional=transactional_id is not None)
    return {
        "transactional_id": transactional_id,
        "acks": 1,
        "timeout_ms": 1000,
        "topic_data": [{"name": topic, "partition_data": [{"index": 0, "records": data}]}],
    }


def _fetch(topic: str, topic_id: bytes, replica_id: int = -1) -> Fields:
    return {
        "replica_id": replica_id,
        "replica_state": None if replica_id < 0 else {"replica_id": replica_id},
        "min_bytes": 0,
        "topics": [
            {
                "topic": topic,
                "topic_id": topic_id,
                "partitions": [{"partition": 0, "partition_max_bytes": 1000}],
            }
        ],
    }


def _offset_commit(topic: str) -> Fields:
    partition = {"partition_index": 0, "committed_offset": 1, "committed_metadata": ""}
    return {"group_id": GROUP, "topics": [{"name": topic, "partitions": [partition]}]}


def _offset_fetch(topic: str) -> Fields:
    topics = [{"name": topic, "partition_indexes": [0]}]
    group = {"group_id": GROUP, "topics": topics}
    return {"group_id": GROUP, "topics": topics, "groups": [group]}


def _coordinator(key: str, kind: int) -> Fields:
    return {"key": key, "key_type": kind, "coordinator_keys": [key]}


def _config(kind: int, name: str) -> Fields:
    return {"resources": [{"resource_type": kind, "resource_name": name}]}


def _add_partitions(topic: str) -> Fields:
    topics = [{"name": topic, "partitions": [0]}]
    return {
        "v3_and_below_transactional_id": TRANSACTION,
        "v3_and_below_topics": topics,
        "transactions": [{"transactional_id": TRANSACTION, "verify_only": True, "topics": topics}],
    }


def _offset_delete(topic: str) -> Fields:
    return {
        "group_id": GROUP,
        "topics": [{"name": topic, "partitions": [{"partition_index": 0}]}],
    }


_ACL = {
    "resource_type": Resource.TOPIC,
    "resource_name": "t-acl",
    "principal": "User:x",
    "host": "*",
    "operation": Operation.READ,
    "permission_type": 3,
}
_ACL_FILTER = {
    "resource_type_filter": Resource.TOPIC,
    "resource_name_filter": "t-acl",
    "principal_filter": "User:x",
    "host_filter": "*",
    "operation": Operation.READ,
    "permission_type": 3,
}
_MARKER = {
    "producer_id": 7,
    "topics": [{"name": MISSING, "partition_indexes": [0]}],
}
_QUOTA = {
    "entity": [{"entity_type": "user", "entity_name": "nobody"}],
    "ops": [{"key": "producer_byte_rate", "value": 0.0, "remove": True}],
}

CASES: list[Case] = [
    Case(
        *(0, "records", lambda topic, _: _produce(topic), [_topic(_O.WRITE)]),
        *(TOPIC_DENIED, TOPIC_DENIED),
        names_topic=True,
    ),
    Case(
        *(0, "records of a transaction", lambda topic, _: _produce(topic, TRANSACTION)),
        [_topic(_O.WRITE), _transaction(_O.WRITE)],
        *(TRANSACTION_DENIED, TRANSACTION_DENIED, (3, 99)),
        [([_topic(_O.WRITE)], TRANSACTION_DENIED), ([_transaction(_O.WRITE)], TOPIC_DENIED)],
    ),
    Case(
        *(1, "consumer", _fetch, [_topic(_O.READ)], TOPIC_DENIED, TOPIC_DENIED),
        versions=(0, 12),
        names_topic=True,
    ),
    Case(
        *(1, "consumer, by id", _fetch, [_topic(_O.READ)], TOPIC_DENIED, TOPIC_DENIED),
        versions=(13, 99),
    ),
    Case(
        *(1, "follower", lambda topic, topic_id: _fetch(topic, topic_id, 1)),
        [_cluster(_O.CLUSTER_ACTION)],
        *(TOPIC_DENIED, TOPIC_DENIED),
        partly=[([_topic(_O.READ)], TOPIC_DENIED)],
    ),
    Case(
        *(2, "offsets", lambda topic, _: _named(topic, {"timestamp": -1, "max_num_offsets": 1})),
        *([_topic(_O.DESCRIBE)], TOPIC_DENIED, OK),
        names_topic=True,
    ),
    Case(
        *(3, "by name", lambda topic, _: _metadata(topic, create=False)),
        *([_topic(_O.DESCRIBE)], TOPIC_DENIED, OK),
        versions=(4, 99),
        names_topic=True,
    ),
    Case(
        *(3, "automatic creation", lambda topic, _: _metadata("t-automatic", create=True)),
        [_topic(_O.CREATE, "t-automatic"), _topic(_O.DESCRIBE, "t-automatic")],
        *(TOPIC_DENIED, TOPIC_DENIED),
        partly=[([_topic(_O.CREATE, "t-automatic")], TOPIC_DENIED)],
    ),
    Case(
        *(3, "all topics", lambda topic, _: {"topics": None}, [], OK, OK),
        versions=(1, 99),
    ),
    *(
        Case(key, "", lambda *_: {}, [_cluster(_O.CLUSTER_ACTION)], CLUSTER_DENIED, CLUSTER_DENIED)
        for key in (4, 5, 6, 7)
    ),
    Case(
        *(8, "", lambda topic, _: _offset_commit(topic)),
        [_group(_O.READ), _topic(_O.READ)],
        *(GROUP_DENIED, GROUP_DENIED),
        partly=[
            ([_group(_O.READ)], TOPIC_DENIED),
            ([_topic(_O.READ)], GROUP_DENIED),
        ],
        names_topic=True,
    ),
    Case(
        *(9, "", lambda topic, _: _offset_fetch(topic)),
        [_group(_O.DESCRIBE), _topic(_O.DESCRIBE)],
        *(GROUP_DENIED, OK),
        partly=[
            ([_group(_O.DESCRIBE)], TOPIC_DENIED),
            ([_topic(_O.DESCRIBE)], GROUP_DENIED),
        ],
        names_topic=True,
    ),
    Case(
        *(9, "all topics", lambda *_: {"group_id": GROUP, "topics": None, "groups": _all_of()}),
        *([_group(_O.DESCRIBE)], GROUP_DENIED, OK),
        versions=(2, 99),
    ),
    Case(
        *(10, "group", lambda *_: _coordinator(GROUP, 0)),
        *([_group(_O.DESCRIBE)], GROUP_DENIED, OK),
    ),
    Case(
        *(10, "transaction", lambda *_: _coordinator(TRANSACTION, 1)),
        *([_transaction(_O.DESCRIBE)], TRANSACTION_DENIED, OK),
        versions=(1, 99),
    ),
    *(
        Case(
            *(key, "", lambda *_: {"group_id": GROUP, "member_id": "nobody"}),
            *([_group(_O.READ)], GROUP_DENIED, GROUP_DENIED),
        )
        for key in (11, 12, 13, 14)
    ),
    Case(
        *(15, "", lambda *_: {"groups": [GROUP]}, [_group(_O.DESCRIBE)]),
        *(GROUP_DENIED, OK),
    ),
    Case(16, "", lambda *_: {}, [], OK, OK),
    Case(17, "", lambda *_: {"mechanism": "PLAIN"}, [], OK, OK),
    Case(18, "", lambda *_: _SOFTWARE, [], OK, OK),
    Case(
        *(19, "", lambda topic, _: _new_topic(MISSING), [_topic(_O.CREATE, MISSING)]),
        *(TOPIC_DENIED, TOPIC_DENIED),
        versions=(1, 99),  # which can be asked only to check
    ),
    Case(
        *(19, "with the cluster's leave", lambda topic, _: _new_topic(MISSING)),
        *([_cluster(_O.CREATE)], TOPIC_DENIED, TOPIC_DENIED),
        versions=(1, 99),
    ),
    Case(
        *(20, "", lambda topic, _: _deletion("t-doomed"), [_topic(_O.DELETE, "t-doomed")]),
        *(TOPIC_DENIED, TOPIC_DENIED),
    ),
    Case(
        *(21, "", lambda topic, _: _named(topic, {"offset": 0}), [_topic(_O.DELETE)]),
        *(TOPIC_DENIED, TOPIC_DENIED),
        names_topic=True,
    ),
    Case(
        *(22, "transactional", lambda *_: _producer(TRANSACTION), [_transaction(_O.WRITE)]),
        *(TRANSACTION_DENIED, TRANSACTION_DENIED),
    ),
    Case(
        *(22, "idempotent", lambda *_: _producer(None), [_cluster(_O.IDEMPOTENT_WRITE)]),
        *(CLUSTER_DENIED, CLUSTER_DENIED),
        partly=[([_topic(_O.READ)], CLUSTER_DENIED)],
    ),
    Case(
        *(22, "idempotent writer", lambda *_: _producer(None), [_topic(_O.WRITE, "anywhere")]),
        *(CLUSTER_DENIED, CLUSTER_DENIED),
    ),
    Case(
        *(23, "consumer", lambda topic, _: _epochs(topic), [_topic(_O.DESCRIBE)]),
        *(TOPIC_DENIED, OK),
        names_topic=True,
    ),
    Case(
        *(23, "broker", lambda topic, _: _epochs(topic), [_cluster(_O.CLUSTER_ACTION)]),
        *(TOPIC_DENIED, OK),
    ),
    Case(
        *(24, "", lambda topic, _: _add_partitions(topic)),
        [_transaction(_O.WRITE), _topic(_O.WRITE)],
        *(TRANSACTION_DENIED, TRANSACTION_DENIED),
        versions=(0, 3),
        partly=[
            ([_transaction(_O.WRITE)], TOPIC_DENIED),
            ([_topic(_O.WRITE)], TRANSACTION_DENIED),
        ],
    ),
    Case(
        *(24, "among brokers", lambda topic, _: _add_partitions(topic)),
        *([_cluster(_O.CLUSTER_ACTION)], CLUSTER_DENIED, CLUSTER_DENIED),
        versions=(4, 99),
    ),
    Case(
        *(25, "", lambda *_: {"transactional_id": TRANSACTION, "group_id": GROUP}),
        [_transaction(_O.WRITE), _group(_O.READ)],
        *(TRANSACTION_DENIED, TRANSACTION_DENIED),
        partly=[
            ([_transaction(_O.WRITE)], GROUP_DENIED),
            ([_group(_O.READ)], TRANSACTION_DENIED),
        ],
    ),
    Case(
        *(26, "", lambda *_: {"transactional_id": TRANSACTION}, [_transaction(_O.WRITE)]),
        *(TRANSACTION_DENIED, TRANSACTION_DENIED),
    ),
    Case(
        *(27, "coordinator", lambda *_: {"markers": [_MARKER]}, [_cluster(_O.CLUSTER_ACTION)]),
        *(CLUSTER_DENIED, CLUSTER_DENIED),
    ),
    Case(
        *(27, "tool", lambda *_: {"markers": [_MARKER]}, [_cluster(_O.ALTER)]),
        *(CLUSTER_DENIED, CLUSTER_DENIED),
    ),
    Case(
        *(28, "", lambda topic, _: {**_offset_commit(topic), "transactional_id": TRANSACTION}),
        [_transaction(_O.WRITE), _group(_O.READ), _topic(_O.READ)],
        *(TRANSACTION_DENIED, TRANSACTION_DENIED),
        partly=[
            ([_transaction(_O.WRITE), _topic(_O.READ)], GROUP_DENIED),
            ([_transaction(_O.WRITE), _group(_O.READ)], TOPIC_DENIED),
            ([_group(_O.READ), _topic(_O.READ)], TRANSACTION_DENIED),
        ],
        names_topic=True,
    ),
    Case(
        *(29, "", lambda *_: _ACL_FILTER, [_cluster(_O.DESCRIBE)], CLUSTER_DENIED, OK),
    ),
    Case(
        *(30, "", lambda *_: {"creations": [_ACL]}, [_cluster(_O.ALTER)]),
        *(CLUSTER_DENIED, CLUSTER_DENIED),
    ),
    Case(
        *(31, "", lambda *_: {"filters": [_ACL_FILTER]}, [_cluster(_O.ALTER)]),
        *(CLUSTER_DENIED, CLUSTER_DENIED),
    ),
    Case(
        *(32, "topic", lambda topic, _: _config(2, topic), [_topic(_O.DESCRIBE_CONFIGS)]),
        *(TOPIC_DENIED, TOPIC_DENIED),
        names_topic=True,
    ),
    Case(
        *(32, "broker", lambda *_: _config(4, BROKER_ID), [_cluster(_O.DESCRIBE_CONFIGS)]),
        *(CLUSTER_DENIED, CLUSTER_DENIED),
    ),
    *(
        case
        for key in (33, 44)
        for case in (
            Case(
                *(key, "topic", lambda topic, _: _config(2, topic), [_topic(_O.ALTER_CONFIGS)]),
                *(TOPIC_DENIED, TOPIC_DENIED),
                names_topic=True,
            ),
            Case(
                *(key, "broker", lambda *_: _config(4, BROKER_ID), [_cluster(_O.ALTER_CONFIGS)]),
                *(CLUSTER_DENIED, CLUSTER_DENIED),
            ),
        )
    ),
    Case(
        *(34, "", lambda topic, _: _move_directory(topic), [_cluster(_O.ALTER)]),
        *(CLUSTER_DENIED, CLUSTER_DENIED),
    ),
    Case(
        *(35, "", lambda *_: {"topics": None}, [_cluster(_O.DESCRIBE)], CLUSTER_DENIED, OK),
        silent_before=3,
    ),
    Case(36, "", lambda *_: {"auth_bytes": b""}, [], OK, OK),
    Case(
        *(37, "", lambda topic, _: _more_partitions(topic), [_topic(_O.ALTER)]),
        *(TOPIC_DENIED, TOPIC_DENIED),
        names_topic=True,
    ),
    Case(38, "", lambda *_: {"renewers": [], "max_lifetime_ms": -1}, [], OK, OK, versions=(0, 2)),
    Case(
        *(38, "somebody else's", lambda *_: _token_of("other")),
        [(Resource.USER, "User:other", _O.CREATE_TOKENS)],
        *(TOKEN_DENIED, TOKEN_DENIED),
        versions=(3, 99),
    ),
    *(Case(key, "", lambda *_: {"owners": []}, [], OK, OK) for key in (39, 40, 41)),
    Case(
        *(42, "", lambda *_: {"groups_names": [GROUP]}, [_group(_O.DELETE)]),
        *(GROUP_DENIED, GROUP_DENIED),
    ),
    Case(
        *(43, "", lambda topic, _: _elections(topic), [_cluster(_O.ALTER)]),
        *(CLUSTER_DENIED, CLUSTER_DENIED),
    ),
    Case(
        *(45, "", lambda topic, _: _reassignment(MISSING), [_cluster(_O.ALTER)]),
        *(CLUSTER_DENIED, CLUSTER_DENIED),
    ),
    Case(46, "", lambda *_: {"topics": None}, [_cluster(_O.DESCRIBE)], CLUSTER_DENIED, OK),
    Case(
        *(47, "", lambda topic, _: _offset_delete(topic), [_group(_O.DELETE), _topic(_O.READ)]),
        *(GROUP_DENIED, GROUP_DENIED),
        partly=[([_topic(_O.READ)], GROUP_DENIED)],
    ),
    Case(
        *(48, "", lambda *_: {}, [_cluster(_O.DESCRIBE_CONFIGS)]),
        *(CLUSTER_DENIED, CLUSTER_DENIED),
    ),
    Case(
        *(49, "", lambda *_: {"entries": [_QUOTA]}, [_cluster(_O.ALTER_CONFIGS)]),
        *(CLUSTER_DENIED, CLUSTER_DENIED),
    ),
    Case(50, "", lambda *_: {"users": []}, [_cluster(_O.DESCRIBE)], CLUSTER_DENIED, OK),
    Case(
        *(51, "", lambda *_: {"deletions": [{"name": "nobody", "mechanism": 1}]}),
        *([_cluster(_O.ALTER)], CLUSTER_DENIED, CLUSTER_DENIED),
    ),
    Case(60, "", lambda *_: {}, [], OK, OK),
    Case(
        *(61, "", lambda topic, _: {"topics": [{"name": topic, "partition_indexes": [0]}]}),
        *([_topic(_O.READ)], TOPIC_DENIED, TOPIC_DENIED),
        names_topic=True,
    ),
    Case(
        *(65, "", lambda *_: {"transactional_ids": [TRANSACTION]}),
        *([_transaction(_O.DESCRIBE)], TRANSACTION_DENIED, OK),
    ),
    Case(66, "", lambda *_: {}, [], OK, OK),
    Case(
        *(68, "group", lambda *_: _beat([]), [_group(_O.READ)], GROUP_DENIED, GROUP_DENIED),
    ),
    Case(
        *(68, "topic", lambda topic, _: _beat([topic]), [_group(_O.READ), _topic(_O.DESCRIBE)]),
        *(GROUP_DENIED, GROUP_DENIED),
        partly=[([_group(_O.READ)], TOPIC_DENIED)],
    ),
    Case(
        *(69, "", lambda *_: {"group_ids": [GROUP]}, [_group(_O.DESCRIBE)], GROUP_DENIED, OK),
    ),
]

_SOFTWARE = {"client_software_name": "table", "client_software_version": "1"}


def _named(topic: str, partition: Fields) -> Fields:
    return {"topics": [{"name": topic, "partitions": [{"partition_index": 0, **partition}]}]}


def _metadata(topic: str, *, create: bool) -> Fields:
    return {"topics": [{"name": topic}], "allow_auto_topic_creation": create}


def _all_of() -> list[Fields]:
    return [{"group_id": GROUP, "topics": None}]


def _new_topic(name: str) -> Fields:
    topic = {"name": name, "num_partitions": 1, "replication_factor": 1}
    return {"topics": [topic], "timeout_ms": 5000, "validate_only": True}


def _deletion(name: str) -> Fields:
    return {"topics": [{"name": name}], "topic_names": [name], "timeout_ms": 5000}


def _producer(transactional_id: str | None) -> Fields:
    return {"transactional_id": transactional_id, "transaction_timeout_ms": 10_000}


def _epochs(topic: str) -> Fields:
    return {"topics": [{"topic": topic, "partitions": [{"partition": 0}]}]}


def _move_directory(topic: str) -> Fields:
    return {"dirs": [{"path": "/nowhere", "topics": [{"name": topic, "partitions": [0]}]}]}


def _more_partitions(topic: str) -> Fields:
    topics = [{"name": topic, "count": 5, "assignments": None}]
    return {"topics": topics, "timeout_ms": 5000, "validate_only": True}


def _elections(topic: str) -> Fields:
    return {"topic_partitions": [{"topic": topic, "partitions": [0]}], "timeout_ms": 5000}


def _reassignment(topic: str) -> Fields:
    partitions = [{"partition_index": 0, "replicas": [1]}]
    return {"topics": [{"name": topic, "partitions": partitions}]}


def _token_of(user: str) -> Fields:
    owner = {"owner_principal_type": "User", "owner_principal_name": user}
    return {**owner, "renewers": [], "max_lifetime_ms": -1}


def _beat(topics: list[str]) -> Fields:
    return {
        "group_id": GROUP,
        "member_id": "m",
        "member_epoch": -1,
        "subscribed_topic_names": topics,
    }
