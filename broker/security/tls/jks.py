"""Java's own key store formats: JKS version 2, and for reading version 1 and JCEKS.

A file is magic, version and count; the entries; and a digest of the password and all before.
Keys are hidden by a key stream of SHA-1 over the password, with object identifier
1.3.6.1.4.1.42.2.17.1.1: a lock that keeps honest people honest, which is why keytool now writes
PKCS12. Old clients read nothing else. JCEKS differs in its magic and hides keys by triple DES
(1.3.6.1.4.1.42.2.19.1).
"""

import hashlib
import hmac
import struct
from collections.abc import Callable
from typing import Final

from kavka.broker.security.tls import der
from kavka.broker.security.tls.stores import (
    KeyEntry,
    KeyStoreError,
    Store,
    TrustedEntry,
    WrongPassword,
)

_MAGIC: Final = bytes.fromhex("feedfeed")
_JCEKS_MAGIC: Final = bytes.fromhex("cececece")
_WHITENER: Final = b"Mighty Aphrodite"
_DIGEST_SIZE: Final = 20
_KEY_PROTECTOR: Final = der.encode(
    der.OBJECT_IDENTIFIER, bytes.fromhex("2b060104012a02110101")
)  # 1.3.6.1.4.1.42.2.17.1.1
_JCEKS_PROTECTOR: Final = der.encode(
    der.OBJECT_IDENTIFIER, bytes.fromhex("2b060104012a021301")
)  # 1.3.6.1.4.1.42.2.19.1, PBEWithMD5AndTripleDES as only Java does it
_ROUNDS_MAX: Final = 5_000_000
_KEY, _TRUSTED, _SECRET = 1, 2, 3


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._pos = 0

    def take(self, size: int) -> bytes:
        end = self._pos + size
        if size < 0 or end > len(self._data):
            raise KeyStoreError("the JKS store is damaged: it ends too early")
        piece = self._data[self._pos : end]
        self._pos = end
        return piece

    def number(self) -> int:
        value: int = struct.unpack(">i", self.take(4))[0]
        return value

    def text(self) -> str:
        size: int = struct.unpack(">H", self.take(2))[0]
        try:
            return _from_modified_utf8(self.take(size))
        except UnicodeDecodeError:
            raise KeyStoreError("the JKS store is damaged: a name is no text") from None

    @property
    def at_end(self) -> bool:
        return self._pos == len(self._data)


def read(data: bytes, password: str | None, key_password: str | None = None) -> Store:
    """All entries. Raises WrongPassword, and KeyStoreError for a damaged store."""
    if len(data) < 12 + _DIGEST_SIZE or not data.startswith((_MAGIC, _JCEKS_MAGIC)):
        raise KeyStoreError("the JKS store is damaged: it ends too early")
    body = data[:-_DIGEST_SIZE]
    if password is not None:
        digest = hashlib.sha1(_password_bytes(password) + _WHITENER + body).digest()
        if not hmac.compare_digest(digest, data[-_DIGEST_SIZE:]):
            raise WrongPassword("its password is wrong, or the JKS store was changed or damaged")
    reader = _Reader(body)
    reader.take(4)
    version, count = reader.number(), reader.number()
    if version not in (1, 2):
        raise KeyStoreError(f"JKS version {version} is unknown")
    keys: list[KeyEntry] = []
    trusted: list[TrustedEntry] = []
    for _ in range(count):
        tag, alias = reader.number(), reader.text()
        reader.take(8)  # when it was made
        if tag == _KEY:
            sealed = reader.take(reader.number())
            chain = tuple(_certificate(reader, version) for _ in range(reader.number()))
            secret = key_password if key_password is not None else password
            if secret is None:
                raise WrongPassword(f"the key of {alias!r} needs a password")
            keys.append(KeyEntry(alias, _reveal(sealed, secret, alias), chain))
        elif tag == _TRUSTED:
            trusted.append(TrustedEntry(alias, _certificate(reader, version)))
        elif tag == _SECRET:
            raise KeyStoreError(f"the secret key of {alias!r} has no place in such a store")
        else:
            raise KeyStoreError(f"the JKS store is damaged: an entry has tag {tag}")
    if not reader.at_end:
        raise KeyStoreError("the JKS store is damaged: bytes are left over")
    return Store(tuple(keys), tuple(trusted))


def write(
    store: Store, password: str, *, now_ms: int, random_bytes: Callable[[int], bytes]
) -> bytes:
    """A store in which password and key password are the same. ``now_ms`` dates the entries."""
    out = [_MAGIC, struct.pack(">ii", 2, len(store.keys) + len(store.trusted))]
    for entry in store.keys:
        sealed = _hide(entry.key, password, random_bytes(_DIGEST_SIZE))
        out += [*_head(_KEY, entry.alias, now_ms), struct.pack(">i", len(sealed)), sealed]
        out.append(struct.pack(">i", len(entry.chain)))
        for certificate in entry.chain:
            out += _certificate_parts(certificate)
    for trusted in store.trusted:
        out += _head(_TRUSTED, trusted.alias, now_ms)
        out += _certificate_parts(trusted.certificate)
    body = b"".join(out)
    return body + hashlib.sha1(_password_bytes(password) + _WHITENER + body).digest()


def _head(tag: int, alias: str, now_ms: int) -> list[bytes]:
    # Java looks names up in lower case.
    return [struct.pack(">i", tag), _text(alias.lower()), struct.pack(">q", now_ms)]


