"""Committing, reading, deleting and expiring offsets."""

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from kavka.broker.coordination.journal import Journal, KeyValue, TransactionalProducer
from kavka.broker.coordination.timers import CallLater, TimerHandle
from kavka.broker.groups import records
from kavka.broker.groups.consumer import records as consumer_records
from kavka.broker.groups.consumer.group import ConsumerGroup
from kavka.broker.groups.core import GroupState
from kavka.broker.groups.errors import commit_error
from kavka.broker.groups.expiry import expired_offsets
from kavka.broker.groups.group import Group
from kavka.broker.groups.offsets import LOG_END, CommittedOffset
from kavka.broker.groups.partition import AnyGroup, GroupPartition
from kavka.config import limits
from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.protocol.topics import TopicPartition
from kavka.storage.clock import Clock

if TYPE_CHECKING:
    from kavka.broker.groups.coordinator import GroupCoordinator

log = logging.getLogger("kavka.groups")

Results: TypeAlias = dict[TopicPartition, ErrorCode]

ACKS_ALL: Final = -1
_TOMBSTONES_PER_BATCH: Final = 1_000


class Commit(NamedTuple):
    """An OffsetCommit, or with a ``producer`` a TxnOffsetCommit: under which name, and what."""

    group_id: str
    member_id: str
    instance_id: str | None
    generation: int
    offsets: Sequence[tuple[TopicPartition, CommittedOffset]]
    producer: TransactionalProducer | None = None


class FetchedOffset(NamedTuple):
    """One answer of OffsetFetch; ``value`` is None when nothing is committed."""

    partition: TopicPartition
    value: CommittedOffset | None
    error: ErrorCode = ErrorCode.NONE


class _Removal(NamedTuple):
    group: AnyGroup
    partitions: Sequence[TopicPartition]
    vanishes: bool  # nothing is left of the group then


