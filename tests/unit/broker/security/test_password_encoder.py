"""Secrets in the store: Kafka's own text can be read, and only with the secret."""

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kavka.broker.security.password_encoder import (
    CBC_CIPHER,
    GCM_CIPHER,
    PasswordEncoder,
    PasswordError,
)

# Made by Kafka 2.3's PasswordEncoder of "pässword".
KAFKAS_CBC = (
    "encryptedPassword:dFdP5+n2RDOjQ2JZp8C62w==,keyLength:128,cipherAlgorithm:AES/CBC/PKCS5Pa"
    "dding,initializationVector:P5SATjptcor8kw0KtbAYkg==,keyFactoryAlgorithm:PBKDF2WithHmacSH"
    "A512,salt:DGLgIataNl7BmNSty5A8cpV9fhunYaZz3y3Tkto1d4nhBRUuuVlcFbeuiBu3MFIZQQ2Suo/Xu9zqho"
    "ogtUhJxK7gzhyw7Re2znHqbsMMYf/un+wx+D6XbG6i3v3isG5hG400I1+LH3Rawz9ovf5lcs2gG8Fu7Q30fLZUPw"
    "UD8gkFTSPhCSPPyZAxfBiSQiPfyTbLzPhiYpjy8eZsP9aCDnE1gBN5/PZksbrTsSnF6pb6pqf/F2KT8Rfm3wZZNH"
    "TQko8Cbu3I/k7Wu1UFj5ozz6vphpln1wSrVW/UKSQOzmSKgW7JbR0bEH8Fj/RCaQDIqTvqpkqWXuyHvWnaJc0w/Q"
    "==,iterations:4096,passwordLength:8"
)
KAFKAS_GCM = (
    "encryptedPassword:X73P5Aze8iwGpgw1mHqDOOBwlC+JVTEbqw==,keyLength:128,cipherAlgorithm:AES"
    "/GCM/NoPadding,initializationVector:C7Qu4B6YBdfC06Ew,keyFactoryAlgorithm:PBKDF2WithHmacS"
    "HA512,salt:8XBWBHRL7thcDgRSI+ikhgn2KvgGVBF7oxoNadOhpGIcP4pgjJj/GZ5wV1tDEJ0/F+eKP8IlF5Nyx"
    "dHpiKbYCogRUvkPq9626fZY2cnjC//rPtSeocvWZyG7plDnZwHPHrRdssWxkgQkXGIeKOT/+T8/1IFpGSPBkvgMj"
    "S/376UB3fpGWZKgenXXh0D0I+5S34qY0hsk8mZShLuHdgwWWoGGVNR+UtqMOYEi0kEtiNOAk5exlOMx4YdSpW+nv"
    "acXZpQwLueRDiop/HbaxZdJLzQ/fN185VQ/JKtjEF6KhFzE75WRbPU4iqnaUxyUJ9i7V2y20hv9pqFUFTSO+SbJ4"
    "Q==,iterations:4096,passwordLength:8,authenticationTagLength:128"
)


def encoder(secret: str = "the secret", **options: object) -> PasswordEncoder:
    return PasswordEncoder(secret, random_bytes=os.urandom, **options)  # type: ignore[arg-type]


@settings(max_examples=20, deadline=None)
@given(st.text(max_size=100), st.sampled_from([CBC_CIPHER, GCM_CIPHER]))
def test_what_is_encrypted_comes_back(password: str, cipher: str) -> None:
    password = password.encode("utf-8", "replace").decode()
    assert encoder().decode(encoder(cipher=cipher).encode(password)) == password


@pytest.mark.parametrize("bits", [128, 192, 256])
@pytest.mark.parametrize("factory", ["PBKDF2WithHmacSHA1", "PBKDF2WithHmacSHA512"])
def test_the_text_says_how_it_was_made(bits: int, factory: str) -> None:
    text = encoder(key_bits=bits, key_factory=factory, iterations=1024).encode("päss")
    fields = dict(part.partition(":")[::2] for part in text.split(","))
    assert fields["keyLength"] == str(bits)
    assert fields["keyFactoryAlgorithm"] == factory
    assert fields["iterations"] == "1024"
    assert fields["passwordLength"] == "4"
    assert encoder().decode(text) == "päss"
    assert "päss" not in text


@pytest.mark.parametrize("text", [KAFKAS_CBC, KAFKAS_GCM])
def test_what_kafka_has_encrypted(text: str) -> None:
    assert encoder().decode(text) == "pässword"


def test_equal_secrets_look_different() -> None:
    assert encoder().encode("x") != encoder().encode("x")


@pytest.mark.parametrize("cipher", [CBC_CIPHER, GCM_CIPHER])
def test_another_secret_reads_nothing(cipher: str) -> None:
    text = encoder(cipher=cipher).encode("password")
    for _ in range(20):  # padding can be right by chance, the length then is not
        with pytest.raises(PasswordError) as error:
            encoder(os.urandom(4).hex()).decode(text)
        assert "password" not in str(error.value)


@pytest.mark.parametrize(
    "change",
    [
        ("iterations:4096", "iterations:-1"),
        ("iterations:4096", "iterations:999999999999"),
        ("iterations:4096", "iterations:many"),
        ("keyLength:128", "keyLength:8"),
        ("AES/CBC/PKCS5Padding", "DES/CBC/PKCS5Padding"),
        ("PBKDF2WithHmacSHA512", "PBKDF2WithHmacMD5"),
        ("initializationVector:", "initializationVector:!"),
        ("initializationVector:", "initializationVector:AAAA"),
        ("encryptedPassword:", "encryptedPassword:AAAA"),
        ("passwordLength:8", "passwordLength:7"),
        ("salt:", "salt:!"),
    ],
)
def test_broken_texts(change: tuple[str, str]) -> None:
    text = encoder().encode("password")
    assert change[0] in text
    with pytest.raises(PasswordError):
        encoder().decode(text.replace(*change))


@pytest.mark.parametrize("text", ["", "password", "a:b,c", ",,,", "salt:AAAA"])
def test_no_texts_of_ours(text: str) -> None:
    with pytest.raises(PasswordError):
        encoder().decode(text)


def test_settings_of_no_cipher() -> None:
    for options in ({"cipher": "AES/ECB/NoPadding"}, {"key_bits": 100}, {"key_factory": "MD5"}):
        with pytest.raises(PasswordError):
            encoder(**options).encode("x")
