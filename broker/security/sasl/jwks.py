"""The public keys that tokens are checked with: a JWKS document, read anew from time to time."""

import asyncio
import logging
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit

from kavka.broker.security.sasl.jwt import Key, KeysError, parse_keys

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from kavka.storage.clock import Clock

log = logging.getLogger("kavka.security")

_DOCUMENT_BYTES_MAX: Final = 1 << 20
_FETCH_SECONDS: Final = 10.0


class KeySet:
    """The keys of one document. ``keys`` are those of the last time it could be read."""

    def __init__(self, url: str, refresh: float, least_interval: float, clock: "Clock") -> None:
        """``refresh``: seconds between two readings; ``least_interval``: those after which a
        token with an unknown key may bring about one more. Raises KeysError."""
        self.keys: list[Key] = []
        self._url = url
        self._refresh = refresh
        self._least_interval = least_interval
        self._clock = clock
        self._read_at = float("-inf")
        self._reading: asyncio.Future[list[Key]] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._executor: Executor | None = None

    def load(self) -> None:
        """Read for the first time. *Blocks*. Raises KeysError."""
        self.keys = _read(self._url)
        self._read_at = self._clock.monotonic()

    def start(self, executor: "Executor") -> None:
        """Read anew from time to time, from now on."""
        self._executor = executor
        self._schedule()

    def stop(self) -> None:
        """Read no more."""
        self._executor = None
        if self._timer is not None:
            self._timer.cancel()

    def look_again(self) -> None:
        """Read soon, unless that was just done: a token names a key that is not known."""
        if self._clock.monotonic() - self._read_at >= self._least_interval:
            self._begin()

    def _schedule(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._refresh, self._on_timer)

    def _on_timer(self) -> None:
        self._schedule()
        self._begin()

    def _begin(self) -> None:
        if self._executor is None or self._reading is not None:
            return
        loop = asyncio.get_running_loop()
        self._read_at = self._clock.monotonic()
        self._reading = loop.run_in_executor(self._executor, _read, self._url)
        self._reading.add_done_callback(self._read)

    def _read(self, reading: "asyncio.Future[list[Key]]") -> None:
        self._reading = None
        if reading.cancelled():
            return
        try:
            self.keys = reading.result()
        except KeysError as error:
            log.warning("The keys of tokens stay those of before: %s", error)


def _read(url: str) -> list[Key]:
    try:
        return parse_keys(_fetch(url))
    except KeysError as error:
        raise KeysError(f"sasl.oauthbearer.jwks.endpoint.url {url}: {error}") from None


def _fetch(url: str) -> bytes:
    parts = urlsplit(url)
    try:
        if parts.scheme == "file":
            with open(unquote(parts.path), "rb") as file:
                document = file.read(_DOCUMENT_BYTES_MAX + 1)
        elif parts.scheme == "https":
            from urllib.request import urlopen

            with urlopen(url, timeout=_FETCH_SECONDS) as answer:
                document = answer.read(_DOCUMENT_BYTES_MAX + 1)
        else:
            raise KeysError("it must begin with file:// or https://")
    except OSError as error:
        raise KeysError(f"it cannot be read: {error.strerror or error}") from None
    if len(document) > _DOCUMENT_BYTES_MAX:
        raise KeysError("it is larger than a set of keys can be")
    return bytes(document)
