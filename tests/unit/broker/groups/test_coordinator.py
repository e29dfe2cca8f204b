"""The coordinator around the groups: whose group it is, storing, loading, timers."""

import asyncio
import logging

import pytest

from kavka.broker.coordination.ownership import partition_for, string_hash
from kavka.broker.groups import records
from kavka.broker.groups.core import GroupState
from kavka.broker.groups.messages import Leave
from kavka.broker.groups.settings import GroupSettings
from kavka.protocol.errors import ErrorCode
from tests.unit.broker.groups.harness import AT_ONCE, T0, Harness, MemoryLog


@pytest.mark.parametrize(
    ("key", "value", "partition"),
    [
        ("", 0, 0),
        ("a", 97, 47),
        ("test-group", 627841412, 12),
        ("console-consumer-12345", 158455506, 6),
        ("my-txn", -1061187895, 45),
        ("группа", 1749938458, 8),
        ("polygenelubricants", -2147483648, 0),
    ],
)
def test_a_name_belongs_to_the_partition_java_says(key: str, value: int, partition: int) -> None:
    assert string_hash(key) == value
    assert partition_for(key, 50) == partition


def test_hash_counts_utf16_units() -> None:
    # One code point, two units: 31 * 0xD83D + 0xDE00.
    assert string_hash("\N{GRINNING FACE}") == 31 * 0xD83D + 0xDE00


# -- group.max.count --------------------------------------------------------------------------


def test_there_may_be_only_so_many_groups(caplog: pytest.LogCaptureFixture) -> None:
    harness = Harness(GroupSettings(initial_rebalance_delay_ms=0, max_count=1))
    harness.join("one")
    assert harness.join("two").joined.error is ErrorCode.POLICY_VIOLATION
    assert harness.commit(1, group="two") is ErrorCode.POLICY_VIOLATION
    assert "group.max.count=1 allows group=two" in caplog.text
    assert harness.commit(1, group="one") is ErrorCode.UNKNOWN_MEMBER_ID  # one lives on


# -- whose group ------------------------------------------------------------------------------


def test_requests_for_groups_of_other_brokers_are_sent_away() -> None:
    harness = Harness(partitions=2)
    elsewhere = harness.groups.partition_of("g")
    harness.groups.on_resigned(elsewhere)
    assert harness.join().joined.error is ErrorCode.NOT_COORDINATOR
    assert harness.sync("m", 1).synced.error is ErrorCode.NOT_COORDINATOR
    assert harness.groups.heartbeat("g", "m", None, 1) is ErrorCode.NOT_COORDINATOR
    assert harness.groups.leave("g", [Leave("m")]) == (ErrorCode.NOT_COORDINATOR, [])
    assert harness.commit(1) is ErrorCode.NOT_COORDINATOR
    assert harness.fetch() is ErrorCode.NOT_COORDINATOR
    assert harness.groups.describe("g")[0] is ErrorCode.NOT_COORDINATOR
    assert harness.delete_groups("g") == {"g": ErrorCode.NOT_COORDINATOR}
    assert harness.delete_offsets("g", T0) == (ErrorCode.NOT_COORDINATOR, {})


def test_an_empty_name_is_only_good_for_offsets() -> None:
    harness = Harness()
    assert harness.join("").joined.error is ErrorCode.INVALID_GROUP_ID
    assert harness.sync("m", 1, "").synced.error is ErrorCode.INVALID_GROUP_ID
    assert harness.groups.heartbeat("", "m", None, 1) is ErrorCode.INVALID_GROUP_ID
    assert harness.groups.leave("", [Leave("m")])[0] is ErrorCode.INVALID_GROUP_ID
    assert harness.commit(7, group="") is ErrorCode.NONE
    assert harness.fetch("") == 7
    assert harness.groups.describe("")[1].state == "Empty"
    assert harness.delete_offsets("", T0)[0] is ErrorCode.INVALID_GROUP_ID
    assert harness.delete_groups("") == {"": ErrorCode.NONE}


def test_names_that_no_record_can_hold_are_refused() -> None:
    harness = Harness()
    assert harness.join("g" * 8_001).joined.error is ErrorCode.INVALID_GROUP_ID
    assert harness.join(client_id="c" * 8_001).joined.error is ErrorCode.INVALID_REQUEST
    assert harness.join(client_id="я" * 8_000).joined.error is ErrorCode.NONE
    member_id = harness.join("h" * 8_000).joined.member_id
    assert harness.sync(member_id, 1, "h" * 8_000).synced.error is ErrorCode.NONE


