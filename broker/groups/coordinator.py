"""The group coordinator: runs the groups whose partition of ``__consumer_offsets`` is led here.

Every operation goes the same way: the group (or the offsets) computes answers and records without
I/O, the records are appended as one batch, and what they say counts, and is answered, when the
batch is replicated. Becoming leader replays the same records.

Owned by the event loop; nothing here blocks.
"""

import asyncio
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final
from uuid import uuid4

from kavka.broker.coordination.journal import Journal
from kavka.broker.coordination.ownership import Offload, Ownership, partition_for
from kavka.broker.coordination.state_log import ReplicaStateLog, StateLog
from kavka.broker.coordination.timers import CallLater, Deadlines
from kavka.broker.coordination.workers import call_later_on, offload_from
from kavka.broker.groups import records
from kavka.broker.groups.budget import MemberBudget
from kavka.broker.groups.consumer.coordinator import ConsumerGroups, NoTopics, TopicSource
from kavka.broker.groups.consumer.group import ConsumerGroup
from kavka.broker.groups.consumer.settings import ConsumerGroupSettings
from kavka.broker.groups.consumer.topics import MetadataTopics
from kavka.broker.groups.core import GroupState
from kavka.broker.groups.errors import group_error
from kavka.broker.groups.group import Group
from kavka.broker.groups.loading import Replay
from kavka.broker.groups.messages import (
    UNKNOWN_MEMBER_ID,
    AnswerJoin,
    Effect,
    GroupDescription,
    GroupListing,
    Join,
    JoinResult,
    JoinWaiter,
    Leave,
    Moment,
    StoreGroup,
    Sync,
    SyncResult,
    SyncWaiter,
)
from kavka.broker.groups.offset_keeper import OffsetKeeper
from kavka.broker.groups.partition import AnyGroup, GroupPartition
from kavka.broker.groups.settings import GroupSettings
from kavka.broker.groups.subscription import CONSUMER_PROTOCOL
from kavka.config import limits
from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.protocol.topics import GROUP_METADATA_TOPIC
from kavka.storage.clock import Clock

if TYPE_CHECKING:
    from kavka.broker.context import Broker

log = logging.getLogger("kavka.groups")

CLASSIC: Final = "Classic"  # types of groups, as ListGroups calls them (KIP-848)
CONSUMER: Final = "Consumer"


def _can_be_stored(join: Join) -> bool:
    """Whether a member's texts fit into the record of its group."""
    longest = max(
        *(len(join.client_id), len(join.instance_id or ""), len(join.protocol_type)),
        max((len(name) for name, _ in join.protocols), default=0),
    )
    return longest <= limits.GROUP_TEXT_CHARACTERS_MAX


def _random_id() -> str:
    return str(uuid4())


