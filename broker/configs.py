"""Settings as clients see and change them: sources, synonyms, sensitive values, alter rules.

Behind DescribeConfigs, AlterConfigs, IncrementalAlterConfigs, and the configs in a CreateTopics
answer. Values in force come from ``BrokerConfig``; overrides live in the metadata store.
"""

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from enum import IntEnum
from typing import TYPE_CHECKING, Final, NamedTuple

from kavka.broker.security import stored_secrets
from kavka.config import dynamic, topic
from kavka.config.limits import CONFIG_CHARACTERS_MAX, STRING_BYTES_MAX
from kavka.config.options import (
    BROKER_OPTIONS,
    DYNAMIC_ONLY_OPTIONS,
    ConfigError,
    ConfigType,
    Option,
    UnknownOptionError,
    Value,
    base_name,
    option_of,
    render,
    synonyms_of,
)
from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.protocol.topics import topic_name_problem
from kavka.replication.controller.patience import in_time
from kavka.replication.store.base import StoreError

if TYPE_CHECKING:
    from kavka.broker.listener_control import ListenerControl
    from kavka.config.broker import BrokerConfig
    from kavka.replication.controller.configs import ConfigStore
    from kavka.replication.metadata import MetadataCache
    from kavka.replication.znodes import EntityType

log = logging.getLogger("kavka.configs")

DEFAULT_ENTITY: Final = "<default>"


class ResourceType(IntEnum):
    """What a client may ask about (``ConfigResource.Type``)."""

    UNKNOWN = 0
    TOPIC = 2
    BROKER = 4
    BROKER_LOGGER = 8
    CLIENT_METRICS = 16
    GROUP = 32


class Source(IntEnum):
    """Where a value comes from (``DescribeConfigsResponse.ConfigSource``)."""

    TOPIC_CONFIG = 1
    DYNAMIC_BROKER_CONFIG = 2
    DYNAMIC_DEFAULT_BROKER_CONFIG = 3
    STATIC_BROKER_CONFIG = 4
    DEFAULT_CONFIG = 5
    DYNAMIC_BROKER_LOGGER_CONFIG = 6


class Operation(IntEnum):
    """What an incremental change does (KIP-339)."""

    SET = 0
    DELETE = 1
    APPEND = 2
    SUBTRACT = 3


class Change(NamedTuple):
    """One step of an incremental change; ``operation`` is as it came, maybe none of ours."""

    name: str
    operation: int
    value: str | None


class Synonym(NamedTuple):
    """A value under one of the names that a setting is looked up by."""

    name: str
    value: str | None
    source: Source


class Entry(NamedTuple):
    """One setting as DescribeConfigs shows it; a sensitive value is None."""

    name: str
    value: str | None
    source: Source
    read_only: bool = False
    sensitive: bool = False
    synonyms: Sequence[Synonym] = ()
    type: ConfigType = ConfigType.UNKNOWN
    documentation: str | None = None


