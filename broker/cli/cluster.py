"""``kavka cluster up``: a whole cluster on this machine, for trying out and for tests."""

from pathlib import Path
from typing import Final

import click

_BETWEEN_BROKERS: Final = 100  # from a broker's port for clients to that for brokers


@click.group()
def cluster() -> None:
    """Work with several brokers at once."""


@cluster.command()
@click.option("--brokers", type=click.IntRange(1, 50), default=3, show_default=True)
@click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("kavka-cluster"),
    show_default=True,
    help="Where configurations, data and logs are.",
)
@click.option(
    "--base-port",
    type=click.IntRange(1, 65_000),
    default=9092,
    show_default=True,
    help="Port of the first broker; the others have the next.",
)
@click.option(
    "--zookeeper",
    metavar="HOST:PORT[/PATH]",
    help="A ZooKeeper that runs already; by default one is started.",
)
@click.option(
    "--zookeeper-port",
    type=click.IntRange(1, 65_535),
    default=2181,
    show_default=True,
    help="Port of the ZooKeeper that is started.",
)
@click.option(
    "--set",
    "assignments",
    metavar="KEY=VALUE",
    multiple=True,
    help="One setting for all brokers; may be repeated.",
)
def up(
    brokers: int,
    directory: Path,
    base_port: int,
    zookeeper: str | None,
    zookeeper_port: int,
    assignments: tuple[str, ...],
) -> int:
    """Start a ZooKeeper and some brokers here, and run them until told to stop.

    The directory gets one server.properties a broker. They are kept and used again, so they may be
    edited; nothing but a start with --dir at another place makes new ones.
    """
    for assignment in assignments:
        if "=" not in assignment:
            raise click.UsageError(f"--set {assignment} must have the form KEY=VALUE")
    directory = directory.absolute()
    directory.mkdir(parents=True, exist_ok=True)
    from kavka.broker.cli.processes import Processes  # other commands start none

    run = Processes(directory, assignments)
    try:
        run.catch_signals()
        connect = zookeeper or run.start_zookeeper(zookeeper_port)
        files = [
            write_properties(directory, number, brokers, base_port, connect)
            for number in range(1, brokers + 1)
        ]
        return run.brokers(files)
    finally:
        run.stop()


def write_properties(
    directory: Path, number: int, brokers: int, base_port: int, connect: str
) -> Path:
    """Write the configuration of one broker, unless it is there."""
    path = directory / f"broker-{number}.properties"
    if path.exists():
        return path
    port = base_port + number - 1
    factor = min(3, brokers)
    lines = [
        f"# Broker {number} of a cluster on one machine. In production each has a machine of its",
        "# own, with addresses that the others and the clients reach.",
        f"broker.id={number}",
        f"listeners=PLAINTEXT://127.0.0.1:{port},REPLICATION://127.0.0.1:{port + _BETWEEN_BROKERS}",
        "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,REPLICATION:PLAINTEXT",
        "inter.broker.listener.name=REPLICATION",
        f"log.dirs={directory / f'broker-{number}'}",
        f"zookeeper.connect={connect}",
        f"default.replication.factor={factor}",
        f"min.insync.replicas={min(2, factor)}",
        f"offsets.topic.replication.factor={factor}",
        f"transaction.state.log.replication.factor={factor}",
        f"transaction.state.log.min.isr={min(2, factor)}",
    ]
    path.write_text("\n".join(lines) + "\n")
    return path
