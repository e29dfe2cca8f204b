"""A client that speaks TLS, with the methods of a socket that the tests of connections use."""

import contextlib
import socket
import ssl
from collections.abc import Callable


class TlsClient:
    """Like the socket below it: blocking, with a time-out or not, as that is set."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        self.sock = sock
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.session = context.wrap_bio(self.incoming, self.outgoing)
        self._unsent = b""

    def shake_hands(self, turn: Callable[[], object]) -> None:
        """Shake hands with a broker that works while ``turn`` is called."""
        while True:
            try:
                self.session.do_handshake()
                self.push()
                turn()
                return
            except ssl.SSLWantReadError:
                self.push()
                turn()
                data = self.sock.recv(1 << 16)
                if not data:
                    raise EOFError("the broker closed the connection") from None
                self.incoming.write(data)

    def push(self) -> None:
        data, self._unsent = self._unsent + self.outgoing.read(), b""
        if data:
            self.sock.sendall(data)

    def sendall(self, data: bytes) -> None:
        for start in range(0, len(data), 1 << 14):
            self.session.write(data[start : start + (1 << 14)])
        self.push()

    def send(self, data: bytes) -> int:
        """Not blocking: what is taken may wait here for the next call."""
        if not self._unsent:
            self.session.write(bytes(data[: 1 << 14]))
            self._unsent = self.outgoing.read()
            taken = min(len(data), 1 << 14)
        else:
            taken = 0
        while self._unsent:
            try:
                self._unsent = self._unsent[self.sock.send(self._unsent) :]
            except BlockingIOError:
                break
        if not taken and self._unsent:
            raise BlockingIOError
        return taken

    def recv(self, size: int) -> bytes:
        while True:
            try:
                return self.session.read(size)
            except ssl.SSLZeroReturnError:
                return b""
            except ssl.SSLWantReadError:
                pass
            data = self.sock.recv(1 << 16)
            if not data:
                return b""
            self.incoming.write(data)

    def say_goodbye(self) -> None:
        """Send close_notify, and nothing else."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self.session.unwrap()
        self.push()

    def setblocking(self, flag: bool) -> None:
        self.sock.setblocking(flag)

    def settimeout(self, seconds: float | None) -> None:
        self.sock.settimeout(seconds)

    def setsockopt(self, *arguments: object) -> None:
        self.sock.setsockopt(*arguments)  # type: ignore[call-overload]

    def shutdown(self, how: int) -> None:
        self.sock.shutdown(how)

    def close(self) -> None:
        self.sock.close()
