"""``kavka dump-log``: what is in the files of a data directory, as Kafka's DumpLogSegments says it.

Where it differs from Kafka 4.x's tool:

* checkpoint files, which that one does not know, are shown too
* control characters in keys, values and header keys are escapes, so that a record is a line
* a file that cannot be read is told in one sentence, and the others are shown all the same;
  Kafka's ends with a stack trace. Zeros behind the records (space that an active segment has
  reserved) are "invalid bytes" here and a stack trace there
* records of formats 0 and 1 have no ``isValid`` and ``crc`` of their own: those of their batch
  stand in the line before
* the first offset of a log never counts as a jump; with Kafka's it does when it is not 0
* a batch that compaction has emptied keeps its timestamp, which Kafka's calls a mismatch
* an index of nothing but unused space is empty here, and has an entry of zeros there
* records of the later group protocols and of KRaft's metadata are not decoded
"""

import os
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from kavka.protocol.errors import KafkaError
from kavka.protocol.records.batch import MAX_SEQUENCE, NO_TIMESTAMP
from kavka.storage import checkpoints
from kavka.storage.checkpoints import CorruptCheckpoint
from kavka.storage.fs import FileSystem
from kavka.storage.index import CorruptIndex, OffsetIndex, TimeIndex
from kavka.storage.inspect.batches import LogReader
from kavka.storage.inspect.dump_log import Jump, LogDump, LogOptions, optional_long
from kavka.storage.names import (
    INDEX_SUFFIX,
    LOG_SUFFIX,
    SNAPSHOT_SUFFIX,
    TIME_INDEX_SUFFIX,
    TXN_INDEX_SUFFIX,
    segment_file,
    split_suffix,
)
from kavka.storage.producer_entry import ProducerEntry
from kavka.storage.snapshots import CorruptSnapshot, decode_snapshot
from kavka.storage.txn_index import TransactionIndex

_RAFT_SNAPSHOT_SUFFIX: Final = ".checkpoint"  # a log of its own, in KRaft's directories
_OFFSET_CHECKPOINTS: Final = frozenset(
    {
        checkpoints.RECOVERY_POINTS,
        checkpoints.LOG_START_OFFSETS,
        checkpoints.HIGH_WATERMARKS,
        checkpoints.CLEANER_OFFSETS,
    }
)


class Options(NamedTuple):
    """What is shown."""

    log: LogOptions = LogOptions()
    index_sanity_only: bool = False  # of an index, whether a broker would rebuild it at start
    verify_index_only: bool = False  # of an index, only what is wrong


class Mismatch(NamedTuple):
    """What an index says, and what the log has there."""

    indexed: int
    found: int


