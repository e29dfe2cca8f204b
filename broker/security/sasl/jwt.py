"""JSON Web Tokens as bearer tokens (RFC 7519, 7515, 7517; KIP-255, KIP-768).

Signed ones are checked with the public keys of a JWKS document, by ``cryptography``. Only
asymmetric algorithms are known, each only with a key of its kind, so that neither "none" nor a
public key taken for a shared secret can pass. Unsigned tokens have a function of their own, for
tests.
"""

import binascii
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

    PublicKey: TypeAlias = RSAPublicKey | EllipticCurvePublicKey

_TOKEN_CHARACTERS_MAX: Final = 64 * 1024
_PART: Final = re.compile(r"[A-Za-z0-9_-]*")
_RSA_BITS_MIN: Final = 2048

_HASHES: Final = {"256": "SHA256", "384": "SHA384", "512": "SHA512"}
_CURVES: Final = {  # by algorithm: name of the curve, bytes of a coordinate
    "ES256": ("P-256", 32),
    "ES384": ("P-384", 48),
    "ES512": ("P-521", 66),
}
ALGORITHMS: Final = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", *_CURVES})


class TokenError(Exception):
    """A token that is not accepted; the message does not quote it."""


class KeysError(Exception):
    """A JWKS document that cannot be used; the message says why."""


class Token(NamedTuple):
    """A parsed token. Nothing in it may be believed before its signature is checked."""

    algorithm: str
    key_id: str | None
    claims: Mapping[str, Any]
    signed: bytes
    signature: bytes


class Key(NamedTuple):
    """One public key, for the algorithms it may be used with."""

    key_id: str | None
    algorithms: frozenset[str]
    public: "PublicKey"


class Rules(NamedTuple):
    """What the claims of a token must say (settings ``sasl.oauthbearer.*``)."""

    subject_claim: str = "sub"
    scope_claim: str = "scope"
    audiences: Sequence[str] = ()
    """One of them must be among the token's; empty: whatever."""
    issuer: str | None = None
    required_scopes: Sequence[str] = ()
    skew_ms: int = 0


class Bearer(NamedTuple):
    """Whom a token speaks for, and until when."""

    name: str
    expires_ms: int


# -- parsing ----------------------------------------------------------------------------------


def parse(text: str) -> Token:
    """Take a compact token apart. Raises TokenError."""
    if len(text) > _TOKEN_CHARACTERS_MAX:
        raise TokenError("the token is too long")
    parts = text.split(".")
    if len(parts) != 3 or not all(_PART.fullmatch(part) for part in parts):
        raise TokenError("the token has not three parts in base 64")
    header = _object(parts[0], "header")
    algorithm, key_id = header.get("alg"), header.get("kid")
    if not isinstance(algorithm, str) or not (key_id is None or isinstance(key_id, str)):
        raise TokenError("the token's header names no algorithm")
    if "crit" in header:
        raise TokenError("the token's header demands an extension")
    return Token(
        algorithm,
        key_id,
        _object(parts[1], "claims"),
        f"{parts[0]}.{parts[1]}".encode(),
        _bytes(parts[2]),
    )


def _bytes(text: str) -> bytes:
    try:
        return binascii.a2b_base64(
            text.replace("-", "+").replace("_", "/") + "=" * (-len(text) % 4), strict_mode=True
        )
    except binascii.Error:
        raise TokenError("a part of the token is not base 64") from None


def _object(text: str, what: str) -> dict[str, Any]:
    try:
        value = json.loads(_bytes(text))
    except (ValueError, RecursionError):
        raise TokenError(f"the token's {what} are not JSON") from None
    if not isinstance(value, dict):
        raise TokenError(f"the token's {what} are no JSON object")
    return value


# -- claims -----------------------------------------------------------------------------------


def check_claims(claims: Mapping[str, Any], rules: Rules, now_ms: int) -> Bearer:
    """Whom the claims name, if they are in force. Raises TokenError."""
    expires_ms = _time(claims, "exp")
    if expires_ms is None:
        raise TokenError("the token does not say when it expires")
    if now_ms - rules.skew_ms >= expires_ms:
        raise TokenError("the token has expired")
    for name, what in (("nbf", "is not valid yet"), ("iat", "was issued in the future")):
        begins_ms = _time(claims, name)
        if begins_ms is not None and now_ms + rules.skew_ms < begins_ms:
            raise TokenError(f"the token {what}")
    if rules.issuer is not None and claims.get("iss") != rules.issuer:
        raise TokenError("the token is from another issuer than sasl.oauthbearer.expected.issuer")
    if rules.audiences and not set(rules.audiences) & set(_texts(claims.get("aud"))):
        raise TokenError("the token is for none of sasl.oauthbearer.expected.audience")
    scope = claims.get(rules.scope_claim)
    scopes = scope.split() if isinstance(scope, str) else _texts(scope)
    if not set(rules.required_scopes) <= set(scopes):
        raise TokenError("the token has not the scopes that are required")
    subject = claims.get(rules.subject_claim)
    if not isinstance(subject, str) or not subject.strip():
        raise TokenError(f"the token has no {rules.subject_claim} claim")
    return Bearer(subject, expires_ms)


