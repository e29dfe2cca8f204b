"""Polls that find nothing, again and again.

Most consumers of most brokers wait for records that do not come: each asks what it asked before,
waits, and is told what it was told before. What such a request was about is kept with its
connection when its time is over. If the next request is the same, and nothing has happened to its
partitions, it waits like the one before, without being read.
"""

from struct import Struct
from typing import TYPE_CHECKING, Final

from kavka.config.limits import AWAITED_PARTITIONS_MAX

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kavka.broker.context import Broker
    from kavka.broker.fetch.reader import PartitionRead
    from kavka.broker.fetch.sessions import FetchSession
    from kavka.broker.request import Request

FIRST_VERSION: Final = 4  # older readers get converted records
_FIRST_VERSION_WITH_SESSIONS: Final = 7
_FIRST_VERSION_WITHOUT_REPLICA: Final = 15
_BODY_BYTES_MAX: Final = 1 << 10  # larger requests are not kept
_EPOCH: Final = Struct(">i")
_EPOCH_AT: Final = 21
_EPOCH_AT_V15: Final = 17


class Poll:
    """What a request asked for, and how the partitions were when it found nothing."""

    __slots__ = (
        "_after",
        "_before",
        "_epoch",
        "_epoch_at",
        "_epoch_size",
        "_seen",
        "_session",
        "_version",
        "answer",
        "max_wait_ms",
        "partitions",
    )

    def __init__(
        self,
        request: "Request",
        session: "FetchSession | None",
        max_wait_ms: int,
        reads: "Sequence[PartitionRead]",
    ) -> None:
        """``reads`` are those of all its partitions, and have no records."""
        version, body = request.version, request.body
        self._version = version
        self._session = session
        self.max_wait_ms = max_wait_ms
        self.answer: bytes | None = None  # what it was told when its time was over
        self._seen = [
            (
                read.partition,
                read.partition.leader_epoch,
                read.high_watermark,
                read.last_stable_offset,
                read.log_start_offset,
            )
            for read in reads
            if read.partition is not None
        ]
        self.partitions = tuple(seen[0] for seen in self._seen)
        self._epoch_at = at = _epoch_at(version)
        self._epoch_size = _EPOCH.size if at else 0
        self._epoch = _EPOCH.unpack_from(body, at)[0] if at else 0
        self._before = body[:at].tobytes()
        self._after = body[at + self._epoch_size :].tobytes()

    def is_repeated(self, broker: "Broker", request: "Request") -> bool:
        """Whether ``request`` asks the same, and would find the same."""
        if request.version != self._version or not may_be_kept(broker, request):
            return False
        body, at = request.body, self._epoch_at
        if (
            body[:at].tobytes() != self._before
            or body[at + self._epoch_size :].tobytes() != self._after
            or not self._nothing_happened()
            or broker.waiting.awaited + len(self.partitions) > AWAITED_PARTITIONS_MAX
        ):
            return False
        if not at:
            return True
        epoch: int = _EPOCH.unpack_from(body, at)[0]
        if self._session is None:
            return epoch == self._epoch
        return broker.fetch_sessions.is_next(self._session, epoch)

    def _nothing_happened(self) -> bool:
        for partition, leader_epoch, high_watermark, last_stable, start in self._seen:
            log = partition.log
            if (
                log.high_watermark != high_watermark
                or log.last_stable_offset != last_stable
                or log.log_start_offset != start
                or partition.leader_epoch != leader_epoch
                or not partition.is_leader
                or log.offline is not None
            ):
                return False
        return True


def _epoch_at(version: int) -> int:
    """Where in the body the session epoch stands, which changes with each; 0: there is none."""
    if version < _FIRST_VERSION_WITH_SESSIONS:
        return 0
    return _EPOCH_AT_V15 if version >= _FIRST_VERSION_WITHOUT_REPLICA else _EPOCH_AT


def may_be_kept(broker: "Broker", request: "Request") -> bool:
    """Whether the request after this one may go this way, if this one finds nothing."""
    return (
        request.version >= FIRST_VERSION
        and len(request.body) <= _BODY_BYTES_MAX
        and broker.quotas is None
        and broker.authorizer is None
    )
