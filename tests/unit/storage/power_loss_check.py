"""What must be true of a log after a crash, whatever the crash was."""

from itertools import pairwise
from typing import NamedTuple

from kavka.protocol.records.batch import crc_ok, iter_batches, read_header
from kavka.storage.epochs import LeaderEpochCache
from kavka.storage.log import Log
from kavka.storage.producer_state import ProducerState
from kavka.storage.replay import read_marker
from kavka.storage.txn_index import AbortedTxn
from tests.unit.storage.test_log_model import check_indexes

NEVER_EXPIRE = 1 << 60


class Wrote(NamedTuple):
    """A batch, as it stands in the log."""

    first: int
    next: int
    data: bytes

    @property
    def leader_epoch(self) -> int:
        return read_header(self.data).leader_epoch


class History:
    """What has become of one log since the last time that it was looked at as a whole."""

    def __init__(self, batches: list[Wrote], start: int, end: int, promised: int) -> None:
        self.batches = batches
        self.earlier: list[list[Wrote]] = []  # as they were before a truncation
        self.start = start  # the largest that the log's start may be
        self.end = end
        self.kept = end  # what survives the death of the process
        self.promised = promised  # what survives a power loss
        self.forgotten = 0  # leader epochs below may be
        self.promises_from = 0  # a flush that found nothing to do promises nothing
        self.removed = 0  # whole segments below were, by retention

    def attempt(self, added: list[Wrote]) -> None:
        self.batches += added

    def undo(self, added: list[Wrote]) -> None:
        del self.batches[len(self.batches) - len(added) :]

    def cut(self, offset: int) -> None:
        """Whoever looks from now on may see it as it is, or without what ends past ``offset``."""
        self.earlier.append([*self.batches])
        self.batches = [one for one in self.batches if one.next <= offset]
        self.kept = min(self.kept, self.batches[-1].next if self.batches else 0)
        self.promised = min(self.promised, self.kept)


def check_log(log: Log, history: History, *, any_names: bool = False) -> History:
    """Look at all of a log that has just been loaded; return the history it has from now on.

    It is a part of what was written, or of that before a truncation, whole batches without a gap;
    it has what was promised; and all that is kept beside records agrees with them. ``any_names``
    says that names in a directory survive in any order: then whole segments may be missing that
    nobody was promised. And some that retention removed may come back without those behind them,
    which looks as if the end of one were lost, so that recovery cuts there. (What begins below
    the recovery point on disk is not looked at, so that happens to what is removed within a minute
    only; and no file system that Kafka is run on, ext4 or XFS, forgets names out of order.)
    """
    start, end = log.log_start_offset, log.log_end_offset
    found = read_all(log)
    assert start <= log.high_watermark <= end
    assert start <= history.start or any_names, f"it starts at {start}, not {history.start}"
    if any_names and end <= history.removed:
        history.kept = end
    assert end >= history.kept, f"{end} is the end, but all below {history.kept} is kept"
    for before, after in pairwise(found):
        if before.next != after.first:
            assert before.next <= history.start or any_names, f"a gap before {after.first}"
    visible = [one for one in found if one.next > start]
    if visible:
        assert visible[0].first <= start or any_names, f"a gap at the start {start}"
        assert visible[-1].next == end
    else:
        assert start == end, f"nothing is left, but the log is {start}..{end}"
    written = [history.batches, *history.earlier]
    assert any(set(found) <= set(known) for known in written), (
        f"{log.topic_partition}: what is found was never written so: "
        f"{[one[:2] for one in found]} of {[[one[:2] for one in known] for known in written]}"
    )
    for one in history.batches:
        if start < one.next <= history.kept:
            assert one in found, f"batch {one.first} was promised"
    forgotten = max(history.forgotten, start, history.start)
    _check_epochs(log, found, forgotten)
    _check_producers(log, found)
    check_indexes(log)
    after = History(found, start, end, log.recovery_point)
    after.forgotten = forgotten
    return after


