"""OpenSSL contexts made from Kafka's ``ssl.*`` settings."""

import os
import ssl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from kavka.broker.security.tls import der, pem, suites
from kavka.broker.security.tls.stores import (
    KeyEntry,
    KeyStoreError,
    Store,
    WrongPassword,
    read_store,
)
from kavka.config.limits import KEY_STORE_BYTES_MAX
from kavka.config.option import ConfigError

if TYPE_CHECKING:
    from kavka.config.broker import BrokerConfig

_CLIENT_AUTH: Final = {
    "none": ssl.CERT_NONE,
    "requested": ssl.CERT_OPTIONAL,
    "required": ssl.CERT_REQUIRED,
}


class Options(NamedTuple):
    """The ``ssl.*`` settings of one listener. Its text shows no secret."""

    key_store: str | None
    key_store_password: str | None
    key_password: str | None
    key_text: str | None  # PEM
    chain_text: str | None
    trust_store: str | None
    trust_store_password: str | None
    trust_text: str | None
    client_auth: str
    versions: tuple[str, ...]
    suites: tuple[str, ...]  # as given; empty is the default
    check_host_name: bool
    strict: bool

    def __repr__(self) -> str:
        return f"<Options key_store={self.key_store} trust_store={self.trust_store}>"

    @property
    def files(self) -> tuple[str, ...]:
        """The files that are read."""
        return tuple(path for path in (self.key_store, self.trust_store) if path is not None)


class Loaded(NamedTuple):
    """A context with what is worth knowing of its certificates."""

    context: ssl.SSLContext
    expires: datetime | None  # the first of the certificates in use
    names: tuple[str, ...]  # the subjects of the certificates in use


def options_of(config: "BrokerConfig", listener: str, *, sasl: bool = False) -> Options:
    """The settings of a listener.

    As in Kafka a ``sasl`` listener asks for client certificates only when that is set for it, and
    not when it is set for all.
    """

    def text(name: str) -> str | None:
        value = config.listener_value(listener, name)
        assert value is None or isinstance(value, str), name
        return value or None

    def members(name: str) -> tuple[str, ...]:
        value = config.listener_value(listener, name)
        assert isinstance(value, tuple), name
        return value

    client_auth = text("ssl.client.auth") or "none"
    if sasl and not config.is_set_for_listener(listener, "ssl.client.auth"):
        client_auth = "none"
    return Options(
        key_store=text("ssl.keystore.location"),
        key_store_password=text("ssl.keystore.password"),
        key_password=text("ssl.key.password"),
        key_text=text("ssl.keystore.key"),
        chain_text=text("ssl.keystore.certificate.chain"),
        trust_store=text("ssl.truststore.location"),
        trust_store_password=text("ssl.truststore.password"),
        trust_text=text("ssl.truststore.certificates"),
        client_auth=client_auth,
        versions=members("ssl.enabled.protocols"),
        suites=members("ssl.cipher.suites"),
        check_host_name=text("ssl.endpoint.identification.algorithm") is not None,
        strict=config.get_str("profile") == "strict",
    )


def server_context(options: Options) -> Loaded:
    """A context for connections that clients open.

    *Blocks*: reads files and derives keys. Raises ConfigError, which says what to change.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.options |= ssl.OP_NO_COMPRESSION
    context.num_tickets = 1  # clients keep the last one
    _set_versions_and_suites(context, options)
    store = _key_store(options)
    if store is None:
        raise ConfigError(
            "ssl.keystore.location",
            "a listener with TLS needs a key and certificate: set ssl.keystore.location (make one "
            "by `kavka certs generate`), or ssl.keystore.key and ssl.keystore.certificate.chain",
        )
    used = _use_keys(context, store, options)
    context.verify_mode = _CLIENT_AUTH[options.client_auth]
    if context.verify_mode != ssl.CERT_NONE and not _trust(context, options):
        raise ConfigError(
            "ssl.truststore.location",
            f"ssl.client.auth={options.client_auth} needs to know which clients to trust: set "
            "ssl.truststore.location",
        )
    return Loaded(
        context,
        min(der.not_after(entry.chain[0]) for entry in used),
        tuple(entry.alias for entry in used),
    )


def client_context(options: Options) -> Loaded:
    """A context for connections to other brokers; it trusts the machine's authorities where no
    trust store is set. *Blocks*. Raises ConfigError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = options.check_host_name
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    _set_versions_and_suites(context, options)
    store = _key_store(options)
    used = [] if store is None else _use_keys(context, store, options)
    if not _trust(context, options):
        context.load_default_certs()
    return Loaded(
        context,
        min((der.not_after(entry.chain[0]) for entry in used), default=None),
        tuple(entry.alias for entry in used),
    )


# -- versions and suites -----------------------------------------------------------------------


def _set_versions_and_suites(context: ssl.SSLContext, options: Options) -> None:
    if options.strict:
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(":".join(suites.STRICT))
        return
    key = "ssl.enabled.protocols"
    versions = {suites.VERSIONS[name] for name in options.versions if name in suites.VERSIONS}
    unknown = [
        name
        for name in options.versions
        if name not in suites.VERSIONS and name not in suites.OLD_VERSIONS
    ]
    if unknown or not versions:
        raise ConfigError(
            key,
            f"{key}={','.join(options.versions)} has no use here: versions are "
            f"{' and '.join(suites.VERSIONS)}",
        )
    old, new = suites.openssl_names(options.suites)
    if options.suites:
        if not new:
            versions.discard(ssl.TLSVersion.TLSv1_3)
        if not old:
            versions.discard(ssl.TLSVersion.TLSv1_2)
        if not versions:
            raise ConfigError(
                "ssl.cipher.suites",
                "ssl.cipher.suites has no suite for the versions of ssl.enabled.protocols",
            )
    context.minimum_version, context.maximum_version = min(versions), max(versions)
    try:
        context.set_ciphers(":".join(old or suites.DEFAULT))
    except ssl.SSLError:
        raise ConfigError(
            "ssl.cipher.suites", "OpenSSL on this machine has none of ssl.cipher.suites"
        ) from None


