"""Which partitions of ``__consumer_offsets`` this broker coordinates, and the groups in them.

A group belongs to the partition its name hashes to, whose leader is its coordinator. A new leader
first reads the whole partition; until that is done its groups are told to wait (14).
"""

import logging
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from typing import Final, TypeAlias

from kavka.broker.groups.group import Group
from kavka.broker.groups.loading import Replay
from kavka.broker.groups.offsets_log import OffsetsLog, Slice
from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.storage.clock import Clock

log = logging.getLogger("kavka.groups")

# Small enough that decoding the last, partial share of a partition never holds up a thread long.
LOAD_BYTES: Final = 1024 * 1024

Offload: TypeAlias = Callable[[Callable[[], int], Callable[[int | BaseException], None]], None]
"""Runs the first in a thread, then calls the second on the event loop with what came of it."""


def string_hash(text: str) -> int:
    """Java's ``String.hashCode``: over UTF-16 code units, wrapped to a signed INT32."""
    value = 0
    units = text.encode("utf-16-be", "surrogatepass")
    for index in range(0, len(units), 2):
        value = (31 * value + (units[index] << 8 | units[index + 1])) & 0xFFFFFFFF
    return value - (1 << 32) if value & 0x80000000 else value


@lru_cache(maxsize=8_192)
def partition_for(key: str, partitions: int) -> int:
    """The partition of an internal topic that a group or transactional id belongs to."""
    value = string_hash(key)
    # Kafka's abs(): the smallest INT32 has no positive twin and counts as 0.
    return (0 if value == -(1 << 31) else abs(value)) % partitions


class OwnedPartition:
    """A partition led here, with its groups once it is loaded."""

    __slots__ = ("failed", "groups", "index", "leader_epoch", "loading")

    def __init__(self, index: int, leader_epoch: int) -> None:
        self.index = index
        self.leader_epoch = leader_epoch
        self.loading = True
        self.failed = False  # could not be read: its groups must not start from half the truth
        self.groups: dict[str, Group] = {}


class Ownership:
    """The partitions led here. ``on_loaded`` gets each one with what was found in it."""

    def __init__(
        self,
        log: OffsetsLog,
        clock: Clock,
        offload: Offload,
        on_loaded: Callable[[OwnedPartition, Replay], None],
    ) -> None:
        self._log = log
        self._clock = clock
        self._offload = offload
        self._on_loaded = on_loaded
        self._owned: dict[int, OwnedPartition] = {}
        self._when_idle: list[Callable[[], None]] = []

    def __iter__(self) -> Iterator[OwnedPartition]:
        return iter(list(self._owned.values()))

    def get(self, index: int) -> OwnedPartition | None:
        return self._owned.get(index)

    @property
    def loading(self) -> bool:
        """Whether any partition is still being read."""
        return any(owned.loading for owned in self._owned.values())

    def when_idle(self, callback: Callable[[], None]) -> None:
        """Call back once no partition is being read, at once if none is."""
        if self.loading:
            self._when_idle.append(callback)
        else:
            callback()

    def elected(self, index: int, leader_epoch: int) -> None:
        """This broker leads the partition from now on: load it."""
        known = self._owned.get(index)
        if known is not None and not known.failed:
            # Led it already: nobody else can have written to it.
            known.leader_epoch = leader_epoch
            return
        owned = self._owned[index] = OwnedPartition(index, leader_epoch)
        self._load_from(owned, Replay(), None, self._clock.monotonic())

    def resigned(self, index: int) -> OwnedPartition | None:
        """The partition is led elsewhere; gives what is to be unloaded."""
        owned = self._owned.pop(index, None)
        self._tell_idle()
        return owned

    # -- loading ----------------------------------------------------------------------------

    def _load_from(
        self, owned: OwnedPartition, replay: Replay, offset: int | None, began: float
    ) -> None:
        if self._owned.get(owned.index) is not owned:
            return  # resigned meanwhile
        try:
            first, end = self._log.bounds(owned.index)
            offset = first if offset is None else offset
            part = self._log.read(owned.index, offset, LOAD_BYTES) if offset < end else None
        except KafkaError as error:
            self._failed(owned, error)
            return
        if part is None:
            self._loaded(owned, replay, began)
            return
        self._offload(
            partial(_replay_part, replay, part),
            partial(self._part_done, owned, replay, offset, began),
        )

    def _part_done(
        self,
        owned: OwnedPartition,
        replay: Replay,
        offset: int,
        began: float,
        outcome: int | BaseException,
    ) -> None:
        if isinstance(outcome, BaseException):
            self._failed(owned, outcome)
        elif outcome <= offset:
            self._failed(owned, KafkaError(ErrorCode.CORRUPT_MESSAGE, "no whole batch to read"))
        else:
            self._load_from(owned, replay, outcome, began)

    def _loaded(self, owned: OwnedPartition, replay: Replay, began: float) -> None:
        owned.loading = False
        self._on_loaded(owned, replay)
        if owned.groups:
            log.info(
                "Groups loaded partition=%d groups=%d ms=%d",
                *(owned.index, len(owned.groups)),
                (self._clock.monotonic() - began) * 1000,
            )
        self._tell_idle()

    def _failed(self, owned: OwnedPartition, error: BaseException) -> None:
        if self._owned.get(owned.index) is not owned:
            return
        owned.loading = False
        owned.failed = True
        log.error(
            "Groups could not be loaded and are not served partition=%d error=%r",
            *(owned.index, error),
            exc_info=error if not isinstance(error, KafkaError) else None,
        )
        self._tell_idle()

    def _tell_idle(self) -> None:
        if self._when_idle and not self.loading:
            callbacks, self._when_idle = self._when_idle, []
            for callback in callbacks:
                callback()


def _replay_part(replay: Replay, part: Slice) -> int:
    return replay.feed(part.view())