def read_all(log: Log) -> list[Wrote]:
    """All batches in the files, each whole; a consumer sees the same."""
    batches: list[Wrote] = []
    for segment in log.segments:
        if not segment.size:
            continue
        data = memoryview(segment.pread(segment.size, 0))
        end = 0
        for position, size, _ in iter_batches(data):
            header = read_header(data, position)
            end = position + size
            assert crc_ok(data, position, size), f"batch {header.base_offset} is damaged"
            assert header.base_offset >= segment.base_offset
            batches.append(Wrote(header.base_offset, header.next_offset, bytes(data[position:end])))
        assert end == segment.size
    read = bytearray()
    offset = log.log_start_offset
    while offset < log.log_end_offset:
        data = log.read(offset, 5_000, log.log_end_offset).view()
        pieces = [*iter_batches(data)]
        assert pieces, f"nothing can be read at {offset}"
        position, size, _ = pieces[-1]
        read += data[: position + size]
        offset = read_header(data, position).next_offset
    visible = [one.data for one in batches if one.next > log.log_start_offset]
    assert bytes(read) == b"".join(visible)
    return batches


def _check_epochs(log: Log, found: list[Wrote], start: int) -> None:
    """Leader epochs are what the records from ``start`` on say: of those below, which had been
    deleted before the crash, they were forgotten."""
    replayed = LeaderEpochCache("replay")
    for before, after in pairwise(found):
        assert before.leader_epoch <= after.leader_epoch, "leader epochs go back"
    for one in found:
        replayed.assign(one.leader_epoch, one.first)
    replayed.truncate_from_start(start)
    kept = LeaderEpochCache("kept", log.leader_epochs.entries())
    kept.truncate_from_start(start)
    # The leader of now, for one, may have written nothing.
    known, expected = (
        [entry for entry in each.entries() if entry.start_offset < log.log_end_offset]
        for each in (kept, replayed)
    )
    assert known == expected, f"leader epochs {known}, but the log says {expected}"


def _check_producers(log: Log, found: list[Wrote]) -> None:
    """Producers and aborted transactions are what the records say.

    But for what was deleted: who was forgotten with all his records, and came again, has seen no
    marker and no beginning of his transaction; and of others the records that are left do not tell.
    """
    start = log.log_start_offset
    replayed = ProducerState("replay", expiration_ms=NEVER_EXPIRE)
    aborted = []
    for one in found:
        header = read_header(one.data)
        if header.producer_id >= 0:
            marker = read_marker(one.data, header) if header.is_control else None
            completed = replayed.update(header, one.first, header.max_timestamp, marker)
            if completed is not None and completed.aborted:
                aborted.append(AbortedTxn(completed.producer_id, *completed[1:3], completed[4]))
    replayed.end_offset = log.log_end_offset
    replayed.on_log_start(start)
    known = {entry.producer_id: entry for entry in log.producers.entries()}
    for said in replayed.entries():
        mine = known.pop(said.producer_id, None)
        if mine is None and not said.batches:
            continue
        assert mine is not None, f"producer {said.producer_id} is not known"
        assert (mine.epoch, mine.last_sequence, mine.last_offset) == (
            said.epoch,
            said.last_sequence,
            said.last_offset,
        ), (mine, said)
        assert -1 in (epochs := {mine.coordinator_epoch, said.coordinator_epoch}) or len(epochs) < 2
        begun = {mine.txn_first_offset, said.txn_first_offset}
        if len(begun) > 1:
            assert min(offset for offset in begun if offset >= 0) < start, (mine, said)
    for mine in known.values():  # by its marker only, which is deleted by now
        assert not mine.batches and mine.txn_first_offset < 0, mine
    indexed = [entry for segment in log.segments for entry in segment.txn_index.entries()]
    assert all(entry.last_offset < log.log_end_offset for entry in indexed)
    # Of a transaction that began below what is left, only the index knows where.
    whole = max(start, found[0].first if found else start)
    firsts = {(each.producer_id, each.last_offset): each.first_offset for each in indexed}
    for each in aborted:
        first = firsts.pop((each.producer_id, each.last_offset), None)
        if each.first_offset >= start:
            assert first is not None, f"{each} is not in a transaction index"
            assert first == each.first_offset or first < whole, (first, each)
    assert all(first < whole for first in firsts.values()), firsts
