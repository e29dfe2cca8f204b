"""The cleaner's rules one by one: tombstones, transactions, producers, groups, memory, trouble."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.protocol.records import legacy
from kavka.protocol.records.batch import Record, iter_batches
from kavka.storage.cleaning_job import WorkerDied
from kavka.storage.cleaning_workers import ThreadWorker
from kavka.storage.log import Log
from tests.unit.storage.cleaner_support import (
    Cleaning,
    contents,
    end_transaction,
    headers,
    keyed_batch,
    put,
    raw,
)
from tests.unit.storage.log_support import DAY_MS, FaultyFileSystem, Place

Make = Callable[..., Cleaning]
SEGMENT = 1_000  # bytes


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def make(fs: FaultyFileSystem | None = None, **settings: Any) -> Cleaning:
        settings = {"segment_bytes": SEGMENT, "cleanup_policy": ("compact",), **settings}
        broker = {name: settings.pop(name) for name in [*settings] if name.startswith("log_")}
        return Cleaning(Place(str(tmp_path / "orders-0"), fs, **settings), **broker)

    return make


def pair(key: str, value: str | None) -> tuple[bytes, bytes | None]:
    return key.encode(), None if value is None else value.encode()


def bases(log: Log) -> list[int]:
    return [segment.base_offset for segment in log.segments]


def age(cleaning: Cleaning, base_offset: int, mtime_ms: int) -> None:
    """Pretend that a segment was last written then."""
    cleaning.place.fs.set_mtime(cleaning.place.path(f"{base_offset:020}.log"), mtime_ms)


# -- keys -----------------------------------------------------------------------------------


def test_the_latest_record_of_each_key_stays_at_its_offset(make: Make) -> None:
    here = make()
    log = here.log
    put(log, pair("a", "1"), pair("b", "1"), pair("a", "2"))
    put(log, pair("c", "1"), pair("b", "2"))
    log.roll()
    put(log, pair("c", "2"))
    assert here.clean()
    # The active segment is not cleaned, and not looked at: "c" of offset 3 stays.
    assert contents(log) == {
        2: pair("a", "2"),
        3: pair("c", "1"),
        4: pair("b", "2"),
        5: pair("c", "2"),
    }
    assert here.logs.checkpoint == 5
    assert not here.clean()
    log.roll()
    assert here.clean()
    assert sorted(contents(log)) == [2, 4, 5]


def test_records_without_a_key_are_dropped_and_that_is_said(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    here = make()
    put(here.log, (None, b"x"), pair("a", "1"), (b"", b"empty key"))
    here.log.roll()
    put(here.log, (None, b"active"))
    assert here.clean()
    assert contents(here.log) == {1: pair("a", "1"), 2: (b"", b"empty key"), 3: (None, b"active")}
    assert "without a key were dropped partition=orders-0 records=1" in caplog.text


def test_a_partly_kept_batch_keeps_its_bounds(make: Make) -> None:
    here = make()
    log = here.log
    put(log, pair("a", "1"), pair("b", "1"), pair("c", "1"), timestamp=[50, 70, 60], epoch=4)
    put(log, pair("b", "2"), pair("c", "2"), codec=1, timestamp=99, epoch=4)
    put(log, pair("c", "3"), epoch=5)
    log.roll()
    assert here.clean()
    first, second, third = headers(raw(log))
    assert (first.base_offset, first.last_offset, first.records_count) == (0, 2, 1)
    assert (first.max_timestamp, first.leader_epoch) == (50, 4)
    assert (second.base_offset, second.last_offset, second.records_count) == (3, 4, 1)
    assert (second.codec, second.max_timestamp) == (1, 99)
    assert (third.base_offset, third.leader_epoch) == (5, 5)
    # The log reads as before: from any offset on, by time, by epoch.
    assert [h.base_offset for h in headers(log.read(3, 1000, 9).view())] == [3, 5]
    assert [h.base_offset for h in headers(log.read(1, 1000, 9).view())] == [0, 3, 5]
    found = log.offset_for_timestamp(51)
    assert found is not None
    assert (found.offset, found.timestamp) == (3, 99)
    assert log.end_offset_for_epoch(4).end_offset == 5


def test_time_and_offset_indexes_are_those_of_the_new_segment(make: Make) -> None:
    here = make(segment_bytes=100_000, index_interval_bytes=500)
    log = here.log
    for number in range(300):
        put(log, pair(f"k{number % 120}", f"{number}".ljust(50)), timestamp=10_000 + number)
    log.roll()
    assert here.clean()
    assert sorted(contents(log)) == [*range(180, 300)]
    segment = log.segments.first
    assert len(segment.offset_index) > 15
    segment.offset_index.verify(segment.size)
    segment.time_index.verify()
    assert segment.max_timestamp == 10_299
    for number in (180, 200, 299):
        assert headers(log.read(number, 1, 300).view())[0].base_offset == number
        found = log.offset_for_timestamp(10_000 + number)
        assert found is not None
        assert found.offset == number
    found = log.offset_for_timestamp(10_005)
    assert found is not None
    assert found.offset == 180


# -- tombstones -----------------------------------------------------------------------------


def test_tombstones_stay_for_their_time(make: Make) -> None:
    """Their time counts from when the segment was last written, and ends when the last segment
    that is clean already is so much younger (Kafka 2.3)."""
    here = make(delete_retention_ms=1_000, segment_bytes=90)
    log = here.log
    put(log, pair("a", "1"))
    put(log, pair("a", None))
    put(log, pair("b", "12345678901234567890"))
    put(log, pair("c", "12345678901234567890"))
    log.roll()
    assert bases(log) == [0, 1, 2, 3, 4]
    for base, mtime in ((0, 1_000), (1, 2_000), (2, 9_000), (3, 2_999)):
        age(here, base, mtime)
    assert here.clean()  # nothing was clean before: no tombstone goes, however old
    assert [*contents(log)] == [1, 2, 3]
    assert [segment.mtime_ms for segment in log.segments][:4] == [1_000, 2_000, 9_000, 2_999]
    put(log, pair("d", "12345678901234567890"))
    log.roll()
    assert here.clean()  # those of up to 2,999 − 1,000 may go
    assert [*contents(log)] == [1, 2, 3, 4]
    age(here, 4, 3_000)
    put(log, pair("e", "1"))
    log.roll()
    assert here.clean()  # up to 2,000
    assert [*contents(log)] == [2, 3, 4, 5]


def test_a_merged_segment_is_as_old_as_its_last_part(make: Make) -> None:
    here = make()
    log = here.log
    put(log, pair("a", "1"))
    log.roll()
    put(log, pair("a", None))
    log.roll()
    age(here, 0, 5_000)
    age(here, 1, 7_000)
    assert here.clean()
    assert bases(log) == [0, 2]
    assert log.segments.first.mtime_ms == 7_000


# -- transactions -----------------------------------------------------------------------------


def transaction(log: Log, producer_id: int, sequence: int, *pairs: Any) -> None:
    put(
        log,
        *pairs,
        producer_id=producer_id,
        producer_epoch=0,
        base_sequence=sequence,
        transactional=True,
    )


def test_aborted_records_neither_stay_nor_replace(make: Make) -> None:
    here = make(delete_retention_ms=0)
    log = here.log
    put(log, pair("a", "1"))
    transaction(log, 7, 0, pair("a", "aborted"), pair("b", "aborted"))
    end_transaction(log, 7, commit=False)
    transaction(log, 7, 2, pair("b", "committed"))
    end_transaction(log, 7, commit=True)
    log.roll()
    log.producers.remove_expired(2**60)
    assert here.clean()
    assert contents(log) == {0: pair("a", "1"), 4: pair("b", "committed")}
    # Both markers stay this time, for records of both transactions were met.
    assert [h.base_offset for h in headers(raw(log)) if h.is_control] == [3, 5]
    [aborted] = log.segments.first.txn_index.entries()
    assert (aborted.producer_id, aborted.first_offset, aborted.last_offset) == (7, 1, 3)
    assert here.place.files(".txnindex") == ["00000000000000000000.txnindex"]
    # The next time nothing of the aborted one is left, and its time is over.
    age(here, 0, 1_000)
    put(log, pair("c", "1"))
    log.roll()
    assert here.clean()
    assert [h.base_offset for h in headers(raw(log)) if h.is_control] == [5]
    assert [*log.segments.first.txn_index.entries()] == []
    # And when the committed record has been replaced, its marker is still met with it once.
    put(log, pair("b", "later"))
    log.roll()
    assert here.clean()
    assert [h.base_offset for h in headers(raw(log)) if h.is_control] == [5]
    put(log, pair("d", "1"))
    log.roll()
    age(here, 0, 500)
    assert here.clean()
    assert not [h for h in headers(raw(log)) if h.is_control]


def test_markers_stay_as_long_as_tombstones(make: Make) -> None:
    here = make(delete_retention_ms=DAY_MS)
    log = here.log
    end_transaction(log, 7, commit=False)
    log.producers.remove_expired(2**60)
    put(log, pair("a", "1"))
    log.roll()
    for _ in range(3):
        put(log, pair("a", "1"))
        log.roll()
        assert here.clean()
        assert headers(raw(log))[0].is_control


def test_nothing_from_an_open_transaction_on_is_cleaned(make: Make) -> None:
    here = make()
    log = here.log
    put(log, pair("a", "1"))
    put(log, pair("a", "2"))
    log.roll()
    transaction(log, 7, 0, pair("b", "1"))
    put(log, pair("a", "3"))
    log.roll()
    put(log, pair("a", "4"))
    log.roll()
    assert here.clean()
    assert here.logs.checkpoint == 2
    assert sorted(contents(log)) == [1, 2, 3, 4]
    end_transaction(log, 7, commit=True)
    log.roll()
    assert here.clean()
    assert sorted(contents(log)) == [2, 4]


def test_an_abort_marker_in_a_later_segment_is_known(make: Make) -> None:
    here = make()
    log = here.log
    transaction(log, 7, 0, pair("a", "aborted"))
    put(log, pair("b", "1"))
    log.roll()
    transaction(log, 8, 0, pair("c", "open"))
    end_transaction(log, 7, commit=False)  # in the active segment's index, in memory
    assert log.last_stable_offset == 2
    assert here.clean()
    assert contents(log) == {1: pair("b", "1"), 2: pair("c", "open")}


# -- producers --------------------------------------------------------------------------------


def reload(here: Cleaning) -> Log:
    """Load the log as after a crash, with nothing but its records."""
    for name in here.place.files(".snapshot"):
        Path(here.place.path(name)).unlink()
    return here.place.open(clean=False)


def test_the_last_batch_of_an_active_producer_is_kept_empty(make: Make) -> None:
    here = make()
    log = here.log
    for sequence in (0, 1):
        put(log, pair("a", "1"), producer_id=7, producer_epoch=2, base_sequence=sequence)
    put(log, pair("a", "2"))
    log.roll()
    assert here.clean()
    assert contents(log) == {2: pair("a", "2")}
    empty, _ = headers(raw(log))
    assert (empty.base_offset, empty.records_count, empty.base_sequence) == (1, 0, 1)
    again = reload(here)
    entry = again.producers.get(7)
    assert entry is not None
    assert (entry.epoch, entry.last_sequence, entry.last_offset) == (2, 1, 1)
    duplicate = again.append_as_leader(
        [keyed_batch(pair("a", "1"), producer_id=7, producer_epoch=2, base_sequence=1)], 0, 1_000
    )
    assert (duplicate.duplicate, duplicate.first_offset) == (True, 1)


def test_nothing_is_kept_for_a_producer_that_has_expired(make: Make) -> None:
    here = make()
    put(here.log, pair("a", "1"), producer_id=7, producer_epoch=2, base_sequence=0)
    put(here.log, pair("a", "2"))
    here.log.roll()
    here.log.producers.remove_expired(2**60)
    assert here.clean()
    assert [h.base_offset for h in headers(raw(here.log))] == [1]


def test_an_emptied_batch_goes_when_the_producer_has_written_again(make: Make) -> None:
    here = make()
    log = here.log
    put(log, pair("a", "1"), producer_id=7, producer_epoch=2, base_sequence=0)
    put(log, pair("a", "2"))
    log.roll()
    assert here.clean()
    put(log, pair("b", "1"), producer_id=7, producer_epoch=2, base_sequence=1)
    log.roll()
    assert here.clean()
    assert [h.base_offset for h in headers(raw(log))] == [1, 2]


def test_a_producer_known_by_a_marker_only_stays_fenced(make: Make) -> None:
    here = make(delete_retention_ms=0)
    log = here.log
    end_transaction(log, 7, commit=False, epoch=5)
    put(log, pair("a", "1"))
    log.roll()
    put(log, pair("a", "2"))
    log.roll()
    here.logs.checkpoint = 2
    age(here, 0, 1_000)
    assert here.clean()
    assert [h.is_control for h in headers(raw(log))] == [True, False]
    again = reload(here)
    late = keyed_batch(pair("a", "x"), producer_id=7, producer_epoch=4, base_sequence=0)
    with pytest.raises(KafkaError) as caught:
        again.append_as_leader([late], 0, 1_000)
    assert caught.value.code == ErrorCode.INVALID_PRODUCER_EPOCH


# -- segments ---------------------------------------------------------------------------------


def fill(log: Log, keys: int, rounds: int) -> None:
    for number in range(keys * rounds):
        put(log, pair(f"key-{number % keys}", f"{number}".ljust(100)))


def test_segments_are_merged_up_to_segment_bytes(make: Make) -> None:
    here = make()
    fill(here.log, 10, 12)
    before = bases(here.log)
    assert len(before) > 15
    assert here.clean()
    assert bases(here.log) == before  # by their sizes before no two fit together
    here.log.roll()
    assert here.clean()
    after = bases(here.log)
    assert after[0] == 0
    assert len(after) <= 4  # two for the ten records at most, the dirty one, the active one
    assert all(segment.size <= SEGMENT for segment in here.log.segments)
    assert here.log.size == sum(segment.size for segment in here.log.segments)
    assert len(here.place.files(".log")) == len(after)
    assert len(contents(here.log)) == 10


def test_a_clean_log_loads_as_it_was_left(make: Make) -> None:
    here = make()
    fill(here.log, 10, 12)
    here.log.roll()
    assert here.clean()
    expected, bounds = contents(here.log), bases(here.log)
    here.log.close()
    for clean in (True, False):
        again = here.place.open(clean=clean)
        assert contents(again) == expected
        assert bases(again) == bounds
        assert again.log_end_offset == 120


def test_a_log_whose_first_segments_are_empty_is_read_from_its_start(make: Make) -> None:
    here = make()
    fill(here.log, 5, 20)
    here.log.roll()
    assert here.clean()
    assert here.log.segments.first.size == 0
    assert headers(here.log.read(0, 100, 100).view())[0].base_offset == 95
    assert here.log.log_start_offset == 0


def test_snapshots_that_nobody_needs_go(make: Make) -> None:
    here = make()
    fill(here.log, 5, 20)
    here.log.roll()
    here.log.flush()
    assert len(here.place.files(".snapshot")) > 10
    assert here.clean()
    assert len(here.place.files(".snapshot")) <= 2


def test_what_does_not_fit_into_memory_is_cleaned_in_several_passes(make: Make) -> None:
    # The smallest buffer that the settings allow has room for some 43,000 keys.
    here = make(
        segment_bytes=200_000,
        log_cleaner_dedupe_buffer_size=str((1 << 20) + 1),
        log_cleaner_io_buffer_load_factor="0.01",
    )
    log = here.log
    expected = {}
    for number in range(120):
        pairs = [pair(f"key-{(number * 17 + i) % 1500}", f"{number}-{i}") for i in range(20)]
        first = put(log, *pairs).first_offset
        for i, (key, value) in enumerate(pairs):
            expected.pop(key, None)
            expected[key] = (first + i, value)
    log.roll()
    passes, checkpoints = 0, []
    while here.clean():
        passes += 1
        checkpoints.append(here.logs.checkpoint)
    assert passes >= 4
    assert checkpoints == sorted(set(checkpoints))
    assert checkpoints[-1] == log.log_end_offset
    assert checkpoints[0] != log.segments[1].base_offset, "a pass may end within a segment"
    assert contents(log) == {offset: (key, value) for key, (offset, value) in expected.items()}


def test_message_sets_of_old_formats_are_cleaned(make: Make, tmp_path: Path) -> None:
    here = make()
    log = here.log
    log.close()
    parts = [
        legacy.build_message_set([Record(0, 5, b"a", b"1")], 0),
        legacy.build_message_set([Record(i, 5, b"k%d" % (i % 2), b"v") for i in (1, 2, 3)], 1),
        legacy.build_message_set(
            [Record(i, 9, b"k%d" % (i % 3), b"w") for i in (4, 5, 6)], 1, codec=1
        ),
        bytes(keyed_batch(pair("k1", "new"))[1]),
    ]
    last = bytearray(parts[-1])
    last[:8] = (7).to_bytes(8, "big")
    Path(here.place.path(f"{0:020}.log")).write_bytes(b"".join(parts[:-1]) + bytes(last))
    here = Cleaning(here.place)
    log = here.log
    log.advance_high_watermark(log.log_end_offset)
    assert log.log_end_offset == 8
    log.roll()
    assert here.clean()
    data = log.read(0, 10_000, 8).view()
    found = []
    for position, size, magic in iter_batches(data):
        found += [
            (record.offset, record.key)
            for record in legacy.read_records(data, position, size, magic, 1 << 20)
        ]
    assert found == [(0, b"a"), (5, b"k2"), (6, b"k0"), (7, b"k1")]
    assert headers(data[-len(last) :])[0].base_offset == 7


# -- when the log changes meanwhile -------------------------------------------------------------


def test_appending_and_rolling_go_on_during_a_pass(make: Make) -> None:
    here = make()
    log = here.log
    fill(log, 5, 20)
    log.roll()

    def on_loop(step: Callable[[], Any]) -> Any:
        put(log, pair("during", "x" * 300))
        result = step()
        put(log, pair("during", "y" * 300))
        return result

    assert here.clean(on_loop=on_loop)
    assert here.logs.checkpoint == 100
    found = contents(log)
    assert [*found][:5] == [*range(95, 100)]
    assert [*found][5:] == [*range(100, log.log_end_offset)]


@pytest.mark.parametrize("at", range(10))
def test_a_truncation_calls_the_pass_off(make: Make, at: int) -> None:
    here = make()
    log = here.log
    log.on_truncated = lambda truncated, deletions: (
        here.logs.remove_segments(deletions),
        here.cleaner.on_truncated(truncated),
    )[0]
    fill(log, 5, 20)
    log.roll()
    here.logs.checkpoint = 7
    steps = 0

    def on_loop(step: Callable[[], Any]) -> Any:
        nonlocal steps
        steps += 1
        if steps == at + 1:
            log.truncate_to(13)
            put(log, pair("new", "after the truncation"))
        return step()

    assert not here.clean(on_loop=on_loop)
    assert steps > at
    assert here.logs.checkpoint == 7
    assert here.cleaner.uncleanable == {}
    assert here.place.files(".cleaned") == here.place.files(".swap") == []
    found = contents(log)
    assert max(found) == 13
    assert found[13] == pair("new", "after the truncation")
    log.close()
    assert contents(here.place.open(clean=False)) == found
    assert here.place.files(".deleted") == []


def test_a_truncation_below_the_checkpoint_lowers_it(make: Make) -> None:
    here = make()
    log = here.log
    fill(log, 5, 20)
    log.roll()
    assert here.clean()
    assert here.logs.checkpoint == 100
    put(log, pair("more", "1"))
    log.truncate_to(100)
    here.cleaner.on_truncated(log)
    assert here.logs.checkpoint == 100
    log.truncate_to(97)
    here.cleaner.on_truncated(log)
    assert here.logs.checkpoint == log.segments.last.base_offset < 100


def test_a_truncation_above_what_is_swapped_leaves_it_alone(make: Make) -> None:
    here = make()
    log = here.log
    fill(log, 5, 20)
    log.roll()
    put(log, pair("active", "1"))
    truncated = False

    def on_loop(step: Callable[[], Any]) -> Any:
        nonlocal truncated
        if not truncated and log.swap is not None:
            truncated = log.truncate_to(100)
        return step()

    assert here.clean(on_loop=on_loop)
    assert truncated
    assert sorted(contents(log)) == [*range(95, 100)]


@pytest.mark.parametrize("at", range(12))
def test_deleting_segments_calls_the_pass_off(make: Make, at: int) -> None:
    here = make(cleanup_policy=("compact", "delete"), retention_bytes=1)
    log = here.log
    fill(log, 20, 6)
    log.roll()
    steps = 0

    def on_loop(step: Callable[[], Any]) -> Any:
        nonlocal steps
        steps += 1
        if steps == at + 1:
            for deletion in log.delete_old_segments(1_000):
                deletion.run(here.place.fs)
        return step()

    here.clean(on_loop=on_loop)
    assert steps > at
    assert here.cleaner.uncleanable == {}
    assert log.offline is None
    assert log.log_start_offset == bases(log)[0] > 0
    assert here.place.files(".cleaned") == here.place.files(".swap") == []
    assert here.place.files(".log") == [f"{base:020}.log" for base in bases(log)]
    assert [*contents(log)] == [*range(log.log_start_offset, 120)]


@pytest.mark.parametrize("at", range(8))
def test_deleting_the_partition_calls_the_pass_off(make: Make, at: int) -> None:
    here = make()
    log = here.log
    fill(log, 5, 20)
    log.roll()
    steps = 0

    def on_loop(step: Callable[[], Any]) -> Any:
        nonlocal steps
        steps += 1
        if steps == at + 1:
            Path(log.directory).rename(log.directory + "-delete")
            log.abandon()
            here.cleaner.on_deleted(log.topic_partition)
        return step()

    assert not here.clean(on_loop=on_loop)
    assert steps > at
    assert here.cleaner.uncleanable == {}
    assert not Path(log.directory).exists()


# -- trouble ----------------------------------------------------------------------------------


def test_a_damaged_batch_makes_the_partition_uncleanable(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    here = make()
    log = here.log
    fill(log, 5, 20)
    log.roll()
    segment = log.segments[3]
    with open(segment.path, "r+b") as file:
        file.seek(segment.size - 5)
        file.write(b"#####")
    before = raw(log)
    assert not here.clean()
    assert raw(log) == before
    assert here.logs.checkpoint is None
    assert here.place.files(".cleaned") == []
    [reason] = here.cleaner.uncleanable.values()
    assert "checksum of the batch at offset" in reason
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert not here.clean(), "it is left alone from now on"


def test_a_worker_that_dies_over_a_log_again_and_again(make: Make) -> None:
    """Somebody may have killed it once; a log that kills it each time must not hold others up."""
    here = make()
    log, cleaner = here.log, here.cleaner
    fill(log, 5, 20)
    log.roll()
    for attempt in range(3):
        assert cleaner.uncleanable == {}, attempt
        found = cleaner.judge(log)
        assert found is not None
        begun = cleaner.begin(log, found, ThreadWorker(here.place.fs, here.place.clock))
        assert begun is not None
        assert cleaner.judge(log) is None, "it is being cleaned"
        assert not cleaner.end(begun, WorkerDied("killed by signal 11"))
    assert cleaner.uncleanable == {log.topic_partition: "killed by signal 11"}


@pytest.mark.parametrize("call", ["pwrite", "create"])
def test_a_full_disk_costs_a_pass_and_nothing_else(make: Make, call: str) -> None:
    fs = FaultyFileSystem()
    here = make(fs)
    log = here.log
    fill(log, 5, 20)
    log.roll()
    if call == "create":
        fs.full = True
    else:
        fs.short_write = 10
    assert not here.clean()
    assert here.cleaner.uncleanable == {}
    assert [*contents(log)][-5:] == [*range(95, 100)]
    assert here.place.files(".cleaned") == []
    fs.full = False
    assert here.clean()
    assert [*contents(log)] == [*range(95, 100)]


@pytest.mark.parametrize("broken", ["rename", "fdatasync", "pread"])
def test_a_broken_disk(make: Make, broken: str) -> None:
    fs = FaultyFileSystem()
    here = make(fs)
    log = here.log
    fill(log, 5, 20)
    log.roll()
    fs.broken = {broken}
    assert not here.clean()
    if broken == "rename":  # on the loop, with the log half changed
        assert log.offline is not None
    else:
        assert [*here.cleaner.uncleanable] == [log.topic_partition]
    fs.broken = set()
    assert here.place.files(".cleaned") == here.place.files(".swap") == []
    assert len(contents(here.place.open(clean=False))) == 100


def test_only_compacted_logs_that_are_due_are_cleaned(make: Make) -> None:
    here = make(min_cleanable_dirty_ratio=0.5)
    log = here.log
    fill(log, 5, 20)
    log.roll()
    assert here.clean(due=True)
    put(log, pair("a", "1"))
    log.roll()
    assert not here.clean(due=True)
    settings = Place(here.place.directory, cleanup_policy=("delete",)).config
    log.update_config(settings)
    assert not here.clean()


def test_a_compacted_log_rolls_before_its_records_are_overdue(make: Make) -> None:
    here = make(max_compaction_lag_ms=100, segment_bytes=1 << 20)
    log = here.log
    put(log, pair("a", "1"), timestamp=1_000)
    put(log, pair("a", "2"), timestamp=1_100)
    assert len(log.segments) == 1
    put(log, pair("a", "3"), timestamp=1_101)
    assert len(log.segments) == 2


def test_records_that_are_overdue_make_a_log_due(make: Make) -> None:
    here = make(max_compaction_lag_ms=5_000, min_cleanable_dirty_ratio=1.0)
    log = here.log
    now = here.place.clock.wall_ms()
    put(log, pair("a", "1"), timestamp=now)
    put(log, pair("a", "2"), timestamp=now)
    log.roll()
    assert not here.clean(due=True)
    here.place.clock.advance(5)
    assert not here.clean(due=True)
    here.place.clock.advance(0.001)
    assert here.clean(due=True)
    assert [*contents(log)] == [1]


def test_young_records_are_left_alone(make: Make) -> None:
    here = make(min_compaction_lag_ms=5_000)
    log = here.log
    now = here.place.clock.wall_ms()
    for value, timestamp in (("1", now - 5_000), ("2", now - 4_999), ("3", now - 6_000)):
        put(log, pair("a", "0"), pair("a", value), timestamp=timestamp)
        log.roll()
    assert here.clean()
    assert [*contents(log)] == [1, 2, 3, 4, 5]
    here.place.clock.advance(0.001)
    assert here.clean()
    assert [*contents(log)] == [5]
