"""Bearer tokens: what is accepted, and everything that is not."""

import json
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils
from hypothesis import given, settings
from hypothesis import strategies as st

from kavka.broker.security.sasl import jwt
from kavka.broker.security.sasl.jwks import KeySet
from kavka.broker.security.sasl.mechanism import AuthenticationFailed, Reply
from kavka.broker.security.sasl.oauthbearer import (
    OAuthBearerMechanism,
    SignedTokens,
    UnsecuredTokens,
)
from kavka.storage.clock import ManualClock

NOW_MS = 1_500_000_000_000
NOW = NOW_MS // 1000
CLAIMS = {"sub": "alice", "exp": NOW + 60}
RSA_KEY = rsa.generate_private_key(65537, 2048)
OTHER_RSA_KEY = rsa.generate_private_key(65537, 2048)
EC_KEYS = {
    "ES256": (ec.generate_private_key(ec.SECP256R1()), "P-256", 32, hashes.SHA256()),
    "ES384": (ec.generate_private_key(ec.SECP384R1()), "P-384", 48, hashes.SHA384()),
    "ES512": (ec.generate_private_key(ec.SECP521R1()), "P-521", 66, hashes.SHA512()),
}
HASHES: Mapping[str, hashes.HashAlgorithm] = {
    "256": hashes.SHA256(),
    "384": hashes.SHA384(),
    "512": hashes.SHA512(),
}


