"""The floors: what it costs this machine to do nothing but receive and write the same bytes.

:class:`PythonFloor` is a server that reads Produce frames from its connections, writes the bytes
it received to new pages of a file by one call, and answers each frame with a canned response.
:class:`CFloor` is the same as a C program that also computes a checksum, where there is a compiler.
Both speak enough of the protocol to be loaded by the same generator as a broker.
"""

import os
import select
import shutil
import socket
import subprocess
import tempfile
import traceback
from collections.abc import Mapping
from pathlib import Path
from struct import Struct
from typing import Final

from tests.broker_process import free_port

_BUFFER: Final = 1 << 18
_SIZE: Final = Struct(">i")
_FILE_LIMIT: Final = 1 << 30  # bytes before the file is begun again


def canned_answer(topic: str) -> bytes:
    """A whole Produce v7 response that says that all went well."""
    name = topic.encode()
    body = b"".join(
        (
            b"\0\0\0\1\0\0\0\1",
            len(name).to_bytes(2, "big") + name,
            b"\0\0\0\1\0\0\0\0\0\0",
            bytes(8) + b"\xff" * 8 + bytes(8) + bytes(4),
        )
    )
    return len(body).to_bytes(4, "big") + body


class PythonFloor:
    """A forked process; ``pid`` and ``bootstrap`` as a broker has them."""

    name = "Python floor"

    def __init__(self, settings: Mapping[str, str] | None = None, *, topic: str = "t") -> None:
        self._listener = socket.create_server(("127.0.0.1", free_port()))
        self.bootstrap = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.pid = 0
        self._topic = topic
        self._lifeline = -1
        self.directory = Path()  # it has none

    def prepare(self) -> None:
        pass

    def start(self) -> None:
        lifeline, self._lifeline = os.pipe()  # ends with this process, and the floor with it
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._lifeline)
            try:
                _serve(self._listener, canned_answer(self._topic), lifeline)
            except BaseException:
                traceback.print_exc()
            os._exit(0)
        os.close(lifeline)
        self._listener.close()

    def stop(self) -> None:
        if self.pid:
            os.close(self._lifeline)
            os.waitpid(self.pid, 0)
            self.pid = 0

    def remove(self) -> None:
        self.stop()


def _serve(listener: socket.socket, answer: bytes, lifeline: int) -> None:
    buffer = bytearray(_BUFFER + 4)
    view = memoryview(buffer)
    poll = select.epoll()
    poll.register(listener.fileno(), select.EPOLLIN)
    poll.register(lifeline, select.EPOLLIN)
    peers: dict[int, socket.socket] = {}
    left: dict[int, int] = {}  # bytes that a frame under way still lacks
    with tempfile.TemporaryFile() as file:
        descriptor = file.fileno()
        offset = 0
        while True:
            for number, _ in poll.poll():
                if number == listener.fileno():
                    peer, _address = listener.accept()
                    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    peers[peer.fileno()] = peer
                    left[peer.fileno()] = 0
                    poll.register(peer.fileno(), select.EPOLLIN)
                    continue
                if number == lifeline:
                    return
                peer = peers[number]
                count = peer.recv_into(view, _BUFFER)
                if not count:
                    poll.unregister(number)
                    peers.pop(number).close()
                    continue
                os.pwrite(descriptor, view[:count], offset)
                offset += count
                if offset > _FILE_LIMIT:
                    file.truncate(0)
                    offset = 0
                at, answers = left[number], 0
                while at <= count:
                    if at:
                        answers += 1
                    if at == count:
                        at = 0
                        break
                    if at + 4 > count:  # a size that was cut in two
                        count += peer.recv_into(view[count:], at + 4 - count, socket.MSG_WAITALL)
                    at += 4 + _SIZE.unpack_from(view, at)[0]
                else:
                    at -= count
                left[number] = at
                if answers:
                    peer.send(answer * answers)


_C_SOURCE: Final = r"""
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <nmmintrin.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

static unsigned char buffer[(1 << 18) + 8];
static long left[65536];

static uint32_t crc(const unsigned char *p, long n) {
    uint64_t c = 0xffffffff;
    for (; n >= 8; n -= 8, p += 8) c = _mm_crc32_u64(c, *(const uint64_t *)p);
    for (; n > 0; n--, p++) c = _mm_crc32_u8(c, *p);
    return ~c;
}

int main(int argc, char **argv) {
    int listener = atoi(argv[1]), file = atoi(argv[2]);
    unsigned char answer[512];
    long size = 0, offset = 0;
    volatile uint32_t sum = 0;
    for (char *p = argv[3]; *p; p += 2) {
        char digits[3] = {p[0], p[1], 0};
        answer[size++] = strtol(digits, 0, 16);
    }
    int poll = epoll_create1(0), one = 1;
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listener}, events[64];
    epoll_ctl(poll, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        int ready = epoll_wait(poll, events, 64, -1);
        for (int i = 0; i < ready; i++) {
            int fd = events[i].data.fd;
            if (fd == listener) {
                fd = accept(listener, 0, 0);
                setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
                event.data.fd = fd;
                epoll_ctl(poll, EPOLL_CTL_ADD, fd, &event);
                left[fd] = 0;
                continue;
            }
            long count = recv(fd, buffer, 1 << 18, 0);
            if (count <= 0) { close(fd); continue; }
            sum += crc(buffer, count);
            if (pwrite(file, buffer, count, offset) != count) return 1;
            offset += count;
            if (offset > 1L << 30) { if (ftruncate(file, 0)) return 1; offset = 0; }
            long at = left[fd], answers = 0;
            while (at <= count) {
                if (at) answers++;
                if (at == count) { at = 0; break; }
                uint32_t length;
                if (at + 4 > count)
                    count += recv(fd, buffer + count, at + 4 - count, MSG_WAITALL);
                memcpy(&length, buffer + at, 4);
                at += 4 + ntohl(length);
            }
            if (at > count) at -= count;
            left[fd] = at;
            while (answers-- > 0) send(fd, answer, size, answers ? MSG_MORE : 0);
        }
    }
}
"""


class CFloor:
    """The same in C, with a checksum over all bytes."""

    name = "C floor"

    def __init__(self, settings: Mapping[str, str] | None = None, *, topic: str = "t") -> None:
        self._listener = socket.create_server(("127.0.0.1", free_port()))
        self.bootstrap = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.pid = 0
        self._topic = topic
        self._process: subprocess.Popen[bytes] | None = None
        self.directory = Path(tempfile.mkdtemp(prefix="floor-bench-"))

    @staticmethod
    def available() -> bool:
        return shutil.which("cc") is not None and os.uname().machine == "x86_64"

    def prepare(self) -> None:
        pass

    def start(self) -> None:
        source, program = self.directory / "floor.c", self.directory / "floor"
        source.write_text(_C_SOURCE)
        subprocess.run(["cc", "-O2", "-msse4.2", "-o", program, source], check=True)
        with tempfile.TemporaryFile() as file:
            descriptors = self._listener.fileno(), file.fileno()
            self._process = subprocess.Popen(
                [program, *map(str, descriptors), canned_answer(self._topic).hex()],
                pass_fds=descriptors,
            )
        self.pid = self._process.pid
        self._listener.close()

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)
