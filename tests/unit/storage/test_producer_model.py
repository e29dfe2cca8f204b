"""Producer state over random schedules, beside a model that decides by rereading history.

The model keeps, for each producer, the list of everything it appended, and answers each question
by going through that list; no running state except the lists, so that it shares no idea (and no
mistake) with the real thing.
"""

from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.protocol.records.batch import BatchHeader
from kavka.storage.fs import FileSystem
from kavka.storage.producers import (
    AppendOrigin,
    CompletedTxn,
    Duplicate,
    ProducerStateManager,
)
from tests.unit.storage.producer_support import EndMarker, batch, control

EXPIRATION = 50
MODULUS = 2**31


class Event(NamedTuple):
    """A batch in the log, with what a client's retry of it would be told."""

    header: BatchHeader
    first: int
    timestamp: int
    marker: EndMarker | None = None
    remembered: bool = True  # among the last five batches, were it not for newer ones

    @property
    def last(self) -> int:
        return self.first + self.header.last_offset_delta


History = dict[int, list[Event]]


class Model:
    """What a partition should do, from its history."""

    def __init__(self, accept_unknown: bool) -> None:
        self.accept_unknown = accept_unknown
        self.producers: History = {}
        self.ended: list[tuple[int, int]] = []  # first offset, marker: not yet replicated
        self.log_start = 0

    def epoch(self, producer: int) -> int:
        return self.producers[producer][-1].header.producer_epoch

    def batches(self, producer: int) -> list[Event]:
        """Data batches since the producer's epoch last changed, of which it may resend."""
        found: list[Event] = []
        for event in self.producers[producer]:
            if found and found[-1].header.producer_epoch != event.header.producer_epoch:
                found = []
            found.append(event)
        epoch = self.epoch(producer)
        return [
            event
            for event in found
            if event.marker is None and event.remembered and event.header.producer_epoch == epoch
        ][-5:]

    def open_since(self, producer: int) -> int | None:
        first = None
        for event in self.producers.get(producer, []):
            if event.marker is not None:
                first = None
            elif first is None and event.header.is_transactional:
                first = event.first
        return first

    def open_transactions(self) -> list[int]:
        opened = (self.open_since(producer) for producer in self.producers)
        return sorted(first for first in opened if first is not None)

    def first_unstable(self) -> int | None:
        firsts = self.open_transactions() + [first for first, _ in self.ended]
        return max(min(firsts), self.log_start) if firsts else None

    def check(self, header: BatchHeader) -> Duplicate | ErrorCode | None:
        producer = header.producer_id
        wanted = range(header.base_sequence, header.base_sequence + header.last_offset_delta + 1)
        if producer not in self.producers:
            fresh = header.base_sequence == 0 or self.accept_unknown
            return None if fresh else ErrorCode.UNKNOWN_PRODUCER_ID
        epoch = self.epoch(producer)
        if header.producer_epoch < epoch:
            return ErrorCode.INVALID_PRODUCER_EPOCH
        if header.producer_epoch > epoch:
            if header.base_sequence != 0:
                return ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER
        else:
            batches = self.batches(producer)
            for event in batches:
                there = event.header
                if there.base_sequence == wanted[0] and len(wanted) == there.last_offset_delta + 1:
                    return Duplicate(event.first, event.last, event.timestamp)
            if batches:
                newest = batches[-1].header
                following = (newest.base_sequence + newest.last_offset_delta + 1) % MODULUS
                if header.base_sequence != following:
                    return ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER
            elif header.base_sequence != 0:
                return (
                    ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER
                    if self.accept_unknown
                    else ErrorCode.UNKNOWN_PRODUCER_ID
                )
        if self.open_since(producer) is not None and not header.is_transactional:
            return ErrorCode.INVALID_TXN_STATE
        return None

    def check_marker(self, header: BatchHeader, marker: EndMarker) -> ErrorCode | None:
        events = self.producers.get(header.producer_id)
        if events is None:
            return None
        if header.producer_epoch < events[-1].header.producer_epoch:
            return ErrorCode.INVALID_PRODUCER_EPOCH
        seen = [event.marker.coordinator_epoch for event in events if event.marker is not None]
        if seen and marker.coordinator_epoch < seen[-1]:
            return ErrorCode.TRANSACTION_COORDINATOR_FENCED
        return None

    def update(self, event: Event) -> CompletedTxn | None:
        producer = event.header.producer_id
        first = self.open_since(producer)
        self.producers.setdefault(producer, []).append(event)
        if event.marker is None or first is None:
            return None
        self.ended.append((first, event.first))
        stable = (self.open_transactions() or [event.first + 1])[0]
        return CompletedTxn(producer, first, event.first, not event.marker.committed, stable)

    def on_high_watermark(self, high_watermark: int) -> None:
        self.ended = [txn for txn in self.ended if txn[1] >= high_watermark]

    def on_log_start(self, offset: int) -> None:
        self.log_start = offset
        if self.accept_unknown:
            return
        for producer in list(self.producers):
            before = self.batches(producer)
            self.producers[producer] = [
                event._replace(remembered=event.remembered and event.last >= offset)
                for event in self.producers[producer]
            ]
            if before and not self.batches(producer):
                del self.producers[producer]

    def expire(self, now: int) -> None:
        for producer, events in list(self.producers.items()):
            idle = now - events[-1].timestamp >= EXPIRATION
            if idle and self.open_since(producer) is None:
                del self.producers[producer]

    def snapshot(self) -> History:
        """Everything, but of the batches only each producer's last can be resent later.

        It is then said to have the time of what came last, which may be a marker: the file
        has one timestamp for both.
        """
        saved: History = {}
        for producer, events in self.producers.items():
            last = self.batches(producer)[-1:]
            saved[producer] = [
                event._replace(remembered=event in last, timestamp=events[-1].timestamp)
                for event in events
            ]
        return saved