class Configs:
    """Describes and alters the settings of topics and of this broker.

    ``config`` follows what the store says about brokers from here on, so this must be built
    before the store loads.
    """

    def __init__(
        self,
        config: "BrokerConfig",
        node_id: int,
        metadata: "MetadataCache",
        store: "ConfigStore",
    ) -> None:
        self._config = config
        self._node_id = node_id
        self._metadata = metadata
        self._store = store
        self._altering = asyncio.Lock()  # the settings of brokers
        self._secrets_are_old = False
        self.listeners: ListenerControl | None = None
        """Set when this broker has listeners that can follow the settings."""
        store.subscribe("brokers", self._broker_overrides_changed)

    def _broker_overrides_changed(self, name: str, overrides: Mapping[str, str]) -> None:
        if name == DEFAULT_ENTITY:
            self._config.set_dynamic_default(overrides)
        elif name == str(self._node_id):
            opened, self._secrets_are_old = stored_secrets.opened(self._config, overrides)
            self._config.set_dynamic_broker(opened)

    async def renew_secrets(self) -> None:
        """Encrypt anew what ``password.encoder.old.secret`` was needed for. Raises StoreError."""
        if self._secrets_are_old:
            entity = str(self._node_id)
            stored = await self._store.read("brokers", entity)
            opened, _ = stored_secrets.opened(self._config, stored)
            # What could not be opened stays as it is: somebody may still know its secret.
            renewed = {**stored, **stored_secrets.sealed(self._config, opened)}
            await self._store.alter("brokers", entity, renewed)
            log.info("Secrets are encrypted with password.encoder.secret now. broker=%s", entity)

    # -- describe --------------------------------------------------------------------------

    async def describe_topic(self, name: str) -> list[Entry]:
        """All settings of a topic. Raises KafkaError 17 or 3 for a name that is none."""
        self._require_legal(name)
        if name not in self._metadata.topics:
            raise KafkaError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
        return self.topic_entries(await self._read("topics", name))

    def topic_entries(self, overrides: Mapping[str, str]) -> list[Entry]:
        """All settings of a topic with these overrides."""
        try:
            values = topic.effective_values(overrides, self._config)
        except ConfigError as error:  # written past this broker's checks
            raise KafkaError(ErrorCode.INVALID_CONFIG, error.message) from None
        return [
            self._topic_entry(option, render(values[option.name]), option.name in overrides)
            for option in topic.TOPIC_OPTIONS.values()
            if self._offered(option)
        ]

    def _topic_entry(self, option: Option, value: str | None, overridden: bool) -> Entry:
        synonyms = [] if option.broker_key is None else self._synonyms(option.broker_key, False)
        if overridden:
            synonyms.insert(0, Synonym(option.name, value, Source.TOPIC_CONFIG))
        return Entry(
            name=option.name,
            value=value,
            source=_source(synonyms),
            synonyms=synonyms,
            type=option.type,
            documentation=option.doc,
        )

    def describe_broker(self, name: str) -> list[Entry]:
        """All settings of this broker, or for the empty name the cluster's dynamic defaults.

        Raises KafkaError 42 for the name of another broker.
        """
        if not self._is_this_broker(name, "or empty string, "):
            return [self._default_entry(key) for key in self._config.dynamic_default]
        shown = [
            option.name
            for option in BROKER_OPTIONS.values()
            if self._offered(option)
            and (option.type is not ConfigType.UNKNOWN or self._config.is_set(option.name))
        ]
        config = self._config
        given = {**config.static, **config.dynamic_default, **config.dynamic_broker}
        shown.extend(key for key in given if key not in BROKER_OPTIONS)
        return [self._broker_entry(key) for key in shown]

    def _broker_entry(self, name: str) -> Entry:
        option = DYNAMIC_ONLY_OPTIONS.get(name) or option_of(name)
        kind = ConfigType.UNKNOWN if option is None else option.type
        # What nobody knows the type of may be a secret.
        sensitive = kind in (ConfigType.UNKNOWN, ConfigType.PASSWORD)
        synonyms = self._synonyms(name, sensitive)
        return Entry(
            name=name,
            value=None if sensitive else render(self._value(name)),
            source=_source(synonyms),
            read_only=dynamic.is_read_only(name),
            sensitive=sensitive,
            synonyms=synonyms,
            type=kind,
            documentation=None if option is None else option.doc,
        )

    def _value(self, name: str) -> Value:
        # A dynamic value that this broker cannot use is shown, but the base one is in force.
        return self._config.value(name if self._config.has_value(name) else base_name(name) or name)

    def _default_entry(self, name: str) -> Entry:
        """A dynamic default of the cluster, whatever this broker makes of it."""
        entry = self._broker_entry(name)
        source = Source.DYNAMIC_DEFAULT_BROKER_CONFIG
        return entry._replace(
            value=None if entry.sensitive else self._config.dynamic_default[name],
            source=source,
            synonyms=[synonym for synonym in entry.synonyms if synonym.source is source],
        )

    def _synonyms(self, name: str, sensitive: bool) -> list[Synonym]:
        """All values a broker setting is looked up from, that in force first.

        As in Kafka, one that only has values under a synonym's name has none to show.
        """
        config = self._config
        names = synonyms_of(name)
        found = [
            Synonym(synonym, None if sensitive else layer[synonym], source)
            for layer, source in (
                (config.dynamic_broker, Source.DYNAMIC_BROKER_CONFIG),
                (config.dynamic_default, Source.DYNAMIC_DEFAULT_BROKER_CONFIG),
                (config.static, Source.STATIC_BROKER_CONFIG),
            )
            for synonym in names
            if synonym in layer
        ]
        for synonym in names:
            default = render(config.defaults.get(synonym))
            if default is not None and synonym not in DYNAMIC_ONLY_OPTIONS:
                shown = None if sensitive else default
                found.append(Synonym(synonym, shown, Source.DEFAULT_CONFIG))
        while found and found[0].name != name:
            del found[0]
        return found

    def _offered(self, option: Option) -> bool:
        """Whether clients of the chosen Kafka release know the setting."""
        return not option.since or self._config.get_str("compatibility") == "latest"

    # -- alter -----------------------------------------------------------------------------

    async def replace(
        self,
        kind: ResourceType,
        name: str,
        overrides: Mapping[str, str],
        *,
        validate_only: bool,
        modern: bool,
    ) -> None:
        """Make these the overrides of a topic, this broker, or (empty name) all brokers.

        ``modern`` chooses the error codes of later releases (40 for a bad value, 3 for a missing
        topic) over those of 2.3 (42, -1). Raises KafkaError.
        """
        if kind is ResourceType.TOPIC:
            self._validate_topic(name, overrides, modern)
            if not validate_only:
                await self._write("topics", name, overrides)
            return
        assert kind is ResourceType.BROKER
        async with self._altering:
            await self._replace_broker(name, overrides, validate_only, modern)

    async def _replace_broker(
        self, name: str, overrides: Mapping[str, str], validate_only: bool, modern: bool
    ) -> None:
        per_broker = self._is_this_broker(name, "")
        rebinding = None
        try:
            changed = dynamic.validate(self._config, overrides, per_broker)
            stored = stored_secrets.sealed(self._config, overrides)
            if self.listeners is not None:
                # What cannot be listened on must be known before it is written.
                rebinding = await self.listeners.prepare(changed, trial=validate_only)
        except ConfigError as error:
            raise _refusal(ResourceType.BROKER, name, error, modern) from None
        except StoreError as error:
            raise _store_failed(error) from None
        try:
            if not validate_only:
                entity = str(self._node_id) if per_broker else DEFAULT_ENTITY
                await self._write("brokers", entity, stored)
        finally:
            if rebinding is not None:
                rebinding.abandon()
        if rebinding is not None and self.listeners is not None:
            await self.listeners.settled()

    async def change(
        self,
        kind: ResourceType,
        name: str,
        changes: Sequence[Change],
        *,
        validate_only: bool,
        modern: bool,
    ) -> None:
        """Change the overrides of an entity step by step; otherwise as ``replace``."""
        names = [change.name for change in changes]
        if twice := {key for key in names if names.count(key) > 1}:
            raise KafkaError(
                ErrorCode.INVALID_REQUEST,
                f"Error due to duplicate config keys : {','.join(sorted(twice))}",
            )
        if kind is ResourceType.TOPIC:
            self._require_topic(name, modern)
            overrides = await self._read("topics", name)
            for change in changes:
                _apply(change, overrides, kind, modern)
            await self.replace(kind, name, overrides, validate_only=validate_only, modern=modern)
            return
        entity = str(self._node_id) if self._is_this_broker(name, "") else DEFAULT_ENTITY
        async with self._altering:
            overrides, _ = stored_secrets.opened(self._config, await self._read("brokers", entity))
            for change in changes:
                _apply(change, overrides, kind, modern)
            await self._replace_broker(name, overrides, validate_only, modern)

    def _validate_topic(self, name: str, overrides: Mapping[str, str], modern: bool) -> None:
        self._require_topic(name, modern)
        try:
            topic.validate(overrides)
        except UnknownOptionError as error:
            raise KafkaError(ErrorCode.INVALID_CONFIG, error.message) from None
        except ConfigError as error:
            raise _refusal(ResourceType.TOPIC, name, error, modern) from None

    def _require_topic(self, name: str, modern: bool) -> None:
        self._require_legal(name)
        if name in self._metadata.topics:
            return
        if modern:
            raise KafkaError(
                ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"The topic '{name}' does not exist."
            )
        raise KafkaError(ErrorCode.UNKNOWN_SERVER_ERROR, f'Topic "{name}" does not exist.')

    async def _read(self, entity_type: "EntityType", name: str) -> dict[str, str]:
        try:
            async with in_time():
                return await self._store.read(entity_type, name)
        except StoreError as error:
            raise _store_failed(error) from None

    async def _write(
        self, entity_type: "EntityType", name: str, overrides: Mapping[str, str]
    ) -> None:
        for key, value in overrides.items():
            if len(value) > STRING_BYTES_MAX or len(value.encode()) > STRING_BYTES_MAX:
                raise KafkaError(
                    ErrorCode.INVALID_REQUEST,
                    f"The value of {key} would have more than {STRING_BYTES_MAX} bytes, and no "
                    "answer could tell it",
                )
        size = sum(len(key) + len(value) for key, value in overrides.items())
        if size > CONFIG_CHARACTERS_MAX:
            raise KafkaError(
                ErrorCode.INVALID_REQUEST,
                f"Configs of {size} characters are more than {CONFIG_CHARACTERS_MAX}",
            )
        try:
            async with in_time():
                await self._store.alter(entity_type, name, overrides)
        except StoreError as error:
            raise _store_failed(error) from None
        log.info(
            "Configs altered. entity=%s/%s names=%.500s",
            entity_type,
            name,
            ",".join(sorted(overrides)) or "none",
        )

    @staticmethod
    def _require_legal(name: str) -> None:
        problem = topic_name_problem(name)
        if problem is not None:
            raise KafkaError(ErrorCode.INVALID_TOPIC_EXCEPTION, f"Topic name is invalid: {problem}")

    def require_this_broker(self, name: str) -> None:
        """Raise KafkaError 42 unless ``name`` is this broker's id."""
        if not self._is_this_broker(name, ""):
            raise KafkaError(ErrorCode.INVALID_REQUEST, "Broker id must not be empty")

    def _is_this_broker(self, name: str, alternative: str) -> bool:
        """True for this broker's id, False for the empty name; KafkaError 42 for another."""
        if not name:
            return False
        try:
            broker_id = int(name)
        except ValueError:
            raise KafkaError(
                ErrorCode.INVALID_REQUEST, f"Broker id must be an integer, but it is: {name}"
            ) from None
        if broker_id != self._node_id:
            raise KafkaError(
                ErrorCode.INVALID_REQUEST,
                f"Unexpected broker id, expected {self._node_id} {alternative}but received {name}",
            )
        return True


