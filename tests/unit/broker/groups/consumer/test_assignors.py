"""What every assignment must be, and what each assignor promises beyond."""

from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kavka.broker.groups.consumer.assignors import (
    ASSIGNORS,
    Targets,
    Topic,
    Wish,
    assign_range,
    assign_uniform,
)
from kavka.broker.groups.consumer.member import Slot

NAMES = ["a", "b", "c", "d"]
TOPICS = st.dictionaries(st.sampled_from(NAMES), st.integers(0, 9)).map(
    lambda sizes: {name: Topic(name.encode(), size) for name, size in sizes.items()}
)
SLOTS = st.frozensets(
    st.builds(Slot, st.sampled_from([name.encode() for name in NAMES]), st.integers(0, 9))
)
WISHES = st.dictionaries(
    st.text("mnop", min_size=1, max_size=3),
    st.builds(
        Wish,
        st.frozensets(st.sampled_from(NAMES), min_size=1),
        st.none() | st.sampled_from("xyz"),
        SLOTS,
    ),
    max_size=8,
)


def sizes(targets: Targets) -> list[int]:
    return sorted(len(slots) for slots in targets.values())


@pytest.mark.parametrize("name", ASSIGNORS)
@settings(deadline=None)
@given(wishes=WISHES, topics=TOPICS)
def test_each_partition_that_somebody_reads_goes_to_one_who_reads_it(
    name: str, wishes: dict[str, Wish], topics: dict[str, Topic]
) -> None:
    targets = ASSIGNORS[name](wishes, topics)
    assert targets.keys() == wishes.keys()
    names = {topic.topic_id: topic_name for topic_name, topic in topics.items()}
    given_out = [slot for slots in targets.values() for slot in slots]
    assert len(given_out) == len(set(given_out))
    for member_id, slots in targets.items():
        assert {names[slot.topic_id] for slot in slots} <= wishes[member_id].topics
    read = set().union(*(wish.topics for wish in wishes.values()))
    assert set(given_out) == {
        Slot(topic.topic_id, partition)
        for topic_name, topic in topics.items()
        if topic_name in read
        for partition in range(topic.partitions)
    }
    assert ASSIGNORS[name](dict(reversed(wishes.items())), topics) == targets


@settings(deadline=None)
@given(wishes=WISHES, topics=TOPICS)
def test_uniform_is_balanced_and_stays(wishes: dict[str, Wish], topics: dict[str, Topic]) -> None:
    targets = assign_uniform(wishes, topics)
    names = {topic.topic_id: name for name, topic in topics.items()}
    for one, other in combinations(wishes, 2):
        for rich, poor in ((one, other), (other, one)):
            could_move = any(names[slot.topic_id] in wishes[poor].topics for slot in targets[rich])
            assert not could_move or len(targets[rich]) - len(targets[poor]) < 2
    again = {m: wish._replace(before=targets[m]) for m, wish in wishes.items()}
    assert assign_uniform(again, topics) == targets, "what is balanced stays as it is"


@settings(deadline=None)
@given(
    count=st.integers(1, 6),
    topics=TOPICS,
    leaves=st.integers(0, 5),
)
def test_uniform_moves_only_what_it_must(count: int, topics: dict[str, Topic], leaves: int) -> None:
    wish = Wish(frozenset(NAMES))
    before = assign_uniform({str(n): wish for n in range(count)}, topics)
    staying = [m for m in before if m != str(leaves)]
    if not staying:
        return
    after = assign_uniform({m: wish._replace(before=before[m]) for m in staying}, topics)
    for member_id in staying:
        assert after[member_id] >= before[member_id], "who stays gives nothing up"


def test_a_newcomer_takes_its_share_and_no_more() -> None:
    topics = {"a": Topic(b"a", 9)}
    wish = Wish(frozenset("a"))
    before = assign_uniform({"x": wish, "y": wish}, topics)
    assert sizes(before) == [4, 5]
    wishes = {m: wish._replace(before=before[m]) for m in before}
    after = assign_uniform({**wishes, "z": wish}, topics)
    assert sizes(after) == [3, 3, 3]
    assert after["x"] < before["x"]
    assert after["y"] < before["y"]


def test_range_cuts_topics_alike() -> None:
    topics = {"a": Topic(b"a", 7), "b": Topic(b"b", 7), "c": Topic(b"c", 1)}
    both = frozenset({"a", "b"})
    wishes = {"m2": Wish(both), "m1": Wish(both | {"c"}), "m0": Wish(both, "static")}
    targets = assign_range(wishes, topics)
    assert {
        m: sorted(s.partition for s in t if s.topic_id == b"a") for m, t in targets.items()
    } == {
        "m0": [0, 1, 2],
        "m1": [3, 4],
        "m2": [5, 6],
    }
    for slots in targets.values():
        of = {t: {s.partition for s in slots if s.topic_id == t} for t in (b"a", b"b")}
        assert of[b"a"] == of[b"b"]
    assert Slot(b"c", 0) in targets["m1"]
