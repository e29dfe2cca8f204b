"""Produce (0): append record batches to partitions led here.

v0 base, message format 0 · v1 throttle time · v2 message format 1, log append time · v3 message
format 2, transactional id (KIP-98) · v4 KAFKA_STORAGE_ERROR known · v5 log start offset · v6
throttle after the response · v7 zstd (KIP-110) · v8 record errors, error message (KIP-467) · v9
flexible · v10 current leader and its address in errors (KIP-951) · v11 TRANSACTION_ABORTABLE
(KIP-890) · v12 leaders add partitions to transactions (KIP-890).

Appends take effect in the order in which requests arrive. What has to be converted first
(message formats 0 and 1, a forced codec) is done off the event loop, and the connection handles
no further request meanwhile. An answer waits where ``acks`` or ``flush.messages`` ask for it.
"""

from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING, Final

from kavka.broker.authorization import (
    Operation,
    Resource,
    denied_among,
    is_allowed,
    would_allow,
)
from kavka.broker.parking import park
from kavka.broker.produce import lane, several, single, transactions
from kavka.broker.produce.append import Append, fail, succeed
from kavka.broker.produce.waiters import ProduceWaiter, SingleWaiter
from kavka.broker.request import Disconnect, Pending
from kavka.protocol import codec
from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.protocol.messages.k00_produce import (
    LeaderIdAndEpoch,
    NodeEndpoint,
    PartitionProduceResponse,
    ProduceRequest,
    ProduceResponse,
    TopicProduceResponse,
)
from kavka.protocol.records.batch import TRANSACTIONAL_MASK, BatchHeader
from kavka.protocol.records.validate import (
    AppendRules,
    ValidatedAppend,
    validate,
)
from kavka.protocol.topics import INTERNAL_TOPICS
from kavka.replication.partition import Partition
from kavka.storage.append import AppendInfo

if TYPE_CHECKING:
    from kavka.broker.context import Broker
    from kavka.broker.request import Request

KEY = 0

NO_ACKS: Final = 0
LEGAL_ACKS: Final = (-1, 0, 1)
ADMIN_CLIENT: Final = "__admin_client"  # Kafka's own exception for writing to internal topics


def handle_raw(broker: "Broker", request: "Request") -> bytes | ProduceResponse | Pending | None:
    """Take a short way for the ordinary request, the general one for others."""
    try:
        asked = single.parse(request.body, request.version)
        if asked is not None:
            if asked.acks in LEGAL_ACKS and not single.is_transactional(asked.records):
                partition = _writable(
                    broker, _allowed(broker, request, asked.topic), asked.partition
                )
                now_ms = broker.clock.wall_ms()
                rules, records = partition.append_rules, asked.records
                header = rules.ordinary(records, now_ms, request.version)
                batches: Sequence[tuple[BatchHeader, memoryview]]
                if header is not None:
                    batches = ((header, records),)
                    _open_lane(broker, request, asked, partition)
                else:
                    batches = validate(records, rules, now_ms, request.version).batches
                if batches:
                    return _append_single(broker, request, asked, partition, batches)
        else:
            asked_several = several.parse(request.body, request.version)
            if asked_several is not None and asked_several.acks in LEGAL_ACKS:
                ordinary = _ordinary(broker, request, asked_several)
                if ordinary is not None:
                    return _append_several(broker, request, asked_several, ordinary)
    except (KafkaError, UnicodeDecodeError):
        pass  # nothing has been done yet: the general way finds it again and tells it
    body = codec.decode(ProduceRequest, request.body, request.version)
    return handle(broker, request, body)


def _allowed(broker: "Broker", request: "Request", topic: bytes) -> str:
    """The name of a topic that the client may write to. Raises KafkaError for others."""
    name = topic.decode()
    if name in INTERNAL_TOPICS:
        raise KafkaError(ErrorCode.INVALID_TOPIC_EXCEPTION)
    if broker.authorizer is not None and not would_allow(
        broker, request, Operation.WRITE, Resource.TOPIC, name
    ):
        raise KafkaError(ErrorCode.TOPIC_AUTHORIZATION_FAILED)
    return name


