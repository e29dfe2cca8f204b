"""What to tell the operator when a handshake fails: who made which mistake, in words."""

import ssl
import struct
from typing import Final

_HTTP: Final = (
    b"GET ", b"POST", b"PUT ", b"HEAD", b"DELE", b"OPTI", b"PATC", b"CONN", b"TRAC", b"PRI ",
)  # fmt: skip
_HANDSHAKE: Final = 0x16  # a TLS record of a handshake
_ALERT: Final = 0x15

_API_KEYS: Final = range(1000)
_VERSIONS: Final = range(100)

# By OpenSSL's name of the reason. An "alert" is what the peer told us before it left.
_REASONS: Final = {
    "NO_SHARED_CIPHER": "the peer offers no cipher suite that this listener accepts "
    "(ssl.cipher.suites, and the kinds of key in ssl.keystore.location, decide)",
    "UNSUPPORTED_PROTOCOL": "the peer offers no TLS version that this listener accepts "
    "(ssl.enabled.protocols decides)",
    "VERSION_TOO_LOW": "the peer offers no TLS version that this listener accepts "
    "(ssl.enabled.protocols decides)",
    "WRONG_VERSION_NUMBER": "the peer does not speak TLS",
    "HTTP_REQUEST": "the peer speaks HTTP without TLS",
    "HTTPS_PROXY_REQUEST": "the peer speaks HTTP without TLS",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "the peer shows no certificate, which "
    "ssl.client.auth=required wants: give the client a key store (ssl.keystore.location)",
    "CERTIFICATE_VERIFY_FAILED": "the certificate of the peer is not trusted",
    "TLSV1_ALERT_UNKNOWN_CA": "the peer does not trust this broker's certificate: give the "
    "client a trust store with the certificate authority's certificate",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "the peer rejects this broker's certificate: its trust "
    "store lacks the certificate authority, or the certificate lacks the name the client uses",
    "SSLV3_ALERT_BAD_CERTIFICATE": "the peer rejects this broker's certificate: its trust "
    "store lacks the certificate authority, or the certificate lacks the name the client uses",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "the peer finds this broker's certificate expired",
    "SSLV3_ALERT_HANDSHAKE_FAILURE": "the peer finds no common ground in the handshake",
    "TLSV1_ALERT_PROTOCOL_VERSION": "the peer accepts no TLS version of this listener",
    "TLSV1_ALERT_INTERNAL_ERROR": "the peer broke the handshake off for an error of its own",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "the peer wants a certificate",
    "NO_SUITABLE_SIGNATURE_ALGORITHM": "the peer accepts no signature that this listener's "
    "certificate can make",
    "NO_SUITABLE_KEY_SHARE": "the peer offers no key exchange that this listener knows",
}


def foreign_bytes(start: bytes, protocol: str) -> str | None:
    """What a peer speaks whose first bytes are no TLS handshake; None when they may be one."""
    if not start or start[0] in (_HANDSHAKE, _ALERT):
        return None
    if start[:4] in _HTTP:
        return f"the peer speaks HTTP without TLS, but this listener speaks {protocol}"
    if len(start) >= 8:
        size, key, version = struct.unpack_from(">ihh", start)
        if size > 0 and key in _API_KEYS and version in _VERSIONS:
            return (
                f"the peer speaks Kafka without TLS, but this listener speaks {protocol}: set "
                f"security.protocol={protocol} in the client, or let it use a listener without TLS"
            )
    return f"the peer does not speak TLS, but this listener speaks {protocol}"


def handshake_failure(error: ssl.SSLError) -> str:
    """One clause about a handshake that OpenSSL has given up."""
    reason = error.reason or ""
    told = _REASONS.get(reason)
    if isinstance(error, ssl.SSLCertVerificationError):
        told = f"the certificate of the peer is not trusted: {error.verify_message}"
    if told is None:
        told = reason.replace("_", " ").lower() or "the peer broke the rules"
    return f"TLS handshake failed: {told}"


def session_failure(error: ssl.SSLError) -> str:
    """One clause about a session that broke after its handshake."""
    reason = (error.reason or "the peer broke the rules").replace("_", " ").lower()
    return f"TLS failed: {reason}"