class OffsetKeeper:
    """The offsets of the groups that ``coordinator`` runs."""

    def __init__(
        self,
        coordinator: "GroupCoordinator",
        journal: Journal,
        clock: Clock,
        call_later: CallLater,
    ) -> None:
        self._coordinator = coordinator
        self._journal = journal
        self._clock = clock
        self._call_later = call_later
        self._settings = coordinator.settings
        self._timer: TimerHandle | None = None

    def start(self) -> None:
        """Look for expired offsets from time to time."""
        if self._timer is None:
            self._schedule_expiry()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # -- committing -------------------------------------------------------------------------

    def commit(self, commit: Commit, done: Callable[[Results], None]) -> None:
        """OffsetCommit: ``done`` gets an error for each partition once all is replicated.

        In a transaction the offsets count only from its end, by :meth:`end_transaction`.
        """
        error, group = self._may_commit(commit)
        if group is None:
            done({partition: error for partition, _ in commit.offsets})
            return
        results: Results = {}
        accepted: list[tuple[TopicPartition, CommittedOffset]] = []
        longest = self._settings.max_offset_metadata_size
        for partition, value in commit.offsets:
            if len(value.metadata) > longest or not _fits_record(value.metadata):
                results[partition] = ErrorCode.OFFSET_METADATA_TOO_LARGE
            else:
                accepted.append((partition, value))
        if accepted:
            self._append_commit(group, accepted, commit.producer, results, done)
        else:
            done(results)
        self._coordinator.discard_if_useless(group)

    def _may_commit(self, commit: Commit) -> tuple[ErrorCode, AnyGroup | None]:
        in_transaction = commit.producer is not None
        error = self._coordinator.status(commit.group_id, may_be_empty=not in_transaction)
        if error is not ErrorCode.NONE:
            return error, None
        group = self._coordinator.find(commit.group_id)
        if group is None:
            if commit.generation >= 0 and not in_transaction:
                # The group relied on the coordinator, which has forgotten it since.
                return ErrorCode.ILLEGAL_GENERATION, None
            try:
                group = self._coordinator.find_or_create(commit.group_id)
            except KafkaError as refused:
                return refused.code, None
        who = commit.member_id, commit.instance_id, commit.generation
        if in_transaction:
            error = group.may_commit_in_transaction(*who)
        else:
            error = group.may_commit(*who, self._coordinator.now())
        self._coordinator.watch(group)
        if error is ErrorCode.NONE:
            return error, group
        self._coordinator.discard_if_useless(group)
        return error, None

    def _append_commit(
        self,
        group: AnyGroup,
        offsets: list[tuple[TopicPartition, CommittedOffset]],
        producer: TransactionalProducer | None,
        results: Results,
        done: Callable[[Results], None],
    ) -> None:
        index = self._coordinator.partition_of(group.group_id)
        batch = [
            (records.offset_key(group.group_id, partition), records.offset_value(value))
            for partition, value in offsets
        ]
        try:
            first = self._journal.append(index, batch, producer)
        except KafkaError as failure:
            log.warning(
                "Offsets could not be stored group=%.128s partitions=%d error=%s",
                *(group.group_id, len(offsets), failure),
            )
            code = commit_error(failure.code)
            results.update({partition: code for partition, _ in offsets})
            done(results)
            return
        placed = [(*offset, position) for position, offset in enumerate(offsets, first)]
        if producer is None:
            for partition, _, position in placed:
                group.offsets.begin(partition, position)
        else:
            # Now, not when it is replicated: the marker stands behind it, and may be told first.
            self._note_transactional(group, producer, placed)

        def replicated(code: ErrorCode) -> None:
            results.update(dict.fromkeys((p for p, _ in offsets), commit_error(code)))
            if producer is None:
                for partition, value, position in placed:
                    if code is ErrorCode.NONE:
                        group.offsets.finish(partition, position, value)
                    else:
                        group.offsets.give_up(partition, position)
            done(results)

        if producer is not None or self._settings.commit_required_acks == ACKS_ALL:
            self._journal.when_replicated(
                index, first + len(offsets), self._settings.commit_timeout_ms, replicated
            )
        else:
            replicated(ErrorCode.NONE)

    def _note_transactional(
        self,
        group: AnyGroup,
        producer: TransactionalProducer,
        placed: Iterable[tuple[TopicPartition, CommittedOffset, int]],
    ) -> None:
        for partition, value, position in placed:
            group.offsets.put_transactional(producer.producer_id, partition, value, position)
        owned = self._coordinator.owner_of(group.group_id)
        owned.note_transaction(producer.producer_id, group.group_id)

    # -- reading ----------------------------------------------------------------------------

    def fetch(
        self,
        group_id: str,
        partitions: Iterable[TopicPartition] | None,
        require_stable: bool = False,
    ) -> tuple[ErrorCode, list[FetchedOffset]]:
        """OffsetFetch of some partitions, or of all with an offset.

        With ``require_stable`` (KIP-447) a partition that has a commit under way is answered
        UNSTABLE_OFFSET_COMMIT, for its reader to ask again.
        """
        error = self._coordinator.status(group_id, may_be_empty=True)
        if error is not ErrorCode.NONE:
            return error, []
        group = self._coordinator.find(group_id)
        if group is None:
            return ErrorCode.NONE, [FetchedOffset(p, None) for p in partitions or ()]
        offsets = group.offsets
        if partitions is None:
            partitions = [partition for partition, _ in offsets]
        return ErrorCode.NONE, [
            FetchedOffset(partition, None, ErrorCode.UNSTABLE_OFFSET_COMMIT)
            if require_stable and offsets.is_unstable(partition)
            else FetchedOffset(partition, offsets.get(partition))
            for partition in partitions
        ]

    def may_fetch(self, group_id: str, member_id: str | None, epoch: int) -> ErrorCode:
        """Whether a member of the consumer protocol has the epoch that it was given last."""
        group = self._coordinator.find(group_id)
        if isinstance(group, ConsumerGroup):
            return group.may_fetch(member_id, epoch)
        return ErrorCode.NONE

    def end_transaction(
        self, partition: int, producer_id: int, committed: bool, marker_offset: int = LOG_END
    ) -> None:
        """A transaction's marker stands at ``marker_offset`` of a partition of
        ``__consumer_offsets``."""
        owned = self._coordinator.owned_partition(partition)
        if owned is not None:
            owned.end_transaction(producer_id, committed, marker_offset)

    # -- deleting ---------------------------------------------------------------------------

    def delete_groups(
        self, group_ids: Iterable[str], done: Callable[[dict[str, ErrorCode]], None]
    ) -> None:
        """DeleteGroups: only groups without members go, with all their offsets."""
        results: dict[str, ErrorCode] = {}
        doomed: dict[int, list[AnyGroup]] = {}
        for group_id in dict.fromkeys(group_ids):
            error = self._coordinator.status(group_id, may_be_empty=True)
            group = self._coordinator.find(group_id) if error is ErrorCode.NONE else None
            if error is not ErrorCode.NONE:
                results[group_id] = error
            elif group is None:
                results[group_id] = ErrorCode.GROUP_ID_NOT_FOUND
            elif group.state is not GroupState.EMPTY:
                results[group_id] = ErrorCode.NON_EMPTY_GROUP
            else:
                index = self._coordinator.owner_of(group_id).index
                doomed.setdefault(index, []).append(group)
        if not doomed:
            done(results)
            return
        waiting = set(doomed)

        def finished(index: int, code: ErrorCode) -> None:
            results.update({group.group_id: code for group in doomed[index]})
            waiting.discard(index)
            if not waiting:
                done(results)

        for index, groups in doomed.items():
            for group in groups:
                if isinstance(group, Group):
                    group.pending_members.clear()  # ids are worth nothing without the group
            removals = [(group, group.offsets.partitions()) for group in groups]
            self._remove(index, removals, partial(finished, index))

    def delete_offsets(
        self,
        group_id: str,
        partitions: Collection[TopicPartition],
        done: Callable[[ErrorCode, Results], None],
    ) -> None:
        """OffsetDelete (KIP-496): an error for all, or one for each partition."""
        error = self._coordinator.status(group_id)
        group = self._coordinator.find(group_id) if error is ErrorCode.NONE else None
        if error is ErrorCode.NONE and group is None:
            error = ErrorCode.GROUP_ID_NOT_FOUND
        if group is None:
            done(error, {})
            return
        results: Results = {}
        if group.state is not GroupState.EMPTY:
            if isinstance(group, Group) and not group.is_consumer_group:
                done(ErrorCode.NON_EMPTY_GROUP, {})
                return
            subscribed = group.subscribed_topics()
            for partition in partitions:
                if subscribed is None or partition.topic in subscribed:
                    results[partition] = ErrorCode.GROUP_SUBSCRIBED_TO_TOPIC
        eligible = [partition for partition in partitions if partition not in results]

        def finished(code: ErrorCode) -> None:
            results.update(dict.fromkeys(eligible, code))
            done(ErrorCode.NONE, results)

        present = group.offsets.partitions() & set(eligible)
        index = self._coordinator.owner_of(group_id).index
        self._remove(index, [(group, present)], finished)

    def forget_partitions(self, partitions: Iterable[TopicPartition]) -> None:
        """Their topic was deleted: no group keeps an offset for them."""
        gone = frozenset(partitions)
        for owned in self._coordinator.owned_partitions():
            removals = [
                (group, group.offsets.partitions() & gone) for group in owned.groups.values()
            ]
            self._remove(owned.index, [r for r in removals if r[1]], _nobody_waits)

    def _remove(
        self,
        index: int,
        removals: Sequence[tuple[AnyGroup, Collection[TopicPartition]]],
        done: Callable[[ErrorCode], None],
    ) -> None:
        """Write tombstones, forget what they delete, and wait for their replication.

        A group of which nothing is left goes too. With an error, what was not written stays.
        """
        end_offset = -1
        try:
            for batch in _batches(removals):
                end_offset = self._append_tombstones(index, batch)
        except KafkaError as failure:
            log.warning(
                "Offsets could not be deleted partition=%d groups=%d error=%s",
                *(index, len(removals), failure),
            )
            done(commit_error(failure.code))
            return
        if end_offset < 0:
            done(ErrorCode.NONE)
            return
        self._journal.when_replicated(
            index,
            end_offset,
            self._settings.commit_timeout_ms,
            lambda code: done(commit_error(code)),
        )

    def _append_tombstones(self, index: int, removals: Sequence[_Removal]) -> int:
        tombstones: list[KeyValue] = []
        for removal in removals:
            group = removal.group
            tombstones.extend(
                (records.offset_key(group.group_id, partition), None)
                for partition in removal.partitions
            )
            # A group that only ever kept offsets has no record of its own.
            if removal.vanishes and group.generation > 0:
                tombstones.extend((key, None) for key in _own_keys(group))
        end_offset = -1
        if tombstones:
            end_offset = self._journal.append(index, tombstones) + len(tombstones)
        for removal in removals:
            for partition in removal.partitions:
                removal.group.offsets.remove(partition)
            if removal.vanishes:
                log.info(
                    "Group is gone group=%.128s generation=%d",
                    *(removal.group.group_id, removal.group.generation),
                )
                removal.group.bury(self._coordinator.now())
                self._coordinator.forget(removal.group)
        return end_offset

    # -- expiring ---------------------------------------------------------------------------

    def expire(self) -> None:
        """Delete offsets that are too old, and groups of which nothing is left."""
        for owned in self._coordinator.owned_partitions():
            self._expire_in(owned)

    def _expire_in(self, owned: GroupPartition) -> None:
        retention_ms = self._settings.offsets_retention_minutes * 60_000
        now_ms = self._clock.wall_ms()
        removals: list[tuple[AnyGroup, Collection[TopicPartition]]] = []
        count = 0
        for group in owned.groups.values():
            expired = expired_offsets(group, now_ms, retention_ms)
            if expired or group.may_vanish:
                removals.append((group, expired))
                count += len(expired)
        if removals:
            self._remove(owned.index, removals, _nobody_waits)
        if count:
            log.info("Offsets expired partition=%d offsets=%d", owned.index, count)

    def _schedule_expiry(self) -> None:
        interval = self._settings.retention_check_interval_ms / 1000
        self._timer = self._call_later(interval, self._begin_expiry)

    def _begin_expiry(self) -> None:
        self._expire_next(list(self._coordinator.owned_partitions()))

    def _expire_next(self, owned: list[GroupPartition]) -> None:
        """One partition a turn, so that many groups do not hold up the loop."""
        try:
            if owned:
                self._expire_in(owned.pop())
        finally:
            if owned:
                self._timer = self._call_later(0.0, partial(self._expire_next, owned))
            else:
                self._schedule_expiry()


