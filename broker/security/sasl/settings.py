"""What the settings say of SASL on one listener (KIP-86, KIP-103, KIP-368)."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, NamedTuple

from kavka.broker.security.sasl.jwt import Rules
from kavka.config.jaas import JaasEntry, JaasError, parse_one
from kavka.config.option import ConfigError, Value
from kavka.config.security_table import UNSECURED_TOKENS

if TYPE_CHECKING:
    from kavka.config.broker import BrokerConfig
    from kavka.replication.client import BrokerClient

PLAIN: Final = "PLAIN"
OAUTHBEARER: Final = "OAUTHBEARER"

_JAAS: Final = "sasl.jaas.config"
LOGIN_MODULES: Final = {
    PLAIN: "org.apache.kafka.common.security.plain.PlainLoginModule",
    "SCRAM-SHA-256": "org.apache.kafka.common.security.scram.ScramLoginModule",
    "SCRAM-SHA-512": "org.apache.kafka.common.security.scram.ScramLoginModule",
    OAUTHBEARER: "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule",
}
_UNSECURED_VALIDATOR: Final = "unsecuredValidator"


class Login(NamedTuple):
    """Name and password that a broker logs in with at another."""

    username: str
    password: str

    def __repr__(self) -> str:
        return f"<Login {self.username!r}>"


def enabled_mechanisms(config: "BrokerConfig", listener: str) -> list[str]:
    """Names of the mechanisms that the listener offers. Raises ConfigError for none."""
    value = config.listener_value(listener, "sasl.enabled.mechanisms")
    assert isinstance(value, tuple)
    names = list(dict.fromkeys(value))
    if not names:
        raise ConfigError(
            "sasl.enabled.mechanisms",
            f"sasl.enabled.mechanisms is empty, and listener {listener} needs one",
        )
    return names


def jaas_entry(config: "BrokerConfig", listener: str, mechanism: str) -> JaasEntry | None:
    """The JAAS line of a mechanism; None where there is none. Raises ConfigError.

    One that is not given for the mechanism itself counts if its login module is the mechanism's.
    """
    prefixed = f"listener.name.{listener.lower()}.{mechanism.lower()}.{_JAAS}"
    own = config.has_value(prefixed)
    text = config.listener_value(listener, _JAAS, mechanism)
    if text is None:
        return None
    assert isinstance(text, str)
    name = prefixed if own else _JAAS
    try:
        entry = parse_one(text)
    except JaasError as error:
        raise ConfigError(name, f"{name} cannot be read: {error}") from None
    if entry.module == LOGIN_MODULES[mechanism]:
        return entry
    if not own:
        return None
    raise ConfigError(
        name,
        f"{name} names the login module {entry.module}, but {mechanism} needs "
        f"{LOGIN_MODULES[mechanism]}",
    )


def login(config: "BrokerConfig", listener: str, mechanism: str) -> Login:
    """What to log in with at other brokers. Raises ConfigError."""
    entry = jaas_entry(config, listener, mechanism)
    options = {} if entry is None else entry.options
    if not options.get("username") or not options.get("password"):
        name = f"listener.name.{listener.lower()}.{mechanism.lower()}.{_JAAS}"
        raise ConfigError(
            name, f"{name} must give the username and password that brokers use among themselves"
        )
    return Login(options["username"], options["password"])


def max_session_ms(config: "BrokerConfig", listener: str, mechanism: str) -> int:
    """The longest session of a mechanism's clients; 0 for no limit."""
    value = config.listener_value(listener, "connections.max.reauth.ms", mechanism)
    assert isinstance(value, int)
    return value


class TokenSettings(NamedTuple):
    """How OAUTHBEARER tokens are checked; without ``keys_url`` they are unsecured."""

    rules: Rules
    keys_url: str | None
    refresh: float
    least_interval: float


def token_settings(config: "BrokerConfig", listener: str) -> TokenSettings:
    """Raises ConfigError where neither keys nor Kafka's handler for unsecured tokens are named."""

    def value(name: str) -> Value:
        return config.listener_value(listener, f"sasl.oauthbearer.{name}", OAUTHBEARER)

    def text(name: str) -> str | None:
        found = value(name)
        assert found is None or isinstance(found, str)
        return found or None

    def number(name: str) -> int:
        found = value(name)
        assert isinstance(found, int)
        return found

    refresh = number("jwks.endpoint.refresh.ms") / 1000
    interval = number("jwks.endpoint.retry.backoff.ms") / 1000
    handler = config.listener_value(listener, "sasl.server.callback.handler.class", OAUTHBEARER)
    if handler == UNSECURED_TOKENS:
        rules = _unsecured_rules(jaas_entry(config, listener, OAUTHBEARER))
        return TokenSettings(rules, None, refresh, interval)
    url = text("jwks.endpoint.url")
    if url is None:
        raise ConfigError(
            "sasl.oauthbearer.jwks.endpoint.url",
            f"OAUTHBEARER on listener {listener} needs sasl.oauthbearer.jwks.endpoint.url, the "
            "address of the keys that tokens are checked with",
        )
    audiences = value("expected.audience")
    assert isinstance(audiences, tuple)
    rules = Rules(
        subject_claim=text("sub.claim.name") or "sub",
        scope_claim=text("scope.claim.name") or "scope",
        audiences=audiences,
        issuer=text("expected.issuer"),
        skew_ms=number("clock.skew.seconds") * 1000,
    )
    return TokenSettings(rules, url, refresh, interval)


def _unsecured_rules(entry: JaasEntry | None) -> Rules:
    options = {} if entry is None else entry.options

    def option(name: str, default: str) -> str:
        return options.get(_UNSECURED_VALIDATOR + name) or default

    skew = option("AllowableClockSkewMs", "0")
    if not (skew.isascii() and skew.isdigit() and len(skew) < 10):
        raise ConfigError(
            _JAAS, f"{_UNSECURED_VALIDATOR}AllowableClockSkewMs of {_JAAS} must be a number"
        )
    return Rules(
        subject_claim=option("PrincipalClaimName", "sub"),
        scope_claim=option("ScopeClaimName", "scope"),
        required_scopes=option("RequiredScope", "").split(),
        skew_ms=int(skew),
    )


def inter_broker_handshake(
    config: "BrokerConfig",
) -> "Callable[[BrokerClient], Awaitable[None]] | None":
    """How this broker logs in at others; None where their listener is without SASL.

    Name and password are those in force when a connection is made. Raises ConfigError where they
    are missing.
    """
    listener = config.inter_broker_listener
    if not config.security_protocols[listener].startswith("SASL_"):
        return None
    from kavka.replication import sasl

    mechanism = config.get_str("sasl.mechanism.inter.broker.protocol")
    login(config, listener, mechanism)
    return sasl.handshake(mechanism, lambda: login(config, listener, mechanism))
