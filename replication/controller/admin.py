"""Creates and extends topics and marks them for deletion, by writing the store.

Any broker may do this, not only the controller, which learns of it from the store. The rules
and their order are those of Kafka 2.3's AdminManager; what later versions added (defaults of
KIP-464, ids of KIP-516) is here as well.
"""

import asyncio
from collections.abc import Mapping, Sequence
from random import Random
from typing import NamedTuple

from kavka.config.broker import BrokerConfig
from kavka.config.limits import PARTITIONS_PER_TOPIC_MAX
from kavka.config.option import ConfigError
from kavka.config.topic import validate
from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.protocol.topics import collision_name, topic_name_problem
from kavka.replication import znodes
from kavka.replication.assignment import Candidate, assign_replicas, extension_start
from kavka.replication.controller.operations import (
    DEFAULT_COUNT,
    CreatedTopic,
    NewPartitions,
    NewTopic,
    Outcome,
    Permit,
)
from kavka.replication.controller.partition_cap import PartitionCap, Room
from kavka.replication.controller.patience import store_failure
from kavka.replication.metadata import MetadataCache
from kavka.replication.store.base import (
    BadVersion,
    Create,
    MetadataStore,
    MultiFailed,
    NodeExists,
    NoNode,
    Operation,
    SetData,
    StoreError,
)
from kavka.replication.store.outlasting import OutlastingStore
from kavka.replication.znodes import TopicNode


class PlannedTopic(NamedTuple):
    """A topic that may be created as it stands here."""

    name: str
    node: TopicNode
    configs: Mapping[str, str]
    room: Room | None = None
    """What it takes of the instance's partitions: held until it is created or given up."""

    def give_up(self) -> None:
        """It will not be created."""
        if self.room is not None:
            self.room.give_back()

    def ask(self, permit: Permit) -> None:
        """Give it up and raise what ``permit`` raises, if it does."""
        try:
            permit(len(self.node.partitions))
        except KafkaError:
            self.give_up()
            raise

    def created(self, error: Outcome = None) -> CreatedTopic:
        """The topic as the answer describes it."""
        replicas = next(iter(self.node.partitions.values()))
        return CreatedTopic(
            self.name,
            error,
            self.node.topic_id,
            len(self.node.partitions),
            len(replicas),
            self.configs,
        )


def new_topic_id(random: Random) -> bytes:
    """A random id (UUID version 4) whose text does not begin with '-', which tools would take
    for an option.
    """
    while True:
        value = bytearray(random.randbytes(16))
        value[6] = value[6] & 0x0F | 0x40
        value[8] = value[8] & 0x3F | 0x80
        if not znodes.encode_uuid(bytes(value)).startswith("-"):
            return bytes(value)


def too_many_partitions() -> KafkaError:
    """What is said of the topics of a request that come after too many partitions."""
    return KafkaError(
        ErrorCode.INVALID_PARTITIONS,
        f"All topics of the request have more than {PARTITIONS_PER_TOPIC_MAX} new partitions, the "
        "most that one request may ask for.",
    )


