"""ConsumerGroupDescribe (69): members and assignments of groups of the consumer protocol (KIP-848).

v0 base. Flexible from the start. A group of the classic protocol is GROUP_ID_NOT_FOUND, as is one
that is not there: tools then ask DescribeGroups.
"""

from typing import TYPE_CHECKING

from kavka.broker.authorization import (
    Operation,
    Resource,
    authorized_operations,
    denied_among,
)
from kavka.broker.groups.consumer.group import ConsumerGroup
from kavka.broker.groups.consumer.member import Slots, by_topic
from kavka.protocol.errors import ErrorCode
from kavka.protocol.messages.k69_consumer_group_describe import (
    Assignment,
    ConsumerGroupDescribeRequest,
    ConsumerGroupDescribeResponse,
    DescribedGroup,
    Member,
    TopicPartitions,
)

if TYPE_CHECKING:
    from kavka.broker.context import Broker
    from kavka.broker.request import Request

KEY = 69


def handle(
    broker: "Broker", request: "Request", body: ConsumerGroupDescribeRequest
) -> ConsumerGroupDescribeResponse:
    groups = dict.fromkeys(body.group_ids)
    denied = denied_among(broker, request, Operation.DESCRIBE, Resource.GROUP, groups)
    response = ConsumerGroupDescribeResponse()
    for group_id in groups:
        if group_id in denied:
            code = ErrorCode.GROUP_AUTHORIZATION_FAILED
            response.groups.append(DescribedGroup(error_code=code, group_id=group_id))
            continue
        error, group = broker.groups.consumers.describe(group_id)
        if group is None:
            message = None
            if error is ErrorCode.GROUP_ID_NOT_FOUND:
                message = f"Group {group_id} not found or not a consumer group."
            response.groups.append(
                DescribedGroup(error_code=error, error_message=message, group_id=group_id)
            )
            continue
        described = _describe(broker, request, group)
        if body.include_authorized_operations and described.error_code == ErrorCode.NONE:
            described.authorized_operations = authorized_operations(
                broker, request, Resource.GROUP, group_id
            )
        response.groups.append(described)
    return response


def _describe(broker: "Broker", request: "Request", group: ConsumerGroup) -> DescribedGroup:
    topics = group.subscribed_topics()
    if denied_among(broker, request, Operation.DESCRIBE, Resource.TOPIC, topics):
        # Its topics would show in the members.
        return DescribedGroup(
            error_code=ErrorCode.TOPIC_AUTHORIZATION_FAILED,
            error_message="The described group uses topics that the client is not authorized to "
            "describe.",
            group_id=group.group_id,
        )
    data = group.data
    return DescribedGroup(
        group_id=group.group_id,
        group_state=group.state,
        group_epoch=data.epoch,
        assignment_epoch=data.target_epoch,
        assignor_name=group.assignor(),
        members=[
            Member(
                member_id=member.member_id,
                instance_id=member.instance_id,
                rack_id=member.rack_id,
                member_epoch=member.epoch,
                client_id=member.client_id,
                client_host=member.client_host,
                subscribed_topic_names=[] if member.regex else sorted(member.topics),
                subscribed_topic_regex=member.regex,
                assignment=_assignment(broker, member.assigned),
                target_assignment=_assignment(broker, data.target_of(member.member_id)),
            )
            for member in data.members.values()
        ],
    )


def _assignment(broker: "Broker", slots: Slots) -> Assignment:
    return Assignment(
        topic_partitions=[
            TopicPartitions(topic_id=topic_id, topic_name=name, partitions=partitions)
            for topic_id, partitions in by_topic(slots).items()
            if (name := broker.metadata.topic_name(topic_id)) is not None
        ]
    )
