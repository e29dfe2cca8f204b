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

    def remove_from(self, offset: int) -> list[Segment]:
        """Take out all segments that begin at or past ``offset``."""
        index = bisect_left(self._bases, offset)
        gone = self._segments[index:]
        del self._segments[index:], self._bases[index:]
        self.size -= sum(segment.size for segment in gone)
        return gone
