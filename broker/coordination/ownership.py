"""Which partitions of a coordinator's own topic are led here, and what was found in them.

A group or transactional id belongs to the partition its name hashes to, whose leader is its
coordinator. A new leader first reads the whole partition; until that is done who asks is told to
wait (14). Both coordinators use this.
"""

import logging
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from typing import Final, Generic, Protocol, TypeAlias, TypeVar

from kavka.broker.coordination.state_log import Slice, StateLog
from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.storage.clock import Clock

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


@lru_cache(maxsize=1_024)
def partition_for(key: str, partitions: int) -> int:
    """The partition of an internal topic that a group or transactional id belongs to."""
    value = string_hash(key)
    # Kafka's abs(): the smallest INT32 has no positive twin and counts as 0.
    return (0 if value == -(1 << 31) else abs(value)) % partitions


class Replaying(Protocol):
    """The state of a partition in the making; see ``loading.Replay``."""

    def feed(self, data: memoryview) -> int:
        """Take in whole batches; gives the offset after the last one. Runs in a thread."""


class OwnedPartition:
    """A partition led here; subclasses keep what is in it."""

    __slots__ = ("failed", "index", "leader_epoch", "loading")

    def __init__(self, index: int, leader_epoch: int) -> None:
        self.index = index
        self.leader_epoch = leader_epoch
        self.loading = True
        self.failed = False  # could not be read: nothing must start from half the truth


P = TypeVar("P", bound=OwnedPartition)
R = TypeVar("R", bound=Replaying)


class Ownership(Generic[P, R]):
    """The partitions led here.

    ``new_partition`` makes one from its index and leader epoch, ``new_replay`` what its records
    are fed into; ``on_loaded`` gets both when all is read and says how much was found. ``what``
    that is, is for the log lines, which go to ``logger``.
    """

    def __init__(
        self,
        log: StateLog,
        clock: Clock,
        offload: Offload,
        new_partition: Callable[[int, int], P],
        new_replay: Callable[[], R],
        on_loaded: Callable[[P, R], int],
        what: str,
        logger: logging.Logger,
    ) -> None:
        self._log = log
        self._clock = clock
        self._offload = offload
        self._new_partition = new_partition
        self._new_replay = new_replay
        self._on_loaded = on_loaded
        self._what = what
        self._logger = logger
        self._owned: dict[int, P] = {}
        self._when_idle: list[Callable[[], None]] = []

    def __iter__(self) -> Iterator[P]:
        return iter(list(self._owned.values()))

    def get(self, index: int) -> P | None:
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
        owned = self._owned[index] = self._new_partition(index, leader_epoch)
        self._load_from(owned, self._new_replay(), None, self._clock.monotonic())

    def resigned(self, index: int) -> P | None:
        """The partition is led elsewhere; gives what is to be unloaded."""
        owned = self._owned.pop(index, None)
        self._tell_idle()
        return owned

    # -- loading ----------------------------------------------------------------------------

    def _load_from(self, owned: P, replay: R, offset: int | None, began: float) -> None:
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
        owned: P,
        replay: R,
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

    def _loaded(self, owned: P, replay: R, began: float) -> None:
        owned.loading = False
        found = self._on_loaded(owned, replay)
        if found:
            self._logger.info(
                "%s loaded partition=%d found=%d ms=%d",
                *(self._what, owned.index, found),
                (self._clock.monotonic() - began) * 1000,
            )
        self._tell_idle()

    def _failed(self, owned: P, error: BaseException) -> None:
        if self._owned.get(owned.index) is not owned:
            return
        owned.loading = False
        owned.failed = True
        self._logger.error(
            "%s could not be loaded and are not served partition=%d error=%r",
            *(self._what, owned.index, error),
            exc_info=error if not isinstance(error, KafkaError) else None,
        )
        self._tell_idle()

    def _tell_idle(self) -> None:
        if self._when_idle and not self.loading:
            callbacks, self._when_idle = self._when_idle, []
            for callback in callbacks:
                callback()


def _replay_part(replay: Replaying, part: Slice) -> int:
    return replay.feed(part.view())