def _certificate_parts(certificate: bytes) -> list[bytes]:
    return [_text("X.509"), struct.pack(">i", len(certificate)), certificate]


def _certificate(reader: _Reader, version: int) -> bytes:
    if version == 2:
        kind = reader.text()
        if kind not in ("X.509", "X509"):
            raise KeyStoreError(f"a certificate of type {kind!r} is unknown")
    return reader.take(reader.number())


def _text(text: str) -> bytes:
    data = _to_modified_utf8(text)
    return struct.pack(">H", len(data)) + data


def _password_bytes(password: str) -> bytes:
    return password.encode("utf-16-be")


# -- hiding a key ------------------------------------------------------------------------------


def _key_stream(secret: bytes, salt: bytes, size: int) -> bytes:
    stream = bytearray()
    digest = salt
    while len(stream) < size:
        digest = hashlib.sha1(secret + digest).digest()
        stream += digest
    return bytes(stream[:size])


def _xor(left: bytes, right: bytes) -> bytes:
    return (int.from_bytes(left, "big") ^ int.from_bytes(right, "big")).to_bytes(len(left), "big")


def _hide(key: bytes, password: str, salt: bytes) -> bytes:
    secret = _password_bytes(password)
    hidden = salt + _xor(key, _key_stream(secret, salt, len(key)))
    hidden += hashlib.sha1(secret + key).digest()
    return der.encode(
        der.SEQUENCE,
        der.encode(der.SEQUENCE, _KEY_PROTECTOR, der.NULL),
        der.encode(der.OCTET_STRING, hidden),
    )


def _reveal(sealed: bytes, password: str, alias: str) -> bytes:
    try:
        (_, algorithm, _), (tag, hidden, _) = der.elements(der.content(sealed, der.SEQUENCE))
    except (der.DerError, ValueError):
        raise KeyStoreError(f"the key of {alias!r} is damaged") from None
    if tag != der.OCTET_STRING or not _is_sequence(sealed):
        raise KeyStoreError(f"the key of {alias!r} is damaged")
    if algorithm.startswith(_JCEKS_PROTECTOR):
        return _reveal_jceks(algorithm[len(_JCEKS_PROTECTOR) :], hidden, password, alias)
    if not algorithm.startswith(_KEY_PROTECTOR):
        raise KeyStoreError(f"the key of {alias!r} is protected in an unknown way")
    if len(hidden) <= 2 * _DIGEST_SIZE:
        raise KeyStoreError(f"the key of {alias!r} is damaged")
    secret = _password_bytes(password)
    salt, cipher = hidden[:_DIGEST_SIZE], hidden[_DIGEST_SIZE:-_DIGEST_SIZE]
    key = _xor(cipher, _key_stream(secret, salt, len(cipher)))
    if not hmac.compare_digest(hashlib.sha1(secret + key).digest(), hidden[-_DIGEST_SIZE:]):
        raise WrongPassword(f"the password of the key of {alias!r} is wrong (ssl.key.password)")
    return key


def _reveal_jceks(parameters: bytes, hidden: bytes, password: str, alias: str) -> bytes:
    try:
        (_, salt, _), (_, rounds, _) = der.elements(der.content(parameters, der.SEQUENCE))
    except (der.DerError, ValueError):
        raise KeyStoreError(f"the key of {alias!r} is damaged") from None
    count = int.from_bytes(rounds, "big")
    if len(salt) != 8 or not 1 <= count <= _ROUNDS_MAX or not hidden or len(hidden) % 8:
        raise KeyStoreError(f"the key of {alias!r} is damaged")
    from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
    from cryptography.hazmat.primitives.ciphers import Cipher, modes

    secret = password.encode("ascii", "replace")
    halves = [salt[:4], salt[4:]]
    if halves[0] == halves[1]:
        # Java means to turn the first half round, and loses a byte of it.
        halves[0] = bytes((salt[3], salt[0], salt[1], salt[3]))
    stream = b""
    for digest in halves:
        for _ in range(count):
            digest = hashlib.md5(digest + secret).digest()
        stream += digest
    decryptor = Cipher(TripleDES(stream[:24]), modes.CBC(stream[24:])).decryptor()
    padded = decryptor.update(hidden) + decryptor.finalize()
    padding = padded[-1]
    key = padded[:-padding]
    wrong = not 1 <= padding <= 8 or padded[len(key) :] != bytes((padding,)) * padding
    if wrong or not _is_sequence(key):
        raise WrongPassword(f"the password of the key of {alias!r} is wrong (ssl.key.password)")
    return key


def _is_sequence(key: bytes) -> bool:
    """Whether the bytes are one whole DER sequence, as a key is."""
    try:
        return len(list(der.elements(key))) == 1 and bool(der.content(key, der.SEQUENCE))
    except der.DerError:
        return False


# -- Java's text ----------------------------------------------------------------------------------


def _to_modified_utf8(text: str) -> bytes:
    units = text.encode("utf-16-be", "surrogatepass")
    out = bytearray()
    for (unit,) in struct.iter_unpack(">H", units):
        if unit == 0:
            out += b"\xc0\x80"
        else:
            out += chr(unit).encode("utf-8", "surrogatepass")
    return bytes(out)


def _from_modified_utf8(data: bytes) -> str:
    text = data.replace(b"\xc0\x80", b"\0").decode("utf-8", "surrogatepass")
    return text.encode("utf-16-be", "surrogatepass").decode("utf-16-be")
