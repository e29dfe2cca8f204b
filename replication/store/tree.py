"""A tree of nodes in a SQLite file: the rules of ZooKeeper's data model, synchronously.

One writer, no threads, no watches of its own: it says which events a change caused, and
``local.py`` tells whom they concern.
"""

import sqlite3
from collections.abc import Sequence
from typing import Final

from kavka.replication.store.base import (
    ANY_VERSION,
    BadVersion,
    Check,
    Create,
    Delete,
    EventType,
    MultiFailed,
    MultiResult,
    NoChildrenForEphemerals,
    NodeExists,
    NoNode,
    NotEmpty,
    Operation,
    SetData,
    Stat,
    StoreError,
    StoreUnavailable,
    WatchEvent,
)

_FORMAT: Final = 1  # of the tables; kept in SQLite's user_version

_SCHEMA: Final = (
    """
CREATE TABLE node (
    path TEXT NOT NULL PRIMARY KEY,
    parent TEXT NOT NULL,
    data BLOB NOT NULL,
    czxid INTEGER NOT NULL,
    mzxid INTEGER NOT NULL,
    ctime_ms INTEGER NOT NULL,
    mtime_ms INTEGER NOT NULL,
    version INTEGER NOT NULL,
    creates INTEGER NOT NULL,          -- children ever created here: the next sequence number
    children INTEGER NOT NULL,         -- children there are
    ephemeral_owner INTEGER NOT NULL
) WITHOUT ROWID
""",
    "CREATE INDEX node_by_parent ON node (parent)",
    "CREATE INDEX node_by_owner ON node (ephemeral_owner) WHERE ephemeral_owner != 0",
    "CREATE TABLE counter (name TEXT NOT NULL PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID",
    "INSERT INTO counter VALUES ('zxid', 0), ('session', 0)",
    "INSERT INTO node VALUES ('/', '', x'', 0, 0, 0, 0, 0, 0, 0, 0)",
)

_COLUMNS: Final = (
    "data, czxid, mzxid, ctime_ms, mtime_ms, version, creates, children, ephemeral_owner"
)


class _Node:
    """One row."""

    __slots__ = (
        "children",
        "creates",
        "ctime_ms",
        "czxid",
        "data",
        "ephemeral_owner",
        "mtime_ms",
        "mzxid",
        "version",
    )

    def __init__(self, row: tuple[bytes, int, int, int, int, int, int, int, int]) -> None:
        (
            self.data,
            self.czxid,
            self.mzxid,
            self.ctime_ms,
            self.mtime_ms,
            self.version,
            self.creates,
            self.children,
            self.ephemeral_owner,
        ) = row

    def stat(self) -> Stat:
        return Stat(
            self.czxid,
            self.mzxid,
            self.ctime_ms,
            self.mtime_ms,
            self.version,
            # Of every child that ever came, those not there any more have gone.
            2 * self.creates - self.children,
            self.ephemeral_owner,
            len(self.data),
            self.children,
        )


def parent_of(path: str) -> str:
    """The path of a node's parent."""
    return path[: path.rindex("/")] or "/"


