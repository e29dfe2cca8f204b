import asyncio
import socket

from kavka.broker.listener_probe import Reached, probe
from kavka.protocol.messages.k06_update_metadata import (
    UpdateMetadataBroker,
    UpdateMetadataEndpoint,
    UpdateMetadataRequest,
)
from kavka.replication.metadata import MetadataCache


def cluster(addresses: dict[int, tuple[str, int] | None]) -> MetadataCache:
    metadata = MetadataCache("cluster")
    brokers = [
        UpdateMetadataBroker(
            id=broker,
            endpoints=[]
            if address is None
            else [UpdateMetadataEndpoint(listener="A", host=address[0], port=address[1])],
        )
        for broker, address in addresses.items()
    ]
    metadata.update(UpdateMetadataRequest(live_brokers=brokers))
    return metadata


def test_the_wrong_address_is_told_with_its_broker() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as first,
        socket.create_server(("127.0.0.1", 0)) as second,
        socket.socket() as closed,
    ):
        closed.bind(("127.0.0.1", 0))
        right = first.getsockname()
        shared = second.getsockname()
        wrong = closed.getsockname()
        told = {1: right, 2: wrong, 3: None, 4: ("no-such-host.invalid", 1), 5: shared, 6: shared}
        found = {each.broker: each for each in asyncio.run(probe(cluster(told), "A"))}
    assert found[1] == Reached(1, "127.0.0.1", right[1], None)
    assert found[2].port == wrong[1]
    assert found[2].problem is not None and "refused" in found[2].problem.lower()
    assert found[3].problem == "the broker does not have the listener A"
    assert found[4].problem is not None
    assert found[5].problem == found[6].problem == "brokers 5, 6 have the same address"


def test_who_does_not_answer_is_not_waited_for() -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        fillers = []
        for _ in range(3):  # the queue of the kernel is full, further ones hang
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
            fillers.append(filler)
        [found] = asyncio.run(probe(cluster({1: full.getsockname()}), "A", timeout=0.05))
        for filler in fillers:
            filler.close()
    assert found.problem == "nobody answers within 0.05 s"
