"""The controller: the one broker that decides who leads what.

Every broker stands for the office; the store lets one of them create ``/controller``. While it
is in office everything that happens is an event on one queue, worked off one by one: changes
seen by watches, answers of brokers, and what administrators ask of it.

Beside that, any broker may create, extend and mark topics by writing the store.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from random import Random
from typing import Any, Final, TypeVar

from kavka.config.broker import BrokerConfig
from kavka.config.limits import PARTITIONS_PER_TOPIC_MAX
from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.protocol.schema import ZERO_UUID
from kavka.protocol.topics import TopicPartition
from kavka.replication import znodes
from kavka.replication.controller.admin import PlannedTopic, TopicAdmin, too_many_partitions
from kavka.replication.controller.configs import ConfigStore
from kavka.replication.controller.duties import Duties
from kavka.replication.controller.operations import (
    CreatedTopic,
    ElectionType,
    NewPartitions,
    NewTopic,
    Outcome,
    Permit,
    Reassignment,
)
from kavka.replication.controller.partition_cap import PartitionCap
from kavka.replication.controller.patience import in_time, store_failure
from kavka.replication.controller.term import ControllerMoved, Event, OpenChannel, Term
from kavka.replication.metadata import MetadataCache
from kavka.replication.signal import Signal
from kavka.replication.store.base import (
    Create,
    MetadataStore,
    MultiFailed,
    NodeExists,
    NoNode,
    SessionEvent,
    SessionExpired,
    SetData,
    StoreError,
    WatchEvent,
)
from kavka.storage.clock import Clock

logger = logging.getLogger("kavka.controller")

T = TypeVar("T")

RETRY_S: Final = 1.0  # until the controller begins anew after the store has failed it


class Controller:
    """A candidate for the cluster's controller, and the controller once it is elected."""

    def __init__(
        self,
        node_id: int,
        store: MetadataStore,
        metadata: MetadataCache,
        configs: ConfigStore,
        config: BrokerConfig,
        clock: Clock,
        random: Random,
        open_channel: OpenChannel,
        id_on_disk: Callable[[str], bytes | None] = lambda topic: None,
    ) -> None:
        """``open_channel(broker id, registration)`` makes the way to a broker; ``id_on_disk``
        gives the id of a topic that logs here remember.
        """
        self._node_id = node_id
        self._store = store
        self._metadata = metadata
        self._configs = configs
        self._config = config
        self._clock = clock
        self._random = random
        self._open_channel = open_channel
        self._id_on_disk = id_on_disk
        self._admin = TopicAdmin(store, metadata, config, random)
        self._term: Term | None = None
        self._duties: Duties | None = None
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._worked = Signal()  # fires after every event
        self._task: asyncio.Task[None] | None = None
        self._sessions = 1  # that there have been
        self._registered = True  # in the present one
        store.on_session_event(self._on_session)

    @property
    def active(self) -> bool:
        """Whether this broker is the controller."""
        return self._term is not None

    @property
    def epoch(self) -> int:
        """The number of this broker's term, -1 while it is not the controller."""
        return self._term.epoch if self._term is not None else -1

    @property
    def partition_cap(self) -> PartitionCap:
        """What refuses partitions above the cap of the flavour."""
        return self._admin.partition_cap

    # -- office -------------------------------------------------------------------------------

    async def start(self) -> None:
        """Stand for election; return when this broker knows of all partitions, as the
        controller itself, or as soon as another broker turns out to be it.

        The broker must be registered. Raises StoreError.
        """
        assert self._task is None, "a controller is started once"
        self._task = asyncio.get_running_loop().create_task(self._work(), name="kavka-controller")
        await self._do(self._stand)

    def stand_again(self) -> None:
        """The broker is registered again, in a new session: stand for election in it."""
        self._registered = True
        self._enqueue(self._stand)

    async def told(self) -> None:
        """Wait until all brokers have answered what they were told so far."""
        if self._term is not None:
            await self._term.told()

    async def stop(self) -> None:
        """Forget everything. The office falls vacant when the session with the store ends."""
        self._resign()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _work(self) -> None:
        while True:
            event = await self._events.get()
            try:
                await event()
            except ControllerMoved as moved:
                logger.warning("This broker is not the controller any more reason=%s", moved)
                self._resign()
                self._enqueue(self._stand)
            except StoreError as error:
                if self._term is not None:
                    logger.error(
                        "The controller begins anew: the metadata store failed error=%s", error
                    )
                self._resign()
                asyncio.get_running_loop().call_later(RETRY_S, self._enqueue, self._stand)
            except Exception:
                # A bug must not end the controller; what it did not do shows in the log.
                logger.exception("An event of the controller failed")
            self._worked.fire()

    def _enqueue(self, event: Event) -> None:
        self._events.put_nowait(event)

    async def _do(self, operation: Callable[[], Awaitable[T]]) -> T:
        """Have something done in its turn, unless who wants it has given up by then. Raises what
        it raises.
        """
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        async def event() -> None:
            if future.cancelled():
                return
            try:
                result = await operation()
            except BaseException as error:
                if not future.done():
                    future.set_exception(error)
                if not isinstance(error, KafkaError):
                    raise  # of concern to more than who asked
            else:
                if not future.done():
                    future.set_result(result)

        self._enqueue(event)
        return await future

    async def _stand(self) -> None:
        """Become controller if nobody is."""
        session = self._sessions
        while self._term is None and self._registered:
            stat = await self._store.exists(znodes.CONTROLLER, self._on_controller)
            try:
                epoch_data, epoch_stat = await self._store.get(znodes.CONTROLLER_EPOCH)
            except NoNode:
                with contextlib.suppress(NodeExists):
                    await self._store.create(znodes.CONTROLLER_EPOCH, b"0")
                continue
            epoch, epoch_version = int(epoch_data), epoch_stat.version
            if stat is None:
                epoch += 1
                epoch_version += 1
                try:
                    await self._store.multi(
                        [
                            Create(
                                znodes.CONTROLLER,
                                znodes.encode_controller(self._node_id, self._clock.wall_ms()),
                                ephemeral=True,
                            ),
                            SetData(
                                znodes.CONTROLLER_EPOCH, str(epoch).encode(), epoch_stat.version
                            ),
                        ]
                    )
                except MultiFailed:
                    continue  # another was faster: look who it is
            elif stat.ephemeral_owner != self._store.session_id:
                logger.info("Another broker is the controller")
                return
            if session != self._sessions:
                return  # what was won is lost again
            # If it was there it is this session's own: the store took the write though it said
            # otherwise, or the term began anew. Nobody can have raised the epoch since.
            self._term = Term(
                self._node_id,
                epoch,
                epoch_version,
                self._store,
                self._configs,
                self._config,
                self._random,
                self._open_channel,
                self._enqueue,
                self._known_topic_id,
            )
            self._duties = Duties(self._term)
            await self._duties.take_office()

    def _known_topic_id(self, topic: str) -> bytes | None:
        known = self._metadata.topic_id(topic)
        return known if known not in (None, ZERO_UUID) else self._id_on_disk(topic)

    def _resign(self) -> None:
        if self._term is not None:
            self._term.end()
        self._term = self._duties = None

    def _on_controller(self, event: WatchEvent) -> None:
        self._enqueue(self._controller_changed)

    async def _controller_changed(self) -> None:
        stat = await self._store.exists(znodes.CONTROLLER, self._on_controller)
        if self._term is not None and (
            stat is None or stat.ephemeral_owner != self._store.session_id
        ):
            raise ControllerMoved("the office is vacant or another broker's")
        await self._stand()

    def _on_session(self, event: SessionEvent) -> None:
        if event is SessionEvent.EXPIRED:
            self._sessions += 1
            self._registered = False
            self._resign()

    async def _as_controller(self, operation: Callable[[Duties], Awaitable[T]]) -> T:
        """Have the controller do something in its turn. Raises KafkaError: NOT_CONTROLLER, also
        when its term ends meanwhile.
        """

        async def in_office() -> T:
            if self._duties is None:
                raise _not_controller()
            return await operation(self._duties)

        try:
            return await self._do(in_office)
        except (ControllerMoved, SessionExpired):
            raise _not_controller() from None
        except StoreError as error:
            raise store_failure(error) from None

    # -- topics -------------------------------------------------------------------------------

    async def create_topics(
        self,
        topics: Sequence[NewTopic],
        *,
        timeout_ms: int,
        validate_only: bool = False,
        permit: Permit | None = None,
    ) -> list[CreatedTopic]:
        """Create topics and wait until each partition has a leader in the metadata cache.

        Any broker may do this; the answer of CreateTopics is the active controller's to give.
        A topic that has no leaders in time is created nevertheless, but its error is
        REQUEST_TIMED_OUT; so it is at once without a positive ``timeout_ms``.
        """
        results: dict[str, CreatedTopic] = {}
        planned: list[PlannedTopic] = []
        room = PARTITIONS_PER_TOPIC_MAX
        for topic in topics:
            try:
                plan = self._admin.plan(topic)
                room -= len(plan.node.partitions)
                if room < 0:
                    plan.give_up()
                    raise too_many_partitions()
                if permit is not None and not validate_only:
                    plan.ask(permit)
            except KafkaError as error:
                results[topic.name] = CreatedTopic(topic.name, error)
            else:
                results[topic.name] = plan.created()
                planned.append(plan)
        if validate_only:
            for plan in planned:
                plan.give_up()
        else:
            names = [plan.name for plan in planned]
            began = self._clock.monotonic()
            outcomes = await _written(self._admin.create(planned), names, timeout_ms)
            made = {plan.name: plan for plan in planned if outcomes[plan.name] is None}
            await self._until_led(
                {name: plan.node.partitions for name, plan in made.items()},
                self._left(began, timeout_ms),
            )
            for plan in planned:
                late = self._late(plan.name, plan.node.partitions, timeout_ms)
                results[plan.name] = plan.created(outcomes[plan.name] or late)
        return [results[topic.name] for topic in topics]

    async def create_partitions(
        self,
        topics: Sequence[NewPartitions],
        *,
        timeout_ms: int,
        validate_only: bool = False,
        permit: Permit | None = None,
    ) -> dict[str, Outcome]:
        """Add partitions and wait until each has a leader in the metadata cache."""
        began = self._clock.monotonic()
        extending = self._admin.extend(topics, validate_only=validate_only, permit=permit)
        outcomes = await _written(extending, [topic.topic for topic in topics], timeout_ms)
        if validate_only:
            return outcomes
        done = {
            topic.topic: dict.fromkeys(range(topic.total), ())
            for topic in topics
            if outcomes[topic.topic] is None
        }
        await self._until_led(done, self._left(began, timeout_ms))
        for name, partitions in done.items():
            outcomes[name] = self._late(name, partitions, timeout_ms)
        return outcomes

    def _left(self, began: float, timeout_ms: int) -> float:
        """Seconds left of a request's time."""
        return timeout_ms / 1000 - (self._clock.monotonic() - began)

    async def _until_led(self, topics: Mapping[str, Mapping[int, object]], timeout: float) -> None:
        def all_led() -> bool:
            return all(self._metadata.has_leaders(name, topics[name]) for name in topics)

        await self._metadata.wait_until(all_led, timeout)

    def _late(self, name: str, partitions: Mapping[int, object], timeout_ms: int) -> Outcome:
        if timeout_ms > 0 and self._metadata.has_leaders(name, partitions):
            return None
        return KafkaError(ErrorCode.REQUEST_TIMED_OUT, "The request timed out.")

    async def delete_topics(self, names: Sequence[str], *, timeout_ms: int) -> dict[str, Outcome]:
        """Delete topics and wait until nothing of them is left, or only what dead brokers have.

        A topic that is there after ``timeout_ms`` will still be deleted, but its error is
        REQUEST_TIMED_OUT; so it is at once without a positive timeout.
        """
        began = self._clock.monotonic()
        outcomes = await _written(self._admin.mark_for_deletion(names), names, timeout_ms)
        marked = [name for name in names if outcomes[name] is None]
        await self._worked.until(
            lambda: all(map(self._is_gone, marked)), self._left(began, timeout_ms)
        )
        for name in marked:
            if timeout_ms <= 0 or not self._is_gone(name):
                outcomes[name] = KafkaError(ErrorCode.REQUEST_TIMED_OUT, "The request timed out.")
        return outcomes

    def _is_gone(self, topic: str) -> bool:
        if topic in self._metadata.topics:
            return False
        duties = self._duties
        return (
            duties is None or topic not in duties.cluster.topics or duties.deletion.blocked(topic)
        )

    async def alter_configs(
        self, entity_type: znodes.EntityType, name: str, overrides: Mapping[str, str]
    ) -> None:
        """Replace the overrides of a topic, broker, user or client; see ``ConfigStore.alter``.

        Raises KafkaError when the store fails.
        """
        try:
            async with in_time():
                await self._configs.alter(entity_type, name, overrides)
        except StoreError as error:
            raise store_failure(error) from None

    # -- partitions ---------------------------------------------------------------------------

    async def elect_leaders(
        self,
        election: ElectionType,
        partitions: Sequence[TopicPartition] | None,
        *,
        timeout_ms: int,
    ) -> dict[TopicPartition, Outcome]:
        """Elect leaders of these partitions (None: of all that need it), and wait until the
        metadata cache shows them.

        Raises KafkaError: NOT_CONTROLLER, REQUEST_TIMED_OUT when the store was out of reach.
        """
        began = self._clock.monotonic()
        leaders: dict[TopicPartition, int] = {}

        async def elect(duties: Duties) -> dict[TopicPartition, Outcome]:
            outcomes = dict(await duties.elect(election, partitions))
            for tp, error in outcomes.items():
                if error is None:
                    leaders[tp] = duties.cluster.get(tp).leader
            return outcomes

        def shown(tp: TopicPartition) -> bool:
            state = self._metadata.partition(tp.topic, tp.partition)
            return state is not None and state.leader == leaders[tp]

        async with in_time(timeout_ms):
            outcomes = await self._as_controller(elect)
        await self._metadata.wait_until(
            lambda: all(map(shown, leaders)), self._left(began, timeout_ms)
        )
        for tp in leaders:
            if not shown(tp):
                outcomes[tp] = KafkaError(ErrorCode.REQUEST_TIMED_OUT, "The request timed out.")
        return outcomes

    async def alter_reassignments(
        self, targets: Mapping[TopicPartition, Sequence[int] | None], *, timeout_ms: int = 0
    ) -> dict[TopicPartition, Outcome]:
        """Start moving partitions to other replicas; None cancels a move.

        Raises KafkaError: NOT_CONTROLLER, REQUEST_TIMED_OUT when the store was out of reach.
        """
        async with in_time(timeout_ms):
            return await self._as_controller(lambda duties: duties.alter_reassignments(targets))

    async def list_reassignments(
        self, partitions: Sequence[TopicPartition] | None, *, timeout_ms: int = 0
    ) -> list[Reassignment]:
        """The moves under way, of these partitions or of all.

        Raises KafkaError: NOT_CONTROLLER, REQUEST_TIMED_OUT when the store was out of reach.
        """

        async def moves(duties: Duties) -> list[Reassignment]:
            return duties.moves.under_way(partitions)

        async with in_time(timeout_ms):
            return await self._as_controller(moves)

    async def controlled_shutdown(self, broker_id: int, broker_epoch: int) -> list[TopicPartition]:
        """Take leadership away from a broker that wants to stop; give what it still leads.

        Raises KafkaError: NOT_CONTROLLER, STALE_BROKER_EPOCH, BROKER_NOT_AVAILABLE (unknown id).
        """
        return await self._as_controller(
            lambda duties: duties.shut_down_broker(broker_id, broker_epoch)
        )


async def _written(
    writing: Coroutine[Any, Any, dict[str, Outcome]], names: Sequence[str], timeout_ms: int
) -> dict[str, Outcome]:
    """What becomes of writes for these names; of all of them, if that is not known in time."""
    try:
        async with in_time(timeout_ms):
            return await writing
    except KafkaError as error:
        return dict.fromkeys(names, error)


def _not_controller() -> KafkaError:
    return KafkaError(
        ErrorCode.NOT_CONTROLLER, "This is not the correct controller for this cluster."
    )
