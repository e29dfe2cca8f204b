"""Replica assignment: Kafka's vectors, and what holds for every layout."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kavka.config.limits import PARTITIONS_PER_TOPIC_MAX
from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.replication.assignment import (
    Candidate,
    assign_replicas,
    extension_start,
    rack_alternated,
)

PLAIN = [Candidate(broker) for broker in range(5)]
RACKS = {0: "r1", 1: "r3", 2: "r3", 3: "r2", 4: "r2", 5: "r1"}
RACKED = [Candidate(broker, rack) for broker, rack in RACKS.items()]


def test_without_racks() -> None:
    assert assign_replicas(PLAIN, 10, 3, start_index=0, shift=0) == {
        0: [0, 1, 2],
        1: [1, 2, 3],
        2: [2, 3, 4],
        3: [3, 4, 0],
        4: [4, 0, 1],
        5: [0, 2, 3],
        6: [1, 3, 4],
        7: [2, 4, 0],
        8: [3, 0, 1],
        9: [4, 1, 2],
    }


def test_with_racks() -> None:
    assert rack_alternated(RACKS) == [0, 3, 1, 5, 4, 2]
    assert assign_replicas(RACKED, 12, 3, start_index=0, shift=0) == {
        0: [0, 3, 1],
        1: [3, 1, 5],
        2: [1, 5, 4],
        3: [5, 4, 2],
        4: [4, 2, 0],
        5: [2, 0, 3],
        6: [0, 4, 2],
        7: [3, 2, 0],
        8: [1, 0, 3],
        9: [5, 3, 1],
        10: [4, 1, 5],
        11: [2, 5, 4],
    }


def test_a_lone_broker_gets_everything() -> None:
    assert assign_replicas([Candidate(7)], 3, 1, start_index=0, shift=0) == {
        0: [7],
        1: [7],
        2: [7],
    }


def test_an_extension_goes_on_where_the_topic_would_have() -> None:
    whole = assign_replicas(PLAIN, 12, 3, start_index=2, shift=2)
    start = extension_start(PLAIN, whole[0])
    assert start == 2
    added = assign_replicas(PLAIN, 3, 3, start_index=start, shift=start, start_partition=4)
    assert added == {index: whole[index] for index in (4, 5, 6)}


def test_an_extension_whose_first_broker_is_gone() -> None:
    assert extension_start([Candidate(1), Candidate(5)], [3, 1]) == 1
    assert extension_start([Candidate(1), Candidate(5)], [9]) == 0
    assert extension_start([Candidate(1)], []) == 0


@pytest.mark.parametrize(
    ("partitions", "factor", "code"),
    [
        (0, 1, ErrorCode.INVALID_PARTITIONS),
        (PARTITIONS_PER_TOPIC_MAX + 1, 1, ErrorCode.INVALID_PARTITIONS),
        (2**31 - 1, 1, ErrorCode.INVALID_PARTITIONS),
        (-3, 1, ErrorCode.INVALID_PARTITIONS),
        (1, 0, ErrorCode.INVALID_REPLICATION_FACTOR),
        (1, 6, ErrorCode.INVALID_REPLICATION_FACTOR),
    ],
)
def test_counts_that_cannot_be(partitions: int, factor: int, code: ErrorCode) -> None:
    with pytest.raises(KafkaError) as caught:
        assign_replicas(PLAIN, partitions, factor, start_index=0, shift=0)
    assert caught.value.code is code


def test_racks_on_some_brokers_only() -> None:
    brokers = [Candidate(1, "a"), Candidate(2)]
    with pytest.raises(KafkaError) as caught:
        assign_replicas(brokers, 1, 1, start_index=0, shift=0)
    assert caught.value.code is ErrorCode.INVALID_REPLICA_ASSIGNMENT
    assert assign_replicas(brokers, 1, 2, start_index=0, shift=0, ignore_racks=True)


@given(
    racks=st.lists(st.sampled_from(["a", "b", "c", None]), min_size=1, max_size=9),
    partitions=st.integers(1, 30),
    data=st.data(),
)
@settings(deadline=None)
def test_replicas_are_distinct_spread_and_balanced(
    racks: list[str | None], partitions: int, data: st.DataObject
) -> None:
    if None in racks:
        racks = [None] * len(racks)
    brokers = [Candidate(broker, rack) for broker, rack in enumerate(racks)]
    factor = data.draw(st.integers(1, len(brokers)))
    start = data.draw(st.integers(0, len(brokers) - 1))
    shift = data.draw(st.integers(0, len(brokers) - 1))
    assignment = assign_replicas(brokers, partitions, factor, start_index=start, shift=shift)
    assert sorted(assignment) == list(range(partitions))
    for replicas in assignment.values():
        assert len(replicas) == len(set(replicas)) == factor
        if None not in racks:
            used = {racks[broker] for broker in replicas}
            assert len(used) == min(factor, len(set(racks)))
    leaders = Counter(replicas[0] for replicas in assignment.values())
    counts = [leaders[broker.broker_id] for broker in brokers]
    assert max(counts) - min(counts) <= 1
