"""Runs the consumer groups (KIP-848) of a coordinator: heartbeats, deadlines, descriptions."""

import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from kavka.broker.coordination.journal import Journal, KeyValue
from kavka.broker.groups.consumer import records
from kavka.broker.groups.consumer.assignors import Topic
from kavka.broker.groups.consumer.group import Beat, ConsumerGroup, Decision, Reply
from kavka.broker.groups.consumer.member import JOINING
from kavka.broker.groups.consumer.settings import ConsumerGroupSettings
from kavka.broker.groups.core import GroupState
from kavka.broker.groups.errors import group_error
from kavka.broker.groups.records import group_key
from kavka.protocol.errors import ErrorCode, KafkaError

if TYPE_CHECKING:
    from kavka.broker.groups.coordinator import GroupCoordinator

log = logging.getLogger("kavka.groups")

_RETRY_SECONDS: Final = 1.0  # until a deadline that could not be acted on is looked at again


class TopicSource(Protocol):
    """What groups ask of the metadata cache."""

    @property
    def version(self) -> int:
        """Grows with every change."""

    def find(self, names: frozenset[str]) -> Mapping[str, Topic]:
        """Of these topics those that exist."""

    def matching(self, regex: str) -> frozenset[str]:
        """The topics whose whole name matches. Raises KafkaError INVALID_REGULAR_EXPRESSION."""


class NoTopics:
    """Of a coordinator that has no metadata."""

    version = 0

    def find(self, names: frozenset[str]) -> Mapping[str, Topic]:
        return {}

    def matching(self, regex: str) -> frozenset[str]:
        return frozenset()


class Outcome(NamedTuple):
    """The answer to a heartbeat; ``reply`` only without error."""

    error: ErrorCode
    reply: Reply | None = None
    message: str | None = None


