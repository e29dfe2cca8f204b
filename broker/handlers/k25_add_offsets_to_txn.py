"""AddOffsetsToTxn (25): a transactional producer is about to commit offsets of a group.

v0 base · v1 throttle after the response · v2 PRODUCER_FENCED · v3 flexible · v4
TRANSACTION_ABORTABLE (KIP-890). It adds the group's partition of ``__consumer_offsets``.
"""

from typing import TYPE_CHECKING

from kavka.broker.authorization import Operation, Resource, require
from kavka.broker.request import Pending
from kavka.broker.transactions.messages import ProducerIdentity
from kavka.broker.transactions.versions import fenced_code
from kavka.protocol.errors import ErrorCode
from kavka.protocol.messages.k25_add_offsets_to_txn import (
    AddOffsetsToTxnRequest,
    AddOffsetsToTxnResponse,
)
from kavka.protocol.topics import GROUP_METADATA_TOPIC, TopicPartition

if TYPE_CHECKING:
    from kavka.broker.context import Broker
    from kavka.broker.request import Request

KEY = 25
_FIRST_WITH_FENCED = 2


def handle(broker: "Broker", request: "Request", body: AddOffsetsToTxnRequest) -> Pending:
    require(broker, request, Operation.WRITE, Resource.TRANSACTIONAL_ID, body.transactional_id)
    require(broker, request, Operation.READ, Resource.GROUP, body.group_id)
    pending = Pending()

    def stored(code: ErrorCode) -> None:
        code = fenced_code(code, request.version, _FIRST_WITH_FENCED)
        pending.complete(AddOffsetsToTxnResponse(error_code=code))

    partition = TopicPartition(GROUP_METADATA_TOPIC, broker.groups.partition_of(body.group_id))
    broker.transactions.add_partitions(
        body.transactional_id,
        ProducerIdentity(body.producer_id, body.producer_epoch),
        (partition,),
        stored,
    )
    return pending


def error_response(code: ErrorCode, body: AddOffsetsToTxnRequest) -> AddOffsetsToTxnResponse:
    return AddOffsetsToTxnResponse(error_code=code)
