import logging

import pytest

from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.protocol.records.batch import MAX_SEQUENCE, BatchHeader
from kavka.storage.producer_state import ProducerState
from kavka.storage.producers import AppendOrigin, CompletedTxn, Duplicate
from tests.unit.storage.producer_support import EndMarker, batch, control

DAY = 86_400_000
COORDINATOR = AppendOrigin.COORDINATOR
COMMIT, ABORT = EndMarker(True), EndMarker(False)


class Partition:
    """A producer state, and the log end that its owner would keep."""

    def __init__(self, *, accept_unknown: bool = False) -> None:
        self.state = ProducerState("t-0", expiration_ms=7 * DAY, accept_unknown=accept_unknown)
        self.end = 0

    def append(
        self, header: BatchHeader, marker: EndMarker | None = None, timestamp: int = 1
    ) -> CompletedTxn | None:
        """Append without asking."""
        completed = self.state.update(header, self.end, timestamp, marker)
        self.end += header.last_offset_delta + 1
        self.state.end_offset = self.end
        return completed

    def send(self, *headers: BatchHeader) -> Duplicate | None:
        """Append as the leader does for a client."""
        duplicate = self.state.check_all(headers)
        if duplicate is None:
            for header in headers:
                self.append(header)
        return duplicate

    def refused(
        self,
        header: BatchHeader,
        origin: AppendOrigin = AppendOrigin.CLIENT,
        marker: EndMarker | None = None,
    ) -> ErrorCode:
        """The error that an append gets."""
        with pytest.raises(KafkaError) as caught:
            self.state.check(header, origin, marker)
        return caught.value.code


@pytest.fixture
def partition() -> Partition:
    return Partition()


def test_sequences_go_on_without_gap(partition: Partition) -> None:
    assert partition.send(batch(0, 10)) is None
    assert partition.send(batch(10, 5)) is None
    assert partition.refused(batch(16)) is ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER
    assert partition.refused(batch(14)) is ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER
    assert partition.send(batch(15)) is None


def test_each_of_the_last_five_batches_is_recognised(partition: Partition) -> None:
    for number in range(6):
        header = batch(number * 10, 10)
        partition.state.check(header)
        partition.append(header, timestamp=1000 + number)
    for number in range(1, 6):
        assert partition.send(batch(number * 10, 10)) == (
            number * 10,
            number * 10 + 9,
            1000 + number,
        )
    assert partition.refused(batch(0, 10)) is ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER
    assert partition.refused(batch(50, 9)) is ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER
    assert partition.refused(batch(51, 9)) is ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER
    assert partition.end == 60


def test_sequences_wrap_to_zero(partition: Partition) -> None:
    partition.append(batch(MAX_SEQUENCE - 2, 2))
    assert partition.refused(batch(0)) is ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER
    assert partition.send(batch(MAX_SEQUENCE, 3)) is None
    entry = partition.state.get(1000)
    assert entry is not None and entry.last_sequence == 1
    assert partition.send(batch(MAX_SEQUENCE, 3)) == (2, 4, 1)
    assert partition.send(batch(2)) is None
    partition.append(batch(MAX_SEQUENCE - 9, 10, producer_id=2))
    assert partition.send(batch(0, producer_id=2)) is None


def test_a_producer_begins_with_sequence_zero(partition: Partition) -> None:
    assert partition.refused(batch(1)) is ErrorCode.UNKNOWN_PRODUCER_ID
    assert partition.send(batch(0)) is None
    assert partition.refused(batch(1, producer_id=2)) is ErrorCode.UNKNOWN_PRODUCER_ID


def test_a_new_epoch_begins_with_sequence_zero_and_fences_the_old(partition: Partition) -> None:
    partition.send(batch(0, 3, epoch=4))
    assert partition.refused(batch(3, epoch=5)) is ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER
    assert partition.refused(batch(0, epoch=3)) is ErrorCode.INVALID_PRODUCER_EPOCH
    assert partition.send(batch(0, 3, epoch=5)) is None
    assert partition.refused(batch(3, epoch=4)) is ErrorCode.INVALID_PRODUCER_EPOCH
    assert partition.refused(batch(0, 3, epoch=4)) is ErrorCode.INVALID_PRODUCER_EPOCH
    assert partition.send(batch(0, 3, epoch=5)) == (3, 5, 1)


def test_only_a_marker_is_known(partition: Partition) -> None:
    assert partition.append(control(epoch=3), ABORT) is None
    assert partition.refused(batch(4, epoch=3)) is ErrorCode.UNKNOWN_PRODUCER_ID
    assert partition.refused(batch(0, epoch=2)) is ErrorCode.INVALID_PRODUCER_EPOCH
    assert partition.refused(batch(4, epoch=4)) is ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER
    assert partition.send(batch(0, epoch=3)) is None