def _writable(broker: "Broker", topic: str, index: int) -> Partition:
    """A partition that is led here. Raises KafkaError for others."""
    partition = broker.replicas.partition(topic, index)
    partition.require_leader()
    return partition


def _ordinary(
    broker: "Broker", request: "Request", asked: several.SeveralProduce
) -> list[tuple[Partition, tuple[BatchHeader, memoryview]]] | None:
    """Where the batches of a request go if all of them may be appended as they are.

    None or KafkaError otherwise.
    """
    found: list[tuple[Partition, tuple[BatchHeader, memoryview]]] = []
    now_ms, version = broker.clock.wall_ms(), request.version
    for topic, partitions in asked.topics:
        name = _allowed(broker, request, topic)
        for index, records in partitions:
            partition = _writable(broker, name, index)
            header = partition.append_rules.ordinary(records, now_ms, version)
            if header is None or header.attributes & TRANSACTIONAL_MASK:
                return None
            found.append((partition, (header, records)))
    return found


def _open_lane(
    broker: "Broker", request: "Request", asked: single.SingleProduce, partition: Partition
) -> None:
    """Let the requests of this connection that begin like this one take the shortest way."""
    connection = request.connection
    if (
        request.version < lane.FIRST_VERSION
        or broker.quotas is not None
        or not connection.takes_lanes
    ):
        return
    known = connection.lane
    if known is None or known.version != request.version or known.acks != asked.acks:
        known = lane.ProduceLane(broker, connection, request.version, asked.acks)
        connection.lane = known
    known.learn(request.body, asked, partition)


def _append_single(
    broker: "Broker",
    request: "Request",
    asked: single.SingleProduce,
    partition: Partition,
    batches: Sequence[tuple[BatchHeader, memoryview]],
) -> bytes | ProduceResponse | Pending | None:
    acks = asked.acks
    try:
        info = broker.replicas.append(partition, batches, acks)
    except KafkaError as error:
        return _refuse_single(broker, request, asked, partition, error)
    end_offset = info.last_offset + 1
    if acks == NO_ACKS:
        return None
    if not partition.acknowledged(acks, end_offset):
        pending = Pending()
        waiter = SingleWaiter(asked.topic, acks, request.version, partition, info, pending)
        park(broker, waiter, (partition,), asked.timeout_ms, pending)
        return pending
    return single.answer(
        request.version,
        asked.topic,
        asked.partition,
        info.first_offset,
        info.log_append_time,
        partition.log.log_start_offset,
    )


def _refuse_single(
    broker: "Broker",
    request: "Request",
    asked: single.SingleProduce,
    partition: Partition,
    error: KafkaError,
) -> ProduceResponse | Pending | None:
    """What follows an append by the short way when it failed."""
    append = Append.of(partition)
    fail(append, error, request.version)
    response = ProduceResponse(
        responses=[TopicProduceResponse(name=append.topic, partition_responses=[append.result])]
    )
    body = ProduceRequest(acks=asked.acks, timeout_ms=asked.timeout_ms)
    return _answer(broker, request, body, response, [append])


def _append_several(
    broker: "Broker",
    request: "Request",
    asked: several.SeveralProduce,
    ordinary: list[tuple[Partition, tuple[BatchHeader, memoryview]]],
) -> bytes | ProduceResponse | Pending | None:
    acks, append = asked.acks, broker.replicas.append
    infos: list[AppendInfo] = []
    outcomes: list[AppendInfo | KafkaError] = []
    settled = True
    for partition, batch in ordinary:
        try:
            info = append(partition, (batch,), acks)
        except KafkaError as error:
            outcomes.append(error)
            settled = False
            continue
        outcomes.append(info)
        infos.append(info)
        if acks != NO_ACKS and not partition.acknowledged(acks, info.last_offset + 1):
            settled = False
    if not settled:
        return _answer_several(broker, request, asked, ordinary, outcomes)
    return None if acks == NO_ACKS else several.answer(request.version, asked.topics, infos)


