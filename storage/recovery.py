"""Loading a partition's directory, and repairing it after a crash (log-storage.md §4).

After a clean stop nothing is scanned but the piece behind the last index entry. After a crash
every segment from the recovery point on is read: below the recovery point only headers (those
records are known to be on disk), past it checksums too. The log ends before the first batch that
does not hold, and one line says what was cut. Zeros behind the data are reserved space, and are
cut without a word. What was found is then synced, so that the recovery point is the log's end.
"""

import errno
import logging
import os
import random
from collections.abc import Collection
from struct import Struct
from typing import Final, NamedTuple

from kavka.config.topic import TopicConfig
from kavka.protocol.errors import KafkaError
from kavka.protocol.topics import TopicPartition
from kavka.storage.checkpoints import LEADER_EPOCHS, CorruptCheckpoint
from kavka.storage.clock import Clock
from kavka.storage.epochs import LeaderEpochCache
from kavka.storage.fs import FileSystem
from kavka.storage.index import CorruptIndex
from kavka.storage.log import Log
from kavka.storage.names import (
    CLEANED_SUFFIX,
    DELETED_SUFFIX,
    INDEX_SUFFIX,
    INDEX_SUFFIXES,
    LOG_SUFFIX,
    SNAPSHOT_SUFFIX,
    SWAP_SUFFIX,
    TIME_INDEX_SUFFIX,
    TXN_INDEX_SUFFIX,
    parse_segment_file,
    segment_file,
    split_suffix,
)
from kavka.storage.open_files import OpenFiles
from kavka.storage.producers import ProducerStateManager
from kavka.storage.replay import rebuild_producers
from kavka.storage.segment import Segment
from kavka.storage.segment_recovery import Cut, SegmentRecovery
from kavka.storage.segments import Segments
from kavka.storage.topic_id import (
    PARTITION_METADATA,
    ZERO_TOPIC_ID,
    read_topic_id,
    write_topic_id,
)

log = logging.getLogger("kavka.storage.recovery")


NEVER: Final = 2**63 - 1  # an offset that no record has

_CHUNK: Final = 1 << 20  # bytes read at a time past the recovery point
_HOP: Final = 1 << 13  # and below it
_LENGTH: Final = Struct(">i")


class Recovery(NamedTuple):
    """What had to be read and repaired at load."""

    segments: int = 0
    bytes: int = 0  # of batches past the recovery point
    cut_bytes: int = 0  # but for reserved space


class Loaded(NamedTuple):
    """A log, ready to be used."""

    log: Log
    recovery: Recovery


