"""Who waits for the next change of which node."""

from collections.abc import Iterable

from kavka.replication.store.base import EventType, Watch, WatchEvent


class Watches:
    """The watches of one session, by what they look at: a node's data or its list of children.

    No thread safety of its own.
    """

    __slots__ = ("_children", "_data")

    def __init__(self) -> None:
        self._data: dict[str, dict[Watch, None]] = {}
        self._children: dict[str, dict[Watch, None]] = {}

    def add(self, path: str, watch: Watch, *, of_children: bool) -> None:
        """Have ``watch`` told of the next event of ``path``, once, however often it is added."""
        watches = self._children if of_children else self._data
        watches.setdefault(path, {})[watch] = None

    def take(self, event: WatchEvent) -> list[Watch]:
        """Remove those whom the event concerns; each is told once, whatever it watched."""
        told: dict[Watch, None] = {}
        if event.type is not EventType.CHILD:
            told.update(self._data.pop(event.path, {}))
        if event.type in (EventType.CHILD, EventType.DELETED):
            told.update(self._children.pop(event.path, {}))
        return list(told)

    def paths(self, *, of_children: bool) -> Iterable[str]:
        """The nodes that are watched."""
        return list(self._children if of_children else self._data)

    def clear(self) -> None:
        """Forget all of them."""
        self._data.clear()
        self._children.clear()
