"""JAAS lines as manuals print them, and as they are mistyped."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kavka.config import properties
from kavka.config.jaas import JaasEntry, JaasError, parse, parse_one

PLAIN = "org.apache.kafka.common.security.plain.PlainLoginModule"


def test_the_manuals_block_with_its_continuation_lines() -> None:
    text = (
        "sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \\\n"
        'username="**********" \\\n'
        'password="**********";\n'
        "sasl.mechanism=PLAIN\n"
    )
    values = {entry.name: entry.value for entry in properties.parse(text)}
    entry = parse_one(values["sasl.jaas.config"])
    assert entry == JaasEntry(PLAIN, "required", {"username": "*" * 10, "password": "*" * 10})


def test_users_of_a_broker() -> None:
    entry = parse_one(
        f'{PLAIN} Required username="admin" password="a" user_admin="a" "user_a b"="x y";'
    )
    assert entry.flag == "required"
    assert entry.users == {"admin": "a", "a b": "x y"}


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ('"a\\"b"', 'a"b'),
        ("'a\"b'", 'a"b'),
        ('"a\\\\b"', "a\\b"),
        ('"tab\\there"', "tab\there"),
        ('"\\101\\60\\7"', "A0\a"),
        ('"a;b=c,d"', "a;b=c,d"),
        ('"// no comment"', "// no comment"),
        ('""', ""),
        ("bare-word_1.x$", "bare-word_1.x$"),
        ("true", "true"),
        ('"päss"', "päss"),
    ],
)
def test_values(written: str, value: str) -> None:
    assert parse_one(f"m required k={written};").options == {"k": value}


def test_comments_and_blanks_are_skipped() -> None:
    entry = parse_one("// first\n m /* the\nflag */ required\n\t k = v // last\n;\n")
    assert entry == JaasEntry("m", "required", {"k": "v"})


def test_the_last_of_two_options_counts() -> None:
    assert parse_one("m required k=a k=b;").options == {"k": "b"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must name a login module"),
        ("   // nothing", "must name a login module"),
        ("; m required;", "login module is expected"),
        ("m", "must be followed by required"),
        ("m maybe k=v;", "must be followed by required"),
        ("m required k=v", "semicolon"),
        ("m required k v;", 'option k of a JAAS entry must be written as name="value"'),
        ("m required k=;", "option k"),
        ("m required k", "option k"),
        ("m required =v;", "an option"),
        ('m required k="v;', "quote"),
        ('m required k="v\n";', "quote"),
        ("m required; n required;", "2 login modules"),
    ],
)
def test_what_is_wrong_is_said(text: str, message: str) -> None:
    with pytest.raises(JaasError, match=message):
        parse_one(text)


def test_errors_and_texts_for_logs_hold_no_values() -> None:
    entry = parse_one('m required password="s3cret" user_a="s3cret";')
    assert "s3cret" not in repr(entry)
    for text in (
        'm required password="s3cret"',
        'm required password="s3cret',
        "m required a s3cret;",
    ):
        with pytest.raises(JaasError) as error:
            parse_one(text)
        assert "s3cret" not in str(error.value)


@given(st.dictionaries(st.from_regex(r"[a-z_]{1,8}", fullmatch=True), st.text()))
def test_every_value_can_be_written(options: dict[str, str]) -> None:
    escapes = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r"}
    written = "".join(
        f' {name}="{"".join(escapes.get(char, char) for char in value)}"'
        for name, value in options.items()
    )
    assert parse_one(f"m required{written};").options == options


@given(st.text(alphabet=st.characters(max_codepoint=0x17F)))
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(JaasError):
        parse(text)
