"""A follower's side of an incremental fetch session (KIP-227).

The leader remembers what it was asked for; a request names only partitions that are new, have
moved on or are not wanted any more. The numbers of a request count its place in the session: one
that gets lost is noticed, and all is said anew.
"""

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from kavka.protocol.messages.k01_fetch import FetchPartition, FetchTopic, ForgottenTopic
from kavka.protocol.topics import TopicPartition

NO_SESSION: Final = 0
FIRST_EPOCH: Final = 0  # begins a session, and ends the one whose id is given
_LAST_EPOCH: Final = 2**31 - 1


class Wanted(NamedTuple):
    """What to ask for one partition."""

    fetch_offset: int
    log_start_offset: int
    leader_epoch: int


class SessionRequest(NamedTuple):
    """What a request says of its session."""

    session_id: int
    session_epoch: int
    topics: list[FetchTopic]
    forgotten: list[ForgottenTopic]
    generation: int
    """Tells answers of this session from those of one given up meanwhile."""


class ClientSession:
    """What the leader knows of our wishes. Belongs to one connection at a time."""

    __slots__ = ("_epoch", "_generation", "_id", "_known", "_partition_max_bytes")

    def __init__(self, partition_max_bytes: int) -> None:
        self._id = NO_SESSION
        self._epoch = FIRST_EPOCH
        self._generation = 0
        self._known: set[TopicPartition] = set()
        self._partition_max_bytes = partition_max_bytes

    @property
    def is_open(self) -> bool:
        """Whether the leader remembers; else every request names everything."""
        return self._id != NO_SESSION and self._epoch != FIRST_EPOCH

    @property
    def begins(self) -> bool:
        """Whether the next request names everything."""
        return self._epoch == FIRST_EPOCH

    def request(
        self, wanted: Mapping[TopicPartition, Wanted], changed: Iterable[TopicPartition]
    ) -> SessionRequest | None:
        """The next request, None when there is nothing to ask for.

        ``changed`` is what may be new to the leader or is not wanted any more; ``wanted`` has
        those of it that are wanted, and everything where the session begins.
        """
        session_id, epoch = self._id, self._epoch
        topics: dict[str, FetchTopic] = {}
        forgotten: dict[str, ForgottenTopic] = {}
        known = self._known
        if epoch == FIRST_EPOCH:
            known.clear()
            changed = wanted
        for tp in changed:
            want = wanted.get(tp)
            if want is not None:
                topic = topics.get(tp.topic)
                if topic is None:
                    topic = topics[tp.topic] = FetchTopic(topic=tp.topic)
                topic.partitions.append(
                    FetchPartition(
                        partition=tp.partition,
                        current_leader_epoch=want.leader_epoch,
                        fetch_offset=want.fetch_offset,
                        log_start_offset=want.log_start_offset,
                        partition_max_bytes=self._partition_max_bytes,
                    )
                )
                known.add(tp)
            elif tp in known:
                known.discard(tp)
                gone = forgotten.get(tp.topic)
                if gone is None:
                    gone = forgotten[tp.topic] = ForgottenTopic(topic=tp.topic)
                gone.partitions.append(tp.partition)
        if not known:
            self.reset()  # of which the leader hears when there is something again
            return None
        if epoch != FIRST_EPOCH:
            self._epoch = 1 if epoch == _LAST_EPOCH else epoch + 1
        return SessionRequest(
            session_id, epoch, list(topics.values()), list(forgotten.values()), self._generation
        )

    def answered(self, generation: int, session_id: int) -> None:
        """An answer without error; when it is to the request that began the session, it names
        it (0: the leader remembers nothing)."""
        if generation == self._generation and self._epoch == FIRST_EPOCH:
            self._id = session_id
            self._epoch = FIRST_EPOCH if session_id == NO_SESSION else 1

    def refused(self, generation: int, *, lost: bool) -> bool:
        """An answer with an error: all is said anew. False when that is known already.

        ``lost`` when the leader has told that it knows of no such session.
        """
        if generation != self._generation:
            return False
        if lost:
            self._id = NO_SESSION
        self.reset()
        return True

    def reset(self) -> None:
        """Say everything anew next time, for example on another connection."""
        self._epoch = FIRST_EPOCH
        self._generation += 1
