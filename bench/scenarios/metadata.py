"""Metadata: creating 100, 1,000 and 10,000 partitions, and CPU per request that names them all."""

import time
from typing import Final

from bench.measure import cpu_seconds, resident_mb
from bench.run import Run, all_running
from bench.wire import METADATA_VERSION, Client
from kavka.protocol import headers
from kavka.protocol.messages.k03_metadata import MetadataRequest, MetadataRequestTopic

STEPS: Final = (100, 1_000, 10_000)  # partitions, in topics of 50
PER_TOPIC: Final = 50
REQUESTS: Final = 60


def run(run: Run) -> None:
    with all_running(run.full) as brokers:
        for broker in brokers:
            topics = 0
            for step in STEPS:
                print(f"  {broker.name}: {step:,}", flush=True)
                figures, name, label = run.figures, broker.name, f"{step:,} partitions"
                with Client(broker.bootstrap) as client:
                    began, cpu = time.monotonic(), cpu_seconds(broker.pid)
                    first = topics
                    while topics * PER_TOPIC < step:
                        client.create_topic(f"topic-{topics:04}", PER_TOPIC)
                        topics += 1
                    made = (topics - first) * PER_TOPIC
                    seconds = time.monotonic() - began
                    cpu = cpu_seconds(broker.pid) - cpu
                    figures.add(f"{label}: created, ms each", name, seconds * 1000 / made)
                    figures.add(f"{label}: CPU ms to create each", name, cpu * 1000 / made)
                    figures.add(f"{label}: memory, MB", name, resident_mb(broker.pid))
                    for what, request in (
                        ("all topics", MetadataRequest(topics=None)),
                        (
                            "one topic",
                            MetadataRequest(topics=[MetadataRequestTopic(name="topic-0000")]),
                        ),
                    ):
                        frame = headers.encode_request(3, METADATA_VERSION, 1, "bench", request)
                        client.pump([frame] * 5, 1)
                        cpu = cpu_seconds(broker.pid)
                        client.pump([frame] * REQUESTS, 1)
                        cpu = cpu_seconds(broker.pid) - cpu
                        figures.add(f"{label}: CPU µs, {what}", name, cpu * 1e6 / REQUESTS)