class Partition:
    """The real state and the model, on one log."""

    def __init__(self, directory: Path, accept_unknown: bool) -> None:
        self.directory = str(directory)
        self.accept_unknown = accept_unknown
        self.log: list[Event] = []
        self.end = self.high_watermark = self.log_start = self.now = 0
        self.model = Model(accept_unknown)
        self.saved: dict[int, History] = {}
        self.real = self.fresh()
        assert self.real.reload(0, 0, 0) == 0

    def fresh(self) -> ProducerStateManager:
        return ProducerStateManager(
            FileSystem(),
            self.directory,
            "t-0",
            expiration_ms=EXPIRATION,
            accept_unknown=self.accept_unknown,
        )

    def send(self, header: BatchHeader) -> None:
        expected = self.model.check(header)
        try:
            outcome: Duplicate | ErrorCode | None = self.real.check(header)
        except KafkaError as error:
            outcome = error.code
        assert outcome == expected
        if outcome is None:
            self.append(Event(header, self.end, self.now))

    def end_transaction(self, header: BatchHeader, marker: EndMarker) -> None:
        expected = self.model.check_marker(header, marker)
        try:
            outcome = self.real.check(header, AppendOrigin.COORDINATOR, marker)
            assert outcome is None and expected is None
        except KafkaError as error:
            assert error.code == expected
            return
        self.append(Event(header, self.end, self.now, marker))

    def append(self, event: Event) -> None:
        self.apply(event)
        self.log.append(event)
        self.end = event.last + 1

    def apply(self, event: Event) -> None:
        completed = self.real.update(event.header, event.first, event.timestamp, event.marker)
        assert completed == self.model.update(event)
        self.real.end_offset = event.last + 1

    def advance(self, share: float) -> None:
        self.high_watermark += int((self.end - self.high_watermark) * share)
        self.real.on_high_watermark(self.high_watermark)
        self.model.on_high_watermark(self.high_watermark)

    def delete(self, share: float) -> None:
        self.log_start += int((self.high_watermark - self.log_start) * share)
        self.real.on_log_start(self.log_start)
        self.model.on_log_start(self.log_start)

    def take_snapshot(self) -> None:
        if self.real.take_snapshot():
            self.saved[self.end] = self.model.snapshot()

    def truncate(self, share: float) -> None:
        target = self.end - int((self.end - self.high_watermark) * share)
        self.log = [event for event in self.log if event.last < target]
        end = max(self.log[-1].last + 1 if self.log else self.log_start, self.high_watermark)
        if end < self.end:
            self.end = end
            self.reload()

    def restart(self) -> None:
        self.real = self.fresh()
        self.model.ended = [(first, last) for first, last in self.model.ended if last >= self.end]
        self.reload()
        self.real.on_high_watermark(self.high_watermark)
        self.model.on_high_watermark(self.high_watermark)

    def reload(self) -> None:
        self.saved = {
            offset: saved
            for offset, saved in self.saved.items()
            if self.log_start <= offset <= self.end
        }
        start = max(self.saved, default=self.log_start)
        model = self.model
        model.producers = {
            producer: list(events) for producer, events in self.saved.get(start, {}).items()
        }
        model.ended = [(first, last) for first, last in model.ended if last < start]
        model.expire(self.now)
        model.on_log_start(self.log_start)
        assert self.real.reload(self.log_start, self.end, self.now) == start
        for event in self.log:
            if event.first >= start:
                self.apply(event)
        self.real.end_offset = self.end
        self.real.on_log_start(self.log_start)
        model.on_log_start(self.log_start)

    def compare(self) -> None:
        model, real = self.model, self.real
        assert real.first_unstable_offset == model.first_unstable()
        assert {entry.producer_id for entry in real.entries()} == set(model.producers)
        for entry in real.entries():
            producer = entry.producer_id
            assert entry.epoch == model.epoch(producer)
            assert [(one.first_offset, one.last_offset) for one in entry.batches] == [
                (event.first, event.last) for event in model.batches(producer)
            ]
            opened = model.open_since(producer)
            assert entry.txn_first_offset == (-1 if opened is None else opened)


