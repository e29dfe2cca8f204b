"""Delegation tokens in the metadata store, as Kafka keeps them (KIP-48).

``/delegation_token/tokens/<id>`` holds owner, renewers and times; every change is announced under
``/delegation_token/token_changes``. The controller removes tokens whose time is over.
"""

import asyncio
import binascii
import contextlib
import json
import logging
from collections.abc import Callable
from typing import Final

from kavka.broker.security.tokens import Principal, Token, Tokens, principal
from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.replication.controller.patience import in_time
from kavka.replication.store.base import (
    Create,
    Delete,
    MetadataStore,
    MultiFailed,
    NodeExists,
    NoNode,
    Operation,
    SetData,
    StoreError,
)
from kavka.replication.store.notifications import Notifications
from kavka.replication.store.outlasting import OutlastingStore
from kavka.replication.znodes import BadNode, desanitize, sanitize
from kavka.storage.clock import Clock

log = logging.getLogger("kavka.security")

ROOT: Final = "/delegation_token"
TOKENS: Final = f"{ROOT}/tokens"
CHANGES: Final = f"{ROOT}/token_changes"
_CHANGE_PREFIX: Final = "token_change_"
_ID_BYTES: Final = 16
_OWN_TOKENS: Final = 1  # version of a body whose requester is the owner
_TOKENS_FOR_OTHERS: Final = 3  # KIP-373


class TokenStore:
    """Reads, follows and changes the tokens; ``tokens`` is the picture of them."""

    def __init__(
        self,
        tokens: Tokens,
        store: MetadataStore,
        clock: Clock,
        random_bytes: Callable[[int], bytes],
        *,
        is_controller: Callable[[], bool],
        check_interval: float,
    ) -> None:
        """``check_interval``: seconds between two looks for tokens whose time is over."""
        self.tokens = tokens
        self._store = OutlastingStore(store)
        self._random_bytes = random_bytes
        self._is_controller = is_controller
        self._check_interval = check_interval
        self._sweeper: asyncio.Task[None] | None = None
        self._changes = Notifications(
            store, clock, CHANGES, _CHANGE_PREFIX, self._on_announced, self._load
        )

    async def start(self) -> None:
        """Create Kafka's paths where they are missing, load all tokens, and follow changes.

        Raises StoreError.
        """
        for path in (ROOT, TOKENS, CHANGES):
            with contextlib.suppress(NodeExists):
                await self._store.create(path)
        await self._changes.start()
        await self._load()
        self._sweeper = asyncio.get_running_loop().create_task(self._sweep())

    async def stop(self) -> None:
        """Follow no changes any more."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            await asyncio.gather(self._sweeper, return_exceptions=True)
        await self._changes.stop()

    async def settled(self) -> None:
        """Until the announcements seen so far have been followed."""
        await self._changes.settled()

    def new_id(self) -> str:
        """An id that no token has had."""
        text = binascii.b2a_base64(self._random_bytes(_ID_BYTES), newline=False).decode()
        return text.rstrip("=").replace("+", "-").replace("/", "_")

    async def put(self, token: Token) -> None:
        """Store a new or changed token. Raises KafkaError."""
        path, body = f"{TOKENS}/{token.token_id}", encode_token(token)
        if not await self._write(SetData(path, body), token.token_id):
            await self._write(Create(path, body), token.token_id)
        self.tokens.replace(token.token_id, token)

    async def remove(self, token: Token) -> None:
        """Remove a token; nobody gets in by it any more. Raises KafkaError."""
        await self._write(Delete(f"{TOKENS}/{token.token_id}"), token.token_id)
        self.tokens.replace(token.token_id, None)
        log.info("delegation token removed token=%s owner=%s", token.token_id, token.owner)

    async def _write(self, operation: Operation, token_id: str) -> bool:
        """Change a node and announce it; False if it is missing, or there already."""
        announcement = self._changes.announcement(token_id.encode())
        try:
            async with in_time():
                await self._store.multi([operation, announcement])
        except MultiFailed as failure:
            if failure.index == 0 and isinstance(failure.error, (NoNode, NodeExists)):
                return False
            raise KafkaError(ErrorCode.UNKNOWN_SERVER_ERROR, str(failure.error)) from failure
        except StoreError as error:
            raise KafkaError(ErrorCode.UNKNOWN_SERVER_ERROR, str(error)) from error
        return True

    # -- following ------------------------------------------------------------------------------

    async def _load(self) -> None:
        known = [token.token_id for token in self.tokens]
        stored = await self._store.children(TOKENS)
        await asyncio.gather(*map(self._refresh, dict.fromkeys((*stored, *known))))

    async def _on_announced(self, path: str, data: bytes) -> None:
        await self._refresh(data.decode("utf-8", "replace"))

    async def _refresh(self, token_id: str) -> None:
        path = f"{TOKENS}/{token_id}"
        try:
            data, _ = await self._store.get(path)
            self.tokens.replace(token_id, decode_token(path, data))
        except NoNode:
            self.tokens.replace(token_id, None)
        except BadNode as error:
            log.error("A delegation token is ignored error=%s", error)
            self.tokens.replace(token_id, None)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(self._check_interval)
            if self._is_controller():
                await self.remove_overdue()

    async def remove_overdue(self) -> None:
        """Remove the tokens whose time is over."""
        for token in self.tokens.overdue():
            try:
                await self.remove(token)
            except KafkaError as error:
                log.warning("An expired token stays for now: %s", error)
                return


# -- bodies -------------------------------------------------------------------------------------


def encode_token(token: Token) -> bytes:
    own = token.requester == token.owner
    body: dict[str, object] = {
        "version": _OWN_TOKENS if own else _TOKENS_FOR_OTHERS,
        "owner": sanitize(str(token.owner)),
        "renewers": [sanitize(str(renewer)) for renewer in token.renewers],
        "issueTimestamp": token.issue_ms,
        "maxTimestamp": token.max_ms,
        "expiryTimestamp": token.expiry_ms,
        "tokenId": token.token_id,
    }
    if not own:
        body["tokenRequester"] = sanitize(str(token.requester))
    return json.dumps(body, separators=(",", ":")).encode()


def decode_token(path: str, data: bytes) -> Token:
    """Raises BadNode."""

    def named(text: str) -> Principal:
        return principal(desanitize(text) or "")

    try:
        body = json.loads(data)
        owner = named(body["owner"])
        return Token(
            str(body["tokenId"]),
            owner,
            named(body["tokenRequester"]) if "tokenRequester" in body else owner,
            tuple(map(named, body["renewers"])),
            int(body["issueTimestamp"]),
            int(body["expiryTimestamp"]),
            int(body["maxTimestamp"]),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise BadNode(f"{path} does not describe a delegation token: {error!r}") from None
