"""What the broker's loop and a cleaning worker tell each other: plain values, nothing shared.

They travel between processes, so they must stay importable and picklable.
"""

import os
import traceback
from typing import Final, NamedTuple

from kavka.storage.fs import is_passing
from kavka.storage.txn_index import AbortedTxn

GO_ON: Final = "go on"
"""The answer to a :class:`CleanedGroup`: it is in its place."""


class Source(NamedTuple):
    """A closed segment, as the log knows it when the job is made."""

    base_offset: int
    size: int  # bytes


class LastOfProducer(NamedTuple):
    """What must stay of an active producer, so that a replay of the log knows it."""

    producer_id: int
    epoch: int
    last_offset: int  # of its last data batch; -1 when the log has only a marker of it


class CleaningJob(NamedTuple):
    """One log to be cleaned once."""

    name: str  # of the partition, for messages
    directory: str
    segments: tuple[Source, ...]  # ascending, all that begin below first_uncleanable
    first_dirty: int  # offset from which on nothing has been cleaned yet
    first_uncleanable: int  # offset at which a segment begins
    later_segments: tuple[int, ...]  # base offsets of closed segments from there on
    active_aborted: tuple[AbortedTxn, ...]  # what only the active segment knows
    producers: tuple[LastOfProducer, ...]
    delete_retention_ms: int
    segment_bytes: int  # bounds of a group, which becomes one segment …
    segment_index_bytes: int  # … by its offset and time index as well
    index_interval_bytes: int
    map_bytes: int  # memory for keys
    map_load: float  # part of it that may be used
    buffer_bytes: int  # read and written at a time
    bytes_per_second: float  # reads and writes together


class CleanedGroup(NamedTuple):
    """Consecutive segments have been rewritten into one; its files end in ``.cleaned``, synced."""

    sources: tuple[int, ...]  # base offsets; the first is the new segment's too
    size: int
    max_timestamp: int
    max_timestamp_offset: int
    first_timestamp: int | None  # largest of the first batch


class CleanedLog(NamedTuple):
    """The job is done."""

    end_offset: int  # all below is clean now
    bytes_read: int  # of the segments rewritten
    bytes_written: int
    records_read: int
    records_kept: int
    keys: int  # in the dirty part
    map_utilization: float
    keyless: int  # records without key, which are dropped


class CleaningAborted(Exception):
    """The owner of the log has called the job off."""


class CleaningFailed(Exception):
    """A worker could not clean; the message says why and where."""

    def __init__(self, message: str, passing: bool = False) -> None:
        super().__init__(message, passing)
        self.passing = passing  # then it is worth another try

    @classmethod
    def of(cls, error: Exception) -> "CleaningFailed":
        """What to tell about ``error``."""
        frame = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{os.path.basename(frame.filename)}:{frame.lineno}"
        passing = isinstance(error, OSError) and is_passing(error)
        return cls(f"{type(error).__name__}: {error} ({place})", passing)

    def __str__(self) -> str:
        return str(self.args[0])


class WorkerDied(CleaningFailed):
    """The helper process ended in the middle of a job, and cannot say why."""
