"""What brokers and tools ask of the controller by writing nodes.

Leaders announce changed ISRs, brokers announce failed log directories, and the tools of before
Kafka 2.4 ask for moves and elections. Each is found again by a new controller, because its node
goes only when it is done.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence

from kavka.protocol.errors import ErrorCode
from kavka.protocol.topics import TopicPartition
from kavka.replication import znodes
from kavka.replication.controller.batch import RequestBatch
from kavka.replication.controller.leadership import Leadership
from kavka.replication.controller.moves import Moves
from kavka.replication.controller.operations import ElectionType
from kavka.replication.controller.term import Term
from kavka.replication.store.base import Delete, NoNode, SetData, WatchEvent
from kavka.replication.znodes import BadNode

logger = logging.getLogger("kavka.controller")


class Notices:
    """The nodes under which others leave word, during one term."""

    def __init__(
        self,
        term: Term,
        leadership: Leadership,
        moves: Moves,
        send: Callable[[RequestBatch], None],
    ) -> None:
        self._term = term
        self._store = term.store
        self._cluster = term.cluster
        self._leadership = leadership
        self._moves = moves
        self._send = send
        self._by_node: dict[TopicPartition, tuple[int, ...]] = {}  # moves the node asks for

    async def look(self) -> None:
        """See to all that has been left while there was no controller, and watch."""
        await self.isr_changed()
        await self.directories_failed()
        await self.move_requested()
        await self.election_requested()

    async def _children(
        self, parent: str, watch: Callable[[WatchEvent], None]
    ) -> list[tuple[str, bytes]]:
        """Paths and bodies of the nodes below, in order."""
        names = await self._store.children(parent, watch)
        paths = [f"{parent}/{name}" for name in sorted(names)]
        nodes = await asyncio.gather(*map(self._store.get, paths), return_exceptions=True)
        found: list[tuple[str, bytes]] = []
        for path, node in zip(paths, nodes, strict=True):
            if isinstance(node, NoNode):
                continue
            if isinstance(node, BaseException):
                raise node
            found.append((path, node[0]))
        return found

    # -- ISRs -----------------------------------------------------------------------------------

    def _on_isr(self, event: WatchEvent) -> None:
        self._term.enqueue(self.isr_changed)

    async def isr_changed(self) -> None:
        """Leaders have changed ISRs: tell everybody, and finish moves that waited for it."""
        changed: dict[TopicPartition, None] = {}
        found = await self._children(znodes.ISR_CHANGES, self._on_isr)
        for path, data in found:
            try:
                changed.update(dict.fromkeys(znodes.decode_partitions(path, data)))
            except BadNode as error:
                logger.error("A notification of ISR changes is ignored error=%s", error)
        if not found:
            return
        partitions = [
            tp
            for tp in changed
            if tp.topic not in self._cluster.deleting and self._cluster.find(tp) is not None
        ]
        await self._term.read_states(partitions)
        batch = self._term.batch()
        batch.add_metadata(partitions)
        for move in self._moves.under_way(partitions):
            await self._moves.finish_if_in_sync(move.partition, batch)
        self._send(batch)
        await self.settle_moves()
        await self._term.write([Delete(path) for path, _ in found])

    # -- log directories ------------------------------------------------------------------------

    def _on_directories(self, event: WatchEvent) -> None:
        self._term.enqueue(self.directories_failed)

    async def directories_failed(self) -> None:
        """Log directories of brokers have failed: ask those brokers what they still have."""
        brokers: dict[int, None] = {}
        found = await self._children(znodes.LOG_DIR_EVENTS, self._on_directories)
        for path, data in found:
            try:
                brokers[znodes.decode_log_dir_event(path, data)] = None
            except BadNode as error:
                logger.error("A notification of failed directories is ignored error=%s", error)
        if not found:
            return
        batch = self._term.batch()
        for broker in brokers:
            logger.warning("A log directory has failed broker=%d", broker)
            for tp in self._cluster.on_broker(broker):
                if tp.topic not in self._cluster.deleting:
                    batch.add_leader_and_isr([broker], tp)
        self._send(batch)  # the answers name what cannot be opened
        await self._term.write([Delete(path) for path, _ in found])

    # -- moves ----------------------------------------------------------------------------------

    def _on_moves(self, event: WatchEvent) -> None:
        self._term.enqueue(self.move_requested)

    async def move_requested(self) -> None:
        """A tool asks for moves, or the node that asks for them has changed."""
        path = znodes.REASSIGN_PARTITIONS
        await self._store.exists(path, self._on_moves)
        try:
            data, _ = await self._store.get(path)
            wanted = znodes.decode_reassignment(path, data)
        except NoNode:
            self._by_node.clear()
            return
        except BadNode as error:
            logger.error("A request for moves is removed error=%s", error)
            await self._term.write([Delete(path)])
            return
        new = {tp: target for tp, target in wanted.items() if self._by_node.get(tp) != target}
        self._by_node = dict(wanted)
        batch = self._term.batch()
        for tp, outcome in (await self._moves.alter(new, batch)).items():
            if outcome is not None:
                logger.warning("A partition is not moved partition=%s error=%s", tp, outcome)
                del self._by_node[tp]
        self._send(batch)
        await self.settle_moves(len(wanted))

    async def settle_moves(self, written: int | None = None) -> None:
        """Take what is done out of the node, and the node away when nothing is left."""
        before = len(self._by_node) if written is None else written
        left = {
            tp: target
            for tp, target in self._by_node.items()
            if (partition := self._cluster.find(tp)) is not None and partition.being_reassigned
        }
        if len(left) == before and before:
            return
        path = znodes.REASSIGN_PARTITIONS
        self._by_node = left
        if before:
            body = znodes.encode_reassignment(left)
            try:
                await self._term.write([SetData(path, body) if left else Delete(path)])
            except NoNode:
                self._by_node.clear()  # somebody has taken the request back

    # -- elections ------------------------------------------------------------------------------

    def _on_election(self, event: WatchEvent) -> None:
        self._term.enqueue(self.election_requested)

    async def election_requested(self) -> None:
        """A tool has asked for preferred leaders."""
        path = znodes.PREFERRED_ELECTION
        if await self._store.exists(path, self._on_election) is None:
            return
        data, _ = await self._store.get(path)
        partitions: Sequence[TopicPartition] = ()
        try:
            partitions = znodes.decode_partitions(path, data)
        except BadNode as error:
            logger.error("A request for preferred leaders is ignored error=%s", error)
        batch = self._term.batch()
        outcomes = await self._leadership.elect(ElectionType.PREFERRED, partitions, batch)
        self._send(batch)
        for tp, outcome in outcomes.items():
            if outcome is not None and outcome.code is not ErrorCode.ELECTION_NOT_NEEDED:
                logger.warning("No preferred leader partition=%s error=%s", tp, outcome)
        await self._term.write([Delete(path)])
