"""Following one leader: everything that this broker replicates from it, over one connection.

There is one fetch under way at a time, for all partitions together, in a session that lets it name
only what has changed. It waits at the leader while there is nothing; so what becomes ready
meanwhile is asked for by a second request behind it, on which a leader of ours answers the first
one at once. Questions about epochs go the same way.

Nothing here blocks, and there is no task but for connecting: answers are taken in as they come, the
records straight from the receive buffer into the logs.
"""

import asyncio
import heapq
import logging
from collections.abc import Callable
from functools import partial
from itertools import count
from typing import Final

from kavka.protocol import codec
from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.protocol.messages.k01_fetch import FetchRequest, FetchResponse, PartitionData
from kavka.protocol.messages.k23_offset_for_leader_epoch import EpochEndOffset as EpochAnswer
from kavka.protocol.schema import Message
from kavka.protocol.topics import TopicPartition
from kavka.replication.client import BrokerUnavailable
from kavka.replication.fetching.following import FIRST_PAUSE, Following, Stage
from kavka.replication.fetching.questions import (
    EARLIEST,
    EPOCHS_VERSION,
    LATEST,
    OFFSETS_VERSION,
    OffsetAnswers,
    ask_epochs,
    ask_offsets,
    read_epochs,
    read_offsets,
)
from kavka.replication.fetching.session import ClientSession, Wanted
from kavka.replication.fetching.surroundings import FetcherSettings, Link, Surroundings
from kavka.replication.fetching.truncation import truncation
from kavka.storage.epochs import EpochEndOffset

log = logging.getLogger("kavka.replication.fetching")

# As with inter.broker.protocol.version=2.3: what a leader of that release understands.
FETCH_VERSION: Final = 11

_UNDER_WAY_MAX: Final = 2
_THROTTLED_PAUSE: Final = (0.05, 1.0)  # seconds between looks at whether it is over


