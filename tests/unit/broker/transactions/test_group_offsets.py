"""Offsets committed in a transaction, inside the group coordinator."""

import pytest

from kavka.broker.coordination.journal import TransactionalProducer
from kavka.broker.groups.offset_keeper import Commit, Results
from kavka.broker.groups.offsets import CommittedOffset
from kavka.protocol.errors import ErrorCode
from kavka.protocol.records.batch import BatchHeader, read_header
from kavka.protocol.records.control import ControlType, EndTxnMarker, build_end_txn_marker
from kavka.protocol.topics import TopicPartition
from tests.unit.broker.groups.harness import T0, T1, Harness

NONE = ErrorCode.NONE
UNSTABLE = ErrorCode.UNSTABLE_OFFSET_COMMIT
PRODUCER = TransactionalProducer(7, 3)
OTHER = TransactionalProducer(8, 0)


def start_commit(
    harness: Harness,
    offset: int,
    partition: TopicPartition = T0,
    *,
    group: str = "g",
    producer: TransactionalProducer = PRODUCER,
    member_id: str = "",
    generation: int = -1,
) -> list[Results]:
    results: list[Results] = []
    value = CommittedOffset(offset, commit_timestamp=harness.clock.wall_ms())
    harness.groups.offsets.commit(
        Commit(group, member_id, None, generation, [(partition, value)], producer), results.append
    )
    return results


def commit(harness: Harness, offset: int, **how: object) -> ErrorCode:
    (results,) = start_commit(harness, offset, **how)
    (code,) = results.values()
    return code


def mark(harness: Harness, committed: bool, producer: TransactionalProducer = PRODUCER) -> int:
    """Write a marker into the log; its offset."""
    return harness.log.append(
        0,
        bytearray(
            build_end_txn_marker(
                EndTxnMarker(ControlType.COMMIT if committed else ControlType.ABORT, 0),
                producer_id=producer.producer_id,
                producer_epoch=producer.epoch,
                timestamp=0,
            )
        ),
    )


def end(harness: Harness, committed: bool, producer: TransactionalProducer = PRODUCER) -> None:
    offset = mark(harness, committed, producer)
    harness.groups.offsets.end_transaction(0, producer.producer_id, committed, offset)


def stable(harness: Harness, partition: TopicPartition = T0, group: str = "g") -> int | ErrorCode:
    """As a reader that wants stable offsets sees it."""
    error, (found,) = harness.groups.offsets.fetch(group, [partition], require_stable=True)
    assert error is NONE
    if found.error is not NONE:
        return found.error
    return -1 if found.value is None else found.value.offset


def last_header(harness: Harness) -> BatchHeader:
    return read_header(harness.log.batches[0][-1])


def test_they_stand_in_the_log_as_kafka_writes_them() -> None:
    harness = Harness()
    assert commit(harness, 5) is NONE
    header = last_header(harness)
    assert header.is_transactional and not header.is_control
    assert (header.producer_id, header.producer_epoch, header.base_sequence) == (7, 3, 0)
    assert harness.commit(6) is NONE
    header = last_header(harness)
    assert not header.is_transactional
    assert (header.producer_id, header.producer_epoch, header.base_sequence) == (-1, -1, -1)


@pytest.mark.parametrize("committed", [True, False])
def test_they_count_from_the_marker(committed: bool) -> None:
    harness = Harness()
    harness.commit(1)
    commit(harness, 5)
    assert harness.fetch() == 1
    assert stable(harness) is UNSTABLE
    assert stable(harness, T1) == -1
    end(harness, committed)
    assert stable(harness) == harness.fetch() == (5 if committed else 1)
    harness.reload()
    assert stable(harness) == (5 if committed else 1)


def test_the_later_record_wins_whoever_wrote_it() -> None:
    harness = Harness()
    commit(harness, 5)
    harness.commit(9)
    end(harness, True)
    assert harness.fetch() == 9
    commit(harness, 6)
    commit(harness, 7, producer=OTHER)
    end(harness, True, OTHER)
    end(harness, True)
    assert harness.fetch() == 7
    harness.reload()
    assert harness.fetch() == 7


