"""Making a log shorter: truncation, the start offset, retention (log-storage.md §5-§7)."""

import logging

from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.storage.fs import is_passing
from kavka.storage.log_state import ALWAYS, LogState, SegmentDeletion
from kavka.storage.names import DELETED_SUFFIX
from kavka.storage.replay import rebuild_producers
from kavka.storage.retention import LogBounds, RetentionRules, deletable
from kavka.storage.segment import Segment

log = logging.getLogger("kavka.storage.log")


class ShrinkingLog(LogState):
    """A log as far as it loses records."""

    __slots__ = ()

    def increment_log_start_offset(self, offset: int) -> bool:
        """Records below ``offset`` are deleted (logically; segments go later). True if news.

        Raises KafkaError OFFSET_OUT_OF_RANGE past the high watermark.
        """
        if offset > self.high_watermark:
            raise KafkaError(
                ErrorCode.OFFSET_OUT_OF_RANGE,
                f"cannot delete up to offset {offset} of {self.topic_partition}: its high "
                f"watermark is {self.high_watermark}",
            )
        if offset <= self.log_start_offset:
            return False
        self._move_start(offset)
        return True

    def _move_start(self, offset: int) -> None:
        self.log_start_offset = offset
        self.leader_epochs.truncate_from_start(offset)
        self.producers.on_log_start(offset)

    def truncate_to(self, offset: int) -> bool:
        """Remove records at and past ``offset`` (whole batches); True if there were any.

        A batch that reaches over ``offset`` goes as a whole, and the log then ends where it
        began (Kafka keeps ``offset`` as its end, and cannot take that batch again). Raises
        KAFKA_STORAGE_ERROR.
        """
        self._require_online()
        if offset >= self.log_end_offset:
            return False
        if self.segments.first.base_offset > offset:
            self.truncate_fully_and_start_at(offset)
            return True
        now_ms = self._clock.wall_ms()
        try:
            if self.swap is not None:
                self.swap.on_truncate(offset)
            deletions = self._rename_from(offset + 1)
        except OSError as error:
            raise self._failed(error, "truncate") from error
        try:
            self._truncations += 1
            self.segments.remove_from(offset + 1)
            active = self.segments.last
            active.is_active = True
            offset = active.truncate_to(offset, now_ms)
            self.segments.recount()
            self._become(active, offset)
            self.must_sync(offset, new_names=True)
            rebuild_producers(self.producers, self.segments, self.log_start_offset, offset, now_ms)
            self._tell_truncated(deletions)
        except OSError as error:  # between two states, neither of which can be gone on with
            raise self._failed(error, "truncate", fatal=True) from error
        return True

    def truncate_fully_and_start_at(self, offset: int) -> None:
        """Remove everything; the next record gets ``offset``. Raises KAFKA_STORAGE_ERROR."""
        self._require_online()
        try:
            if self.swap is not None:
                self.swap.withdraw()
            deletions = self._rename_from(0)
        except OSError as error:
            raise self._failed(error, "truncate") from error
        try:
            self._truncations += 1
            segment = self._new_segment(offset)
            self._create(segment)
            self.segments.remove_from(0)  # there is at least one, even if the file cannot be made
            self._activate(segment)
            self.must_sync(offset, new_names=True)
            self.producers.reset(offset)
            self.leader_epochs.clear()
            self.log_start_offset = self.recovery_point = offset
            self._become(segment, offset)
            self._tell_truncated(deletions)
        except OSError as error:
            raise self._failed(error, "truncate", fatal=True) from error

    def _create(self, segment: Segment) -> None:
        """Make the file of an empty log now: its name is what remembers the offset."""
        try:
            segment.create()
        except OSError as error:
            if not is_passing(error):
                raise
            log.warning(
                "The offset that a log begins anew at is not on disk before its first record: %s "
                "partition=%s offset=%d",
                error,
                self.topic_partition,
                segment.base_offset,
            )

    def _become(self, active: Segment, end_offset: int) -> None:
        """End at ``end_offset`` in ``active`` from now on."""
        self._active = active
        self._roll_after = ALWAYS
        self._tune(active)
        self.log_end_offset = end_offset
        self.recovery_point = min(self.recovery_point, end_offset)
        self.log_start_offset = min(self.log_start_offset, end_offset)
        self.high_watermark = max(self.log_start_offset, min(self.high_watermark, end_offset))
        self.leader_epochs.truncate_from_end(end_offset)

    def _rename_from(self, offset: int) -> list[SegmentDeletion]:
        """Rename the files of segments that begin at or past ``offset`` and are to leave the log.

        The newest first: whenever this ends, what is left has no gap. On disk, too, or a crash
        would leave one between what is cut and what comes back. What fails is undone.
        """
        gone = [one for one in reversed(self.segments) if one.base_offset >= offset]
        try:
            for segment in gone:
                segment.rename(DELETED_SUFFIX)
            if gone:
                self._fs.sync_dir(self.directory)
        except OSError as error:
            self._rename_back(gone, error)
            raise
        for segment in gone:
            segment.release()
        return [SegmentDeletion(one, one.base_offset, "truncated", 0) for one in gone]

    def _rename_back(self, segments: list[Segment], error: OSError) -> None:
        """Undo a renaming that failed: what has the name would be gone at the next start."""
        try:
            for segment in reversed(segments):
                if segment.suffix == DELETED_SUFFIX:
                    segment.rename("")
            self._fs.sync_dir(self.directory)
        except OSError:
            self.go_offline(error, f"a truncation of {self.topic_partition} failed half-way")

    def _tell_truncated(self, deletions: list[SegmentDeletion]) -> None:
        """Leave it to the owner to remove files off the loop, and to checkpoint the new end."""
        if self.on_truncated is not None:
            self.on_truncated(self, deletions)
        else:
            for deletion in deletions:
                deletion.run(self._fs)

    def delete_old_segments(self, now_ms: int, at_most: int | None = None) -> list[SegmentDeletion]:
        """Take the segments out that retention no longer covers; their files are renamed.

        Renaming takes its time, so who must not stall asks for ``at_most`` so many, and again
        until there are none. The caller runs the deletions in a thread after their delay. Raises
        KAFKA_STORAGE_ERROR.
        """
        self._require_online()
        config = self.config
        rules = RetentionRules(
            "delete" in config.cleanup_policy, config.retention_ms, config.retention_bytes
        )
        bounds = LogBounds(self.log_start_offset, self.high_watermark, self.log_end_offset)
        try:
            reasons = deletable(self.segments, rules, bounds, now_ms)
        except OSError as error:
            raise self._failed(error, "read") from error
        return self._delete_first(reasons[:at_most], now_ms) if reasons else []

    def delete_oldest(self, count: int, reason: str, now_ms: int) -> list[SegmentDeletion]:
        """Take the ``count`` oldest segments out whatever retention says, at most all of them.

        Nothing at or past the high watermark goes; for all segments a new one is rolled first.
        The files are to be removed as by :meth:`delete_old_segments`. Raises
        KAFKA_STORAGE_ERROR.
        """
        self._require_online()
        reasons: list[str] = []
        last = len(self.segments) - 1
        for index, segment in enumerate(self.segments[:count]):
            end = self.log_end_offset if index == last else self.segments[index + 1].base_offset
            if self.high_watermark < end or (index == last and not segment.size):
                break
            reasons.append(reason)
        return self._delete_first(reasons, now_ms) if reasons else []

    def _delete_first(self, reasons: list[str], now_ms: int) -> list[SegmentDeletion]:
        if len(reasons) == len(self.segments):
            self.roll(now_ms)
        if self._directory_dirty or self._job is not None:
            # A power loss that takes the names of what stays, but not those of what goes, would
            # leave no segment, and the log would begin again at offset 0.
            try:
                self._fs.sync_dir(self.directory)
            except OSError as error:
                raise self._failed(error, "delete a segment of") from error
        deletions: list[SegmentDeletion] = []
        for reason in reasons:
            segment = self.segments.first
            try:
                segment.rename(DELETED_SUFFIX)
            except OSError as error:
                raise self._failed(error, "delete a segment of") from error
            segment.release()
            self.segments.remove_first()
            next_offset = self.segments.first.base_offset
            deletions.append(
                SegmentDeletion(segment, next_offset, reason, self.config.file_delete_delay_ms)
            )
            log.info(
                "Segment deleted partition=%s base_offset=%d next_offset=%d bytes=%d %s",
                self.topic_partition,
                segment.base_offset,
                next_offset,
                segment.size,
                reason,
            )
        first = self.segments.first.base_offset
        if first > self.log_start_offset:
            self._move_start(first)
        self.recovery_point = max(self.recovery_point, first)
        self.drop_old_snapshots()
        return deletions

    def drop_old_snapshots(self) -> None:
        """Keep the producer snapshots that recovery or truncation may want (log-storage.md §7)."""
        keep = min(
            self.segments.before(self._active).base_offset,
            self.segments.floor(max(self.recovery_point, self.log_start_offset)).base_offset,
        )
        try:
            self.producers.delete_snapshots_below(keep)
        except OSError as error:
            raise self._failed(error, "delete a snapshot of") from error
