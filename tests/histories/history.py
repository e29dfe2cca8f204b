"""A history: what clients did to partitions, and what they learned of it.

Values are unique: no two sends of a history carry the same value to the same partition. Moments
are numbers that grow in real time; an operation has one when it began and one when its outcome
was known.
"""

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import NamedTuple, TypeAlias

Partition: TypeAlias = tuple[str, int]
Value: TypeAlias = int | str


class Outcome(Enum):
    """What a client knows of its operation once it is over."""

    OK = "ok"
    FAIL = "fail"  # certainly without effect: refused, or aborted
    INFO = "info"  # nobody knows: a time-out, a lost connection, a client that died


class Send(NamedTuple):
    """One record written; the offset if the broker told it."""

    partition: Partition
    value: Value
    offset: int | None = None


class Poll(NamedTuple):
    """Records read by one poll, in the order in which they came. ``at`` is when it returned."""

    records: Mapping[Partition, Sequence[tuple[int, Value]]]
    at: int | None = None


Step: TypeAlias = Send | Poll


class Op(NamedTuple):
    """One operation of one client: a send, a poll, or a transaction of several of them.

    ``client`` is one life of a client: who was killed comes back as another. ``moved`` are the
    partitions whose position was set anew before this operation (assigned, sought): its polls
    need not go on where the one before ended. ``ending`` is the moment at which a transaction
    asked for its commit; before it, nobody may see what it wrote.
    """

    client: int
    outcome: Outcome
    steps: tuple[Step, ...]
    began: int
    ended: int
    transactional: bool = False
    moved: frozenset[Partition] = frozenset()
    ending: int | None = None

    @property
    def sends(self) -> list[Send]:
        return [step for step in self.steps if isinstance(step, Send)]

    @property
    def polls(self) -> list[Poll]:
        return [step for step in self.steps if isinstance(step, Poll)]


class History(NamedTuple):
    """Operations in the order in which they ended.

    ``read_to_the_end`` are partitions of which, after all sends were over, somebody read
    everything: there even the last acknowledged record must have been seen.
    """

    ops: Sequence[Op]
    read_to_the_end: frozenset[Partition] = frozenset()
