"""What a client of DeleteRecords is told, and when."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from kavka.broker.handlers.k21_delete_records import Deletion, DeletionWaiter
from kavka.broker.request import Pending
from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.protocol.messages.k21_delete_records import (
    DeleteRecordsPartitionResult,
    DeleteRecordsResponse,
    DeleteRecordsTopicResult,
)
from kavka.replication.metadata import MetadataCache
from tests.unit.replication.test_partition import Case


class Asked:
    """DeleteRecords before offset 3 of a partition with five records, on brokers 1, 2 and 3."""

    def __init__(self) -> None:
        self.case = Case(end=5, high=5)
        self.alive = {1, 2, 3}
        for follower in (2, 3):
            self.fetch(follower, 0)
        self.answer = DeleteRecordsPartitionResult(partition_index=0)
        self.pending = Pending()
        response = DeleteRecordsResponse(
            topics=[DeleteRecordsTopicResult(name="orders", partitions=[self.answer])]
        )
        metadata = cast(MetadataCache, SimpleNamespace(brokers=self.alive))
        deletion = Deletion(
            self.case.partition, self.case.partition.delete_records_before(3), self.answer
        )
        assert not deletion.is_done(metadata)
        self.waiter = DeletionWaiter([deletion], response, metadata, self.pending)

    def fetch(self, follower: int, log_start_offset: int) -> bool:
        return self.case.partition.follower_fetched(follower, 5, log_start_offset)

    def looks_again(self) -> tuple[int, int] | None:
        """Error code and low watermark of the answer; None while it waits."""
        if not self.waiter.try_complete(self.case.partition):
            assert not self.pending.done
            return None
        assert self.pending.done
        return self.answer.error_code, self.answer.low_watermark


def test_every_follower_has_to_tell_that_it_has_deleted() -> None:
    asked = Asked()
    assert asked.looks_again() is None
    assert asked.fetch(2, 3)  # somebody may wait for this
    assert not asked.fetch(2, 3)
    assert asked.looks_again() is None
    assert asked.fetch(3, 4)
    assert asked.looks_again() == (ErrorCode.NONE, 3)


def test_the_dead_are_not_waited_for() -> None:
    asked = Asked()
    asked.fetch(2, 3)
    asked.alive.discard(3)
    assert asked.looks_again() == (ErrorCode.NONE, 3)


def test_in_vain() -> None:
    asked = Asked()
    asked.fetch(2, 3)
    asked.fetch(3, 1)
    assert asked.looks_again() is None
    asked.waiter.expire()
    assert asked.pending.done
    assert asked.answer.error_code == ErrorCode.REQUEST_TIMED_OUT
    assert asked.answer.low_watermark == 1


def test_a_new_leader_does_not_know_yet_what_followers_have_deleted() -> None:
    asked = Asked()
    asked.fetch(2, 3)
    asked.fetch(3, 3)
    asked.case.partition.become_follower(2, 6)
    asked.case.partition.become_leader(7)
    assert asked.looks_again() is None
    asked.fetch(2, 3)
    assert asked.looks_again() is None
    assert asked.fetch(3, 3)
    assert asked.looks_again() == (ErrorCode.NONE, 3)


def lose_leadership(asked: Asked) -> None:
    asked.case.partition.become_follower(2, 6)


def lose_the_topic(asked: Asked) -> None:
    asked.case.partition.deleted = True


def lose_the_disk(asked: Asked) -> None:
    cast(Any, asked.case.log).offline = "gone"


@pytest.mark.parametrize(
    ("happening", "code"),
    [
        (lose_leadership, ErrorCode.NOT_LEADER_OR_FOLLOWER),
        (lose_the_topic, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
        (lose_the_disk, ErrorCode.KAFKA_STORAGE_ERROR),
    ],
)
def test_what_cannot_be_known_any_more(happening: Any, code: ErrorCode) -> None:
    asked = Asked()
    happening(asked)
    assert asked.looks_again() == (code, -1)


def test_what_cannot_be_deleted() -> None:
    case = Case(end=5, high=4)
    with pytest.raises(KafkaError) as refused:
        case.partition.delete_records_before(5)
    assert refused.value.code is ErrorCode.OFFSET_OUT_OF_RANGE
    assert case.partition.delete_records_before(-1) == 4
    case.log.config.cleanup_policy = frozenset({"compact"})
    with pytest.raises(KafkaError) as refused:
        case.partition.delete_records_before(4)
    assert refused.value.code is ErrorCode.POLICY_VIOLATION
