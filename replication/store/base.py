"""What the broker and the controller need of a metadata store: ZooKeeper's semantics.

Two stores have them: ``local.py`` (SQLite, for one broker) and a ZooKeeper client (for clusters).
The callers cannot tell them apart, so everything that ZooKeeper does not promise is not
promised here either:

* A tree of nodes named by absolute paths; every node has data and a ``Stat``.
* Operations take effect in the order in which they are called, and that is when they are sent:
  every method returns a future, so a caller that needs a thousand nodes asks for all of them
  first and awaits afterwards.
* Writes may be conditional on the node's version; ``multi`` is all or nothing.
* An operation whose answer is lost with a connection may be done twice: what it then finds
  (``NodeExists``, ``BadVersion``, ``NoNode``) may be its own doing, and callers look before they
  conclude that it is somebody else's.
* An ephemeral node lives as long as the session of its creator, and has no children.
* Watches fire once, for the first change after the read that set them, and a caller sees the
  event before it sees any data written after the event.
"""

from asyncio import Future
from collections.abc import Callable, Sequence
from enum import Enum, IntEnum
from typing import Final, NamedTuple, Protocol

ANY_VERSION: Final = -1


class StoreError(Exception):
    """The store cannot do what was asked; the message says why."""


class NoNode(StoreError):
    """The node (or the parent of a node to be created) does not exist."""


class NodeExists(StoreError):
    """A node to be created exists already."""


class BadVersion(StoreError):
    """The node's version is not the one the caller expects: somebody else has written it."""


class NotEmpty(StoreError):
    """A node to be deleted has children."""


class NoChildrenForEphemerals(StoreError):
    """The parent of a node to be created is ephemeral."""


class SessionExpired(StoreError):
    """The session is over: its ephemeral nodes are gone."""


class StoreClosed(SessionExpired):
    """The store is closed: there will be no other session."""


class StoreUnavailable(StoreError):
    """The store could not be reached or could not write; the outcome may be unknown."""


class MultiFailed(Exception):
    """A ``multi`` that was refused: which operation failed, and with what. Nothing was done."""

    def __init__(self, index: int, error: StoreError) -> None:
        super().__init__(f"operation {index}: {error}")
        self.index = index
        self.error = error


class Stat(NamedTuple):
    """What the store knows of a node beside its data.

    ``czxid`` and ``mzxid`` are the numbers of the transactions that created and last changed it,
    which grow over the life of the store; ``version`` counts changes of the data, ``cversion``
    those of the children. ``ephemeral_owner`` is a session id, 0 for a persistent node.
    """

    czxid: int
    mzxid: int
    ctime_ms: int
    mtime_ms: int
    version: int
    cversion: int
    ephemeral_owner: int
    data_length: int
    num_children: int


class EventType(IntEnum):
    """What a watch saw (ZooKeeper's numbers)."""

    CREATED = 1
    DELETED = 2
    CHANGED = 3
    CHILD = 4


class WatchEvent(NamedTuple):
    """One change, as told to the watches on ``path``."""

    type: EventType
    path: str


class SessionEvent(Enum):
    """A change in the connection to the store.

    After ``SUSPENDED`` nothing can be read or written, but the session may survive
    (``CONNECTED``); after ``EXPIRED`` its ephemeral nodes and all watches are gone and a new
    session has to set up everything again.
    """

    CONNECTED = "connected"
    SUSPENDED = "suspended"
    EXPIRED = "expired"


Watch = Callable[[WatchEvent], None]


class Create(NamedTuple):
    """Create a node, in a ``multi``."""

    path: str
    data: bytes = b""
    ephemeral: bool = False
    sequence: bool = False


class SetData(NamedTuple):
    """Replace a node's data, in a ``multi``."""

    path: str
    data: bytes
    version: int = ANY_VERSION


class Delete(NamedTuple):
    """Delete a node without children, in a ``multi``."""

    path: str
    version: int = ANY_VERSION


class Check(NamedTuple):
    """Fail the ``multi`` unless the node has this version."""

    path: str
    version: int


Operation = Create | SetData | Delete | Check
MultiResult = str | Stat | None
"""What one operation of a ``multi`` gave: the created path, the new stat, or nothing."""


def check_path(path: str, *, sequence: bool = False) -> None:
    """Raise ValueError for a path that no node can have.

    The name of a ``sequence`` node may be empty: it gets digits appended.
    """
    whole = path + "0" if sequence else path
    if not whole.startswith("/") or whole.endswith("/") or "//" in whole or "\0" in whole:
        raise ValueError(f"{path!r} cannot be the path of a node")


class MetadataStore(Protocol):
    """A session with a metadata store. All calls and all callbacks belong to the event loop."""

    @property
    def session_id(self) -> int:
        """Owner of the ephemeral nodes created here."""

    def create(
        self, path: str, data: bytes = b"", *, ephemeral: bool = False, sequence: bool = False
    ) -> Future[str]:
        """Create a node; give its path, with ZooKeeper's ten digits appended for ``sequence``.

        Raises ``NodeExists``, ``NoNode`` (no parent) or ``NoChildrenForEphemerals``.
        """

    def get(self, path: str, watch: Watch | None = None) -> Future[tuple[bytes, Stat]]:
        """Read a node. The watch is set only if it exists, and sees its change or deletion.

        Raises ``NoNode``.
        """

    def set(self, path: str, data: bytes, version: int = ANY_VERSION) -> Future[Stat]:
        """Replace a node's data. Raises ``NoNode`` or ``BadVersion``."""

    def delete(self, path: str, version: int = ANY_VERSION) -> Future[None]:
        """Delete a node. Raises ``NoNode``, ``BadVersion`` or ``NotEmpty``."""

    def exists(self, path: str, watch: Watch | None = None) -> Future[Stat | None]:
        """Look for a node. The watch is set either way, and sees creation, change or deletion."""

    def children(self, path: str, watch: Watch | None = None) -> Future[list[str]]:
        """Names (not paths) of a node's children, in no order that means anything.

        The watch sees a child come or go, or the node's own deletion. Raises ``NoNode``.
        """

    def multi(self, operations: Sequence[Operation]) -> Future[list[MultiResult]]:
        """Do all of the operations or none, each seeing those before it.

        Raises ``MultiFailed``, which names the first one that was impossible.
        """

    def on_session_event(self, callback: Callable[[SessionEvent], None]) -> None:
        """Have changes of the session told to ``callback``, from now on."""

    async def close(self) -> None:
        """End the session; its ephemeral nodes vanish. Operations not yet done are refused."""
