"""``python -m bench.tls_storm``: a good client beside thousands of handshakes of bad ones.

Bad clients connect from many addresses, send the first flight of a handshake, wait for the
broker's, and leave; that makes the broker sign for each of them. The good client keeps producing
over TLS, one request at a time, and says how long each took; the figures are of the same run.
"""

import argparse
import contextlib
import multiprocessing
import os
import socket
import ssl
import statistics
import tempfile
import time
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path

from kavka.protocol.records.batch import Record, build_batch
from tests.tls_broker import TlsBroker, tls_broker
from tests.wire import WireClient

_AT_ONCE = 50


def _storm(port: int, source: str, flight: bytes, count: int, done: "Synchronized[int]") -> None:
    left = count
    while left > 0:
        sockets = []
        for _ in range(min(_AT_ONCE, left)):
            with contextlib.suppress(OSError):
                sock = socket.create_connection(("127.0.0.1", port), 30, (source, 0))
                sock.sendall(flight)
                sockets.append(sock)
        for sock in sockets:
            with contextlib.suppress(OSError):
                if sock.recv(1 << 16):
                    with done.get_lock():
                        done.value += 1
            sock.close()
        left -= _AT_ONCE


def _flight(broker: TlsBroker) -> bytes:
    outgoing = ssl.MemoryBIO()
    session = broker.context().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost")
    with contextlib.suppress(ssl.SSLWantReadError):
        session.do_handshake()
    return outgoing.read()


def _show(what: str, times: list[float]) -> None:
    times = sorted(times)
    print(
        f"{what:28} {len(times):6} produced, median {statistics.median(times) * 1e3:7.2f} ms, "
        f"p99 {times[int(len(times) * 0.99)] * 1e3:7.2f} ms, worst {times[-1] * 1e3:7.2f} ms"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--handshakes", type=int, default=5000)
    parser.add_argument("--attackers", type=int, default=4)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory, tls_broker(Path(directory)) as broker:
        client = WireClient(broker.port)
        client.socket = broker.context().wrap_socket(client.socket, server_hostname="localhost")
        batch = build_batch([Record(0, 0, None, b"x" * 1000, ())], base_offset=0)

        def produce() -> float:
            begin = time.perf_counter()
            client.produce("storm", batch)
            return time.perf_counter() - begin

        produce()
        time.sleep(0.5)
        calm: list[float] = []
        end = time.monotonic() + 3
        while time.monotonic() < end:
            calm.append(produce())
        done = multiprocessing.Value("i", 0)
        flight = _flight(broker)
        each = arguments.handshakes // arguments.attackers
        attackers = [
            multiprocessing.Process(
                target=_storm, args=(broker.port, f"127.0.66.{n + 1}", flight, each, done)
            )
            for n in range(arguments.attackers)
        ]
        begin = time.monotonic()
        for attacker in attackers:
            attacker.start()
        stormy: list[float] = []
        while any(attacker.is_alive() for attacker in attackers):
            stormy.append(produce())
        took = time.monotonic() - begin
        for attacker in attackers:
            attacker.join()
        print(f"{done.value} handshakes in {took:.2f} s on {os.cpu_count()} cores")
        _show("without bad clients", calm)
        _show("beside them", stormy)


if __name__ == "__main__":
    main()
