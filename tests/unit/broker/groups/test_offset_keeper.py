"""Committing, reading, deleting and expiring offsets."""

import pytest

from kavka.broker.groups import records
from kavka.broker.groups.offsets import CommittedOffset
from kavka.protocol.errors import ErrorCode
from kavka.protocol.records.batch import read_header
from kavka.protocol.records.control import ControlType, EndTxnMarker, build_end_txn_marker
from kavka.protocol.topics import TopicPartition
from tests.unit.broker.groups.harness import AT_ONCE, T0, T1, Harness

DAY = 86_400.0
NO_OFFSETS: dict[TopicPartition, CommittedOffset] = {}


def subscription(*topics: str) -> bytes:
    names = b"".join(len(t).to_bytes(2, "big") + t.encode() for t in topics)
    return b"\x00\x03" + len(topics).to_bytes(4, "big") + names + b"\xff\xff\xff\xff"


def tombstones(harness: Harness, since: int = 0) -> list[object]:
    return [
        records.read_key(record.key)
        for record in harness.log.records(0)[since:]
        if record.value is None and record.key is not None
    ]


# -- committing -------------------------------------------------------------------------------


def test_a_commit_is_one_batch_in_kafkas_format() -> None:
    harness = Harness()
    (results,) = harness.start_commit(
        {
            TopicPartition("t", 3): CommittedOffset(42, -1, "m", 1_500_000_000_000),
            T0: CommittedOffset(1, 5, "", 7, expire_timestamp=9),
        }
    )
    assert set(results.values()) == {ErrorCode.NONE}
    (batch,) = harness.log.batches[0]
    header = read_header(batch)
    assert (header.records_count, header.producer_id, header.codec) == (2, -1, 0)
    assert header.max_timestamp == harness.clock.wall_ms()
    first, second = harness.log.records(0)
    assert first.key is not None
    assert first.value is not None
    assert second.value is not None
    assert first.key.hex() == "000100016700017400000003"
    assert first.value.hex() == "0003000000000000002affffffff00016d0000015d3ef79800"
    assert second.value.hex() == f"0001{1:016x}0000{7:016x}{9:016x}"


def test_an_offset_is_visible_once_it_is_replicated() -> None:
    harness = Harness()
    harness.commit(1)
    harness.log.replicates = False
    waiting = harness.start_commit({T0: CommittedOffset(2)})
    assert waiting == []
    assert harness.fetch() == 1
    stable = harness.groups.offsets.fetch("g", [T0, T1], require_stable=True)[1]
    assert [found.error for found in stable] == [
        ErrorCode.UNSTABLE_OFFSET_COMMIT,
        ErrorCode.NONE,
    ]
    harness.log.replicate()
    assert waiting == [{T0: ErrorCode.NONE}]
    assert harness.fetch() == 2


def test_the_later_record_wins_in_whatever_order_replication_is_reported() -> None:
    harness = Harness()
    harness.log.replicates = False
    harness.start_commit({T0: CommittedOffset(1)})
    harness.start_commit({T0: CommittedOffset(2)})
    harness.log.waiting.reverse()
    harness.log.replicate()
    assert harness.fetch() == 2
    harness.start_commit({T0: CommittedOffset(9), T1: CommittedOffset(1)})
    harness.start_commit({T1: CommittedOffset(2)})
    harness.log.replicate(number=1)
    assert harness.fetch() == 9
    assert harness.fetch(partition=T1) == 1
    harness.log.replicate()
    assert harness.fetch(partition=T1) == 2


def test_acks_one_does_not_wait_for_replicas() -> None:
    harness = Harness(AT_ONCE._replace(commit_required_acks=1))
    harness.log.replicates = False
    assert harness.commit(5) is ErrorCode.NONE
    assert harness.fetch() == 5