class _Loader:
    """One load of one partition's directory."""

    def __init__(
        self,
        topic_partition: TopicPartition,
        directory: str,
        config: TopicConfig,
        fs: FileSystem,
        clock: Clock,
        open_files: OpenFiles,
        producers: ProducerStateManager,
    ) -> None:
        self.topic_partition = topic_partition
        self.directory = directory
        self.config = config
        self.fs = fs
        self.open_files = open_files
        self.producers = producers
        self.now_ms = clock.wall_ms()
        self.names = set(fs.listdir(directory))
        self.epochs = LeaderEpochCache(os.path.join(directory, LEADER_EPOCHS))
        self.epochs_lost = False
        self.recovery = SegmentRecovery(fs, producers, self.epochs)

    def path(self, name: str) -> str:
        return os.path.join(self.directory, name)

    def remove(self, name: str) -> None:
        if name in self.names:
            self.fs.unlink(self.path(name), missing_ok=True)
            self.names.discard(name)

    # -- leftovers ----------------------------------------------------------------------------

    def clear_leftovers(self) -> list[int]:
        """Remove what interrupted work left; return base offsets of complete ``.log.swap``."""
        cleaned: list[int] = []
        swaps: list[tuple[int, str]] = []
        for name in sorted(self.names):
            stem, suffix = split_suffix(name)
            found = parse_segment_file(stem)
            if suffix == DELETED_SUFFIX or suffix == ".tmp":
                self.remove(name)
            elif found is None:
                continue
            elif suffix == CLEANED_SUFFIX:
                cleaned.append(found[0])
            elif suffix == SWAP_SUFFIX:
                swaps.append(found)
        # A .swap with a .cleaned beside it is not valid yet, and what it is made from is whole.
        first_cleaned = min(cleaned, default=NEVER)
        swaps = [found for found in swaps if found[0] < first_cleaned]
        valid = [base for base, suffix in swaps if suffix == LOG_SUFFIX]
        self.drop_indexes({base for base, _ in swaps})
        for name in sorted(self.names):
            stem, suffix = split_suffix(name)
            found = parse_segment_file(stem)
            if found and (
                suffix == CLEANED_SUFFIX or (suffix == SWAP_SUFFIX and found[0] not in valid)
            ):
                self.remove(name)
        return valid

    def drop_indexes(self, bases: Collection[int]) -> None:
        """Remove index files, the offset index first: while that is missing, a transaction index
        that is missing too is not taken for one without entries."""
        names = [segment_file(base, INDEX_SUFFIX) for base in bases]
        if not self.names.isdisjoint(names):
            for name in names:
                self.remove(name)
            self.fs.sync_dir(self.directory)
        for base in bases:
            self.remove(segment_file(base, TIME_INDEX_SUFFIX))
            self.remove(segment_file(base, TXN_INDEX_SUFFIX))

    def save_indexes(self, segment: Segment) -> None:
        """Write indexes that no later flush writes: on disk, the offset index last."""
        if segment.max_timestamp >= 0:
            segment.time_index.maybe_append(segment.max_timestamp, segment.max_timestamp_offset)
        segment.time_index.write_out()
        segment.txn_index.write_out()
        for file in segment.index_files():
            self.fs.fdatasync(file)
        self.fs.sync_dir(self.directory)
        segment.write_indexes()
        segment.offset_index.sync()
        self.fs.sync_dir(self.directory)

    # -- segments -----------------------------------------------------------------------------

    def segment(self, base_offset: int, suffix: str = "") -> Segment:
        """Stand for a segment of which there is a ``.log`` file."""
        config = self.config
        segment = Segment(
            self.fs,
            self.directory,
            base_offset,
            self.open_files,
            created_ms=self.now_ms,
            index_interval=config.index_interval_bytes,
            index_bytes=config.segment_index_bytes,
        )
        if suffix:
            segment.set_suffix(suffix)
        stat = self.fs.stat(segment.path)
        assert stat is not None
        segment.size = stat.size
        return segment

    def load_segments(self) -> Segments:
        """Open all segments; those whose indexes are missing or impossible are recovered."""
        files = [found for found in map(parse_segment_file, self.names) if found]
        bases = sorted(base for base, suffix in files if suffix == LOG_SUFFIX)
        for base, suffix in files:
            if suffix in INDEX_SUFFIXES and base not in bases:
                self.remove(segment_file(base, suffix))
        return Segments(map(self.segment, bases))

    def check_indexes(self, segments: Segments, below: int) -> None:
        """Rebuild the indexes of segments that begin below an offset, where a file is missing or
        cannot be one. Nothing is wrong with the records then: checksums are not looked at."""
        for segment in [*segments]:
            if segment.base_offset >= below:
                break
            if not segment.size:
                segment.reset_indexes()
                segment.txn_index.reset()
                continue
            try:
                if segment_file(segment.base_offset, INDEX_SUFFIX) not in self.names:
                    raise CorruptIndex("the offset index is missing")
                segment.offset_index.sanity_check()
                if segment_file(segment.base_offset, TIME_INDEX_SUFFIX) not in self.names:
                    raise CorruptIndex("the time index is missing")
                segment.time_index.sanity_check()
                if segment_file(segment.base_offset, TXN_INDEX_SUFFIX) in self.names:
                    segment.txn_index.sanity_check()
            except CorruptIndex as error:
                log.warning(
                    "Indexes are rebuilt: %s partition=%s segment=%d",
                    error,
                    self.topic_partition,
                    segment.base_offset,
                )
                self.recover_from(segments, segment, NEVER, only=True)

    def complete_swaps(self, segments: Segments, swaps: list[int]) -> Segments:
        """Put complete replacements in the place of the segments they replace."""
        kept = [*segments]
        for base in swaps:
            swap = self.segment(base, SWAP_SUFFIX)
            self.replay_to(Segments(kept) if kept else None, base)
            cut = self.recovery.recover(swap, 0)
            self.tell(swap, cut, 0)
            next_offset = swap.read_end()[0]
            replaced = [
                segment
                for segment in kept
                if segment.base_offset == base  # all its records may be gone from the swap
                or (
                    segment.base_offset < next_offset
                    and (segment.base_offset > base or segment.read_end()[0] > base)
                )
            ]
            if cut is not None and replaced:
                self.discard(swap)  # what it was made from is still there
                continue
            for segment in replaced:
                self.discard(segment)
                kept.remove(segment)
            # This syncs the directory: what is discarded must not come back beside the new one.
            self.save_indexes(swap)
            swap.rename("")
            kept.append(swap)
            log.info(
                "Compacted segment put in place partition=%s segment=%d",
                self.topic_partition,
                base,
            )
        return Segments(kept)

    def discard(self, segment: Segment) -> None:
        segment.release()
        for path in segment.paths():
            self.fs.unlink(path, missing_ok=True)

    # -- recovery -----------------------------------------------------------------------------

    def recover_from(
        self, segments: Segments, first: Segment, recovery_point: int, *, only: bool = False
    ) -> None:
        """Recover ``first`` and, unless ``only``, all later segments.

        Nothing follows a segment that had to be cut: later ones are deleted.
        """
        self.replay_to(segments, first.base_offset)
        if only:
            self.drop_indexes([first.base_offset])
        else:
            # The file may be older than a truncation; what is right of it is found again.
            self.epochs.truncate_from_end(first.base_offset)
        for segment in segments.reaching(first.base_offset):
            following = None if only else segments.after(segment)
            cut = self.recovery.recover(segment, recovery_point)
            if only:
                self.save_indexes(segment)
            else:
                segment.write_indexes()
                self.producers.take_snapshot()
            if cut is None and following is not None and self.is_torn(following):
                cut = Cut(segment.size, self.producers.end_offset, 0, "its end is missing")
            lost = 0
            if cut is not None and not only:
                lost = len(gone := segments.remove_from(segment.base_offset + 1))
                for later in reversed(gone):  # a crash in between leaves no gap
                    self.recovery.note_lost(later)
                    self.discard(later)
            self.tell(segment, cut, lost)
            if only or lost:
                break
        segments.recount()

    def is_torn(self, following: Segment) -> bool:
        """Whether records are missing between those read and the next segment.

        Segments are synced in order, so all that follows is newer than what anybody was promised.
        Compaction makes such gaps, too: then nothing can be told.
        """
        return (
            following.base_offset > self.producers.end_offset
            and self.recovery.is_dense
            and not self.config.compact
        )

    def replay_to(self, segments: Segments | None, offset: int) -> None:
        """Have the producers' state as of ``offset``, the start of a segment to be recovered."""
        if segments is None:
            self.producers.end_offset = offset
        elif self.producers.end_offset != offset or not offset:
            start = segments.first.base_offset
            rebuild_producers(self.producers, segments, min(start, offset), offset, self.now_ms)

    def tell(self, segment: Segment, cut: Cut | None, lost_segments: int) -> None:
        if cut is not None:
            log.warning(
                "Log cut where it is damaged: %s partition=%s file=%s position=%d offset=%d "
                "bytes=%d later_segments_deleted=%d",
                cut.reason,
                self.topic_partition,
                segment.path,
                cut.position,
                cut.offset,
                cut.bytes,
                lost_segments,
            )

    # -- leader epochs ------------------------------------------------------------------------

    def load_epochs(self) -> None:
        if LEADER_EPOCHS not in self.names:
            return
        try:
            self.epochs = LeaderEpochCache.load(self.fs, self.epochs.path)
            self.recovery = SegmentRecovery(self.fs, self.producers, self.epochs)
        except CorruptCheckpoint as error:
            log.warning(
                "Leader epochs are found out again from the records: %s partition=%s",
                error,
                self.topic_partition,
            )
            self.epochs_lost = True

    def find_epochs(self, segments: Segments) -> None:
        for segment in segments:
            for batch in segment.batches():
                header = batch.header
                if header is not None and header.leader_epoch > self.epochs.latest_epoch:
                    self.epochs.assign(header.leader_epoch, batch.base_offset)


