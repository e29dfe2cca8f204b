"""The waiting room against a plain model of deadlines and keys."""

from collections.abc import Callable, Hashable

from hypothesis import given, settings
from hypothesis import strategies as st

from kavka.replication.waiting import TICK_SECONDS, Waiter, WaitingRoom
from kavka.storage.clock import ManualClock


class FakeLoop:
    """Runs what is due when it is told to."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.soon: list[Callable[[], object]] = []
        self.later: list[FakeTimer] = []

    def call_soon(self, callback: Callable[[], object]) -> None:
        self.soon.append(callback)

    def call_later(self, delay: float, callback: Callable[[], object]) -> "FakeTimer":
        timer = FakeTimer(self.clock.monotonic() + delay, callback)
        self.later.append(timer)
        return timer

    def turn(self) -> None:
        soon, self.soon = self.soon, []
        for callback in soon:
            callback()

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)
        while due := [t for t in self.later if not t.cancelled and t.at <= self.clock.monotonic()]:
            for timer in due:
                self.later.remove(timer)
                timer.callback()


class FakeTimer:
    def __init__(self, at: float, callback: Callable[[], object]) -> None:
        self.at = at
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Recorder(Waiter):
    __slots__ = ("outcome", "ready")

    def __init__(self) -> None:
        super().__init__()
        self.outcome = ""
        self.ready = False

    def try_complete(self, key: Hashable) -> bool:
        if self.ready:
            self.outcome = "completed"
        return self.ready

    def expire(self) -> None:
        assert not self.outcome
        self.outcome = "expired"


def room() -> tuple[WaitingRoom, FakeLoop]:
    clock = ManualClock()
    loop = FakeLoop(clock)
    return WaitingRoom(clock, loop), loop


def test_many_notifications_wake_once_per_turn() -> None:
    waiting, loop = room()
    waiter = Recorder()
    waiting.park(waiter, ["a", "b"], 10)
    for _ in range(100):
        waiting.notify("a")
        waiting.notify("b")
    assert len(loop.soon) == 1
    waiter.ready = True
    loop.turn()
    assert waiter.outcome == "completed"
    assert len(waiting) == 0


def test_a_key_nobody_waits_for_costs_nothing() -> None:
    waiting, loop = room()
    waiting.notify("a")
    assert loop.soon == []


def test_expiry_is_never_early_and_at_most_a_tick_late() -> None:
    waiting, loop = room()
    waiter = Recorder()
    waiting.park(waiter, ["a"], 0.5)
    loop.advance(0.499)
    assert waiter.outcome == ""
    loop.advance(0.001 + 2 * TICK_SECONDS)
    assert waiter.outcome == "expired"


def test_leaving_forgets_the_waiter() -> None:
    waiting, loop = room()
    waiter = Recorder()
    waiting.park(waiter, ["a"], 0.5)
    waiting.leave(waiter)
    waiter.ready = True
    waiting.notify("a")
    loop.turn()
    loop.advance(1)
    assert waiter.outcome == ""
    assert not waiter.parked


def test_far_deadlines_of_those_who_left_do_not_pile_up() -> None:
    waiting, loop = room()
    stays = Recorder()
    waiting.park(stays, ["a", "b"], 5000.0)
    for hour in range(20_000):
        waiter = Recorder()
        waiting.park(waiter, ["a"], 3600.0 * hour)
        waiting.leave(waiter)
        assert len(waiting._buckets) == len(waiting._ticks) < 2000
    assert (len(waiting), waiting.awaited) == (1, 2)
    loop.advance(5001.0)
    assert stays.outcome == "expired"
    assert waiting.awaited == 0


def test_stopping_expires_everybody() -> None:
    waiting, _ = room()
    waiters = [Recorder() for _ in range(5)]
    for seconds, waiter in enumerate(waiters, 1):
        waiting.park(waiter, ["a"], seconds)
    waiting.expire_all()
    assert [w.outcome for w in waiters] == ["expired"] * 5
    assert len(waiting) == 0


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("park"), st.integers(0, 3), st.integers(1, 40)),
            st.tuples(st.just("ready"), st.integers(0, 20), st.just(0)),
            st.tuples(st.just("notify"), st.integers(0, 3), st.just(0)),
            st.tuples(st.just("turn"), st.just(0), st.just(0)),
            st.tuples(st.just("advance"), st.integers(1, 30), st.just(0)),
        ),
        max_size=60,
    )
)
def test_everybody_is_finished_exactly_once(steps: list[tuple[str, int, int]]) -> None:
    waiting, loop = room()
    waiters: list[tuple[Recorder, float]] = []
    for action, number, ticks in steps:
        if action == "park":
            waiter = Recorder()
            timeout = ticks * TICK_SECONDS
            waiting.park(waiter, [number, number + 1], timeout)
            waiters.append((waiter, loop.clock.monotonic() + timeout))
        elif action == "ready" and waiters:
            waiters[number % len(waiters)][0].ready = True
        elif action == "notify":
            waiting.notify(number)
        elif action == "turn":
            loop.turn()
        elif action == "advance":
            loop.advance(number * TICK_SECONDS)
        now = loop.clock.monotonic()
        for waiter, deadline in waiters:
            if deadline + 2 * TICK_SECONDS < now:
                assert waiter.outcome
            if waiter.outcome == "expired":
                assert deadline <= now + 1e-9
        assert len(waiting) == sum(1 for w, _ in waiters if not w.outcome)
    loop.advance(1000)
    assert all(w.outcome for w, _ in waiters)
    assert len(waiting) == 0
