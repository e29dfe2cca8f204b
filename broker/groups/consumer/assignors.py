"""The assignors of the consumer protocol: who gets what. Pure, and the same for the same input.

Both get all members with their topics and what they have now, and the number of partitions of
every topic; a topic of which nothing is known has none.
"""

from collections.abc import Callable, Mapping
from heapq import heapify, heappop, heappush, heapreplace
from typing import Final, NamedTuple

from kavka.broker.groups.consumer.member import NOTHING, Slot, Slots


class Topic(NamedTuple):
    """A topic there is."""

    topic_id: bytes
    partitions: int


class Wish(NamedTuple):
    """A member as an assignor sees it: the topics it reads, the target it had before."""

    topics: frozenset[str]
    instance_id: str | None = None
    before: Slots = NOTHING


Wishes = Mapping[str, Wish]
Topics = Mapping[str, Topic]
Targets = dict[str, Slots]


def assign_range(wishes: Wishes, topics: Topics) -> Targets:
    """Each topic is cut into as many ranges as it has readers, the first ones longer by one.

    The readers of a topic come in the order of their instance id, or their member id. So topics of
    the same size with the same readers are cut alike, and what belongs together by its key is read
    by the same member.
    """
    found: dict[str, set[Slot]] = {member_id: set() for member_id in wishes}
    in_order = sorted(wishes, key=lambda member_id: _static_first(member_id, wishes[member_id]))
    for name, topic in topics.items():
        readers = [member_id for member_id in in_order if name in wishes[member_id].topics]
        if not readers:
            continue
        size, longer = divmod(topic.partitions, len(readers))
        start = 0
        for number, member_id in enumerate(readers):
            end = start + size + (number < longer)
            found[member_id].update(Slot(topic.topic_id, p) for p in range(start, end))
            start = end
    return {member_id: frozenset(slots) for member_id, slots in found.items()}


def _static_first(member_id: str, wish: Wish) -> tuple[bool, str, str]:
    return wish.instance_id is None, wish.instance_id or "", member_id


def assign_uniform(wishes: Wishes, topics: Topics) -> Targets:
    """As many partitions for each member as for any other, moving as few as that takes.

    With members that read different topics: nobody could get one more from a member that has more
    than one above it.
    """
    if not wishes:
        return {}
    if len({wish.topics for wish in wishes.values()}) == 1:
        return _share_equally(wishes, topics)
    return _level(wishes, topics)


def _share_equally(wishes: Wishes, topics: Topics) -> Targets:
    """All read the same topics: everybody gets the quota, the first ones who are over it one more.

    Who keeps one more is who has it already.
    """
    wanted = next(iter(wishes.values())).topics
    left = {
        Slot(topic.topic_id, partition)
        for name, topic in topics.items()
        if name in wanted
        for partition in range(topic.partitions)
    }
    quota, over = divmod(len(left), len(wishes))
    targets: dict[str, set[Slot]] = {}
    short: list[str] = []
    for member_id in sorted(wishes, key=lambda m: (-len(wishes[m].before & left), m)):
        kept = sorted(wishes[member_id].before & left)
        may_keep = quota + 1 if over and len(kept) > quota else quota
        if may_keep > quota:
            over -= 1
        targets[member_id] = set(kept[:may_keep])
        left -= targets[member_id]
        if len(targets[member_id]) < quota or (over and len(targets[member_id]) == quota):
            short.append(member_id)
    # In the order of partitions, so that topics are spread over members, and not piled on one.
    free = iter(sorted(left, key=lambda slot: (slot.partition, slot.topic_id)))
    for member_id in short:
        while len(targets[member_id]) < quota:
            targets[member_id].add(next(free))
    for member_id, slot in zip((m for m in short if len(targets[m]) == quota), free, strict=False):
        targets[member_id].add(slot)
    return {member_id: frozenset(targets[member_id]) for member_id in wishes}


def _level(wishes: Wishes, topics: Topics) -> Targets:
    """Members read different topics: keep, hand out what is free, then even out."""
    names = {topic.topic_id: name for name, topic in topics.items()}
    readers: dict[str, list[str]] = {
        name: sorted(m for m, wish in wishes.items() if name in wish.topics) for name in topics
    }
    targets: dict[str, set[Slot]] = {member_id: set() for member_id in wishes}
    taken: set[Slot] = set()
    for member_id in sorted(wishes):
        for slot in sorted(wishes[member_id].before):
            name = names.get(slot.topic_id)
            if (
                name is not None
                and slot.partition < topics[name].partitions
                and name in wishes[member_id].topics
                and slot not in taken
            ):
                taken.add(slot)
                targets[member_id].add(slot)
    # What the fewest may read is handed out first: the others leave more choice.
    for name in sorted(topics, key=lambda name: (len(readers[name]), name)):
        if not readers[name]:
            continue
        heap = [(len(targets[member_id]), member_id) for member_id in readers[name]]
        heapify(heap)
        for partition in range(topics[name].partitions):
            slot = Slot(topics[name].topic_id, partition)
            if slot not in taken:
                count, member_id = heappop(heap)
                targets[member_id].add(slot)
                heappush(heap, (count + 1, member_id))
    moved = True
    while moved:
        moved = False
        for name in sorted(topics):
            moved |= _even_out(topics[name], readers[name], targets)
    return {member_id: frozenset(slots) for member_id, slots in targets.items()}


def _even_out(topic: Topic, readers: list[str], targets: dict[str, set[Slot]]) -> bool:
    """Move partitions of a topic from its reader with most of all topics to the one with least,
    while that is at least two less. Says whether any was moved.

    Each move makes the sum of the squares of the counts smaller, so there is an end.
    """
    held: dict[str, list[Slot]] = {member_id: [] for member_id in readers}
    for member_id in readers:
        held[member_id] = sorted(s for s in targets[member_id] if s.topic_id == topic.topic_id)
    poor = [(len(targets[member_id]), member_id) for member_id in readers]
    rich = [(-len(targets[member_id]), member_id) for member_id in readers if held[member_id]]
    heapify(poor)
    heapify(rich)
    moved = False
    while rich:
        most, giver = rich[0]
        if -most != len(targets[giver]) or not held[giver]:
            heappop(rich)  # it has been here with another count
            if held[giver]:
                heappush(rich, (-len(targets[giver]), giver))
            continue
        least, taker = poor[0]
        if least != len(targets[taker]):
            heapreplace(poor, (len(targets[taker]), taker))
            continue
        if -most - least < 2:
            break
        slot = held[giver].pop()
        targets[giver].discard(slot)
        targets[taker].add(slot)
        held[taker].append(slot)
        moved = True
    return moved


ASSIGNORS: Final[dict[str, Callable[[Wishes, Topics], Targets]]] = {
    "uniform": assign_uniform,
    "range": assign_range,
}