def load_log(
    topic_partition: TopicPartition,
    directory: str,
    config: TopicConfig,
    *,
    fs: FileSystem,
    clock: Clock,
    rng: random.Random,
    open_files: OpenFiles,
    producer_expiration_ms: int,
    accept_unknown_producers: bool = False,
    log_start_offset: int = 0,
    recovery_point: int = 0,
    clean: bool = True,
    topic_id: bytes = ZERO_TOPIC_ID,
) -> Loaded:
    """Load the log in ``directory`` (which is made when missing), or begin a new one there.

    ``log_start_offset`` and ``recovery_point`` are the checkpointed ones; ``clean`` says that
    there was a clean-shutdown marker. ``topic_id`` is written down for a log that has none.
    *Blocks.* Raises OSError.
    """
    fs.mkdir(directory)
    producers = ProducerStateManager(
        fs,
        directory,
        str(topic_partition),
        expiration_ms=producer_expiration_ms,
        accept_unknown=accept_unknown_producers,
    )
    loader = _Loader(topic_partition, directory, config, fs, clock, open_files, producers)
    swaps = loader.clear_leftovers()
    loader.load_epochs()
    segments = loader.load_segments()
    doubtful = NEVER
    # Where a segment begins at the recovery point, the end of the one before it may be in doubt:
    # its records are on disk, but not that it was cut to them, nor its indexes.
    last_flushed = max(recovery_point - 1, 0)
    if len(segments) and not clean:
        doubtful = segments.floor(last_flushed).base_offset
    if swaps:
        segments = loader.complete_swaps(segments, swaps)
    loader.check_indexes(segments, doubtful)
    if len(segments) and not clean:
        loader.recover_from(segments, segments.floor(last_flushed), recovery_point)
    begins_anew = False
    end_offset = _find_end(loader, segments) if len(segments) else log_start_offset
    if len(segments) and end_offset < log_start_offset:
        log.warning(
            "The log ends before its start and begins anew partition=%s log_end_offset=%d "
            "log_start_offset=%d",
            topic_partition,
            end_offset,
            log_start_offset,
        )
        for segment in segments:
            loader.discard(segment)
        segments, end_offset = Segments(()), log_start_offset
    if not len(segments):
        first = Segment(
            fs,
            directory,
            end_offset,
            open_files,
            created_ms=loader.now_ms,
            index_bytes=config.segment_index_bytes,
        )
        first.begin()
        if end_offset > 0:
            first.create()  # its name is what remembers where the log begins anew
            begins_anew = True
        segments.add(first)
    start_offset = max(log_start_offset, segments.first.base_offset)
    if loader.epochs_lost:
        loader.find_epochs(segments)
    loader.epochs.truncate_from_end(end_offset)
    loader.epochs.truncate_from_start(start_offset)
    _load_producers(loader, segments, start_offset, end_offset, clean)
    found_id = ZERO_TOPIC_ID
    if PARTITION_METADATA in loader.names:
        found_id = read_topic_id(fs, directory)
    if found_id == ZERO_TOPIC_ID and topic_id != ZERO_TOPIC_ID:
        found_id = topic_id
        if segments.first.exists:
            write_topic_id(fs, directory, topic_id)
    result = Log(
        topic_partition,
        directory,
        config,
        fs=fs,
        clock=clock,
        rng=rng,
        open_files=open_files,
        segments=segments,
        leader_epochs=loader.epochs,
        producers=producers,
        log_start_offset=start_offset,
        log_end_offset=end_offset,
        recovery_point=end_offset if clean else min(max(recovery_point, start_offset), end_offset),
        topic_id=found_id,
        new_names=not clean or not any(name.endswith(LOG_SUFFIX) for name in loader.names),
    )
    recovered = loader.recovery.recovered
    if not clean or begins_anew or recovered:
        # What was found may still be in memory only: it has to be on disk to be vouched for. So
        # does that nothing was: segments that a truncation has just removed, even if the broker
        # died of it, would come back at a power loss in the place of those that are written now.
        result.must_sync(min(recovered, default=end_offset), new_names=True)
        try:
            job = result.begin_flush()
        except KafkaError as error:
            raise OSError(errno.EIO, str(error)) from error
        job.run()
        if job.error is not None:
            raise job.error
        result.finish_flush(job)
    for segment in segments:
        segment.release()
    return Loaded(
        result,
        Recovery(len(recovered), loader.recovery.bytes, loader.recovery.cut_bytes),
    )


def _find_end(loader: _Loader, segments: Segments) -> int:
    """One past the last offset. A last segment that cannot be walked is recovered."""
    last = segments.last
    if last.base_offset not in loader.recovery.recovered and last.size:
        try:
            end, size = last.read_end()
            if size == last.size:
                return end
        except KafkaError:
            pass  # recovery says what is wrong with it
        loader.recover_from(segments, last, last.base_offset)
    return last.read_end()[0]


def _load_producers(
    loader: _Loader, segments: Segments, start_offset: int, end_offset: int, clean: bool
) -> None:
    producers = loader.producers
    names = loader.names
    if not loader.recovery.recovered and not any(name.endswith(SNAPSHOT_SUFFIX) for name in names):
        if start_offset == end_offset or not segments.size:
            producers.end_offset = end_offset
            return
        if clean and LEADER_EPOCHS not in names:
            # Written by a version without snapshots, or a log copied here without them. Where
            # there are leader epochs they were lost with the power.
            producers.write_empty_snapshot(end_offset)
    if rebuild_producers(producers, segments, start_offset, end_offset, loader.now_ms):
        producers.take_snapshot()
