"""A log beside a plain list of batches, over random histories with crashes and restarts."""

import os
import tempfile
from typing import NamedTuple

from hypothesis import event, given, settings
from hypothesis import strategies as st

from kavka.protocol.records.batch import HEADER_SIZE
from kavka.storage.log import Log
from tests.unit.storage.log_support import Place, append, batch, read_values


class Batch(NamedTuple):
    first: int
    values: tuple[str, ...]
    epoch: int
    sequence: int  # of producer 1, or -1

    @property
    def next(self) -> int:
        return self.first + len(self.values)


small = st.integers(0, 30)
OPERATIONS = st.one_of(
    st.tuples(st.just("append"), st.integers(1, 4), st.sampled_from([1, 60, 9_000])),
    st.tuples(st.just("append"), st.integers(1, 4), st.sampled_from([1, 60, 9_000])),
    st.tuples(st.just("many"), st.integers(20, 60), st.just(20)),
    st.tuples(st.just("produce"), st.integers(1, 3), st.just(5)),
    st.tuples(st.just("again"), small, small),
    st.tuples(st.just("follow"), st.integers(0, 5), st.integers(1, 3)),
    st.tuples(st.just("roll"), small, small),
    st.tuples(st.just("flush"), small, small),
    st.tuples(st.just("truncate"), small, small),
    st.tuples(st.just("start"), small, small),
    st.tuples(st.just("delete"), small, small),
    st.tuples(st.just("reopen"), small, small),
    st.tuples(st.just("crash"), small, small),
    st.tuples(st.just("torn"), st.integers(0, 10_000), small),
    st.tuples(st.just("damaged"), st.integers(0, 10_000), small),
    st.tuples(st.just("indexes lost"), small, small),
)


