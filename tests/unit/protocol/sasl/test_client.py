"""The client's side of SASL: by the vector, and against servers that know nothing."""

import pytest

from kavka.protocol.sasl.client import PlainClient, SaslRefused, ScramClient
from kavka.protocol.sasl.scram import MECHANISMS, ScramMechanism

NONCE = "rOprNGfwEbeRWgbNEkqO"
OFFER = b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
SIGNATURE = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="


def client(password: str = "pencil") -> ScramClient:
    return ScramClient(ScramMechanism.SHA_256, "user", password, NONCE)


def test_the_vector_of_rfc_7677() -> None:
    exchange = client()
    assert exchange.first() == b"n,,n=user,r=" + NONCE.encode()
    assert exchange.next(OFFER) == (
        b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
        b"p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
    )
    assert exchange.next(SIGNATURE) is None


@pytest.mark.parametrize(
    "offer",
    [
        b"",
        b"e=other-error",
        OFFER.replace(b"r=r", b"r=s"),
        b"r=rOprNGfwEbeRWgbNEkqO,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",  # adds nothing of its own
        OFFER.replace(b"i=4096", b"i=4095"),
        OFFER.replace(b"i=4096", b"i=999999999"),
        OFFER.replace(b"i=4096", b"i=x"),
        OFFER.replace(b"s=W", b"s=!"),
        OFFER + b"\xff",
    ],
)
def test_offers_that_are_not_taken(offer: bytes) -> None:
    with pytest.raises(SaslRefused):
        client().next(offer)


@pytest.mark.parametrize(
    "last", [b"", b"v=", b"v=AAAA", b"e=invalid-proof", SIGNATURE.replace(b"6", b"7", 1), b"\xff"]
)
def test_a_server_must_know_the_password_too(last: bytes) -> None:
    exchange = client()
    exchange.next(OFFER)
    with pytest.raises(SaslRefused) as refused:
        exchange.next(last)
    assert "pencil" not in str(refused.value)


def test_tokens_and_names() -> None:
    exchange = ScramClient(MECHANISMS["SCRAM-SHA-512"], "a=b,c", "x", "n", token=True)
    assert exchange.first() == b"n,,n=a=3Db=2Cc,r=n,tokenauth=true"


def test_plain() -> None:
    exchange = PlainClient("ü", "p w")
    assert exchange.first() == "\0ü\0p w".encode()
    assert exchange.next(b"") is None
