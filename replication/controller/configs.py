"""Configuration overrides of topics, brokers, users and clients, as the store keeps them."""

from collections.abc import Callable, Mapping
from typing import Final, Literal

EntityType = Literal["topics", "brokers", "users", "clients"]
DEFAULT_ENTITY: Final = "<default>"
Subscriber = Callable[[str, Mapping[str, str]], None]


class ConfigStore:
    """The overrides under ``/config``, read and written; tells subscribers of changes."""

    async def start(self) -> None:
        """Load what is there and watch for changes; subscribers hear of everything loaded."""
        raise NotImplementedError

    def subscribe(self, entity_type: EntityType, subscriber: Subscriber) -> None:
        """Have ``subscriber(name, overrides)`` called when an entity's overrides change."""
        raise NotImplementedError

    def topic_overrides(self, topic: str) -> Mapping[str, str]:
        """A topic's overrides as last read; empty for a topic without any."""
        raise NotImplementedError

    async def read(self, entity_type: EntityType, name: str) -> dict[str, str]:
        """Read an entity's overrides from the store; empty if it has none."""
        raise NotImplementedError

    async def alter(self, entity_type: EntityType, name: str, overrides: Mapping[str, str]) -> None:
        """Replace an entity's overrides and notify all brokers; this one's subscribers have
        heard of it when this returns. The values have been validated by the caller.
        """
        raise NotImplementedError
