"""What is measured: one module each, with ``run(run: Run)`` and a docstring that says what for."""

from typing import Final

SCENARIOS: Final = (
    "startup",
    "produce",
    "small_requests",
    "librdkafka",
    "java_clients",
    "consume",
    "latency",
    "tls",
    "partitions",
    "connections",
    "long_polling",
    "metadata",
    "memory",
    "many_messages",
    "stalls",
    "cluster_speed",
    "cluster_idle",
    "failover",
)
"""In the order in which they run; the command line writes ``-`` for ``_``."""
