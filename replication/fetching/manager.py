"""All that this broker follows: which partition is fetched from whom."""

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Protocol
from zlib import crc32

from kavka.protocol.topics import TopicPartition
from kavka.replication.client import BrokerAddress
from kavka.replication.fetching.fetcher import Fetcher
from kavka.replication.fetching.following import Following
from kavka.replication.fetching.surroundings import (
    Connect,
    FetcherSettings,
    Replicas,
    Surroundings,
)
from kavka.replication.partition import Partition
from kavka.replication.throttling import ReplicationThrottle
from kavka.storage.clock import Clock

log = logging.getLogger("kavka.replication.fetching")


class Settings(Protocol):
    """The broker's settings."""

    def get_int(self, name: str) -> int: ...


class FetcherManager:
    """The fetchers of one broker, ``num.replica.fetchers`` for each leader. For the event loop.

    ``find_address`` tells where the inter-broker listener of a live broker is, None if that is not
    known (yet): it is asked at every attempt to connect. ``connect`` opens a connection, with a
    client id.
    """

    def __init__(
        self,
        node_id: int,
        settings: Settings,
        clock: Clock,
        loop: asyncio.AbstractEventLoop,
        connect: Connect,
        find_address: Callable[[int], BrokerAddress | None],
        throttle: ReplicationThrottle | None = None,
    ) -> None:
        self._node_id = node_id
        self._settings = settings
        self._clock = clock
        self._loop = loop
        self._connect = connect
        self._find_address = find_address
        self._throttle = throttle
        self._addresses: dict[int, BrokerAddress] = {}
        self._fetchers: dict[tuple[int, int], Fetcher] = {}
        self._places: dict[TopicPartition, tuple[int, int]] = {}
        self._replicas: Replicas | None = None
        self._closed = False
        self._retired = False

    def attach(self, replicas: Replicas) -> None:
        """Say whom to tell of what is fetched, before anything is."""
        self._replicas = replicas

    def note_addresses(self, addresses: Iterable[BrokerAddress]) -> None:
        """Remember where leaders are, as told together with who leads: the rest of the metadata
        comes later."""
        for address in addresses:
            self._addresses[address.node_id] = address

    def follow(self, partition: Partition) -> None:
        """Fetch a partition from its leader from now on, beginning with a comparison of logs."""
        if self._closed or self._retired:
            return
        tp, leader_id = partition.topic_partition, partition.leader_id
        assert leader_id >= 0
        # Not hash(): it differs between two runs.
        number = crc32(f"{tp.topic}-{tp.partition}".encode()) % max(
            self._settings.get_int("num.replica.fetchers"), 1
        )
        place = leader_id, number
        if self._places.get(tp) != place:
            self.unfollow(tp)
        fetcher = self._fetchers.get(place)
        if fetcher is None:
            fetcher = self._fetchers[place] = self._make(leader_id, number)
        self._places[tp] = place
        fetcher.add(Following(partition, partition.leader_epoch))

    def retire(self) -> None:
        """Begin to follow nobody any more; who is followed is followed on.

        For a broker that hands over its leaderships: its last fetches from the new leaders would
        have them wait for it to catch up when it is gone.
        """
        self._retired = True

    def unfollow(self, topic_partition: TopicPartition) -> None:
        """Fetch it no more. Nothing is appended to it after this returns."""
        place = self._places.pop(topic_partition, None)
        if place is not None:
            fetcher = self._fetchers[place]
            fetcher.remove(topic_partition)
            if not len(fetcher):
                self._loop.call_soon(self._close_idle, place)

    def lags(self) -> dict[TopicPartition, int]:
        """Offsets that each followed partition is behind its leader, as far as is known."""
        lags: dict[TopicPartition, int] = {}
        for fetcher in self._fetchers.values():
            lags.update(fetcher.lags())
        return lags

    def close(self) -> None:
        """Follow nothing any more."""
        self._closed = True
        for fetcher in self._fetchers.values():
            fetcher.close()
        self._fetchers.clear()
        self._places.clear()

    def _close_idle(self, place: tuple[int, int]) -> None:
        fetcher = self._fetchers.get(place)
        if fetcher is not None and not len(fetcher):
            del self._fetchers[place]
            fetcher.close()

    def _make(self, leader_id: int, number: int) -> Fetcher:
        assert self._replicas is not None
        get = self._settings.get_int
        settings = FetcherSettings(
            self._node_id,
            get("replica.fetch.wait.max.ms"),
            get("replica.fetch.min.bytes"),
            get("replica.fetch.response.max.bytes"),
            get("replica.fetch.max.bytes"),
            get("replica.fetch.backoff.ms") / 1000,
        )
        around = Surroundings(
            self._loop,
            self._clock,
            self._connect,
            self._address,
            self._replicas,
            self._throttle,
        )
        return Fetcher(leader_id, number, settings, around)

    def _address(self, broker_id: int) -> BrokerAddress | None:
        return self._find_address(broker_id) or self._addresses.get(broker_id)
