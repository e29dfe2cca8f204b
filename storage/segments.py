"""The ordered segments of a log."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import overload

from kavka.storage.segment import Segment


class Segments(Sequence[Segment]):
    """At least one segment, ascending by base offset; the last one is the active one.

    ``size`` is the bytes of records in all of them; whoever appends keeps it up.
    """

    __slots__ = ("_bases", "_segments", "size")

    def __init__(self, segments: Iterable[Segment]) -> None:
        self._segments = sorted(segments, key=lambda segment: segment.base_offset)
        self._bases = [segment.base_offset for segment in self._segments]
        self.size = 0
        self.recount()

    def recount(self) -> None:
        """Sum the sizes up anew."""
        self.size = sum(segment.size for segment in self._segments)

    @overload
    def __getitem__(self, index: int) -> Segment: ...
    @overload
    def __getitem__(self, index: slice) -> list[Segment]: ...
    def __getitem__(self, index: int | slice) -> Segment | list[Segment]:
        return self._segments[index]

    def __len__(self) -> int:
        return len(self._segments)

    def __iter__(self) -> Iterator[Segment]:
        return iter(self._segments)

    @property
    def first(self) -> Segment:
        return self._segments[0]

    @property
    def first_on_disk(self) -> int:
        """Where the log begins as far as names of files tell; 0 when there is none yet."""
        first = self._segments[0]
        return first.base_offset if first.exists else 0

    @property
    def last(self) -> Segment:
        return self._segments[-1]

    def floor(self, offset: int) -> Segment:
        """The segment that ``offset`` would be in; the first one for smaller offsets."""
        return self._segments[max(0, bisect_right(self._bases, offset) - 1)]

    def after(self, segment: Segment) -> Segment | None:
        """The next segment."""
        index = bisect_right(self._bases, segment.base_offset)
        return self._segments[index] if index < len(self._segments) else None

    def before(self, segment: Segment) -> Segment:
        """The previous segment; the first one has itself."""
        return self._segments[max(0, bisect_left(self._bases, segment.base_offset) - 1)]

    def reaching(self, offset: int) -> list[Segment]:
        """The segments that may hold records at or past ``offset``."""
        return self._segments[max(0, bisect_right(self._bases, offset) - 1) :]

    def add(self, segment: Segment) -> None:
        """Put a new segment at the end."""
        assert not self._bases or segment.base_offset > self._bases[-1]
        self._segments.append(segment)
        self._bases.append(segment.base_offset)
        self.size += segment.size

    def remove_first(self) -> Segment:
        """Take the oldest one out."""
        del self._bases[0]
        segment = self._segments.pop(0)
        self.size -= segment.size
        return segment

    def position_of(self, run: Sequence[Segment]) -> int | None:
        """Where these very segments stand, one behind the other; None when they do not."""
        start = bisect_left(self._bases, run[0].base_offset)
        return start if self._segments[start : start + len(run)] == list(run) else None

    def replace(self, run: Sequence[Segment], new: Segment) -> None:
        """Put ``new`` in the place of the segments that it was made from."""
        start = self.position_of(run)
        assert start is not None
        assert new.base_offset == run[0].base_offset
        self._segments[start : start + len(run)] = [new]
        self._bases[start : start + len(run)] = [new.base_offset]
        self.size += new.size - sum(segment.size for segment in run)

    def remove_from(self, offset: int) -> list[Segment]:
        """Take out all segments that begin at or past ``offset``."""
        index = bisect_left(self._bases, offset)
        gone = self._segments[index:]
        del self._segments[index:], self._bases[index:]
        self.size -= sum(segment.size for segment in gone)
        return gone
