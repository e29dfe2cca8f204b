"""PLAIN and SCRAM by themselves, and that nobody learns who exists."""

from collections.abc import Callable

import pytest

from kavka.broker.security.sasl.mechanism import AuthenticationFailed, Reply, Work
from kavka.broker.security.sasl.plain import PlainMechanism
from kavka.broker.security.sasl.scram_server import ScramServer
from kavka.broker.security.users import Users
from kavka.protocol.sasl import scram
from kavka.protocol.sasl.scram import ScramMechanism
from tests.unit.broker.sasl.harness import SECRET, some_users

SHA_256 = ScramMechanism.SHA_256

# RFC 7677
CLIENT_FIRST = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO"
SERVER_FIRST = (
    b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
)
CLIENT_FINAL = (
    b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
    b"p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
)
SERVER_FINAL = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="


def server(
    users: Users | None = None, nonce: Callable[[], str] = lambda: "-from-server"
) -> ScramServer:
    return ScramServer(SHA_256, users or some_users(), lambda: None, nonce)


def replied(step: Reply | Work) -> Reply:
    assert isinstance(step, Reply)
    return step


def rfc_users() -> Users:
    users = Users(SECRET)
    salt = scram.decode("W22ZaJ0SNY7soEsUEjb6gQ==")
    credential = scram.credential_of(SHA_256, "pencil", salt, 4096)
    users.entity_changed("user", {"SCRAM-SHA-256": scram.render_credential(credential)})
    return users


def rfc_server() -> ScramServer:
    return server(rfc_users(), lambda: "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0")


def test_the_exchange_of_rfc_7677() -> None:
    exchange = rfc_server()
    assert replied(exchange.respond(CLIENT_FIRST)) == Reply(SERVER_FIRST)
    last = replied(exchange.respond(CLIENT_FINAL))
    assert last.token == SERVER_FINAL
    assert last.identity is not None and last.identity.name == "user"
    with pytest.raises(AuthenticationFailed):
        exchange.respond(CLIENT_FINAL)


@pytest.mark.parametrize(
    "final",
    [
        CLIENT_FINAL.replace(b"p=dH", b"p=dI"),
        CLIENT_FINAL.replace(b"biws", b"eSws"),  # "y,,": as if there had been channel binding
        CLIENT_FINAL.replace(b"k0,p", b"k1,p"),
        CLIENT_FINAL.replace(b"%hv", b"%hw"),
        CLIENT_FINAL.replace(b"r=rO", b"r=sO"),
        CLIENT_FINAL + b"=",
        CLIENT_FINAL.partition(b",p=")[0],
        CLIENT_FINAL.partition(b",p=")[0] + b",p=",
        b"",
        b"\x01",
        CLIENT_FIRST,
    ],
)
def test_one_try_with_anything_else_fails(final: bytes) -> None:
    exchange = rfc_server()
    exchange.respond(CLIENT_FIRST)
    with pytest.raises(AuthenticationFailed) as failed:
        exchange.respond(final)
    assert failed.value.told is None
    with pytest.raises(AuthenticationFailed):
        exchange.respond(CLIENT_FINAL)


@pytest.mark.parametrize(
    ("first", "reason"),
    [
        (b"p=tls-unique,,n=bob,r=abc", "channel binding"),
        (b"y,,n=bob,r=abc", "channel binding"),
        (b"n,b=x,n=bob,r=abc", "GS2"),
        (b"n,n=bob,r=abc", "GS2"),
        (b"n,a=,n=bob,r=abc", "authorization id"),
        (b"n,,m=ext,n=bob,r=abc", "user and nonce"),
        (b"n,,r=abc,n=bob", "user and nonce"),
        (b"n,,n=bob", "user and nonce"),
        (b"n,,n=,r=abc", "user name"),
        (b"n,,n=b=ob,r=abc", "not escaped"),
        (b"n,,n=bob,r=", "nonce"),
        (b"n,,n=bob,r=a\xc3\xa9", "nonce"),
        (b"n,,n=bob,r=abc,x", "extension"),
        (b"n,,n=bob,r=abc,tokenauth=true,tokenauth=false", "extension"),
        (b"n,,n=bob\xff,r=abc", "UTF-8"),
        (b"", "GS2"),
    ],
)
def test_first_messages_that_are_none(first: bytes, reason: str) -> None:
    with pytest.raises(AuthenticationFailed, match=reason):
        server().respond(first)


def test_acting_for_somebody_else() -> None:
    assert replied(server().respond(b"n,a=bob,n=bob,r=abc")).token.startswith(b"r=abc-from-server")
    with pytest.raises(AuthenticationFailed) as failed:
        server().respond(b"n,a=alice,n=bob,r=abc")
    assert failed.value.told is not None and "authorization id" in failed.value.told


def test_names_are_unescaped() -> None:
    users = Users(SECRET)
    odd = "b=o,b é"
    credential = scram.credential_of(SHA_256, "x", b"odd salt", 4096)
    users.entity_changed(
        "b%3Do%2Cb%20%C3%A9", {"SCRAM-SHA-256": scram.render_credential(credential)}
    )
    assert list(users) == [odd]
    first = f"n,,n={scram.escape_name(odd)},r=abc".encode()
    assert scram.encode(b"odd salt").encode() in replied(server(users).respond(first)).token


