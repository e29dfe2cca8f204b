import contextlib
import socket
import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kavka.broker.buffers import FrameBuffers
from kavka.config.limits import RECEIVE_BUFFER_BYTES

from .conftest import Command, FileSlice, Network, answer, frame


def is_closed(client: socket.socket) -> bool:
    try:
        return client.recv(1) == b""
    except ConnectionResetError:
        return True


# -- framing -----------------------------------------------------------------------------


@pytest.mark.parametrize("payload", [0, 5, 1000, 1012, 1013, 5000])  # around the buffer's 1024
def test_a_frame_cut_anywhere_is_served_whole(network: Network, payload: int) -> None:
    client, _ = network.client()
    first, second = b"a" * payload, b"b" * 7
    data = frame(Command.ECHO, 1, first) + frame(Command.ECHO, 2, second)
    step = 1 if payload < 100 else 97
    for cut in range(0, len(data) + 1, step):
        got = network.exchange(client, data[:cut]) + network.exchange(client, data[cut:])
        assert got == answer(1, first) + answer(2, second)


@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    sizes=st.lists(st.integers(0, 3000), min_size=1, max_size=12),
    cuts=st.lists(st.integers(0, 20_000), max_size=12),
)
def test_any_frames_in_any_pieces(network: Network, sizes: list[int], cuts: list[int]) -> None:
    client, connection = network.client()
    payloads = [bytes([i]) * size for i, size in enumerate(sizes)]
    data = b"".join(frame(Command.ECHO, i, p) for i, p in enumerate(payloads))
    got = b""
    previous = 0
    for cut in [*sorted(cut for cut in cuts if cut < len(data)), len(data)]:
        got += network.exchange(client, data[previous:cut])
        previous = cut
    assert got == b"".join(answer(i, p) for i, p in enumerate(payloads))
    assert network.buffers.lent == 0
    connection.close()


def test_everything_that_arrived_together_is_answered_by_one_send(network: Network) -> None:
    client, connection = network.client()
    sends = []
    flush = type(connection._output).send
    client.sendall(b"".join(frame(Command.ECHO, i) for i in range(20)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(connection._output), "send", lambda *a: sends.append(1) or flush(*a))
        network.loop.settle()
    assert network.received(client) == b"".join(answer(i) for i in range(20))
    assert len(sends) == 1


def test_a_long_batch_gives_others_their_turn(make_network) -> None:
    network = make_network(receive_buffer=1 << 16)
    client, _ = network.client()
    client.sendall(b"".join(frame(Command.ECHO, i) for i in range(1000)))
    network.loop.turn()
    assert len(network.service.served) == 256
    network.loop.settle()
    assert network.received(client) == b"".join(answer(i) for i in range(1000))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (struct.pack(">i", -1), "-1 bytes is too small"),
        (struct.pack(">i", 0), "0 bytes is too small"),
        (struct.pack(">i", 7) + bytes(7), "7 bytes is too small"),
        (struct.pack(">i", (1 << 20) + 1), "exceeds socket.request.max.bytes=1048576"),
        (struct.pack(">i", 2**31 - 1) + b"x" * 2000, "exceeds socket.request.max.bytes"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "TLS handshake, but this listener"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "the peer speaks HTTP"),
        (frame(Command.MALFORMED, 1), "nonsense"),
        (frame(Command.DISCONNECT, 1), "no other way to say it"),
        (frame(Command.BOOM, 1), "a defect"),
    ],
)
def test_a_breach_closes_the_connection_with_one_line(network, lines, data, reason) -> None:
    client, connection = network.client()
    bystander, _ = network.client()
    client.sendall(data)
    network.loop.settle()
    assert connection.closed
    assert is_closed(client)
    [line] = lines()
    assert reason in line
    assert "peer=10.0.0.1:5001" in line
    assert network.exchange(bystander, frame(Command.ECHO, 9)) == answer(9)


def test_the_largest_frame_is_served(network: Network) -> None:
    client, _ = network.client()
    payload = bytes((1 << 20) - 8)
    assert network.exchange_all(client, frame(Command.ECHO, 1, payload)) == answer(1, payload)


