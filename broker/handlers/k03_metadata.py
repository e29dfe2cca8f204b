"""Metadata (3): who is in the cluster, and who leads what.

v0 an empty list of topics means all · v1 null means all, empty none; controller, racks, internal
topics · v2 cluster id · v3 throttle · v4 topics are created only if the client allows it · v5
offline replicas · v6 throttle after the response · v7 leader epochs (KIP-320) · v8 authorized
operations (KIP-430) · v9 flexible · v10 topic ids in the answer (KIP-516) · v11 no cluster
operations · v12 questions by topic id.

A topic that is not there is created on the way if the broker's settings allow it. The answer is
LEADER_NOT_AVAILABLE then, as in Kafka, and the client asks again. A topic that the client may not
describe is left out where all were asked for, and refused where it was named, whether it exists or
not.
"""

import asyncio
import logging
from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final
from weakref import WeakKeyDictionary

from kavka.broker.authorization import (
    CLUSTER_NAME,
    NOT_ASKED,
    Operation,
    Resource,
    authorized_operations,
    cluster_operations,
    is_allowed,
    would_allow,
)
from kavka.broker.metadata_answers import MetadataAnswers
from kavka.broker.request import Disconnect, Pending
from kavka.protocol.errors import ErrorCode
from kavka.protocol.messages.k03_metadata import (
    MetadataRequest,
    MetadataResponse,
    MetadataResponseTopic,
)
from kavka.protocol.schema import ZERO_UUID
from kavka.protocol.topics import INTERNAL_TOPICS, topic_name_problem

if TYPE_CHECKING:
    from kavka.broker.context import Broker
    from kavka.broker.request import Request
    from kavka.replication.metadata import MetadataCache

KEY: Final = 3
_NULL_MEANS_ALL_SINCE: Final = 1
_TOPIC_IDS_SINCE: Final = 12
_KNOWN_SECONDS: Final = 10.0

log = logging.getLogger("kavka.metadata")

_answers: "WeakKeyDictionary[MetadataCache, MetadataAnswers]" = WeakKeyDictionary()
_creating: set[asyncio.Task[None]] = set()


def handle(broker: "Broker", request: "Request", body: MetadataRequest) -> bytes | Pending:
    metadata = broker.metadata
    if not metadata.brokers and broker.peers is not None:
        return _when_known(broker, request, body)
    if body.topics is None or (not body.topics and request.version < _NULL_MEANS_ALL_SINCE):
        return _encode(broker, request, body, _describable(broker, request), ())
    known: dict[str, None] = {}
    missing: dict[str, None] = {}
    denied: dict[str, None] = {}
    failed: list[MetadataResponseTopic] = []
    for topic in body.topics:
        name = topic.name
        if topic.topic_id != ZERO_UUID or name is None:
            if request.version < _TOPIC_IDS_SINCE:
                # Their place is in the layout from v10 on, their meaning from v12 on.
                return _refuse(body, request.version)
            name = metadata.topic_name(topic.topic_id)
            if name is None or not _may_describe(broker, request, name):
                failed.append(
                    MetadataResponseTopic(
                        error_code=ErrorCode.UNKNOWN_TOPIC_ID, name=None, topic_id=topic.topic_id
                    )
                )
                continue
        elif broker.authorizer is not None and (
            name in denied or not _may_describe(broker, request, name)
        ):
            denied[name] = None
            continue
        if name in metadata.topics:
            known[name] = None
        else:
            missing[name] = None
    if missing:
        wanted = {name: None for name in missing if _may_create(broker, body, name)}
        for name in _refused_creation(broker, request, wanted):
            denied[name] = None
            del wanted[name], missing[name]
        failed.extend(_unknown(name) for name in missing if name not in wanted)
        if wanted:
            failed.extend(map(_denied, denied))
            return _create_first(broker, request, body, list(known), list(wanted), failed)
    failed.extend(map(_denied, denied))
    return _encode(broker, request, body, list(known), failed)


def _encode(
    broker: "Broker",
    request: "Request",
    body: MetadataRequest,
    names: Sequence[str] | None,
    failed: Sequence[MetadataResponseTopic],
) -> bytes:
    answers = _answers.get(broker.metadata)
    if answers is None:
        answers = _answers[broker.metadata] = MetadataAnswers()
    of_topics = of_cluster = NOT_ASKED
    operations_of = None
    if body.include_topic_authorized_operations:
        if broker.authorizer is None:
            of_topics = authorized_operations(broker, request, Resource.TOPIC, "")
        else:
            operations_of = partial(authorized_operations, broker, request, Resource.TOPIC)
    if body.include_cluster_authorized_operations:
        of_cluster = cluster_operations(broker, request)
    return answers.encode(
        broker.metadata,
        request.version,
        request.listener,
        names,
        failed,
        topic_operations=of_topics,
        cluster_operations=of_cluster,
        operations_of=operations_of,
    )


def _may_describe(broker: "Broker", request: "Request", name: str) -> bool:
    return is_allowed(broker, request, Operation.DESCRIBE, Resource.TOPIC, name)


def _describable(broker: "Broker", request: "Request") -> list[str] | None:
    """All topics that the client may describe; None for all there are."""
    if broker.authorizer is None:
        return None
    return [
        name
        for name in broker.metadata.topics
        if would_allow(broker, request, Operation.DESCRIBE, Resource.TOPIC, name)
    ]