class GroupCoordinator:
    """All groups coordinated by this broker.

    ``partition_count`` gives the number of partitions of ``__consumer_offsets``; ``offload`` runs
    work in a thread; ``random_id`` makes the random part of member ids.
    """

    def __init__(
        self,
        settings: GroupSettings,
        offsets_log: StateLog,
        clock: Clock,
        call_later: CallLater,
        offload: Offload,
        partition_count: Callable[[], int],
        random_id: Callable[[], str] = _random_id,
        topics: TopicSource | None = None,
        consumer_settings: ConsumerGroupSettings | None = None,
    ) -> None:
        self.settings = settings
        self._clock = clock
        self._partition_count = partition_count
        self._random_id = random_id
        self._active = False
        self._journal = Journal(offsets_log, clock, settings.offsets_compression)
        self._deadlines = Deadlines(clock, call_later, self._on_due)
        self._owned = Ownership(
            *(offsets_log, clock, offload, GroupPartition, Replay, self._build_groups),
            what="Groups",
            logger=log,
        )
        self.offsets = OffsetKeeper(self, self._journal, clock, call_later)
        self.consumers = ConsumerGroups(
            self,
            self._journal,
            consumer_settings or ConsumerGroupSettings(),
            topics or NoTopics(),
            random_id,
        )
        self._budget = MemberBudget(self.groups, limits.GROUP_MEMBERS_BYTES_MAX)

    @classmethod
    def create(cls, broker: "Broker") -> "GroupCoordinator":
        """The coordinator of a broker whose metadata and replicas are there; not started."""
        settings = GroupSettings.from_config(broker.config)

        def partition_count() -> int:
            topic = broker.metadata.topics.get(GROUP_METADATA_TOPIC)
            return settings.offsets_partitions if topic is None else len(topic.partitions)

        coordinator = cls(
            settings,
            ReplicaStateLog(broker.replicas, GROUP_METADATA_TOPIC),
            broker.clock,
            call_later_on(broker.loop),
            offload_from(broker.loop),
            partition_count,
            topics=MetadataTopics(broker.metadata),
            consumer_settings=ConsumerGroupSettings.from_config(broker.config),
        )
        broker.metadata.on_partitions_deleted(coordinator.offsets.forget_partitions)
        return coordinator

    def start(self) -> None:
        """Serve groups."""
        self._active = True
        self.offsets.start()

    def stop(self) -> None:
        """Serve no more: whoever waits is told that the coordinator is elsewhere."""
        self._active = False
        self.offsets.stop()
        for owned in self._owned:
            self.on_resigned(owned.index)
        self._deadlines.close()

    async def loaded(self) -> None:
        """Wait until no partition is being read."""
        idle = asyncio.Event()
        self._owned.when_idle(idle.set)
        await idle.wait()

    # -- leadership -------------------------------------------------------------------------

    def on_elected(self, partition: int, leader_epoch: int) -> None:
        """This broker leads the partition: load its groups."""
        self._owned.elected(partition, leader_epoch)

    def on_resigned(self, partition: int) -> None:
        """The partition is led elsewhere: forget its groups, send who waits to find them."""
        owned = self._owned.resigned(partition)
        if owned is None:
            return
        groups = list(owned.groups.values())
        owned.groups.clear()
        for group in groups:
            self._deadlines.forget(group.group_id)
        for group in groups:
            if isinstance(group, Group):
                self.run(group, group.unload())
            else:
                group.dead = True

    def _build_groups(self, owned: GroupPartition, replay: Replay) -> int:
        now = self.now()
        for group_id, loaded in replay.groups.items():
            if not loaded.exists:
                continue
            group: AnyGroup
            if loaded.consumer is not None:
                group = ConsumerGroup(group_id, self.consumers.settings, now, loaded.consumer)
            elif loaded.image is None:
                group = self._new_group(group_id)
            else:
                group = Group.restore(
                    group_id, loaded.image, self.settings, self._new_member_id, now
                )
            group.offsets = loaded.offsets
            owned.groups[group_id] = group
            for producer_id in group.offsets.open_producers:
                owned.note_transaction(producer_id, group_id)
            self.watch(group)
        if replay.unknown_records:
            log.warning(
                "Records of no known kind were passed over partition=%d records=%d",
                *(owned.index, replay.unknown_records),
            )
        return len(owned.groups)

    # -- finding groups ---------------------------------------------------------------------

    def partition_of(self, group_id: str) -> int:
        """The partition of ``__consumer_offsets`` that keeps this group."""
        return partition_for(group_id, self._partition_count())

    def status(self, group_id: str, *, may_be_empty: bool = False) -> ErrorCode:
        """Whether this broker can answer for the group now.

        An empty name is only good for keeping offsets by hand (a client without group.id).
        """
        if not group_id and not may_be_empty:
            return ErrorCode.INVALID_GROUP_ID
        if len(group_id) > limits.GROUP_TEXT_CHARACTERS_MAX:
            return ErrorCode.INVALID_GROUP_ID
        if not self._active:
            return ErrorCode.COORDINATOR_NOT_AVAILABLE
        owned = self._owned.get(self.partition_of(group_id))
        if owned is None:
            return ErrorCode.NOT_COORDINATOR
        if owned.loading:
            return ErrorCode.COORDINATOR_LOAD_IN_PROGRESS
        if owned.failed:
            return ErrorCode.COORDINATOR_NOT_AVAILABLE
        return ErrorCode.NONE

    def owner_of(self, group_id: str) -> GroupPartition:
        """The partition with the group; only when :meth:`status` is NONE."""
        owned = self._owned.get(self.partition_of(group_id))
        assert owned is not None
        return owned

    def find(self, group_id: str) -> AnyGroup | None:
        """The group if it is known here."""
        owned = self._owned.get(self.partition_of(group_id))
        return None if owned is None else owned.groups.get(group_id)

    def _find_classic(self, group_id: str) -> Group | None:
        group = self.find(group_id)
        return group if isinstance(group, Group) else None

    def require_room(self, group_id: str) -> None:
        """Raise POLICY_VIOLATION when ``group_id``, which is new, would be a group too many."""
        if sum(len(owned.groups) for owned in self._owned) >= self.settings.max_count:
            log.warning(
                "A group is refused, there are as many as group.max.count=%d allows group=%.128s",
                *(self.settings.max_count, group_id),
            )
            raise KafkaError(
                ErrorCode.POLICY_VIOLATION,
                f"There are as many groups as group.max.count={self.settings.max_count} allows",
            )

    def find_or_create(self, group_id: str) -> AnyGroup:
        """The group, new if it is not known. Raises as :meth:`require_room`."""
        owned = self.owner_of(group_id)
        group = owned.groups.get(group_id)
        if group is None:
            self.require_room(group_id)
            group = owned.groups[group_id] = self._new_group(group_id)
        return group

    def discard_if_useless(self, group: AnyGroup) -> None:
        """Forget a group that was made for a request that left nothing in it."""
        if group.may_vanish and group.generation == 0:
            group.bury(self.now())
            self.forget(group)

    def forget(self, group: AnyGroup) -> None:
        """Drop a dead group; requests that come later find nothing, or a new one."""
        assert group.state is GroupState.DEAD
        owned = self._owned.get(self.partition_of(group.group_id))
        if owned is not None and owned.groups.get(group.group_id) is group:
            del owned.groups[group.group_id]
            self._deadlines.forget(group.group_id)

    def owned_partition(self, index: int) -> GroupPartition | None:
        """A partition led here, loaded or not."""
        return self._owned.get(index)

    def owned_partitions(self) -> Iterator[GroupPartition]:
        """The partitions led here, loaded or not."""
        return iter(self._owned)

    def groups(self) -> Iterator[AnyGroup]:
        """All groups coordinated here."""
        for owned in self._owned:
            yield from list(owned.groups.values())

    def _new_group(self, group_id: str) -> Group:
        return Group(group_id, self.settings, self._new_member_id, self.now())

    def _new_member_id(self, prefix: str) -> str:
        return f"{prefix}-{self._random_id()}"

    # -- membership -------------------------------------------------------------------------

    def join(self, group_id: str, join: Join, waiter: JoinWaiter) -> None:
        """JoinGroup: ``waiter`` is called now or when the rebalance is over."""
        error = self.status(group_id)
        lowest, highest = self.settings.min_session_timeout_ms, self.settings.max_session_timeout_ms
        if error is ErrorCode.NONE and not lowest <= join.session_timeout_ms <= highest:
            error = ErrorCode.INVALID_SESSION_TIMEOUT
        if error is ErrorCode.NONE and not _can_be_stored(join):
            error = ErrorCode.INVALID_REQUEST
        if error is ErrorCode.NONE and not self._budget.admits(join, self._clock.monotonic()):
            log.warning(
                "A member is refused, the members of all groups hold too much group=%.128s "
                "client=%.128s host=%s bytes=%d",
                *(group_id, join.client_id, join.client_host, limits.GROUP_MEMBERS_BYTES_MAX),
            )
            error = ErrorCode.COORDINATOR_NOT_AVAILABLE  # to be tried again
        if error is not ErrorCode.NONE:
            waiter(JoinResult(error, join.member_id))
            return
        group = self.find(group_id)
        if group is None and join.member_id != UNKNOWN_MEMBER_ID:
            waiter(JoinResult(ErrorCode.UNKNOWN_MEMBER_ID, join.member_id))
            return
        if not isinstance(group, Group):
            try:
                group = self._make_classic(group_id, group)
            except KafkaError as refused:
                waiter(JoinResult(refused.code, join.member_id))
                return
        self.run(group, group.join(join, waiter, self.now()))
        self.discard_if_useless(group)

    def _make_classic(self, group_id: str, before: ConsumerGroup | None) -> Group:
        """A new group; one of the consumer protocol that has no members gives its place up.

        Raises KafkaError: INCONSISTENT_GROUP_PROTOCOL, or why its end could not be written; and
        as :meth:`require_room`.
        """
        if before is None:
            self.require_room(group_id)
        group = self._new_group(group_id)
        if before is not None:
            if before.data.members:
                raise KafkaError(ErrorCode.INCONSISTENT_GROUP_PROTOCOL)
            self.consumers.give_up(before)
            group.offsets = before.offsets
        self.owner_of(group_id).groups[group_id] = group
        return group

    def sync(self, group_id: str, sync: Sync, waiter: SyncWaiter) -> None:
        """SyncGroup: ``waiter`` is called now or when the assignment is stored."""
        error = self.status(group_id)
        if error is ErrorCode.COORDINATOR_LOAD_IN_PROGRESS:
            # The rebalance went on elsewhere and is lost; the group has to start over.
            error = ErrorCode.REBALANCE_IN_PROGRESS
        if error is not ErrorCode.NONE:
            waiter(SyncResult(error))
            return
        group = self._find_classic(group_id)
        if group is None:
            waiter(SyncResult(ErrorCode.UNKNOWN_MEMBER_ID))
            return
        self.run(group, group.sync(sync, waiter, self.now()))

    def heartbeat(
        self, group_id: str, member_id: str, instance_id: str | None, generation: int
    ) -> ErrorCode:
        """Heartbeat."""
        error = self.status(group_id)
        if error is ErrorCode.COORDINATOR_LOAD_IN_PROGRESS:
            return ErrorCode.NONE  # nothing is known yet that would speak against it
        if error is not ErrorCode.NONE:
            return error
        group = self._find_classic(group_id)
        if group is None:
            return ErrorCode.UNKNOWN_MEMBER_ID
        error = group.heartbeat(member_id, instance_id, generation, self.now())
        self.run(group, [])
        return error

    def leave(self, group_id: str, leaves: Sequence[Leave]) -> tuple[ErrorCode, list[ErrorCode]]:
        """LeaveGroup: an error for the request, and one for each member if that is NONE."""
        error = self.status(group_id)
        if error is not ErrorCode.NONE:
            return error, []
        group = self._find_classic(group_id)
        if group is None:
            return ErrorCode.NONE, [ErrorCode.UNKNOWN_MEMBER_ID for _ in leaves]
        error, errors, effects = group.leave(leaves, self.now())
        self.run(group, effects)
        return error, errors

    def has_room_for(self, topics: Iterable[str]) -> bool:
        """Whether one more member that reads these topics can be remembered."""
        return self._budget.admits_consumer(topics, self._clock.monotonic())

    # -- looking ----------------------------------------------------------------------------

    def describe(self, group_id: str) -> tuple[ErrorCode, GroupDescription]:
        """DescribeGroups: an unknown group is Dead, which is no error."""
        error = self.status(group_id, may_be_empty=True)
        if error is not ErrorCode.NONE:
            return error, GroupDescription("")
        group = self._find_classic(group_id)
        if group is None:
            return ErrorCode.NONE, GroupDescription(GroupState.DEAD)
        return ErrorCode.NONE, group.describe()

    def list_groups(
        self, states: Iterable[str] = (), types: Iterable[str] = ()
    ) -> tuple[ErrorCode, list[GroupListing]]:
        """ListGroups, by state and type if any are given (in any case of letters)."""
        if not self._active:
            return ErrorCode.COORDINATOR_NOT_AVAILABLE, []
        error = ErrorCode.COORDINATOR_LOAD_IN_PROGRESS if self._owned.loading else ErrorCode.NONE
        wanted_states = {state.lower() for state in states}
        wanted_types = {name.lower() for name in types}
        return error, [
            listing
            for listing in map(_listing, self.groups())
            if (not wanted_states or listing.state.lower() in wanted_states)
            and (not wanted_types or listing.type.lower() in wanted_types)
        ]

    # -- running groups ---------------------------------------------------------------------

    def now(self) -> Moment:
        return Moment(self._clock.monotonic(), self._clock.wall_ms())

    def watch(self, group: AnyGroup, earliest: float = 0.0) -> None:
        """Be there at the group's next deadline, but not before ``earliest`` (seconds)."""
        deadline = group.next_deadline()
        if deadline != math.inf:
            self._deadlines.set(group.group_id, max(deadline, earliest))

    def run(self, group: Group, effects: list[Effect]) -> None:
        """Carry out what a group wants done, and be there at its next deadline."""
        self.watch(group)
        for effect in effects:
            if isinstance(effect, StoreGroup):
                self._store(group, effect)
            elif isinstance(effect, AnswerJoin):
                effect.waiter(effect.result)
            else:
                effect.waiter(effect.result)

    def _store(self, group: Group, effect: StoreGroup) -> None:
        def done(code: ErrorCode) -> None:
            self.run(group, group.stored(effect.ticket, group_error(code), self.now()))

        partition = self.partition_of(group.group_id)
        record = (records.group_key(group.group_id), records.group_value(effect.image))
        try:
            position = self._journal.append(partition, [record])
        except KafkaError as error:
            log.warning(
                "Group could not be stored group=%.128s generation=%d error=%s",
                *(group.group_id, effect.image.generation, error),
            )
            done(error.code)
            return
        self._journal.when_replicated(
            partition, position + 1, self.settings.commit_timeout_ms, done
        )

    def _on_due(self, group_id: str) -> None:
        group = self.find(group_id)
        if isinstance(group, Group):
            self.run(group, group.on_time(self.now()))
        elif group is not None:
            self.consumers.on_due(group)


def _listing(group: AnyGroup) -> GroupListing:
    if isinstance(group, Group):
        return GroupListing(group.group_id, group.protocol_type or "", group.state, CLASSIC)
    return GroupListing(group.group_id, CONSUMER_PROTOCOL, group.state, CONSUMER)