def collect(configs: Iterable[tuple[str, str | None]], *, refuse_twice: bool) -> dict[str, str]:
    """The overrides in a request; KafkaError 42 for one without a value.

    A name that comes twice is refused or, as in 2.3, its last value counts.
    """
    overrides: dict[str, str] = {}
    for name, value in configs:
        if value is None:
            raise KafkaError(ErrorCode.INVALID_REQUEST, f"Null value not supported for : {name}")
        if refuse_twice and name in overrides:
            raise KafkaError(
                ErrorCode.INVALID_REQUEST, f"Error due to duplicate config keys : {name}"
            )
        overrides[name] = value
    return overrides


def _store_failed(error: StoreError) -> KafkaError:
    log.warning("The metadata store failed. reason=%s", error)
    return KafkaError(ErrorCode.UNKNOWN_SERVER_ERROR, f"The metadata store failed: {error}")


def _source(synonyms: Sequence[Synonym]) -> Source:
    return synonyms[0].source if synonyms else Source.DEFAULT_CONFIG


def _refusal(kind: ResourceType, name: str, error: ConfigError, modern: bool) -> KafkaError:
    return KafkaError(
        ErrorCode.INVALID_CONFIG if modern else ErrorCode.INVALID_REQUEST,
        f"Invalid config value for resource ConfigResource(type={kind.name}, name='{name}'): "
        f"{error.message}",
    )


