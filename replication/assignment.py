"""Where the replicas of new partitions go: Kafka's algorithm.

First replicas are dealt round robin from a random broker. The others follow at a shift that
grows with every round, so that the partitions led by one broker have their followers spread
over all others. With racks, brokers are first put in an order that alternates racks, and the
replicas of a partition take a new rack (then a new broker) as long as there is one.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from kavka.config.limits import PARTITIONS_PER_TOPIC_MAX
from kavka.protocol.errors import ErrorCode, KafkaError


class Candidate(NamedTuple):
    """A broker that may get replicas."""

    broker_id: int
    rack: str | None = None


def assign_replicas(
    brokers: Sequence[Candidate],
    partitions: int,
    replication_factor: int,
    *,
    start_index: int,
    shift: int,
    start_partition: int = 0,
    ignore_racks: bool = False,
) -> dict[int, list[int]]:
    """Assign ``partitions`` new partitions, numbered from ``start_partition``.

    ``start_index`` and ``shift`` are drawn from [0, number of brokers) by the caller, or fixed
    when a topic is extended. ``brokers`` come in the caller's order if racks do not matter.

    Raises KafkaError: INVALID_PARTITIONS, INVALID_REPLICATION_FACTOR, or (only some brokers
    have a rack) INVALID_REPLICA_ASSIGNMENT.
    """
    if partitions <= 0:
        raise KafkaError(
            ErrorCode.INVALID_PARTITIONS, "Number of partitions must be larger than 0."
        )
    if partitions > PARTITIONS_PER_TOPIC_MAX:
        raise KafkaError(
            ErrorCode.INVALID_PARTITIONS,
            f"Number of partitions: {partitions} larger than {PARTITIONS_PER_TOPIC_MAX}, the most "
            "that one request may ask for.",
        )
    if replication_factor <= 0:
        raise KafkaError(
            ErrorCode.INVALID_REPLICATION_FACTOR, "Replication factor must be larger than 0."
        )
    if replication_factor > len(brokers):
        raise KafkaError(
            ErrorCode.INVALID_REPLICATION_FACTOR,
            f"Replication factor: {replication_factor} larger than available brokers: "
            f"{len(brokers)}.",
        )
    with_rack = sum(broker.rack is not None for broker in brokers)
    racks: Mapping[int, str] = {}
    if with_rack and not ignore_racks:
        if with_rack < len(brokers):
            raise KafkaError(
                ErrorCode.INVALID_REPLICA_ASSIGNMENT,
                "Not all brokers have rack information for replica rack aware assignment.",
            )
        racks = {broker.broker_id: broker.rack for broker in brokers if broker.rack is not None}
        ordered = rack_alternated(racks)
    else:
        ordered = [broker.broker_id for broker in brokers]
    assignment: dict[int, list[int]] = {}
    for partition in range(start_partition, start_partition + partitions):
        if partition > 0 and partition % len(ordered) == 0:
            shift += 1
        first = (partition + start_index) % len(ordered)
        followers = replication_factor - 1
        if racks:
            replicas = _over_racks(ordered, racks, first, shift, followers)
        else:
            replicas = [ordered[first]] + [
                ordered[_follower_index(first, shift, j, len(ordered))] for j in range(followers)
            ]
        assignment[partition] = replicas
    return assignment


def rack_alternated(racks: Mapping[int, str]) -> list[int]:
    """All brokers, one of each rack in turn; racks by name, brokers of a rack by id."""
    by_rack: dict[str, list[int]] = {}
    for broker_id in sorted(racks):
        by_rack.setdefault(racks[broker_id], []).append(broker_id)
    queues = [by_rack[rack] for rack in sorted(by_rack)]
    longest = max(map(len, queues))
    return [queue[turn] for turn in range(longest) for queue in queues if turn < len(queue)]


def _follower_index(first: int, shift: int, number: int, brokers: int) -> int:
    return (first + 1 + (shift + number) % (brokers - 1)) % brokers


def _over_racks(
    ordered: Sequence[int], racks: Mapping[int, str], first: int, shift: int, followers: int
) -> list[int]:
    rack_count = len(set(racks.values()))
    replicas = [ordered[first]]
    used_racks = {racks[ordered[first]]}
    attempt = 0
    while len(replicas) <= followers:
        broker = ordered[_follower_index(first, shift * rack_count, attempt, len(ordered))]
        attempt += 1
        rack = racks[broker]
        # A rack may serve twice once every rack has served, a broker once every broker has;
        # there are at least as many brokers as replicas, so the latter never comes to pass.
        if broker not in replicas and (rack not in used_racks or len(used_racks) == rack_count):
            replicas.append(broker)
            used_racks.add(rack)
    return replicas


def extension_start(brokers: Sequence[Candidate], first_replicas: Sequence[int]) -> int:
    """Start index and shift for added partitions: where the topic's first partition started.

    ``brokers`` are sorted by id; ``first_replicas`` are those of partition 0.
    """
    first = first_replicas[0] if first_replicas else 0
    for index, broker in enumerate(brokers):
        if broker.broker_id >= first:
            return index
    return 0