@pytest.mark.parametrize(
    ("failure", "told"),
    [
        (ErrorCode.NOT_ENOUGH_REPLICAS, ErrorCode.COORDINATOR_NOT_AVAILABLE),
        (ErrorCode.NOT_LEADER_OR_FOLLOWER, ErrorCode.NOT_COORDINATOR),
        (ErrorCode.KAFKA_STORAGE_ERROR, ErrorCode.NOT_COORDINATOR),
        (ErrorCode.MESSAGE_TOO_LARGE, ErrorCode.INVALID_COMMIT_OFFSET_SIZE),
        (ErrorCode.RECORD_LIST_TOO_LARGE, ErrorCode.INVALID_COMMIT_OFFSET_SIZE),
        (ErrorCode.REQUEST_TIMED_OUT, ErrorCode.REQUEST_TIMED_OUT),
    ],
)
def test_a_commit_that_fails_keeps_the_offset_of_before(
    failure: ErrorCode, told: ErrorCode
) -> None:
    harness = Harness()
    harness.commit(1)
    harness.log.refuse = failure
    assert harness.commit(2) is told
    assert harness.commit(2, group="new") is told
    assert harness.groups.find("new") is None
    harness.log.refuse = None
    harness.log.replicates = False
    waiting = harness.start_commit({T0: CommittedOffset(3)})
    harness.log.replicate(failure)
    assert waiting == [{T0: told}]
    assert harness.fetch() == 1
    harness.log.replicates = True
    assert harness.commit(4) is ErrorCode.NONE
    assert harness.fetch() == 4


def test_long_metadata_is_refused_partition_by_partition() -> None:
    harness = Harness()
    (results,) = harness.start_commit(
        {T0: CommittedOffset(1, metadata="m" * 4097), T1: CommittedOffset(2, metadata="я" * 4096)}
    )
    assert results == {T0: ErrorCode.OFFSET_METADATA_TOO_LARGE, T1: ErrorCode.NONE}
    assert harness.fetch() == -1
    (results,) = harness.start_commit({T0: CommittedOffset(1, metadata="m" * 4097)}, group="new")
    assert results == {T0: ErrorCode.OFFSET_METADATA_TOO_LARGE}
    assert harness.groups.find("new") is None


def test_metadata_that_no_record_can_hold_is_refused_whatever_the_setting() -> None:
    harness = Harness(AT_ONCE._replace(max_offset_metadata_size=100_000))
    offsets = {T0: CommittedOffset(1, metadata="m" * 32_768), T1: CommittedOffset(2)}
    (results,) = harness.start_commit(offsets)
    assert results == {T0: ErrorCode.OFFSET_METADATA_TOO_LARGE, T1: ErrorCode.NONE}
    (results,) = harness.start_commit({T0: CommittedOffset(1, metadata="m" * 32_767)})
    assert results == {T0: ErrorCode.NONE}


def test_commits_of_members_are_fenced() -> None:
    harness = Harness()
    assert harness.commit(1, member_id="m", generation=1) is ErrorCode.ILLEGAL_GENERATION
    member_id = harness.stable()
    assert harness.commit(1) is ErrorCode.UNKNOWN_MEMBER_ID
    assert harness.commit(1, member_id="m", generation=1) is ErrorCode.UNKNOWN_MEMBER_ID
    assert harness.commit(1, member_id=member_id, generation=0) is ErrorCode.ILLEGAL_GENERATION
    assert harness.fetch() == -1
    assert harness.commit(1, member_id=member_id, generation=1) is ErrorCode.NONE
    assert harness.fetch() == 1


# -- reading ----------------------------------------------------------------------------------


def test_all_offsets_of_a_group() -> None:
    harness = Harness()
    harness.commit(1)
    harness.commit(2, T1)
    _, found = harness.groups.offsets.fetch("g", None)
    assert [(f.partition, f.value and f.value.offset) for f in found] == [(T0, 1), (T1, 2)]
    assert harness.groups.offsets.fetch("unknown", None) == (ErrorCode.NONE, [])
    assert harness.fetch("unknown") == -1


# -- transactions -----------------------------------------------------------------------------


@pytest.mark.parametrize("committed", [True, False])
def test_offsets_in_a_transaction_wait_for_its_marker(committed: bool) -> None:
    harness = Harness()
    harness.commit(1)
    key = records.offset_key("g", T0)
    in_transaction = [(key, records.offset_value(CommittedOffset(2)))]
    harness.log.append_records(0, in_transaction, producer_id=7)
    harness.reload()
    assert harness.fetch() == 1
    (found,) = harness.groups.offsets.fetch("g", [T0], require_stable=True)[1]
    assert found.error is ErrorCode.UNSTABLE_OFFSET_COMMIT

    other = Harness(log=harness.log)
    other.groups.offsets.end_transaction(0, 8, True)  # another producer's
    other.groups.offsets.end_transaction(1, 7, True)  # another partition's
    assert other.fetch() == 1
    other.groups.offsets.end_transaction(0, 7, committed)
    assert other.fetch() == (2 if committed else 1)

    kind = ControlType.COMMIT if committed else ControlType.ABORT
    marker = build_end_txn_marker(
        EndTxnMarker(kind, 0), producer_id=7, producer_epoch=0, timestamp=1
    )
    harness.log.append(0, bytearray(marker))
    harness.reload()
    assert harness.fetch() == (2 if committed else 1)


