"""A partition's log: segments one behind the other, written at the end and read anywhere.

Loading and recovery are in :mod:`kavka.storage.recovery`, questions by time and epoch in
:mod:`kavka.storage.queries`; on threads and failing disks see :mod:`kavka.storage.log_state`.
"""

from collections.abc import Callable, Sequence
from struct import Struct
from typing import Final, TypeVar

from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.protocol.records.batch import (
    CONTROL_MASK,
    TIMESTAMP_TYPE_MASK,
    BatchHeader,
    crc_ok,
    iter_batches,
    read_header,
)
from kavka.storage import queries
from kavka.storage.append import NO_TIMESTAMP, AppendInfo, AppendOrigin
from kavka.storage.epochs import EpochEndOffset
from kavka.storage.fetch_slice import NOTHING, FetchSlice
from kavka.storage.log_shrink import ShrinkingLog
from kavka.storage.log_state import SegmentDeletion
from kavka.storage.replay import EndMarker, read_marker
from kavka.storage.segment import MAX_RELATIVE_OFFSET, Segment, TimestampedOffset
from kavka.storage.topic_id import write_topic_id
from kavka.storage.txn_index import AbortedTxn

__all__ = ["AppendInfo", "AppendOrigin", "FetchSlice", "Log", "SegmentDeletion"]

_Answer = TypeVar("_Answer")

# Offset, length (as it is) and leader epoch: one call instead of batch.stamp()'s two.
_STAMP: Final = Struct(">qii")


