"""Incremental fetch sessions (KIP-227).

A consumer of many partitions names them once; later requests carry only what changed, and later
responses only partitions that have news. A session belongs to no connection and is found by the
pair (session id, session epoch); the epoch counts requests, so that a lost one is noticed.

Kafka's rules for the two numbers of a request:

======================  ===========================================================
id 0, epoch -1          no session, all partitions named (what old versions do)
any id, epoch 0         close that session if there is one; make a new one
any id, epoch -1        close that session; this request is without one
id > 0, epoch > 0       the next request of that session
======================  ===========================================================
"""

import random
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, TypeAlias

from kavka.config.limits import FETCH_SESSION_PARTITIONS_MAX
from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.protocol.messages.k01_fetch import FetchRequest
from kavka.protocol.schema import ZERO_UUID
from kavka.storage.clock import Clock

if TYPE_CHECKING:
    from kavka.replication.partition import Partition

EVICTION_SECONDS: Final = 120.0
INITIAL_EPOCH: Final = 0
FINAL_EPOCH: Final = -1
NO_SESSION: Final = 0
_MAX_EPOCH: Final = 2**31 - 1

TopicKey: TypeAlias = str | bytes  # name up to Fetch v12, topic id from v13 on


class FetchPartition:
    """One partition that a reader wants, and what it was last told about it."""

    __slots__ = (
        "current_leader_epoch",
        "fetch_offset",
        "index",
        "last_fetched_epoch",
        "log_start_offset",
        "max_bytes",
        "partition",
        "sent_high_watermark",
        "sent_log_start_offset",
        "topic",
        "topic_id",
    )

    def __init__(self, topic: str, topic_id: bytes, index: int) -> None:
        self.topic = topic  # "" when the request names it by an id
        self.topic_id = topic_id
        self.index = index
        self.fetch_offset = 0
        self.log_start_offset = -1  # a follower's
        self.max_bytes = 0
        self.current_leader_epoch = -1
        self.last_fetched_epoch = -1
        self.partition: Partition | None = None  # that it was the last time
        self.sent_high_watermark = -1
        self.sent_log_start_offset = -1


Wanted: TypeAlias = dict[tuple[TopicKey, int], FetchPartition]


class FetchSession:
    """The remembered partitions of one reader, least recently answered first."""

    __slots__ = ("by_id", "created", "epoch", "id", "last_used", "partitions", "privileged")

    def __init__(
        self, session_id: int, partitions: Wanted, *, by_id: bool, privileged: bool, now: float
    ) -> None:
        self.id = session_id
        self.partitions = partitions
        self.by_id = by_id  # topics named by id (Fetch v13+)
        self.privileged = privileged  # a follower's: evicted last
        self.epoch = 1  # of the next request
        self.created = now
        self.last_used = now

    def advance(self) -> None:
        self.epoch = 1 if self.epoch == _MAX_EPOCH else self.epoch + 1

    def find(self, topic: str, topic_id: bytes, index: int) -> FetchPartition | None:
        """What is wanted of a partition, if anything."""
        return self.partitions.get((topic_id if self.by_id else topic, index))

    def move_to_end(self, partition: FetchPartition) -> None:
        """It was in the response: others go first next time, so that none starves."""
        key = (partition.topic_id if self.by_id else partition.topic, partition.index)
        entry = self.partitions.pop(key, None)
        if entry is not None:
            self.partitions[key] = entry


class FetchContext:
    """What one Fetch request is about, once the session rules are applied."""

    __slots__ = ("incremental", "partitions", "session")

    def __init__(
        self, partitions: list[FetchPartition], session: FetchSession | None, incremental: bool
    ) -> None:
        self.partitions = partitions
        self.session = session
        self.incremental = incremental  # the response leaves out partitions without news

    @property
    def session_id(self) -> int:
        return NO_SESSION if self.session is None else self.session.id

    def find(self, topic: str, topic_id: bytes, index: int) -> FetchPartition | None:
        """What is wanted of a partition, if anything."""
        if self.session is not None:
            return self.session.find(topic, topic_id, index)
        for entry in self.partitions:
            if entry.index == index and (entry.topic == topic or entry.topic_id == topic_id):
                return entry
        return None


