"""ConsumerGroupHeartbeat (68): all of the consumer group protocol of KIP-848.

v0 base · v1 topics by regular expression; members make up their own ids. Flexible from the start.
What is null has not changed since the member's last heartbeat.
"""

from functools import partial
from typing import TYPE_CHECKING

from kavka.broker.authorization import Operation, Resource, is_allowed, would_allow
from kavka.broker.groups.consumer.coordinator import Outcome
from kavka.broker.groups.consumer.group import Beat
from kavka.broker.groups.consumer.member import AWAY, JOINING, LEFT, Slot, Slots, by_topic
from kavka.broker.request import Pending
from kavka.config.limits import GROUP_TEXT_CHARACTERS_MAX
from kavka.protocol.errors import ErrorCode
from kavka.protocol.messages.k68_consumer_group_heartbeat import (
    Assignment,
    ConsumerGroupHeartbeatRequest,
    ConsumerGroupHeartbeatResponse,
    TopicPartitions,
)

if TYPE_CHECKING:
    from kavka.broker.context import Broker
    from kavka.broker.request import Request

KEY = 68


def handle(
    broker: "Broker", request: "Request", body: ConsumerGroupHeartbeatRequest
) -> ConsumerGroupHeartbeatResponse | Pending:
    if not is_allowed(broker, request, Operation.READ, Resource.GROUP, body.group_id):
        return ConsumerGroupHeartbeatResponse(error_code=ErrorCode.GROUP_AUTHORIZATION_FAILED)
    for name in body.subscribed_topic_names or ():
        if not is_allowed(broker, request, Operation.DESCRIBE, Resource.TOPIC, name):
            code = ErrorCode.TOPIC_AUTHORIZATION_FAILED
            return ConsumerGroupHeartbeatResponse(error_code=code)
    problem = _problem(body)
    if problem is not None:
        return ConsumerGroupHeartbeatResponse(
            error_code=ErrorCode.INVALID_REQUEST, error_message=problem
        )
    topics, owned = body.subscribed_topic_names, body.topic_partitions
    beat = Beat(
        body.member_id,
        body.member_epoch,
        body.instance_id,
        body.rack_id,
        request.client_id[:GROUP_TEXT_CHARACTERS_MAX],
        request.client_host,
        body.rebalance_timeout_ms,
        None if topics is None else frozenset(topics),
        body.subscribed_topic_regex,
        body.server_assignor,
        None if owned is None else _slots(owned),
    )
    pending = Pending()

    def done(outcome: Outcome) -> None:
        pending.complete(_response(broker, outcome))

    may_read = None
    if broker.authorizer is not None:
        may_read = partial(would_allow, broker, request, Operation.DESCRIBE, Resource.TOPIC)
    broker.groups.consumers.heartbeat(body.group_id, beat, done, may_read)
    return pending


def _problem(body: ConsumerGroupHeartbeatRequest) -> str | None:
    """What is wrong with a request, in the words of Kafka."""
    texts = (
        *(body.member_id, body.instance_id, body.rack_id, body.server_assignor),
        body.subscribed_topic_regex,
    )
    if any(len(text or "") > GROUP_TEXT_CHARACTERS_MAX for text in texts):
        return "A text of the request is too long."
    if not body.group_id.strip():
        return "GroupId can't be empty."
    if body.instance_id is not None and not body.instance_id.strip():
        return "InstanceId can't be empty."
    if body.rack_id is not None and not body.rack_id.strip():
        return "RackId can't be empty."
    if body.member_epoch == JOINING:
        if body.rebalance_timeout_ms == -1:
            return "RebalanceTimeoutMs must be provided in first request."
        if body.topic_partitions is None or body.topic_partitions:
            return "TopicPartitions must be empty when (re-)joining."
        if not body.subscribed_topic_names and not body.subscribed_topic_regex:
            return (
                "Either SubscribedTopicNames or SubscribedTopicRegex must be non-null when "
                "(re-)joining."
            )
    elif body.member_epoch > 0 or body.member_epoch in (LEFT, AWAY):
        if not body.member_id.strip():
            return "MemberId can't be empty."
        if body.member_epoch == AWAY and body.instance_id is None:
            return "InstanceId can't be null."
    else:
        return "MemberEpoch is invalid."
    return None


def _slots(owned: list[TopicPartitions]) -> Slots:
    return frozenset(
        Slot(topic.topic_id, partition) for topic in owned for partition in topic.partitions
    )


def _response(broker: "Broker", outcome: Outcome) -> ConsumerGroupHeartbeatResponse:
    reply = outcome.reply
    if reply is None:
        return ConsumerGroupHeartbeatResponse(
            error_code=outcome.error, error_message=outcome.message
        )
    response = ConsumerGroupHeartbeatResponse(
        member_id=reply.member_id,
        member_epoch=reply.epoch,
        heartbeat_interval_ms=broker.groups.consumers.settings.heartbeat_interval_ms,
    )
    if reply.assigned is not None:
        response.assignment = Assignment(
            topic_partitions=[
                TopicPartitions(topic_id=topic_id, partitions=partitions)
                for topic_id, partitions in by_topic(reply.assigned).items()
            ]
        )
    return response


def error_response(
    code: ErrorCode, body: ConsumerGroupHeartbeatRequest
) -> ConsumerGroupHeartbeatResponse:
    return ConsumerGroupHeartbeatResponse(error_code=code)