def _answer_several(
    broker: "Broker",
    request: "Request",
    asked: several.SeveralProduce,
    ordinary: list[tuple[Partition, tuple[BatchHeader, memoryview]]],
    outcomes: list[AppendInfo | KafkaError],
) -> ProduceResponse | Pending | None:
    """What follows appends that are not all kept yet, or not all done."""
    appends: list[Append] = []
    for (partition, _), outcome in zip(ordinary, outcomes, strict=True):
        append = Append.of(partition)
        if isinstance(outcome, KafkaError):
            fail(append, outcome, request.version)
        else:
            succeed(append, outcome)
        appends.append(append)
    response, left = ProduceResponse(), iter(appends)
    for topic, partitions in asked.topics:
        results = [append.result for append in islice(left, len(partitions))]
        response.responses.append(
            TopicProduceResponse(name=topic.decode(), partition_responses=results)
        )
    body = ProduceRequest(acks=asked.acks, timeout_ms=asked.timeout_ms)
    return _answer(broker, request, body, response, appends)


def handle(
    broker: "Broker", request: "Request", body: ProduceRequest
) -> ProduceResponse | Pending | None:
    response = ProduceResponse()
    appends: list[Append] = []
    legal_acks = body.acks in LEGAL_ACKS
    now_ms = broker.clock.wall_ms()
    convert = False
    denied = denied_among(
        *(broker, request, Operation.WRITE, Resource.TOPIC),
        (topic.name for topic in body.topic_data),
    )
    transaction_denied = broker.authorizer is not None and not _may_use_transaction(
        broker, request, body
    )
    for topic in body.topic_data:
        topic_result = TopicProduceResponse(name=topic.name)
        for asked in topic.partition_data:
            result = PartitionProduceResponse(index=asked.index, base_offset=-1)
            data = asked.records
            append = Append(
                topic.name, data if isinstance(data, memoryview) else memoryview(b""), result
            )
            try:
                if transaction_denied:
                    raise KafkaError(ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED)
                if topic.name in denied:
                    raise KafkaError(ErrorCode.TOPIC_AUTHORIZATION_FAILED)
                if not legal_acks:
                    raise KafkaError(ErrorCode.INVALID_REQUIRED_ACKS)
                _check(broker, request, append, now_ms)
            except KafkaError as error:
                fail(append, error, request.version)
            else:
                assert append.validated is not None
                convert = convert or append.validated.needs_conversion
            topic_result.partition_responses.append(result)
            appends.append(append)
        response.responses.append(topic_result)
    if convert or not _settled(broker, request, body, appends):
        return _prepare_first(broker, request, body, response, appends, now_ms)
    _append_all(broker, request, body, appends)
    return _answer(broker, request, body, response, appends)


def _check(broker: "Broker", request: "Request", append: Append, now_ms: int) -> None:
    """Find the partition and look at the records; raises what the client is told.

    The order of the checks is Kafka's: what is wrong with the records comes before the question
    who leads the partition.
    """
    if append.topic in INTERNAL_TOPICS and request.client_id != ADMIN_CLIENT:
        raise KafkaError(
            ErrorCode.INVALID_TOPIC_EXCEPTION, f"Cannot append to internal topic {append.topic}"
        )
    partition = append.partition = broker.replicas.partition(append.topic, append.result.index)
    partition.require_leader()
    append.rules = partition.append_rules
    append.validated = validate(append.data, append.rules, now_ms, request.version)


def _may_use_transaction(broker: "Broker", request: "Request", body: ProduceRequest) -> bool:
    """Whether the client may write what it sends as part of the transaction it names."""
    if not any(
        single.is_transactional(partition.records)
        for topic in body.topic_data
        for partition in topic.partition_data
        if isinstance(partition.records, memoryview)
    ):
        return True
    name = body.transactional_id
    return name is not None and is_allowed(
        broker, request, Operation.WRITE, Resource.TRANSACTIONAL_ID, name
    )


def _settled(
    broker: "Broker", request: "Request", body: ProduceRequest, appends: list[Append]
) -> bool:
    """Whether it is settled which batches belong to an open transaction, without waiting."""
    asked = transactions.questions(appends, body.transactional_id, request.version)
    if not asked:
        return True
    assert body.transactional_id is not None
    return transactions.settle_now(broker.inclusion, body.transactional_id, asked, request.version)