def test_answers_before_a_breach_are_sent(network: Network, lines) -> None:
    client, _ = network.client()
    got = network.exchange(client, frame(Command.ECHO, 1) + frame(Command.MALFORMED, 2))
    assert got == answer(1)
    assert len(lines()) == 1


def test_tls_after_a_good_request_is_just_a_bad_size(network: Network, lines) -> None:
    client, connection = network.client()
    network.exchange(client, frame(Command.ECHO, 1))
    network.exchange(client, b"\x16\x03\x01\x02\x00")
    assert connection.closed
    assert "exceeds socket.request.max.bytes" in lines()[0]


# -- order -------------------------------------------------------------------------------


def test_answers_leave_in_request_order(network: Network) -> None:
    client, _ = network.client()
    sent = [frame(c, i) for i, c in enumerate([Command.PARK, Command.ECHO, Command.PARK])]
    assert network.exchange(client, b"".join(sent)) == b""
    assert network.service.served == [0, 1, 2]  # they do overlap
    network.complete(2, b"late")
    network.loop.settle()
    assert network.received(client) == b""
    network.complete(0, b"first")
    network.loop.settle()
    assert network.received(client) == answer(0, b"first") + answer(1) + answer(2, b"late")
    assert network.exchange(client, frame(Command.ECHO, 3)) == answer(3)


@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    commands=st.lists(
        st.sampled_from([Command.ECHO, Command.PARK, Command.EXCLUSIVE, Command.SILENT]),
        max_size=40,
    ),
    choices=st.randoms(use_true_random=False),
)
def test_any_schedule_of_completions_keeps_the_order(network, commands, choices) -> None:
    client, connection = network.client()
    network.service.parked.clear()
    network.service.served.clear()
    data = b"".join(frame(command, i) for i, command in enumerate(commands))
    got = network.exchange(client, data)
    while network.service.parked:
        correlation_id = choices.choice(sorted(network.service.parked))
        network.complete(correlation_id)
        del network.service.parked[correlation_id]
        network.loop.settle()
        got += network.received(client)
    assert network.service.served == list(range(len(commands)))
    assert got == b"".join(
        answer(i) for i, command in enumerate(commands) if command != Command.SILENT
    )
    assert connection.in_flight == 0
    connection.close()


def test_answers_ready_in_one_turn_leave_by_one_send(network: Network) -> None:
    client, _ = network.client()
    network.exchange(client, b"".join(frame(Command.PARK, i) for i in range(5)))
    for i in range(5):
        network.complete(i)
    assert network.received(client) == b""  # nothing leaves before the turn is over
    network.loop.settle()
    assert network.received(client) == b"".join(answer(i) for i in range(5))


def test_an_exclusive_request_lets_nothing_overtake_it(network: Network) -> None:
    client, _ = network.client()
    sent = frame(Command.EXCLUSIVE, 0) + frame(Command.ECHO, 1) + frame(Command.EXCLUSIVE, 2)
    assert network.exchange(client, sent + frame(Command.ECHO, 3)[:5]) == b""
    assert network.service.served == [0]
    network.complete(0)
    network.loop.settle()
    assert network.service.served == [0, 1, 2]
    assert network.received(client) == answer(0) + answer(1)
    assert network.exchange(client, frame(Command.ECHO, 3)[5:]) == b""
    assert network.service.served == [0, 1, 2]
    network.complete(2)
    network.loop.settle()
    assert network.received(client) == answer(2) + answer(3)


def test_a_failed_parked_request_closes_only_its_connection(network, lines) -> None:
    client, connection = network.client()
    bystander, _ = network.client()
    network.exchange(client, frame(Command.PARK, 1))
    network.service.parked[1].fail(RuntimeError("broken"))
    network.loop.settle()
    assert connection.closed
    assert "broken" in lines()[0]
    assert network.exchange(bystander, frame(Command.ECHO, 9)) == answer(9)


