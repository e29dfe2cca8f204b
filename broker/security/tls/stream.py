"""One TLS session over a non-blocking socket, with bounded memory.

OpenSSL works on memory, and this moves the bytes between that memory and the socket: asyncio's
own TLS costs several times the work. Ciphertext is received into one buffer that all sessions
share; what of it is not decrypted yet stays with the session, at most that buffer's size. What is
encrypted and not sent yet is at most one piece of output.
"""

import contextlib
import socket
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, cast

from kavka.broker.output import Output, in_memory
from kavka.broker.request import Disconnect

if TYPE_CHECKING:
    from kavka.protocol.schema import Buffer

CIPHERTEXT_BYTES: Final = 1 << 17
"""What one session receives at a time, and keeps while its connection is paused."""

_RECORD: Final = 1 << 14  # bytes of plaintext in the largest record
_PIECE: Final = 1 << 17  # bytes encrypted before they are sent
_VECTOR: Final = 64  # buffers in one vectored send
_SEND_PER_TURN: Final = 1 << 20  # bytes; encrypting takes 0.3 ms of every megabyte


class TlsStream:
    """A TLS session and the socket below it."""

    __slots__ = (
        "_ciphertext",
        "_ended",
        "_incoming",
        "_outgoing",
        "_received",
        "_sent",
        "_sock",
        "_ssl",
        "_unsent",
        "backlog",
    )

    def __init__(
        self, context: ssl.SSLContext, sock: socket.socket, ciphertext: memoryview
    ) -> None:
        """``ciphertext`` is the buffer that all sessions of one event loop receive into."""
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._ssl = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._sock = sock
        self._ciphertext = ciphertext
        self._received: Buffer = b""  # ciphertext that OpenSSL has not been given yet
        self._unsent: list[bytes] = []  # ciphertext, of whose first part
        self._sent = 0  # bytes have gone already
        self.backlog = 0  # bytes of ciphertext that wait for the socket
        self._ended = False  # the peer has said that it sends no more

    @property
    def session(self) -> ssl.SSLObject:
        """The session: its version, suite and peer certificate."""
        return self._ssl

    @property
    def undelivered(self) -> bool:
        """Whether data has been received that :meth:`receive_into` has not given out."""
        return bool(self._received or self._incoming.pending or self._ssl.pending())

    @property
    def buffered(self) -> bool:
        """The same for data and the end of the stream, of which no socket will tell."""
        return self._ended or self.undelivered

    def shake_hands(self) -> bool:
        """Go on with the handshake as far as received bytes carry; True when it is done.

        Raises SSLError when it failed, EOFError when the peer left, BlockingIOError, OSError.
        """
        count = self._sock.recv_into(self._ciphertext, _RECORD)
        if not count:
            raise EOFError
        self._incoming.write(self._ciphertext[:count])
        try:
            self._ssl.do_handshake()
        except ssl.SSLWantReadError:
            return False
        finally:
            self.collect()
        return True

    def receive_into(self, view: memoryview, /) -> int:
        """As a socket's ``recv_into``: decrypt what there is, receiving at most once.

        Raises BlockingIOError, SSLError, OSError; 0 is the end of the stream.
        """
        if self._ended:
            return 0
        session, incoming = self._ssl, self._incoming
        # Into a buffer it returns a count, whatever its declaration says.
        read = cast("Callable[[int, memoryview], int]", session.read)
        data, pos = self._received, 0
        total, size = 0, len(view)
        received = False
        while total < size:
            if incoming.pending or session.pending():
                try:
                    count = read(size - total, view[total:])
                except ssl.SSLWantReadError:
                    continue  # part of a record
                if not count:
                    self._ended = True
                    break
                total += count
            elif pos < len(data):
                incoming.write(data[pos : pos + _RECORD])
                pos += _RECORD
            elif received or total:
                break
            else:
                self._received, pos = b"", 0
                count = self._sock.recv_into(self._ciphertext)
                if not count:
                    return 0
                data = self._ciphertext[:count]
                received = True
        self._received = bytes(data[pos:])
        if self._outgoing.pending:  # the answer to an update of keys
            self.collect()
        if not total and not self._ended:
            raise BlockingIOError
        return total

    def encrypt(self, data: "Buffer") -> None:
        """Take all of ``data``; its ciphertext goes out by :meth:`flush`."""
        write = self._ssl.write
        if len(data) <= _RECORD:
            if data:
                write(data)
                self.collect()
            return
        with memoryview(data) as view:
            for start in range(0, len(view), _RECORD):
                write(view[start : start + _RECORD])
                self.collect()

    def collect(self) -> None:
        """Take what OpenSSL has written. After every record: its memory never shrinks again."""
        data = self._outgoing.read()
        if data:
            self._unsent.append(data)
            self.backlog += len(data)

    def flush(self) -> bool:
        """Send ciphertext, as much as the socket takes; whether none is left. Raises OSError."""
        unsent = self._unsent
        while unsent:
            head = memoryview(unsent[0])[self._sent :] if self._sent else unsent[0]
            try:
                if len(unsent) == 1:
                    sent = self._sock.send(head)
                else:
                    sent = self._sock.sendmsg([head, *unsent[1:_VECTOR]])
            except (BlockingIOError, InterruptedError):
                return False
            self.backlog -= sent
            sent += self._sent
            gone = 0
            while gone < len(unsent) and sent >= len(unsent[gone]):
                sent -= len(unsent[gone])
                gone += 1
            del unsent[:gone]
            self._sent = sent
        return True

    def say_goodbye(self) -> None:
        """Tell the peer that nothing follows, if that can be done without waiting."""
        with contextlib.suppress(ssl.SSLError, ValueError):  # it does not wait for the peer's word
            self._ssl.unwrap()
        self.collect()
        with contextlib.suppress(OSError):  # the peer has gone already
            self.flush()


class TlsOutput(Output):
    """Answers that leave encrypted. Slices of files are read piece by piece."""

    __slots__ = ("_stream",)

    def __init__(self, stream: TlsStream) -> None:
        super().__init__()
        self._stream = stream

    @property
    def memory(self) -> int:
        """Bytes of memory that unsent parts and ciphertext hold."""
        return super().memory + self._stream.backlog

    def send(self, sock: socket.socket) -> bool:
        """Send as much as the socket takes; False when something is left.

        Raises OSError when the connection is lost, Disconnect when a promised slice is gone.
        """
        stream, parts = self._stream, self.parts
        budget = _SEND_PER_TURN
        while stream.flush():
            if not parts:
                return True
            if budget <= 0:
                return False
            budget -= self._encrypt_some()
        return False

    def _encrypt_some(self) -> int:
        """Encrypt about one piece from the head; returns its bytes."""
        parts, stream, start = self.parts, self._stream, self._sent
        piece: list[Buffer] = []
        room = _PIECE
        whole = 0  # parts at the head that are used up
        for part in parts:
            size = (len(part) if in_memory(part) else part.size) - start
            take = min(size, room)
            if in_memory(part):
                piece.append(part if take == len(part) else memoryview(part)[start : start + take])
            else:
                data = part.read(start, take)
                if len(data) < take:
                    # The answer's length has been promised; only a closed connection is honest.
                    raise Disconnect("a segment has become shorter than the slice being sent")
                piece.append(data)
            room -= take
            if take < size:
                start += take
                break
            whole += 1
            start = 0
            if not room:
                break
        if len(piece) == 1:
            stream.encrypt(piece[0])
        else:
            stream.encrypt(b"".join(piece))
        del parts[:whole]
        self._sent = start
        return _PIECE - room
