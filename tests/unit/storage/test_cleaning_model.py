"""Compaction equals a dictionary: random histories of keys, tombstones and transactions."""

import itertools
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from hypothesis import given, note, settings
from hypothesis import strategies as st

from kavka.protocol.records.batch import BatchHeader, iter_batches, read_header
from kavka.storage.log import Log
from tests.unit.storage.cleaner_support import (
    Cleaning,
    contents,
    end_transaction,
    headers,
    put,
    raw,
)
from tests.unit.storage.log_support import Place, records

KEYS: Final = (b"a", b"b", b"c", b"d", b"", b"a longer key")
PRODUCERS: Final = (1, 2, 3)

Pairs = list[tuple[bytes, bytes | None]]

PAIRS = st.lists(
    st.tuples(st.sampled_from(KEYS), st.none() | st.binary(max_size=40)), min_size=1, max_size=5
)
STEPS = st.one_of(
    st.tuples(st.just("put"), PAIRS, st.integers(0, 4)),
    st.tuples(st.just("put"), PAIRS, st.integers(0, 4)),
    st.tuples(st.just("write"), PAIRS, st.sampled_from(PRODUCERS)),
    st.tuples(st.just("write"), PAIRS, st.sampled_from(PRODUCERS)),
    st.tuples(st.just("end"), st.sampled_from(PRODUCERS), st.booleans()),
    st.tuples(st.just("roll")),
    st.tuples(st.just("expire")),
    st.tuples(st.just("clean")),
)


