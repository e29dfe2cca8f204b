"""Which passwords are good enough for the users, stores and consoles of an instance.

The rule of the managed product: 8 to 32 characters of at least three of four kinds, no hyphen in
front, and none that everybody tries first.
"""

from itertools import pairwise
from typing import Final

LENGTH_MIN: Final = 8
LENGTH_MAX: Final = 32
KINDS_MIN: Final = 3
SPECIAL: Final = frozenset("`~!@#$%^&*()-_=+\\|[{}]:'\",<.>/? ;")

# Words that most weak passwords are made of, with letters undisguised; digits and signs around
# them do not help.
_WORDS: Final = (
    *("password", "passwort", "passwd", "admin", "administrator", "root", "welcome", "letmein"),
    *("qwerty", "qwertz", "qazwsx", "asdf", "zxcv", "iloveyou", "monkey", "dragon", "sunshine"),
    *("princess", "football", "baseball", "master", "shadow", "superman", "batman", "trustno"),
    *("changeme", "default", "guest", "test", "user", "login", "secret", "hello", "kafka"),
    *("kavka", "huawei", "zookeeper", "broker", "summer", "winter", "spring", "autumn", "abc"),
)
_DISGUISES: Final = str.maketrans("@4301!5$7", "aaeoiisst")
_OWN_CHARACTERS_MIN: Final = 6
_RUN: Final = 5


def problem(password: str, name: str = "") -> str | None:
    """What keeps a password of the user ``name`` from being accepted; None if nothing does."""
    if not LENGTH_MIN <= len(password) <= LENGTH_MAX:
        return f"it must have {LENGTH_MIN} to {LENGTH_MAX} characters"
    if password.startswith("-"):
        return "it must not begin with a hyphen"
    kinds = [
        any("A" <= char <= "Z" for char in password),
        any("a" <= char <= "z" for char in password),
        any("0" <= char <= "9" for char in password),
        any(char in SPECIAL for char in password),
    ]
    if not all(char.isascii() and (char.isalnum() or char in SPECIAL) for char in password):
        return "it may only have letters, digits, blanks and " + "".join(sorted(SPECIAL - {" "}))
    if sum(kinds) < KINDS_MIN:
        return (
            f"it must have {KINDS_MIN} of these kinds of characters: capital letters, small "
            "letters, digits, others"
        )
    return _weakness(password, name)


def _weakness(password: str, name: str) -> str | None:
    lowered = password.lower()
    if name and len(name) > 2 and (name.lower() in lowered or name.lower()[::-1] in lowered):
        return "it contains the user's name, or that backwards"
    if len(set(lowered)) < _OWN_CHARACTERS_MIN - 1:
        return "it has hardly any different characters"
    plain = lowered.translate(_DISGUISES)
    for word in _WORDS:
        if word in lowered or word in plain:
            rest = len(password) - len(word)
            if rest < _OWN_CHARACTERS_MIN:
                return f"it is weak: little more than the word {word!r}"
    if _longest_run(lowered) >= _RUN and len(password) - _longest_run(lowered) < 4:
        return "it is weak: little more than characters in their order"
    return None


def _longest_run(text: str) -> int:
    """Length of the longest part like 12345, 54321 or aaaaa."""
    longest = 1
    for step in (-1, 0, 1):
        length = 1
        for before, char in pairwise(text):
            length = length + 1 if ord(char) - ord(before) == step else 1
            longest = max(longest, length)
    return longest
