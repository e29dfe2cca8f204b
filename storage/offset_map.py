"""Key → latest offset in a fixed amount of memory: what compaction must remember of a log.

Kafka's ``SkimpyOffsetMap`` (log-storage.md §9): not the keys but their MD5 digests are kept, 16
bytes and 8 of offset a key, in one flat table with open addressing. Two keys with the same digest
would count as one; nobody has seen that but on purpose. A Python dictionary would need six times
the memory, and ten million keys would be ten million objects.
"""

from collections.abc import Callable
from math import isqrt
from mmap import mmap
from struct import Struct
from typing import Any, Final

try:
    from _md5 import md5  # type: ignore[import-not-found]  # half the time of OpenSSL's at the size of a key
except ImportError:  # a Python built without it
    from hashlib import md5

SLOT_BYTES: Final = 24
LARGEST_MEMORY: Final = 2**31 - 1  # bytes; Kafka uses no more either

_WORDS: Final = 3  # of 8 bytes in a slot: two of digest, then offset + 1 (0: the slot is free)
_FEWEST_SLOTS: Final = 5
_HALVES: Final[Callable[[bytes], tuple[Any, ...]]] = Struct("<QQ").unpack


class OffsetMap:
    """The latest offset of each key. At least one slot must stay free: ``size < slots``."""

    __slots__ = ("_steps", "_words", "size", "slots")

    def __init__(self, memory: int, keys: int = LARGEST_MEMORY) -> None:
        """Take up to ``memory`` bytes, less when no more than ``keys`` keys can come.

        The memory is zero pages: those never touched are never there.
        """
        slots = min(min(memory, LARGEST_MEMORY) // SLOT_BYTES, keys * 2)
        self.slots = _prime_up_to(max(slots, _FEWEST_SLOTS))  # so that any step visits all slots
        self._steps = self.slots - 2
        self._words = memoryview(mmap(-1, self.slots * SLOT_BYTES)).cast("Q")
        self.size = 0  # keys

    def put(self, key: bytes, offset: int) -> None:
        """Remember ``offset`` as the latest of ``key``."""
        high, low = _HALVES(md5(key).digest())
        words = self._words
        at: int = high % self.slots * _WORDS
        if words[at + 2] and (words[at] != high or words[at + 1] != low):
            at = self._look_on(at, high, low)
        if not words[at + 2]:
            assert self.size < self.slots - 1, "the map is full"
            self.size += 1
            words[at] = high
            words[at + 1] = low
        words[at + 2] = offset + 1

    def get(self, key: bytes) -> int:
        """The latest offset of ``key``, -1 when it was never put."""
        high, low = _HALVES(md5(key).digest())
        words = self._words
        at: int = high % self.slots * _WORDS
        found: int = words[at + 2]
        if found and (words[at] != high or words[at + 1] != low):
            found = words[self._look_on(at, high, low) + 2]
        return found - 1

    def _look_on(self, at: int, high: int, low: int) -> int:
        """Where the slot of a digest is when it is not the one at ``at``, or a free one for it.

        Double hashing: with nine slots of ten taken, 10 probes for a digest that is not there,
        where going to the next slot each time would mean 50.
        """
        words = self._words
        step = (1 + low % self._steps) * _WORDS
        end = len(words)
        while True:
            at += step
            if at >= end:
                at -= end
            if not words[at + 2] or (words[at] == high and words[at + 1] == low):
                return at

    @property
    def utilization(self) -> float:
        """Part of the slots that is taken."""
        return self.size / self.slots


def _prime_up_to(limit: int) -> int:
    """The largest prime not above ``limit``, which is at least 5."""
    candidate = limit if limit % 2 else limit - 1
    while any(candidate % divisor == 0 for divisor in range(3, isqrt(candidate) + 1, 2)):
        candidate -= 2
    return candidate