class History:
    """A log, and beside it all that was ever written to it."""

    def __init__(self, cleaning: Cleaning) -> None:
        self.cleaning = cleaning
        self.log = cleaning.log
        self.written: dict[int, tuple[bytes, bytes | None]] = {}
        self.aborted: set[int] = set()
        self.open: dict[int, list[int]] = {}  # offsets of each producer's open transaction

    def write(self, pairs: Pairs, **fields: Any) -> list[int]:
        first = put(self.log, *pairs, **fields).first_offset
        offsets = [*range(first, first + len(pairs))]
        self.written.update(zip(offsets, pairs, strict=True))
        return offsets

    def do(self, step: tuple[Any, ...]) -> None:
        match step:
            case ("put", pairs, codec):
                self.write(pairs, codec=codec)
            case ("write", pairs, producer_id):
                entry = self.log.producers.get(producer_id)
                sequence = entry.last_sequence + 1 if entry else 0
                self.open.setdefault(producer_id, []).extend(
                    self.write(
                        pairs,
                        producer_id=producer_id,
                        producer_epoch=0,
                        base_sequence=sequence,
                        transactional=True,
                    )
                )
            case ("end", producer_id, commit):
                end_transaction(self.log, producer_id, commit=commit)
                offsets = self.open.pop(producer_id, [])
                if not commit:
                    self.aborted.update(offsets)
            case ("roll",):
                self.log.roll()
            case ("expire",):
                self.log.producers.remove_expired(2**60)
            case ("clean",):
                self.clean()

    def survivors(self, clean_to: int) -> dict[int, tuple[bytes, bytes | None]]:
        """What must be left: below ``clean_to`` the latest of each key that was not aborted."""
        latest = {
            self.written[offset][0]: offset
            for offset in sorted(self.written)
            if offset < clean_to and offset not in self.aborted
        }
        kept = set(latest.values())
        return {
            offset: pair
            for offset, pair in self.written.items()
            if offset in kept or offset >= clean_to
        }

    def clean(self) -> None:
        """Clean all there is, with readers going through the log meanwhile, then compare."""
        before = contents(self.log)
        readers = [Reader(self.log, start) for start in (0, self.log.log_end_offset // 2)]

        def on_loop(step: Callable[[], Any]) -> Any:
            for reader in readers:
                reader.read()
            result = step()
            readers.append(Reader(self.log, 0))
            for reader in readers:
                reader.read()
            return result

        while self.cleaning.clean(on_loop=on_loop):
            pass
        assert self.cleaning.cleaner.uncleanable == {}
        after = self.check()
        for reader in readers:
            reader.read(to_the_end=True)
            offsets = [offset for offset, _ in reader.seen]
            assert offsets == sorted(set(offsets)), "each record once, in order"
            seen = dict(reader.seen)
            assert all(seen[o] == pair for o, pair in after.items() if o >= reader.start)
            assert all(before[o] == pair for o, pair in reader.seen)

    def check(self) -> dict[int, tuple[bytes | None, bytes | None]]:
        """See that the log holds what it must, and no more."""
        clean_to = self.cleaning.logs.checkpoint or 0
        found, expected = contents(self.log), self.survivors(clean_to)
        # Aborted records that lie past what is clean may be gone already, or not.
        for offset in self.aborted:
            if offset >= clean_to:
                found.pop(offset, None)
                expected.pop(offset, None)
        assert found == expected
        ends = [(h.base_offset, h.last_offset) for h in headers(raw(self.log))]
        assert all(first <= last for first, last in ends)
        assert all(a[1] < b[0] for a, b in itertools.pairwise(ends))
        return contents(self.log)

    def committed(self) -> dict[bytes, bytes | None]:
        """The state that a read_committed consumer arrives at, by what the log says of itself."""
        state: dict[bytes, bytes | None] = {}
        log, offset = self.log, 0
        while offset < log.last_stable_offset:
            piece = log.read(offset, 300, log.last_stable_offset)
            if piece.empty:
                break
            aborted = [*log.aborted_transactions(offset, piece)]
            data = piece.view()
            for header, batch in whole_batches(data):
                if header.is_control:
                    aborted = [t for t in aborted if t.last_offset != header.base_offset]
                else:
                    skip = header.is_transactional and any(
                        t.producer_id == header.producer_id
                        and t.first_offset <= header.base_offset <= t.last_offset
                        for t in aborted
                    )
                    for record in [] if skip else records(batch):
                        if record.offset >= offset:
                            assert record.key is not None
                            state[record.key] = record.value
                following = header.next_offset
            offset = following
        return state

    def expected_state(self) -> dict[bytes, bytes | None]:
        stable = self.log.last_stable_offset
        return {
            self.written[offset][0]: self.written[offset][1]
            for offset in sorted(self.written)
            if offset not in self.aborted and offset < stable
        }


def whole_batches(data: memoryview) -> Iterator[tuple[BatchHeader, memoryview]]:
    for position, size, _ in iter_batches(data):
        yield read_header(data, position), data[position : position + size]


class Reader:
    """A consumer that reads a little at a time."""

    def __init__(self, log: Log, start: int) -> None:
        self.log = log
        self.start = start
        self.offset = start
        self.seen: list[tuple[int, tuple[bytes | None, bytes | None]]] = []

    def read(self, to_the_end: bool = False) -> None:
        while self.offset < self.log.log_end_offset:
            data = self.log.read(self.offset, 100, self.log.log_end_offset).view()
            for header, batch in whole_batches(data):
                if not header.is_control:
                    self.seen += [
                        (record.offset, (record.key, record.value))
                        for record in records(batch)
                        if record.offset >= self.offset
                    ]
                self.offset = header.next_offset
            if not to_the_end or not data:
                break


@contextmanager
def history(**topic: Any) -> Iterator[History]:
    directory = tempfile.mkdtemp(prefix="kavka-test-")
    try:
        place = Place(
            f"{directory}/orders-0", cleanup_policy=("compact",), index_interval_bytes=200, **topic
        )
        yield History(Cleaning(place))
    finally:
        shutil.rmtree(directory)


@given(st.lists(STEPS, min_size=1, max_size=45), st.sampled_from((300, 700, 100_000)))
@settings(max_examples=120, deadline=None)
def test_compaction_equals_a_dictionary(steps: list[tuple[Any, ...]], segment_bytes: int) -> None:
    with history(segment_bytes=segment_bytes) as one:
        for step in steps:
            one.do(step)
        one.clean()
        assert one.committed() == one.expected_state()
        for producer_id in PRODUCERS:
            one.do(("end", producer_id, producer_id == 2))
        one.do(("roll",))
        one.clean()
        assert one.cleaning.logs.checkpoint == one.log.log_end_offset
        assert one.committed() == one.expected_state()
        found, producers = (
            contents(one.log),
            {e.producer_id: e for e in one.log.producers.entries()},
        )
        one.log.close()
        # Loaded after a crash, from nothing but the records.
        for name in one.cleaning.place.files(".snapshot"):
            one.cleaning.place.fs.unlink(one.cleaning.place.path(name))
        one.log = one.cleaning.log = one.cleaning.place.open(clean=False)
        one.log.advance_high_watermark(one.log.log_end_offset)
        assert contents(one.log) == found
        assert one.committed() == one.expected_state()
        for producer_id, entry in producers.items():
            again = one.log.producers.get(producer_id)
            note(f"{entry} {again}")
            assert again is not None
            assert again.epoch == entry.epoch
            if entry.batches:  # else it was forgotten once, and its records tell more
                assert again.last_sequence == entry.last_sequence
            assert again.txn_first_offset == entry.txn_first_offset == -1


@given(st.lists(STEPS, min_size=1, max_size=40))
@settings(max_examples=60, deadline=None)
def test_what_has_been_deleted_goes_in_the_end(steps: list[tuple[Any, ...]]) -> None:
    """With no time to wait, tombstones and markers go by the second cleaning after theirs."""
    with history(segment_bytes=100_000, delete_retention_ms=0) as one:
        for step in steps:
            if step[0] not in ("clean", "roll"):
                one.do(step)
        for producer_id in PRODUCERS:
            one.do(("end", producer_id, producer_id == 2))
        one.do(("expire",))
        for mtime in (1_000, 1_000, 1_000, 1_000):
            one.log.roll()
            for segment in one.log.segments[:-1]:
                one.cleaning.place.fs.set_mtime(segment.path, mtime)
            while one.cleaning.clean():
                pass
            put(one.log, (b"another key", b"x"))
        values = {key: value for key, value in one.expected_state().items() if value is not None}
        state = dict(contents(one.log).values())
        assert state.pop(b"another key") == b"x"
        assert state == values
        data = [header for header in headers(raw(one.log)) if not header.is_control]
        markers = [header for header in headers(raw(one.log)) if header.is_control]
        transactional = {h.producer_id for h in data if h.is_transactional}
        assert {h.producer_id for h in markers} <= transactional
