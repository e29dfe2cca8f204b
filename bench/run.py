"""What a scenario is given: who is measured, how often, and where figures go."""

import argparse
import contextlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from bench.brokers import Broker, Make
from bench.figures import Figures


class Run(NamedTuple):
    """One run of one scenario."""

    contenders: Sequence[Make]  # Kavka first
    rounds: int
    figures: Figures
    options: argparse.Namespace

    @property
    def full(self) -> list[Make]:
        """Those that speak all of the protocol that the load generator does."""
        return [make for make in self.contenders if make.name in ("kavka", "kafka")]

    def alternating(self) -> Iterator[Make]:
        """Every contender in turn, ``rounds`` times: what changes on the machine meanwhile changes
        for all of them."""
        for number in range(self.rounds):
            for make in self.full:
                print(f"  round {number + 1} of {self.rounds}: {make.name}", flush=True)
                yield make


@contextlib.contextmanager
def all_running(makes: Sequence[Make]) -> Iterator[list[Broker]]:
    """Brokers that all run at once, so that measurements can alternate between them."""
    brokers: list[Broker] = []
    try:
        for make in makes:
            broker = make({})
            brokers.append(broker)
            broker.start()
        yield brokers
    finally:
        for broker in brokers:
            broker.remove()