def test_a_later_plain_commit_beats_a_transaction() -> None:
    harness = Harness()
    key = records.offset_key("g", T0)
    in_transaction = [(key, records.offset_value(CommittedOffset(2)))]
    harness.log.append_records(0, in_transaction, producer_id=7)
    harness.reload()
    assert harness.commit(3) is ErrorCode.NONE
    harness.groups.offsets.end_transaction(0, 7, True)
    assert harness.fetch() == 3


# -- deleting groups --------------------------------------------------------------------------


def test_only_empty_groups_are_deleted() -> None:
    harness = Harness()
    running = harness.stable("running")
    harness.commit(1, group="simple")
    harness.commit(2, T1, group="simple")
    assert harness.delete_groups("running", "simple", "unknown", "simple") == {
        "running": ErrorCode.NON_EMPTY_GROUP,
        "unknown": ErrorCode.GROUP_ID_NOT_FOUND,
        "simple": ErrorCode.NONE,
    }
    # A group that never had a generation has no record to delete.
    assert set(tombstones(harness)) == {
        records.OffsetKey("simple", T0),
        records.OffsetKey("simple", T1),
    }
    assert harness.fetch("simple") == -1
    assert harness.groups.find("simple") is None

    harness.commit(5, group="running", member_id=running, generation=1)
    harness.timers.advance(11)
    written = len(harness.log.records(0))
    assert harness.delete_groups("running") == {"running": ErrorCode.NONE}
    assert tombstones(harness, written) == [
        records.OffsetKey("running", T0),
        records.GroupKey("running"),
    ]
    again = Harness(log=harness.log)
    assert list(again.groups.groups()) == []


def test_a_deletion_is_answered_when_it_is_replicated() -> None:
    harness = Harness(partitions=3)
    names = ["a", "b", "c", "d"]
    for name in names:
        harness.commit(1, group=name)
    harness.log.replicates = False
    results: list[dict[str, ErrorCode]] = []
    harness.groups.offsets.delete_groups(names, results.append)
    partitions = {harness.groups.partition_of(name) for name in names}
    assert len(harness.log.waiting) == len(partitions) > 1
    harness.log.replicate(number=1)
    assert results == []
    harness.log.replicate(ErrorCode.NOT_LEADER_OR_FOLLOWER)
    (only,) = results
    assert set(only) == set(names)
    assert sorted(set(only.values())) == [ErrorCode.NONE, ErrorCode.NOT_COORDINATOR]


def test_a_deletion_that_cannot_be_written_deletes_nothing() -> None:
    harness = Harness()
    harness.commit(1)
    harness.log.refuse = ErrorCode.NOT_ENOUGH_REPLICAS
    assert harness.delete_groups("g") == {"g": ErrorCode.COORDINATOR_NOT_AVAILABLE}
    assert harness.fetch() == 1


def test_a_commit_under_way_is_deleted_with_its_group() -> None:
    harness = Harness()
    harness.log.replicates = False
    waiting = harness.start_commit({T0: CommittedOffset(1)})
    results: list[dict[str, ErrorCode]] = []
    harness.groups.offsets.delete_groups(["g"], results.append)
    harness.log.replicate()
    assert waiting == [{T0: ErrorCode.NONE}]
    assert results == [{"g": ErrorCode.NONE}]
    assert harness.fetch() == -1
    assert Harness(log=harness.log).fetch() == -1


def test_very_many_offsets_are_deleted_in_several_batches() -> None:
    harness = Harness()
    offsets = {TopicPartition("t", n): CommittedOffset(n) for n in range(2_500)}
    harness.start_commit(offsets)
    assert harness.delete_groups("g") == {"g": ErrorCode.NONE}
    sizes = [read_header(batch).records_count for batch in harness.log.batches[0]]
    assert sizes == [2_500, 1_000, 1_000, 500]
    assert list(Harness(log=harness.log).groups.groups()) == []