def test_kip_360_accepts_unknown_producers() -> None:
    partition = Partition(accept_unknown=True)
    assert partition.send(batch(17, epoch=3)) is None
    assert partition.refused(batch(19, epoch=3)) is ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER
    partition.append(control(producer_id=2, epoch=3), ABORT)
    late = batch(17, producer_id=2, epoch=3)
    assert partition.refused(late) is ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER


def test_batches_sent_together_count_one_after_the_other(partition: Partition) -> None:
    assert partition.send(batch(0, 2), batch(2, 2), batch(0, producer_id=7)) is None
    assert partition.end == 5
    with pytest.raises(KafkaError) as caught:
        partition.send(batch(4), batch(6))
    assert caught.value.code is ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER
    assert partition.end == 5
    with pytest.raises(KafkaError) as caught:  # the same batch twice in one append is no retry
        partition.send(batch(4), batch(4))
    assert caught.value.code is ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER
    assert partition.send(batch(4), batch(2, 2)) == (2, 3, 1)
    with pytest.raises(KafkaError) as caught:
        partition.send(batch(4, transactional=True), batch(5))
    assert caught.value.code is ErrorCode.INVALID_TXN_STATE
    entry = partition.state.get(1000)
    assert entry is not None and entry.last_sequence == 3 and entry.txn_first_offset == -1


def test_a_check_changes_nothing(partition: Partition) -> None:
    partition.send(batch(0, 3))
    before = [entry.copy() for entry in partition.state.entries()]
    partition.state.check(batch(3, transactional=True))
    partition.state.check(batch(0, epoch=1))
    partition.state.check(batch(0, producer_id=5))
    partition.state.check_all([batch(3, transactional=True), batch(0, producer_id=5)])
    partition.state.check(control(epoch=9), COORDINATOR, ABORT)
    assert list(partition.state.entries()) == before
    assert partition.state.first_unstable_offset is None


def test_a_transaction_from_first_batch_to_replicated_marker(partition: Partition) -> None:
    state = partition.state
    partition.send(batch(0, 5))
    partition.send(batch(5, transactional=True))
    partition.send(batch(6, transactional=True))
    assert state.first_unstable_offset == 5
    assert partition.refused(batch(7)) is ErrorCode.INVALID_TXN_STATE
    state.check(control(), COORDINATOR, COMMIT)
    assert partition.append(control(), COMMIT) == (1000, 5, 7, False, 8)
    assert state.first_unstable_offset == 5
    state.on_high_watermark(7)
    assert state.first_unstable_offset == 5, "the marker at 7 is not below the high watermark"
    state.on_high_watermark(8)
    assert state.first_unstable_offset is None
    assert partition.send(batch(7)) is None


def test_transactions_of_several_producers_overlap(partition: Partition) -> None:
    state = partition.state
    for producer_id in (1, 2, 3):
        partition.send(batch(0, 10, producer_id=producer_id, transactional=True))
    assert partition.append(control(producer_id=2), ABORT) == (2, 10, 30, True, 0)
    assert state.first_unstable_offset == 0
    assert partition.append(control(producer_id=1), ABORT) == (1, 0, 31, True, 20)
    state.on_high_watermark(31)
    assert state.first_unstable_offset == 0
    state.on_high_watermark(32)
    assert state.first_unstable_offset == 20
    partition.send(batch(10, producer_id=1, transactional=True))
    assert partition.append(control(producer_id=3), COMMIT) == (3, 20, 33, False, 32)
    state.on_high_watermark(34)
    assert state.first_unstable_offset == 32


def test_a_marker_without_transaction_changes_no_stability(partition: Partition) -> None:
    assert partition.append(control(epoch=1), ABORT) is None
    assert partition.state.first_unstable_offset is None


def test_a_marker_fences_by_its_epochs(partition: Partition) -> None:
    partition.send(batch(0, transactional=True, epoch=5))
    old = control(epoch=4)
    assert partition.refused(old, COORDINATOR, ABORT) is ErrorCode.INVALID_PRODUCER_EPOCH
    bumped = control(epoch=6)
    partition.state.check(bumped, COORDINATOR, EndMarker(False, 8))
    assert partition.append(bumped, EndMarker(False, 8)) == (1000, 0, 1, True, 2)
    assert partition.refused(batch(1, epoch=5)) is ErrorCode.INVALID_PRODUCER_EPOCH
    stale = partition.refused(bumped, COORDINATOR, EndMarker(False, 7))
    assert stale is ErrorCode.TRANSACTION_COORDINATOR_FENCED
    partition.state.check(bumped, COORDINATOR, EndMarker(False, 8))
    assert partition.refused(batch(1, epoch=6)) is ErrorCode.UNKNOWN_PRODUCER_ID
    assert partition.send(batch(0, epoch=6)) is None