def _apply(change: Change, overrides: dict[str, str], kind: ResourceType, modern: bool) -> None:
    """Take one step on the overrides in place."""
    if change.operation == Operation.DELETE:
        overrides.pop(change.name, None)
        return
    if change.operation not in tuple(Operation):
        raise KafkaError(
            ErrorCode.INVALID_REQUEST,
            f"Unknown operation {change.operation} for config key: {change.name}",
        )
    if change.value is None:
        raise KafkaError(ErrorCode.INVALID_REQUEST, f"Null value not supported for : {change.name}")
    if change.operation == Operation.SET:
        overrides[change.name] = change.value
        return
    option = _option(kind, change.name)
    if option is None and kind is ResourceType.TOPIC:
        # 2.3 looked the name up in a table that has it not, and failed.
        raise (
            KafkaError(ErrorCode.INVALID_CONFIG, f"Unknown topic config name: {change.name}")
            if modern
            else KafkaError(ErrorCode.UNKNOWN_SERVER_ERROR, f"key not found: {change.name}")
        )
    if option is None or option.type is not ConfigType.LIST:
        verb = "append" if change.operation == Operation.APPEND else "subtract"
        raise KafkaError(
            ErrorCode.INVALID_REQUEST,
            f"Config value {verb} is not allowed for config key: {change.name}",
        )
    before = _members(overrides.get(change.name, option.default_text or ""))
    named = _members(change.value)
    if change.operation == Operation.APPEND:
        after = [*before, *(member for member in named if member not in before)]
    else:
        after = [member for member in before if member not in named]
    overrides[change.name] = ",".join(after)


def _option(kind: ResourceType, name: str) -> Option | None:
    if kind is ResourceType.TOPIC:
        return topic.TOPIC_OPTIONS.get(name)
    return BROKER_OPTIONS.get(base_name(name) or name)


def _members(text: str) -> list[str]:
    return [member.strip() for member in text.split(",") if member.strip()]
