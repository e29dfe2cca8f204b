"""A real Apache Kafka: one KRaft node in a JVM, on the class path that Maven gives."""

import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

from confluent_kafka.admin import AdminClient

from tests import java
from tests.broker_process import free_port, wait_for

RELEASE = "4.3"
_CLUSTER_ID = "MkU3OEVBNTcwNTJENDM2Qg"  # any 16 bytes


class KafkaNode:
    """Broker and controller in one, with a data directory that outlives the process."""

    def __init__(self, directory: Path, settings: Mapping[str, str]) -> None:
        """Format a data directory below ``directory``; ``settings`` over those needed anyway."""
        directory.mkdir(parents=True, exist_ok=True)
        self.data_dir = directory / "data"
        self.port = free_port()
        controller = free_port()
        self._log_path = directory / "kafka.log"
        self._config = directory / "server.properties"
        all_settings = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@127.0.0.1:{controller}",
            "listeners": f"PLAINTEXT://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{controller}",
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{self.port}",
            "controller.listener.names": "CONTROLLER",
            "log.dirs": str(self.data_dir),
            "offsets.topic.replication.factor": "1",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "group.initial.rebalance.delay.ms": "0",
            **settings,
        }
        self._config.write_text("".join(f"{key}={value}\n" for key, value in all_settings.items()))
        java.run_tool(
            *(RELEASE, "kafka.tools.StorageTool", "format"),
            *("-t", _CLUSTER_ID, "-c", str(self._config)),
        )
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> "KafkaNode":
        """Start, and return once it answers."""
        with self._log_path.open("ab") as log:
            self._process = subprocess.Popen(
                java.command(RELEASE, "kafka.Kafka", str(self._config)),
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        admin = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})
        wait_for("Kafka to answer", lambda: self._answers(admin), timeout=60)
        return self

    def _answers(self, admin: AdminClient) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self._log_path.read_text()[-4000:]
        try:
            return bool(admin.list_topics(timeout=1).brokers)
        except Exception:  # not yet
            return False

    def stop(self) -> None:
        """Stop it cleanly, if it runs."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout=60)
            finally:
                process.kill()
