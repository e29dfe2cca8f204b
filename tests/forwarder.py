"""A TCP forwarder, as stands between networks: clients know its address, not the broker's."""

import contextlib
import socket
import threading


class Forwarder:
    """Listens on a port of its own and carries bytes both ways."""

    def __init__(self) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self.accepted = 0
        self._target = 0
        self._sockets: list[socket.socket] = []

    def __enter__(self) -> "Forwarder":
        return self

    def forward_to(self, port: int) -> None:
        """Begin to let clients through to this port."""
        self._target = port
        threading.Thread(target=self._accept, daemon=True).start()

    def __exit__(self, *_: object) -> None:
        for each in (self._server, *self._sockets):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._server.accept()
                self.accepted += 1
                broker = socket.create_connection(("127.0.0.1", self._target))
                self._sockets += (client, broker)
                for one, other in ((client, broker), (broker, client)):
                    threading.Thread(target=self._carry, args=(one, other), daemon=True).start()

    @staticmethod
    def _carry(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
