"""DescribeProducers (61): the producers that a partition's log remembers (KIP-664). v0 only.

A partition is described once, however often it is named: see ``k15_describe_groups``.
"""

from typing import TYPE_CHECKING

from kavka.broker.authorization import Operation, Resource, denied_among
from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.protocol.messages.k61_describe_producers import (
    DescribeProducersRequest,
    DescribeProducersResponse,
    PartitionResponse,
    ProducerState,
    TopicResponse,
)

if TYPE_CHECKING:
    from kavka.broker.context import Broker
    from kavka.broker.request import Request

KEY = 61


def handle(
    broker: "Broker", request: "Request", body: DescribeProducersRequest
) -> DescribeProducersResponse:
    denied = denied_among(
        broker, request, Operation.READ, Resource.TOPIC, (topic.name for topic in body.topics)
    )
    response = DescribeProducersResponse()
    for topic in {topic.name: topic for topic in body.topics}.values():
        result = TopicResponse(name=topic.name)
        for index in dict.fromkeys(topic.partition_indexes):
            answer = PartitionResponse(partition_index=index)
            try:
                if topic.name in denied:
                    raise KafkaError(ErrorCode.TOPIC_AUTHORIZATION_FAILED)
                partition = broker.replicas.partition(topic.name, index)
                answer.active_producers.extend(
                    ProducerState(
                        producer_id=producer.producer_id,
                        producer_epoch=producer.epoch,
                        last_sequence=producer.last_sequence,
                        last_timestamp=producer.last_timestamp,
                        coordinator_epoch=producer.coordinator_epoch,
                        current_txn_start_offset=producer.txn_first_offset,
                    )
                    for producer in partition.log.producers.entries()
                )
            except KafkaError as error:
                answer.error_code = error.code
                answer.error_message = error.message
            result.partitions.append(answer)
        response.topics.append(result)
    return response