def test_the_doubled_nonce_of_old_librdkafka() -> None:
    """Before 2.6.1 it puts its own nonce in front of the whole one; Kafka minds the end alone."""
    users = rfc_users()
    exchange = server(users, lambda: "SERVER")
    offer = replied(exchange.respond(b"n,,n=user,r=CLIENT")).token.decode()
    without_proof = "c=biws,r=CLIENTCLIENTSERVER"
    message = f"n=user,r=CLIENT,{offer},{without_proof}".encode()
    salted = scram.salted_password(
        SHA_256, "pencil", scram.decode("W22ZaJ0SNY7soEsUEjb6gQ=="), 4096
    )
    proof = scram.encode(scram.client_proof(SHA_256, salted, message))
    last = replied(exchange.respond(f"{without_proof},p={proof}".encode()))
    assert last.identity is not None


def test_too_few_stored_iterations() -> None:
    users = Users(SECRET)
    weak = scram.credential_of(SHA_256, "x", b"salt", 1000)
    users.entity_changed("bob", {"SCRAM-SHA-256": scram.render_credential(weak)})
    with pytest.raises(AuthenticationFailed, match="iterations"):
        server(users).respond(b"n,,n=bob,r=abc")


# -- nobody learns who exists -------------------------------------------------------------------


def test_unknown_users_look_like_known_ones() -> None:
    def offered(name: str) -> tuple[str, int, str]:
        token = replied(server().respond(f"n,,n={name},r=abc".encode())).token
        first = scram.parse_server_first(token)
        return first.nonce, first.iterations, first.salt.decode()

    known, unknown = offered("bob"), offered("nobody")
    assert known[:2] == unknown[:2]
    assert offered("nobody") == unknown, "the salt of a name never changes"
    assert offered("nobody2")[2] != unknown[2]
    assert len(unknown[2]) in range(20, 27) and unknown[2].isalnum()


def test_unknown_users_fail_where_wrong_passwords_do() -> None:
    for name in ("bob", "nobody"):
        exchange = server()
        exchange.respond(f"n,,n={name},r=abc".encode())
        proof = scram.encode(bytes(32))
        with pytest.raises(AuthenticationFailed) as failed:
            exchange.respond(f"c=biws,r=abc-from-server,p={proof}".encode())
        assert failed.value.told is None


def test_no_password_fits_a_decoy() -> None:
    users = some_users()
    decoy = users.decoy("nobody", SHA_256)
    assert not scram.password_fits(SHA_256, decoy, "")
    assert users.decoy("nobody", ScramMechanism.SHA_512).stored_key != decoy.stored_key
    assert Users(bytes(32)).decoy("nobody", SHA_256) != decoy


def test_a_decoy_has_the_usual_iterations() -> None:
    users = Users(SECRET)
    assert users.decoy("x", SHA_256).iterations == 4096
    for name in ("a", "b"):
        many = scram.credential_of(SHA_256, "x", b"salt", 8192)
        users.entity_changed(name, {"SCRAM-SHA-256": scram.render_credential(many)})
    assert users.decoy("x", SHA_256).iterations == 8192
    for name in ("a", "b"):
        users.entity_changed(name, {})
    assert users.decoy("x", SHA_256).iterations == 4096


def test_plain_works_as_hard_for_nobody() -> None:
    users = some_users()
    for name in (b"carol@x", b"nobody"):
        step = PlainMechanism({}, users).respond(b"\0" + name + b"\0wrong")
        assert isinstance(step, Work)
        assert step.compute() == [False]
        with pytest.raises(AuthenticationFailed):
            step.then([False])


def test_plain_without_the_users_of_the_store() -> None:
    for token in (b"\0bob\0bob's", b"\0nobody\0x"):
        with pytest.raises(AuthenticationFailed) as failed:
            PlainMechanism({"alice": "x"}, None).respond(token)
        assert failed.value.told == "Authentication failed: Invalid username or password"


def test_a_user_of_the_jaas_line_comes_before_one_of_the_store() -> None:
    with pytest.raises(AuthenticationFailed):
        PlainMechanism({"bob": "listed"}, some_users()).respond(b"\0bob\0bob's")
    assert replied(PlainMechanism({"bob": "listed"}, some_users()).respond(b"\0bob\0listed"))


def test_any_of_a_users_passwords_is_right() -> None:
    """Somebody may have set only one mechanism's anew."""
    users = Users(SECRET)
    credentials = {
        mechanism.sasl_name: scram.render_credential(
            scram.credential_of(mechanism, mechanism.value, b"salt", 4096)
        )
        for mechanism in ScramMechanism
    }
    users.entity_changed("bob", credentials)
    for password, fits in ((b"sha256", True), (b"sha512", True), (b"sha1", False)):
        step = PlainMechanism({}, users).respond(b"\0bob\0" + password)
        assert isinstance(step, Work)
        assert any(step.compute()) == fits


def test_a_password_that_is_replaced_while_it_is_checked_is_not_remembered() -> None:
    users = some_users()
    step = PlainMechanism({}, users).respond(b"\0bob\0bob's")
    assert isinstance(step, Work)
    result = step.compute()
    new = scram.credential_of(SHA_256, "new", b"salt", 4096)
    users.entity_changed("bob", {"SCRAM-SHA-256": scram.render_credential(new)})
    step.then(result)
    assert not users.remembers("bob", "bob's")