def test_session_timeouts_have_bounds() -> None:
    harness = Harness()
    assert harness.join(session_ms=5_999).joined.error is ErrorCode.INVALID_SESSION_TIMEOUT
    assert harness.join(session_ms=1_800_001).joined.error is ErrorCode.INVALID_SESSION_TIMEOUT
    assert harness.join(session_ms=6_000).joined.error is ErrorCode.NONE
    assert harness.join("h", session_ms=1_800_000).joined.error is ErrorCode.NONE


def test_nothing_is_known_of_an_unknown_group() -> None:
    harness = Harness()
    assert harness.join(member_id="m").joined.error is ErrorCode.UNKNOWN_MEMBER_ID
    assert harness.sync("m", 1).synced.error is ErrorCode.UNKNOWN_MEMBER_ID
    assert harness.groups.heartbeat("g", "m", None, 1) is ErrorCode.UNKNOWN_MEMBER_ID
    assert harness.groups.leave("g", [Leave("m"), Leave("n")]) == (
        ErrorCode.NONE,
        [ErrorCode.UNKNOWN_MEMBER_ID, ErrorCode.UNKNOWN_MEMBER_ID],
    )
    assert harness.groups.describe("g") == (ErrorCode.NONE, ("Dead", "", "", ()))
    assert harness.groups.list_groups() == (ErrorCode.NONE, [])


def test_a_refused_join_leaves_no_group_behind() -> None:
    harness = Harness()
    refused = harness.join(protocol_type="").joined.error
    assert refused is ErrorCode.INCONSISTENT_GROUP_PROTOCOL
    assert list(harness.groups.groups()) == []


def test_a_stopped_coordinator_serves_nobody() -> None:
    harness = Harness()
    harness.join()
    waits = harness.join()
    harness.groups.stop()
    assert waits.joined.error is ErrorCode.NOT_COORDINATOR
    assert harness.join().joined.error is ErrorCode.COORDINATOR_NOT_AVAILABLE
    assert harness.groups.list_groups()[0] is ErrorCode.COORDINATOR_NOT_AVAILABLE
    harness.timers.advance(10_000)


# -- storing ----------------------------------------------------------------------------------


def test_a_generation_counts_once_it_is_replicated() -> None:
    harness = Harness()
    member_id = harness.join().joined.member_id
    harness.log.replicates = False
    answer = harness.sync(member_id, 1, assignments={member_id: b"x"})
    assert answer.result is None
    harness.log.replicate()
    assert answer.synced.assignment == b"x"


@pytest.mark.parametrize(
    ("failure", "told"),
    [
        (ErrorCode.NOT_ENOUGH_REPLICAS, ErrorCode.COORDINATOR_NOT_AVAILABLE),
        (ErrorCode.NOT_ENOUGH_REPLICAS_AFTER_APPEND, ErrorCode.COORDINATOR_NOT_AVAILABLE),
        (ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, ErrorCode.COORDINATOR_NOT_AVAILABLE),
        (ErrorCode.NOT_LEADER_OR_FOLLOWER, ErrorCode.NOT_COORDINATOR),
        (ErrorCode.KAFKA_STORAGE_ERROR, ErrorCode.NOT_COORDINATOR),
        (ErrorCode.REQUEST_TIMED_OUT, ErrorCode.REBALANCE_IN_PROGRESS),
        (ErrorCode.MESSAGE_TOO_LARGE, ErrorCode.UNKNOWN_SERVER_ERROR),
        (ErrorCode.RECORD_LIST_TOO_LARGE, ErrorCode.UNKNOWN_SERVER_ERROR),
        (ErrorCode.CORRUPT_MESSAGE, ErrorCode.CORRUPT_MESSAGE),
    ],
)
def test_members_are_told_in_their_terms_why_a_generation_failed(
    failure: ErrorCode, told: ErrorCode
) -> None:
    harness = Harness()
    member_id = harness.join().joined.member_id
    harness.log.refuse = failure
    assert harness.sync(member_id, 1).synced.error is told
    harness.log.refuse = None
    assert harness.join(member_id=member_id).joined.generation == 2

    late = Harness()
    member_id = late.join().joined.member_id
    late.log.replicates = False
    answer = late.sync(member_id, 1)
    late.log.replicate(failure)
    assert answer.synced.error is told