# -- bounds ------------------------------------------------------------------------------


def test_too_many_unanswered_requests_are_left_to_the_kernel(network: Network) -> None:
    client, _ = network.client()
    network.exchange(client, b"".join(frame(Command.PARK, i) for i in range(20)))
    assert network.service.served == list(range(8))
    for i in range(20):
        network.loop.settle()
        network.complete(i)
    network.loop.settle()
    assert network.received(client) == b"".join(answer(i) for i in range(20))


def test_a_slow_reader_cannot_make_the_broker_hoard_answers(network: Network) -> None:
    client, connection = network.client()
    size = 50_000
    requests = b"".join(frame(Command.BIG, i, b"%06d" % size) for i in range(500))
    client.sendall(requests)
    network.loop.settle()
    served = len(network.service.served)
    assert served < 50
    assert connection._output.memory < (1 << 16) + size + (1 << 18)
    network.read(client, 500 * (size + 8))
    assert len(network.service.served) == 500


def test_small_answers_that_nobody_reads_are_bounded_too(network: Network) -> None:
    client, connection = network.client(tcp=True)
    client.setblocking(False)
    requests = frame(Command.BIG, 1, b"100") * 1000
    rest = memoryview(requests)
    with contextlib.suppress(BlockingIOError):
        for _ in range(100_000):
            rest = rest[client.send(rest) :] or memoryview(requests)
            network.loop.settle()
    assert connection._output.memory < (1 << 16) + 10_000
    served = len(network.service.served)
    network.loop.settle()
    assert len(network.service.served) == served
    network.read(client, served * 108)
    network.loop.until(lambda: len(network.service.served) > served)


def test_ready_answers_behind_a_parked_request_are_bounded(make_network) -> None:
    network = make_network(in_flight=1000)
    client, connection = network.client()
    requests = b"".join(frame(Command.BIG, i, b"50000") for i in range(1, 100))
    network.exchange(client, frame(Command.PARK, 0) + requests)
    assert len(network.service.served) < 10
    network.complete(0)
    network.read(client, 8 + 99 * 50_008)
    assert connection._ready == 0


def test_late_answers_behind_a_parked_request_are_bounded(make_network) -> None:
    network = make_network(in_flight=1000)
    client, connection = network.client()
    network.exchange(client, b"".join(frame(Command.PARK, i) for i in range(10)))
    for i in range(9, 0, -1):
        network.complete(i, bytes(10_000))
    assert connection._ready == 9 * 10_008
    assert network.exchange(client, frame(Command.ECHO, 10)) == b""
    assert 10 not in network.service.served, "too many answers wait already"
    network.complete(0)
    network.loop.settle()
    expected = answer(0) + b"".join(answer(i, bytes(10_000)) for i in range(1, 10)) + answer(10)
    assert network.read(client, len(expected)) == expected
    assert connection._ready == 0


def test_a_failure_waits_for_the_answers_before_it(network: Network, lines) -> None:
    client, connection = network.client()
    network.exchange(client, frame(Command.PARK, 1) + frame(Command.PARK, 2))
    network.service.parked[2].fail(ValueError("a defect"))
    assert not connection.closed
    network.complete(1)
    network.loop.settle()
    assert network.received(client) == answer(1)
    assert connection.closed


def test_idle_connections_are_closed_and_busy_ones_are_not(make_network, lines) -> None:
    network = make_network(idle=10.0)
    idle, idle_connection = network.client()
    _, waiting = network.client()
    busy, busy_connection = network.client()
    network.exchange(network.clients[1], frame(Command.PARK, 1))
    for _ in range(6):
        network.clock.advance(2.0)
        network.hub.sweep()
        assert network.exchange(busy, frame(Command.ECHO, 2)) == answer(2)
    assert idle_connection.closed
    assert not waiting.closed
    assert not busy_connection.closed
    assert is_closed(idle)
    assert "idle for longer than connections.max.idle.ms" in lines()[0]


