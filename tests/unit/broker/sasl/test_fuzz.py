"""Whatever comes: no crash, nobody let in without the password, no way out of a failure."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from kavka.broker.security.sasl import oauthbearer
from kavka.broker.security.sasl.exchange import (
    Exchange,
    OutOfPlace,
    State,
    UnsupportedMechanism,
)
from kavka.broker.security.sasl.jwt import Bearer, TokenError
from kavka.broker.security.sasl.mechanism import AuthenticationFailed, Identity, Reply, Work
from kavka.protocol.headers import encode_request
from kavka.protocol.messages.k17_sasl_handshake import SaslHandshakeRequest
from kavka.protocol.messages.k36_sasl_authenticate import SaslAuthenticateRequest
from tests.unit.broker.sasl.harness import Talk, plain_client, scram_client

MECHANISMS = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER", "GSSAPI", ""]


def no_token(text: str) -> Bearer:
    raise TokenError("none is accepted")


def pieces(*texts: bytes) -> st.SearchStrategy[bytes]:
    """Messages made of what messages are made of."""
    piece = st.one_of(st.sampled_from(texts), st.binary(max_size=6))
    return st.lists(piece, max_size=12).map(b"".join)


PLAIN_TOKENS = pieces(b"\0", b"bob", b"alice", b"nobody", b"wrong", b"\xff")
SCRAM_TOKENS = pieces(
    *(b"n,", b",", b"n=bob", b"n=nobody", b"r=", b"abc", b"server-nonce-1", b"c=biws", b"p="),
    *(b"AAAA", b"=2C", b"a=bob", b"tokenauth=true", b"i=4096", b"m=", b"y,", b"p=tls-unique"),
)
OAUTH_TOKENS = pieces(
    *(b"n,", b",", b"\x01", b"auth=", b"Bearer ", b"e30.e30.", b"a=bob", b"host=x", b"=2C"),
)
TOKENS = st.one_of(PLAIN_TOKENS, SCRAM_TOKENS, OAUTH_TOKENS, st.binary(max_size=80))


def request(
    number: int, message: SaslHandshakeRequest | SaslAuthenticateRequest, version: int
) -> bytes:
    key = message.API_KEY
    assert key is not None
    return encode_request(key, version, number, "fuzz", message)[4:]


FRAMES = st.one_of(
    st.builds(
        lambda mechanism, version: request(1, SaslHandshakeRequest(mechanism=mechanism), version),
        st.sampled_from(MECHANISMS),
        st.integers(0, 1),
    ),
    st.builds(
        lambda token, version: request(2, SaslAuthenticateRequest(auth_bytes=token), version),
        TOKENS,
        st.integers(0, 2),
    ),
    st.binary(max_size=64),
    st.builds(
        lambda head, tail: head + tail,
        st.sampled_from([b"\0\x12\0\0", b"\0\x12\0\x03", b"\0\x24\0\x01", b"\0\x03\0\x01"]),
        st.binary(max_size=40),
    ),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(FRAMES, max_size=8))
def test_fuzzed_frames_let_nobody_in(frames: list[bytes]) -> None:
    talk = fuzzed_talk()
    for frame in frames:
        talk.frame(frame)
        talk.settled()
        if talk.connection.closed:
            break
    assert not talk.let_in
    assert not talk.dispatcher.served


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(MECHANISMS[:4]), st.integers(0, 1), st.lists(TOKENS, min_size=1, max_size=4))
def test_fuzzed_tokens_let_nobody_in(mechanism: str, version: int, tokens: list[bytes]) -> None:
    talk = fuzzed_talk()
    talk.handshake(mechanism, version)
    for token in tokens:
        if version:
            talk.token(token)
        else:
            talk.raw(token)
        if talk.connection.closed:
            break
    assert not talk.let_in


def fuzzed_talk() -> Talk:
    talk = Talk()
    talk.gate._exchange._mechanisms["OAUTHBEARER"] = lambda: oauthbearer.OAuthBearerMechanism(  # type: ignore[index]
        no_token
    )
    return talk


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["SCRAM-SHA-256", "SCRAM-SHA-512"]), st.data())
def test_a_changed_byte_of_a_good_scram_login_is_no_login(
    mechanism: str, data: st.DataObject
) -> None:
    talk = Talk()
    client = scram_client(mechanism, "bob", "bob's")
    talk.handshake(mechanism)
    answer = talk.token(client.first())
    final = client.next(answer.auth_bytes)
    assert final is not None
    place = data.draw(st.integers(0, len(final) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda b: b != final[place]))
    # Base 64 has spare bits, and old librdkafka's nonce is forgiven only if the proof covers it.
    talk.token(final[:place] + bytes([byte]) + final[place + 1 :])
    assert not talk.let_in and talk.connection.closed


@settings(max_examples=60, deadline=None)
@given(
    st.one_of(st.sampled_from(["alice", "dora", "bob", "carol@x"]), st.text(min_size=1)),
    st.one_of(st.sampled_from(["alice's", "d", "bob's", "carol's"]), st.text(min_size=1)),
)
def test_only_the_password_lets_in(user: str, password: str) -> None:
    talk = Talk(listed={"dora": "d"})
    talk.log_in("PLAIN", plain_client(user, password))
    right = {"alice": "alice's", "dora": "d", "bob": "bob's", "carol@x": "carol's"}
    assert talk.let_in == (right.get(user) == password)


class ExchangeMachine(RuleBasedStateMachine):
    """The exchange against a model: who is in, and which steps are in place."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = 0
        self.exchange = Exchange({"TWO": lambda: TwoSteps(self)})
        self.versions = False
        self.chosen = False
        self.failed = False

    @rule()
    def ask_versions(self) -> None:
        in_place = not (self.versions or self.chosen or self.failed)
        try:
            self.exchange.versions_told()
        except OutOfPlace:
            assert not in_place
            self.failed = True
        else:
            assert in_place
            self.versions = True

    @rule(mechanism=st.sampled_from(["TWO", "OTHER"]), version=st.integers(0, 1))
    def shake_hands(self, mechanism: str, version: int) -> None:
        in_place = not (self.chosen or self.failed)
        try:
            self.exchange.handshake(mechanism, version)
        except OutOfPlace:
            assert not in_place
            self.failed = True
        except UnsupportedMechanism:
            assert in_place and mechanism == "OTHER"
            self.failed = True
        else:
            assert in_place and mechanism == "TWO"
            self.chosen = True

    @precondition(lambda self: self.steps < 2)
    @rule(good=st.booleans())
    def send_token(self, good: bool) -> None:
        in_place = self.chosen and not self.failed
        try:
            step = self.exchange.token(b"good" if good else b"bad")
        except OutOfPlace:
            assert not in_place
            self.failed = True
        except AuthenticationFailed:
            assert in_place and not good
            self.failed = True
        else:
            assert in_place and good
            if isinstance(step, Work):
                step = self.exchange.work_done(step, step.compute())
            self.exchange.take(step)

    @invariant()
    def the_state_is_the_models(self) -> None:
        if self.failed:
            assert self.exchange.state is State.FAILED
        elif self.steps == 2:
            assert self.exchange.state is State.COMPLETE
            assert self.exchange.session is not None
        else:
            assert self.exchange.session is None
            assert self.exchange.state not in (State.COMPLETE, State.FAILED)


class TwoSteps:
    """A mechanism that wants two good tokens, the second with work for a thread."""

    def __init__(self, machine: ExchangeMachine) -> None:
        self._machine = machine

    def respond(self, token: bytes) -> Reply | Work:
        if token != b"good":
            raise AuthenticationFailed("bad")
        self._machine.steps += 1
        if self._machine.steps < 2:
            return Reply(b"more")
        return Work(lambda: "somebody", lambda name: Reply(b"", Identity(name)))


TestExchange = ExchangeMachine.TestCase
TestExchange.settings = settings(max_examples=60, stateful_step_count=12, deadline=None)
