"""What a leader knows of one of its followers, which is what the follower's fetches tell."""

from typing import Final

UNKNOWN_OFFSET: Final = -1
NEVER: Final = float("-inf")


class RemoteReplica:
    """A follower as its leader sees it. Times are monotonic seconds."""

    __slots__ = (
        "_end_at_last_fetch",
        "_fetched_at",
        "broker_id",
        "last_caught_up",
        "log_end_offset",
        "log_start_offset",
    )

    def __init__(self, broker_id: int) -> None:
        self.broker_id = broker_id
        self.log_start_offset = UNKNOWN_OFFSET
        self.log_end_offset = UNKNOWN_OFFSET
        """The offset it asked for: all below is there, and on disk where the topic wants it so."""
        self.last_caught_up = NEVER
        """When it last had all that the leader had then."""
        self._end_at_last_fetch = 0  # the leader's end
        self._fetched_at = NEVER

    def begin_epoch(self, leader_end: int, now: float, *, in_sync: bool, forget: bool) -> None:
        """A leader's epoch begins. In-sync replicas count as caught up for a while; where the
        leadership is new (``forget``), what was known of the follower is not believed."""
        self.last_caught_up = now if in_sync else NEVER
        self._end_at_last_fetch = leader_end
        self._fetched_at = now
        if forget:
            self.log_start_offset = self.log_end_offset = UNKNOWN_OFFSET
            self._end_at_last_fetch = 0
            self._fetched_at = NEVER

    def fetched(self, offset: int, log_start_offset: int, leader_end: int, now: float) -> None:
        """It fetches from ``offset`` on, while the leader's log ends at ``leader_end``.

        It may be a moment behind under load all the time: so it also counts as caught up to where
        the leader was at its fetch before (Kafka's ``Replica.updateFetchState``).
        """
        if offset >= leader_end:
            self.last_caught_up = now
        elif offset >= self._end_at_last_fetch and self._fetched_at > self.last_caught_up:
            self.last_caught_up = self._fetched_at
        self.log_end_offset = offset
        self.log_start_offset = log_start_offset
        self._end_at_last_fetch = leader_end
        self._fetched_at = now

    def is_lagging(self, leader_end: int, now: float, lag_max: float) -> bool:
        """Whether it has not had all of the leader's records for longer than ``lag_max``."""
        return self.log_end_offset != leader_end and now - self.last_caught_up > lag_max

    def __repr__(self) -> str:
        return f"RemoteReplica({self.broker_id}, end {self.log_end_offset})"
