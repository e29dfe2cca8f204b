"""Fetches of followers that wait.

A follower has all its partitions in one fetch, which waits here while there is nothing. When it has
more to say meanwhile it sends the next request behind it; answers leave in order, so the fetch
that waits is answered at once, whatever it has.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kavka.broker.context import Broker
    from kavka.broker.fetch.reader import FetchOptions, PartitionRead
    from kavka.broker.fetch.sessions import FetchPartition
    from kavka.broker.request import Pending, Request
    from kavka.replication.partition import Partition
    from kavka.replication.waiting import Waiter
    from kavka.storage.log import Log


def nudge(broker: "Broker", request: "Request") -> None:
    """A follower has sent ``request``: answer what it waits for on that connection."""
    waiter = broker.follower_fetches.pop(request.connection, None)
    if waiter is not None and waiter.parked:
        broker.waiting.leave(waiter)
        waiter.expire()


def note_waiting(
    broker: "Broker", request: "Request", waiter: "Waiter", pending: "Pending"
) -> None:
    """A follower's fetch waits from now on."""
    connection = request.connection
    broker.follower_fetches[connection] = waiter

    def gone() -> None:
        broker.waiting.leave(waiter)
        if broker.follower_fetches.get(connection) is waiter:
            del broker.follower_fetches[connection]

    pending.on_disconnect(gone)


def lacks_deletion(entry: "FetchPartition", log: "Log", replica_id: int) -> bool:
    """Whether a follower with a session does not know yet that records were deleted: DeleteRecords
    waits until it does."""
    return replica_id >= 0 and 0 <= entry.sent_log_start_offset < log.log_start_offset


def is_held_back(broker: "Broker", partition: "Partition", options: "FetchOptions") -> bool:
    """Whether a follower has to wait for its records because replication to it is throttled.

    Never one in sync: acknowledgements wait for that.
    """
    throttle = broker.replicas.leader_throttle
    return (
        throttle is not None
        and throttle.is_on
        and options.replica_id not in partition.in_sync_replicas
        and throttle.covers(partition)
        and throttle.is_exceeded
    )


def count_sent(broker: "Broker", reads: "Sequence[PartitionRead]") -> None:
    """Count what a follower is sent towards the rate of throttled replicas."""
    throttle = broker.replicas.leader_throttle
    if throttle is None or not throttle.is_on:
        return
    for read in reads:
        if read.size and read.partition is not None and throttle.covers(read.partition):
            throttle.record(read.size)