class ConsumerGroups:
    """The consumer groups among the groups of ``coordinator``."""

    def __init__(
        self,
        coordinator: "GroupCoordinator",
        journal: Journal,
        settings: ConsumerGroupSettings,
        topics: TopicSource,
        new_member_id: Callable[[], str],
    ) -> None:
        self.settings = settings
        self._coordinator = coordinator
        self._journal = journal
        self._topics = topics
        self._new_member_id = new_member_id

    # -- heartbeats ----------------------------------------------------------------------------

    def heartbeat(
        self,
        group_id: str,
        beat: Beat,
        done: Callable[[Outcome], None],
        may_read: Callable[[str], bool] | None = None,
    ) -> None:
        """ConsumerGroupHeartbeat; ``done`` is called now or when what it changed is kept.

        Of the topics that match its regular expression a member gets those that it ``may_read``.
        """
        error = self._coordinator.status(group_id)
        if error is not ErrorCode.NONE:
            done(Outcome(error))
            return
        if not beat.member_id and beat.epoch == JOINING:
            beat = beat._replace(member_id=self._new_member_id())
        if beat.epoch == JOINING and not self._coordinator.has_room_for(beat.topics or ()):
            done(Outcome(ErrorCode.COORDINATOR_NOT_AVAILABLE))
            return
        try:
            group, extra = self._find(group_id, beat)
            beat = self._resolve(group, beat, may_read)
            decision = group.heartbeat(beat, self._topics.find, self._topics.version)
        except KafkaError as refused:
            done(Outcome(refused.code, message=refused.message))
            return
        self._write(group, decision, beat, extra, done)

    def _find(self, group_id: str, beat: Beat) -> tuple[ConsumerGroup, list[KeyValue]]:
        """The group, made if somebody may make it by joining, and what else is to be written:
        a group of the classic protocol without members gives its place up."""
        group = self._coordinator.find(group_id)
        if isinstance(group, ConsumerGroup):
            return group, []
        if group is not None and group.state is not GroupState.EMPTY:
            raise KafkaError(
                ErrorCode.GROUP_ID_NOT_FOUND, f"Group {group_id} is not a consumer group."
            )
        if beat.epoch != JOINING:
            raise KafkaError(
                ErrorCode.UNKNOWN_MEMBER_ID if group is None else ErrorCode.GROUP_ID_NOT_FOUND,
                f"Consumer group {group_id} not found.",
            )
        if group is None:
            self._coordinator.require_room(group_id)
        made = ConsumerGroup(group_id, self.settings, self._coordinator.now())
        extra: list[KeyValue] = []
        if group is not None:
            made.offsets = group.offsets
            if group.generation > 0:
                extra.append((group_key(group_id), None))
        return made, extra

    def _resolve(
        self, group: ConsumerGroup, beat: Beat, may_read: Callable[[str], bool] | None
    ) -> Beat:
        """Turn a regular expression, told now or before, into the topics that match it today."""
        regex = beat.regex
        if regex is None and beat.topics is None:
            member = group.data.members.get(beat.member_id)
            regex = None if member is None else member.regex
        if not regex:
            return beat._replace(regex=None)
        topics = self._topics.matching(regex)
        if may_read is not None:
            topics = frozenset(filter(may_read, topics))
        return beat._replace(regex=regex, topics=topics)

    def _write(
        self,
        group: ConsumerGroup,
        decision: Decision,
        beat: Beat | None,
        extra: list[KeyValue],
        done: Callable[[Outcome], None],
    ) -> None:
        """Write what a step came to, and let it count; or leave all as it was."""
        coordinator = self._coordinator
        if not decision.updates:
            group.carry_on(decision, beat, coordinator.now())
            coordinator.watch(group)
            done(Outcome(ErrorCode.NONE, decision.reply))
            return
        batch = extra + [records.record_of(group.group_id, update) for update in decision.updates]
        partition = coordinator.partition_of(group.group_id)
        try:
            position = self._journal.append(partition, batch)
        except KafkaError as error:
            log.warning(
                "Consumer group could not be stored group=%.128s epoch=%d error=%s",
                *(group.group_id, decision.data.epoch, error),
            )
            done(Outcome(group_error(error.code)))
            return
        coordinator.owner_of(group.group_id).groups[group.group_id] = group
        group.carry_on(decision, beat, coordinator.now())
        coordinator.watch(group)
        if decision.reason:
            log.info(
                "Consumer group is assigned anew: %s group=%.128s epoch=%d members=%d",
                *(decision.reason, group.group_id, group.data.epoch, len(group.data.members)),
            )

        def replicated(code: ErrorCode) -> None:
            if code is ErrorCode.NONE:
                done(Outcome(code, decision.reply))
            else:
                done(Outcome(group_error(code)))

        self._journal.when_replicated(
            partition,
            position + len(batch),
            coordinator.settings.commit_timeout_ms,
            replicated,
        )

    def on_due(self, group: ConsumerGroup) -> None:
        """A deadline of the group may have passed."""
        now = self._coordinator.now()
        decision = group.on_time(now)
        if decision is None:
            self._coordinator.watch(group)
            return

        def written(outcome: Outcome) -> None:
            if outcome.error is not ErrorCode.NONE:
                self._coordinator.watch(group, now.seconds + _RETRY_SECONDS)

        self._write(group, decision, None, [], written)

    def give_up(self, group: ConsumerGroup) -> None:
        """Write that a group without members is none of this protocol any more.

        Raises KafkaError.
        """
        keys = list(records.tombstones(group.group_id, group.data))
        try:
            self._journal.append(
                self._coordinator.partition_of(group.group_id), [(key, None) for key in keys]
            )
        except KafkaError as error:
            raise KafkaError(group_error(error.code)) from error

    # -- looking -------------------------------------------------------------------------------

    def describe(self, group_id: str) -> tuple[ErrorCode, ConsumerGroup | None]:
        """ConsumerGroupDescribe: the group, to be looked at only, or why there is none."""
        error = self._coordinator.status(group_id)
        if error is not ErrorCode.NONE:
            return error, None
        group = self._coordinator.find(group_id)
        if isinstance(group, ConsumerGroup):
            return ErrorCode.NONE, group
        return ErrorCode.GROUP_ID_NOT_FOUND, None
