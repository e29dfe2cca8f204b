"""The product's rule for passwords, row by row."""

import pytest

from kavka.broker.security.password_rules import problem


@pytest.mark.parametrize(
    "password",
    [
        "Tr0ub4dor&3x",
        "aB3!aC4?",
        "correct horse Battery",
        "x" * 10 + "Y1" + "z" * 3 + "QqWw9",
        "9f_K2-pLq",
    ],
)
def test_good_ones(password: str) -> None:
    assert problem(password, "alice") is None


@pytest.mark.parametrize(
    ("password", "reason"),
    [
        ("aB3!aC4", "8 to 32"),
        ("aB3!" * 8 + "x", "8 to 32"),
        ("", "8 to 32"),
        ("-aB3!aC4?", "hyphen"),
        ("abcdefgh12", "3 of these kinds"),
        ("ABCDEFGH!!", "3 of these kinds"),
        ("1234567890", "3 of these kinds"),
        ("aB3!aC4?é", "only have"),
        ("aB3!aC4?\t", "only have"),
        ("Password1!", "weak"),
        ("P@ssw0rd!", "weak"),
        ("Admin@123", "weak"),
        ("Kafka@2026", "weak"),
        ("Qwerty123!", "weak"),
        ("1234567Aa!", "weak"),
        ("aaaaaaaA1!", "different"),
        ("xAlice99!z", "user's name"),
        ("xeciLa99!z", "user's name"),
    ],
)
def test_bad_ones(password: str, reason: str) -> None:
    found = problem(password, "alice")
    assert found is not None and reason in found


def test_names_of_two_letters_are_nobodys() -> None:
    assert problem("9f_K2-pLq", "9f") is None
