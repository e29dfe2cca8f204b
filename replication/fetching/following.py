"""One partition that is being followed, and what has to happen before it can be fetched."""

from enum import Enum
from typing import Final

from kavka.protocol.topics import TopicPartition
from kavka.replication.fetching.session import Wanted
from kavka.replication.partition import Partition

FIRST_PAUSE: Final = 0.05  # seconds after a failure; doubled with each further one


class Stage(Enum):
    """Where a partition stands on its way to being fetched."""

    COMPARE = "compare"  # the leader has to tell where our last epoch ends
    COMPARING = "comparing"  # it has been asked
    LOCATE = "locate"  # our end lies outside of the leader's log: where does that begin and end?
    LOCATING = "locating"  # it has been asked
    SETTLE = "settle"  # what was written or cut is being synced to disk
    FETCH = "fetch"
    FAILED = "failed"  # until the controller says something new


class Following:
    """A partition in one leader epoch. A new epoch makes a new one."""

    __slots__ = (
        "failures",
        "first_fetch",
        "leader_end_offset",
        "leader_epoch",
        "not_before",
        "partition",
        "stage",
        "throttled",
        "topic_partition",
        "wanted",
    )

    def __init__(self, partition: Partition, leader_epoch: int) -> None:
        self.partition = partition
        self.topic_partition: TopicPartition = partition.topic_partition
        self.leader_epoch = leader_epoch
        self.stage = Stage.COMPARE
        self.failures = 0  # in a row
        self.first_fetch = 0  # answers to earlier ones are not taken
        self.not_before = 0.0  # monotonic seconds
        self.leader_end_offset = -1  # as far as is known: its high watermark, or what it has sent
        self.throttled = False
        self.wanted: Wanted | None = None  # as asked for last

    @property
    def is_current(self) -> bool:
        """Whether the partition still follows in this epoch."""
        partition = self.partition
        return (
            not partition.deleted
            and not partition.is_leader
            and partition.leader_epoch == self.leader_epoch
        )

    @property
    def is_start_news(self) -> bool:
        """Whether the leader has not been told yet where our log begins."""
        told = self.wanted
        return told is not None and told.log_start_offset != self.partition.log.log_start_offset

    def want(self) -> Wanted:
        """What to ask for now: all from our end on."""
        log = self.partition.log
        want = Wanted(log.log_end_offset, log.log_start_offset, self.leader_epoch)
        self.wanted = want
        return want

    def pause(self, now: float, longest: float) -> None:
        """Leave it alone for a while, longer with each failure in a row."""
        self.failures += 1
        self.not_before = now + min(longest, FIRST_PAUSE * 2.0 ** min(self.failures - 1, 20))

    def succeeded(self) -> None:
        """It has answered as it should."""
        self.failures = 0

    def __repr__(self) -> str:
        return f"Following({self.topic_partition}, epoch {self.leader_epoch}, {self.stage.value})"
