"""Thousands of broken logins: nobody gets in, nothing leaks, good clients notice nothing."""

import asyncio
import os
import random
import re
import secrets
import struct
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from kavka.protocol.headers import encode_request
from kavka.protocol.messages.k03_metadata import MetadataRequest
from kavka.protocol.messages.k17_sasl_handshake import SaslHandshakeRequest
from kavka.protocol.messages.k18_api_versions import ApiVersionsRequest
from kavka.protocol.messages.k36_sasl_authenticate import SaslAuthenticateRequest
from tests.broker_process import BrokerProcess, free_port, running_broker
from tests.fuzz.bystander import Bystander
from tests.memory import MIB, peak_bytes

pytestmark = pytest.mark.fuzz

LOGINS = int(os.environ.get("KAVKA_FUZZ_LOGINS", "3000"))
SEED = int(
    os.environ.get("KAVKA_FUZZ_SEED", 1 if os.environ.get("CI") else secrets.randbelow(10**9))
)
AT_ONCE = 100
PATIENCE_SECONDS = 20.0
MEMORY_BYTES_MAX = 150 * MIB
OPEN_FILES_MARGIN = 20  # connections that are being closed right now
JAAS = (
    'org.apache.kafka.common.security.plain.PlainLoginModule required user_alice="the right one";'
)
MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER", "GSSAPI")
TOKENS = (
    *(b"\0alice\0wrong", b"\0nobody\0wrong", b"alice\0alice\0the right", b"\0\0", b"\x01"),
    *(b"n,,n=alice,r=nonce", b"n,a=x,n=alice,r=nonce,tokenauth=true", b"y,,n=alice,r=nonce"),
    *(
        b"c=biws,r=nonce,p=" + b"A" * 43 + b"=",
        b"c=biws,r=,p=",
        b"n,,\x01auth=Bearer e30.e30.\x01\x01",
    ),
)
FAILURE = re.compile(r"Traceback|^[-\d]+ [.:\d]+ (ERROR|FATAL)|never (awaited|retrieved)", re.M)


class Villain:
    """Makes what one connection sends."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def talk(self) -> list[bytes]:
        rng = self._random
        frames: list[bytes] = []
        if rng.random() < 0.7:
            versions = ApiVersionsRequest(client_software_name="x", client_software_version="1")
            frames.append(encode_request(18, rng.randrange(4), 1, "villain", versions))
        version = rng.randrange(2)
        if rng.random() < 0.95:
            handshake = SaslHandshakeRequest(mechanism=rng.choice(MECHANISMS))
            frames.append(encode_request(17, version, 2, "villain", handshake))
        for number in range(rng.randrange(1, 4)):
            frames.append(self._token(version, number))
        frames.append(encode_request(3, 1, 9, "villain", MetadataRequest(topics=None)))
        if rng.random() < 0.5:
            place = rng.randrange(len(frames))
            frames[place] = self._mutated(frames[place])
        return frames

    def _token(self, version: int, number: int) -> bytes:
        token = self._random.choice(TOKENS)
        if self._random.random() < 0.5:
            token = self._mutated(token)
        if not version:
            return struct.pack(">i", len(token)) + token
        body = SaslAuthenticateRequest(auth_bytes=token)
        return encode_request(36, self._random.randrange(3), 3 + number, "villain", body)

    def _mutated(self, data: bytes) -> bytes:
        rng = self._random
        changed = bytearray(data)
        for _ in range(rng.randrange(1, 4)):
            if changed:
                changed[rng.randrange(len(changed))] = rng.randrange(256)
        if rng.random() < 0.2:
            changed += rng.randbytes(rng.randrange(200))
        return bytes(changed[: rng.randrange(len(changed) + 1)] if rng.random() < 0.1 else changed)


async def attack(port: int) -> int:
    """Play all talks; the bytes that came back."""
    villain = Villain(SEED)
    talks = [villain.talk() for _ in range(LOGINS)]
    gate = asyncio.Semaphore(AT_ONCE)

    async def play(frames: list[bytes], pipelined: bool) -> int:
        async with gate:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            received = 0
            try:
                for frame in [b"".join(frames)] if pipelined else frames:
                    writer.write(frame)
                    if not pipelined:
                        async with asyncio.timeout(0.2):
                            received += len(await reader.read(1 << 16))
                writer.write_eof()
                async with asyncio.timeout(PATIENCE_SECONDS):
                    while data := await reader.read(1 << 16):
                        received += len(data)
            except (OSError, TimeoutError):
                pass
            finally:
                writer.close()
            return received

    return sum(await asyncio.gather(*(play(t, i % 2 == 0) for i, t in enumerate(talks))))


def open_files(broker: BrokerProcess) -> int:
    return len(list(Path(f"/proc/{broker.pid}/fd").iterdir()))


def test_broken_logins(tmp_path: Path) -> None:
    print(f"KAVKA_FUZZ_SEED={SEED} KAVKA_FUZZ_LOGINS={LOGINS}")
    port, plain = free_port(), free_port()
    settings = {
        "listeners": f"SASL://127.0.0.1:{port},PLAINTEXT://127.0.0.1:{plain}",
        "listener.security.protocol.map": "SASL:SASL_PLAINTEXT,PLAINTEXT:PLAINTEXT",
        "listener.name.sasl.plain.sasl.jaas.config": JAAS,
        "offsets.topic.num.partitions": "4",
        "num.partitions": "1",
        "log.level": "DEBUG",
        "max.connections.per.ip": "1000",
    }
    with running_broker(tmp_path / "data", settings) as broker:
        admin = AdminClient({"bootstrap.servers": broker.bootstrap})
        new = NewTopic("bystander", 1, 1)
        admin.create_topics([new])["bystander"].result(20)
        before = open_files(broker)
        with Bystander(broker.bootstrap, "bystander") as bystander:
            received = asyncio.run(attack(port))
        peak = peak_bytes(broker.pid)
        print(f"answers={received} bystander={bystander.consumed} peak={peak // MIB} MiB")
        assert received > LOGINS * 20
        assert bystander.consumed == bystander.produced > 0
        assert peak <= MEMORY_BYTES_MAX
        assert open_files(broker) <= before + OPEN_FILES_MARGIN
    log = broker.log()
    assert not FAILURE.search(log), FAILURE.findall(log)[:3]
    assert "authenticated principal" not in log
    assert "Login denied" in log
