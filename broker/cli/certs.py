"""``kavka certs``: keys, certificates and client settings for listeners with TLS."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import click

from kavka.config import load as sources
from kavka.config.broker import BrokerConfig
from kavka.config.listeners import Endpoint
from kavka.config.option import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from kavka.broker.security.tls.generate import Authority, GeneratedFile, Maker

_USUAL_PORTS: Final = ((9092, "PLAINTEXT"), (9093, "SASL_SSL"))
_PASSWORD_LENGTH_MIN: Final = 6  # keytool opens nothing with less
_CA_KEY, _CA_CERT = "ca-key", "ca-cert"


@click.group()
def certs() -> None:
    """Keys and certificates for listeners with TLS."""


@certs.command()
@click.option(
    "--dir",
    "directory",
    metavar="DIR",
    default="certs",
    show_default=True,
    type=click.Path(file_okay=False),
    help="Where the files go.",
)
@click.option(
    "--host",
    "hosts",
    metavar="NAME",
    multiple=True,
    help="Name or address by which clients find the brokers; may be repeated. This machine's "
    "names and localhost are always there.",
)
@click.option(
    "--days",
    type=click.IntRange(1, 36_500),
    default=7305,
    show_default=True,
    help="How long the certificates are valid.",
)
@click.option(
    "--config",
    "config_path",
    metavar="FILE",
    help="A server.properties: client settings are made for its listeners.",
)
@click.option(
    "--mechanism",
    type=click.Choice(["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]),
    default="PLAIN",
    show_default=True,
    help="How clients log in.",
)
@click.option(
    "--user", default="access_user", show_default=True, help="The user in client settings."
)
@click.option(
    "--client-name", default="client", show_default=True, help="Name in the client's certificate."
)
@click.option(
    "--password-file",
    metavar="FILE",
    type=click.Path(),
    help="Its first line is the password of the brokers' stores; otherwise one is made.",
)
@click.option("--keep-ca", is_flag=True, help="Let the authority that is in DIR sign again.")
@click.option("--overwrite", is_flag=True, help="Replace files that exist.")
def generate(
    directory: str,
    hosts: tuple[str, ...],
    days: int,
    config_path: str | None,
    mechanism: str,
    user: str,
    client_name: str,
    password_file: str | None,
    keep_ca: bool,
    overwrite: bool,
) -> int:
    """Make an authority, stores for brokers and clients, and client settings.

    The files have the names that Kafka manuals give them. Passwords are made, unless a file gives
    one, and written only into files that nobody else may read. What exists is not overwritten
    unless that is asked for.
    """
    # Imported here, as everything in this module is: other commands start without it.
    import secrets
    from datetime import UTC, datetime
    from pathlib import Path

    from kavka.broker.security.tls import generate as making

    config = BrokerConfig() if config_path is None else sources.load(config_path, {}, ())
    password = _password(None if password_file is None else Path(password_file))
    place = Path(directory)
    names = _names(hosts)
    maker = making.Maker(datetime.now(UTC), days, os.urandom)
    fresh: list[GeneratedFile] = []
    if keep_ca:
        authority = _kept_authority(place)
    else:
        authority = maker.authority(f"Kavka CA {secrets.token_hex(4)}")
        fresh.append(making.GeneratedFile(_CA_KEY, making.key_pem(authority.key), True))
        fresh.append(
            making.GeneratedFile(_CA_CERT, making.certificate_pem(authority.certificate), False)
        )
    client_password = secrets.token_urlsafe(18)
    fresh += _stores(maker, authority, names, client_name, password, client_password)
    fresh += _settings(place, password, client_password)
    fresh += _client_settings(place, _endpoints(config, config_path, names[0]), mechanism, user)
    _write(place, fresh, overwrite)
    end = min(making.valid_until(authority.certificate), datetime.now(UTC) + maker.life)
    click.echo(
        f"{len(fresh)} files in {place}, certificates for {', '.join(names)} until "
        f"{end:%Y-%m-%d}. Broker: kavka serve --config {place / 'server.tls.properties'}, or "
        "add its lines to yours. Clients: client.truststore.jks "
        f"(password {making.PUBLIC_TRUST_PASSWORD}) or ca.crt, and the settings in "
        f"{place / 'clients'}"
    )
    return 0


def _password(path: "Path | None") -> str:
    if path is None:
        import secrets

        return secrets.token_urlsafe(18)
    try:
        password = path.read_text().partition("\n")[0].rstrip("\r")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("", f"The password in {path} cannot be read: {error}") from None
    if len(password) < _PASSWORD_LENGTH_MIN:
        raise ConfigError(
            "", f"The password in {path} must have at least {_PASSWORD_LENGTH_MIN} characters"
        )
    return password


def _names(hosts: Sequence[str]) -> list[str]:
    import socket

    machine = [socket.getfqdn(), socket.gethostname()]
    own = [name for name in machine if name.isascii() and "_" not in name]
    names = [host.strip().strip("[]") for host in hosts]
    if any(not name or "/" in name or " " in name for name in names):
        raise ConfigError("", "--host takes one name or address each time")
    return list(dict.fromkeys((*names, *own, "localhost", "127.0.0.1", "::1")))


def _kept_authority(directory: "Path") -> "Authority":
    from kavka.broker.security.tls.generate import read_authority
    from kavka.broker.security.tls.stores import KeyStoreError

    try:
        certificate = (directory / _CA_CERT).read_bytes()
        return read_authority(certificate, (directory / _CA_KEY).read_bytes())
    except OSError as error:
        raise ConfigError(
            "",
            f"--keep-ca needs {_CA_CERT} and {_CA_KEY} in {directory}, which cannot be read: "
            f"{error.strerror}",
        ) from None
    except KeyStoreError as error:
        raise ConfigError("", f"{_CA_CERT} and {_CA_KEY} in {directory}: {error}") from None


def _stores(
    maker: "Maker",
    authority: "Authority",
    names: list[str],
    client_name: str,
    password: str,
    client_password: str,
) -> "list[GeneratedFile]":
    from kavka.broker.security.tls import generate as making

    try:
        broker = making.Purpose(names[0][:64], tuple(names))
        files = making.server_files(maker, authority, broker, password)
        client = making.Purpose(client_name)
        trust_password = making.PUBLIC_TRUST_PASSWORD
        return files + making.client_files(
            maker, authority, client, client_password, trust_password
        )
    except ValueError as error:
        raise ConfigError("", f"A certificate cannot have such a name: {error}") from None


def _settings(directory: "Path", password: str, client_password: str) -> "list[GeneratedFile]":
    from kavka.broker.security.tls.generate import GeneratedFile

    place = directory.absolute().as_posix()
    server = (
        f"ssl.keystore.location={place}/server.keystore.jks",
        f"ssl.keystore.password={password}",
        f"ssl.key.password={password}",
        f"ssl.truststore.location={place}/server.truststore.jks",
        f"ssl.truststore.password={password}",
        "",
    )
    client = (
        "# For listeners that ask for a certificate (ssl.client.auth): add to the client's.",
        f"ssl.keystore.location={place}/client.keystore.jks",
        f"ssl.keystore.password={client_password}",
        f"ssl.key.password={client_password}",
        "",
    )
    return [
        GeneratedFile("server.tls.properties", _escaped(server), True),
        GeneratedFile("client.keystore.properties", _escaped(client), True),
    ]


def _escaped(lines: Sequence[str]) -> bytes:
    return "\n".join(line.replace("\\", "\\\\") for line in lines).encode()


def _endpoints(config: BrokerConfig, config_path: str | None, host: str) -> list[Endpoint]:
    if config_path is None:
        return [Endpoint(protocol, protocol, host, port) for port, protocol in _USUAL_PORTS]
    return [
        endpoint if endpoint.host else endpoint._replace(host=host)
        for endpoint in config.advertised_listeners
    ]


def _client_settings(
    directory: "Path", endpoints: list[Endpoint], mechanism: str, user: str
) -> "list[GeneratedFile]":
    from kavka.broker.security.tls.client_files import FORMS, Login, Target, Trust
    from kavka.broker.security.tls.generate import PUBLIC_TRUST_PASSWORD, GeneratedFile

    place = directory.absolute()
    trust = Trust(
        str(place / "client.truststore.jks"), PUBLIC_TRUST_PASSWORD, str(place / "ca.crt")
    )
    files = []
    for endpoint in endpoints:
        target: Target = Target(endpoint, Login(mechanism, user), trust)
        for form, render in FORMS:
            name = f"clients/{form.format(endpoint.port)}"
            files.append(GeneratedFile(name, render(target).encode(), False))
    return files


def _write(directory: "Path", files: "list[GeneratedFile]", overwrite: bool) -> None:
    """Write all files or none: those that exist are looked for first."""
    there = [file.name for file in files if (directory / file.name).exists()]
    if there and not overwrite:
        raise ConfigError(
            "",
            f"{', '.join(there[:3])}{' and others' if len(there) > 3 else ''} in {directory} "
            "would be overwritten: choose another --dir, or say --overwrite",
        )
    try:
        for file in files:
            path = directory / file.name
            path.parent.mkdir(parents=True, exist_ok=True)
            # A broker may read the old file while it is replaced.
            draft = path.with_name(f".{path.name}.new")
            draft.unlink(missing_ok=True)
            mode = 0o600 if file.private else 0o644
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
            with open(descriptor, "wb") as out:
                out.write(file.data)
            draft.replace(path)
    except OSError as error:
        raise ConfigError("", f"Cannot write into {directory}: {error.strerror}") from None