class FetchSessions:
    """The sessions of one broker, bounded by ``max.incremental.fetch.session.cache.slots`` and in
    the partitions that they remember together.
    """

    def __init__(self, slots: int, clock: Clock, rng: random.Random) -> None:
        self._slots = slots
        self._clock = clock
        self._rng = rng
        self._sessions: dict[int, FetchSession] = {}
        self.partitions = 0
        """Of all sessions together."""

    def __len__(self) -> int:
        return len(self._sessions)

    def __iter__(self) -> Iterator[FetchSession]:
        return iter(self._sessions.values())

    def open(self, request: FetchRequest, version: int, *, follower: bool) -> FetchContext:
        """Apply the session rules to a request.

        Raises FETCH_SESSION_ID_NOT_FOUND, INVALID_FETCH_SESSION_EPOCH or
        FETCH_SESSION_TOPIC_ID_ERROR; the client then starts over with a full fetch.
        """
        session_id, epoch = request.session_id, request.session_epoch
        by_id = version >= 13
        if epoch in (INITIAL_EPOCH, FINAL_EPOCH):
            self._drop(session_id)
            wanted = _merge({}, request, by_id)
            session = None
            if epoch == INITIAL_EPOCH and wanted:
                session = self._create(wanted, by_id=by_id, privileged=follower)
            return FetchContext(list(wanted.values()), session, incremental=False)
        session = self._sessions.get(session_id)
        if session is None:
            raise KafkaError(ErrorCode.FETCH_SESSION_ID_NOT_FOUND)
        if epoch != session.epoch:
            raise KafkaError(ErrorCode.INVALID_FETCH_SESSION_EPOCH)
        if session.by_id != by_id:
            raise KafkaError(ErrorCode.FETCH_SESSION_TOPIC_ID_ERROR)
        before = len(session.partitions)
        if request.topics:
            _merge(session.partitions, request, by_id)
        for forgotten in request.forgotten_topics_data:
            topic: TopicKey = forgotten.topic_id if by_id else forgotten.topic
            for index in forgotten.partitions:
                session.partitions.pop((topic, index), None)
        self.partitions += len(session.partitions) - before
        if not session.partitions:
            self._drop(session_id)
            return FetchContext([], None, incremental=False)
        if self.partitions > FETCH_SESSION_PARTITIONS_MAX:
            self._drop(session_id)
            raise KafkaError(ErrorCode.FETCH_SESSION_ID_NOT_FOUND)
        session.advance()
        session.last_used = self._clock.monotonic()
        return FetchContext(list(session.partitions.values()), session, incremental=True)

    def is_next(self, session: FetchSession, epoch: int) -> bool:
        """Whether ``epoch`` is that of the session's next request; it counts as one then."""
        if epoch != session.epoch or self._sessions.get(session.id) is not session:
            return False
        session.advance()
        session.last_used = self._clock.monotonic()
        return True

    def give_up(self, context: FetchContext) -> None:
        """The session that a request has made is not told of: it is closed again."""
        if context.session is not None:
            self._drop(context.session.id)
            context.session = None

    def _create(self, wanted: Wanted, *, by_id: bool, privileged: bool) -> FetchSession | None:
        now = self._clock.monotonic()
        size = len(wanted)
        if self._is_full(size) and not self._evict(size, privileged, now):
            return None
        if self._is_full(size):
            return None
        session_id = self._rng.randint(1, 2**31 - 1)
        while session_id in self._sessions:
            session_id = self._rng.randint(1, 2**31 - 1)
        session = FetchSession(session_id, wanted, by_id=by_id, privileged=privileged, now=now)
        self._sessions[session_id] = session
        self.partitions += size
        return session

    def _is_full(self, size: int) -> bool:
        return (
            len(self._sessions) >= self._slots
            or self.partitions + size > FETCH_SESSION_PARTITIONS_MAX
        )

    def _drop(self, session_id: int) -> None:
        session = self._sessions.pop(session_id, None)
        if session is not None:
            self.partitions -= len(session.partitions)

    def _evict(self, size: int, privileged: bool, now: float) -> bool:
        """Make room for a session of ``size`` partitions; False when all others matter more."""
        if not self._sessions:
            return False
        stalest = min(self._sessions.values(), key=lambda session: session.last_used)
        if now - stalest.last_used > EVICTION_SECONDS:
            self._drop(stalest.id)
            return True
        settled = [s for s in self._sessions.values() if now - s.created > EVICTION_SECONDS]
        if not settled:
            return False
        least = min(settled, key=lambda s: (s.privileged, len(s.partitions), s.id))
        if (least.privileged, len(least.partitions)) < (privileged, size):
            self._drop(least.id)
            return True
        return False


def _merge(wanted: Wanted, request: FetchRequest, by_id: bool) -> Wanted:
    for topic in request.topics:
        key: TopicKey = topic.topic_id if by_id else topic.topic
        for asked in topic.partitions:
            entry = wanted.get((key, asked.partition))
            if entry is None:
                entry = FetchPartition(
                    "" if by_id else topic.topic,
                    topic.topic_id if by_id else ZERO_UUID,
                    asked.partition,
                )
                wanted[key, asked.partition] = entry
            entry.fetch_offset = asked.fetch_offset
            entry.log_start_offset = asked.log_start_offset
            entry.max_bytes = asked.partition_max_bytes
            entry.current_leader_epoch = asked.current_leader_epoch
            entry.last_fetched_epoch = asked.last_fetched_epoch
    return wanted
