"""SCRAM against the vector of RFC 7677."""

from base64 import b64decode, b64encode

from kavka.protocol.sasl.scram import (
    ScramMechanism,
    keys_of,
    proof_holds,
    salted_password,
    server_signature,
)

SHA_256 = ScramMechanism.SHA_256
CLIENT_NONCE = "rOprNGfwEbeRWgbNEkqO"
NONCE = CLIENT_NONCE + "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
SALT = "W22ZaJ0SNY7soEsUEjb6gQ=="
AUTH_MESSAGE = f"n=user,r={CLIENT_NONCE},r={NONCE},s={SALT},i=4096,c=biws,r={NONCE}".encode()
PROOF = b64decode("dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=")


def test_the_vector_of_rfc_7677() -> None:
    keys = keys_of(SHA_256, salted_password(SHA_256, "pencil", b64decode(SALT), 4096))
    assert b64encode(keys.stored_key) == b"WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY="
    assert b64encode(keys.server_key) == b"wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
    assert proof_holds(SHA_256, keys.stored_key, AUTH_MESSAGE, PROOF)
    signature = server_signature(SHA_256, keys.server_key, AUTH_MESSAGE)
    assert b64encode(signature) == b"6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="


def test_wrong_proofs_are_no_proofs() -> None:
    keys = keys_of(SHA_256, salted_password(SHA_256, "pencil", b64decode(SALT), 4096))
    other = keys_of(SHA_256, salted_password(SHA_256, "pencils", b64decode(SALT), 4096))
    assert not proof_holds(SHA_256, other.stored_key, AUTH_MESSAGE, PROOF)
    assert not proof_holds(SHA_256, keys.stored_key, AUTH_MESSAGE + b"x", PROOF)
    for proof in (b"", PROOF[:-1], PROOF + b"\0", bytes(32)):
        assert not proof_holds(SHA_256, keys.stored_key, AUTH_MESSAGE, proof)
