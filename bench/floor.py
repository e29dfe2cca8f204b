"""The floor: what it costs this machine to receive bytes and write them to new file pages."""

import os
import socket
import tempfile
import threading

from bench.processes import cpu_seconds

CHUNK = 1 << 20


def receive_and_write_ms_per_mb(megabytes: int) -> float:
    """CPU of a process that copies ``megabytes`` from a loopback socket into a file, ms per MB."""
    listener = socket.create_server(("127.0.0.1", 0))
    child = os.fork()
    if child == 0:
        _receiver(listener)
        os._exit(0)
    with socket.create_connection(listener.getsockname()) as sender:
        sender.recv(1)  # the receiver is ready
        before = cpu_seconds(child)
        payload = os.urandom(CHUNK)
        for _ in range(megabytes):
            sender.sendall(payload)
        sender.shutdown(socket.SHUT_WR)
        sender.recv(1)  # everything is written
        used = cpu_seconds(child) - before
    os.waitpid(child, 0)
    listener.close()
    return used * 1000 / megabytes


def _receiver(listener: socket.socket) -> None:
    connection, _ = listener.accept()
    buffer = bytearray(CHUNK)
    view = memoryview(buffer)
    with tempfile.TemporaryFile() as file:
        connection.sendall(b"r")
        offset = 0
        while size := connection.recv_into(view):
            os.pwrite(file.fileno(), view[:size], offset)
            offset += size
        connection.sendall(b"d")
        connection.recv(1)


def warm_memory(megabytes: int) -> None:
    """Touch memory once, so that the first measurement does not pay for it (virtual machines)."""
    done = threading.Event()

    def touch() -> None:
        with tempfile.TemporaryFile() as file:
            for _ in range(megabytes):
                file.write(b"\1" * CHUNK)
        done.set()

    threading.Thread(target=touch).start()
    done.wait()
