"""Many bad clients at once: each connects, sends its frames in its own bad manner, and goes.

One selector drives them all, so that the broker and not the test is what is busy.
"""

import errno
import random
import selectors
import socket
import struct
import time
from collections import deque
from enum import Enum
from typing import Final

from tests.fuzz.frames import Frames, decodes
from tests.fuzz.values import Values

AT_ONCE: Final = 60
"""Sessions that are sending or being answered at the same time."""

LINGERING: Final = 60
"""Silent and deaf connections that stay open beside them; the oldest makes room for a new one."""

AWAIT_SECONDS: Final = 0.1
"""How long a session that stays for its answers waits for a further one."""

FINISH_SECONDS: Final = 5.0
"""How long a session waits for the broker to close a connection with nothing left to answer."""

_READ: Final = selectors.EVENT_READ
_BOTH: Final = selectors.EVENT_READ | selectors.EVENT_WRITE
_HANG_UP_AT_ONCE: Final = struct.pack("ii", 1, 0)  # SO_LINGER: a reset instead of a goodbye
_ABANDONED: Final = (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN)


class Manner(Enum):
    """What a session does with its connection."""

    FINISH = "half-closes after its last frame and reads to the end"
    AWAIT = "stays for answers, then closes"
    RESET = "resets the connection at once"
    DRIP = "sends a few bytes at a time"
    DEAF = "sends and never reads"
    SILENT = "sends part of a frame, and never the rest"


_WEIGHTS: Final = {
    Manner.FINISH: 60,
    Manner.AWAIT: 20,
    Manner.RESET: 6,
    Manner.DRIP: 6,
    Manner.DEAF: 5,
    Manner.SILENT: 3,
}
_PIECES_MAX: Final = 200
_LINGERS: Final = (Manner.DEAF, Manner.SILENT)


class Plan:
    """What session ``index`` of a run does: a matter of the seed alone."""

    def __init__(self, seed: int, index: int, topic_ids: dict[str, bytes]) -> None:
        rng = random.Random(f"{seed}/{index}")
        frames = Frames(rng, Values(rng, topic_ids))
        self.index = index
        self.manner = rng.choices(list(_WEIGHTS), list(_WEIGHTS.values()))[0]
        self.frames: list[bytes] = []
        for _ in range(rng.choice((1, 2, 8, 16, 32))):
            self.frames.append(frames.any())
            # What comes behind an unreadable frame is not read; now and then it comes all the same.
            if not decodes(self.frames[-1]) and rng.random() < 0.9:
                break
        if self.manner is Manner.SILENT:
            last = frames.sound()
            self.frames.append(last[: rng.randrange(1, len(last))])
        size = sum(map(len, self.frames))
        self.piece = max(rng.choice((1, 3, 50)), size // _PIECES_MAX)
        if self.manner is not Manner.DRIP:
            self.piece = size


class _Session:
    def __init__(self, plan: Plan, port: int) -> None:
        self.plan = plan
        self.unsent = memoryview(b"".join(plan.frames))
        self.until = self._later()
        self.socket = socket.socket()
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.connect_ex(("127.0.0.1", port))

    def send(self) -> bool:
        """Send some more; False once everything has been sent."""
        while self.unsent:
            sent = self.socket.send(self.unsent[: self.plan.piece])
            self.unsent = self.unsent[sent:]
            if self.plan.manner is Manner.DRIP:
                break
        return bool(self.unsent)

    def heard(self) -> None:
        """Something has come or gone: there may be more."""
        self.until = self._later()

    def _later(self) -> float:
        patience = AWAIT_SECONDS if self.plan.manner is Manner.AWAIT else FINISH_SECONDS
        return time.monotonic() + patience

    def hang_up(self) -> None:
        if self.plan.manner is Manner.RESET:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _HANG_UP_AT_ONCE)
        self.socket.close()


class Attack:
    """Runs sessions against the broker at ``port`` until ``frames`` have been sent."""

    def __init__(self, port: int, seed: int, topic_ids: dict[str, bytes]) -> None:
        self._port = port
        self._seed = seed
        self._topic_ids = topic_ids
        self._selector = selectors.DefaultSelector()
        self._active: set[_Session] = set()
        self._lingering: deque[_Session] = deque()
        self.sessions = 0
        self.frames = 0
        self.received = 0  # bytes of answers
        self.unfinished: list[int] = []
        """Sessions that sent their last byte and saw no end of the connection."""
        self.by_port: dict[int, int] = {}
        """Local port → the session that last had it: the broker's log names the port."""

    def plan(self, index: int) -> Plan:
        """What a session of this run sent."""
        return Plan(self._seed, index, self._topic_ids)

    def run(self, frames: int) -> None:
        """Send at least ``frames`` frames, and see every session to its end."""
        while self.frames < frames or self._active:
            while self.frames < frames and len(self._active) < AT_ONCE:
                self._begin()
            for key, events in self._selector.select(0.02):
                self._step(key.data, events)
            now = time.monotonic()
            for session in [s for s in self._active if s.until < now]:
                if session.plan.manner is not Manner.AWAIT:
                    self.unfinished.append(session.plan.index)
                self._end(session)
        for session in list(self._lingering):
            self._end(session)

    def _begin(self) -> None:
        plan = self.plan(self.sessions)
        session = _Session(plan, self._port)
        self.by_port[session.socket.getsockname()[1]] = plan.index
        self.sessions += 1
        self.frames += len(plan.frames)
        self._active.add(session)
        self._selector.register(session.socket, _BOTH, session)

    def _step(self, session: _Session, events: int) -> None:
        try:
            if events & selectors.EVENT_WRITE:
                session.heard()
                if not session.send():
                    self._selector.modify(session.socket, _READ, session)
                    self._on_sent(session)
                    return
            if events & _READ:
                received = len(session.socket.recv(1 << 18))
                self.received += received
                session.heard()
                if not received:
                    self._end(session)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno not in _ABANDONED:
                raise
            self._end(session)

    def _on_sent(self, session: _Session) -> None:
        manner = session.plan.manner
        if manner is Manner.RESET:
            self._end(session)
        elif manner in _LINGERS:
            self._selector.unregister(session.socket)
            self._active.discard(session)
            self._lingering.append(session)
            if len(self._lingering) > LINGERING:
                self._end(self._lingering[0])
        elif manner in (Manner.FINISH, Manner.DRIP):
            session.socket.shutdown(socket.SHUT_WR)

    def _end(self, session: _Session) -> None:
        if session in self._active:
            self._active.discard(session)
            self._selector.unregister(session.socket)
        else:
            self._lingering.remove(session)
        session.hang_up()
