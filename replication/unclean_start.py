"""Starting after the machine went down: no leader any more of what may be gone.

In-sync replicas are believed to have every acknowledged record, in memory at least. A broker
whose machine lost power before its last records had reached the disk does not have them, but is
still named in sync; were it elected now, they would be lost, although the other replicas have
them. So before it registers, and can be elected, it takes itself out of every in-sync set that has
other members. (Kafka leaves it to the controller to notice that the broker was away, which a new
controller cannot. KIP-966 closes the same gap for KRaft.)

A process that was killed has lost nothing: the kernel still has what it wrote.
"""

import logging
from collections.abc import Collection

from kavka.protocol.topics import TopicPartition
from kavka.replication import znodes
from kavka.replication.store.base import BadVersion, MetadataStore, NoNode
from kavka.replication.znodes import BadNode, StateNode

log = logging.getLogger("kavka.replication")

NO_LEADER = -1


def without(state: StateNode, broker_id: int) -> StateNode | None:
    """A partition's state without a broker that may have lost records; None to leave it as it is:
    where it is not in sync, or nobody else is, who could have more."""
    others = tuple(each for each in state.isr if each != broker_id)
    if broker_id not in state.isr or not others:
        return None
    if state.leader != broker_id:
        return state._replace(isr=others)
    return state._replace(leader=NO_LEADER, leader_epoch=state.leader_epoch + 1, isr=others)


async def leave_in_sync_sets(
    store: MetadataStore, broker_id: int, whole: Collection[TopicPartition]
) -> list[TopicPartition]:
    """Take the broker out of the in-sync sets of all partitions but those that it knows to be
    whole; give those that it was in. Some logs may have vanished altogether.

    Raises StoreError.
    """
    left: list[TopicPartition] = []
    for topic in sorted(await store.children(znodes.TOPICS)):
        path = znodes.topic_path(topic)
        try:
            node = znodes.decode_topic(path, (await store.get(path))[0])
        except (NoNode, BadNode):
            continue  # gone, or nothing that anybody could lead
        for index, replicas in sorted(node.partitions.items()):
            tp = TopicPartition(topic, index)
            if broker_id in replicas and tp not in whole and await _leave(store, broker_id, tp):
                left.append(tp)
    if left:
        body = znodes.encode_partitions(left)
        await store.create(f"{znodes.ISR_CHANGES}/isr_change_", body, sequence=True)
        log.warning(
            "The machine went down with records that were not on disk yet: this broker is not in "
            "sync any more until it has them again partitions=%d first=%s",
            len(left),
            left[0],
        )
    return left


async def _leave(store: MetadataStore, broker_id: int, tp: TopicPartition) -> bool:
    path = znodes.state_path(*tp)
    while True:
        try:
            data, stat = await store.get(path)
            state = without(znodes.decode_state(path, data), broker_id)
            if state is None:
                return False
            await store.set(path, znodes.encode_state(state), stat.version)
        except (NoNode, BadNode):
            return False
        except BadVersion:
            continue  # somebody else's write, or our own that nobody told us the end of
        return True
