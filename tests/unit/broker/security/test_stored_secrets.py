"""Secrets that are changed while the broker runs: encrypted in the store, shown to nobody."""

import asyncio
from typing import Any

import pytest

from kavka.broker.configs import Change, Configs, Operation, ResourceType
from kavka.config.broker import BrokerConfig
from kavka.protocol.errors import ErrorCode, KafkaError

NAME = "listener.name.sasl.plain.sasl.jaas.config"
JAAS = 'org.apache.kafka.common.security.plain.PlainLoginModule required user_a="s3cret";'
SECRET = {"password.encoder.secret": "the encoder's", "password.encoder.iterations": "1024"}


class Store:
    """What is stored of one broker."""

    def __init__(self, stored: dict[str, str] | None = None) -> None:
        self.stored = stored or {}
        self.subscribers: list[Any] = []

    def subscribe(self, kind: str, subscriber: Any) -> None:
        self.subscribers.append(subscriber)

    def load(self) -> None:
        for subscriber in self.subscribers:
            subscriber("7", self.stored)

    async def read(self, kind: str, name: str) -> dict[str, str]:
        return dict(self.stored)

    async def alter(self, kind: str, name: str, overrides: dict[str, str]) -> None:
        self.stored = dict(overrides)
        self.load()


class Broker:
    def __init__(self, settings: dict[str, str], store: Store) -> None:
        self.config = BrokerConfig(settings)
        self.configs = Configs(self.config, 7, None, store)  # type: ignore[arg-type]
        store.load()

    def alter(self, **options: Any) -> None:
        overrides = {NAME: JAAS, "log.retention.ms": "5"}
        options = {"validate_only": False, "modern": True, **options}
        asyncio.run(self.configs.replace(ResourceType.BROKER, "7", overrides, **options))

    def change(self, *changes: Change) -> None:
        options: Any = {"validate_only": False, "modern": True}
        asyncio.run(self.configs.change(ResourceType.BROKER, "7", changes, **options))

    @property
    def in_force(self) -> object:
        return self.config.listener_value("sasl", "sasl.jaas.config", "PLAIN")


def test_a_secret_is_in_force_here_and_unreadable_there(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(0)
    store = Store()
    broker = Broker(SECRET, store)
    broker.alter()
    assert broker.in_force == JAAS
    assert "s3cret" not in store.stored[NAME]
    assert store.stored["log.retention.ms"] == "5"
    assert Broker(SECRET, store).in_force == JAAS
    (entry,) = (e for e in broker.configs.describe_broker("7") if e.name == NAME)
    assert (entry.value, entry.sensitive) == (None, True)
    assert all(synonym.value is None for synonym in entry.synonyms)
    assert "s3cret" not in caplog.text and "encoder's" not in caplog.text


def test_changing_something_else_keeps_the_secret() -> None:
    store = Store()
    broker = Broker(SECRET, store)
    broker.alter()
    broker.change(Change("log.retention.ms", Operation.SET, "6"))
    assert broker.in_force == JAAS
    assert Broker(SECRET, store).in_force == JAAS
    broker.change(Change(NAME, Operation.DELETE, None))
    assert broker.in_force is None


def test_without_an_encoder_there_is_no_place_for_it() -> None:
    store = Store()
    broker = Broker({}, store)
    with pytest.raises(KafkaError, match=r"password\.encoder\.secret") as error:
        broker.alter()
    assert error.value.code is ErrorCode.INVALID_CONFIG
    assert "s3cret" not in str(error.value)
    assert store.stored == {}


def test_a_check_writes_nothing() -> None:
    store = Store()
    Broker(SECRET, store).alter(validate_only=True)
    assert store.stored == {}


def test_what_cannot_be_read_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    store = Store()
    Broker(SECRET, store).alter()
    for settings in ({}, {"password.encoder.secret": "another"}):
        broker = Broker(settings, store)
        assert broker.in_force is None
        assert broker.config.retention_ms == 5
    assert "A stored secret is ignored" in caplog.text


def test_the_encoders_secret_is_replaced() -> None:
    store = Store()
    Broker(SECRET, store).alter()
    before = store.stored[NAME]
    new = {"password.encoder.secret": "new", "password.encoder.old.secret": "the encoder's"}
    broker = Broker(new, store)
    assert broker.in_force == JAAS
    asyncio.run(broker.configs.renew_secrets())
    assert store.stored[NAME] != before
    assert Broker({"password.encoder.secret": "new"}, store).in_force == JAAS
    renewed = store.stored[NAME]
    asyncio.run(Broker(new, store).configs.renew_secrets())
    assert store.stored[NAME] == renewed, "nothing is to be done twice"
