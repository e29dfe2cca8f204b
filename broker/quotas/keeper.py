"""Keeps the quotas as the store and the settings have them.

Loaded with every broker, so it imports what counts and limits only once somebody is limited; until
then ``broker.quotas`` is None and requests pay nothing.
"""

import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from kavka.broker.quotas.entities import (
    CLIENT_QUOTAS,
    CONNECTION_CREATION_RATE,
    client_entity,
    parse_limit,
)
from kavka.config.flavours import flavour_of
from kavka.config.profiles import PUBLIC

if TYPE_CHECKING:
    from kavka.broker.admission import Admission
    from kavka.broker.context import Broker
    from kavka.broker.quotas.connections import ConnectionRates
    from kavka.broker.quotas.memory import Window
    from kavka.broker.quotas.quotas import Quotas
    from kavka.config.broker import BrokerConfig
    from kavka.replication.controller.configs import ConfigStore
    from kavka.replication.znodes import EntityType

log = logging.getLogger("kavka.quotas")

_UNLIMITED: Final = 2**63 - 1
_BANDWIDTH_SETTINGS: Final = (
    "instance.flavour",
    "instance.bandwidth.bytes",
    "public.bandwidth.mbits",
)


class QuotaKeeper:
    """Builds ``broker.quotas`` when the first limit appears, and takes it off with the last.

    Must be made before the store loads, to hear of what is there.
    """

    def __init__(self, broker: "Broker", store: "ConfigStore") -> None:
        self.store: Final = store
        self._broker = broker
        self._config = broker.config
        self._quotas: Quotas | None = None
        self._connections: ConnectionRates | None = None
        self._admission: Admission | None = None
        for entity_type in ("users", "clients"):
            store.subscribe(entity_type, self._client_follower(entity_type))
        store.subscribe("ips", self._address_changed)
        self._config.on_change(_BANDWIDTH_SETTINGS, self._bandwidth_changed)
        if self._defaults() != (None, None):
            self._made()
        self._bandwidth_changed(frozenset())

    def limit_connections(self, admission: "Admission") -> None:
        """Have ``admission`` ask about each accepted socket, once an address is limited."""
        self._admission = admission
        if self._connections is not None:
            admission.rate = self._connections.admit

    # -- what the store says --------------------------------------------------------------------

    def _client_follower(
        self, entity_type: "EntityType"
    ) -> "Callable[[str, Mapping[str, str]], None]":
        def changed(name: str, overrides: Mapping[str, str]) -> None:
            limits = {key: overrides[key] for key in CLIENT_QUOTAS if key in overrides}
            if not limits and self._quotas is None:
                return
            entity = client_entity(entity_type, name)
            if entity is None:
                log.error("no such kind of entity has quotas entity=%s/%s", entity_type, name)
                return
            quotas = self._made()
            for key in CLIENT_QUOTAS:
                quotas.set(entity, key, _limit(f"{entity_type}/{name}", key, limits))
            self._attach()

        return changed

    def _address_changed(self, name: str, overrides: Mapping[str, str]) -> None:
        if CONNECTION_CREATION_RATE not in overrides and self._connections is None:
            return
        if self._connections is None:
            from kavka.broker.quotas.connections import ConnectionRates

            self._connections = ConnectionRates(self._window(), self._broker.clock)
            if self._admission is not None:
                self._admission.rate = self._connections.admit
        limit = _limit(f"ips/{name}", CONNECTION_CREATION_RATE, overrides)
        self._connections.set(name, limit)

    # -- what the settings say ------------------------------------------------------------------

    def _bandwidth_changed(self, names: frozenset[str]) -> None:
        rates = bandwidths(self._config, 1)
        if rates == (None, None):
            if self._quotas is not None:
                self._quotas.instance = None
        else:
            from kavka.broker.quotas.instance import InstanceBandwidth

            self._made().instance = InstanceBandwidth(self._bandwidths, PUBLIC)
        self._attach()

    def _bandwidths(self) -> tuple[float | None, float | None]:
        return bandwidths(self._config, len(self._broker.metadata.brokers))

    def _defaults(self) -> tuple[float | None, float | None]:
        producer = self._config.get_int("quota.producer.default")
        consumer = self._config.get_int("quota.consumer.default")
        return (
            producer if producer != _UNLIMITED else None,
            consumer if consumer != _UNLIMITED else None,
        )

    def _window(self) -> "Window":
        from kavka.broker.quotas.memory import Window

        return Window(
            self._config.get_int("quota.window.num"),
            self._config.get_int("quota.window.size.seconds"),
        )

    # -- what comes of it -----------------------------------------------------------------------

    def _made(self) -> "Quotas":
        if self._quotas is None:
            from kavka.broker.quotas.quotas import Quotas

            producer, consumer = self._defaults()
            burst = self._config.get_float("quota.burst.seconds")
            self._quotas = Quotas(
                self._broker.clock,
                self._window(),
                burst=burst if burst >= 0 else None,
                is_replica=self._is_replica,
                producer_default=producer,
                consumer_default=consumer,
            )
        return self._quotas

    def _is_replica(self, broker_id: int) -> bool:
        broker = self._broker
        return broker_id in broker.metadata.brokers and broker_id != broker.node_id

    def _attach(self) -> None:
        quotas = self._quotas
        self._broker.quotas = quotas if quotas is not None and quotas.limits_anybody else None


def bandwidths(config: "BrokerConfig", brokers: int) -> tuple[float | None, float | None]:
    """What one of so many live brokers may move for clients in each direction, in all and by
    public listeners, in bytes a second; None for no limit.
    """
    brokers = max(brokers, 1)
    whole: float | None = config.get_int("instance.bandwidth.bytes") or None
    if whole is None:
        flavour = flavour_of(config)
        whole = None if flavour is None else flavour.bytes_per_second_of(brokers)
    public = config.get_int("public.bandwidth.mbits") * 1_000_000 / 8 / brokers
    return whole, public or None


def _limit(entity: str, key: str, overrides: Mapping[str, str]) -> float | None:
    text = overrides.get(key)
    if text is None:
        return None
    limit = parse_limit(text)
    if limit is None:
        log.error("a quota that is no number is ignored entity=%s quota=%s", entity, key)
    return limit