class Model:
    """What should be there, and the log that has it."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.log = place.open()
        self.batches: list[Batch] = []
        self.start = 0
        self.end = 0
        self.epoch = 0
        self.sequence = 0  # next of producer 1

    # -- operations -------------------------------------------------------------------------

    def append(self, count: int, size: int) -> None:
        values = tuple(f"{self.end + number}".ljust(size, ".") for number in range(count))
        info = append(self.log, *values, epoch=self.epoch, timestamp=self.place.clock.wall_ms())
        assert (info.first_offset, info.last_offset) == (self.end, self.end + count - 1)
        self._add(Batch(self.end, values, self.epoch, -1))

    def many(self, count: int, size: int) -> None:
        for _ in range(count):
            self.append(1, size)

    def produce(self, count: int, size: int) -> None:
        values = tuple(f"{self.end + number}".ljust(size, "!") for number in range(count))
        info = self._send(values, self.sequence)
        assert not info.duplicate and info.first_offset == self.end
        self._add(Batch(self.end, values, self.epoch, self.sequence))
        self.sequence += count

    def again(self, *_: int) -> None:
        """The last batch of the producer comes once more."""
        known = self._last_produced()
        if known is not None:
            info = self._send(known.values, known.sequence)
            assert info.duplicate and info.first_offset == known.first

    def _send(self, values: tuple[str, ...], sequence: int):  # type: ignore[no-untyped-def]
        return append(
            self.log,
            *values,
            epoch=self.epoch,
            timestamp=self.place.clock.wall_ms(),
            producer_id=1,
            producer_epoch=0,
            base_sequence=sequence,
        )

    def follow(self, gap: int, count: int) -> None:
        """Records come from a leader that has compacted some away."""
        first = self.end + gap
        values = tuple(f"f{first + number}" for number in range(count))
        _, view = batch(
            *values,
            base_offset=first,
            leader_epoch=self.epoch,
            timestamp=self.place.clock.wall_ms(),
        )
        self.log.append_as_follower(view)
        self._add(Batch(first, values, self.epoch, -1))

    def roll(self, *_: int) -> None:
        self.log.roll()
        self.epoch += 1

    def flush(self, *_: int) -> None:
        self.log.flush()
        assert self.log.recovery_point == self.end

    def truncate(self, back: int, _: int) -> None:
        target = max(self.end - back, 0)
        below_all = target < self.log.segments.first.base_offset
        self.log.truncate_to(target)
        if target < self.end:
            gone = [one for one in self.batches if one.next > target]
            self.batches = [] if below_all else self.batches[: len(self.batches) - len(gone)]
            self.end = target if below_all else min([target, *(one.first for one in gone)])
            self.start = target if below_all else min(self.start, self.end)

    def start_at(self, forward: int, _: int) -> None:
        self.log.advance_high_watermark(self.end)
        target = min(self.start + forward, self.end)
        self.log.increment_log_start_offset(target)
        self.start = max(self.start, target)

    def delete(self, kilobytes: int, _: int) -> None:
        self.log.advance_high_watermark(self.end)
        self.log.update_config(
            Place("", segment_bytes=40_000, retention_bytes=kilobytes * 2048).config
        )
        for deletion in self.log.delete_old_segments(self.place.clock.wall_ms()):
            deletion.run(self.place.fs)
        first = self.log.segments.first.base_offset
        assert self.log.size <= kilobytes * 2048 + 40_000
        if first > self.start:
            self.start = first
            event("segments deleted")

    def reopen(self, *_: int) -> None:
        self.log.close()
        self.log = self.place.open(log_start_offset=self.log.log_start_offset)
        self._restarted()

    def _restarted(self) -> None:
        """Where records are missing at the end, the log ends with its last batch again."""
        base = self.log.segments.last.base_offset
        self.end = max([one.next for one in self.batches], default=base)
        self.end = max(self.end, base)
        if self.end <= self.start:
            self.batches, self.end = [], self.start

    def crash(self, *_: int) -> None:
        point = self.log.recovery_point
        self.log.abandon()
        loaded = self.place.load(
            clean=False, recovery_point=point, log_start_offset=self.log.log_start_offset
        )
        assert loaded.recovery.cut_bytes == 0
        self.log = loaded.log
        self._restarted()

    def torn(self, back: int, _: int) -> None:
        """The end of the last segment never reached the disk."""
        self._lose_from(back, lambda data: b"")

    def damaged(self, back: int, _: int) -> None:
        """A byte of the last segment is not what was written."""
        self._lose_from(back, lambda data: bytes([data[0] ^ 0x55]) + data[1:])

    def _lose_from(self, back: int, spoil) -> None:  # type: ignore[no-untyped-def]
        point, last = self.log.recovery_point, self.log.segments.last
        self.log.abandon()
        if not last.size:
            self.crash()
            return
        position = max(last.size - 1 - back, 0)
        # What has been flushed is on disk: the first byte that may be lost is behind it.
        hit, offset = 0, last.base_offset
        for found in last.batches():
            if found.position + found.size > position and found.last_offset >= point:
                hit = max(position, found.position)
                # A byte of the offset or epoch fields need not make a batch impossible.
                if hit - found.position < 17:
                    hit = found.position + HEADER_SIZE
                offset = found.base_offset
                break
        else:
            self.crash()
            return
        with open(last.path, "r+b") as file:
            file.seek(hit)
            rest = file.read()
            file.seek(hit)
            file.truncate()
            file.write(spoil(rest))
        last.release()
        loaded = self.place.load(
            clean=False, recovery_point=point, log_start_offset=self.log.log_start_offset
        )
        self.log = loaded.log
        assert loaded.recovery.cut_bytes > 0
        event("cut at recovery")
        self.batches = [one for one in self.batches if one.first < offset]
        self._restarted()

    def lose_indexes(self, *_: int) -> None:
        self.log.close()
        for name in self.place.files("index"):
            self.place.fs.unlink(self.place.path(name))
        self.log = self.place.open(log_start_offset=self.log.log_start_offset)
        self._restarted()

    # -- the model --------------------------------------------------------------------------

    def _add(self, added: Batch) -> None:
        self.batches.append(added)
        self.end = added.next

    def _last_produced(self) -> Batch | None:
        known = [one for one in self.batches if one.sequence >= 0]
        # A producer whose last batch is deleted is forgotten (Kafka 2.3).
        return known[-1] if known and known[-1].next > self.start else None

    def after(self) -> None:
        """Forget what is below the start; the producer with its last batch."""
        last = self._last_produced()
        self.sequence = last.sequence + len(last.values) if last else 0

    def check(self) -> None:
        log = self.log
        assert (log.log_start_offset, log.log_end_offset) == (self.start, self.end)
        expected = {
            one.first + number: value
            for one in self.batches
            for number, value in enumerate(one.values)
            if one.first + number >= self.start
        }
        assert read_values(log) == expected
        assert read_values(log, limit=10_000) == expected
        span = range(self.start, self.end + 1)
        for bound in span[:: max(1, len(span) // 7)]:
            whole = [one for one in self.batches if one.next <= bound]
            below = {
                one.first + number: value
                for one in whole
                for number, value in enumerate(one.values)
                if one.first + number >= self.start
            }
            assert read_values(log, limit=3_000, bound=bound) == below
        check_indexes(log)
        assert log.size == sum(segment.size for segment in log.segments)
        for one in self.batches[-5:]:
            if one.first >= self.start:
                assert log.leader_epochs.epoch_for_offset(one.first) == one.epoch
        entry = log.producers.get(1)
        last = self._last_produced()
        if last is not None:
            assert entry is not None
            assert entry.last_sequence == last.sequence + len(last.values) - 1


def check_indexes(log: Log) -> None:
    """Every entry of an index points to the batch that it says."""
    for segment in log.segments:
        found = {one.position: one for one in segment.batches()}
        assert sum(one.size for one in found.values()) == segment.size
        for entry in segment.offset_index.entries():
            assert found[entry.position].last_offset <= entry.offset
            assert entry.offset < log.log_end_offset
        largest = max((one.max_timestamp for one in found.values()), default=-1)
        assert segment.max_timestamp == largest


@settings(max_examples=120, deadline=None)
@given(st.lists(OPERATIONS, max_size=50))
def test_a_log_is_a_list_of_batches(operations: list[tuple[str, int, int]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        model = Model(
            Place(
                os.path.join(directory, "orders-0"), segment_bytes=40_000, index_interval_bytes=200
            )
        )
        does = {"start": model.start_at, "indexes lost": model.lose_indexes}
        for name, first, second in operations:
            model.place.clock.advance(0.001)
            does.get(name, getattr(model, name, None))(first, second)  # type: ignore[misc]
            model.after()
        model.check()
        model.crash()
        model.check()
        model.log.abandon()
