"""Cipher suites and TLS versions: Java's (IANA's) names and what OpenSSL calls them."""

import ssl
from collections.abc import Sequence
from typing import Final

from kavka.config.option import ConfigError

VERSIONS: Final = {"TLSv1.2": ssl.TLSVersion.TLSv1_2, "TLSv1.3": ssl.TLSVersion.TLSv1_3}
OLD_VERSIONS: Final = ("SSLv2Hello", "SSLv3", "TLSv1", "TLSv1.1")

_BULK: Final = {
    "AES_128_GCM_SHA256": "AES128-GCM-SHA256",
    "AES_256_GCM_SHA384": "AES256-GCM-SHA384",
    "AES_128_CCM": "AES128-CCM",
    "AES_256_CCM": "AES256-CCM",
    "AES_128_CCM_8": "AES128-CCM8",
    "AES_256_CCM_8": "AES256-CCM8",
    "AES_128_CBC_SHA256": "AES128-SHA256",
    "AES_256_CBC_SHA384": "AES256-SHA384",
    "AES_256_CBC_SHA256": "AES256-SHA256",
    "AES_128_CBC_SHA": "AES128-SHA",
    "AES_256_CBC_SHA": "AES256-SHA",
    "CHACHA20_POLY1305_SHA256": "CHACHA20-POLY1305",
}
_EXCHANGES: Final = {
    "ECDHE_ECDSA": "ECDHE-ECDSA-",
    "ECDHE_RSA": "ECDHE-RSA-",
    "RSA": "",
}

TLS13: Final = (
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
    "TLS_AES_128_GCM_SHA256",
)
"""The suites of TLS 1.3. Python can have all of them or, without TLS 1.3, none."""

STRICT: Final = (
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES128-SHA256",
    "ECDHE-RSA-AES128-SHA256",
)
"""The suites of the strict profile, with TLS 1.2 alone. The one with GCM comes first, as the only
one of them that Go offers unasked."""

DEFAULT: Final = (
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-CHACHA20-POLY1305",
    "ECDHE-ECDSA-AES128-SHA256",
    "ECDHE-RSA-AES128-SHA256",
    "ECDHE-ECDSA-AES256-SHA384",
    "ECDHE-RSA-AES256-SHA384",
)
"""The suites of TLS 1.2 without a setting: forward secrecy, no SHA-1."""


def _table() -> dict[str, str]:
    known = {suite["name"] for suite in _all_suites()}
    table = {}
    for exchange, prefix in _EXCHANGES.items():
        for bulk, name in _BULK.items():
            if prefix + name in known:
                table[f"TLS_{exchange}_WITH_{bulk}"] = prefix + name
    return table


def _all_suites() -> list[dict[str, object]]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("ALL:@SECLEVEL=0")
    suites: list[dict[str, object]] = context.get_ciphers()  # type: ignore[assignment]
    return suites


def openssl_names(suites: Sequence[str]) -> tuple[list[str], list[str]]:
    """OpenSSL's names of the suites for TLS 1.2, and those given for TLS 1.3.

    Java's names and OpenSSL's own are taken. Raises ConfigError for one that is unknown.
    """
    table = _table()
    own = set(table.values())
    old: list[str] = []
    new: list[str] = []
    for suite in suites:
        name = suite.strip()
        if name.startswith("SSL_"):  # as IBM's Java writes it
            name = f"TLS_{name[4:]}"
        if name in TLS13:
            new.append(name)
        elif name in table:
            old.append(table[name])
        elif name in own:
            old.append(name)
        elif name not in ("TLS_EMPTY_RENEGOTIATION_INFO_SCSV", ""):
            raise ConfigError(
                "ssl.cipher.suites",
                f"ssl.cipher.suites names {suite}, which is unknown here or unsafe: known are "
                f"{', '.join((*TLS13, *table))}",
            )
    return old, new