def test_the_hub_looks_for_idle_connections_by_itself(make_network) -> None:
    network = make_network(idle=10.0)
    _, connection = network.client()
    network.hub.start()
    for _ in range(5):
        network.clock.advance(3.0)
        network.loop.fire_timers()
    assert connection.closed


def test_large_frames_wait_for_memory_and_get_it(make_network) -> None:
    network = make_network(budget=400_000)
    requests = [frame(Command.ECHO, i, bytes(300_000)) for i in range(3)]
    clients = [network.client()[0] for _ in requests]
    for client, request in zip(clients, requests, strict=True):
        network.send(client, request[:150_000])
    assert network.buffers.contended
    assert network.buffers.lent <= 400_000
    # The oldest gets all it needs, and then the next is the oldest.
    for i, (client, request) in enumerate(zip(clients, requests, strict=True)):
        network.send(client, request[150_000:])
        assert network.read(client, 300_008) == answer(i, bytes(300_000))
    network.loop.settle()
    assert network.buffers.lent == 0
    assert not network.buffers.contended


def test_who_announces_and_does_not_send_is_in_nobodys_way(make_network) -> None:
    network = make_network(max_frame=1 << 27, budget=1 << 27)
    before = resident_bytes()
    for _ in range(50):
        client, _ = network.client()
        network.exchange(client, struct.pack(">i", 1 << 27) + b"x" * 5000)
    assert resident_bytes() - before < 1 << 24
    large = frame(Command.ECHO, 1, bytes(1 << 22))
    client, _ = network.client()
    assert network.exchange_all(client, large) == answer(1, bytes(1 << 22))
    assert not network.buffers.contended


def test_a_frame_that_hardly_arrives_gives_way(make_network, lines) -> None:
    network = make_network(budget=200_000, idle=600.0)
    slow, slow_connection = network.client()
    request = frame(Command.ECHO, 1, bytes(250_000))
    network.send(slow, request[:140_000])

    def sweep() -> None:
        network.clock.advance(5)
        network.hub.sweep()

    for _ in range(3):
        sweep()
    assert not slow_connection.closed  # nobody minds
    waiter, waiting = network.client()
    other = frame(Command.ECHO, 2, bytes(150_000))
    network.exchange(waiter, other[:2000])
    assert network.buffers.contended
    sweep()
    network.send(slow, request[140_000:241_000])
    sweep()
    assert not slow_connection.closed  # it does arrive
    network.exchange(slow, request[241_000:242_000])
    sweep()
    assert slow_connection.closed
    assert "hardly arrives" in lines()[0]
    assert not waiting.closed  # it was not its own fault
    network.loop.settle()
    network.send(waiter, other[2000:])
    assert network.read(waiter, 150_008) == answer(2, bytes(150_000))


def test_who_leaves_while_waiting_for_memory_is_noticed(make_network) -> None:
    network = make_network(budget=100_000)
    holder, _ = network.client()
    network.exchange(holder, frame(Command.ECHO, 1, bytes(300_000))[:2000])
    waiter, waiting = network.client()
    waiter.sendall(frame(Command.ECHO, 2, bytes(80_000))[:1000])
    waiter.shutdown(socket.SHUT_WR)
    network.loop.settle()
    assert waiting.closed


def test_a_frame_in_work_counts_as_lent(make_network) -> None:
    network = make_network(budget=200_000)
    client, connection = network.client()
    network.send(client, frame(Command.HOLD, 1, bytes(150_000)))
    assert network.buffers.lent == 150_008
    network.complete(1)
    assert network.buffers.lent == 0
    # One whose client has gone counts until its handler is done with it.
    network.send(client, frame(Command.HOLD, 2, bytes(150_000)))
    client.close()
    network.loop.settle()
    assert connection.closed
    assert network.buffers.lent == 150_008
    network.complete(2)
    assert network.buffers.lent == 0


def resident_bytes() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * 4096