class Log(ShrinkingLog):
    """One replica of one partition."""

    __slots__ = ()

    # -- writing ----------------------------------------------------------------------------

    def append_as_leader(
        self,
        batches: Sequence[tuple[BatchHeader, memoryview]],
        leader_epoch: int,
        now_ms: int,
        origin: AppendOrigin = AppendOrigin.CLIENT,
    ) -> AppendInfo:
        """Give validated v2 batches their offsets and write them, all or none.

        Each view is writable, holds exactly one batch and is stamped in place. Raises KafkaError:
        RECORD_LIST_TOO_LARGE for more than segment.bytes, what
        :meth:`ProducerStateManager.check` raises, KAFKA_STORAGE_ERROR.
        """
        if self.offline is not None:
            raise KafkaError(ErrorCode.KAFKA_STORAGE_ERROR, self.offline)
        if len(batches) != 1:
            return self._append_many(batches, leader_epoch, now_ms, origin)
        header, view = batches[0]
        producers = self.producers
        marker: EndMarker | None = None
        if header.producer_id >= 0:
            if header.attributes & CONTROL_MASK:
                marker = read_marker(view, header)
            duplicate = producers.check(header, origin, marker)
            if duplicate is not None:
                return AppendInfo.of_duplicate(duplicate, self.log_start_offset)
        first = self.log_end_offset
        last = first + header.last_offset_delta
        size = len(view)
        timestamp = header.max_timestamp
        _STAMP.pack_into(view, 0, first, header.batch_length, leader_epoch)
        segment = self._active
        if (  # a new segment, or one that may have to be rolled, goes the slow way
            timestamp > self._roll_after
            or segment.size + size > self.config.segment_bytes
            or segment.is_full
            or last - segment.base_offset > MAX_RELATIVE_OFFSET
        ):
            segment = self._segment_for(size, first, last, timestamp, now_ms)
        try:
            segment.append((view,), size, first, last, timestamp, last)
        except OSError as error:
            raise self._failed(error, "append") from error
        self.log_end_offset = producers.end_offset = last + 1
        self.segments.size += size
        if leader_epoch != self.leader_epochs.latest_epoch and leader_epoch >= 0:
            self.leader_epochs.assign(leader_epoch, first)
        if header.producer_id >= 0:
            self._note_producer(segment, header, first, marker)
        return AppendInfo(
            first,
            last,
            timestamp if header.attributes & TIMESTAMP_TYPE_MASK else NO_TIMESTAMP,
            self.log_start_offset,
            size,
        )

    def _append_many(
        self,
        batches: Sequence[tuple[BatchHeader, memoryview]],
        leader_epoch: int,
        now_ms: int,
        origin: AppendOrigin,
    ) -> AppendInfo:
        """Several batches in one write: several message sets of an old producer, coordinators."""
        assert batches
        producers = self.producers
        checked: list[BatchHeader] = []
        markers: dict[int, EndMarker | None] = {}
        for index, (header, view) in enumerate(batches):
            if header.producer_id < 0:
                continue
            if header.attributes & CONTROL_MASK:
                markers[index] = read_marker(view, header)
                producers.check(header, origin, markers[index])
            else:
                checked.append(header)
        if checked:
            duplicate = producers.check_all(checked, origin)
            if duplicate is not None:
                return AppendInfo.of_duplicate(duplicate, self.log_start_offset)
        first = next_offset = self.log_end_offset
        size = 0
        timestamp, timestamp_offset = NO_TIMESTAMP, first
        views: list[memoryview] = []
        for header, view in batches:
            _STAMP.pack_into(view, 0, next_offset, header.batch_length, leader_epoch)
            next_offset += header.last_offset_delta + 1
            size += len(view)
            views.append(view)
            if header.max_timestamp > timestamp:
                timestamp, timestamp_offset = header.max_timestamp, next_offset - 1
        last = next_offset - 1
        segment = self._segment_for(size, first, last, timestamp, now_ms)
        try:
            segment.append(views, size, first, last, timestamp, timestamp_offset)
        except OSError as error:
            raise self._failed(error, "append") from error
        self.log_end_offset = producers.end_offset = next_offset
        self.segments.size += size
        if leader_epoch != self.leader_epochs.latest_epoch and leader_epoch >= 0:
            self.leader_epochs.assign(leader_epoch, first)
        if checked or markers:
            base = first
            for index, (header, _) in enumerate(batches):
                if header.producer_id >= 0:
                    self._note_producer(segment, header, base, markers.get(index))
                base += header.last_offset_delta + 1
        append_time = NO_TIMESTAMP
        if batches[0][0].attributes & TIMESTAMP_TYPE_MASK:
            append_time = timestamp
        return AppendInfo(first, last, append_time, self.log_start_offset, size)

    def append_as_follower(self, data: memoryview) -> AppendInfo:
        """Write what the leader has sent, with its offsets and epochs; a cut last batch is left.

        Raises KafkaError: CORRUPT_MESSAGE for a batch that is damaged, OFFSET_OUT_OF_RANGE for
        offsets that do not follow what is here, KAFKA_STORAGE_ERROR.
        """
        self._require_online()
        headers: list[tuple[BatchHeader, int]] = []
        end = 0
        expected = self.log_end_offset
        timestamp, timestamp_offset = NO_TIMESTAMP, expected
        for position, size, magic in iter_batches(data):
            if magic != 2 or not crc_ok(data, position, size):
                raise KafkaError(
                    ErrorCode.CORRUPT_MESSAGE,
                    f"a batch for {self.topic_partition} is damaged at byte {position} of a fetch",
                )
            header = read_header(data, position)
            if header.base_offset < expected or header.last_offset_delta < 0:
                raise KafkaError(
                    ErrorCode.OFFSET_OUT_OF_RANGE,
                    f"{self.topic_partition} got offset {header.base_offset} from its leader, "
                    f"but {expected} comes next",
                )
            expected = header.base_offset + header.last_offset_delta + 1
            if header.max_timestamp > timestamp:
                timestamp, timestamp_offset = header.max_timestamp, expected - 1
            headers.append((header, position))
            end = position + size
        if not headers:
            offset = self.log_end_offset
            return AppendInfo(offset, offset - 1, NO_TIMESTAMP, self.log_start_offset, 0)
        first = headers[0][0].base_offset
        last = expected - 1
        segment = self._segment_for(end, first, last, timestamp, self._clock.wall_ms(), True)
        try:
            segment.append((data[:end],), end, first, last, timestamp, timestamp_offset)
        except OSError as error:
            raise self._failed(error, "append") from error
        self.log_end_offset = self.producers.end_offset = expected
        self.segments.size += end
        for header, position in headers:
            if header.leader_epoch != self.leader_epochs.latest_epoch and header.leader_epoch >= 0:
                self.leader_epochs.assign(header.leader_epoch, header.base_offset)
            if header.producer_id >= 0:
                marker = None
                if header.attributes & CONTROL_MASK:
                    marker = read_marker(data[position : position + header.size], header)
                self.producers.check(header, AppendOrigin.REPLICATION, marker)
                self._note_producer(segment, header, header.base_offset, marker)
        return AppendInfo(first, last, NO_TIMESTAMP, self.log_start_offset, end)

    def _note_producer(
        self, segment: Segment, header: BatchHeader, first_offset: int, marker: EndMarker | None
    ) -> None:
        completed = self.producers.update(header, first_offset, header.max_timestamp, marker)
        if completed is not None and completed.aborted:
            try:
                segment.txn_index.append(completed)
            except OSError as error:  # it is in the log already
                raise self._failed(error, "index an aborted transaction of", fatal=True) from error

    # -- segments ---------------------------------------------------------------------------

    def _segment_for(
        self,
        size: int,
        first: int,
        last: int,
        timestamp: int,
        now_ms: int,
        follows: bool = False,
    ) -> Segment:
        """The segment that ``size`` more bytes go into: the active one, or a new one."""
        segment = self._active
        config = self.config
        if size > config.segment_bytes and not follows:
            raise KafkaError(
                ErrorCode.RECORD_LIST_TOO_LARGE,
                f"{size} bytes at once are more than segment.bytes={config.segment_bytes} "
                f"of {self.topic_partition}",
            )
        if self._unsynced_from is not None:
            self.flush()
        try:
            if not segment.exists:
                segment.create()
                self._directory_dirty = True  # its name was not there at any sync before
                write_topic_id(self._fs, self.directory, self.topic_id)
            roll = segment.should_roll(
                size, timestamp, last, now_ms, config.segment_bytes, self._segment_ms
            )
            if not roll and segment.size:
                started = segment.first_timestamp
                if started >= 0:
                    self._roll_after = started + self._segment_ms - segment.roll_jitter_ms
        except OSError as error:
            raise self._failed(error, "read") from error
        return self.roll(now_ms, first) if roll else segment

    # -- reading ----------------------------------------------------------------------------

    def read(
        self, offset: int, max_bytes: int, upper_bound_offset: int, min_one: bool = True
    ) -> FetchSlice:
        """Records from the batch with ``offset`` on, below ``upper_bound_offset``.

        At most ``max_bytes``, but with ``min_one`` at least one batch if there is one. The first
        batch may begin below ``offset``, the last may be cut. Raises
        OFFSET_OUT_OF_RANGE (below the log's start or past its end), KAFKA_STORAGE_ERROR.
        """
        if self.offline is not None:
            raise KafkaError(ErrorCode.KAFKA_STORAGE_ERROR, self.offline)
        end = self.log_end_offset
        if not self.log_start_offset <= offset <= end:
            raise KafkaError(
                ErrorCode.OFFSET_OUT_OF_RANGE,
                f"offset {offset} of {self.topic_partition} is not between its start "
                f"{self.log_start_offset} and its end {end}",
            )
        if offset >= upper_bound_offset or offset == end:
            return NOTHING
        try:
            segment: Segment | None = self._active
            assert segment is not None
            if offset < segment.base_offset:
                segment = self.segments.floor(offset)
            while segment is not None:
                position = segment.find_position(offset)
                limit = segment.size
                if upper_bound_offset < end:
                    limit = self._limit(segment, upper_bound_offset)
                available = limit - position
                if available > 0:
                    if available > max_bytes:
                        available = max_bytes
                        if min_one:
                            available = min(
                                max(max_bytes, segment.batch_size_at(position)), limit - position
                            )
                    if available <= 0:
                        return NOTHING
                    return FetchSlice(
                        self._fs,
                        segment.file(),
                        position,
                        available,
                        offset,
                        segment is self._active,
                    )
                segment = self.segments.after(segment)
        except OSError as error:
            raise self._failed(error, "read") from error
        return NOTHING

    def _limit(self, segment: Segment, upper_bound_offset: int) -> int:
        """Position in ``segment`` up to which all is below the bound."""
        following = self.segments.after(segment)
        if following is not None and following.base_offset <= upper_bound_offset:
            return segment.size
        if upper_bound_offset <= segment.base_offset:
            return 0
        return segment.find_position(upper_bound_offset)

    def aborted_transactions(self, offset: int, fetch_slice: FetchSlice) -> list[AbortedTxn]:
        """Aborted transactions that reach into what was read from ``offset`` on.

        For read_committed consumers, who leave their records out. Raises
        KAFKA_STORAGE_ERROR.
        """
        try:
            return queries.aborted_transactions(self, offset, fetch_slice)
        except OSError as error:
            raise self._failed(error, "read") from error

    # -- questions --------------------------------------------------------------------------

    def offset_for_timestamp(self, timestamp: int) -> TimestampedOffset | None:
        """The first record that is not older than ``timestamp`` (ms): time, offset, epoch."""
        return self._ask(lambda: queries.offset_for_timestamp(self, timestamp))

    def max_timestamp_offset(self) -> TimestampedOffset | None:
        """The record with the largest timestamp; None when no record has one."""
        return self._ask(lambda: queries.max_timestamp_offset(self))

    def legacy_offsets_before(self, timestamp: int, max_offsets: int) -> list[int]:
        """ListOffsets v0: offsets of segments by file time, newest first."""
        return self._ask(
            lambda: queries.legacy_offsets_before(
                self, timestamp, max_offsets, self._clock.wall_ms()
            )
        )

    def end_offset_for_epoch(self, epoch: int) -> EpochEndOffset:
        """Where a leader epoch ends here (OffsetForLeaderEpoch, KIP-101, KIP-279)."""
        return self.leader_epochs.end_offset_for(epoch, self.log_end_offset)

    def _ask(self, question: Callable[[], _Answer]) -> _Answer:
        self._require_online()
        try:
            return question()
        except OSError as error:
            raise self._failed(error, "read") from error