def _time(claims: Mapping[str, Any], name: str) -> int | None:
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 2**53:
        raise TokenError(f"the token's {name} claim is no time")
    return int(value * 1000)


def _texts(value: object) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [each for each in values if isinstance(each, str)]


# -- signatures -------------------------------------------------------------------------------


def verify(token: Token, keys: Sequence[Key]) -> None:
    """Check a token's signature with those of the keys that may have made it.

    Raises TokenError.
    """
    if token.algorithm not in ALGORITHMS:
        raise TokenError(f"the token is signed by {token.algorithm[:20]!r}, which is not accepted")
    candidates = [
        key
        for key in keys
        if token.algorithm in key.algorithms and token.key_id in (None, key.key_id)
    ]
    if not candidates:
        raise UnknownKey("no key fits the token")
    if not any(_signed_by(token, key) for key in candidates):
        raise TokenError("the token's signature is wrong")


class UnknownKey(TokenError):
    """There is no key that the token can be checked with; there may be one tomorrow."""


def _signed_by(token: Token, key: Key) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, padding, utils

    algorithm = token.algorithm
    digest: hashes.HashAlgorithm = getattr(hashes, _HASHES[algorithm[2:]])()
    try:
        if isinstance(key.public, ec.EllipticCurvePublicKey):
            size = _CURVES[algorithm][1]
            if len(token.signature) != 2 * size:
                return False
            r = int.from_bytes(token.signature[:size], "big")
            s = int.from_bytes(token.signature[size:], "big")
            der = utils.encode_dss_signature(r, s)
            key.public.verify(der, token.signed, ec.ECDSA(digest))
        elif algorithm.startswith("PS"):
            pss = padding.PSS(padding.MGF1(digest), digest.digest_size)
            key.public.verify(token.signature, token.signed, pss, digest)
        else:
            key.public.verify(token.signature, token.signed, padding.PKCS1v15(), digest)
    except InvalidSignature:
        return False
    return True


# -- keys -------------------------------------------------------------------------------------


def parse_keys(document: bytes) -> list[Key]:
    """The usable keys of a JWKS document; others in it are left out.

    Raises KeysError for one without any. Imports ``cryptography``.
    """
    try:
        entries = json.loads(document)["keys"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise KeysError('it is no JSON object with "keys"') from None
    if not isinstance(entries, list):
        raise KeysError('its "keys" are no list')
    keys = [key for entry in entries if isinstance(entry, dict) and (key := _key(entry))]
    if not keys:
        raise KeysError("it holds no RSA or EC key for signatures")
    return keys


def _key(entry: Mapping[str, Any]) -> Key | None:
    make = _KINDS.get(str(entry.get("kty")))
    if make is None or entry.get("use", "sig") != "sig":
        return None
    if "verify" not in entry.get("key_ops", ["verify"]):
        return None
    try:
        public, algorithms = make(entry)
    except (TokenError, ValueError, KeyError, TypeError, AttributeError):
        return None
    named = entry.get("alg")
    if named is not None:
        algorithms &= {named}
    key_id = entry.get("kid")
    return Key(key_id if isinstance(key_id, str) else None, algorithms, public)


def _rsa_key(entry: Mapping[str, Any]) -> "tuple[PublicKey, frozenset[str]]":
    from cryptography.hazmat.primitives.asymmetric import rsa

    modulus = int.from_bytes(_bytes(entry["n"]), "big")
    exponent = int.from_bytes(_bytes(entry["e"]), "big")
    public = rsa.RSAPublicNumbers(exponent, modulus).public_key()
    if public.key_size < _RSA_BITS_MIN:
        raise ValueError("the key is too short")
    return public, frozenset(name for name in ALGORITHMS if name[0] in "RP")


def _ec_key(entry: Mapping[str, Any]) -> "tuple[PublicKey, frozenset[str]]":
    from cryptography.hazmat.primitives.asymmetric import ec

    curves: dict[str, ec.EllipticCurve] = {
        "P-256": ec.SECP256R1(),
        "P-384": ec.SECP384R1(),
        "P-521": ec.SECP521R1(),
    }
    name = entry["crv"]
    numbers = ec.EllipticCurvePublicNumbers(
        int.from_bytes(_bytes(entry["x"]), "big"),
        int.from_bytes(_bytes(entry["y"]), "big"),
        curves[name],
    )
    algorithms = frozenset(a for a, (curve, _) in _CURVES.items() if curve == name)
    return numbers.public_key(), algorithms


_KINDS: Final["dict[str, Callable[[Mapping[str, Any]], tuple[PublicKey, frozenset[str]]]]"] = {
    "RSA": _rsa_key,
    "EC": _ec_key,
}
