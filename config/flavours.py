"""The sizes an instance can have: what each may hold, and what it is recommended for.

A broker has one by ``instance.flavour``; without it nothing is capped. An instance is a whole
cluster: its brokers share what is said here.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from kavka.config.broker import BrokerConfig


class Flavour(NamedTuple):
    """One size of instances, by its base bandwidth."""

    name: str
    brokers: int
    bandwidth: int
    """Most that is written to it, and most that is read from it, in MB/s (10^6 bytes)."""
    vcpus: int  # of each broker
    memory_gb: int  # of each broker
    partitions: int
    """Most partitions of all topics, whatever their replicas."""
    connections: int
    """Most connections of clients."""
    groups: int
    """Consumer groups it is recommended for."""
    business_flow: int
    """MB/s it is recommended for: seven tenths of the bandwidth."""
    messages_per_second: int  # of 1 KB, for reference
    synchronous_messages_per_second: Mapping[str, int]
    """The same where every message is flushed before it is acknowledged, by class of disk."""
    storage_gb: range
    """Disk of all brokers that it may be made with."""

    def connections_of(self, brokers: int) -> int:
        """The share of one broker in the connections when so many brokers are alive."""
        return -(-self.connections // max(brokers, 1))

    def bytes_per_second_of(self, brokers: int) -> float:
        """The share of one broker in the bandwidth when so many brokers are alive."""
        return self.bandwidth * 1_000_000 / max(brokers, 1)


_STORAGE_GB_MAX: Final = 90_000
_DISKS: Final = ("high", "ultra")


def _flavour(
    bandwidth: int,
    brokers: int,
    node: tuple[int, int],
    partitions: int,
    connections: int,
    groups: int,
    messages: int,
    synchronous: tuple[int, int],
    storage_from: int,
) -> Flavour:
    return Flavour(
        name=str(bandwidth),
        brokers=brokers,
        bandwidth=bandwidth,
        vcpus=node[0],
        memory_gb=node[1],
        partitions=partitions,
        connections=connections,
        groups=groups,
        business_flow=bandwidth * 7 // 10,
        messages_per_second=messages,
        synchronous_messages_per_second=dict(zip(_DISKS, synchronous, strict=True)),
        storage_gb=range(storage_from, _STORAGE_GB_MAX + 1),
    )


FLAVOURS: Final[Mapping[str, Flavour]] = {
    flavour.name: flavour
    for flavour in (
        _flavour(100, 3, (2, 4), 300, 3_000, 60, 100_000, (60_000, 80_000), 600),
        _flavour(300, 3, (4, 8), 900, 10_000, 300, 300_000, (150_000, 200_000), 1_200),
        _flavour(600, 4, (8, 16), 1_800, 20_000, 600, 600_000, (300_000, 300_000), 2_400),
        _flavour(1_200, 8, (8, 16), 1_800, 20_000, 600, 1_200_000, (400_000, 400_000), 4_800),
    )
}
"""By name: the base bandwidth in MB/s."""


def flavour_of(config: "BrokerConfig") -> Flavour | None:
    """The flavour of the broker's instance; None when it has none and nothing is capped."""
    return FLAVOURS.get(config.get_str("instance.flavour"))
