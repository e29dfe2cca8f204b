"""TLS and SASL: broker CPU per MB and per connection, beside plaintext and the bare cipher."""

import ssl
import tempfile
import time
from pathlib import Path
from typing import Final

from bench.brokers import Kavka
from bench.figures import OURS
from bench.measure import cpu_seconds
from bench.run import Run
from bench.wire import Client, batch_of, fetch_frame, produce_frame
from tests import secured
from tests.broker_process import free_port
from tests.tls_broker import generate, values

KB: Final = 1 << 10
USER: Final = "bench"
SIZES: Final = {"16 KB": 16 * KB, "64 KB": 64 * KB, "1 MB": 1_000_000}
BYTES: Final = 200_000_000  # produced in one measurement, and consumed
UNDER_WAY: Final = 5
CONNECTIONS: Final = 200
CIPHER: Final = "AES-256-GCM alone"
TLS_RECORD: Final = 16 * KB
VERSIONS: Final = {"TLS 1.2": ssl.TLSVersion.TLSv1_2, "TLS 1.3": ssl.TLSVersion.TLSv1_3}


class _Secured:
    """A broker with a listener of each kind, and who may connect how."""

    def __init__(self, directory: Path) -> None:
        self._ports = {
            protocol: free_port() for protocol in ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
        }
        listeners = ",".join(
            f"{protocol}://127.0.0.1:{port}" for protocol, port in self._ports.items()
        )
        config = directory / "server.properties"
        config.write_text(f"listeners={listeners}\n")
        certs = directory / "certs"
        generate(certs, "--config", str(config))
        self._authority = str(certs / "ca.crt")
        users = secured.jaas([USER])
        self.broker = Kavka(
            {
                "listeners": listeners,
                **values(certs / "server.tls.properties"),
                "sasl.enabled.mechanisms": "PLAIN",
                "listener.name.sasl_plaintext.plain.sasl.jaas.config": users,
                "listener.name.sasl_ssl.plain.sasl.jaas.config": users,
            }
        )

    def connect(self, version: str = "", *, user: bool = False) -> Client:
        """A client over TLS of ``version``, or over plaintext; as a user by SASL PLAIN or not."""
        protocol = f"{'SASL_' * user}{'SSL' if version else 'PLAINTEXT'}"
        client = Client(f"127.0.0.1:{self._ports[protocol]}")
        if version:
            context = ssl.create_default_context(cafile=self._authority)
            context.minimum_version = context.maximum_version = VERSIONS[version]
            client.socket = context.wrap_socket(client.socket, server_hostname="localhost")
        if user:
            secured.log_in(client, USER)
        return client


def run(run: Run) -> None:
    with tempfile.TemporaryDirectory() as directory:
        server = _Secured(Path(directory))
        try:
            server.broker.start()
            with server.connect() as client:
                for label in SIZES:
                    client.create_topic(_topic(label))
            for number in range(run.rounds + 1):
                print(f"  round {number} of {run.rounds}", flush=True)
                _round(run, server, number == 0)
        finally:
            server.broker.remove()


def _round(run: Run, server: _Secured, warm_up: bool) -> None:
    def add(what: str, value: float, who: str = OURS) -> None:
        if not warm_up:
            run.figures.add(what, who, value)

    pid = server.broker.pid
    total = int(BYTES * run.options.scale)
    cipher = _cipher()
    for version in ("", *VERSIONS):
        how = version or "plaintext"
        for label, size in SIZES.items():
            frame = produce_frame(_topic(label), 0, batch_of(size))
            count = max(total // size, 10)
            with server.connect(version) as client:
                cpu = cpu_seconds(pid)
                _pump(client, frame, count)
                cpu = cpu_seconds(pid) - cpu
            what = f"produce {label}, {how}: CPU ms per MB"
            add(what, cpu * 1e3 / (count * size / 1e6))
            if version:
                add(what, cipher, CIPHER)
        fetch = fetch_frame(_topic("1 MB"), [(0, 0)])
        count = max(total // SIZES["1 MB"], 10)
        with server.connect(version) as client:
            cpu = cpu_seconds(pid)
            _pump(client, fetch, count)
            cpu = cpu_seconds(pid) - cpu
        what = f"consume 1 MB, {how}: CPU ms per MB"
        add(what, cpu * 1e3 / count)
        if version:
            add(what, cipher, CIPHER)
        for what, user in (("connection", False), ("connection and log-in", True)):
            cpu = cpu_seconds(pid)
            for _ in range(CONNECTIONS):
                with server.connect(version, user=user) as client:
                    client.metadata([])
            cpu = cpu_seconds(pid) - cpu
            add(f"{what}, {how}: CPU ms each", cpu * 1e3 / CONNECTIONS)


def _topic(label: str) -> str:
    return "t" + label.replace(" ", "")


def _pump(client: Client, frame: bytes, count: int) -> None:
    """Send a request ``count`` times with some of them under way."""
    for number in range(count + UNDER_WAY):
        if number >= UNDER_WAY:
            assert client.receive_frame()
        if number < count:
            client.socket.sendall(frame)


def _cipher() -> float:
    """What encrypting a MB in TLS records costs, ms, by the library that the broker uses."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    cipher, record, nonce = AESGCM(bytes(32)), bytes(TLS_RECORD), bytes(12)
    rounds = 4000
    began = time.process_time()
    for _ in range(rounds):
        cipher.encrypt(nonce, record, None)
    return (time.process_time() - began) * 1e3 / (rounds * TLS_RECORD / 1e6)
