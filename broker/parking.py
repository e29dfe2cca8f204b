"""Requests that wait: parked until something happens, their time is over, or the client is gone."""

from collections.abc import Hashable, Iterable
from functools import partial
from typing import TYPE_CHECKING

from kavka.broker.request import Pending
from kavka.replication.waiting import Waiter

if TYPE_CHECKING:
    from kavka.broker.context import Broker


def park(
    broker: "Broker",
    waiter: Waiter,
    keys: Iterable[Hashable],
    timeout_ms: int,
    pending: Pending,
) -> None:
    """Let ``waiter``, who completes ``pending``, wait for its keys, at most for so long."""
    broker.waiting.park(waiter, keys, max(timeout_ms, 0) / 1000)
    pending.on_disconnect(partial(broker.waiting.leave, waiter))  # nobody to tell any more