def _refused_creation(broker: "Broker", request: "Request", names: Iterable[str]) -> list[str]:
    """Those of ``names`` that the client may not have created."""
    if broker.authorizer is None or would_allow(
        broker, request, Operation.CREATE, Resource.CLUSTER, CLUSTER_NAME
    ):
        return []
    create, topic = Operation.CREATE, Resource.TOPIC
    return [name for name in names if not is_allowed(broker, request, create, topic, name)]


def _denied(name: str) -> MetadataResponseTopic:
    return MetadataResponseTopic(error_code=ErrorCode.TOPIC_AUTHORIZATION_FAILED, name=name)


def _unknown(name: str) -> MetadataResponseTopic:
    code = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    if topic_name_problem(name) is not None:
        code = ErrorCode.INVALID_TOPIC_EXCEPTION
    return MetadataResponseTopic(error_code=code, name=name, is_internal=name in INTERNAL_TOPICS)


def _may_create(broker: "Broker", body: MetadataRequest, name: str) -> bool:
    if not body.allow_auto_topic_creation or topic_name_problem(name) is not None:
        return False
    return name in INTERNAL_TOPICS or broker.config.get_bool("auto.create.topics.enable")


def _when_known(broker: "Broker", request: "Request", body: MetadataRequest) -> Pending:
    """Answer when the controller has told this broker, which has just started, of the cluster:
    until then every topic would seem to be unknown, and might be created again.
    """
    pending = Pending(exclusive=True)
    metadata = broker.metadata

    async def wait() -> None:
        try:
            if not await metadata.wait_until(lambda: bool(metadata.brokers), _KNOWN_SECONDS):
                raise Disconnect("no controller has told this broker of the cluster yet")
            answer = handle(broker, request, body)
        except Exception as error:
            pending.fail(error)
            return
        if not isinstance(answer, Pending):
            pending.complete(answer)
        elif answer.done:
            forward(answer)
        else:
            answer.when_done = partial(forward, answer)

    def forward(answer: Pending) -> None:
        pending.error = answer.error
        pending.complete(answer.response)

    task = broker.loop.create_task(wait())
    _creating.add(task)
    task.add_done_callback(_creating.discard)
    return pending


def _create_first(
    broker: "Broker",
    request: "Request",
    body: MetadataRequest,
    known: Sequence[str],
    wanted: Sequence[str],
    failed: list[MetadataResponseTopic],
) -> Pending:
    """Answer when the new topics have been written, whether they have leaders yet or not."""
    pending = Pending(exclusive=True)

    async def create() -> None:
        try:
            failed.extend(await _create(broker, request, wanted))
            # What the cache knew may have changed meanwhile.
            topics = broker.metadata.topics
            there = [name for name in known if name in topics]
            failed.extend(_unknown(name) for name in known if name not in topics)
            pending.complete(_encode(broker, request, body, there, failed))
        except Exception as error:
            pending.fail(error)

    task = broker.loop.create_task(create())
    _creating.add(task)
    task.add_done_callback(_creating.discard)
    return pending


async def _create(
    broker: "Broker", request: "Request", names: Sequence[str]
) -> list[MetadataResponseTopic]:
    from kavka.broker.coordination.internal_topics import layout
    from kavka.replication.controller.operations import NewTopic

    topics: list[NewTopic] = []
    for name in names:
        if name in INTERNAL_TOPICS:
            how = layout(name, broker.config)
            topics.append(
                NewTopic(
                    name,
                    how.partitions,
                    how.replication_factor,
                    configs=dict(how.configs),
                    ignore_racks=True,
                )
            )
        else:
            topics.append(NewTopic(name, ignore_racks=True))
    answers: list[MetadataResponseTopic] = []
    permit = None
    if broker.quotas is not None:
        permit = broker.quotas.mutations(request, strict=False)
    for created in await broker.controller.create_topics(topics, timeout_ms=0, permit=permit):
        code = created.error.code if created.error is not None else ErrorCode.NONE
        if code in (
            ErrorCode.NONE,
            ErrorCode.REQUEST_TIMED_OUT,  # it was not waited for
            ErrorCode.TOPIC_ALREADY_EXISTS,  # somebody else was faster
        ):
            if code is ErrorCode.REQUEST_TIMED_OUT:
                log.info(
                    "Topic is created because a client asked for it topic=%s partitions=%d",
                    *(created.name, created.partitions),
                )
            code = ErrorCode.LEADER_NOT_AVAILABLE
        else:
            log.warning(
                "Topic that a client asked for is not created topic=%s error=%s",
                *(created.name, created.error),
            )
        answers.append(
            MetadataResponseTopic(
                error_code=code, name=created.name, is_internal=created.name in INTERNAL_TOPICS
            )
        )
    return answers


def _refuse(body: MetadataRequest, version: int) -> bytes:
    from kavka.protocol import codec

    return codec.encode(error_response(ErrorCode.INVALID_REQUEST, body), version)


def error_response(code: ErrorCode, body: MetadataRequest) -> MetadataResponse:
    return MetadataResponse(
        topics=[
            MetadataResponseTopic(error_code=code, name=topic.name or "", topic_id=topic.topic_id)
            for topic in body.topics or ()
        ]
    )