def test_a_session_ends_by_the_timer() -> None:
    harness = Harness()
    member_id = harness.stable()
    for _ in range(5):
        harness.timers.advance(9)
        assert harness.groups.heartbeat("g", member_id, None, 1) is ErrorCode.NONE
    harness.timers.advance(9.9)
    assert harness.groups.describe("g")[1].state == "Stable"
    harness.timers.advance(0.2)
    assert harness.groups.describe("g")[1].state == "Empty"
    (_, stored) = harness.log.records(0)
    assert stored.value is not None
    image = records.read_group(stored.value)
    assert (image.generation, image.members, image.protocol) == (2, (), None)


def test_groups_of_many_deadlines_share_a_timer() -> None:
    harness = Harness()
    sessions = {f"g{n}": 6_000 + 1_000 * (n * 7 % 20) for n in range(20)}
    for group, session_ms in sessions.items():
        member_id = harness.join(group, session_ms=session_ms).joined.member_id
        harness.sync(member_id, 1, group)
    for second in range(30):
        states = {g: harness.groups.describe(g)[1].state for g in sessions}
        assert states == {
            group: "Stable" if second < session_ms / 1000 else "Empty"
            for group, session_ms in sessions.items()
        }
        harness.timers.advance(1)


# -- loading ----------------------------------------------------------------------------------


def test_groups_and_offsets_are_there_after_a_restart() -> None:
    harness = Harness()
    member_id = harness.stable()
    assert harness.commit(42, member_id=member_id, generation=1) is ErrorCode.NONE
    assert harness.commit(7, group="simple") is ErrorCode.NONE
    again = Harness(log=harness.log)
    assert again.fetch() == 42
    assert again.fetch("simple") == 7
    assert again.groups.heartbeat("g", member_id, None, 1) is ErrorCode.NONE
    assert again.groups.describe("g")[1] == harness.groups.describe("g")[1]
    assert again.groups.list_groups()[1] == [
        ("g", "consumer", "Stable", "Classic"),
        ("simple", "", "Empty", "Classic"),
    ]
    again.timers.advance(11)
    assert again.groups.describe("g")[1].state == "Empty"


def test_while_loading_groups_are_told_to_wait() -> None:
    harness = Harness()
    harness.stable()
    harness.log.batches_a_read = 1
    harness.commit(1, group="other")
    harness.in_thread = True
    harness.reload()
    assert harness.join().joined.error is ErrorCode.COORDINATOR_LOAD_IN_PROGRESS
    assert harness.sync("m", 1).synced.error is ErrorCode.REBALANCE_IN_PROGRESS
    assert harness.groups.heartbeat("g", "whoever", None, 9) is ErrorCode.NONE
    assert harness.commit(1) is ErrorCode.COORDINATOR_LOAD_IN_PROGRESS
    assert harness.fetch() is ErrorCode.COORDINATOR_LOAD_IN_PROGRESS
    assert harness.groups.describe("g")[0] is ErrorCode.COORDINATOR_LOAD_IN_PROGRESS
    assert harness.groups.list_groups() == (ErrorCode.COORDINATOR_LOAD_IN_PROGRESS, [])
    harness.run_threads()
    assert harness.fetch() is ErrorCode.COORDINATOR_LOAD_IN_PROGRESS
    harness.run_threads()
    assert harness.fetch("other") == 1
    assert harness.groups.list_groups()[0] is ErrorCode.NONE


def test_leadership_lost_while_loading() -> None:
    harness = Harness()
    harness.commit(1)
    harness.in_thread = True
    harness.reload()
    harness.groups.on_resigned(0)
    harness.run_threads()
    assert harness.fetch() is ErrorCode.NOT_COORDINATOR
    harness.groups.on_elected(0, 3)
    harness.run_threads()
    assert harness.fetch() == 1


def test_elected_again_without_having_resigned_keeps_the_groups() -> None:
    harness = Harness()
    member_id = harness.stable()
    waits = harness.join()
    harness.groups.on_elected(0, 5)
    assert waits.result is None
    assert harness.groups.heartbeat("g", member_id, None, 1) is ErrorCode.REBALANCE_IN_PROGRESS


def test_resigning_answers_who_waits_and_forgets_timers() -> None:
    harness = Harness()
    harness.stable()
    joins = harness.join()
    harness.groups.on_resigned(0)
    assert joins.joined.error is ErrorCode.NOT_COORDINATOR
    assert list(harness.groups.groups()) == []
    harness.timers.advance(1_000)
    assert harness.log.records(0)[-1].key == records.group_key("g")
    assert len(harness.log.records(0)) == 1


