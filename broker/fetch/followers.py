"""Fetches of followers that wait.

A follower has all its partitions in one fetch, which waits here while there is nothing. When it has
more to say meanwhile it sends the next request behind it; answers leave in order, so the fetch
that waits is answered at once, whatever it has.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kavka.broker.context import Broker
    from kavka.broker.request import Pending, Request
    from kavka.replication.waiting import Waiter


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
