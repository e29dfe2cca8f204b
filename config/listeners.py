"""Listener addresses: NAME://host:port, and the security protocol behind every name."""

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

from kavka.config.option import ConfigError

ALL_INTERFACES: Final = ("0.0.0.0", "::")
SECURITY_PROTOCOLS: Final = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")


class Endpoint(NamedTuple):
    """One address with the listener it belongs to. An empty host is every interface."""

    name: str
    protocol: str
    host: str
    port: int

    @property
    def routable_host(self) -> str:
        """The host, or empty when it stands for every interface."""
        return "" if self.host in ALL_INTERFACES else self.host

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.name}://{host}:{self.port}"


def parse_protocol_map(text: str) -> dict[str, str]:
    """``listener.security.protocol.map`` by listener name; names are upper case (KIP-103)."""
    key = "listener.security.protocol.map"
    protocols: dict[str, str] = {}
    for entry in _members(text):
        name, colon, protocol = entry.partition(":")
        if not colon:
            raise ConfigError(key, f"Invalid entry {entry} in {key}: it must be NAME:PROTOCOL")
        protocol = protocol.strip().upper()
        if protocol not in SECURITY_PROTOCOLS:
            raise ConfigError(
                key,
                f"Invalid security protocol `{protocol}` defined in {key}: "
                f"it must be one of {', '.join(SECURITY_PROTOCOLS)}",
            )
        protocols[name.strip().upper()] = protocol
    return protocols


def parse_endpoints(key: str, text: str, protocols: Mapping[str, str]) -> list[Endpoint]:
    """The addresses in the text of ``listeners`` or ``advertised.listeners`` (``key``).

    Raises ConfigError when one is malformed, has an unknown name, or clashes with another.
    """
    endpoints: list[Endpoint] = []
    for entry in _members(text):
        match = re.fullmatch(r"(.*)://\[?([0-9a-zA-Z\-%._:]*)\]?:([0-9]+)", entry)
        if match is None:
            raise ConfigError(
                key,
                f"Error creating broker listeners from '{text}': Unable to parse {entry} to a "
                f"broker endpoint, write it as PLAINTEXT://host:port in {key}",
            )
        name, host, port = match[1].upper(), match[2], int(match[3])
        if name not in protocols:
            raise ConfigError(
                key,
                f"Error creating broker listeners from '{text}': No security protocol defined "
                f"for listener {name}, add it to listener.security.protocol.map",
            )
        if port > 65535:
            raise ConfigError(key, f"Port {port} of {entry} in {key} is above 65535")
        endpoints.append(Endpoint(name, protocols[name], host, port))
    if not endpoints:
        raise ConfigError(key, f"{key} must name at least one address")
    _refuse_twins(key, text, endpoints)
    return endpoints


def _refuse_twins(key: str, text: str, endpoints: list[Endpoint]) -> None:
    names = [endpoint.name for endpoint in endpoints]
    if len(set(names)) != len(names):
        raise ConfigError(key, f"Each listener must have a different name, {key}: {text}")
    # A port of 0 is a free one, and advertised addresses may share a port behind a forwarder.
    bound = [(e.host, e.port) for e in endpoints if e.port != 0]
    if key == "listeners" and len(set(bound)) != len(bound):
        raise ConfigError(key, f"Each listener must have a different port, {key}: {text}")


def _members(text: str) -> list[str]:
    return [member.strip() for member in text.split(",") if member.strip()]