class TopicAdmin:
    """Writes what the controller then carries out."""

    def __init__(
        self, store: MetadataStore, metadata: MetadataCache, config: BrokerConfig, random: Random
    ) -> None:
        self._store = OutlastingStore(store)
        self._metadata = metadata
        self._config = config
        self._random = random
        self.partition_cap = PartitionCap(metadata, config)
        self._collisions: tuple[int, Mapping[str, str]] | None = None

    # -- creation -----------------------------------------------------------------------------

    def plan(self, topic: NewTopic) -> PlannedTopic:
        """Check a new topic and place its replicas.

        The plan must be created, or given up. Raises KafkaError.
        """
        if topic.name in self._metadata.topics:
            raise _exists(topic.name)
        try:
            validate(topic.configs)
        except ConfigError as error:
            raise KafkaError(ErrorCode.INVALID_CONFIG, error.message) from None
        assignment = self._assignment(topic)
        self._check_name(topic.name)
        configs = {name: value for name, value in topic.configs.items() if value is not None}
        return PlannedTopic(
            topic.name,
            TopicNode(new_topic_id(self._random), assignment),
            configs,
            self.partition_cap.reserve(topic.name, len(assignment)),
        )

    def _assignment(self, topic: NewTopic) -> Mapping[int, Sequence[int]]:
        by_counts = (topic.partitions, topic.replication_factor) != (DEFAULT_COUNT, DEFAULT_COUNT)
        if topic.assignment is not None:
            if by_counts:
                raise KafkaError(
                    ErrorCode.INVALID_REQUEST,
                    "Both numPartitions or replicationFactor and replicasAssignments were set. "
                    "Both cannot be used at the same time.",
                )
            return _checked(topic.assignment)
        partitions, factor = topic.partitions, topic.replication_factor
        if partitions == DEFAULT_COUNT:
            partitions = self._config.get_int("num.partitions")
        if factor == DEFAULT_COUNT:
            factor = self._config.get_int("default.replication.factor")
        brokers = self._candidates()
        return assign_replicas(
            brokers,
            partitions,
            factor,
            start_index=self._draw(brokers),
            shift=self._draw(brokers),
            ignore_racks=topic.ignore_racks,
        )

    def _candidates(self) -> list[Candidate]:
        return [Candidate(broker.id, broker.rack) for broker in self._metadata.brokers.values()]

    def _draw(self, brokers: Sequence[Candidate]) -> int:
        return self._random.randrange(len(brokers)) if brokers else 0

    def _check_name(self, name: str) -> None:
        problem = topic_name_problem(name)
        if problem is not None:
            raise KafkaError(ErrorCode.INVALID_TOPIC_EXCEPTION, f"Topic name is invalid: {problem}")
        if "." in name or "_" in name:
            other = self._colliding().get(collision_name(name))
            if other is not None:
                raise KafkaError(
                    ErrorCode.INVALID_TOPIC_EXCEPTION,
                    f"Topic '{name}' collides with existing topics: {other}",
                )

    def _colliding(self) -> Mapping[str, str]:
        """Topics by what their names collide in; worked out anew when the metadata changes."""
        version = self._metadata.version
        if self._collisions is None or self._collisions[0] != version:
            names = {collision_name(name): name for name in self._metadata.topics}
            self._collisions = version, names
        return self._collisions[1]

    async def create(self, topics: Sequence[PlannedTopic]) -> dict[str, Outcome]:
        """Write new topics, all with one sync of the disk if the store can."""
        results = await asyncio.gather(
            *(self._create_one(topic) for topic in topics), return_exceptions=True
        )
        for topic, result in zip(topics, results, strict=True):
            if topic.room is None:
                continue
            if result is None:
                topic.room.use()
            else:
                topic.room.give_back()
        return _outcomes([topic.name for topic in topics], results)

    async def _create_one(self, topic: PlannedTopic) -> None:
        path = znodes.config_path("topics", topic.name)
        body = znodes.encode_config(topic.configs)
        create = Create(znodes.topic_path(topic.name), znodes.encode_topic(topic.node))
        # The configuration may have been left behind, or been made in advance by a tool.
        config_writes: tuple[Operation, ...] = (Create(path, body), SetData(path, body))
        for write_config in config_writes:
            try:
                await self._store.multi([write_config, create])
            except MultiFailed as failure:
                if failure.index == 0 and isinstance(failure.error, NodeExists):
                    continue
                if isinstance(failure.error, NodeExists):
                    if await self._is_there(topic.name, topic.node):
                        return  # by an attempt whose answer was lost
                    raise _exists(topic.name) from None
                raise failure.error from None
            return

    async def _is_there(self, name: str, written: TopicNode) -> bool:
        """Whether the topic in the store is the one that was to be written, and has its
        partitions."""
        path = znodes.topic_path(name)
        try:
            found = znodes.decode_topic(path, (await self._store.get(path))[0])
        except NoNode:
            return False
        return found.topic_id == written.topic_id and all(
            found.partitions.get(index) == tuple(replicas)
            for index, replicas in written.partitions.items()
        )

    # -- extension ----------------------------------------------------------------------------

    async def extend(
        self,
        topics: Sequence[NewPartitions],
        *,
        validate_only: bool,
        permit: Permit | None = None,
    ) -> dict[str, Outcome]:
        """Add partitions to topics."""
        outcomes: dict[str, Outcome] = {}
        known: list[NewPartitions] = []
        room = PARTITIONS_PER_TOPIC_MAX
        for topic in topics:
            there = self._metadata.topics.get(topic.topic)
            if there is None:
                outcomes[topic.topic] = _unknown(topic.topic)
                continue
            room -= max(topic.total - len(there.partitions), 0)
            if room < 0:
                outcomes[topic.topic] = too_many_partitions()
            else:
                known.append(topic)
        results = await asyncio.gather(
            *(self._extend_one(topic, validate_only, permit) for topic in known),
            return_exceptions=True,
        )
        return {**outcomes, **_outcomes([topic.topic for topic in known], results)}

    async def _extend_one(
        self, wanted: NewPartitions, validate_only: bool, permit: Permit | None
    ) -> None:
        path = znodes.topic_path(wanted.topic)
        marked = self._store.exists(znodes.delete_topic_path(wanted.topic))
        node = self._store.get(path)
        if await marked is not None:
            await asyncio.gather(node, return_exceptions=True)
            raise KafkaError(ErrorCode.INVALID_TOPIC_EXCEPTION, "The topic is queued for deletion.")
        try:
            data, stat = await node
        except NoNode:
            raise _unknown(wanted.topic) from None
        topic = znodes.decode_topic(path, data)
        if topic.adding or topic.removing:
            raise KafkaError(
                ErrorCode.REASSIGNMENT_IN_PROGRESS,
                f"A partition reassignment is in progress for the topic '{wanted.topic}'.",
            )
        added = self._added(wanted, topic)
        room = self.partition_cap.reserve(wanted.topic, wanted.total)
        try:
            if validate_only:
                return
            if permit is not None:
                permit(len(added))
            extended = topic._replace(partitions={**topic.partitions, **added})
            try:
                await self._store.set(path, znodes.encode_topic(extended), stat.version)
            except BadVersion:
                if not await self._is_there(wanted.topic, extended):
                    raise KafkaError(
                        ErrorCode.REASSIGNMENT_IN_PROGRESS,
                        f"The topic '{wanted.topic}' is being changed by somebody else.",
                    ) from None
            if room is not None:
                room.use()
                room = None
        finally:
            if room is not None:
                room.give_back()

    def _added(self, wanted: NewPartitions, topic: TopicNode) -> Mapping[int, Sequence[int]]:
        have = len(topic.partitions)
        if wanted.total < have:
            raise KafkaError(
                ErrorCode.INVALID_PARTITIONS,
                f"Topic currently has {have} partitions, which is higher than the requested "
                f"{wanted.total}.",
            )
        if wanted.total == have:
            raise KafkaError(ErrorCode.INVALID_PARTITIONS, f"Topic already has {have} partitions.")
        first_replicas = topic.partitions.get(0, ())
        brokers = sorted(self._candidates())
        if wanted.assignments is None:
            start = extension_start(brokers, first_replicas)
            return assign_replicas(
                brokers,
                wanted.total - have,
                len(first_replicas),
                start_index=start,
                shift=start,
                start_partition=have,
            )
        if len(wanted.assignments) != wanted.total - have:
            raise KafkaError(
                ErrorCode.INVALID_REPLICA_ASSIGNMENT,
                f"Increasing the number of partitions by {wanted.total - have} but "
                f"{len(wanted.assignments)} assignments provided.",
            )
        known = {broker.broker_id for broker in brokers}
        unknown = sorted({b for replicas in wanted.assignments for b in replicas} - known)
        if unknown:
            raise KafkaError(
                ErrorCode.INVALID_REPLICA_ASSIGNMENT,
                f"Unknown broker(s) in replica assignment: {', '.join(map(str, unknown))}.",
            )
        if any(len(replicas) != len(first_replicas) for replicas in wanted.assignments):
            raise KafkaError(
                ErrorCode.INVALID_REPLICA_ASSIGNMENT,
                f"Inconsistent replication factor: the topic has {len(first_replicas)} replicas "
                "of each partition.",
            )
        assignment = dict(enumerate(wanted.assignments, start=have))
        return _checked(assignment, first=have)

    # -- deletion -----------------------------------------------------------------------------

    async def mark_for_deletion(self, names: Sequence[str]) -> dict[str, Outcome]:
        """Ask the controller, through the store, to delete topics."""
        known = [name for name in names if name in self._metadata.topics]
        results = await asyncio.gather(
            *(self._mark_one(name) for name in known), return_exceptions=True
        )
        outcomes: dict[str, Outcome] = {name: _unknown(name) for name in names}
        return {**outcomes, **_outcomes(known, results)}

    async def _mark_one(self, name: str) -> None:
        try:
            await self._store.create(znodes.delete_topic_path(name))
        except NodeExists:
            return  # somebody has asked before


