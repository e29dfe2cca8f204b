"""One timer for many deadlines."""

from kavka.broker.coordination.timers import Deadlines
from kavka.storage.clock import ManualClock
from tests.unit.broker.groups.harness import Timers


class Fixture:
    def __init__(self) -> None:
        self.clock = ManualClock()
        self.timers = Timers(self.clock)
        self.due: list[tuple[float, str]] = []
        self.fails: set[str] = set()
        self.again: dict[str, float] = {}
        self.deadlines = Deadlines(self.clock, self.timers.call_later, self.on_due)

    def on_due(self, key: str) -> None:
        self.due.append((self.clock.monotonic(), key))
        if key in self.again:
            self.deadlines.set(key, self.clock.monotonic() + self.again[key])
        if key in self.fails:
            raise RuntimeError(key)


def test_each_key_is_called_once_at_its_earliest_time() -> None:
    fixture = Fixture()
    fixture.deadlines.set("a", 5.0)
    fixture.deadlines.set("b", 3.0)
    fixture.deadlines.set("a", 9.0)  # later: it will be looked at by 5 anyway
    fixture.deadlines.set("b", 1.0)
    fixture.deadlines.set("c", 5.0)
    fixture.timers.advance(20)
    assert fixture.due == [(1.0, "b"), (5.0, "a"), (5.0, "c")]
    assert len(fixture.deadlines) == 0


def test_forgotten_keys_and_a_closed_heap_are_not_called() -> None:
    fixture = Fixture()
    fixture.deadlines.set("a", 1.0)
    fixture.deadlines.set("b", 2.0)
    fixture.deadlines.forget("a")
    fixture.deadlines.forget("never known")
    fixture.timers.advance(3)
    assert fixture.due == [(2.0, "b")]
    fixture.deadlines.set("a", 4.0)
    fixture.deadlines.close()
    fixture.timers.advance(3)
    assert fixture.due == [(2.0, "b")]


def test_a_key_may_be_set_again_while_it_is_due() -> None:
    fixture = Fixture()
    fixture.again = {"a": 2.0}
    fixture.deadlines.set("a", 1.0)
    fixture.timers.advance(6)
    assert fixture.due == [(1.0, "a"), (3.0, "a"), (5.0, "a")]


def test_a_key_that_fails_does_not_take_the_others_with_it() -> None:
    fixture = Fixture()
    fixture.fails = {"a"}
    fixture.deadlines.set("a", 1.0)
    fixture.deadlines.set("b", 1.0)
    try:
        fixture.timers.advance(1)
    except RuntimeError:
        fixture.timers.advance(1)
    assert fixture.due == [(1.0, "a"), (1.0, "b")]


def test_a_past_deadline_is_due_at_once() -> None:
    fixture = Fixture()
    fixture.clock.advance(10)
    fixture.deadlines.set("a", 4.0)
    assert fixture.due == []  # but never within the call that sets it
    fixture.timers.advance(0)
    assert fixture.due == [(10.0, "a")]