class Tree:
    """The nodes, and the transaction that is under way.

    Between ``commit`` and ``rollback`` everything is one SQLite transaction, begun by the
    first write. Every method either does all it says or raises and has changed nothing.
    """

    def __init__(self, path: str) -> None:
        """Open or make the file; ephemeral nodes left behind by its last user are removed.

        Raises StoreUnavailable.
        """
        self._events: list[WatchEvent] = []
        self._path = path
        self._in_transaction = False
        try:
            self._connection = sqlite3.connect(path, timeout=0, isolation_level=None)
        except sqlite3.Error as error:
            raise self._unavailable("opened", error) from error
        try:
            self._open()
        except BaseException:
            self._connection.close()
            raise

    def _open(self) -> None:
        # Exclusive from the first access on: no second broker, and no shared memory file.
        self._run("PRAGMA locking_mode = EXCLUSIVE")
        self._run("PRAGMA journal_mode = WAL")
        self._run("PRAGMA synchronous = FULL")
        (written_format,) = self._run("PRAGMA user_version").fetchone()
        if written_format == 0:
            self._begin()
            for statement in _SCHEMA:
                self._run(statement)
            self._run(f"PRAGMA user_version = {_FORMAT}")
        elif written_format != _FORMAT:
            raise StoreUnavailable(
                f"the metadata store {self._path} was written by a later version: it has format "
                f"{written_format}, this broker knows format {_FORMAT}"
            )
        counters: dict[str, int] = dict(self._run("SELECT name, value FROM counter").fetchall())
        self._zxid = counters["zxid"]
        self.session_id: int = counters["session"] + 1
        self._begin()
        self._run("UPDATE counter SET value = ? WHERE name = 'session'", (self.session_id,))
        self._remove_ephemerals()
        self.commit()
        self._events.clear()  # nobody can have a watch yet

    def _run(self, statement: str, parameters: Sequence[object] = ()) -> sqlite3.Cursor:
        try:
            return self._connection.execute(statement, parameters)
        except sqlite3.Error as error:
            raise self._unavailable("used", error) from error

    def _unavailable(self, verb: str, error: sqlite3.Error) -> StoreUnavailable:
        if "locked" in str(error):
            return StoreUnavailable(f"the metadata store {self._path} is in use by another broker")
        return StoreUnavailable(f"the metadata store {self._path} cannot be {verb}: {error}")

    # -- transaction --------------------------------------------------------------------------

    def _begin(self) -> None:
        if not self._in_transaction:
            self._run("BEGIN IMMEDIATE")
            self._in_transaction = True

    def commit(self) -> None:
        """Make everything since the last commit durable. Raises StoreUnavailable: ``rollback``."""
        if self._in_transaction:
            self._run("UPDATE counter SET value = ? WHERE name = 'zxid'", (self._zxid,))
            self._run("COMMIT")
            self._in_transaction = False

    def rollback(self) -> None:
        """Undo everything since the last commit."""
        self._events.clear()
        if self._in_transaction:
            if self._connection.in_transaction:  # some errors have rolled back by themselves
                self._run("ROLLBACK")
            self._in_transaction = False

    def end_session(self) -> None:
        """Remove the session's ephemeral nodes. Raises StoreUnavailable."""
        self._remove_ephemerals()
        self.commit()

    def close(self) -> None:
        self._connection.close()

    def take_events(self) -> list[WatchEvent]:
        """What has changed since the last call, in order."""
        events, self._events = self._events, []
        return events

    # -- reading ------------------------------------------------------------------------------

    def _find(self, path: str) -> _Node | None:
        row = self._run(f"SELECT {_COLUMNS} FROM node WHERE path = ?", (path,)).fetchone()
        return _Node(row) if row is not None else None

    def _need(self, path: str) -> _Node:
        node = self._find(path)
        if node is None:
            raise NoNode(path)
        return node

    def get(self, path: str) -> tuple[bytes, Stat]:
        node = self._need(path)
        return node.data, node.stat()

    def exists(self, path: str) -> Stat | None:
        node = self._find(path)
        return node.stat() if node is not None else None

    def children(self, path: str) -> list[str]:
        self._need(path)
        skip = len(path) + 1 if path != "/" else 1
        rows = self._run("SELECT path FROM node WHERE parent = ?", (path,))
        return [name[skip:] for (name,) in rows]

    # -- writing ------------------------------------------------------------------------------

    def create(self, operation: Create, now_ms: int) -> str:
        path = operation.path
        if path == "/":
            raise NodeExists(path)
        parent_path = parent_of(path)
        parent = self._find(parent_path)
        if parent is None:
            raise NoNode(parent_path)
        if operation.sequence:
            path = f"{path}{parent.creates:010d}"
        if parent.ephemeral_owner:
            raise NoChildrenForEphemerals(parent_path)
        if self._find(path) is not None:
            raise NodeExists(path)
        zxid = self._next_zxid()
        self._run(
            "INSERT INTO node VALUES (?, ?, ?, ?, ?, ?, ?, 0, 0, 0, ?)",
            (
                *(path, parent_path, operation.data, zxid, zxid, now_ms, now_ms),
                self.session_id if operation.ephemeral else 0,
            ),
        )
        self._run(
            "UPDATE node SET creates = creates + 1, children = children + 1 WHERE path = ?",
            (parent_path,),
        )
        self._events.append(WatchEvent(EventType.CREATED, path))
        self._events.append(WatchEvent(EventType.CHILD, parent_path))
        return path

    def set(self, operation: SetData, now_ms: int) -> Stat:
        node = self._need_version(operation.path, operation.version)
        node.data, node.mzxid, node.mtime_ms = operation.data, self._next_zxid(), now_ms
        node.version += 1
        self._run(
            "UPDATE node SET data = ?, mzxid = ?, mtime_ms = ?, version = ? WHERE path = ?",
            (node.data, node.mzxid, now_ms, node.version, operation.path),
        )
        self._events.append(WatchEvent(EventType.CHANGED, operation.path))
        return node.stat()

    def delete(self, operation: Delete) -> None:
        path = operation.path
        if path == "/":
            raise NotEmpty(path)
        node = self._need_version(path, operation.version)
        if node.children:
            raise NotEmpty(path)
        self._next_zxid()
        parent_path = parent_of(path)
        self._run("DELETE FROM node WHERE path = ?", (path,))
        self._run("UPDATE node SET children = children - 1 WHERE path = ?", (parent_path,))
        self._events.append(WatchEvent(EventType.DELETED, path))
        self._events.append(WatchEvent(EventType.CHILD, parent_path))

    def check(self, operation: Check) -> None:
        self._need_version(operation.path, operation.version)

    def multi(self, operations: Sequence[Operation], now_ms: int) -> list[MultiResult]:
        self._begin()
        self._run("SAVEPOINT multi")
        seen_events = len(self._events)
        results: list[MultiResult] = []
        for index, operation in enumerate(operations):
            try:
                results.append(self._apply(operation, now_ms))
            except StoreError as error:
                self._run("ROLLBACK TO multi")
                self._run("RELEASE multi")
                del self._events[seen_events:]
                raise MultiFailed(index, error) from None
        self._run("RELEASE multi")
        return results

    def _remove_ephemerals(self) -> None:
        # All of them: there is one session at a time, and it is over.
        rows = self._run("SELECT path FROM node WHERE ephemeral_owner != 0")
        for (path,) in rows.fetchall():
            self.delete(Delete(path))

    def _apply(self, operation: Operation, now_ms: int) -> MultiResult:
        match operation:
            case Create():
                return self.create(operation, now_ms)
            case SetData():
                return self.set(operation, now_ms)
            case Delete():
                self.delete(operation)
            case Check():
                self.check(operation)
        return None

    def _need_version(self, path: str, version: int) -> _Node:
        node = self._need(path)
        if version not in (ANY_VERSION, node.version):
            raise BadVersion(f"{path} has version {node.version}, not {version}")
        return node

    def _next_zxid(self) -> int:
        self._begin()
        self._zxid += 1
        return self._zxid