def test_the_marker_may_be_told_before_the_commit_is_answered() -> None:
    harness = Harness()
    harness.log.replicates = False
    results = start_commit(harness, 5)
    offset = mark(harness, True)
    harness.groups.offsets.end_transaction(0, 7, True, offset)
    assert results == []
    assert harness.fetch() == 5
    harness.log.replicate()
    assert results == [{T0: NONE}]
    assert stable(harness) == 5


def test_a_commit_that_was_not_replicated_in_time_stands_in_the_log_all_the_same() -> None:
    harness = Harness()
    harness.log.replicates = False
    results = start_commit(harness, 5)
    harness.log.replicate(ErrorCode.REQUEST_TIMED_OUT)
    assert results == [{T0: ErrorCode.REQUEST_TIMED_OUT}]
    assert stable(harness) is UNSTABLE
    end(harness, True)
    assert stable(harness) == 5


def test_a_commit_behind_the_marker_belongs_to_the_next_transaction() -> None:
    harness = Harness()
    commit(harness, 5)
    marker = mark(harness, True)
    commit(harness, 6)
    commit(harness, 3, partition=T1)
    harness.groups.offsets.end_transaction(0, 7, True, marker)
    # Of T0 the earlier one was not kept, as a later one of the same producer was there; the
    # coordinator lets no such transaction begin.
    assert stable(harness, T1) is UNSTABLE
    end(harness, True)
    assert (stable(harness), stable(harness, T1)) == (6, 3)
    harness.reload()
    assert (stable(harness), stable(harness, T1)) == (6, 3)


def test_open_ones_are_loaded_as_open() -> None:
    harness = Harness()
    commit(harness, 5)
    commit(harness, 6, group="other")
    commit(harness, 7, partition=T1, producer=OTHER)
    harness.reload()
    assert stable(harness) is UNSTABLE
    end(harness, True)
    assert (stable(harness), stable(harness, group="other")) == (5, 6)
    assert stable(harness, T1) is UNSTABLE
    end(harness, False, OTHER)
    assert stable(harness, T1) == -1


def test_a_group_with_open_offsets_is_not_forgotten() -> None:
    harness = Harness()
    commit(harness, 5)
    harness.timers.advance(30 * 86_400)
    end(harness, True)
    assert harness.fetch() == 5
    harness.timers.advance(30 * 86_400)
    assert harness.fetch() == -1


def test_who_may_commit() -> None:
    harness = Harness()
    assert commit(harness, 1, group="") is ErrorCode.INVALID_GROUP_ID
    # A group that nobody knows comes into being, but its members do not.
    assert commit(harness, 1, member_id="m", generation=4) is ErrorCode.UNKNOWN_MEMBER_ID
    assert harness.groups.find("g") is None
    member = harness.stable()
    generation = 1
    assert commit(harness, 1, member_id=member, generation=generation) is NONE
    late = commit(harness, 1, member_id=member, generation=generation - 1)
    assert late is ErrorCode.ILLEGAL_GENERATION
    assert commit(harness, 1, member_id="m", generation=1) is ErrorCode.UNKNOWN_MEMBER_ID
    assert commit(harness, 1) is NONE, "as clients of before KIP-447 do"
    assert harness.commit(1) is ErrorCode.UNKNOWN_MEMBER_ID, "outside of transactions they may not"


def test_a_failed_write() -> None:
    harness = Harness()
    harness.log.refuse = ErrorCode.INVALID_PRODUCER_EPOCH
    assert commit(harness, 1) is ErrorCode.INVALID_PRODUCER_EPOCH
    harness.log.refuse = ErrorCode.NOT_ENOUGH_REPLICAS
    assert commit(harness, 1) is ErrorCode.COORDINATOR_NOT_AVAILABLE
    harness.log.refuse = None
    assert stable(harness) == -1
    assert harness.groups.find("g") is None