# -- keys --------------------------------------------------------------------------------------


def _key_store(options: Options) -> Store | None:
    if options.key_text is not None or options.chain_text is not None:
        if options.key_text is None or options.chain_text is None:
            missing = "key" if options.key_text is None else "certificate.chain"
            raise ConfigError(
                f"ssl.keystore.{missing}",
                "ssl.keystore.key and ssl.keystore.certificate.chain go together: set "
                f"ssl.keystore.{missing} too",
            )
        text = f"{options.key_text}\n{options.chain_text}"
        try:
            return read_store(text.encode(), None, options.key_password)
        except KeyStoreError as error:
            raise ConfigError("ssl.keystore.key", f"ssl.keystore.key: {error}") from None
    if options.key_store is None:
        return None
    return _read(
        "ssl.keystore", options.key_store, options.key_store_password, options.key_password
    )


def _read(kind: str, path: str, password: str | None, key_password: str | None = None) -> Store:
    name = f"{kind}.location"
    try:
        with open(path, "rb") as file:
            data = file.read(KEY_STORE_BYTES_MAX + 1)
    except FileNotFoundError:
        raise ConfigError(name, f"{name}={path} does not exist: correct it") from None
    except PermissionError:
        raise ConfigError(
            name, f"{name}={path} cannot be read: give the broker's user the right to"
        ) from None
    except OSError as error:
        raise ConfigError(name, f"{name}={path} cannot be read: {error.strerror}") from None
    if len(data) > KEY_STORE_BYTES_MAX:
        raise ConfigError(name, f"{name}={path} is too large to be a store of keys")
    try:
        return read_store(data, password, key_password)
    except WrongPassword as error:
        raise ConfigError(
            f"{kind}.password", f"{name}={path} cannot be opened by {kind}.password: {error}"
        ) from None
    except KeyStoreError as error:
        raise ConfigError(name, f"{name}={path}: {error}") from None


def _use_keys(context: ssl.SSLContext, store: Store, options: Options) -> list[KeyEntry]:
    """Load one key of each kind, so that every client finds one it can use."""
    by_kind: dict[bytes, KeyEntry] = {}
    for entry in store.keys:
        if entry.chain:
            by_kind.setdefault(_kind(entry.key), entry)
    where = options.key_store or "ssl.keystore.key"
    if not by_kind:
        raise ConfigError(
            "ssl.keystore.location",
            f"there is no private key with a certificate in {where}; is it a trust store?",
        )
    for entry in by_kind.values():
        text = pem.encode("PRIVATE KEY", entry.key)
        text += b"".join(pem.encode("CERTIFICATE", each) for each in entry.chain)
        try:
            with _secret_file(text) as path:
                context.load_cert_chain(path)
        except ssl.SSLError as error:
            reason = (error.reason or str(error)).replace("_", " ").lower()
            raise ConfigError(
                "ssl.keystore.location",
                f"the key or certificate of {entry.alias!r} in {where} cannot be used: {reason}",
            ) from None
    return list(by_kind.values())


def _kind(key: bytes) -> bytes:
    """The object identifier of a key's algorithm."""
    try:
        _, (_, algorithm, _), *_ = der.elements(der.content(key, der.SEQUENCE))
        return der.content(algorithm, der.OBJECT_IDENTIFIER)
    except (der.DerError, ValueError):
        return b""  # OpenSSL will say what is wrong


@contextmanager
def _secret_file(data: bytes) -> Iterator[str]:
    """A path to the data, since OpenSSL reads keys from files alone; never on a disk where the
    system can help it."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("kavka-key")
        try:
            with open(descriptor, "wb", closefd=False) as file:
                file.write(data)
            os.lseek(descriptor, 0, os.SEEK_SET)
            yield f"/proc/self/fd/{descriptor}"
        finally:
            os.close(descriptor)
        return
    descriptor, path = tempfile.mkstemp()  # for this user alone
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
        yield path
    finally:
        Path(path).unlink(missing_ok=True)


# -- trust -------------------------------------------------------------------------------------


def _trust(context: ssl.SSLContext, options: Options) -> bool:
    """Let the context trust what the trust store holds; False when there is none."""
    if options.trust_text is not None:
        try:
            store = read_store(options.trust_text.encode(), None)
        except KeyStoreError as error:
            raise ConfigError(
                "ssl.truststore.certificates", f"ssl.truststore.certificates: {error}"
            ) from None
    elif options.trust_store is not None:
        store = _read("ssl.truststore", options.trust_store, options.trust_store_password)
    else:
        return False
    certificates = [entry.certificate for entry in store.trusted]
    # Java takes the certificates of keys in a trust store for nothing, and so do we.
    if not certificates:
        where = options.trust_store or "ssl.truststore.certificates"
        raise ConfigError("ssl.truststore.location", f"there is no trusted certificate in {where}")
    try:
        context.load_verify_locations(cadata=b"".join(certificates))
    except ssl.SSLError as error:
        reason = (error.reason or str(error)).replace("_", " ").lower()
        raise ConfigError(
            "ssl.truststore.location", f"a certificate to trust is malformed: {reason}"
        ) from None
    # As in Java whatever is in the store is trusted, be it an authority or not.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return True
