"""Appending, reading, rolling, truncating and deleting."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.storage.append import AppendOrigin
from kavka.storage.log import Log
from kavka.storage.segment import Segment
from kavka.storage.segment_file import MAPPED_APPEND_LIMIT
from tests.unit.storage.log_support import (
    FaultyFileSystem,
    Place,
    append,
    batch,
    read_values,
    records,
)


@pytest.fixture
def place(tmp_path: Path) -> Callable[..., Place]:
    def make(fs: FaultyFileSystem | None = None, **settings: object) -> Place:
        return Place(str(tmp_path / "orders-0"), fs, **settings)

    return make


def check_code(code: ErrorCode, call: Callable[[], object]) -> KafkaError:
    with pytest.raises(KafkaError) as caught:
        call()
    assert caught.value.code is code
    return caught.value


def test_a_new_log_is_empty(place: Callable[..., Place]) -> None:
    here = place()
    log = here.open()
    assert (log.log_start_offset, log.log_end_offset, log.size) == (0, 0, 0)
    assert log.read(0, 100, 0).empty
    log.close()
    assert here.files() == [], "files come with the first record"
    log = here.open()
    append(log, "a")
    log.close()
    assert here.files() == [
        "00000000000000000000.index",
        "00000000000000000000.log",
        "00000000000000000000.timeindex",
        "00000000000000000001.snapshot",
        "leader-epoch-checkpoint",
    ]


def test_records_get_consecutive_offsets_and_the_leaders_epoch(
    place: Callable[..., Place],
) -> None:
    log = place().open()
    first = append(log, "a", "b", epoch=3)
    second = append(log, "c", epoch=4)
    assert (first.first_offset, first.last_offset, first.size) == (0, 1, 61 + 2 * 8)
    assert (second.first_offset, second.last_offset) == (2, 2)
    data = log.read(0, 1 << 20, log.log_end_offset).view()
    assert [record.offset for record in records(data)] == [0, 1, 2]
    assert data[12:16] == (3).to_bytes(4, "big")
    assert log.leader_epochs.entries() == [(3, 0), (4, 2)]
    assert log.end_offset_for_epoch(3) == (3, 2)


def test_several_batches_are_one_append(place: Callable[..., Place]) -> None:
    log = place().open()
    info = log.append_as_leader([batch("a", "b"), batch("c")], 0, 0)
    assert (info.first_offset, info.last_offset) == (0, 2)
    assert read_values(log) == {0: "a", 1: "b", 2: "c"}


def test_what_is_handed_out_is_what_was_put_in_but_for_offset_and_epoch(
    place: Callable[..., Place],
) -> None:
    log = place().open()
    append(log, "before")
    header, view = batch("x" * 100, "y", codec=1)
    before = bytes(view)
    log.append_as_leader([(header, view)], 7, 0)
    read = bytes(log.read(1, 1 << 20, 3).view())
    assert read[:8] == (1).to_bytes(8, "big")
    assert read[12:16] == (7).to_bytes(4, "big")
    assert read[8:12] + read[16:] == before[8:12] + before[16:]


@pytest.mark.parametrize("size", [1, 100, 4_000, 8_192, 8_193, 100_000])
@pytest.mark.parametrize("flush_messages", [1, 2**63 - 1])
def test_every_way_of_writing_reads_back(
    place: Callable[..., Place], size: int, flush_messages: int
) -> None:
    log = place(flush_messages=flush_messages).open()
    values = [chr(97 + number % 26) * size for number in range(400 if size < 5_000 else 60)]
    for value in values:
        append(log, value)
    assert list(read_values(log).values()) == values
    windowed = log.segments.last._window is not None
    assert windowed == (flush_messages > 1 and size < MAPPED_APPEND_LIMIT)


def test_small_and_large_appends_alternate_in_one_file(place: Callable[..., Place]) -> None:
    log = place().open()
    values = [("s" if number % 3 else "L" * 9_000) + str(number) for number in range(300)]
    for value in values:
        append(log, value)
    assert list(read_values(log).values()) == values


def test_a_read_ends_at_its_bounds(place: Callable[..., Place]) -> None:
    log = place().open()
    sizes = [append(log, "a", "b").size for _ in range(4)]  # offsets 0-1, 2-3, 4-5, 6-7
    assert log.read(0, 1 << 20, 8).size == sum(sizes)
    assert log.read(2, 1 << 20, 8).size == sum(sizes[1:])
    assert log.read(3, 1 << 20, 8).size == sum(sizes[1:]), "from the batch that has the offset"
    assert log.read(0, 1 << 20, 4).size == sum(sizes[:2]), "nothing at or past the bound"
    assert log.read(0, 1 << 20, 5).size == sum(sizes[:2]), "nor a batch that reaches over it"
    assert log.read(4, 1 << 20, 4).empty
    assert log.read(6, 1 << 20, 4).empty
    assert log.read(0, 10, 8, min_one=False).size == 10
    assert log.read(0, 10, 8, min_one=True).size == sizes[0]
    assert log.read(0, 0, 8, min_one=False).empty
    assert log.read(0, sizes[0] + 5, 8).size == sizes[0] + 5, "the last batch may be cut"
    assert log.read(8, 100, 8).empty


def test_reads_outside_of_the_log_are_out_of_range(place: Callable[..., Place]) -> None:
    log = place().open()
    append(log, "a", "b", "c")
    log.advance_high_watermark(3)
    log.increment_log_start_offset(1)
    check_code(ErrorCode.OFFSET_OUT_OF_RANGE, lambda: log.read(0, 100, 3))
    check_code(ErrorCode.OFFSET_OUT_OF_RANGE, lambda: log.read(4, 100, 3))
    assert not log.read(1, 100, 3).empty


def test_a_slice_outlives_its_segment(place: Callable[..., Place]) -> None:
    here = place()
    log = here.open()
    append(log, "kept")
    piece = log.read(0, 1 << 20, 1)
    fd = piece.file.fileno()
    log.truncate_fully_and_start_at(5)
    log.close()
    assert here.files(".log") == ["00000000000000000005.log"]
    assert [record.value for record in records(piece.view())] == [b"kept"]
    del piece
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_bounds_move_in_order(place: Callable[..., Place]) -> None:
    log = place().open()
    append(log, "a", "b")
    log.advance_high_watermark(1)
    assert log.high_watermark == 1
    log.advance_high_watermark(0)
    assert log.high_watermark == 1, "never back"
    log.advance_high_watermark(9)
    assert log.high_watermark == 2, "never past the end"
    assert log.last_stable_offset == 2


# -- rolling --------------------------------------------------------------------------------


def bases(log: Log) -> list[int]:
    return [segment.base_offset for segment in log.segments]


def test_a_segment_holds_segment_bytes(place: Callable[..., Place]) -> None:
    size = append(place().open(), "x" * 100).size
    here = place(segment_bytes=2 * size)
    here.fs.remove_tree(here.directory)
    log = here.open()
    for _ in range(5):
        append(log, "x" * 100)
    assert bases(log) == [0, 2, 4]
    assert read_values(log).keys() == {0, 1, 2, 3, 4}
    assert [here.fs.stat(here.path(name)).size for name in here.files(".log")][:2] == [  # type: ignore[union-attr]
        2 * size,
        2 * size,
    ], "cut to its data when it is rolled"


def test_more_than_segment_bytes_at_once_is_refused(place: Callable[..., Place]) -> None:
    log = place(segment_bytes=100).open()
    check_code(ErrorCode.RECORD_LIST_TOO_LARGE, lambda: append(log, "x" * 100))
    assert log.log_end_offset == 0


def test_a_segment_lasts_segment_ms_of_record_time(place: Callable[..., Place]) -> None:
    log = place(segment_ms=1_000).open()
    append(log, "a", timestamp=10_000)
    append(log, "b", timestamp=11_000)
    assert bases(log) == [0]
    append(log, "c", timestamp=11_001)
    assert bases(log) == [0, 2]
    append(log, "d", timestamp=5_000)
    append(log, "e", timestamp=12_001)
    assert bases(log) == [0, 2], "counted from its own first batch"
    append(log, "f", timestamp=12_002)
    assert bases(log) == [0, 2, 5]


def test_without_timestamps_a_segment_lasts_segment_ms_of_wall_time(
    place: Callable[..., Place],
) -> None:
    here = place(segment_ms=1_000)
    log = here.open()
    start = here.clock.wall_ms()
    append(log, "a", timestamp=-1, now_ms=start)
    append(log, "b", timestamp=-1, now_ms=start + 1_000)
    assert bases(log) == [0]
    append(log, "c", timestamp=-1, now_ms=start + 1_001)
    assert bases(log) == [0, 2]


def test_jitter_takes_time_off_each_segment(place: Callable[..., Place]) -> None:
    log = place(segment_ms=1_000, segment_jitter_ms=500).open()
    for number in range(60):
        append(log, "x", timestamp=number * 100)
    spans = {after - before for before, after in zip(bases(log), bases(log)[1:], strict=False)}
    # The first segment of a log has no jitter of its own; later ones between 0 and 500 ms.
    assert len(spans) > 1 and min(spans) >= 6 and max(spans) <= 11


def test_a_full_index_rolls(place: Callable[..., Place]) -> None:
    log = place(index_interval_bytes=0, segment_index_bytes=36).open()  # 4 offsets, 3 times
    for number in range(10):
        append(log, "x", timestamp=number)
    # First append has no entry; two time entries fill all but the reserved slot.
    assert bases(log) == [0, 3, 6, 9]


def test_offsets_too_far_from_the_base_roll(place: Callable[..., Place]) -> None:
    log = place().open()
    append(log, "a")
    far = 2**31
    _, view = batch("far", base_offset=far)
    log.append_as_follower(view)
    assert bases(log) == [0, far]
    assert read_values(log) == {0: "a", far: "far"}


def test_a_new_setting_acts_on_the_active_segment(place: Callable[..., Place]) -> None:
    here = place()
    log = here.open()
    append(log, "a" * 200)
    log.update_config(Place(here.directory, segment_bytes=300).config)
    append(log, "b" * 200)
    assert bases(log) == [0, 1]


def test_rolling_an_empty_segment_does_nothing(place: Callable[..., Place]) -> None:
    log = place().open()
    log.roll()
    assert bases(log) == [0]


def test_a_roll_is_told(place: Callable[..., Place]) -> None:
    log = place().open()
    told: list[Log] = []
    log.on_rolled = told.append
    append(log, "a")
    log.roll()
    assert told == [log]


# -- indexes --------------------------------------------------------------------------------


def test_index_entries_follow_kafkas_rule(place: Callable[..., Place]) -> None:
    log = place(index_interval_bytes=200).open()
    size = append(log, "x" * 50, timestamp=100).size
    for number in range(1, 10):
        append(log, "x" * 50, timestamp=100 + number)
    assert 100 < size < 200
    # An append gets one when more than 200 bytes lie between the last entry and it.
    entries = [*log.segments.first.offset_index.entries()]
    assert entries == [(offset, offset * size) for offset in (2, 4, 6, 8)]
    times = [*log.segments.first.time_index.entries()]
    assert times == [(100 + offset, offset) for offset in (2, 4, 6, 8)]


def test_a_rolled_segment_has_a_last_time_entry(place: Callable[..., Place]) -> None:
    log = place().open()
    append(log, "a", timestamp=7)
    append(log, "b", timestamp=5)
    log.roll()
    assert [*log.segments.first.time_index.entries()] == [(7, 0)]


# -- following ------------------------------------------------------------------------------


def test_a_follower_keeps_offsets_and_epochs(place: Callable[..., Place]) -> None:
    log = place().open()
    parts = [
        batch("a", "b", base_offset=10, leader_epoch=1)[1],
        batch("c", base_offset=14, leader_epoch=2)[1],
    ]
    whole = b"".join(parts)
    info = log.append_as_follower(memoryview(whole + whole[:30]))
    assert (info.first_offset, info.last_offset, info.size) == (10, 14, len(whole))
    assert log.log_end_offset == 15
    assert log.leader_epochs.entries() == [(1, 10), (2, 14)]
    assert read_values(log, 0) == {10: "a", 11: "b", 14: "c"}
    nothing = log.append_as_follower(memoryview(whole[:30]))
    assert (nothing.size, log.log_end_offset) == (0, 15)


def test_a_follower_refuses_damage_and_steps_back(place: Callable[..., Place]) -> None:
    log = place().open()
    append(log, "a", "b")
    _, view = batch("c", base_offset=2)
    view[-1] ^= 1
    check_code(ErrorCode.CORRUPT_MESSAGE, lambda: log.append_as_follower(view))
    _, view = batch("c", base_offset=1)
    check_code(ErrorCode.OFFSET_OUT_OF_RANGE, lambda: log.append_as_follower(view))
    assert read_values(log) == {0: "a", 1: "b"}


# -- producers ------------------------------------------------------------------------------


def test_a_batch_that_comes_again_is_answered_from_memory(place: Callable[..., Place]) -> None:
    log = place().open()
    ids = {"producer_id": 9, "producer_epoch": 0}
    append(log, "other")
    first = append(log, "a", "b", base_sequence=0, **ids)
    again = append(log, "a", "b", base_sequence=0, **ids)
    assert again.duplicate and not first.duplicate
    assert (again.first_offset, again.last_offset, again.size) == (1, 2, 0)
    assert log.log_end_offset == 3
    check_code(
        ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER,
        lambda: append(log, "c", base_sequence=7, **ids),
    )
    assert append(log, "c", base_sequence=2, **ids).first_offset == 3


@pytest.mark.parametrize("clean", [True, False])
def test_duplicates_are_known_after_a_restart(place: Callable[..., Place], clean: bool) -> None:
    here = place()
    log = here.open()
    ids = {"producer_id": 9, "producer_epoch": 0, "timestamp": here.clock.wall_ms()}
    append(log, "a", "b", base_sequence=0, **ids)
    if clean:
        log.close()
    log = here.open(clean=clean)
    assert append(log, "a", "b", base_sequence=0, **ids).duplicate
    assert append(log, "c", base_sequence=2, **ids).first_offset == 2


def test_an_open_transaction_holds_the_stable_offset(place: Callable[..., Place]) -> None:
    log = place().open()
    ids = {"producer_id": 9, "producer_epoch": 0}
    append(log, "a")
    append(log, "b", base_sequence=0, transactional=True, **ids)
    append(log, "c")
    log.advance_high_watermark(3)
    assert (log.last_stable_offset, log.high_watermark) == (1, 3)
    log.append_as_leader([abort_marker(9)], 0, 0, AppendOrigin.COORDINATOR)
    assert log.last_stable_offset == 1
    log.advance_high_watermark(4)
    assert log.last_stable_offset == 4
    piece = log.read(0, 1 << 20, 4)
    assert [txn[:3] for txn in log.aborted_transactions(0, piece)] == [(9, 1, 3)]
    assert log.aborted_transactions(0, log.read(0, 1, 4, False))


def abort_marker(producer_id: int):  # type: ignore[no-untyped-def]
    from kavka.protocol.records.batch import read_header
    from kavka.protocol.records.control import ControlType, EndTxnMarker, build_end_txn_marker

    data = bytearray(
        build_end_txn_marker(
            EndTxnMarker(ControlType.ABORT, 0),
            producer_id=producer_id,
            producer_epoch=0,
            timestamp=0,
        )
    )
    return read_header(data), memoryview(data)


# -- shortening -----------------------------------------------------------------------------


def test_truncation_removes_whole_batches(place: Callable[..., Place]) -> None:
    log = place(segment_bytes=400).open()
    for number in range(10):
        append(log, f"{number}" * 60, f"{number}" * 60)
    assert len(log.segments) > 3
    before = read_values(log)
    assert not log.truncate_to(20)
    assert log.truncate_to(9)
    assert log.log_end_offset == 8
    assert read_values(log) == {offset: before[offset] for offset in range(8)}
    info = append(log, "new")
    assert info.first_offset == 8
    assert read_values(log)[8] == "new"
    assert log.size == sum(segment.size for segment in log.segments)


@pytest.mark.parametrize("by", ["stop", "start"])
def test_a_segment_that_was_emptied_has_no_old_entries_after_a_restart(
    place: Callable[..., Place], by: str
) -> None:
    here = place()
    log = here.open()
    fields: dict[str, object] = {"producer_id": 9, "producer_epoch": 0, "base_sequence": 0}
    append(log, "a", "b", "c", transactional=True, **fields)
    log.append_as_leader([abort_marker(9)], 0, 0, AppendOrigin.COORDINATOR)
    log.roll()  # writes the indexes of the first
    if by == "start":  # what another version left
        left = {name: here.fs.read_bytes(here.path(name)) for name in here.files("index")}
    log.truncate_to(0)
    log.close()
    sizes = {name: Path(here.path(name)).stat().st_size for name in here.files("index")}
    assert not any(sizes.values()), sizes
    if by == "start":
        assert len(left) == 3
        for name, data in left.items():
            Path(here.path(name)).write_bytes(data)
    log = here.open()
    append(log, "A", "B", "C", **fields)
    log.advance_high_watermark(3)
    assert not log.aborted_transactions(0, log.read(0, 1 << 20, 3))
    assert log.offset_for_timestamp(0) == (1_000, 0, 0)


def test_truncation_moves_the_other_bounds_back(place: Callable[..., Place]) -> None:
    log = place().open()
    append(log, "a", epoch=1)
    append(log, "b", epoch=2)
    log.flush()
    log.advance_high_watermark(2)
    log.truncate_to(1)
    assert (log.recovery_point, log.high_watermark) == (1, 1)
    assert log.leader_epochs.entries() == [(1, 0)]


def test_a_flush_that_was_under_way_does_not_vouch_for_what_came_after_a_truncation(
    place: Callable[..., Place],
) -> None:
    log = place().open()
    for _ in range(5):
        append(log, "a")
    job = log.begin_flush()
    job.run()
    log.truncate_to(2)
    append(log, "b")
    append(log, "c")
    append(log, "d")
    assert log.recovery_point == 2  # the truncation had to be on disk first
    log.finish_flush(job)
    assert log.recovery_point == 2
    log.flush()
    assert log.recovery_point == 5


def test_a_log_can_begin_anew_elsewhere(place: Callable[..., Place]) -> None:
    here = place()
    log = here.open()
    append(log, "a", producer_id=9, producer_epoch=0, base_sequence=0)
    log.truncate_fully_and_start_at(100)
    assert (log.log_start_offset, log.log_end_offset, log.size) == (100, 100, 0)
    assert append(log, "b").first_offset == 100
    assert read_values(log) == {100: "b"}
    assert here.files(".log") == ["00000000000000000100.log"]
    assert log.producers.get(9) is None


def test_truncating_below_the_first_segment_begins_anew(place: Callable[..., Place]) -> None:
    log = place().open()
    log.truncate_fully_and_start_at(100)
    append(log, "a")
    log.truncate_to(50)
    assert (log.log_start_offset, log.log_end_offset) == (50, 50)


def test_the_start_moves_up_to_the_high_watermark(place: Callable[..., Place]) -> None:
    log = place().open()
    append(log, "a", "b", "c")
    log.advance_high_watermark(2)
    assert log.increment_log_start_offset(2)
    assert not log.increment_log_start_offset(1)
    assert log.log_start_offset == 2
    check_code(ErrorCode.OFFSET_OUT_OF_RANGE, lambda: log.increment_log_start_offset(3))


# -- questions ------------------------------------------------------------------------------


def test_offsets_are_found_by_time(place: Callable[..., Place]) -> None:
    log = place(segment_bytes=2_000, index_interval_bytes=100).open()
    times = [*range(1000, 1100)]
    for time in times:
        append(log, "x" * 50, "y", timestamp=[time, time + 500], epoch=time % 2 + time // 1050)
    assert len(log.segments) > 5
    all_times = [time for start in times for time in (start, start + 500)]
    for wanted in (0, 1000, 1001, 1050, 1099, 1100, 1499, 1500, 1598, 1599):
        first = next(i for i, time in enumerate(all_times) if time >= wanted)
        found = log.offset_for_timestamp(wanted)
        assert found is not None
        assert (found.timestamp, found.offset) == (all_times[first], first)
    assert log.offset_for_timestamp(1600) is None
    assert log.max_timestamp_offset() == (1599, 199, log.leader_epochs.epoch_for_offset(199))


def test_times_below_the_start_do_not_count(place: Callable[..., Place]) -> None:
    log = place().open()
    append(log, "a", "b", "c", timestamp=[900, 100, 200])
    log.advance_high_watermark(3)
    log.increment_log_start_offset(1)
    found = log.offset_for_timestamp(0)
    assert found is not None and found.offset == 1
    found = log.max_timestamp_offset()
    assert found is not None and (found.timestamp, found.offset) == (200, 2)


def test_a_log_without_times_has_no_latest(place: Callable[..., Place]) -> None:
    log = place().open()
    append(log, "a", timestamp=-1)
    assert log.max_timestamp_offset() is None
    assert log.offset_for_timestamp(0) is None


def test_old_list_offsets_answers_by_file_time(place: Callable[..., Place]) -> None:
    here = place(segment_bytes=200)
    log = here.open()
    for _ in range(3):
        append(log, "x" * 100)
    assert bases(log) == [0, 1, 2]
    for number, segment in enumerate(log.segments):
        here.fs.set_mtime(segment.path, 1000 + number)
    assert log.legacy_offsets_before(-1, 10) == [3, 2, 1, 0]
    assert log.legacy_offsets_before(-1, 2) == [3, 2]
    assert log.legacy_offsets_before(-2, 10) == [0]
    assert log.legacy_offsets_before(1001, 10) == [1, 0]
    assert log.legacy_offsets_before(999, 10) == []


# -- a disk that refuses --------------------------------------------------------------------


@pytest.mark.parametrize("value", ["small", "large" * 5_000])
def test_a_full_disk_refuses_and_later_takes_again(place: Callable[..., Place], value: str) -> None:
    fs = FaultyFileSystem()
    log = place(fs).open()
    kept = []
    for number in range(40):
        append(log, f"{number}")
        kept.append(f"{number}")
    fs.full = True
    refused = 0
    for _ in range(3_000):
        try:
            append(log, value)
            kept.append(value)
        except KafkaError as error:
            assert error.code is ErrorCode.KAFKA_STORAGE_ERROR
            assert "No space left" in str(error)
            refused += 1
            if refused == 3:
                break
    assert refused == 3
    assert not log.offline
    assert list(read_values(log).values()) == kept
    fs.full = False
    assert append(log, "after").first_offset == len(kept)
    assert list(read_values(log).values()) == [*kept, "after"]


def test_half_a_batch_on_a_full_disk_is_taken_back(place: Callable[..., Place]) -> None:
    fs = FaultyFileSystem()
    here = place(fs)
    log = here.open()
    append(log, "a")
    fs.short_write = 5_000
    check_code(ErrorCode.KAFKA_STORAGE_ERROR, lambda: append(log, "b" * 20_000))
    append(log, "c")
    assert read_values(log) == {0: "a", 1: "c"}
    loaded = here.load(clean=False)
    assert read_values(loaded.log) == {0: "a", 1: "c"}
    assert loaded.recovery.cut_bytes == 0


def test_a_full_disk_at_roll_leaves_the_old_segment(place: Callable[..., Place]) -> None:
    fs = FaultyFileSystem()
    log = place(fs, segment_bytes=300).open()
    append(log, "a" * 150)
    fs.full = True
    check_code(ErrorCode.KAFKA_STORAGE_ERROR, lambda: append(log, "b" * 150))
    assert (bases(log), log.log_end_offset, log.offline) == ([0], 1, None)
    fs.full = False
    append(log, "b" * 150)
    assert bases(log) == [0, 1]
    assert read_values(log) == {0: "a" * 150, 1: "b" * 150}


@pytest.mark.parametrize("call", ["pwrite", "allocate", "create", "rename", "pread"])
def test_a_broken_disk_takes_the_log_offline(place: Callable[..., Place], call: str) -> None:
    fs = FaultyFileSystem()
    log = place(fs, segment_bytes=200_000).open()
    append(log, "a" * 150_000)
    told: list[tuple[Log, OSError]] = []
    log.on_storage_error = lambda failed, error: told.append((failed, error))
    fs.broken = {call}
    does: dict[str, Callable[[], object]] = {
        "pwrite": lambda: append(log, "b"),
        "allocate": lambda: append(log, "b" * 49_000),
        "create": lambda: append(log, "b" * 60_000),
        "rename": lambda: log.truncate_fully_and_start_at(0),
        "pread": lambda: log.read(0, 1, 1),
    }
    check_code(ErrorCode.KAFKA_STORAGE_ERROR, does[call])
    assert log.offline
    assert [failed for failed, _ in told] == [log]
    check_code(ErrorCode.KAFKA_STORAGE_ERROR, lambda: append(log, "c"))
    check_code(ErrorCode.KAFKA_STORAGE_ERROR, lambda: log.read(0, 1, 1))
    assert len(told) == 1


def test_a_failed_sync_takes_the_log_offline(place: Callable[..., Place]) -> None:
    fs = FaultyFileSystem()
    log = place(fs).open()
    append(log, "a")
    fs.broken = {"fdatasync"}
    check_code(ErrorCode.KAFKA_STORAGE_ERROR, log.flush)
    assert log.offline and log.recovery_point == 0


def test_a_segment_that_could_not_be_begun_leaves_nothing(
    place: Callable[..., Place], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = place()
    log = here.open()
    append(log, "a")
    create = Segment.create

    def create_and_fail(segment: Segment) -> None:
        create(segment)
        raise OSError(errno.ENOSPC, "no space")

    with monkeypatch.context() as patch, pytest.raises(KafkaError):
        patch.setattr(Segment, "create", create_and_fail)
        log.roll()
    append(log, "b")
    log.close()
    assert here.files(".log") == ["00000000000000000000.log"]
    assert here.open().log_end_offset == 2