def _fits_record(metadata: str) -> bool:
    if len(metadata) <= limits.GROUP_TEXT_CHARACTERS_MAX:
        return True
    return len(metadata.encode()) <= limits.STRING_BYTES_MAX


def _own_keys(group: AnyGroup) -> Iterable[bytes]:
    """The keys of what is stored of a group without members, its offsets aside."""
    if isinstance(group, Group):
        return (records.group_key(group.group_id),)
    return consumer_records.tombstones(group.group_id, group.data)


def _nobody_waits(code: ErrorCode) -> None:
    """Nobody is told of this deletion; what failed is logged and tried again at the next check."""


def _batches(
    removals: Iterable[tuple[AnyGroup, Collection[TopicPartition]]],
) -> Iterator[list[_Removal]]:
    """Cut removals into batches of a bounded number of records."""
    batch: list[_Removal] = []
    room = _TOMBSTONES_PER_BATCH
    for group, all_partitions in removals:
        partitions = list(all_partitions)
        vanishes = (
            group.state is GroupState.EMPTY
            and not (isinstance(group, Group) and group.pending_members)
            and group.offsets.partitions() <= set(partitions)
        )
        for start in range(0, len(partitions) or 1, _TOMBSTONES_PER_BATCH):
            part = partitions[start : start + _TOMBSTONES_PER_BATCH]
            if len(part) + 1 > room and batch:
                yield batch
                batch, room = [], _TOMBSTONES_PER_BATCH
            is_last = start + _TOMBSTONES_PER_BATCH >= len(partitions)
            batch.append(_Removal(group, part, vanishes and is_last))
            room -= len(part) + 1
    if batch:
        yield batch