class Dumper:
    """Shows files one after the other.

    Lines go to ``write``, what is wrong to ``complain``. ``failed`` says that a file could not be
    read to its end.
    """

    def __init__(
        self,
        fs: FileSystem,
        options: Options,
        write: Callable[[str], None],
        complain: Callable[[str], None],
    ) -> None:
        self._fs = fs
        self._options = options
        self._write = write
        self._complain = complain
        self.failed = False
        self._jumps: dict[str, list[Jump]] = {}
        self._offsets: dict[str, list[Mismatch]] = {}
        self._timestamps: dict[str, list[Mismatch]] = {}
        self._disorder: dict[str, list[Mismatch]] = {}
        self._not_found: list[Mismatch] = []

    def dump(self, path: str) -> None:
        """Show one file, by the kind that its name tells."""
        name = os.path.basename(path)
        known = self._kind(name)
        self._write(f"Dumping {path}")
        if known is None:
            self._complain(f"Ignoring unknown file {path}")
            return
        try:
            for line in known(path):
                self._write(line)
        except BrokenPipeError:  # of ``write``
            raise
        except OSError as error:
            self._fail(f"{path} cannot be read: {error.strerror}")
        except (CorruptIndex, CorruptSnapshot, CorruptCheckpoint, KafkaError) as error:
            text = str(error)
            self._fail(text if path in text else f"{path}: {text}")

    def finish(self) -> None:
        """Tell what did not fit together in the files shown."""
        for path, pairs in self._offsets.items():
            self._complain(f"Mismatches in :{path}")
            for pair in pairs:
                self._complain(f"  Index offset: {pair.indexed}, log offset: {pair.found}")
        for path, pairs in self._timestamps.items():
            self._complain(f"Found timestamp mismatch in :{path}")
            for pair in pairs:
                self._complain(f"  Index timestamp: {pair.indexed}, log timestamp: {pair.found}")
        for path, pairs in self._disorder.items():
            self._complain(f"Found out of order timestamp in :{path}")
            for pair in pairs:
                self._complain(
                    f"  Index timestamp: {pair.indexed}, Previously indexed timestamp: {pair.found}"
                )
        if self._not_found:
            self._complain("The following indexed offsets are not found in the log.")
            for pair in self._not_found:
                self._complain(f"Indexed offset: {pair.indexed}, found log offset: {pair.found}")
        for path, jumps in self._jumps.items():
            self._complain(f"Non-consecutive offsets in {path}")
            for jump in jumps:
                self._complain(f"  {jump.offset} is followed by {jump.followed_by}")

    def _fail(self, sentence: str) -> None:
        self.failed = True
        self._complain(sentence)

    def _kind(self, name: str) -> Callable[[str], Iterator[str]] | None:
        if name in _OFFSET_CHECKPOINTS:
            return self._offset_checkpoint
        if name == checkpoints.LEADER_EPOCHS:
            return self._leader_epochs
        return {
            LOG_SUFFIX: self._log,
            _RAFT_SNAPSHOT_SUFFIX: self._log,
            INDEX_SUFFIX: self._offset_index,
            TIME_INDEX_SUFFIX: self._time_index,
            TXN_INDEX_SUFFIX: self._transaction_index,
            SNAPSHOT_SUFFIX: self._snapshot,
        }.get(split_suffix(name)[1])

    # -- logs ---------------------------------------------------------------------------------

    def _log(self, path: str) -> Iterator[str]:
        if path.endswith(LOG_SUFFIX):
            yield f"Log starting offset: {_base_offset(path)}"
        with LogReader(self._fs, path) as reader:
            dump = LogDump(reader, self._options.log, self._complain)
            yield from dump.lines()
        self.failed |= dump.damaged
        if dump.jumps:
            self._jumps[os.path.abspath(path)] = dump.jumps

    # -- indexes ------------------------------------------------------------------------------

    def _offset_index(self, path: str) -> Iterator[str]:
        base = _base_offset(path)
        index = OffsetIndex(self._fs, path, base)
        if self._fs.stat(path) is not None and not len(index):
            yield f"{path} is empty."
            return
        if self._options.index_sanity_only:
            index.sanity_check()
            yield f"{path} passed sanity check."
            return
        with LogReader(self._fs, _log_beside(path)) as log:
            for number, entry in enumerate(index.entries()):
                if number and entry.offset == base:
                    return  # unused space
                batch = log.batch_at(entry.position)
                found = -1 if batch is None else batch.last_offset
                if found != entry.offset:
                    _note(self._offsets, path, Mismatch(entry.offset, found))
                if not self._options.verify_index_only:
                    yield f"offset: {entry.offset} position: {entry.position}"

    def _time_index(self, path: str) -> Iterator[str]:
        base = _base_offset(path)
        index = TimeIndex(self._fs, path, base)
        if self._options.index_sanity_only:
            index.sanity_check()
            yield f"{path} passed sanity check."
            return
        offsets = OffsetIndex(self._fs, _index_beside(path), base)
        previous = NO_TIMESTAMP
        with LogReader(self._fs, _log_beside(path)) as log:
            for number, entry in enumerate(index.entries()):
                if number and entry.offset == base:
                    return
                position = offsets.position_for(entry.offset)
                found = -1
                for batch in log.batches(position):
                    if batch.last_offset >= entry.offset:
                        found = batch.last_offset
                        break
                if found != entry.offset:
                    self._not_found.append(Mismatch(entry.offset, found))
                else:
                    if batch.max_timestamp != entry.timestamp:
                        _note(
                            self._timestamps, path, Mismatch(entry.timestamp, batch.max_timestamp)
                        )
                    if previous >= entry.timestamp:
                        _note(self._disorder, path, Mismatch(entry.timestamp, previous))
                if not self._options.verify_index_only:
                    yield f"timestamp: {entry.timestamp} offset: {entry.offset}"
                previous = entry.timestamp

    def _transaction_index(self, path: str) -> Iterator[str]:
        self._fs.open(path).close()  # the index takes a missing file for an empty one
        for entry in TransactionIndex(self._fs, path, _base_offset(path)).entries():
            yield (
                f"version: 0 producerId: {entry.producer_id} firstOffset: {entry.first_offset} "
                f"lastOffset: {entry.last_offset} lastStableOffset: {entry.last_stable_offset}"
            )

    # -- the rest -----------------------------------------------------------------------------

    def _snapshot(self, path: str) -> Iterator[str]:
        yield from map(_producer_line, decode_snapshot(self._fs.read_bytes(path)))

    def _offset_checkpoint(self, path: str) -> Iterator[str]:
        found = checkpoints.decode_offsets(self._fs.read_bytes(path), path)
        for (topic, partition), offset in found.items():
            yield f"topic: {topic} partition: {partition} offset: {offset}"

    def _leader_epochs(self, path: str) -> Iterator[str]:
        for entry in checkpoints.decode_epochs(self._fs.read_bytes(path), path):
            yield f"leaderEpoch: {entry.epoch} startOffset: {entry.start_offset}"


def _producer_line(entry: ProducerEntry) -> str:
    transaction = optional_long(entry.txn_first_offset if entry.txn_first_offset >= 0 else None)
    text = (
        f"producerId: {entry.producer_id} producerEpoch: {entry.epoch} "
        f"coordinatorEpoch: {entry.coordinator_epoch} currentTxnFirstOffset: {transaction} "
        f"lastTimestamp: {entry.last_timestamp} "
    )
    if entry.batches:
        batch = entry.batches[-1]
        first = batch.last_sequence - batch.offset_delta
        if batch.last_sequence < batch.offset_delta:  # as Kafka counts back, also from none
            first = MAX_SEQUENCE - (batch.offset_delta - batch.last_sequence) + 1
        text += (
            f"firstSequence: {first} lastSequence: {batch.last_sequence} "
            f"lastOffset: {batch.last_offset} offsetDelta: {batch.offset_delta} "
            f"timestamp: {batch.timestamp}"
        )
    return text


def _note(into: dict[str, list[Mismatch]], path: str, pair: Mismatch) -> None:
    into.setdefault(os.path.abspath(path), []).append(pair)


def _base_offset(path: str) -> int:
    stem = os.path.basename(path).partition(".")[0]
    if not (stem.isascii() and stem.isdigit()):
        raise CorruptIndex(f"{path} is not named after its first offset")
    return int(stem)


def _log_beside(path: str) -> str:
    return os.path.join(os.path.dirname(path), segment_file(_base_offset(path), LOG_SUFFIX))


def _index_beside(path: str) -> str:
    return os.path.join(os.path.dirname(path), segment_file(_base_offset(path), INDEX_SUFFIX))
