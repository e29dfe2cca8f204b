"""What a connection has still to send: buffers in memory and slices of segment files."""

import os
import socket
from typing import TYPE_CHECKING, Final, TypeAlias, cast

from kavka.broker.request import Disconnect

if TYPE_CHECKING:
    from typing_extensions import TypeIs

    from kavka.broker.request import Part
    from kavka.protocol.schema import Buffer
    from kavka.storage.fetch_slice import FetchSlice

Answer: TypeAlias = "bytes | list[Part] | None"
"""What goes out for one request: a whole frame, its parts, or nothing."""

_BUFFERS: Final = (bytes, bytearray, memoryview)
_VECTOR: Final = 64  # buffers in one vectored send
_COPY_LIMIT: Final = 1 << 16  # bytes that are cheaper joined than sent as a vector
_INLINE_SLICE: Final = 1 << 14  # a smaller slice is copied: cheaper than a call of its own
_SEND_PER_TURN: Final = 4 << 20  # bytes one connection may send before others get their turn


def in_memory(part: "Part") -> "TypeIs[Buffer]":
    """Whether a part is bytes in memory; otherwise it is a slice of a file."""
    return isinstance(part, _BUFFERS)


def memory_of(answer: "Answer") -> int:
    """Bytes of memory that an answer holds; slices of files hold none."""
    if answer is None:
        return 0
    if isinstance(answer, bytes):
        return len(answer)
    return sum(len(part) for part in answer if in_memory(part))


class Output:
    """A queue of parts and how far the socket has taken them.

    Small ``bytes`` may be appended to ``parts`` directly, which is what most answers are.
    """

    __slots__ = ("_mixed", "_sent", "parts")

    def __init__(self) -> None:
        self.parts: list[Part] = []
        self._sent = 0  # bytes of the first part that have gone already
        self._mixed = False  # not only small and whole buffers

    @property
    def memory(self) -> int:
        """Bytes of memory that the unsent parts hold."""
        parts = self.parts
        if not parts:
            return 0
        return memory_of(parts) - (self._sent if in_memory(parts[0]) else 0)

    def add(self, answer: "bytes | list[Part]") -> None:
        """Append an answer. Raises OSError when a small slice cannot be read."""
        if isinstance(answer, bytes):
            self.parts.append(answer)
            return
        for part in answer:
            if in_memory(part):
                self._mixed |= len(part) > _COPY_LIMIT
            elif part.size > _INLINE_SLICE:
                self._mixed = True
            else:
                part = part.view()
            self.parts.append(part)

    def clear(self) -> None:
        """Drop everything unsent."""
        self.parts.clear()
        self._sent = 0

    def send(self, sock: socket.socket) -> bool:
        """Send as much as the socket takes; False when something is left.

        Raises OSError when the connection is lost, Disconnect when a promised slice is gone.
        """
        try:
            return self._send_parts(sock) if self._mixed else self._send_joined(sock)
        except (BlockingIOError, InterruptedError):
            return False

    def _send_joined(self, sock: socket.socket) -> bool:
        parts = self.parts
        buffers = cast("list[Buffer]", parts)
        data = buffers[0] if len(buffers) == 1 else b"".join(buffers)
        sent = 0
        try:
            sent = sock.send(data)
        finally:
            if sent == len(data):
                parts.clear()
            else:
                parts[:] = (data,)
                self._sent = sent
                self._mixed = True
        return not parts

    def _send_parts(self, sock: socket.socket) -> bool:
        parts = self.parts
        budget = _SEND_PER_TURN
        while parts:
            if budget <= 0:
                return False
            head = parts[0]
            budget -= self._send_buffers(sock) if in_memory(head) else self._send_slice(sock, head)
        self._mixed = False
        return True

    def _send_buffers(self, sock: socket.socket) -> int:
        """Send the buffers at the head together; returns bytes sent."""
        run: list[Buffer] = []
        total = more = 0
        for part in self.parts:
            if not in_memory(part):
                more = socket.MSG_MORE  # a slice follows: let it share the packet
                break
            if len(run) == _VECTOR:
                break
            run.append(part)
            total += len(part)
        if self._sent:
            run[0] = memoryview(run[0])[self._sent :]
            total -= self._sent
        if len(run) == 1:
            sent = sock.send(run[0], more)
        elif total <= _COPY_LIMIT:
            sent = sock.send(b"".join(run), more)
        else:
            sent = sock.sendmsg(run, (), more)
        if sent == total:
            del self.parts[: len(run)]
            self._sent = 0
        else:
            self._advance(sent)
        return sent

    def _advance(self, sent: int) -> None:
        """Forget ``sent`` bytes at the head, where there are only buffers."""
        sent += self._sent
        gone = 0
        while sent >= (size := len(cast("Buffer", self.parts[gone]))):
            sent -= size
            gone += 1
        del self.parts[:gone]
        self._sent = sent

    def _send_slice(self, sock: socket.socket, part: "FetchSlice") -> int:
        left = part.size - self._sent
        position = part.position + self._sent
        count = min(left, _SEND_PER_TURN)
        sent = os.sendfile(sock.fileno(), part.file.fileno(), position, count)
        if not sent:
            # The length of the answer has been promised; only a closed connection is honest.
            raise Disconnect("a segment has become shorter than the slice being sent")
        if sent == left:
            del self.parts[0]
            self._sent = 0
        else:
            self._sent += sent
        return sent