# -- deleting offsets -------------------------------------------------------------------------


def test_offsets_of_a_group_without_members_are_deleted_and_the_group_with_the_last() -> None:
    harness = Harness()
    harness.commit(1)
    harness.commit(2, T1)
    other = TopicPartition("other", 0)
    assert harness.delete_offsets("g", T0, other) == (
        ErrorCode.NONE,
        {T0: ErrorCode.NONE, other: ErrorCode.NONE},
    )
    assert (harness.fetch(), harness.fetch(partition=T1)) == (-1, 2)
    assert tombstones(harness) == [records.OffsetKey("g", T0)]
    assert harness.delete_offsets("g", T1)[0] is ErrorCode.NONE
    assert harness.delete_offsets("g", T1) == (ErrorCode.GROUP_ID_NOT_FOUND, {})


def test_offsets_of_subscribed_topics_are_kept() -> None:
    harness = Harness()
    member_id = harness.stable(metadata=subscription("t", "u"))
    old = TopicPartition("old", 0)
    for partition in (T0, old):
        harness.commit(1, partition, member_id=member_id, generation=1)
    assert harness.delete_offsets("g", T0, old) == (
        ErrorCode.NONE,
        {T0: ErrorCode.GROUP_SUBSCRIBED_TO_TOPIC, old: ErrorCode.NONE},
    )
    assert (harness.fetch(), harness.fetch(partition=old)) == (1, -1)


def test_a_subscription_that_cannot_be_read_keeps_everything() -> None:
    harness = Harness()
    member_id = harness.stable(metadata=b"\x00")
    harness.commit(1, member_id=member_id, generation=1)
    assert harness.delete_offsets("g", T0)[1] == {T0: ErrorCode.GROUP_SUBSCRIBED_TO_TOPIC}


def test_offsets_of_running_groups_that_are_no_consumers_are_kept() -> None:
    harness = Harness()
    joined = harness.join(protocol_type="connect").joined
    harness.sync(joined.member_id, 1)
    assert harness.delete_offsets("g", T0) == (ErrorCode.NON_EMPTY_GROUP, {})


def test_offsets_of_deleted_topics_go() -> None:
    harness = Harness(partitions=3)
    gone = TopicPartition("gone", 0)
    names = ["a", "b", "c", "d"]
    for name in names:
        harness.commit(1, gone, group=name)
        harness.commit(2, T0, group=name)
    harness.commit(3, gone, group="only")
    harness.groups.offsets.forget_partitions([gone, TopicPartition("gone", 1)])
    assert {harness.fetch(name, gone) for name in names} == {-1}
    assert {harness.fetch(name) for name in names} == {2}
    assert harness.groups.find("only") is None
    again = Harness(log=harness.log, partitions=3)
    assert {again.fetch(name, gone) for name in names} == {-1}


# -- expiring (KIP-211) -----------------------------------------------------------------------


def test_offsets_kept_by_hand_expire_seven_days_after_their_commit() -> None:
    harness = Harness()
    harness.commit(1)
    harness.timers.advance(3 * DAY)
    harness.commit(2, T1)
    harness.timers.advance(4 * DAY - 1)
    assert (harness.fetch(), harness.fetch(partition=T1)) == (1, 2)
    harness.timers.advance(601)
    assert (harness.fetch(), harness.fetch(partition=T1)) == (-1, 2)
    assert tombstones(harness) == [records.OffsetKey("g", T0)]
    harness.timers.advance(3 * DAY)
    assert harness.groups.find("g") is None
    assert list(Harness(log=harness.log).groups.groups()) == []


