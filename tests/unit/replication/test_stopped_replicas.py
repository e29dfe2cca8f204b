"""What is said of a partition whose replica here is stopped, to those who were waiting for it."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.protocol.messages.k04_leader_and_isr import (
    LeaderAndIsrPartitionState,
    LeaderAndIsrRequest,
    LeaderAndIsrTopicState,
)
from kavka.protocol.messages.k05_stop_replica import (
    StopReplicaPartitionState,
    StopReplicaRequest,
    StopReplicaTopicState,
)
from kavka.replication.partition import Partition
from kavka.replication.replica_manager import ReplicaManager
from kavka.storage.clock import ManualClock
from tests.unit.replication.test_partition import FakeLog

ME, OTHER = 1, 2


def stopped(*, delete: bool, known: bool) -> tuple[ReplicaManager, Partition]:
    """A partition that was led here, is led by another broker, and then stopped here; the cluster
    may or may not have it still."""
    manager = ReplicaManager(
        ME,
        cast(Any, SimpleNamespace(get_or_create=lambda *_, **__: FakeLog(), delete=lambda _: None)),
        cast(Any, SimpleNamespace(has_partition=lambda *_: known)),
        lambda _: cast(Any, None),
        cast(Any, SimpleNamespace(notify=lambda _: None)),
        ManualClock(),
    )
    for epoch, leader in enumerate((ME, OTHER)):
        state = LeaderAndIsrPartitionState(
            partition_index=0, leader=leader, leader_epoch=epoch, isr=[ME, OTHER], replicas=[1, 2]
        )
        topic = LeaderAndIsrTopicState(topic_name="t", partition_states=[state])
        answer = manager.apply_leader_and_isr(LeaderAndIsrRequest(topic_states=[topic]))
        assert answer.partition_errors[0].error_code == ErrorCode.NONE
    partition = manager.partition("t", 0)
    stop = StopReplicaPartitionState(partition_index=0, leader_epoch=1, delete_partition=delete)
    manager.stop_replica(
        StopReplicaRequest(
            topic_states=[StopReplicaTopicState(topic_name="t", partition_states=[stop])]
        )
    )
    return manager, partition


@pytest.mark.parametrize(
    ("delete", "known", "expected"),
    [
        (False, True, ErrorCode.NOT_LEADER_OR_FOLLOWER),  # this broker is about to stop
        (True, True, ErrorCode.NOT_LEADER_OR_FOLLOWER),  # it has been moved away
        (True, False, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
    ],
)
def test_who_waited_is_told_what_who_comes_is_told(
    delete: bool, known: bool, expected: ErrorCode
) -> None:
    manager, partition = stopped(delete=delete, known=known)
    with pytest.raises(KafkaError) as waited:
        partition.require_leader()
    with pytest.raises(KafkaError) as came:
        manager.partition("t", 0)
    assert waited.value.code is came.value.code is expected