def test_coordinators_are_checked_for_epochs_only(partition: Partition) -> None:
    commit = batch(0, 2, epoch=1, transactional=True)
    for _ in range(3):  # a group coordinator's offset commits all begin with sequence 0
        assert partition.state.check(commit, COORDINATOR) is None
        partition.append(commit)
    fenced = batch(0, epoch=0, transactional=True)
    assert partition.refused(fenced, COORDINATOR) is ErrorCode.INVALID_PRODUCER_EPOCH
    outside = batch(0, epoch=1)
    assert partition.refused(outside, COORDINATOR) is ErrorCode.INVALID_TXN_STATE
    assert partition.state.check_all([commit, commit], COORDINATOR) is None


def test_followers_take_what_the_leader_took(
    partition: Partition, caplog: pytest.LogCaptureFixture
) -> None:
    partition.append(batch(0, epoch=5))
    with caplog.at_level(logging.WARNING, "kavka.storage.producers"):
        assert partition.state.check(batch(7, epoch=5), AppendOrigin.REPLICATION) is None
        assert partition.state.check(batch(0, epoch=5), AppendOrigin.REPLICATION) is None
        assert not caplog.records
        assert partition.state.check(batch(7, epoch=4), AppendOrigin.REPLICATION) is None
        assert "partition=t-0" in caplog.text
    partition.append(batch(7, epoch=4))
    entry = partition.state.get(1000)
    assert entry is not None and entry.epoch == 4 and len(entry.batches) == 1


def test_what_compaction_left_opens_and_ends_nothing(partition: Partition) -> None:
    assert partition.append(batch(0, 5, transactional=True, emptied=True)) is None
    assert partition.state.first_unstable_offset is None
    assert partition.send(batch(5)) is None, "its sequences still count"
    assert partition.append(control(), None) is None
    entry = partition.state.get(1000)
    assert entry is not None and entry.last_sequence == 5


def test_idle_producers_expire_unless_in_a_transaction(partition: Partition) -> None:
    partition.append(batch(0, producer_id=1), timestamp=1000)
    partition.append(batch(0, producer_id=2), timestamp=1001)
    partition.append(batch(0, producer_id=3, transactional=True), timestamp=0)
    partition.append(control(producer_id=4), ABORT, timestamp=1000)
    assert partition.state.remove_expired(999 + 7 * DAY) == []
    assert partition.state.remove_expired(1000 + 7 * DAY) == [1, 4]
    assert partition.refused(batch(1, producer_id=1)) is ErrorCode.UNKNOWN_PRODUCER_ID
    assert sorted(entry.producer_id for entry in partition.state.entries()) == [2, 3]


def test_producers_go_with_their_records(partition: Partition) -> None:
    partition.append(control(producer_id=9, epoch=2), ABORT)
    partition.append(batch(0, 4, producer_id=1))  # 1–4
    partition.append(batch(0, 5, producer_id=2, transactional=True))  # 5–9
    partition.append(batch(4, 5, producer_id=1))  # 10–14
    state = partition.state
    state.on_log_start(9)
    assert state.first_unstable_offset == 9, "nobody reads below the log's start"
    assert partition.refused(batch(0, 4, producer_id=1)) is ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER
    assert partition.send(batch(4, 5, producer_id=1)) == (10, 14, 1)
    state.on_log_start(10)
    assert state.get(2) is None
    assert state.first_unstable_offset is None
    state.on_log_start(15)
    assert partition.refused(batch(9, producer_id=1)) is ErrorCode.UNKNOWN_PRODUCER_ID
    assert partition.refused(batch(0, producer_id=9)) is ErrorCode.INVALID_PRODUCER_EPOCH
    state.on_log_start(99)
    assert state.end_offset == 99


def test_kip_360_keeps_producers_whose_records_are_deleted() -> None:
    partition = Partition(accept_unknown=True)
    partition.append(batch(0, 4, producer_id=1))
    partition.append(batch(0, 5, producer_id=2, transactional=True))
    partition.state.on_log_start(9)
    assert partition.send(batch(0, 4, producer_id=1)) == (0, 3, 1)
    assert partition.send(batch(4, producer_id=1)) is None
    assert partition.state.first_unstable_offset == 9
    partition.append(control(producer_id=2), ABORT)
    partition.state.on_high_watermark(partition.end)
    assert partition.state.first_unstable_offset is None


def test_clear(partition: Partition) -> None:
    partition.append(batch(0, 4, transactional=True))
    partition.append(batch(0, 4, producer_id=2, transactional=True))
    partition.append(control(), COMMIT)
    partition.state.clear(500)
    assert len(partition.state) == 0
    assert partition.state.first_unstable_offset is None
    assert partition.state.end_offset == 500


def test_errors_say_who_and_what(partition: Partition) -> None:
    partition.send(batch(0, 3, epoch=4))
    with pytest.raises(KafkaError, match=r"producer 1000 epoch 4 on t-0 .* 7.* 2 of epoch 4"):
        partition.state.check(batch(7, epoch=4))
