"""A coordinator that is made when it is needed."""

from typing import Any

from kavka.broker.coordination.on_demand import OnDemand

TOPIC = "__consumer_offsets"


class Recorded:
    """A coordinator that says what it is told."""

    def __init__(self) -> None:
        self.heard: list[object] = []

    def start(self) -> None:
        self.heard.append("start")

    def stop(self) -> None:
        self.heard.append("stop")

    async def loaded(self) -> None:
        self.heard.append("loaded")

    def on_elected(self, partition: int, leader_epoch: int) -> None:
        self.heard.append(("elected", partition, leader_epoch))

    def on_resigned(self, partition: int) -> None:
        self.heard.append(("resigned", partition))


class World:
    """The coordinator to be, and the replicas that it hears of."""

    def __init__(self) -> None:
        self.made: list[Recorded] = []
        self.on_demand = OnDemand(self._make)
        replicas: Any = self  # as far as it is asked
        self._start = lambda: self.on_demand.start(replicas, TOPIC)

    def _make(self) -> Recorded:
        self.made.append(Recorded())
        return self.made[-1]

    def subscribe_leadership(self, topic: str, on_elected: Any, on_resigned: Any) -> None:
        assert topic == TOPIC
        self.elected, self.resigned = on_elected, on_resigned

    def start(self) -> None:
        self._start()


def test_nobody_needs_it() -> None:
    world = World()
    world.start()
    world.resigned(3)
    world.on_demand.stop()
    assert world.made == []


def test_a_partition_is_led_here() -> None:
    world = World()
    world.start()
    world.elected(3, 7)
    world.elected(4, 7)
    world.resigned(3)
    world.on_demand.stop()
    (made,) = world.made
    assert made.heard == [
        *("start", ("elected", 3, 7), ("elected", 4, 7), ("resigned", 3), "stop"),
    ]


def test_asked_for_before_the_start_it_serves_from_the_start_on() -> None:
    world = World()
    made = world.on_demand.get()
    assert made.heard == []
    world.start()
    assert world.on_demand.get() is made
    assert made.heard == ["start"]


def test_asked_for_after_the_stop_it_does_not_serve() -> None:
    world = World()
    world.start()
    world.on_demand.stop()
    assert world.on_demand.get().heard == []
