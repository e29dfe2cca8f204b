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
_RECORD_MAX: Final = 5 + _RECORD + 2048  # bytes of ciphertext in it
_FEED: Final = 1 << 15  # bytes of ciphertext given to OpenSSL, whose memory never shrinks again
_PIECE: Final = 1 << 17  # bytes encrypted before they are sent
_VECTOR: Final = 64  # buffers in one vectored send
_SEND_PER_TURN: Final = 1 << 20  # bytes; encrypting takes 0.3 ms of every megabyte


class Scratch:
    """Buffers that all sessions of one event loop use, each for the length of one call."""

    __slots__ = ("ciphertext", "plaintext")

    def __init__(self) -> None:
        self.ciphertext = memoryview(bytearray(CIPHERTEXT_BYTES))
        self.plaintext = memoryview(bytearray(_PIECE))


def _whole_records(data: "memoryview | bytes", start: int, end: int) -> int:
    """Where the last of the whole records from ``start`` on ends, or of some 32 KB of them.

    OpenSSL is given nothing else: to find that part of a record is missing costs it as much as to
    decrypt one. A record that is longer than any may be counts as whole, for OpenSSL to refuse.
    """
    stop, enough = start, start + _FEED
    while end - stop >= 5:
        following = stop + 5 + (data[stop + 3] << 8 | data[stop + 4])
        if following > end:
            return end if following - stop > _RECORD_MAX else stop
        stop = following
        if stop >= enough:
            break
    return stop


class TlsStream:
    """A TLS session and the socket below it."""

    __slots__ = (
        "_ended",
        "_incoming",
        "_outgoing",
        "_received",
        "_sent",
        "_sock",
        "_ssl",
        "_unsent",
        "backlog",
        "scratch",
    )

    def __init__(self, context: ssl.SSLContext, sock: socket.socket, scratch: "Scratch") -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._ssl = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._sock = sock
        self.scratch = scratch
        self._received = b""  # ciphertext that OpenSSL has not been given yet
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
        return bool(
            self._incoming.pending
            or _whole_records(self._received, 0, len(self._received))
            or self._ssl.pending()
        )

    @property
    def buffered(self) -> bool:
        """The same for data and the end of the stream, of which no socket will tell."""
        return self._ended or self.undelivered

    def shake_hands(self) -> bool:
        """Go on with the handshake as far as received bytes carry; True when it is done.

        Raises SSLError when it failed, EOFError when the peer left, BlockingIOError, OSError.
        """
        data, end = self._receive()
        if end == len(self._received):
            raise EOFError
        pos = 0
        try:
            while (stop := _whole_records(data, pos, end)) > pos:
                self._incoming.write(data[pos:stop])
                pos = stop
                with contextlib.suppress(ssl.SSLWantReadError):
                    self._ssl.do_handshake()
                    return True
        finally:
            self._received = bytes(data[pos:end])
            self.collect()
        return False

    def receive_into(self, view: memoryview, /) -> int:
        """As a socket's ``recv_into``: decrypt what there is, receiving at most once.

        Raises BlockingIOError, SSLError, OSError; 0 is the end of the stream.
        """
        if self._ended:
            return 0
        session, incoming = self._ssl, self._incoming
        # Into a buffer it returns a count, whatever its declaration says.
        read = cast("Callable[[int, memoryview], int]", session.read)
        total, size = 0, len(view)
        if session.pending():
            total = read(size, view)
        data: memoryview | bytes = self._received
        pos, end = 0, len(data)
        received = False
        while not self._ended:
            while total < size and incoming.pending:
                try:
                    count = read(size - total, view[total:] if total else view)
                except ssl.SSLWantReadError:
                    continue  # a record for OpenSSL itself
                if not count:
                    self._ended = True
                    break
                total += count
            if total == size:
                break
            stop = _whole_records(data, pos, end)
            if stop > pos:
                incoming.write(data[pos:stop])
                pos = stop
                continue
            if received or total:
                break
            self._received = bytes(data[pos:end])
            data, stop = self._receive()
            if stop == len(self._received):
                return 0
            pos, end = 0, stop
            received = True
        self._received = bytes(data[pos:end])
        if self._outgoing.pending:  # the answer to an update of keys
            self.collect()
        if not total and not self._ended:
            raise BlockingIOError
        return total

    def _receive(self) -> tuple[memoryview, int]:
        """Receive behind what was kept; the buffer with both and where they end in it.

        Raises BlockingIOError, OSError.
        """
        buffer, kept = self.scratch.ciphertext, self._received
        have = len(kept)
        if not have:
            return buffer, self._sock.recv_into(buffer)
        buffer[:have] = kept
        return buffer, have + self._sock.recv_into(buffer[have:])

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
        head = parts[0]
        if in_memory(head) and (len(parts) == 1 or len(head) - start >= _RECORD):
            stop = min(len(head), start + _PIECE)
            stream.encrypt(head if stop - start == len(head) else memoryview(head)[start:stop])
            if stop < len(head):
                self._sent = stop
            else:
                del parts[0]
                self._sent = 0
            return stop - start
        piece = stream.scratch.plaintext
        used = whole = 0  # bytes in the piece, parts at the head that are used up
        for part in parts:
            size = (len(part) if in_memory(part) else part.size) - start
            take = min(size, _PIECE - used)
            place = piece[used : used + take]
            if in_memory(part):
                place[:] = memoryview(part)[start : start + take]
            elif part.read_into(place, start) < take:
                # The answer's length has been promised; only a closed connection is honest.
                raise Disconnect("a segment has become shorter than the slice being sent")
            used += take
            if take < size:
                start += take
                break
            whole += 1
            start = 0
            if used == _PIECE:
                break
        stream.encrypt(piece[:used])
        del parts[:whole]
        self._sent = start
        return used