ACTIONS = [
    *("next",) * 5,
    *("begin", "transact", "transact", "end", "end", "end bumped"),
    *("resend", "resend", "any", "bump", "zombie", "stale marker"),
    *("advance", "advance", "delete", "snapshot", "truncate", "restart", "wait"),
]
steps = st.tuples(
    st.sampled_from(ACTIONS), st.integers(0, 2), st.integers(0, 5), st.sampled_from([0.3, 0.7, 1.0])
)


@given(st.lists(steps, min_size=5, max_size=60), st.booleans(), st.sampled_from([0, MODULUS - 7]))
@settings(max_examples=300, deadline=None)
def test_any_schedule(
    tmp_path_factory: pytest.TempPathFactory,
    schedule: list[tuple[str, int, int, float]],
    accept_unknown: bool,
    first_sequence: int,
) -> None:
    partition = Partition(tmp_path_factory.mktemp("producers"), accept_unknown)
    for producer in range(3):  # near the wrap, for a part of the runs
        partition.append(Event(batch(first_sequence, 1, producer_id=producer), partition.end, 0))
    for action, producer, number, share in schedule:
        play(partition, action, producer, number, share)
        partition.compare()


def play(partition: Partition, action: str, producer: int, number: int, share: float) -> None:
    model = partition.model
    known = producer in model.producers
    epoch = model.epoch(producer) if known else 0
    sent = model.batches(producer) if known else []
    newest = sent[-1].header if sent else None
    following = (newest.base_sequence + newest.last_offset_delta + 1) % MODULUS if newest else 0
    opened = model.open_since(producer) is not None
    count = number + 1
    partition.now += 1
    match action:
        case "next":
            header = batch(
                following, count, producer_id=producer, epoch=epoch, transactional=opened
            )
            partition.send(header)
        case "begin" | "transact":
            header = batch(following, count, producer_id=producer, epoch=epoch, transactional=True)
            partition.send(header)
        case "end" | "end bumped":
            bumped = epoch + (action == "end bumped")
            marker = EndMarker(number % 2 == 0, partition.now)
            partition.end_transaction(control(producer_id=producer, epoch=bumped), marker)
        case "resend":
            past = [event for event in partition.log if event.marker is None]
            if past:
                partition.send(past[-min(len(past), count)].header)
        case "any":
            header = batch(number, 1, producer_id=producer, epoch=epoch, transactional=share < 0.5)
            partition.send(header)
        case "bump":
            partition.send(batch(number % 2, producer_id=producer, epoch=epoch + 1))
        case "zombie":
            partition.send(batch(following, producer_id=producer, epoch=epoch - 1))
        case "stale marker":
            marker = EndMarker(True, partition.now - 2)
            partition.end_transaction(control(producer_id=producer, epoch=epoch), marker)
        case "advance":
            partition.advance(share)
        case "delete":
            partition.delete(share)
        case "snapshot":
            partition.take_snapshot()
        case "truncate":
            partition.truncate(share)
        case "restart":
            partition.restart()
        case "wait":
            partition.now += EXPIRATION // 2
            partition.real.remove_expired(partition.now)
            model.expire(partition.now)