def test_a_kept_frame_is_not_used_again(network: Network) -> None:
    client, _ = network.client()
    network.exchange(client, frame(Command.KEEP, 1, b"k" * 3000))
    assert network.exchange(client, frame(Command.ECHO, 2, b"e" * 3000)) == answer(2, b"e" * 3000)
    assert bytes(network.service.kept[0][8:]) == b"k" * 3000
    assert network.buffers.lent == 0


# -- the end -----------------------------------------------------------------------------


def test_a_peer_that_half_closes_still_gets_what_is_ready(network: Network) -> None:
    client, connection = network.client(tcp=True)
    client.sendall(frame(Command.ECHO, 1) + frame(Command.BIG, 2, b"3000000"))
    client.shutdown(socket.SHUT_WR)
    got = network.read(client, 8 + 8 + 3_000_000)
    network.loop.until(lambda: connection.closed)
    assert got.startswith(answer(1))


def test_a_leaving_peer_releases_its_parked_requests(network: Network, lines) -> None:
    client, connection = network.client()
    network.exchange(client, frame(Command.PARK, 1) + frame(Command.PARK, 2))
    gone = []
    network.service.parked[1].on_disconnect(lambda: gone.append(1))
    client.close()
    network.loop.until(lambda: connection.closed)
    assert gone == [1]
    assert network.service.parked[1].cancelled
    network.complete(1)  # too late, and harmless
    network.complete(2)
    network.loop.settle()
    assert lines() == []  # peers may leave


def test_a_peer_that_leaves_an_exclusive_request_is_noticed(network: Network) -> None:
    client, connection = network.client()
    network.exchange(client, frame(Command.EXCLUSIVE, 1))
    client.close()
    network.loop.until(lambda: connection.closed)
    assert network.service.parked[1].cancelled


def test_requests_sent_before_leaving_are_served(network: Network) -> None:
    client, connection = network.client()
    network.exchange(client, frame(Command.EXCLUSIVE, 1) + frame(Command.SILENT, 2))
    client.close()
    network.loop.settle()
    assert network.service.served == [1]
    network.complete(1)
    network.loop.until(lambda: connection.closed)
    assert network.service.served == [1, 2]


def test_a_reset_peer_is_forgotten_silently(network: Network, lines) -> None:
    client, connection = network.client(tcp=True)
    network.exchange(client, frame(Command.PARK, 1))
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    network.loop.until(lambda: connection.closed)
    assert network.service.parked[1].cancelled
    assert lines() == []
    assert network.hub.connections == set()


# -- slices ------------------------------------------------------------------------------


@pytest.mark.parametrize("tcp", [False, True])
def test_slices_are_sent_from_their_files(network: Network, tmp_path, tcp: bool) -> None:
    path = tmp_path / "segment"
    content = bytes(i * 7 % 251 for i in range(3_000_000))
    path.write_bytes(content)
    spans = [(10, 100), (200, 2_500_000), (5, 0), (2_000_000, 20_000)]
    network.service.slices = [FileSlice(str(path), at, size) for at, size in spans]
    expected = b"".join(content[at : at + size] for at, size in spans)
    client, _ = network.client(tcp)
    client.sendall(frame(Command.ECHO, 1) + frame(Command.SLICE, 2) + frame(Command.ECHO, 3))
    want = answer(1) + answer(2, expected) + answer(3)
    assert network.read(client, len(want)) == want


def test_a_slice_whose_file_got_shorter_closes_the_connection(network, tmp_path, lines) -> None:
    path = tmp_path / "segment"
    path.write_bytes(bytes(20_000))
    network.service.slices = [FileSlice(str(path), 0, 50_000)]
    client, connection = network.client()
    network.exchange(client, frame(Command.SLICE, 1))
    assert connection.closed
    assert "shorter than the slice" in lines()[0]


def test_a_large_frame_is_granted_what_the_shared_buffer_may_have_of_it() -> None:
    for size in (RECEIVE_BUFFER_BYTES - 1, RECEIVE_BUFFER_BYTES, 1 << 24):
        loan = FrameBuffers(1 << 26, 1 << 26).take(size)
        assert loan is not None
        assert loan.granted >= min(size, RECEIVE_BUFFER_BYTES)
