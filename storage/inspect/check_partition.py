"""One partition's directory: its segments from front to back, and what stands beside them."""

import os
from typing import Final, NamedTuple

from kavka.protocol.errors import KafkaError
from kavka.protocol.records.batch import CREATE_TIME, BatchHeader
from kavka.protocol.records.control import ControlType, parse_control_record
from kavka.storage import checkpoints
from kavka.storage.checkpoints import CorruptCheckpoint
from kavka.storage.epochs import LeaderEpochCache
from kavka.storage.fs import FileSystem
from kavka.storage.inspect.batches import Batch, LogReader
from kavka.storage.inspect.check_indexes import SegmentIndexes
from kavka.storage.inspect.check_producers import ProducerTracker
from kavka.storage.inspect.findings import Report
from kavka.storage.names import (
    INDEX_SUFFIXES,
    LOG_SUFFIX,
    SNAPSHOT_SUFFIX,
    SWAP_SUFFIX,
    parse_segment_file,
    segment_file,
    split_suffix,
)
from kavka.storage.segment import MAX_RELATIVE_OFFSET
from kavka.storage.snapshots import CorruptSnapshot, decode_snapshot

_CONTROL_BATCH_MAX: Final = 1 << 16  # bytes; no marker is near it


class Doubt(NamedTuple):
    """What of a partition nobody vouches for: after a crash, everything from the recovery point.

    There the next start rebuilds indexes and cuts off what is not whole.
    """

    offset: int  # from here on; larger than any when the directory was left in good order

    def covers(self, offset: int) -> bool:
        return offset >= self.offset


class Extent(NamedTuple):
    """Where a log begins and ends."""

    start_offset: int
    end_offset: int