def b64(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def part(body: object) -> str:
    return b64(json.dumps(body).encode())


def unsigned(header: Mapping[str, object], claims: Mapping[str, object]) -> str:
    return f"{part(header)}.{part(claims)}"


def rsa_token(
    algorithm: str = "RS256",
    claims: Mapping[str, object] = CLAIMS,
    key: rsa.RSAPrivateKey = RSA_KEY,
    **header: object,
) -> str:
    text = unsigned({"alg": algorithm, "kid": "r", **header}, claims)
    digest = HASHES[algorithm[2:]]
    pad: padding.AsymmetricPadding = padding.PKCS1v15()
    if algorithm.startswith("PS"):
        pad = padding.PSS(padding.MGF1(digest), digest.digest_size)
    return f"{text}.{b64(key.sign(text.encode(), pad, digest))}"


def ec_token(algorithm: str) -> str:
    key, _, size, digest = EC_KEYS[algorithm]
    text = unsigned({"alg": algorithm, "kid": algorithm}, CLAIMS)
    r, s = utils.decode_dss_signature(key.sign(text.encode(), ec.ECDSA(digest)))
    return f"{text}.{b64(r.to_bytes(size, 'big') + s.to_bytes(size, 'big'))}"


def rsa_entry(key: rsa.RSAPrivateKey = RSA_KEY, **more: object) -> dict[str, object]:
    numbers = key.public_key().public_numbers()
    size = (numbers.n.bit_length() + 7) // 8
    return {
        "kty": "RSA",
        "kid": "r",
        "use": "sig",
        "e": "AQAB",
        "n": b64(numbers.n.to_bytes(size, "big")),
        **more,
    }


def ec_entry(algorithm: str) -> dict[str, object]:
    key, curve, size, _ = EC_KEYS[algorithm]
    numbers = key.public_key().public_numbers()
    return {
        "kty": "EC",
        "kid": algorithm,
        "crv": curve,
        "x": b64(numbers.x.to_bytes(size, "big")),
        "y": b64(numbers.y.to_bytes(size, "big")),
    }


def document(*entries: Mapping[str, object]) -> bytes:
    return json.dumps({"keys": entries}).encode()


KEYS = jwt.parse_keys(document(rsa_entry(), *map(ec_entry, EC_KEYS)))


def accept(text: str, rules: jwt.Rules | None = None, keys: Any = KEYS) -> jwt.Bearer:
    token = jwt.parse(text)
    jwt.verify(token, keys)
    return jwt.check_claims(token.claims, rules or jwt.Rules(), NOW_MS)


def refused(text: str, rules: jwt.Rules | None = None, keys: Any = KEYS) -> str:
    with pytest.raises(jwt.TokenError) as error:
        accept(text, rules, keys)
    assert len(text) < 9 or text not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("algorithm", sorted(jwt.ALGORITHMS))
def test_every_algorithm(algorithm: str) -> None:
    token = ec_token(algorithm) if algorithm in EC_KEYS else rsa_token(algorithm)
    assert accept(token) == jwt.Bearer("alice", (NOW + 60) * 1000)
    head, claims, signature = token.split(".")
    assert "signature" in refused(f"{head}.{part({**CLAIMS, 'sub': 'root'})}.{signature}")
    assert refused(f"{head}.{claims}.{signature[:-4]}")
    assert refused(f"{head}.{claims}.")


def test_nobody_picks_a_weaker_algorithm() -> None:
    for algorithm in ("none", "None", "HS256", "RS1", ""):
        text = unsigned({"alg": algorithm, "kid": "r"}, CLAIMS)
        assert "not accepted" in refused(f"{text}.{b64(b'x')}")
    # A key is only good for the algorithms of its kind, and for the one it names.
    assert "no key" in refused(rsa_token(kid="ES256"))
    only_512 = jwt.parse_keys(document(rsa_entry(alg="RS512")))
    assert "no key" in refused(rsa_token(), keys=only_512)
    assert accept(rsa_token("RS512"), keys=only_512)


def test_keys_are_found_by_their_id_or_tried_without() -> None:
    keys = jwt.parse_keys(document(rsa_entry(OTHER_RSA_KEY, kid="o"), rsa_entry()))
    assert accept(rsa_token(), keys=keys)
    assert "signature" in refused(rsa_token(kid="o"), keys=keys)
    assert "no key" in refused(rsa_token(kid="x"), keys=keys)
    assert accept(rsa_token(kid=None), keys=keys)


@pytest.mark.parametrize(
    ("claims", "rules", "message"),
    [
        ({"exp": None}, {}, "when it expires"),
        ({"exp": NOW}, {}, "expired"),
        ({"exp": "soon"}, {}, "no time"),
        ({"exp": True}, {}, "no time"),
        ({"exp": float("inf")}, {}, "no time"),
        ({"exp": -5}, {}, "no time"),
        ({"nbf": NOW + 1}, {}, "not valid yet"),
        ({"iat": NOW + 1}, {}, "future"),
        ({"sub": None}, {}, "no sub claim"),
        ({"sub": "  "}, {}, "no sub claim"),
        ({"sub": 7}, {}, "no sub claim"),
        ({}, {"subject_claim": "name"}, "no name claim"),
        ({}, {"issuer": "me"}, "issuer"),
        ({"iss": "you"}, {"issuer": "me"}, "issuer"),
        ({}, {"audiences": ("a", "b")}, "audience"),
        ({"aud": ["c", 1]}, {"audiences": ("a", "b")}, "audience"),
        ({"scope": "read"}, {"required_scopes": ("read", "write")}, "scopes"),
        ({"scope": 1}, {"required_scopes": ("read",)}, "scopes"),
    ],
)
def test_claims_that_do_not_hold(claims: Any, rules: Any, message: str) -> None:
    text = rsa_token(claims={**CLAIMS, **claims})
    assert message in refused(text, jwt.Rules(**rules))


@pytest.mark.parametrize(
    ("claims", "rules"),
    [
        ({"exp": NOW - 5}, {"skew_ms": 6000}),
        ({"exp": NOW + 0.5}, {}),
        ({"nbf": NOW + 5, "iat": NOW + 5}, {"skew_ms": 5000}),
        ({"nbf": NOW, "iat": NOW}, {}),
        ({"iss": "me", "aud": "a"}, {"issuer": "me", "audiences": ("b", "a")}),
        ({"aud": ["x", "b"]}, {"audiences": ("b",)}),
        ({"scope": "read write"}, {"required_scopes": ("write",)}),
        ({"scp": ["read", "write"]}, {"scope_claim": "scp", "required_scopes": ("write",)}),
        ({"sub": None, "name": "alice"}, {"subject_claim": "name"}),
    ],
)
def test_claims_that_hold(claims: Any, rules: Any) -> None:
    assert accept(rsa_token(claims={**CLAIMS, **claims}), jwt.Rules(**rules)).name == "alice"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a.b",
        "a.b.c.d",
        "..",
        f"{part([])}.{part(CLAIMS)}.",
        f"{part({'alg': 7})}.{part(CLAIMS)}.",
        f"{part({'alg': 'RS256', 'kid': 7})}.{part(CLAIMS)}.",
        f"{part({'alg': 'RS256', 'crit': ['x']})}.{part(CLAIMS)}.",
        f"{part({'alg': 'RS256'})}.{b64(b'[' * 50_000)}.",
        f"{part({'alg': 'RS256'})}.{b64(bytes([0xFF]))}.",
        f"{part({'alg': 'RS256'})}.é.",
        f"{part({'alg': 'RS256'})}.{'A' * 70_000}.",
        f"{part({'alg': 'RS256'})}.{part(CLAIMS)}.A",
    ],
)
def test_texts_that_are_no_tokens(text: str) -> None:
    refused(text)


@settings(deadline=None, max_examples=80)
@given(st.text(alphabet="eyJhbGciOiJSUzI1NiJ9.-_=", max_size=80))
def test_fuzzed_tokens_are_refused(text: str) -> None:
    refused(text)


