"""Broken rules, each of which the simulator must notice: it is only worth what it finds."""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

from kavka.replication.controller import elections
from kavka.replication.fetching import fetcher
from kavka.replication.fetching.truncation import Truncation
from kavka.replication.partition import Partition
from kavka.replication.remote_replica import RemoteReplica
from kavka.storage.log import Log
from tests.simulator.scenario import Plan
from tests.simulator.store import SimStore


class Mutant(NamedTuple):
    """A rule that is broken by replacing ``name`` of ``owner``."""

    rule: str
    owner: Any
    name: str
    broken: Callable[[Any], Any]
    """Makes the replacement of what was there."""


# Short runs with much trouble find most in little time.
PLANS: Final = tuple(
    Plan(2, flush_messages, 2, (*faults, "kill", "pause", "zookeeper cut"), 12.0, gap)
    for flush_messages, faults in ((1, ("power", "power")), (None, ("cut", "break")))
    for gap in (1.0, 0.4, 2.0)
)


@contextmanager
def broken(mutant: Mutant) -> Iterator[None]:
    """The rule is broken meanwhile."""
    before = mutant.owner.__dict__[mutant.name]
    setattr(mutant.owner, mutant.name, mutant.broken(before))
    try:
        yield
    finally:
        setattr(mutant.owner, mutant.name, before)


def _high_watermark_alone(before: Any) -> Any:
    def advance(self: Partition) -> bool:
        end = self.durable_end
        moved = end > self.log.high_watermark
        self.log.advance_high_watermark(end)
        return moved

    return advance


def _keep_everything(before: Any) -> Any:
    def truncation(answer: Any, epochs: Any, log_end_offset: int, high: int) -> Truncation:
        return Truncation(log_end_offset, True)

    return truncation


def _cut_to_high_watermark(before: Any) -> Any:
    def truncation(answer: Any, epochs: Any, log_end_offset: int, high: int) -> Truncation:
        return Truncation(min(high, log_end_offset), True)

    return truncation


def _in_sync_at_once(before: Any) -> Any:
    def wants(self: Partition, broker_id: int) -> bool:
        return (
            broker_id in self.remotes
            and self._pending is None
            and broker_id not in self.in_sync_replicas
        )

    return wants


def _believed_before_written(before: Any) -> Any:
    def maximal(self: Partition) -> frozenset[int]:
        return frozenset(self.in_sync_replicas if self._pending is None else self._pending.isr)

    return property(maximal)


def _unconditional(before: Any) -> Any:
    def write(self: SimStore, path: str, data: bytes, version: int = -1) -> Any:
        return before(self, path, data, -1 if path.endswith("/state") else version)

    return write


def _anybody_elected(before: Any) -> Any:
    def elect(
        replicas: Sequence[int], isr: Sequence[int], live: Collection[int], *, unclean: bool
    ) -> Any:
        return before(replicas, isr, live, unclean=True)

    return elect


def _not_synced(before: Any) -> Any:
    return property(lambda self: False)


def _remembered_followers(before: Any) -> Any:
    def begin(self: RemoteReplica, end: int, now: float, *, in_sync: bool, forget: bool) -> None:
        before(self, end, now, in_sync=in_sync, forget=False)
        self.log_end_offset = max(self.log_end_offset, end)

    return begin


def _answered_at_once(before: Any) -> Any:
    def acknowledged(self: Partition, acks: int, end_offset: int) -> bool:
        return True

    return acknowledged


def _shown_to_the_end(before: Any) -> Any:
    def bound(self: Partition, replica_id: int, isolation_level: int) -> int:
        return self.log.log_end_offset

    return bound


def _always_settled(before: Any) -> Any:
    return property(lambda self: True)


def _no_epoch_kept(before: Any) -> Any:
    def append(self: Log, data: memoryview) -> Any:
        info = before(self, data)
        self.leader_epochs.clear()
        return info

    return append


MUTANTS: Final = (
    Mutant(
        "the high watermark waits for followers",
        *(Partition, "advance_high_watermark", _high_watermark_alone),
    ),
    Mutant("acks=-1 waits", Partition, "acknowledged", _answered_at_once),
    Mutant("consumers see what is replicated", Partition, "fetch_bound", _shown_to_the_end),
    Mutant("what the leader lacks is cut", fetcher, "truncation", _keep_everything),
    Mutant(
        "no more is cut than the leader lacks (KIP-101)",
        *(fetcher, "truncation", _cut_to_high_watermark),
    ),
    Mutant("only who is in sync is elected", elections, "elect_offline", _anybody_elected),
    Mutant("in sync means caught up", Partition, "wants_in_sync", _in_sync_at_once),
    Mutant(
        "an in-sync set holds when it is written",
        *(Partition, "maximal_isr", _believed_before_written),
    ),
    Mutant("in-sync sets are written on condition", SimStore, "set", _unconditional),
    Mutant("a new leader knows nothing", RemoteReplica, "begin_epoch", _remembered_followers),
    Mutant("a follower tells of what is on its disk", Partition, "flush_due", _not_synced),
    Mutant("a new leader names no earlier end (KIP-207)", Partition, "is_settled", _always_settled),
    Mutant("epochs of what is copied are kept", Log, "append_as_follower", _no_epoch_kept),
)
