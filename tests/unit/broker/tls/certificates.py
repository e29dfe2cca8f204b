"""An authority with the keys of a broker and a client, for tests."""

import os
import ssl
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from kavka.broker.security.tls import generate
from kavka.broker.security.tls.context import Options, server_context

PASSWORD = "a server's password"
CLIENT_PASSWORD = "a client's password"


class Contexts(NamedTuple):
    """Both sides of a connection."""

    server: ssl.SSLContext
    client: ssl.SSLContext
    principal_of: Callable[[bytes], str] | None = None


class Certificates:
    """The files that ``kavka certs generate`` writes, in a directory."""

    def __init__(self, directory: Path, name: str = "Test CA") -> None:
        self.directory = directory
        now = datetime.now(UTC)
        self.maker = generate.Maker(now, generate.DAYS, os.urandom)
        self.authority = self.maker.authority(name)
        purpose = generate.Purpose("localhost", ("localhost", "127.0.0.1", "::1"))
        self.write(generate.server_files(self.maker, self.authority, purpose, PASSWORD))
        client = generate.Purpose("alice")
        self.write(
            generate.client_files(
                self.maker,
                self.authority,
                client,
                CLIENT_PASSWORD,
                generate.PUBLIC_TRUST_PASSWORD,
            )
        )

    def write(self, files: list[generate.GeneratedFile]) -> None:
        for file in files:
            (self.directory / file.name).write_bytes(file.data)

    def path(self, name: str) -> str:
        return str(self.directory / name)

    def options(self, **changed: object) -> Options:
        """A broker's options with its own stores."""
        values: dict[str, object] = {
            "key_store": self.path("server.keystore.jks"),
            "key_store_password": PASSWORD,
            "key_password": None,
            "key_text": None,
            "chain_text": None,
            "trust_store": self.path("server.truststore.jks"),
            "trust_store_password": PASSWORD,
            "trust_text": None,
            "client_auth": "none",
            "versions": ("TLSv1.2", "TLSv1.3"),
            "suites": (),
            "check_host_name": True,
            "strict": False,
            **changed,
        }
        return Options(**values)  # type: ignore[arg-type]

    def client_context(self, version: str | None = None, *, known: bool = False) -> ssl.SSLContext:
        """A client that trusts the broker, and shows a certificate if it wants to be known."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.load_verify_locations(self.path("ca.crt"))
        if version is not None:
            wanted = ssl.TLSVersion[version.replace(".", "_")]
            context.minimum_version = context.maximum_version = wanted
        if known:
            context.load_cert_chain(self.path("client.pem"))
        return context

    def contexts(self, version: str | None = None) -> Contexts:
        return Contexts(server_context(self.options()).context, self.client_context(version))