def test_keys_that_cannot_be_used_are_left_out() -> None:
    entries = [
        rsa_entry(use="enc"),
        rsa_entry(key_ops=["sign"]),
        {**rsa_entry(), "n": "!"},
        {"kty": "oct", "k": "AAAA", "kid": "r"},
        {"kty": "EC", "crv": "P-256", "x": "AAAA", "y": "AAAA"},
        {**ec_entry("ES256"), "crv": "secp256k1"},
        rsa_entry(rsa.generate_private_key(65537, 1024)),
        {},
    ]
    assert len(jwt.parse_keys(document(*entries, rsa_entry()))) == 1
    for bad in (document(*entries), b"", b"[]", b'{"keys":{}}', b'{"keys":[1]}', b"\xff"):
        with pytest.raises(jwt.KeysError):
            jwt.parse_keys(bad)


# -- the mechanism ------------------------------------------------------------------------------


def unsecured(claims: Mapping[str, object] = CLAIMS) -> str:
    return unsigned({"alg": "none"}, claims) + "."


def mechanism(rules: jwt.Rules | None = None) -> OAuthBearerMechanism:
    clock = ManualClock(NOW_MS)
    return OAuthBearerMechanism(UnsecuredTokens(rules or jwt.Rules(), clock))


def first(token: str, authzid: str = "", more: str = "") -> bytes:
    who = f"a={authzid}" if authzid else ""
    return f"n,{who},\x01{more}auth=Bearer {token}\x01\x01".encode()


@pytest.mark.parametrize(
    "message",
    [
        first(unsecured()),
        first(unsecured(), "alice"),
        first(unsecured(), more="host=example.com\x01port=9092\x01"),
        first(unsecured()).replace(b"Bearer ", b"bEARER   "),
    ],
)
def test_a_token_lets_in(message: bytes) -> None:
    reply = mechanism().respond(message)
    assert isinstance(reply, Reply) and reply.token == b""
    assert reply.identity is not None
    assert (reply.identity.name, reply.identity.expires_ms) == ("alice", (NOW + 60) * 1000)


def test_a_refused_token_is_told_by_json_and_then_by_the_end() -> None:
    exchange = mechanism()
    reply = exchange.respond(first(unsecured({**CLAIMS, "exp": NOW - 1})))
    assert reply == Reply(b'{"status":"invalid_token"}')
    with pytest.raises(AuthenticationFailed) as failed:
        exchange.respond(b"\x01")
    assert failed.value.told == '{"status":"invalid_token"}'
    assert "expired" in str(failed.value)


def test_no_second_token() -> None:
    exchange = mechanism()
    exchange.respond(first("e30.e30."))
    with pytest.raises(AuthenticationFailed):
        exchange.respond(first(unsecured()))


def test_acting_for_somebody_else() -> None:
    with pytest.raises(AuthenticationFailed) as failed:
        mechanism().respond(first(unsecured(), "root"))
    assert failed.value.told is not None and "(root)" in failed.value.told


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\x01",
        first(unsecured()).replace(b"n,", b"y,", 1),
        first(unsecured()).replace(b"auth=", b"Auth="),
        first(unsecured()).replace(b"Bearer", b"Basic"),
        first(unsecured())[:-1],
        first(unsecured()) + b"\x01",
        first(unsecured(), more="ho st=x\x01"),
        first(unsecured(), "a=b"),
        first(""),
        b"n,,\x01auth=Bearer \xff\x01\x01",
    ],
)
def test_messages_of_no_mechanism(message: bytes) -> None:
    with pytest.raises(AuthenticationFailed) as failed:
        mechanism().respond(message)
    assert failed.value.told is None


def test_signed_tokens_are_not_unsecured_ones_nor_the_other_way_round(tmp_path: Path) -> None:
    clock = ManualClock(NOW_MS)
    path = tmp_path / "my keys.json"
    path.write_bytes(document(rsa_entry()))
    keys = KeySet(path.as_uri(), 60, 1, clock)
    keys.load()
    signed = SignedTokens(keys, jwt.Rules(), clock)
    assert signed(rsa_token()).name == "alice"
    with pytest.raises(jwt.TokenError):
        signed(unsecured())
    loose = UnsecuredTokens(jwt.Rules(), clock)
    for token in (rsa_token(), unsecured() + "AAAA", unsecured().replace(".", "..")):
        with pytest.raises(jwt.TokenError):
            loose(token)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("file:///nowhere/keys.json", "cannot be read"),
        ("http://127.0.0.1/keys.json", "must begin with"),
        ("/etc/hostname", "must begin with"),
    ],
)
def test_keys_that_cannot_be_read(url: str, message: str) -> None:
    with pytest.raises(jwt.KeysError, match=message):
        KeySet(url, 60, 1, ManualClock()).load()
