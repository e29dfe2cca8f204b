"""DescribeLogDirs (35): what lies in the log directories of this broker (KIP-113).

v0 base · v1 throttle after the response · v2 flexible · v3 top-level error · v4 total and usable
bytes of the volume (KIP-827). Sizes are bytes of records, not of reserved blocks.
"""

from typing import TYPE_CHECKING

from kavka.broker.authorization import Operation, require_cluster
from kavka.protocol.errors import ErrorCode
from kavka.protocol.messages.k35_describe_log_dirs import (
    DescribeLogDirsPartition,
    DescribeLogDirsRequest,
    DescribeLogDirsResponse,
    DescribeLogDirsResult,
    DescribeLogDirsTopic,
)

if TYPE_CHECKING:
    from kavka.broker.context import Broker
    from kavka.broker.request import Request

KEY = 35


def handle(
    broker: "Broker", request: "Request", body: DescribeLogDirsRequest
) -> DescribeLogDirsResponse:
    require_cluster(broker, request, Operation.DESCRIBE)
    wanted = None
    if body.topics is not None:
        wanted = {(topic.topic, index) for topic in body.topics for index in topic.partitions}
    response = DescribeLogDirsResponse()
    for directory in broker.logs.describe():
        result = DescribeLogDirsResult(log_dir=directory.path)
        if directory.offline:
            result.error_code = ErrorCode.KAFKA_STORAGE_ERROR
            response.results.append(result)
            continue
        result.total_bytes = directory.total_bytes
        result.usable_bytes = directory.usable_bytes
        topics: dict[str, DescribeLogDirsTopic] = {}
        for log in directory.logs:
            name, index = log.topic_partition
            if wanted is not None and (name, index) not in wanted:
                continue
            topic = topics.setdefault(name, DescribeLogDirsTopic(name=name))
            topic.partitions.append(
                DescribeLogDirsPartition(
                    partition_index=index,
                    partition_size=log.size,
                    offset_lag=max(log.high_watermark - log.log_end_offset, 0),
                )
            )
        for move in broker.logs.mover:
            name, index = move.topic_partition
            if move.target is not directory or not (wanted is None or (name, index) in wanted):
                continue
            topic = topics.setdefault(name, DescribeLogDirsTopic(name=name))
            topic.partitions.append(
                DescribeLogDirsPartition(
                    partition_index=index,
                    partition_size=move.future.size,
                    offset_lag=move.lag,
                    is_future_key=True,
                )
            )
        result.topics.extend(topics.values())
        response.results.append(result)
    return response


def error_response(code: ErrorCode, body: DescribeLogDirsRequest) -> DescribeLogDirsResponse:
    """Before v3, which has a place for the code, somebody who may not look sees no directories."""
    return DescribeLogDirsResponse(error_code=code)