def test_an_answer_of_the_log_after_resigning_is_harmless() -> None:
    harness = Harness()
    member_id = harness.join().joined.member_id
    harness.log.replicates = False
    answer = harness.sync(member_id, 1)
    results = harness.start_commit({}, group="other")
    assert results == [{}]
    harness.groups.on_resigned(0)
    assert answer.synced.error is ErrorCode.NOT_COORDINATOR
    harness.log.replicate(ErrorCode.NOT_LEADER_OR_FOLLOWER)
    harness.log.replicates = True
    harness.groups.on_elected(0, 1)
    assert harness.groups.describe("g")[1].state == "Stable"  # it was in the log after all


@pytest.mark.parametrize("damage", ["crc", "read"])
def test_a_partition_that_cannot_be_read_is_not_served(
    damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    log = MemoryLog()
    Harness(log=log).commit(1)
    if damage == "crc":
        log.batches[0][0] = log.batches[0][0][:-1] + b"\xff"
    else:
        log.refuse_reads = ErrorCode.KAFKA_STORAGE_ERROR
    with caplog.at_level(logging.ERROR, "kavka.groups"):
        harness = Harness(log=log)
    assert "partition=0" in caplog.text
    assert harness.fetch() is ErrorCode.COORDINATOR_NOT_AVAILABLE
    assert harness.join().joined.error is ErrorCode.COORDINATOR_NOT_AVAILABLE
    if damage == "read":
        log.refuse_reads = None
        harness.groups.on_elected(0, 2)
        assert harness.fetch() == 1


def test_records_of_later_kafkas_and_nonsense_are_passed_over() -> None:
    log = MemoryLog()
    log.append_records(0, [(b"\x00\x03\x01g", b"\x00\x00what"), (None, b"x"), (b"\x00", b"")])
    Harness(log=log).commit(1)
    assert Harness(log=log).fetch() == 1


def test_tombstones_and_later_records_win_in_a_load() -> None:
    log = MemoryLog()
    harness = Harness(log=log)
    harness.commit(1)
    harness.commit(2)
    harness.commit(3, group="gone")
    log.append_records(0, [(records.offset_key("gone", T0), None)])
    again = Harness(log=log)
    assert again.fetch() == 2
    assert [group.group_id for group in again.groups.groups()] == ["g"]


def test_compressed_batches_are_written_and_read() -> None:
    harness = Harness(AT_ONCE._replace(offsets_compression=1))
    harness.commit(1)
    assert harness.log.batches[0][0][22] & 7 == 1
    assert Harness(log=harness.log).fetch() == 1


def test_waiting_until_all_is_loaded() -> None:
    harness = Harness(partitions=2)
    for name in ("a", "b"):
        assert harness.commit(1, group=name) is ErrorCode.NONE
    assert len(harness.log.batches) == 2
    harness.in_thread = True
    harness.reload(0)
    harness.reload(1)

    async def wait() -> None:
        waiting = asyncio.ensure_future(harness.groups.loaded())
        await asyncio.sleep(0)
        harness.run_threads()
        await asyncio.sleep(0)
        assert not waiting.done()
        harness.run_threads()
        await waiting

    asyncio.run(wait())
    asyncio.run(harness.groups.loaded())


# -- listing ----------------------------------------------------------------------------------


def test_groups_are_listed_by_state_and_type() -> None:
    harness = Harness()
    harness.stable("s")
    harness.commit(1, group="e")
    every = [("s", "consumer", "Stable", "Classic"), ("e", "", "Empty", "Classic")]
    listed = harness.groups.list_groups
    assert listed()[1] == every
    assert listed(["Stable"])[1] == every[:1]
    assert listed(["stable", "EMPTY"])[1] == every
    assert listed(["Dead"])[1] == []
    assert listed(["nonsense"])[1] == []
    assert listed([], ["Classic"])[1] == every
    assert listed([], ["consumer", "classic"])[1] == every
    assert listed([], ["Consumer"])[1] == []


def test_several_members_leave_at_once() -> None:
    harness = Harness()
    first = harness.stable()
    second = harness.join()
    harness.join(member_id=first)
    assert second.joined.generation == 2
    error, errors = harness.groups.leave(
        "g", [Leave(second.joined.member_id), Leave("stranger"), Leave(first)]
    )
    assert error is ErrorCode.NONE
    assert errors == [ErrorCode.NONE, ErrorCode.UNKNOWN_MEMBER_ID, ErrorCode.NONE]
    assert harness.groups.describe("g")[1].state == GroupState.EMPTY