def _append_all(
    broker: "Broker", request: "Request", body: ProduceRequest, appends: list[Append]
) -> None:
    for append in appends:
        if append.result.error_code != ErrorCode.NONE:
            continue
        partition, validated = append.partition, append.validated
        assert partition is not None
        assert validated is not None
        if not validated.batches:
            continue  # an empty set, legal up to v2: nothing appended, base offset -1
        try:
            partition.require_leader()
            info = broker.replicas.append(partition, validated.batches, body.acks)
        except KafkaError as error:
            fail(append, error, request.version)
            continue
        succeed(append, info)


def _answer(
    broker: "Broker",
    request: "Request",
    body: ProduceRequest,
    response: ProduceResponse,
    appends: list[Append],
    pending: Pending | None = None,
) -> ProduceResponse | Pending | None:
    """The response; or ``pending`` (a new one if there is none yet) while it has to wait."""
    acks = body.acks
    if acks == NO_ACKS:
        for append in appends:
            if append.result.error_code != ErrorCode.NONE:
                code = ErrorCode(append.result.error_code)
                raise Disconnect(f"Produce with acks=0 failed for {append.topic}: {code.name}")
        return None
    waiting = [
        append
        for append in appends
        if append.end_offset >= 0
        and append.partition is not None
        and not append.partition.acknowledged(acks, append.end_offset)
    ]
    _name_leaders(broker, request, response)
    if not waiting:
        return response
    pending = pending or Pending()
    waiter = ProduceWaiter(acks, request.version, response, waiting, pending)
    park(broker, waiter, {a.partition for a in waiting}, body.timeout_ms, pending)
    return pending


def _prepare_first(
    broker: "Broker",
    request: "Request",
    body: ProduceRequest,
    response: ProduceResponse,
    appends: list[Append],
    now_ms: int,
) -> Pending:
    """Convert off the event loop, ask coordinators elsewhere, then go on as usual.

    The connection waits: order is kept.
    """
    pending = Pending(exclusive=True)
    version = request.version
    if not request.connection.keep_frame():
        # The receive buffer is used again as soon as this handler returns.
        for append in appends:
            append.data = memoryview(bytearray(append.data))
            if append.validated is not None:
                append.validated.batches = [
                    (header, memoryview(bytearray(view)))
                    for header, view in append.validated.batches
                ]

    async def run() -> None:
        try:
            for append in appends:
                if append.validated is None or not append.validated.needs_conversion:
                    continue
                assert append.rules is not None
                try:
                    async with broker.converting:
                        append.validated = await broker.loop.run_in_executor(
                            None, _convert, append.data, append.rules, now_ms, version
                        )
                except KafkaError as error:
                    fail(append, error, version)
            name = body.transactional_id
            asked = transactions.questions(appends, name, version)
            if asked:
                assert name is not None
                await transactions.settle(broker.inclusion, name, asked, version)
            _append_all(broker, request, body, appends)
            answer = _answer(broker, request, body, response, appends, pending)
        except Exception as error:
            pending.fail(error)
            return
        if not isinstance(answer, Pending):
            pending.complete(answer)

    broker.loop.create_task(run())
    return pending


def _convert(data: memoryview, rules: AppendRules, now_ms: int, version: int) -> ValidatedAppend:
    from kavka.protocol.records.convert import convert_append

    return convert_append(data, rules, now_ms, version)


def _name_leaders(broker: "Broker", request: "Request", response: ProduceResponse) -> None:
    """Tell a client that asked the wrong broker who leads instead (KIP-951)."""
    if request.version < 10:
        return
    named: set[int] = set()
    for topic in response.responses:
        for result in topic.partition_responses:
            if result.error_code != ErrorCode.NOT_LEADER_OR_FOLLOWER:
                continue
            state = broker.metadata.partition(topic.name, result.index)
            if state is None:
                continue
            result.current_leader = LeaderIdAndEpoch(
                leader_id=state.leader, leader_epoch=state.leader_epoch
            )
            leader = broker.metadata.brokers.get(state.leader)
            endpoint = None if leader is None else leader.endpoint(request.listener)
            if leader is not None and endpoint is not None and leader.id not in named:
                named.add(leader.id)
                response.node_endpoints.append(
                    NodeEndpoint(
                        node_id=leader.id,
                        host=endpoint.host,
                        port=endpoint.port,
                        rack=leader.rack,
                    )
                )