class Fetcher:
    """Replicates some partitions of one leader. Owned by the event loop."""

    def __init__(
        self, leader_id: int, number: int, settings: FetcherSettings, around: Surroundings
    ) -> None:
        self.leader_id = leader_id
        self._client_id = f"broker-{settings.node_id}-fetcher-{number}"
        self._settings = settings
        self._around = around
        self._followings: dict[TopicPartition, Following] = {}
        # Dicts, not sets, for their order: what happens may be replayed.
        self._todo: dict[Following, None] = {}  # to be compared or located
        self._changed: dict[TopicPartition, None] = {}  # since the leader was last told of them
        self._urgent = False  # one of them has become ready
        self._paused: list[tuple[float, int, Following]] = []  # a heap
        self._numbers = count()
        self._throttled: dict[Following, None] = {}
        self._session = ClientSession(settings.partition_max_bytes)
        self._link: Link | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._connect_failures = 0
        self._not_before = 0.0  # no connecting, no fetching
        self._under_way = 0  # fetches
        self._sent = 0  # fetches ever
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._woken = False
        self._closed = False

    def __len__(self) -> int:
        return len(self._followings)

    # -- what to follow -----------------------------------------------------------------------

    def add(self, following: Following) -> None:
        """Follow a partition from now on; one of the same name that is followed already goes."""
        self.remove(following.topic_partition)
        self._followings[following.topic_partition] = following
        self._todo[following] = None
        self._wake()

    def remove(self, topic_partition: TopicPartition) -> None:
        """Follow it no more; whatever still arrives of it is not taken."""
        following = self._followings.pop(topic_partition, None)
        if following is not None:
            self._todo.pop(following, None)
            self._throttled.pop(following, None)
            self._changed[topic_partition] = None

    def close(self) -> None:
        """Follow nothing any more."""
        self._closed = True
        self._followings.clear()
        if self._timer is not None:
            self._timer.cancel()
        if self._connecting is not None:
            self._connecting.cancel()
        if self._link is not None:
            link, self._link = self._link, None
            link.close()

    def lags(self) -> dict[TopicPartition, int]:
        """How many offsets each partition is behind what the leader had committed."""
        return {
            tp: max(each.leader_end_offset - each.partition.log.log_end_offset, 0)
            for tp, each in self._followings.items()
        }

    # -- the pump -----------------------------------------------------------------------------

    def _wake(self) -> None:
        if not self._woken and not self._closed:
            self._woken = True
            self._around.loop.call_soon(self._step)

    def _step(self) -> None:
        self._woken = False
        if self._closed or not self._followings:
            return
        now = self._around.clock.monotonic()
        if now < self._not_before:
            self._wake_at(self._not_before)
            return
        link = self._link
        if link is None:
            if self._connecting is None:
                self._connecting = self._around.loop.create_task(self._connect())
            return
        self._end_pauses(now)
        if self._todo:
            self._compare_and_locate(link)
        if self._throttled:
            self._end_throttling(now)
        if not self._under_way or (
            self._urgent and self._under_way < _UNDER_WAY_MAX and self._session.is_open
        ):
            self._fetch(link)

    def _wake_at(self, when: float) -> None:
        if self._timer is not None:
            if self._timer_at <= when:
                return
            self._timer.cancel()
        self._timer_at = when
        delay = max(when - self._around.clock.monotonic(), 0.0)
        self._timer = self._around.loop.call_later(delay, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._wake()

    def _end_pauses(self, now: float) -> None:
        paused = self._paused
        while paused and paused[0][0] <= now:
            _, _, following = heapq.heappop(paused)
            if self._followings.get(following.topic_partition) is not following:
                continue
            if following.stage is Stage.FETCH:
                self._ready(following)
            else:
                self._todo[following] = None
        if paused:
            self._wake_at(paused[0][0])

    def _end_throttling(self, now: float) -> None:
        throttle = self._around.throttle
        assert throttle is not None
        if throttle.is_exceeded:
            shortest, longest = _THROTTLED_PAUSE
            self._wake_at(now + min(max(throttle.wait, shortest), longest))
            return
        released, self._throttled = self._throttled, {}
        for following in released:
            following.throttled = False
            self._ready(following)

    # -- the connection -----------------------------------------------------------------------

    async def _connect(self) -> None:
        address = self._around.find_address(self.leader_id)
        try:
            if address is None:
                raise BrokerUnavailable(f"broker {self.leader_id} has no known address")
            link = await self._around.connect(address, self._client_id)
        except (BrokerUnavailable, KafkaError, OSError) as error:
            self._connecting = None
            self._connect_failures += 1
            pause = min(
                FIRST_PAUSE * 2.0 ** min(self._connect_failures - 1, 20), self._settings.backoff
            )
            log.log(
                logging.WARNING if self._connect_failures == 1 else logging.DEBUG,
                "A leader cannot be reached: %s partitions=%d",
                error,
                len(self._followings),
            )
            self._not_before = self._around.clock.monotonic() + pause
            self._wake()
            return
        self._connecting = None
        if self._closed:
            link.close()
            return
        if self._connect_failures:
            log.info("A leader is reached again broker=%s", address)
            self._connect_failures = 0
        self._link = link
        link.when_closed(partial(self._link_ended, link))
        self._wake()

    def _link_ended(self, link: Link) -> None:
        if self._link is not link:
            return
        self._link = None
        self._session.reset()
        self._under_way = 0
        for following in self._followings.values():
            if following.stage is Stage.COMPARING:
                following.stage = Stage.COMPARE
            elif following.stage is Stage.LOCATING:
                following.stage = Stage.LOCATE
            else:
                continue
            self._todo[following] = None
        self._not_before = self._around.clock.monotonic() + FIRST_PAUSE
        self._wake()

    def _ask(self, link: Link, request: Message, version: int, on_body: "OnBody") -> None:
        def answered(body: memoryview) -> None:
            if self._link is link:
                on_body(body)
                self._wake()

        link.exchange(request, version, answered, lambda _: self._link_ended(link))

    # -- comparing logs -----------------------------------------------------------------------

    def _compare_and_locate(self, link: Link) -> None:
        comparing: list[Following] = []
        locating: list[Following] = []
        todo, self._todo = self._todo, {}
        for following in todo:
            if not following.is_current:
                continue
            if following.stage is Stage.LOCATE:
                following.stage = Stage.LOCATING
                locating.append(following)
            elif following.partition.log.leader_epochs.latest_epoch < 0:
                self._truncate(following, following.partition.high_watermark)
            else:
                assert following.stage is Stage.COMPARE
                following.stage = Stage.COMPARING
                comparing.append(following)
        node_id = self._settings.node_id
        if comparing:
            request = ask_epochs(node_id, comparing)
            self._ask(link, request, EPOCHS_VERSION, partial(self._compared, comparing))
        if locating:
            ends: OffsetAnswers = {}

            def take_ends(body: memoryview) -> None:
                ends.update(read_offsets(body))

            self._ask(link, ask_offsets(node_id, locating, LATEST), OFFSETS_VERSION, take_ends)
            request_of_starts = ask_offsets(node_id, locating, EARLIEST)
            take = partial(self._located, locating, ends)
            self._ask(link, request_of_starts, OFFSETS_VERSION, take)

    def _compared(self, asked: list[Following], body: memoryview) -> None:
        answers = read_epochs(body)
        for following in asked:
            if not self._is_followed(following, Stage.COMPARING):
                continue
            answer = answers.get(following.topic_partition)
            if answer is not None:
                self._take_epoch(following, answer)
            else:
                following.stage = Stage.COMPARE
                self._pause(following, "no answer about its epochs")

    def _take_epoch(self, following: Following, answer: EpochAnswer) -> None:
        following.stage = Stage.COMPARE
        if answer.error_code != ErrorCode.NONE:
            self._refused(following, answer.error_code)
            return
        following.succeeded()
        partition_log = following.partition.log
        decision = truncation(
            EpochEndOffset(answer.leader_epoch, answer.end_offset),
            partition_log.leader_epochs,
            partition_log.log_end_offset,
            partition_log.high_watermark,
        )
        if self._truncate(following, decision.offset, done=decision.done) and not decision.done:
            self._todo[following] = None

    def _truncate(self, following: Following, offset: int, *, done: bool = True) -> bool:
        """Give up what the leader does not have; False when that failed."""
        partition_log = following.partition.log
        before, high_watermark = partition_log.log_end_offset, partition_log.high_watermark
        try:
            cut = partition_log.truncate_to(offset)
        except KafkaError as error:
            self._failed_here(following, error)
            return False
        # An epoch that began here, and in which nothing was written, is no part of the log.
        partition_log.leader_epochs.truncate_from_end(partition_log.log_end_offset)
        if cut:
            log.log(
                logging.WARNING if offset < high_watermark else logging.INFO,
                "Log cut back to where it agrees with its leader's partition=%s leader=%d "
                "leader_epoch=%d end_before=%d end=%d high_watermark=%d",
                following.topic_partition,
                self.leader_id,
                following.leader_epoch,
                before,
                partition_log.log_end_offset,
                high_watermark,
            )
        if done:
            self._settle(following, always=cut)
        return True

    def _located(self, asked: list[Following], ends: OffsetAnswers, body: memoryview) -> None:
        starts = read_offsets(body)
        for following in asked:
            if not self._is_followed(following, Stage.LOCATING):
                continue
            tp = following.topic_partition
            following.stage = Stage.LOCATE
            start, end = starts.get(tp), ends.get(tp)
            if start is None or end is None:
                self._pause(following, "no answer about its bounds")
            elif start.error_code != ErrorCode.NONE or end.error_code != ErrorCode.NONE:
                self._refused(following, start.error_code or end.error_code)
            else:
                self._move_into(following, start.offset, end.offset)

    def _move_into(self, following: Following, start: int, end: int) -> None:
        """Bring the end of our log into the bounds of the leader's."""
        partition_log = following.partition.log
        here = partition_log.log_end_offset
        if end < here:
            # An unclean election: the leader lacks what we have.
            self._truncate(following, end)
            return
        try:
            if start > here:
                log.warning(
                    "Log begun anew where its leader's begins partition=%s leader=%d end=%d "
                    "leaders_start=%d",
                    following.topic_partition,
                    self.leader_id,
                    here,
                    start,
                )
                partition_log.truncate_fully_and_start_at(start)
        except KafkaError as error:
            self._failed_here(following, error)
            return
        self._settle(following, always=start > here)

    # -- states of a partition ----------------------------------------------------------------

    def _is_followed(self, following: Following, stage: Stage) -> bool:
        return (
            following.stage is stage
            and self._followings.get(following.topic_partition) is following
            and following.is_current
        )

    def _settle(self, following: Following, *, always: bool = False) -> None:
        """Go on fetching; but where the disk comes first, when the disk has it.

        The offset that is fetched from tells the leader what is kept here.
        """
        if not always and not following.partition.flush_due:
            following.stage = Stage.FETCH
            self._ready(following)
            return
        following.stage = Stage.SETTLE
        self._changed[following.topic_partition] = None  # or the leader would send it once more
        self._around.replicas.sync(following.partition, partial(self._settled, following))

    def _settled(self, following: Following) -> None:
        if not self._is_followed(following, Stage.SETTLE):
            return
        if following.partition.log.offline is not None:
            following.stage = Stage.FAILED
            return
        self._settle(following)

    def _ready(self, following: Following) -> None:
        following.first_fetch = self._sent
        self._changed[following.topic_partition] = None
        self._urgent = True
        self._wake()

    def _pause(self, following: Following, why: object) -> None:
        now = self._around.clock.monotonic()
        following.pause(now, self._settings.backoff)
        log.log(
            logging.INFO if following.failures == 1 else logging.DEBUG,
            "Replication waits: %s partition=%s leader=%d leader_epoch=%d",
            why,
            following.topic_partition,
            self.leader_id,
            following.leader_epoch,
        )
        self._changed[following.topic_partition] = None
        heapq.heappush(self._paused, (following.not_before, next(self._numbers), following))
        self._wake_at(following.not_before)

    def _refused(self, following: Following, code: int) -> None:
        """The leader answers with an error."""
        if code == ErrorCode.FENCED_LEADER_EPOCH:
            log.info(
                "Replication stops until the controller names the leader: the epoch is over "
                "partition=%s leader=%d leader_epoch=%d",
                following.topic_partition,
                self.leader_id,
                following.leader_epoch,
            )
            following.stage = Stage.FAILED
            self._changed[following.topic_partition] = None
        elif code == ErrorCode.OFFSET_OUT_OF_RANGE and following.stage is Stage.FETCH:
            following.stage = Stage.LOCATE
            self._changed[following.topic_partition] = None
            self._todo[following] = None
            self._wake()
        else:
            self._pause(following, _name(code))

    def _failed_here(self, following: Following, error: KafkaError) -> None:
        """Something cannot be done with our own log."""
        if following.partition.log.offline is not None:
            following.stage = Stage.FAILED
            self._changed[following.topic_partition] = None
            return
        if error.code is not ErrorCode.KAFKA_STORAGE_ERROR and following.stage is Stage.FETCH:
            following.stage = Stage.COMPARE  # what has come does not fit: look where we stand
        self._pause(following, error)

    # -- fetching -----------------------------------------------------------------------------

    def _fetch(self, link: Link) -> None:
        candidates = self._followings if self._session.begins else self._changed
        now = self._around.clock.monotonic()
        wanted: dict[TopicPartition, Wanted] = {}
        for tp in candidates:
            following = self._followings.get(tp)
            if (
                following is not None
                and following.stage is Stage.FETCH
                and following.not_before <= now
                and following.is_current
                and not self._is_throttled(following)
            ):
                wanted[tp] = following.want()
        request = self._session.request(wanted, self._changed)
        self._changed.clear()
        self._urgent = False
        if request is None:
            return
        settings = self._settings
        self._under_way += 1
        number, self._sent = self._sent, self._sent + 1
        link.exchange(
            FetchRequest(
                replica_id=settings.node_id,
                max_wait_ms=settings.wait_max_ms,
                min_bytes=settings.min_bytes,
                max_bytes=settings.max_bytes,
                session_id=request.session_id,
                session_epoch=request.session_epoch,
                topics=request.topics,
                forgotten_topics_data=request.forgotten,
            ),
            FETCH_VERSION,
            partial(self._fetched, link, number, request.generation),
            lambda _: self._link_ended(link),
        )

    def _is_throttled(self, following: Following) -> bool:
        throttle = self._around.throttle
        if throttle is None or not throttle.is_on or not throttle.covers(following.partition):
            return False
        if following.partition.log.log_end_offset >= following.leader_end_offset >= 0:
            return False  # in sync: holding it back would cost acknowledgements
        if not throttle.is_exceeded:
            return False
        following.throttled = True
        self._throttled[following] = None
        shortest, longest = _THROTTLED_PAUSE
        wait = min(max(throttle.wait, shortest), longest)
        self._wake_at(self._around.clock.monotonic() + wait)
        return True

    def _fetched(self, link: Link, number: int, generation: int, body: memoryview) -> None:
        if self._link is not link:
            return
        self._under_way -= 1
        response = codec.decode(FetchResponse, body, FETCH_VERSION)
        code = response.error_code
        if code != ErrorCode.NONE:
            lost = code == ErrorCode.FETCH_SESSION_ID_NOT_FOUND
            if self._session.refused(generation, lost=lost) and not (
                lost or code == ErrorCode.INVALID_FETCH_SESSION_EPOCH
            ):
                log.warning(
                    "A leader refuses to be followed: %s broker=%d", _name(code), self.leader_id
                )
                self._not_before = self._around.clock.monotonic() + self._settings.backoff
            self._wake()
            return
        self._session.answered(generation, response.session_id)
        for topic in response.responses:
            for data in topic.partitions:
                following = self._followings.get(TopicPartition(topic.topic, data.partition_index))
                if (
                    following is not None
                    and following.stage is Stage.FETCH
                    and number >= following.first_fetch
                    and following.is_current
                ):
                    self._take(following, data)
        self._wake()

    def _take(self, following: Following, data: PartitionData) -> None:
        if data.error_code != ErrorCode.NONE:
            self._refused(following, data.error_code)
            return
        partition = following.partition
        partition_log = partition.log
        size = 0
        records = data.records
        try:
            # Records that were asked for before others came are here already; the rest of the
            # answer is news all the same, which the leader tells only once.
            if (
                records is not None
                and len(records) >= 8
                and int.from_bytes(records[:8]) >= partition_log.log_end_offset
            ):
                size = partition_log.append_as_follower(memoryview(records)).size
            moved = partition.follow_high_watermark(data.high_watermark)
            if data.log_start_offset > partition_log.log_start_offset:
                moved = partition_log.increment_log_start_offset(data.log_start_offset)
        except KafkaError as error:
            self._failed_here(following, error)
            return
        following.leader_end_offset = data.high_watermark
        if size:
            following.failures = 0
            throttle = self._around.throttle
            if throttle is not None and throttle.is_on and throttle.covers(partition):
                throttle.record(size)
            self._around.replicas.follower_progressed(partition, size)
            if partition.flush_due:
                self._settle(following)
            else:
                self._changed[following.topic_partition] = None
        elif moved:
            self._around.replicas.follower_progressed(partition, 0)
        if following.is_start_news:  # DeleteRecords waits for it at the leader
            self._changed[following.topic_partition] = None
            self._urgent = True


OnBody = Callable[[memoryview], None]


def _name(code: int) -> str:
    try:
        return ErrorCode(code).name
    except ValueError:
        return f"error {code}"