class PartitionCheck:
    """A check of one partition. ``name`` is its directory's, below the log directory."""

    def __init__(
        self,
        fs: FileSystem,
        directory: str,
        name: str,
        report: Report,
        *,
        doubt: Doubt,
        log_start_offset: int = 0,
        compacted: bool = False,
        deep: bool = False,
    ) -> None:
        self._fs = fs
        self._directory = directory
        self._name = name
        self._report = report
        self._doubt = doubt
        self._log_start = log_start_offset
        self._compacted = compacted  # known to be; gaps between offsets are in order then
        self._deep = deep
        self._producers = ProducerTracker(log_start_offset)
        self._expected: int | None = None  # the offset that comes next
        self._damaged = False  # so that what follows from that is not told again
        self._epoch = -1
        self._epochs: LeaderEpochCache | None = None
        self._snapshots: list[int] = []  # offsets of those still to be met
        # What is in order where compaction removed records, but not elsewhere: file, offset, what.
        self._unless_compacted: list[tuple[str, int | None, str]] = []

    def run(self) -> Extent:
        """Check everything; where the log begins and ends. Raises OSError."""
        report = self._report
        report.partitions += 1
        names = self._fs.listdir(self._directory)
        files = [found for found in map(parse_segment_file, names) if found]
        bases = sorted(base for base, suffix in files if suffix == LOG_SUFFIX)
        swapping = any(split_suffix(name)[1] == SWAP_SUFFIX for name in names)
        if swapping:
            report.note(self._name, None, "a compaction was interrupted; the next start ends it")
            self._doubt = Doubt(0)
            self._compacted = True
        if bases:
            self._log_start = self._producers.log_start_offset = max(self._log_start, bases[0])
        self._epochs = self._load_epochs()
        self._snapshots = sorted(base for base, suffix in files if suffix == SNAPSHOT_SUFFIX)
        for base, suffix in files:
            if suffix in INDEX_SUFFIXES and base not in bases:
                self._orphan(segment_file(base, suffix))
        for number, base in enumerate(bases):
            following = bases[number + 1] if number + 1 < len(bases) else None
            self._segment(base, following)
        end = self._log_start if self._expected is None else self._expected
        self._meet_snapshots(end, last=True)
        for offset in self._snapshots:
            self._wrong(
                segment_file(offset, SNAPSHOT_SUFFIX), offset, f"the log ends before it, at {end}"
            )
        if not self._compacted and not self._damaged:
            for file, at, what in self._unless_compacted:
                report.problem(file, at, what)
        self._check_last_epoch(end)
        return Extent(self._log_start, end)

    # -- where findings go --------------------------------------------------------------------

    def _path(self, name: str) -> str:
        return os.path.join(self._directory, name)

    def _file(self, name: str) -> str:
        return os.path.join(self._name, name)

    def _wrong(self, name: str, offset: int, what: str) -> None:
        """A problem, unless the next start looks after what is at ``offset`` anyway."""
        tell = self._report.note if self._doubt.covers(offset) else self._report.problem
        tell(self._file(name), None, what)

    def _orphan(self, name: str) -> None:
        tell = self._report.note if self._doubt.covers(0) else self._report.problem
        tell(self._file(name), None, "there is no log beside it")

    # -- segments -----------------------------------------------------------------------------

    def _segment(self, base: int, following: int | None) -> None:
        """Walk over one segment; ``following`` is where the next one begins."""
        report = self._report
        report.segments += 1
        name = segment_file(base, LOG_SUFFIX)
        file = self._file(name)
        if self._expected is not None:
            if base < self._expected:
                report.problem(file, base, f"the segment before it ends at {self._expected}")
            elif base > self._expected:
                missing = f"records {self._expected} to {base - 1} are missing"
                self._unless_compacted.append((file, self._expected, missing))
        self._meet_snapshots(base)
        self._expected = max(base, self._expected or 0)
        doubtful = self._doubt.covers(2**63 - 1 if following is None else following - 1)
        with LogReader(self._fs, self._path(name)) as log:
            report.bytes += log.size
            indexes = None
            if not doubtful:
                indexes = SegmentIndexes.open(
                    self._fs, self._directory, self._name, base, self._report, log.size > 0
                )
            sound = self._walk(log, file, base, indexes, last=following is None)
            if log.end < log.size:
                self._tail(log, file, last=following is None)
            elif indexes is not None and sound:
                indexes.end(self._expected)

    def _walk(
        self, log: LogReader, file: str, base: int, indexes: SegmentIndexes | None, *, last: bool
    ) -> bool:
        """Check all batches of a segment; whether they are sound, so that indexes can be."""
        sound = True
        for batch in log.batches():
            self._report.batches += 1
            if not log.checksum_ok(batch):
                doubtful = last and self._doubt.covers(batch.base_offset)
                if doubtful and self._nothing_behind(log, batch):
                    self._report.note(
                        file,
                        batch.base_offset,
                        f"the last batch, at position {batch.position}, is not whole; the next "
                        "start cuts it off",
                    )
                    log.end = log.size
                    return False
                self._report.problem(
                    file,
                    batch.base_offset,
                    f"the checksum of the batch at position {batch.position} does not match",
                )
                self._pass_damaged(batch)
                sound = False
            elif not self._order(batch, file, base):
                self._damaged = True
                sound = False
            else:
                self._meet_snapshots(batch.base_offset)
                self._expected = batch.last_offset + 1
                if self._deep:
                    self._records(log, batch, file)
                aborts = batch.header is not None and self._follow(
                    log, batch, batch.header, file, indexes
                )
                if indexes is not None and sound:
                    indexes.batch(batch, aborts=aborts)
        return sound

    def _pass_damaged(self, batch: Batch) -> None:
        """Go on behind a damaged batch, by its header as far as that makes sense."""
        assert self._expected is not None
        self._damaged = True
        header = batch.header
        if batch.base_offset == self._expected and (
            header is None or header.last_offset_delta + 1 == header.records_count > 0
        ):
            self._expected = batch.last_offset + 1

    def _order(self, batch: Batch, file: str, base: int) -> bool:
        """Whether a batch can come next."""
        expected = self._expected
        assert expected is not None
        what = ""
        if batch.last_offset < batch.base_offset:
            what = f"a batch ends with offset {batch.last_offset}, before it begins"
        elif batch.base_offset < expected:
            what = f"a batch begins at offset {batch.base_offset}, but {expected} comes next"
        elif batch.last_offset - base > MAX_RELATIVE_OFFSET:
            what = f"offset {batch.last_offset} is too large for the segment"
        elif batch.header is not None and not (
            0 <= batch.header.records_count <= batch.header.last_offset_delta + 1
        ):
            what = f"a batch of {batch.header.records_count} records cannot end where it does"
        if what:
            self._report.problem(file, batch.base_offset, f"{what} (position {batch.position})")
        elif batch.base_offset > expected and batch.magic == 2 and not self._damaged:
            self._compacted = True  # or copied from a log that is
        return not what

    def _tail(self, log: LogReader, file: str, *, last: bool) -> None:
        """What is behind the last batch."""
        assert self._expected is not None
        rest = log.size - log.end
        expected = self._doubt.covers(self._expected)
        if log.only_zeros(log.end):
            if last or expected:
                self._report.note(file, None, f"{rest} bytes are reserved behind the last batch")
            else:
                self._report.problem(
                    file, None, f"{rest} bytes behind the last batch are zero (position {log.end})"
                )
        elif expected and last:
            self._report.note(
                file,
                self._expected,
                f"{rest} bytes at position {log.end} are not a whole batch ({log.reason}); the "
                "next start cuts them off",
            )
        else:
            self._report.problem(
                file,
                self._expected,
                f"nothing can be read from position {log.end} on, {rest} bytes: {log.reason}",
            )
            self._damaged = True

    def _nothing_behind(self, log: LogReader, batch: Batch) -> bool:
        """Whether a damaged batch is the last one: what a crash leaves behind."""
        following = log.batch_at(batch.position + batch.size)
        return following is None or not log.checksum_ok(following)

    def _records(self, log: LogReader, batch: Batch, file: str) -> None:
        """Decode every record and hold it against the batch's header."""
        previous = batch.base_offset - 1
        try:
            for record in log.records(batch):
                what = ""
                if batch.magic == 2 and not previous < record.offset <= batch.last_offset:
                    what = "its offset cannot be where it is"
                elif batch.timestamp_type == CREATE_TIME and record.timestamp > batch.max_timestamp:
                    what = f"its timestamp {record.timestamp} is larger than its batch's"
                if what and batch.magic:
                    self._report.problem(file, record.offset, f"a record is wrong: {what}")
                previous = record.offset
        except KafkaError as error:
            self._report.problem(
                file,
                batch.base_offset,
                f"the records of the batch at position {batch.position} cannot be read: {error}",
            )

    # -- leader epochs ------------------------------------------------------------------------

    def _load_epochs(self) -> LeaderEpochCache | None:
        """None when the file is there and cannot be understood."""
        path = self._path(checkpoints.LEADER_EPOCHS)
        try:
            return LeaderEpochCache(path, checkpoints.read_epochs(self._fs, path))
        except CorruptCheckpoint as error:
            self._report.problem(
                self._file(checkpoints.LEADER_EPOCHS), None, str(error).removeprefix(f"{path}: ")
            )
            return None

    def _follow_epoch(self, batch: Batch, epoch: int, file: str) -> None:
        """Only where the epoch changes: one line for each, not for each batch."""
        before, self._epoch = self._epoch, epoch
        if epoch < before:
            self._report.problem(
                file, batch.base_offset, f"leader epoch {epoch} comes after {before}"
            )
        elif (
            self._epochs is not None
            and batch.last_offset >= self._log_start
            and not self._doubt.covers(batch.base_offset)
        ):
            offset = max(batch.base_offset, self._log_start)
            known = self._epochs.epoch_for_offset(offset)
            if known != epoch:
                self._report.problem(
                    self._file(checkpoints.LEADER_EPOCHS),
                    offset,
                    f"the leader epoch is {epoch} in the log, "
                    + ("unknown here" if known < 0 else f"but {known} here"),
                )

    def _check_last_epoch(self, end_offset: int) -> None:
        latest = None if self._epochs is None else self._epochs.latest
        if latest is not None and latest.start_offset > end_offset:
            self._wrong(
                checkpoints.LEADER_EPOCHS,
                latest.start_offset,
                f"epoch {latest.epoch} begins at {latest.start_offset}, but the log ends at "
                f"{end_offset}",
            )

    # -- producers ----------------------------------------------------------------------------

    def _follow(
        self,
        log: LogReader,
        batch: Batch,
        header: BatchHeader,
        file: str,
        indexes: SegmentIndexes | None,
    ) -> bool:
        """Take in a good batch; whether it aborts a transaction."""
        if header.leader_epoch >= 0 and header.leader_epoch != self._epoch:
            self._follow_epoch(batch, header.leader_epoch, file)
        if not header.has_producer_id:
            return False
        if not header.is_control:
            self._producers.data(header)
            return False
        aborts = self._aborts(log, batch, file)
        if aborts is None:
            return False
        ended = self._producers.marker(header)
        if aborts and indexes is not None:
            indexes.aborted(header.producer_id, ended, batch.last_offset)
        return aborts

    def _aborts(self, log: LogReader, batch: Batch, file: str) -> bool | None:
        """Whether a control batch aborts a transaction; None when it ends none."""
        if batch.size > _CONTROL_BATCH_MAX:
            return None
        try:
            for record in log.records(batch):
                marker = parse_control_record(record.key, record.value)
                return None if marker is None else marker.type is ControlType.ABORT
        except KafkaError as error:
            self._report.problem(
                file, batch.base_offset, f"a control batch cannot be read: {error}"
            )
        return None

    def _meet_snapshots(self, offset: int, *, last: bool = False) -> None:
        """Compare the snapshots up to ``offset`` with what the log said until there.

        Compaction keeps the last batch of each producer. Snapshots of earlier offsets speak of
        batches that may be gone, so that only the one of the log's end can be held against it.
        """
        while self._snapshots and self._snapshots[0] <= offset:
            at = self._snapshots.pop(0)
            name = segment_file(at, SNAPSHOT_SUFFIX)
            try:
                entries = decode_snapshot(self._fs.read_bytes(self._path(name)))
            except CorruptSnapshot as error:
                self._wrong(name, at, str(error))
                continue
            if self._damaged or self._doubt.covers(at):
                continue
            contradictions = self._producers.contradictions(entries)
            if last and at == offset:
                for what in contradictions:
                    self._report.problem(self._file(name), None, what)
            elif not self._compacted and (first := next(contradictions, "")):
                self._unless_compacted.append((self._file(name), None, first))