def _checked(
    assignment: Mapping[int, Sequence[int]], first: int = 0
) -> Mapping[int, Sequence[int]]:
    """Replicas chosen by hand. As in 2.3, the brokers need not exist."""
    problem = None
    if sorted(assignment) != list(range(first, first + len(assignment))) or not assignment:
        problem = "partitions should be a consecutive 0-based integer sequence"
    elif len({len(replicas) for replicas in assignment.values()}) > 1:
        problem = "All partitions should have the same number of replicas."
    for index, replicas in assignment.items():
        if len(set(replicas)) < len(replicas):
            problem = f"Duplicate replica assignment found: {index} -> {list(replicas)}"
        elif not replicas or min(replicas) < 0:
            problem = f"Partition {index} cannot have the replicas {list(replicas)}."
    if problem is not None:
        raise KafkaError(ErrorCode.INVALID_REPLICA_ASSIGNMENT, problem)
    return assignment


def _exists(topic: str) -> KafkaError:
    return KafkaError(ErrorCode.TOPIC_ALREADY_EXISTS, f"Topic '{topic}' already exists.")


def _unknown(topic: str) -> KafkaError:
    return KafkaError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"The topic '{topic}' does not exist.")


def _outcomes(names: Sequence[str], results: Sequence[BaseException | None]) -> dict[str, Outcome]:
    outcomes: dict[str, Outcome] = {}
    for name, result in zip(names, results, strict=True):
        if result is None or isinstance(result, KafkaError):
            outcomes[name] = result
        elif isinstance(result, StoreError):
            outcomes[name] = store_failure(result)
        else:
            raise result
    return outcomes
