"""Java's properties files."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kavka.config.properties import PropertiesError, Property, decode, parse, render


def entries(text: str) -> dict[str, str]:
    return {p.name: p.value for p in parse(text)}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a=b", {"a": "b"}),
        ("a:b", {"a": "b"}),
        ("a b", {"a": "b"}),
        ("  a \t = \f b ", {"a": "b "}),
        ("a==b", {"a": "=b"}),
        ("a", {"a": ""}),
        ("a=", {"a": ""}),
        ("=b", {"": "b"}),
        ("# a=b\n! c=d\n\n \t\n", {}),
        ("a=1\r\nb=2\rc=3\n", {"a": "1", "b": "2", "c": "3"}),
        ("a=1\na=2", {"a": "2"}),
        ("a=x,\\\n    y,\\\r\n\tz", {"a": "x,y,z"}),
        ("a=x\\\\\nb=1", {"a": "x\\", "b": "1"}),
        ("a=x\\\n# no comment", {"a": "x# no comment"}),
        ("# comment\\\na=1", {"a": "1"}),
        ("a\\=b\\:c\\ d=e", {"a=b:c d": "e"}),
        ("a=\\t\\n\\r\\f\\q\\\\", {"a": "\t\n\r\fq\\"}),
        ("a=\\u0041\\u00e9", {"a": "Aé"}),
        ("a=\\ud83d\\ude00", {"a": "😀"}),
        ("a=x\\", {"a": "x"}),
        ("\\\n#a=1\nb=2", {"b": "2"}),
        (
            "listeners=PLAINTEXT://:9092,SSL://:9093",
            {"listeners": "PLAINTEXT://:9092,SSL://:9093"},
        ),
    ],
)
def test_reading(text: str, expected: dict[str, str]) -> None:
    assert entries(text) == expected


def test_entries_know_the_line_they_begin_on() -> None:
    assert parse("# x\n\na=1,\\\n2\nb=3") == [Property("a", "1,2", 3), Property("b", "3", 5)]


@pytest.mark.parametrize("text", ["a=\\u12", "a=\\u00g0", "\\u=1"])
def test_a_broken_escape_names_its_line(text: str) -> None:
    with pytest.raises(PropertiesError, match=r"^line 2: Malformed"):
        parse("# first\n" + text)


def test_files_may_be_utf8_or_latin1() -> None:
    assert decode("a=é".encode()) == "a=é"
    assert decode(b"\xef\xbb\xbfa=1") == "a=1"
    assert decode("a=é".encode("latin-1")) == "a=é"


def test_writing_escapes_what_reading_would_change() -> None:
    assert render({"a b": " c d=e#!é"}) == "a\\ b=\\ c d\\=e\\#\\!\\u00E9\n"
    assert render([("x", "😀")]) == "x=\\uD83D\\uDE00\n"


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@settings(deadline=None)
@given(st.dictionaries(texts, texts, max_size=5))
def test_what_is_written_reads_back(properties: dict[str, str]) -> None:
    written = render(properties)
    assert written.isascii()
    assert entries(written) == properties
