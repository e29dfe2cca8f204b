"""Clients that go beyond the first request: what the broker answered is used in the next.

Random frames seldom name a member id, a producer id or a fetch session that exists. These clients
learn them, and walk through the requests that go with them, in order or not.
"""

import random
from typing import Any, Final

from kavka.broker.dispatch import HANDLERS
from kavka.protocol import codec, headers, keys
from kavka.protocol.messages.k00_produce import ProduceRequest
from kavka.protocol.schema import Message
from tests.fuzz.beside import Beside
from tests.fuzz.frames import CLIENT_ID, Frames, describe, is_sabotage
from tests.fuzz.values import TOPICS, Values
from tests.wire import WireClient

PATIENCE_SECONDS: Final = 30.0
WAIT_SECONDS: Final = 2.0
STEPS_MAX: Final = 25
NAMES: Final = 100

GROUP: Final = (10, 11, 11, 14, 14, 12, 8, 8, 9, 15, 13, 47, 42)
PRODUCER: Final = (22, 0, 0, 0, 0, 61, 2, 21)
SESSION: Final = (1, 1, 1, 1, 0)
TRANSACTION: Final = (22, 24, 24, 0, 0, 25, 28, 26, 26, 65, 66, 1)
TOPIC: Final = (19, 3, 37, 44, 33, 32, 0, 1, 20)
_WALKS: Final = (GROUP, GROUP, PRODUCER, SESSION, TRANSACTION, TOPIC)

_WAIT_FOR_OTHERS: Final = (11, 14)  # answered when the other members of the group are there too
_LEARNED: Final = ("member_id", "generation_id", "session_id", "producer_id", "producer_epoch")
_DAMAGED: Final = 0.05  # of the requests


class Talk:
    """What one client says; a matter of the seed and of the broker's answers."""

    def __init__(self, seed: int, index: int, topic_ids: dict[str, bytes]) -> None:
        self._rng = random.Random(f"{seed}/talk/{index}")
        self._values = Values(self._rng, topic_ids)
        self._frames = Frames(self._rng, self._values)
        self._walk = self._rng.choice(_WALKS)
        # Few enough names that a long run finds a leak and not just many groups.
        name = f"fuzz-talk-{self._rng.choice((index % NAMES, 'of-all'))}"
        topic = name if self._walk is TOPIC else self._rng.choice(list(TOPICS))
        self._values.learned = {
            **dict.fromkeys(
                ("group_id", "groups", "groups_names", "key", "coordinator_keys"), name
            ),
            "transactional_id": name,
            "v3_and_below_transactional_id": name,
            **dict.fromkeys(("topic", "topic_names", "resource_name"), topic),
            **dict.fromkeys(("index", "partition", "partition_index"), 0),
            **dict.fromkeys(("partitions", "partition_indexes"), 0),
            **dict.fromkeys(("session_timeout_ms", "rebalance_timeout_ms"), 300),
            **dict.fromkeys(("acks", "current_leader_epoch"), -1),
            "transaction_timeout_ms": 1000,
            "member_id": "",
            "group_instance_id": self._rng.choice((None, name)),
            "protocol_type": "consumer",
            "session_epoch": 0,
            "next_sequence": 0,
        }
        self.frames: list[bytes] = []
        self.port = 0

    def run(self, broker_port: int) -> None:
        """Go on until the broker closes the connection, or all is said."""
        with WireClient(broker_port, timeout=PATIENCE_SECONDS) as client:
            self.port = client.socket.getsockname()[1]
            for step in range(self._rng.randint(3, STEPS_MAX)):
                in_order = self._rng.random() < 0.6
                key = (
                    self._walk[step % len(self._walk)] if in_order else self._rng.choice(self._walk)
                )
                if not self._say(client, key):
                    return

    def _say(self, client: WireClient, key: int) -> bool:
        entry = HANDLERS[key]
        version = self._rng.randint(entry.min_version, entry.max_version)
        request_class, response_class = keys.message_classes(key)
        request = self._values.request(request_class, version)
        frame = headers.encode_request(key, version, len(self.frames), CLIENT_ID, request)
        damaged = self._rng.random() < _DAMAGED
        if damaged:
            frame = self._frames.damaged(frame)
        if is_sabotage(frame):
            return False
        self.frames.append(frame)
        client.socket.sendall(frame)
        if damaged or (isinstance(request, ProduceRequest) and request.acks == 0):
            return not damaged  # there may be no answer
        # A fetch may have asked to be kept waiting for days.
        may_wait = key in _WAIT_FOR_OTHERS or getattr(request, "max_wait_ms", 0) > 1000
        client.socket.settimeout(WAIT_SECONDS if may_wait else PATIENCE_SECONDS)
        try:
            answer = client.receive_frame()
        except TimeoutError:
            assert may_wait, f"no answer to {describe(frame)}"
            return False
        if not answer:
            return False
        _, body = headers.parse_response_header(key, version, answer)
        self._learn(codec.decode(response_class, answer, version, body))
        return True

    def _learn(self, answer: Message) -> None:
        learned = self._values.learned
        for name in _LEARNED:
            value: Any = getattr(answer, name, None)
            if value not in (None, "", -1):
                learned[name] = value
                if name == "generation_id":
                    learned["generation_id_or_member_epoch"] = value
                elif name == "session_id":
                    learned["session_epoch"] += 1
                elif name == "producer_id":
                    learned["next_sequence"] = 0


class Talks(Beside):
    """Talks one after the other, in a thread, until it is stopped."""

    def __init__(self, port: int, seed: int, topic_ids: dict[str, bytes]) -> None:
        self._port = port
        self._seed = seed
        self._topic_ids = topic_ids
        super().__init__("talks")
        self.count = 0
        self.by_port: dict[int, list[bytes]] = {}
        """Local port → what was sent from it."""

    def work(self) -> None:
        while not self.stopping.is_set():
            talk = Talk(self._seed, self.count, self._topic_ids)
            self.count += 1
            try:
                talk.run(self._port)
            except ConnectionError:
                pass  # the broker has closed it; the log says why
            finally:
                self.by_port[talk.port] = talk.frames