def test_offsets_of_a_group_expire_seven_days_after_its_last_member_left() -> None:
    harness = Harness()
    member_id = harness.stable(metadata=subscription("t"))
    harness.commit(1, member_id=member_id, generation=1)
    for _ in range(10 * 24 * 60):
        harness.clock.advance(60)
        harness.groups.heartbeat("g", member_id, None, 1)
    harness.groups.offsets.expire()
    assert harness.fetch() == 1
    harness.timers.advance(11)  # the session ends
    assert harness.groups.describe("g")[1].state == "Empty"
    harness.timers.advance(7 * DAY - 700)
    assert harness.fetch() == 1
    reloaded = Harness(log=harness.log)
    reloaded.clock.advance((harness.clock.wall_ms() - reloaded.clock.wall_ms()) / 1000)
    reloaded.groups.offsets.expire()
    assert reloaded.fetch() == 1
    for broker in (harness, reloaded):
        broker.timers.advance(1_300)
        assert broker.groups.find("g") is None
    assert tombstones(harness)[:2] == [records.OffsetKey("g", T0), records.GroupKey("g")]


def test_a_running_consumer_group_loses_offsets_of_topics_it_does_not_read_any_more() -> None:
    harness = Harness()
    member_id = harness.stable(metadata=subscription("t"))
    old = TopicPartition("old", 0)
    harness.commit(1, member_id=member_id, generation=1)
    harness.commit(2, old, member_id=member_id, generation=1)
    harness.clock.advance(8 * DAY)
    harness.groups.offsets.expire()
    assert (harness.fetch(), harness.fetch(partition=old)) == (1, -1)


@pytest.mark.parametrize("protocol_type", ["connect", "consumer"])
def test_a_running_group_whose_topics_are_unknown_keeps_its_offsets(protocol_type: str) -> None:
    harness = Harness()
    joined = harness.join(protocol_type=protocol_type).joined
    harness.sync(joined.member_id, 1)
    harness.commit(1, member_id=joined.member_id, generation=1)
    harness.clock.advance(8 * DAY)
    harness.groups.offsets.expire()
    assert harness.fetch() == 1


def test_a_rebalancing_group_keeps_its_offsets() -> None:
    harness = Harness()
    member_id = harness.stable(metadata=subscription("u"))
    harness.commit(1, member_id=member_id, generation=1)
    harness.join()
    harness.clock.advance(8 * DAY)
    harness.groups.offsets.expire()
    assert harness.fetch() == 1


def test_a_retention_of_its_own_counts_from_the_commit() -> None:
    harness = Harness()
    now = harness.clock.wall_ms()
    harness.start_commit({T0: CommittedOffset(1, -1, "", now, now + 1_000)})
    harness.start_commit({T1: CommittedOffset(2, -1, "", now, now + 10**12)})
    harness.clock.advance(0.999)
    harness.groups.offsets.expire()
    assert harness.fetch() == 1
    harness.clock.advance(8 * DAY)
    harness.groups.offsets.expire()
    assert (harness.fetch(), harness.fetch(partition=T1)) == (-1, 2)


def test_a_commit_under_way_does_not_expire() -> None:
    harness = Harness()
    harness.commit(1)
    harness.clock.advance(8 * DAY)
    harness.log.replicates = False
    waiting = harness.start_commit({T0: CommittedOffset(2, commit_timestamp=0)})
    harness.groups.offsets.expire()
    harness.log.replicate()
    assert waiting == [{T0: ErrorCode.NONE}]
    assert harness.fetch() == 2


def test_expiry_that_cannot_be_written_is_tried_again() -> None:
    harness = Harness()
    harness.commit(1)
    harness.clock.advance(8 * DAY)
    harness.log.refuse = ErrorCode.NOT_ENOUGH_REPLICAS
    harness.groups.offsets.expire()
    assert harness.fetch() == 1
    harness.log.refuse = None
    harness.timers.advance(601)
    assert harness.fetch() == -1


def test_a_group_whose_only_member_id_was_never_used_goes() -> None:
    harness = Harness()
    harness.join(version=4)
    harness.groups.offsets.expire()
    assert harness.groups.find("g") is not None
    harness.timers.advance(601)
    assert harness.groups.find("g") is None
    assert harness.log.records(0) == []


def test_expiry_goes_on_after_leadership_was_lost() -> None:
    harness = Harness(partitions=2)
    harness.commit(1, group="a")
    harness.commit(1, group="b")
    lost = harness.groups.partition_of("a")
    assert lost != harness.groups.partition_of("b")
    harness.groups.on_resigned(lost)
    harness.timers.advance(8 * DAY)
    assert harness.fetch("a") is ErrorCode.NOT_COORDINATOR
    assert harness.fetch("b") == -1
