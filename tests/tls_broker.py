"""A broker with a TLS listener beside the plain one, and what its clients need."""

import os
import ssl
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from kavka.config import properties
from tests.broker_process import BrokerProcess, free_port, running_broker


def generate(directory: Path, *arguments: str) -> None:
    """``kavka certs generate``."""
    command = (sys.executable, "-m", "kavka", "certs", "generate", "--dir", str(directory))
    subprocess.run((*command, *arguments), check=True, capture_output=True, timeout=60)


def values(path: Path) -> dict[str, str]:
    """The entries of a properties file."""
    return {entry.name: entry.value for entry in properties.parse(path.read_text())}


class TlsBroker:
    """The process, its TLS port, and the directory of certificates."""

    def __init__(self, process: BrokerProcess, port: int, certs: Path) -> None:
        self.process = process
        self.port = port
        self.certs = certs

    @property
    def bootstrap(self) -> str:
        return f"127.0.0.1:{self.port}"

    def context(self, *, known: bool = False) -> ssl.SSLContext:
        """Of a client that trusts the broker and checks its name."""
        context = ssl.create_default_context(cafile=str(self.certs / "ca.crt"))
        if known:
            context.load_cert_chain(self.certs / "client.pem")
        return context


@contextmanager
def tls_broker(
    base: Path, settings: Mapping[str, str] | None = None, certs: Path | None = None
) -> Iterator[TlsBroker]:
    """A started broker with certificates of its own, unless some are given."""
    port = free_port()
    listeners = f"PLAINTEXT://127.0.0.1:{free_port()},SSL://127.0.0.1:{port}"
    if certs is None:
        certs = base / "certs"
        config = base / "server.properties"
        config.write_text(f"listeners={listeners}\n")
        generate(certs, "--config", str(config))
    everything = {
        "listeners": listeners,
        **values(certs / "server.tls.properties"),
        **(settings or {}),
    }
    with running_broker(base / "data", everything) as process:
        yield TlsBroker(process, port, certs)


def openssl(broker: TlsBroker, *arguments: str, stdin: str = "") -> str:
    """What ``openssl s_client`` prints."""
    done = subprocess.run(
        ("openssl", "s_client", "-connect", broker.bootstrap, *arguments),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=30,
        env={**os.environ, "SSL_CERT_DIR": "/nonexistent"},
    )
    return done.stdout + done.stderr
