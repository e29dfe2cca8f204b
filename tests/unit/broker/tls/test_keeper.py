"""Certificates that are replaced while a broker runs."""

import asyncio
import shutil
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from cryptography.x509 import load_der_x509_certificate

from kavka.broker.security.tls.context import server_context
from kavka.broker.security.tls.keeper import TlsKeeper
from kavka.broker.security.tls.settings import TlsSettings
from kavka.config.broker import BrokerConfig
from kavka.config.listeners import Endpoint
from kavka.config.option import ConfigError
from kavka.storage.clock import ManualClock, SystemClock

from .certificates import PASSWORD, Certificates
from .test_context import connect

LOCATION = "listener.name.ssl.ssl.keystore.location"


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Those of another authority."""
    return Certificates(tmp_path_factory.mktemp("others"), "Other CA")


@pytest.fixture
def store(certificates: Certificates, tmp_path: Path) -> Path:
    """A key store that a test may replace."""
    copy = tmp_path / "server.jks"
    shutil.copy(certificates.path("server.keystore.jks"), copy)
    return copy


def settings(store: Path, **more: str) -> dict[str, str]:
    return {
        "listeners": "SSL://127.0.0.1:9093,PLAINTEXT://127.0.0.1:9092",
        "ssl.keystore.location": str(store),
        "ssl.keystore.password": PASSWORD,
        **{name.replace("_", "."): value for name, value in more.items()},
    }


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 30))  # type: ignore[arg-type]


def issuer(settings: TlsSettings, clients: Certificates) -> str:
    """Who signed what a new connection sees; None of it when the client does not trust it."""
    _, theirs = connect(settings.context, clients.client_context())
    der = theirs.getpeercert(binary_form=True)
    assert der is not None
    return load_der_x509_certificate(der).issuer.rfc4514_string()


SECURE = Endpoint("SSL", "SSL", "127.0.0.1", 9093)


def test_a_file_that_changed_is_read_when_settings_are_written(
    certificates: Certificates, others: Certificates, store: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        config = BrokerConfig(settings(store))
        keeper = TlsKeeper(config, asyncio.get_running_loop(), SystemClock())
        await keeper.prepare(config)
        live = keeper.settings(SECURE)
        before = live.context
        assert "Test CA" in issuer(live, certificates)
        # The same value, and the same file: nothing to do.
        config.set_dynamic_broker({LOCATION: str(store)})
        await keeper.settled()
        assert live.context is before
        shutil.copy(others.path("server.keystore.jks"), store)
        config.set_dynamic_broker({LOCATION: str(store)})
        await keeper.settled()
        assert keeper.settings(SECURE) is live
        assert "Other CA" in issuer(live, others)
        await keeper.stop()

    caplog.set_level("INFO", logger="kavka.tls")
    run(test)
    assert caplog.messages[-1] == "certificates replaced for new connections listener=SSL"
    assert len([line for line in caplog.messages if "replaced" in line]) == 1


def test_a_bad_file_keeps_the_old_certificates(
    certificates: Certificates, store: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        config = BrokerConfig(settings(store))
        keeper = TlsKeeper(config, asyncio.get_running_loop(), SystemClock())
        await keeper.prepare(config)
        live = keeper.settings(SECURE)
        store.write_bytes(b"no store at all")
        await keeper.prepare(config, {"SSL"})  # nobody has said that it is to be read
        changed = config.with_dynamic({}, {LOCATION: str(store)})
        with pytest.raises(ConfigError, match=r"Listener SSL: .* no JKS, PKCS12 or PEM store"):
            await keeper.prepare(changed, {"SSL"})
        config.set_dynamic_broker({LOCATION: str(store)})
        await keeper.settled()
        assert "Test CA" in issuer(live, certificates)
        # And when it is there again, it is taken.
        before = live.context
        shutil.copy(certificates.path("server.keystore.p12"), store)
        config.set_dynamic_broker({LOCATION: str(store)})
        await keeper.settled()
        assert live.context is not before
        await keeper.stop()

    run(test)
    assert any("the old ones stay" in line for line in caplog.messages)
    assert not any(PASSWORD in line for line in caplog.messages)


def test_connections_to_other_brokers_follow_too(
    certificates: Certificates, others: Certificates, tmp_path: Path
) -> None:
    async def test() -> None:
        trust = tmp_path / "trust.crt"
        shutil.copy(certificates.path("ca.crt"), trust)
        config = BrokerConfig({"ssl.truststore.location": str(trust)})
        keeper = TlsKeeper(config, asyncio.get_running_loop(), SystemClock())
        live = keeper.client("INTERNAL")
        assert keeper.client("INTERNAL") is live
        theirs = server_context(others.options()).context
        connect(server_context(certificates.options()).context, live.context, "localhost")
        with pytest.raises(ssl.SSLCertVerificationError):
            connect(theirs, live.context, "localhost")
        shutil.copy(others.path("ca.crt"), trust)
        config.set_dynamic_broker({"listener.name.internal.ssl.truststore.location": str(trust)})
        await keeper.settled()
        connect(theirs, live.context, "localhost")
        await keeper.stop()

    run(test)


def test_trying_changes_nothing(
    certificates: Certificates, others: Certificates, store: Path
) -> None:
    async def test() -> None:
        config = BrokerConfig(settings(store))
        keeper = TlsKeeper(config, asyncio.get_running_loop(), SystemClock())
        await keeper.prepare(config)
        live = keeper.settings(SECURE)
        changed = config.with_dynamic({}, {LOCATION: others.path("server.keystore.jks")})
        await keeper.prepare(changed, {"SSL", "PLAINTEXT"})
        assert keeper.settings(SECURE) is live
        assert "Test CA" in issuer(live, certificates)
        missing = config.with_dynamic({}, {LOCATION: "/no/such/file"})
        with pytest.raises(ConfigError, match="/no/such/file does not exist"):
            await keeper.prepare(missing, {"SSL", "PLAINTEXT"})
        await keeper.stop()

    run(test)


def test_a_listener_that_is_opened_gets_the_settings_it_came_with(
    others: Certificates, store: Path
) -> None:
    async def test() -> None:
        config = BrokerConfig(settings(store))
        keeper = TlsKeeper(config, asyncio.get_running_loop(), SystemClock())
        await keeper.prepare(config)
        new = {
            "listeners": "SSL://127.0.0.1:9093,PUBLIC://127.0.0.1:9095",
            "listener.security.protocol.map": "SSL:SSL,PUBLIC:SSL",
            "listener.name.public.ssl.keystore.location": others.path("server.keystore.jks"),
        }
        changed = BrokerConfig({**settings(store), **new})
        await keeper.prepare(changed, {"SSL", "PLAINTEXT"})
        public = keeper.settings(Endpoint("PUBLIC", "SSL", "127.0.0.1", 9095))
        assert "Other CA" in issuer(public, others)
        # It came to nothing, and is forgotten by the next change.
        await keeper.prepare(config, {"SSL", "PLAINTEXT"})
        with pytest.raises(KeyError):
            keeper._settings["PUBLIC"]
        await keeper.stop()

    run(test)


@pytest.mark.parametrize(
    ("days", "line"), [(7305 + 1, "has expired"), (7305 - 20, "expires soon"), (100, None)]
)
def test_the_end_of_a_certificate_is_told_before(
    store: Path, caplog: pytest.LogCaptureFixture, days: int, line: str | None
) -> None:
    async def test() -> None:
        clock = ManualClock(wall_ms=SystemClock().wall_ms() + days * 86_400_000)
        config = BrokerConfig(settings(store))
        keeper = TlsKeeper(config, asyncio.get_running_loop(), clock)
        await keeper.prepare(config)
        await keeper.stop()

    run(test)
    assert [line in message for message in caplog.messages] == ([True] if line else [])


def test_keys_leave_nothing_behind(store: Path) -> None:
    before = set(Path("/proc/self/fd").iterdir())
    config = BrokerConfig(settings(store))
    for _ in range(5):
        TlsSettings(config, SECURE)
    after = set(Path("/proc/self/fd").iterdir())
    assert len(after) <= len(before) + 1


def test_rules_make_principals(certificates: Certificates, store: Path) -> None:
    config = BrokerConfig(
        settings(store, ssl_principal_mapping_rules="RULE:^CN=(.*)$/$1/U, DEFAULT")
    )
    live = TlsSettings(config, SECURE)
    context = certificates.client_context(known=True)
    required = certificates.options(client_auth="required")
    ours, _ = connect(server_context(required).context, context)
    der = ours.getpeercert(binary_form=True)
    assert der is not None
    assert live.principal(der) == "User:ALICE"
